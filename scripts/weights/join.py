"""Join the weights of two training runs into the one file that detection uses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from custom_transforms.volumes.rescale import TOLERANCE
from scripts.console import tell
from scripts.networks import join_state_dicts, network_part, read_state_dict, save_tensors
from scripts.records.weights import Part, WeightsRecord, file_digest, read_record, write_record

__all__ = ["compact", "join"]

NETWORKS = {"mask": "MaskNet", "center": "CenterNet"}
METRICS = {"mask": "val_mask_dice", "center": "val_center_f1"}  # of configs/train_*.json


def join(mask: str, center: str, output: str = "runs/model.pt", voxel_size: float | None = None) -> None:
    """Join the weights of MaskNet and CenterNet into one file.

    Kernels are stored in float16, at half the size; networks compute as before. A .json beside the file keeps what the
    two runs recorded: data, voxel size, best epoch, score, seed. Detection with these weights follows its settings.

    example: python -m scripts join runs/mask/model.pt runs/center/model.pt --output runs/model.pt

    Parameters
    ----------
    mask : str
        model.pt of a training with configs/train_mask.json; or joined weights, whose MaskNet is taken.
    center : str
        model.pt of a training with configs/train_center.json, or joined weights.
    output : str
        Weights file to write.
    voxel_size : float
        Å per voxel the networks were trained at, where the runs do not say it.
    """
    paths = {"mask": Path(mask).expanduser(), "center": Path(center).expanduser()}
    states, runs, digests = {}, {}, {}
    for name, path in paths.items():
        states[name], runs[name], digests[name] = _network(name, path)
    if digests["mask"] == digests["center"]:
        raise ValueError(f"{center}: expected the weights of CenterNet, got the same as MaskNet's ({mask}).")
    for name, path in paths.items():
        _check_network(name, path, runs[name])
    state = compact(join_state_dicts(states["mask"], states["center"]))
    size = _voxel_size(runs, voxel_size)
    target = Path(output).expanduser()
    save_tensors(target, state)
    parts = {name: {"sha256": digests[name], "run": run.content() or None} for name, run in runs.items()}
    settings: dict[str, Any] = {} if size is None else {"voxel_size_model": size}
    settings |= {"classes": classes} if (classes := runs["center"].training.classes) else {}
    write_record(target, WeightsRecord.model_validate({"settings": settings, **parts}))
    count = sum(value.numel() for value in state.values())
    tell(f"{target}: {count:,} numbers of both networks", written=[target, target.with_suffix(".json")], numbers=count)


def _network(name: str, path: Path) -> tuple[dict[str, torch.Tensor], WeightsRecord, str]:
    """Weights of a run, its record, and the sha256 of its file; of joined weights, those of the network's own run."""
    state, record, digest = read_state_dict(path), read_record(path), file_digest(path)
    own = network_part(state, f"{name}_network", path)
    if own is state:
        return state, record, digest
    part = (record.mask if name == "mask" else record.center) or Part()
    run = part.run or WeightsRecord()
    if run.voxel_size is None:
        run = run.changed(training={**run.training.content(), "voxel_size": record.voxel_size})
    return own, run, part.sha256 or digest


def _check_network(name: str, path: Path, run: WeightsRecord) -> None:
    """Refuse the other network, which would fit by its shapes and detect nonsense."""
    if run.metric == METRICS["center" if name == "mask" else "mask"]:
        raise ValueError(
            f"{path}: expected the weights of {NETWORKS[name]}, but the record beside them says {run.metric}, the "
            "score of the other network. Give the file of MaskNet first, then the one of CenterNet."
        )


def _voxel_size(runs: Mapping[str, WeightsRecord], given: float | None) -> float | None:
    known = {name: record.voxel_size for name, record in runs.items()}
    sizes = [given] if given is not None else [size for size in known.values() if size is not None]
    if any(not size > 0 for size in sizes):
        raise ValueError(f"--voxel_size: expected Å per voxel above 0, got {given}.")
    if sizes and max(sizes) / min(sizes) - 1 > TOLERANCE:
        listed = ", ".join(f"{name} {size:g} Å" for name, size in known.items())
        raise ValueError(f"expected two networks of one voxel size, got {listed}. Train both on the same data.")
    return sizes[0] if sizes else None


def compact(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Store the kernels in float16: half the size, each number right to 0.05 %.

    Biases and the numbers of the norms, which may be of any size, stay as they are; so does a kernel that float16
    cannot hold.

    Examples
    --------
    >>> state = compact({"conv.weight": torch.full((2, 3), 0.1), "norm.running_var": torch.full((2,), 1e-9)})
    >>> [value.dtype for value in state.values()]
    [torch.float16, torch.float32]
    """
    halved = {
        name: value.half() if value.is_floating_point() and value.ndim > 1 else value for name, value in state.items()
    }
    return {name: half if half.isfinite().all() else state[name] for name, half in halved.items()}
