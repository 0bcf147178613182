"""The plan of a detection before it starts: in memory or streamed, how many tiles, how much memory, disk and time."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from custom_transforms.files.limits import available_memory
from scripts.tiling.choice import LARGEST_SIDE, OVERLAP, choose_tile
from scripts.tiling.forward_memory import forward_bytes
from scripts.tiling.tiles import TileGrid

__all__ = ["Plan", "check_disk", "make_plan"]

GIB = 2**30
BASE = 0.7 * GIB  # Python, torch and the compiled loops
HEAP = 1.5  # memory of a forward pass on a CPU, over its tensors: gaps of the heap, measured 1.1 to 1.5
IN_MEMORY = 22  # bytes a voxel: image 4 (and its file 4), two maps 8, mask, labels and costs 6 in post-processing
ON_DISK = 9  # bytes a voxel: maps 4, components and owners (compressed) about 1, labels up to 4
BLOCK = 26  # bytes a voxel of a block with its halo: components, maps, owners, costs, and copies on the way
LARGEST_BLOCK = 512
CUDA_BATCH = 8  # more tiles at once are not faster
SMALLEST_TILE = 32
STEP = 1.4  # by which a tile that was chosen shrinks until it fits
SMALL_TILE = 64**3  # voxels; before tiles shrink below, volumes go through files


@dataclass(frozen=True)
class Plan:
    """How one tomogram will be detected.

    Attributes
    ----------
    path : {"memory", "streamed"}
        Whether the volumes stay in memory, or go through files.
    shape_zyx : tuple of 3 ints
        Of the tomogram the networks see.
    tile : tuple of 3 ints
    tiles, batch : int
        How many, and how many at once.
    memory, disk : int
        Expected peak of resident memory, and of temporary and final files, bytes.
    limit : int
        Memory that may be used, bytes.
    results : int
        The part of ``disk`` that the final files take, bytes.
    block : int
        Side, voxels, of the blocks of a streamed post-processing.
    """

    path: str
    shape_zyx: tuple[int, int, int]
    tile: tuple[int, int, int]
    tiles: int
    batch: int
    memory: int
    disk: int
    limit: int
    results: int = 0
    block: int = 0

    def text(self) -> str:
        """One line for the user."""
        size, tile = (" x ".join(map(str, one)) for one in (self.shape_zyx, self.tile))
        at_once = f", {self.batch} at once" if self.batch > 1 else ""
        how = "in memory" if self.path == "memory" else f"streamed through files, {self.disk / GIB:.1f} GiB of disk"
        return (
            f"plan: {size} voxels, {self.tiles} tile{'' if self.tiles == 1 else 's'} of {tile}{at_once}; {how}; "
            f"about {self.memory / GIB:.1f} of {self.limit / GIB:.1f} GiB of memory"
        )


def make_plan(
    shape_zyx: Sequence[int],
    network: torch.nn.Module,
    *,
    tile: Sequence[int] | None = None,
    overlap: float = OVERLAP,
    largest_side: int = LARGEST_SIDE,
    device: torch.device | str = "cpu",
    memory: float | None = None,
    stream: bool | None = None,
    reach: int = 0,
    seen_zyx: Sequence[int] | None = None,
    classes: int = 1,
    at_once: int = 1,
) -> Plan:
    """Decide how to detect a tomogram of this shape.

    Parameters
    ----------
    shape_zyx : sequence of 3 ints
        Voxels of the tomogram.
    network : nn.Module
        (B, 1, Z, Y, X) to (B, 1 + classes, Z, Y, X).
    tile, overlap, largest_side
        As in `TomogramInferer`; the tile shrinks if a forward pass of one would not fit. None takes the one that
        computes least within half of the memory, and that keeps the volumes in memory if they fit.
    device : device
        Where the network is.
    memory : float, optional
        GiB that may be used; what is free by default.
    stream : bool, optional
        Choose the path yourself.
    reach : int
        R_max, voxels.
    seen_zyx : sequence of 3 ints, optional
        The shape the networks see, if the tomogram is rescaled for them.
    classes : int
        Center maps that the network gives.
    at_once : int
        Blocks of a streamed post-processing that are in memory at the same time.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If even the streamed path needs more memory; says how much.
    """
    limit = available_memory() if memory is None else int(memory * GIB)
    size = (int(shape_zyx[0]), int(shape_zyx[1]), int(shape_zyx[2]))
    seen = size if seen_zyx is None else (int(seen_zyx[0]), int(seen_zyx[1]), int(seen_zyx[2]))
    on_cuda = torch.device(device).type == "cuda"
    needs = _Needs(network, size, seen, reach, classes, on_cuda)
    if tile is not None:
        options = _shrinking_tiles(tile)
    else:
        room = 0.8 * torch.cuda.mem_get_info(device)[0] if on_cuda else (limit - BASE) / 2
        # counting a forward pass takes a fifth of a second: no more of them than it needs
        chosen = _chosen_tiles(seen, overlap, largest_side)
        options = list(dropwhile(lambda one: forward_bytes(network, one) > room, chosen))
        options = options or [(SMALLEST_TILE, SMALLEST_TILE, SMALLEST_TILE)]
        if not stream:  # rather smaller tiles than volumes on the disk
            large = (one for one in options if np.prod(one) >= SMALL_TILE)
            options = list(dropwhile(lambda one: needs.in_memory(one) > limit, large)) or options
    for sides in options:
        path = "streamed" if (stream if stream is not None else needs.in_memory(sides) > limit) else "memory"
        need = needs.in_memory(sides) if path == "memory" else needs.streamed(sides)
        if need <= limit or (stream is False and tile is not None):
            break
    if need > limit:
        raise ValueError(
            f"memory: expected at least {need / GIB:.1f} GiB for a tomogram of {' x '.join(map(str, size))} voxels "
            f"({'streamed through files' if path == 'streamed' else 'in memory'}), got {limit / GIB:.1f} GiB. "
            "Close other programs, raise --memory, or bin the tomogram."
        )
    padded = [max(side, one) for side, one in zip(seen, sides, strict=True)]
    tiles = TileGrid(padded, sides, overlap).wanted.size
    batch = _cuda_batch(network, sides, device) if on_cuda else 1  # on a CPU more tiles at once are not faster
    disk, results = needs.disk(path)
    plan = Plan(path, seen, sides, tiles, min(batch, tiles), need, disk, limit, results)
    if path == "memory":
        return plan
    block = block_side(plan, reach, at_once)
    grown = np.minimum(block + 2 * halo_of(reach), size).astype(np.float64)
    return replace(plan, block=block, memory=max(need, int(BASE + BLOCK * grown.prod())))


@dataclass(frozen=True)
class _Needs:
    """Bytes that a detection takes; ``size`` and ``seen`` are the tomogram's shape and that for the networks."""

    network: torch.nn.Module
    size: tuple[int, int, int]
    seen: tuple[int, int, int]
    reach: int
    classes: int
    on_cuda: bool

    def forward(self, tile: Sequence[int]) -> int:
        """Of the networks on one tile, where that is not the GPU's memory."""
        return 0 if self.on_cuda else int(HEAP * forward_bytes(self.network, tile))

    def in_memory(self, tile: Sequence[int]) -> int:
        """Peak with all volumes in memory: while the networks run, or after them."""
        maps = 4 * (1 + self.classes)
        seen, rescaled = math.prod(self.seen), (self.seen != self.size) * maps
        slab = maps * tile[0] * self.seen[1] * self.seen[2]
        predicting = (8 + rescaled) * math.prod(self.size) + (4 + maps) * seen + slab
        after = (IN_MEMORY + 4 * self._class_maps) * math.prod(self.size)
        return int(BASE + max(self.forward(tile) + predicting, after))

    def streamed(self, tile: Sequence[int]) -> int:
        """Peak with the volumes in files."""
        return int(BASE + self.forward(tile) + _streamed_bytes(self.size, self.seen, tile, self.reach, self.classes))

    def disk(self, path: str) -> tuple[int, int]:
        """Of all files while it runs, and of those that stay: labels, and of several classes their volume."""
        voxels, numbers = math.prod(self.size), 2 * bool(self._class_maps)
        results = (4 + numbers) * voxels
        if path == "memory":
            return results, results
        rescaled = (self.seen != self.size) * (4 + 4 * (1 + self.classes)) * math.prod(self.seen)
        return (ON_DISK + 2 * self._class_maps + numbers) * voxels + rescaled, results

    @property
    def _class_maps(self) -> int:
        """Of several classes each has a map; the highest of them is one more."""
        return self.classes if self.classes > 1 else 0


