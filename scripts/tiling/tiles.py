"""Tiles: where they lie in a tomogram, and how their results are blended."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.data.utils import compute_importance_map

from scripts.tiling.choice import starts_along

__all__ = ["BlendedSlab", "TileGrid", "blends_on", "to_host"]

SLAB_BYTES = 12  # a voxel of a map of a layer of tiles on a GPU, its copy, and what is on its way
CACHED_WEIGHTS = 64 * 96**3  # voxels; tiles inside the volume share theirs, those at its borders are of several kinds


class TileGrid:
    """Overlapping tiles that cover a volume, as in MONAI's sliding window or spread evenly, and their weights.

    MONAI divides the sum of all tiles by a volume of summed weights at the end. Here a tile's weights are divided by
    their sum beforehand, so that results can leave slab by slab, no second volume is needed, and tiles can be left
    out.

    Parameters
    ----------
    shape_zyx : sequence of 3 ints
        The volume; no side shorter than the tile's.
    tile_zyx : sequence of 3 ints
    overlap : float
        By how much a tile covers the next one, see `starts_along`: voxels, or below 1 a fraction of the tile.
    mode : {"ramp", "gaussian", "constant"}
        ramp: by the cube of the distance from a tile's faces, axis by axis, so that thin overlaps have a smooth seam in
        their middle and nothing of the outermost voxels. gaussian and constant are MONAI's; its gaussian ends at a
        thousandth, which lets the outermost voxels in where the corners of tiles with thin overlaps meet.
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
        mode: str = "ramp",
        device: torch.device | str = "cpu",
    ) -> None:
        if mode not in ("ramp", "gaussian", "constant"):
            raise ValueError(f"mode: expected ramp, gaussian or constant, got {mode!r}.")
        self.tile = tuple(int(side) for side in tile_zyx)
        self.starts = [starts_along(int(size), tile, overlap) for size, tile in zip(shape_zyx, self.tile, strict=True)]
        self.wanted = np.ones([len(starts) for starts in self.starts], dtype=bool)
        self._device = torch.device(device)
        importance = _ramps(self.tile) if mode == "ramp" else compute_importance_map(self.tile, mode=mode)
        # numpy on a CPU: for additions this small, torch's threads cost more than they save. On a GPU there: at 464 x
        # 928 x 928 the weights of all kinds of tiles take half a second on a CPU, while the GPU waits.
        self._importance: Any = importance.numpy() if self._device.type == "cpu" else importance.to(self._device)
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
            if (len(self._cache) + 1) * int(np.prod(self.tile)) > CACHED_WEIGHTS:
                self._cache.clear()
            self._cache[offsets] = torch.as_tensor(self._importance / self._total(offsets))
        return self._cache[offsets]

    def uncovered(self, index: tuple[int, int, int]) -> torch.Tensor:
        """Voxels of a tile that no wanted tile covers, (Z, Y, X) bool."""
        return torch.as_tensor(self._total(self._wanted_neighbors(index)) == 0)

    def _wanted_neighbors(self, index: tuple[int, int, int]) -> tuple[tuple[int, ...], ...]:
        """Offsets, in voxels, of the wanted tiles that overlap a tile, itself among them if it is wanted."""
        near = []
        for starts, i, tile in zip(self.starts, index, self.tile, strict=True):
            near.append([(k, start - starts[i]) for k, start in enumerate(starts) if abs(start - starts[i]) < tile])
        found = product(*near)
        return tuple(tuple(offset for _, offset in one) for one in found if self.wanted[tuple(k for k, _ in one)])

    def _total(self, offsets: tuple[tuple[int, ...], ...]) -> Any:
        """The weights of these tiles added up, where the importance is: an array, or a tensor on the GPU."""
        total = 0 * self._importance
        for offset in offsets:
            here = tuple(slice(max(o, 0), t + min(o, 0)) for o, t in zip(offset, self.tile, strict=True))
            there = tuple(slice(max(-o, 0), t + min(-o, 0)) for o, t in zip(offset, self.tile, strict=True))
            total[here] += self._importance[there]
        return total


