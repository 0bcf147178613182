"""What a tile sees of a volume, and whether there is anything to see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from scripts.tiling.tiles import TileGrid

__all__ = ["holds_something", "reflect_to_length", "tile_row"]

CONSTANT = 1e-4  # a tile whose values differ by less than this fraction of the tomogram's deviation is padding


def holds_something(volume: Any, region: Any, grid: TileGrid, index: Sequence[int], before: Sequence[int]) -> bool:
    """Whether a tile holds anything: inside the region, and not all of one value.

    ``volume`` (Z, Y, X) lies ``before`` voxels from the first corner of the grid; ``region`` may be coarser or finer.
    """
    box = tuple(
        slice(max(s - b, 0), min(s - b + tile, side))
        for s, b, tile, side in zip(grid.start(index), before, grid.tile, volume.shape, strict=True)
    )
    if region is not None:
        at = [
            slice(b.start * there // here, -(-b.stop * there // here))  # whole numbers: no rounding past the end
            for b, there, here in zip(box, region.shape, volume.shape, strict=True)
        ]
        if not any(np.asarray(region[z, at[1], at[2]]).any() for z in range(at[0].start, at[0].stop)):
            return False
    lowest, highest = np.inf, -np.inf
    for z in range(box[0].start, box[0].stop):  # one plane tells, for nearly every tile
        plane = torch.as_tensor(volume[z, box[1], box[2]])
        low, high = torch.aminmax(plane)
        lowest, highest = min(lowest, float(low)), max(highest, float(high))
        if highest - lowest > CONSTANT:
            return True
    return False


def tile_row(volume: Any, grid: TileGrid, z: int, y: int) -> torch.Tensor:
    """A row of tiles, (1, 1, Z, Y, X), as long as the volume in X, and extended where that is shorter than a tile."""
    strip = torch.as_tensor(volume[z : z + grid.tile[0], y : y + grid.tile[1]])[None, None]
    for axis, tile in enumerate(grid.tile):
        strip, _ = reflect_to_length(strip, axis + 2, tile)
    return strip


def reflect_to_length(volume: torch.Tensor, axis: int, length: int) -> tuple[torch.Tensor, int]:
    """Extend one axis of a (B, C, Z, Y, X) tensor to ``length`` by reflection about its end voxels.

    Returns the tensor and how many voxels were put before the first one. A side of one voxel is repeated.
    """
    size = volume.shape[axis]
    missing = length - size
    if missing <= 0:
        return volume, 0
    period = max(2 * (size - 1), 1)
    index = torch.arange(-(missing // 2), length - missing // 2) % period
    index = torch.where(index < size, index, period - index)
    return volume.index_select(axis, index.to(volume.device)), missing // 2