def _chosen_tiles(shape_zyx: tuple[int, int, int], overlap: float, largest_side: int) -> list[tuple[int, int, int]]:
    """The tiles that compute least within ever smaller bounds, largest first."""
    largest = largest_side**3
    bounds = (int(largest / STEP**k) for k in range(1 + int(math.log(largest / SMALLEST_TILE**3, STEP))))
    return list(dict.fromkeys(choose_tile(shape_zyx, overlap, bound, largest_side) for bound in bounds))


def _shrinking_tiles(tile: Sequence[int]) -> list[tuple[int, int, int]]:
    """A tile, and smaller ones."""
    tiles = [(int(tile[0]), int(tile[1]), int(tile[2]))]
    while max(tiles[-1]) > SMALLEST_TILE:
        z, y, x = (min(side, max(SMALLEST_TILE, side - 32)) for side in tiles[-1])
        tiles.append((z, y, x))
    return tiles


def check_disk(plan: Plan, output: str | Path, scratch: str | Path | None = None) -> None:
    """Refuse, before any work, what the disk has no room for.

    Parameters
    ----------
    plan : Plan
    output : path
        Where the results go.
    scratch : path, optional
        Where streamed volumes are kept meanwhile; by default where the results go. On one disk both must fit.

    Raises
    ------
    ValueError
        Names the folder, what is needed and what is free.
    """
    needed: dict[Any, int] = {}  # by device
    for folder, size in ((output, plan.results), (scratch or output, plan.disk - plan.results)):
        existing = Path(folder).absolute()
        while not existing.exists():
            existing = existing.parent
        device = _device(existing)
        needed[device] = needed.get(device, 0) + size
        free = shutil.disk_usage(existing).free
        if needed[device] > free:
            raise ValueError(
                f"{folder}: expected {needed[device] / GIB:.1f} GiB of free disk for this tomogram, found "
                f"{free / GIB:.1f} GiB. Make room, or name a folder on another disk with --scratch_dir or --output_dir."
            )


