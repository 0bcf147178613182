"""Tiles: where they lie in a tomogram, and how their results are blended."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices

__all__ = ["TileGrid"]

CACHED_WEIGHTS = 64  # tiles inside the volume share theirs; those at its borders are of a few dozen kinds


class TileGrid:
    """Overlapping tiles that cover a volume, on MONAI's sliding-window grid and with MONAI's weights.

    MONAI divides the sum of all tiles by a volume of summed weights at the end. Here a tile's weights are divided by
    their sum beforehand, so that results can leave slab by slab, no second volume is needed, and tiles can be left
    out.

    Parameters
    ----------
    shape_zyx : sequence of 3 ints
        The volume; no side shorter than the tile's.
    tile_zyx : sequence of 3 ints
    overlap : float
        Fraction of a tile that the next one covers, 0 <= overlap < 1.
    mode : {"gaussian", "constant"}
    device : device
        Where the weights are.

    Attributes
    ----------
    starts : list of 3 lists of int
        First voxels of the tiles along Z, Y, X.
    wanted : ndarray of bool, shape (tiles along Z, Y, X)
        Which tiles the network sees; set entries to False before the first `weights`.

    Examples
    --------
    >>> TileGrid((4, 10, 6), (4, 4, 6), 0.25).starts
    [[0], [0, 3, 6], [0]]
    """

    def __init__(
        self,
        shape_zyx: Sequence[int],
        tile_zyx: Sequence[int],
        overlap: float,
        mode: str = "gaussian",
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap: expected a number from 0 to below 1, got {overlap!r}. Try 0.25.")
        self.tile = tuple(int(side) for side in tile_zyx)
        self.starts: list[list[int]] = []
        for size, tile in zip(shape_zyx, self.tile, strict=True):
            step = tile if tile == size else max(int(tile * (1 - overlap)), 1)
            self.starts.append([int(one[0].start) for one in dense_patch_slices((int(size),), (tile,), (step,))])
        self.wanted = np.ones([len(starts) for starts in self.starts], dtype=bool)
        self._importance = compute_importance_map(self.tile, mode=mode, device=device)
        self._cache: dict[tuple, torch.Tensor] = {}

    def start(self, index: Sequence[int]) -> tuple[int, int, int]:
        """First voxel (z, y, x) of a tile."""
        z, y, x = (starts[i] for starts, i in zip(self.starts, index, strict=True))
        return z, y, x

    def layer(self, k: int, wanted: bool = True) -> list[tuple[int, int, int]]:
        """Tiles of one layer along Z, in raster order: those the network sees, or those it does not."""
        return [(k, int(j), int(i)) for j, i in np.argwhere(self.wanted[k] == wanted)]

    def weights(self, index: tuple[int, int, int]) -> torch.Tensor:
        """Weights of a tile, (Z, Y, X) float32: with those of its wanted neighbours they sum to 1 at every voxel."""
        offsets = self._wanted_neighbors(index)
        if offsets not in self._cache:
            if len(self._cache) >= CACHED_WEIGHTS:
                self._cache.clear()
            self._cache[offsets] = self._importance / self._total(offsets)
        return self._cache[offsets]

    def uncovered(self, index: tuple[int, int, int]) -> torch.Tensor:
        """Voxels of a tile that no wanted tile covers, (Z, Y, X) bool."""
        return self._total(self._wanted_neighbors(index)) == 0

    def _wanted_neighbors(self, index: tuple[int, int, int]) -> tuple[tuple[int, ...], ...]:
        """Offsets, in voxels, of the wanted tiles that overlap a tile, itself among them if it is wanted."""
        near = []
        for starts, i, tile in zip(self.starts, index, self.tile, strict=True):
            near.append([(k, start - starts[i]) for k, start in enumerate(starts) if abs(start - starts[i]) < tile])
        found = product(*near)
        return tuple(tuple(offset for _, offset in one) for one in found if self.wanted[tuple(k for k, _ in one)])

    def _total(self, offsets: tuple[tuple[int, ...], ...]) -> torch.Tensor:
        total = torch.zeros_like(self._importance)
        for offset in offsets:
            here = tuple(slice(max(o, 0), t + min(o, 0)) for o, t in zip(offset, self.tile, strict=True))
            there = tuple(slice(max(-o, 0), t + min(-o, 0)) for o, t in zip(offset, self.tile, strict=True))
            total[here] += self._importance[there]
        return total
