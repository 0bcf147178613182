"""What is refused before any work: masks of another shape."""

from __future__ import annotations

from pathlib import Path

from custom_transforms.volumes.mrc_read import mrc_geometry

__all__ = ["check_mask"]


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