def _device(folder: Path) -> int:
    return folder.stat().st_dev


def halo_of(reach: int) -> int:
    """Voxels read around a block: two radii for the labels, or what the refinement of centers needs."""
    return max(2 * reach + 1, math.ceil(4 / 3 * reach) + 8)


def _streamed_bytes(size: Sequence[int], seen: Sequence[int], tile: Sequence[int], reach: int, classes: int) -> float:
    """Peak of the streamed path: the slab of tiles and the planes on their way to the disk, or the smallest block."""
    plane = max(int(one[1]) * int(one[2]) for one in (size, seen))
    maps, stored = 1 + classes, 2 if classes == 1 else 2 + classes  # of several center maps the highest is one more
    slab = plane * (4 * maps * tile[0] + 32 * (7 * maps + 5 * stored))  # and 32 planes on their way, copied and rounded
    grown = np.minimum(_smallest_block(reach) + 2 * halo_of(reach), size).astype(np.float64)
    return 1.1 * max(slab, BLOCK * grown.prod(), plane * 32 * 12)


def _smallest_block(reach: int) -> int:
    return max(2 * reach, 32)


def block_side(plan: Plan, reach: int, at_once: int = 1) -> int:
    """Side of a post-processing block: as large as half of the memory allows, with its halo around it."""
    fits = int(max(0.5 * (plan.limit / at_once - BASE) / BLOCK, 1) ** (1 / 3))
    return int(np.clip(fits - 2 * halo_of(reach), _smallest_block(reach), LARGEST_BLOCK))


def _cuda_batch(network: torch.nn.Module, tile: tuple[int, int, int], device: torch.device | str) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return int(np.clip(0.8 * free // max(forward_bytes(network, tile), 1), 1, CUDA_BATCH))
