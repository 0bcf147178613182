"""Checks of the networks: weights, shapes, and the two ways to export, with equal outputs."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from .common import Case

__all__ = ["check_export", "check_net_in_out", "check_torchscript", "check_weights", "example_input", "load_network"]

TOLERANCE = 1e-5  # times the largest output: exported operations may add in another order
CONFIG = "configs/inference.json"


def check_weights(case: Case) -> str:
    """A flat state dict of CPU tensors, all finite, that fits network_def exactly."""
    places: set[str] = set()

    def remember(storage: Any, place: str) -> Any:
        places.add(place)
        return storage

    state = torch.load(case.path("models/model.pt"), map_location=remember, weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("expected a flat state dict (names to tensors) in models/model.pt")
    if places - {"cpu"}:
        raise ValueError(f"expected CPU tensors, got {', '.join(sorted(places))}: they cannot be loaded elsewhere")
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ValueError(f"weights that are NaN or infinite: {', '.join(broken[:3])}")
    load_network(case)
    return f"{sum(value.numel() for value in state.values()):,} numbers"


def check_net_in_out(case: Case) -> str:
    """The network takes and gives what metadata says (MONAI's own check)."""
    from monai.bundle import verify_net_in_out

    logging.disable(logging.CRITICAL)
    verify_net_in_out(
        net_id="network_def",
        meta_file=case.path("configs/metadata.json"),
        config_file=case.path(CONFIG),
        device="cpu",
        bundle_root=str(case.root),
    )
    return f"takes {list(example_input(case).shape)}"


def check_torchscript(case: Case) -> str:
    """MONAI's ckpt_export works, its file gives the network's output, and a shipped model.ts can be loaded."""
    from monai.bundle import ckpt_export

    logging.disable(logging.CRITICAL)
    shipped = case.root / "models" / "model.ts"
    if shipped.is_file():
        torch.jit.load(str(shipped), map_location="cpu")
    path = case.work / "model.ts"
    ckpt_export(
        net_id="network_def",
        filepath=str(path),
        ckpt_file=case.path("models/model.pt"),
        meta_file=case.path("configs/metadata.json"),
        config_file=case.path(CONFIG),
        bundle_root=str(case.root),
    )
    return _compare(case, torch.jit.load(str(path), map_location="cpu").eval())


def check_export(case: Case) -> str:
    """torch.export works, saved and read again, and gives the network's output."""
    program = torch.export.export(load_network(case), (example_input(case),))
    path = case.work / "model.pt2"
    torch.export.save(program, str(path))
    return _compare(case, torch.export.load(str(path)).module())


def load_network(case: Case) -> nn.Module:
    """Build network_def with the bundle's weights, for inference."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(case.path(CONFIG))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(case.path("models/model.pt"), map_location="cpu", weights_only=True))
    return network.eval()


def example_input(case: Case) -> torch.Tensor:
    """Random numbers in the shape that metadata gives for the input, batch 1."""
    image = case.metadata["network_data_format"]["inputs"]["image"]
    sides = [int(side) for side in image["spatial_shape"]]
    return torch.randn(1, image["num_channels"], *sides, generator=torch.Generator().manual_seed(0))


def _compare(case: Case, exported: Any) -> str:
    image = example_input(case)
    with torch.no_grad():
        expected, got = load_network(case)(image), exported(image)
    if got.shape != expected.shape:
        raise ValueError(f"expected an output of shape {list(expected.shape)}, got {list(got.shape)}")
    difference, limit = float((got - expected).abs().max()), TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= limit:
        raise ValueError(f"outputs differ by up to {difference:.2g}, expected at most {limit:.2g}")
    return "equal outputs" if difference == 0 else f"outputs differ by at most {difference:.1g}"