def _ramps(tile_zyx: Sequence[int]) -> torch.Tensor:
    """The product over the axes of the cubed distance from the nearer face, (Z, Y, X) float32."""
    z, y, x = (
        (torch.arange(side).minimum(side - 1 - torch.arange(side)).float().add(0.5) / side) ** 3 for side in tile_zyx
    )
    return z[:, None, None] * y[:, None] * x


class BlendedSlab:
    """The planes that tiles of the present layer lie in, (C, tile, Y, X); earlier planes are finished and gone."""

    def __init__(self, grid: TileGrid, device: torch.device, pool: ThreadPoolExecutor | None) -> None:
        self.grid, self.device, self.pool = grid, device, pool
        self.maps: torch.Tensor | None = None
        self.pending: Future | None = None

    def _box(self, index: tuple[int, int, int]) -> tuple[slice, ...]:
        _, y, x = self.grid.start(index)
        return (slice(None), slice(None), slice(y, y + self.grid.tile[1]), slice(x, x + self.grid.tile[2]))

    def _allocate(self, channels: int) -> torch.Tensor:
        if self.maps is None:
            sides = [starts[-1] + tile for starts, tile in zip(self.grid.starts, self.grid.tile, strict=True)]
            self.maps = torch.zeros((channels, self.grid.tile[0], *sides[1:]), device=self.device)
        return self.maps

    def add(self, index: tuple[int, int, int], output: torch.Tensor) -> None:
        """Add a weighted output (C, Z, Y, X); with a pool, in the background and in the order of the calls."""
        target = self._allocate(len(output))[self._box(index)]
        output = output.to(self.device)
        if self.pool is None:
            target.add_(output)
            return
        self.wait()
        self.pending = self.pool.submit(target.add_, output)

    def clear(self, index: tuple[int, int, int], uncovered: torch.Tensor, background: torch.Tensor | None) -> None:
        """Put the background where no tile comes."""
        self.wait()
        values = background.to(self.device)  # type: ignore[union-attr]
        box = self._allocate(len(values))[self._box(index)]
        torch.where(uncovered.to(self.device), values[:, None, None, None], box, out=box)

    def finished(self, depth: int) -> torch.Tensor:
        """The first ``depth`` planes, which no later tile reaches."""
        self.wait()
        return self.maps[:, :depth]  # type: ignore[index]

    def move(self, depth: int) -> None:
        """Drop the first ``depth`` planes and make room for as many."""
        kept = self.grid.tile[0] - depth
        if self.maps is not None:
            maps: Any = self.maps.numpy() if self.maps.device.type == "cpu" else self.maps
            for z in range(kept):  # plane by plane: source and target may overlap
                maps[:, z] = maps[:, z + depth]
            maps[:, kept:] = 0

    def wait(self) -> None:
        """Let the background thread finish."""
        if self.pending is not None:
            self.pending.result()
            self.pending = None


def blends_on(device: torch.device, padded: Sequence[int], tile: Sequence[int], channels: int = 2) -> bool:
    """Whether the tiles of a layer are added up on this GPU: it has room, and the copy that leaves it fits too."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return SLAB_BYTES * channels * tile[0] * padded[1] * padded[2] < free / 2


def to_host(maps: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.cuda.Event]:
    """Start to copy maps from a GPU in this type; they are there after the event."""
    packed = maps.to(dtype, copy=True)  # what they are copied from must stay as it is
    target = torch.empty(packed.shape, dtype=dtype, pin_memory=True)
    target.copy_(packed, non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(maps.device))
    return target, done


def tile_of(tile: int | Sequence[int]) -> list[int]:
    """Read ``--tile``: one number for a cube, or three."""
    sides = [tile] * 3 if isinstance(tile, int) else list(tile)
    if len(sides) != 3 or min(sides) < 16:
        raise ValueError(f"--tile: expected one or three (Z,Y,X) whole numbers of at least 16, got {tile}.")
    return sides
