"""Which tile a tomogram is cut into: few voxels computed twice, and no more memory than there is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

__all__ = ["GRANULE", "LARGEST_SIDE", "OVERLAP", "choose_tile", "computed_share", "starts_along"]

GRANULE = 16  # voxels; networks with four poolings take sides that divide by it, and see the same grid in every tile
# Voxels by which a tile covers the next one at least: half of it is the margin that blending hides. On the shipped
# networks a tile's maps differ most from those of the whole volume in its outermost 8 voxels (center map: 0.05 on
# average at a face, 0.02 at 8 voxels), and slowly less to more than 40: twice the overlap would gain little.
OVERLAP = 16
# What networks that were trained on 64^3 crops see beyond that makes them worse: on a crowded scene at SNR 0.25
# instances had F1 0.80 with tiles of 96^3, 0.72 with 128 x 144 x 144, 0.64 with the whole volume. Networks that were
# trained on larger crops, too, say in their record how large a tile may be.
LARGEST_SIDE = 96
SMALLEST_SIDE = 32
AS_GOOD = 1.02  # tiles that compute this factor more than the best are taken if they are more compact: more to see


def starts_along(size: int, tile: int, overlap: float) -> list[int]:
    """First voxels of the tiles along one axis; the last one ends where the axis ends.

    Parameters
    ----------
    size, tile : int
        Voxels, ``tile`` at most ``size``.
    overlap : float
        Below 1 the fraction of a tile that the next one covers: steps are equal, and the last tile moves back. From 1
        on the voxels that it covers at least (at most half a tile): as few tiles as that takes, spread over the axis,
        in steps of `GRANULE` where tile and overlap divide by it.

    Examples
    --------
    >>> starts_along(256, 144, 16), starts_along(10, 4, 0.25)
    ([0, 112], [0, 3, 6])
    """
    if not (isinstance(overlap, (int, float)) and overlap >= 0):
        raise ValueError(
            f"overlap: expected whole voxels, or a fraction of the tile from 0 to below 1, got {overlap!r}. Try 16."
        )
    step = max(tile - min(int(overlap), tile // 2) if overlap >= 1 else int(tile * (1 - overlap)), 1)
    free = size - tile
    count = 1 + -(-free // step)
    if overlap < 1:
        return [min(i * step, free) for i in range(count)]
    grain = GRANULE if step % GRANULE == 0 else 1
    return [min(grain * -(-i * free // (grain * max(count - 1, 1))), free) for i in range(count)]


@lru_cache(maxsize=64)
def choose_tile(
    shape_zyx: tuple[int, int, int],
    overlap: float = OVERLAP,
    largest: int | None = None,
    largest_side: int = LARGEST_SIDE,
) -> tuple[int, int, int]:
    """The tile that computes the fewest voxels of a volume; among nearly equal ones the most compact.

    Sides are multiples of `GRANULE`, at most ``largest_side``, and may be longer than the volume's, which is then
    extended by reflection.

    Parameters
    ----------
    shape_zyx : tuple of 3 ints
    overlap : float
        As in `starts_along`.
    largest : int, optional
        Voxels of a tile at most; a cube of `SMALLEST_SIDE` is always allowed.
    largest_side : int
        Voxels.

    Examples
    --------
    >>> choose_tile((128, 256, 256)), choose_tile((128, 256, 256), largest=300_000)
    ((80, 96, 96), (48, 96, 64))
    >>> choose_tile((128, 256, 256), largest_side=192)
    (128, 144, 144)
    """
    axes = [_candidates(int(size), overlap, largest_side) for size in shape_zyx]
    tiles = np.stack(np.meshgrid(*([tile for tile, _ in axis] for axis in axes), indexing="ij"), -1).reshape(-1, 3)
    costs = np.stack(np.meshgrid(*([cost for _, cost in axis] for axis in axes), indexing="ij"), -1).reshape(-1, 3)
    voxels, cost = tiles.prod(axis=1), costs.prod(axis=1)
    allowed = voxels <= max(largest or largest_side**3, voxels.min())
    good = np.flatnonzero(allowed & (cost <= AS_GOOD * cost[allowed].min()))
    z, y, x = (int(side) for side in tiles[good[np.lexsort((cost[good], -tiles[good].min(axis=1)))[0]]])
    return z, y, x


def _candidates(size: int, overlap: float, largest_side: int) -> list[tuple[int, int]]:
    """Sides for one axis, from the longest down, with the voxels that all tiles along it compute."""
    whole = min(max(-(-size // GRANULE) * GRANULE, SMALLEST_SIDE), largest_side // GRANULE * GRANULE)
    best: dict[int, int] = {}  # number of tiles -> the shortest side that does with so many
    for tile in range(whole, SMALLEST_SIDE - 1, -GRANULE):
        best[len(starts_along(max(size, tile), tile, overlap))] = tile
    return [(tile, count * tile) for count, tile in best.items()]


def computed_share(shape_zyx: Sequence[int], tile_zyx: Sequence[int], overlap: float) -> float:
    """Voxels the networks compute per voxel of the volume, if no tile is skipped.

    Examples
    --------
    >>> computed_share((128, 256, 256), (96, 96, 96), 0.25)
    3.375
    """
    counts = [
        len(starts_along(max(int(size), int(tile)), int(tile), overlap))
        for size, tile in zip(shape_zyx, tile_zyx, strict=True)
    ]
    return float(np.prod(counts) * np.prod(tile_zyx, dtype=np.float64) / np.prod(shape_zyx, dtype=np.float64))
