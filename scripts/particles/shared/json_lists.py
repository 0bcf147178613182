"""What the JSON formats share: points, matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

__all__ = ["point_xyz", "rotation_from_matrices"]


def point_xyz(location: Any, path: Path, format_name: str, number: int) -> list[float]:
    """x, y, z of ``{"x": 1, "y": 2, "z": 3}``; an error names the point (from 1)."""
    try:
        values = [float(location[axis]) for axis in "xyz"]
    except (TypeError, KeyError, ValueError):
        values = [np.nan]
    if not np.isfinite(values).all():
        raise ValueError(
            f"{path}: {format_name} point {number}: expected location with numbers x, y, z, got {location!r}."
        )
    return values


def rotation_from_matrices(matrices: list, path: Path, format_name: str) -> Rotation | None:
    """Rotations of n 3 x 3 matrices; None if all are the identity, which stands for 'not known'."""
    try:
        array = np.array(matrices, dtype=np.float64).reshape(len(matrices), 3, 3)
    except (TypeError, ValueError):
        raise ValueError(f"{path}: {format_name}: expected a 3 x 3 matrix of numbers for every point.") from None
    if len(array) == 0 or np.allclose(array, np.eye(3)):
        return None
    product = np.einsum("nij,nkj->nik", array, array)
    good = np.abs(product - np.eye(3)).max(axis=(1, 2)) < 1e-2
    bad = np.flatnonzero(~(good & (np.linalg.det(np.nan_to_num(array)) > 0)))
    if bad.size:
        raise ValueError(
            f"{path}: {format_name} point {bad[0] + 1}: its matrix is not a rotation: {array[bad[0]].tolist()}."
        )
    return Rotation.from_matrix(array)
