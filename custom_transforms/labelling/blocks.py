"""A volume cut into blocks, and pieces of a mask that cross their borders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from custom_transforms.labelling.components import find_components, paint_runs

__all__ = ["Blocks", "Box", "Pieces", "corner_of", "points_inside"]

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Blocks:
    """A volume cut into blocks of at most ``side`` voxels per axis, in raster order.

    ``progress`` wraps the list of blocks in each round over them, for a progress bar; ``scratch(name, dtype)`` makes a
    volume of zeros of this shape to write to, by default in memory.
    """

    shape: tuple[int, int, int]
    side: tuple[int, int, int]
    progress: Callable = iter
    scratch: Callable[[str, Any], Any] | None = None

    def volume(self, name: str, dtype: Any) -> Any:
        """A new volume of zeros."""
        return np.zeros(self.shape, dtype) if self.scratch is None else self.scratch(name, dtype)

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], Box]]:
        counts = [-(-size // side) for size, side in zip(self.shape, self.side, strict=True)]
        for index in self.progress(list(product(*map(range, counts)))):
            yield index, self.box(index)

    def box(self, index: tuple[int, ...]) -> Box:
        z, y, x = (
            slice(i * side, min((i + 1) * side, size))
            for i, side, size in zip(index, self.side, self.shape, strict=True)
        )
        return z, y, x

    def grown(self, box: Box, halo: np.ndarray) -> tuple[Box, Box]:
        """The box with a halo, inside the volume; and where the box lies in it."""
        z, y, x = (
            slice(max(b.start - int(h), 0), min(b.stop + int(h), size))
            for b, h, size in zip(box, halo, self.shape, strict=True)
        )
        inner = [slice(b.start - g.start, b.stop - g.start) for b, g in zip(box, (z, y, x), strict=True)]
        return (z, y, x), (inner[0], inner[1], inner[2])


class Pieces:
    """Connected pieces of a mask that is seen block by block: they are numbered from 1, and joined at the faces."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.count = 0
        self.sizes: list[np.ndarray] = [np.zeros(1, np.int64)]
        self.firsts: list[np.ndarray] = [np.zeros(1, np.int64)]
        self.edges: list[np.ndarray] = [np.zeros((0, 2), np.int64)]
        self.faces: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}

    def add(self, index: tuple[int, ...], box: Box, mask: np.ndarray) -> np.ndarray:
        """Ids (Z, Y, X), int32, of a block's pieces, 0 outside the mask. Blocks come in raster order."""
        runs = find_components(mask)
        ids = np.zeros(mask.shape, dtype=np.int32)
        numbers = self.count + 1 + np.arange(runs.sizes.size)
        paint_runs(ids, runs, np.arange(runs.sizes.size), numbers)
        self.count += runs.sizes.size
        self.sizes.append(runs.sizes)
        # pieces are numbered by their first voxels, so the first run of each holds its first voxel
        _, first_run = np.unique(runs.component, return_index=True)
        row = np.searchsorted(runs.row_first, first_run, side="right") - 1
        z, y = box[0].start + row // mask.shape[1], box[1].start + row % mask.shape[1]
        self.firsts.append((z * self.shape[1] + y) * self.shape[2] + box[2].start + runs.start[first_run])
        for axis in range(3):
            before: np.ndarray | None = self.faces.pop((axis, index), None)
            if before is not None:
                here = np.asarray(ids.take(0, axis=axis))
                both = (before > 0) & (here > 0)
                self.edges.append(np.unique(np.stack([before[both], here[both]], axis=1), axis=0).astype(np.int64))
            after = tuple(i + (a == axis) for a, i in enumerate(index))
            if box[axis].stop < self.shape[axis]:
                self.faces[axis, after] = np.asarray(ids.take(-1, axis=axis))
        return ids

    def join(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Piece of every id (id 0 is piece 0), and per piece its voxels and first voxel (flat index)."""
        edges = np.concatenate(self.edges)
        graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(self.count + 1,) * 2)
        count, piece = connected_components(graph, directed=False)
        piece = np.where(piece == piece[0], 0, np.where(piece < piece[0], piece + 1, piece))
        sizes = np.bincount(piece, weights=np.concatenate(self.sizes), minlength=count).astype(np.int64)
        firsts = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(firsts, piece, np.concatenate(self.firsts))
        return piece.astype(np.int32), sizes, firsts


def corner_of(box: Box) -> np.ndarray:
    """First voxel of a box, (3,) int64."""
    return np.array([one.start for one in box], dtype=np.int64)


def points_inside(points: np.ndarray, box: Box) -> np.ndarray:
    """Indices of the points in a box, in their order."""
    low, high = corner_of(box), np.array([one.stop for one in box])
    return np.flatnonzero(((points >= low) & (points < high)).all(axis=1))
