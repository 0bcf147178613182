"""What is refused before any work: masks of another shape, and devices that are not there."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from custom_transforms.volumes.mrc_read import mrc_geometry
from scripts.settings import check_setting

__all__ = ["check_device", "check_mask"]


def check_mask(path: str | Path, shape_zyx: tuple[int, int, int] | None) -> None:
    """Refuse a mask or region that is missing or, by its MRC header, of another shape than the tomogram (None: any).

    Raises
    ------
    FileNotFoundError, ValueError
        Names the file, and both shapes.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file. Check the path.")
    own = mrc_geometry(path)
    if shape_zyx is not None and own is not None and own[0] != shape_zyx:
        raise ValueError(
            f"{path}: expected a volume of the tomogram's shape (Z, Y, X) {shape_zyx}, got {own[0]}. "
            "Give one made on this tomogram, at the same binning."
        )


def check_device(device: str | torch.device) -> None:
    """Refuse a GPU that is not there; warn of one that is there and unused.

    Raises
    ------
    ValueError
        If the device is unknown or missing.
    """
    check_setting("device", device)
    kind = torch.device(device)
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind.type == "cuda" and (kind.index or 0) >= available:
        raise ValueError(
            f"--device {device}: {available} GPUs are visible to PyTorch. Use --device cpu, or fix the driver."
        )
    if kind.type == "cpu" and available:
        warnings.warn(
            f"{available} GPUs are there and unused: leave --device out to use one", UserWarning, stacklevel=2
        )
