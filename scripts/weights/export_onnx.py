"""Export the networks to ONNX, for programs that run networks without PyTorch."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import nn

from custom_transforms.files.json_object import read_object
from custom_transforms.files.whole_files import atomic_path
from scripts.console import tell
from scripts.networks import load_weights
from scripts.records.trust import trusted_root
from scripts.records.weights import read_record
from scripts.tiling.tiles import tile_of

__all__ = ["TOLERANCE", "export_onnx", "largest_difference", "write_onnx"]

TOLERANCE = 1e-4  # times the largest output: other libraries add in another order
OPSET = 18


def export_onnx(
    output: str = "model.onnx",
    weights: str | None = None,
    bundle: str | None = None,
    trust: bool = False,
    config: str | None = None,
    tile: tuple[int, ...] = (96, 96, 96),
) -> None:
    """Write the networks as ONNX, and check the file against PyTorch on random input.

    Input "image" (batch, 1, Z, Y, X), float32: a tile of a z-scored tomogram, protein bright. Output "pred" (batch, 2,
    Z, Y, X): the mask's logit and the center map. Batch is free, the tile is fixed. Needs: pip install onnx onnxruntime
    onnxscript.

    example: python -m scripts export_onnx --output model.onnx

    Parameters
    ----------
    output : str
        File to write.
    weights : str
        Trained networks (.pt); by default the ones that come along, models/model.pt.
    bundle : str
        A bundle, zip or folder, whose networks are exported instead. Its config is code.
    trust : bool
        Let that bundle run here, from now on.
    config : str
        JSON with another network_def, laid over configs/inference.json.
    tile : int
        Voxels Z,Y,X of the input, each a multiple of 16 for the networks of the config.
    """
    if weights is not None and bundle is not None:
        raise ValueError("give --weights or --bundle: a bundle brings its own weights.")
    root = trusted_root(bundle, trust)
    values = json.loads((root / "configs" / "inference.json").read_text(encoding="utf-8"))
    values.update(read_object(config, "a config file (JSON)") if config is not None else {})
    path = root / "models" / "model.pt" if weights is None else Path(weights)
    record = read_record(path)
    values["classes"] = values.get("classes") or record.detection_settings().get("classes")
    network = ConfigParser(values).get_parsed_content("network_def")
    load_weights(network, path, classes=values["classes"])
    voxel_size = record.voxel_size
    sides = tile_of(tile)
    difference = write_onnx(network, output, sides, {"voxel_size_angstrom": voxel_size, "contrast": "protein bright"})
    tell(
        f"{output}: tiles of {' x '.join(map(str, sides))}; PyTorch's output to {difference:.1g} of its largest value",
        written=[output],
        difference=difference,
    )


def write_onnx(
    network: nn.Module, output: str | Path, tile: list[int], metadata: dict[str, Any] | None = None
) -> float:
    """Export a network, compare the file with it, and keep the file only if they agree.

    Parameters
    ----------
    network : nn.Module
        (B, 1, Z, Y, X) to (B, 2, Z, Y, X); put in inference mode.
    output : path
    tile : list of 3 ints
    metadata : dict, optional
        Written into the file, values as text; None values are left out.

    Returns
    -------
    float
        See `largest_difference`; at most `TOLERANCE`.

    Raises
    ------
    ImportError
        If onnx, onnxruntime or onnxscript are not installed.
    ValueError
        If the network does not take such a tile, or the outputs differ by more.
    """
    onnx = _packages()["onnx"]
    example = torch.randn(2, 1, *tile, generator=torch.Generator().manual_seed(0))
    network = network.cpu().eval()
    try:
        with torch.no_grad():
            network(example)
    except RuntimeError as error:
        raise ValueError(f"--tile: the network takes no tile of {tile} ({error}). Try multiples of 32.") from error
    with atomic_path(output) as temporary:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["pred"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        if program is None:
            raise RuntimeError("torch.onnx.export gave no program: expected one with dynamo=True.")
        model = program.model_proto
        for key, value in (metadata or {}).items():
            if value is not None:
                model.metadata_props.add(key=key, value=str(value))
        onnx.save(model, str(temporary))
        difference = largest_difference(network, temporary, tile)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{output}: ONNX and PyTorch differ by {difference:.2g} of the largest output. Not written."
            )
    return difference


def largest_difference(network: nn.Module, path: str | Path, tile: list[int], seed: int = 1) -> float:
    """Compare an ONNX file with its network on one random tile: the largest difference over the largest output."""
    image = torch.randn(1, 1, *tile, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = network(image).numpy()
    session = _packages()["onnxruntime"].InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(None, {"image": image.numpy()})[0]
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def _packages() -> dict[str, Any]:
    found = {}
    for name in ("onnx", "onnxruntime", "onnxscript"):
        try:
            found[name] = importlib.import_module(name)
        except ImportError as error:
            raise ImportError(f"ONNX needs the package {name}: pip install onnx onnxruntime onnxscript.") from error
    return found
