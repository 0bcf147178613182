"""Rescale: a tomogram to the voxel size its networks were trained at, and their maps back to its own voxels.

Both grids cover the same box: voxel i of n lies at the fraction (i + 0.5) / n of it, so nothing shifts on the way
there and back. Interpolation is torch's cubic one. Volumes are worked on a few planes at a time, so they may lie in a
file, and the cut into slabs changes no value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from custom_transforms.units import as_voxel_size_zyx, voxel_size_text

__all__ = ["TOLERANCE", "model_shape", "needs_rescaling", "rescale_volume", "rescaled_slabs"]

TOLERANCE = 0.05  # voxel sizes that differ by less are left alone: particles of one kind differ as much
LARGEST_FACTOR = 20  # between voxel sizes; beyond it one of them is a mistake
# An image is averaged where voxels get larger, so that its noise is not aliased. A map is sampled as it is: averaging,
# or linear interpolation, would lower the peaks of small particles below a threshold chosen on the networks' voxels.
ANTIALIAS = {"image": True, "map": False}
PLANES = 8


def needs_rescaling(voxel_size_zyx: np.ndarray, voxel_size_model: float | Sequence[float] | None) -> bool:
    """Whether voxel sizes differ by more than 5 % on an axis; False where the networks' is not known (None)."""
    return bool(np.abs(_ratio(voxel_size_zyx, voxel_size_model) - 1).max() > TOLERANCE)


def _ratio(voxel_size_zyx: np.ndarray, voxel_size_model: float | Sequence[float] | None) -> np.ndarray:
    if voxel_size_model is None:
        return np.ones(3)
    return as_voxel_size_zyx(voxel_size_zyx) / as_voxel_size_zyx(voxel_size_model)  # type: ignore[arg-type]


def model_shape(
    shape_zyx: Sequence[int], voxel_size_zyx: np.ndarray, voxel_size_model: float | Sequence[float] | None
) -> tuple[int, int, int]:
    """The shape in which the networks should see a tomogram.

    Parameters
    ----------
    shape_zyx : sequence of 3 ints
    voxel_size_zyx : ndarray, shape (3,)
        The tomogram's, Å along Z, Y, X.
    voxel_size_model : float, sequence of 3 floats or None
        What the networks were trained at, Å; None leaves the shape.

    Returns
    -------
    tuple of 3 ints
        The same shape if no axis differs by more than 5 %.

    Raises
    ------
    ValueError
        If voxel sizes are more than a factor of 20 apart, or fewer than 2 voxels would be left on an axis.

    Examples
    --------
    >>> model_shape((100, 200, 300), np.full(3, 5.0), 10.0)
    (50, 100, 150)
    >>> model_shape((100, 200, 300), np.full(3, 9.8), 10.0)
    (100, 200, 300)
    """
    z, y, x = (int(side) for side in shape_zyx)
    if not needs_rescaling(voxel_size_zyx, voxel_size_model):
        return z, y, x
    ratio = _ratio(voxel_size_zyx, voxel_size_model)
    seen = [round(side * one) for side, one in zip((z, y, x), ratio, strict=True)]
    if max(ratio.max(), 1 / ratio.min()) > LARGEST_FACTOR or min(seen) < 2:
        raise ValueError(
            f"voxel size: expected one near the networks' {voxel_size_text(voxel_size_model)}, got "  # type: ignore[arg-type]
            f"{voxel_size_text(voxel_size_zyx)}: {z} x {y} x {x} voxels would be rescaled to "
            f"{' x '.join(map(str, seen))}. Give the true one with --voxel_size, or --keep_voxel_size."
        )
    return seen[0], seen[1], seen[2]


def rescale_volume(volume: Any, shape_zyx: Sequence[int], kind: str = "image") -> torch.Tensor:
    """Interpolate a volume onto a grid of another shape over the same box.

    Parameters
    ----------
    volume : tensor or array-like, shape (Z, Y, X), real
        Only read, a few planes at a time.
    shape_zyx : sequence of 3 ints
        The new shape.
    kind : {"image", "map"}
        Averaged over the new voxels, or sampled at their centers. Both may leave the range of the values a little.

    Returns
    -------
    tensor, shape ``shape_zyx``, float32

    Examples
    --------
    >>> rescale_volume(torch.arange(8.0).reshape(2, 2, 2), (1, 1, 1), "map").item()
    3.5
    """
    z, y, x = (int(side) for side in shape_zyx)
    result = torch.empty((z, y, x))
    for first, last, planes in rescaled_slabs(volume, shape_zyx, kind):
        result[first:last] = planes
    return result


def rescaled_slabs(
    volume: Any, shape_zyx: Sequence[int], kind: str = "image"
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """`rescale_volume`, a few planes at a time: yields first plane, last plane, and the planes between."""
    height, width = int(shape_zyx[1]), int(shape_zyx[2])
    weights = _weights(int(volume.shape[0]), int(shape_zyx[0]), kind)
    ready: dict[int, torch.Tensor] = {}  # planes of the old volume with their new height and width
    for first in range(0, int(shape_zyx[0]), PLANES):
        last = min(first + PLANES, int(shape_zyx[0]))
        used = np.flatnonzero(weights[first:last].any(axis=0))
        ready = {z: plane for z, plane in ready.items() if z >= used[0]}
        missing = [z for z in range(used[0], used[-1] + 1) if z not in ready]
        if missing:
            block = torch.as_tensor(volume[missing[0] : missing[-1] + 1]).float()
            if block.shape[1:] != (height, width):
                block = _resize(block, height, width, kind)
            ready.update(zip(missing, block, strict=True))
        planes = torch.zeros((last - first, height, width))
        for row, target in zip(weights[first:last], planes, strict=True):
            for z in np.flatnonzero(row):  # one plane after the other: the same sums however the volume is cut
                target.add_(ready[int(z)], alpha=float(row[z]))
        yield first, last, planes


def _resize(planes: torch.Tensor, height: int, width: int, kind: str) -> torch.Tensor:
    """Planes (n, Y, X) with another height and width."""
    return interpolate(planes[:, None], size=(height, width), mode="bicubic", antialias=ANTIALIAS[kind])[:, 0]


@lru_cache(maxsize=8)
def _weights(old: int, new: int, kind: str) -> np.ndarray:
    """Weights (new, old) of torch's interpolation along one axis, read off by interpolating the unit matrix."""
    if old == new:
        return np.eye(old, dtype=np.float32)
    return _resize(torch.eye(old)[None], new, old, kind)[0].numpy()
