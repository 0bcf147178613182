"""A volume cut into blocks, and pieces of a mask that cross their borders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product, zip_longest
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from custom_transforms.labelling.components import find_components, paint_runs
from custom_transforms.volumes.lazy import LabelVolume, LazyVolume

__all__ = ["Blocks", "Box", "FoundPieces", "Pieces", "corner_of", "find_pieces", "points_inside"]

Box = tuple[slice, slice, slice]
Index = tuple[int, ...]


@dataclass(frozen=True)
class Blocks:
    """A volume cut into blocks of at most ``side`` voxels per axis, in raster order.

    ``progress`` wraps the list of blocks in each round over them, for a progress bar; ``scratch(name, dtype)`` makes a
    volume of zeros of this shape to write to, by default in memory. ``run(function, boxes)`` gives what a function
    gives for every box, in order, by default here; elsewhere, function and volumes are pickled.
    """

    shape: tuple[int, int, int]
    side: tuple[int, int, int]
    progress: Callable = iter
    scratch: Callable[[str, Any], Any] | None = None
    run: Callable[[Callable[[Box], Any], list[Box]], Iterable[Any]] = map

    def __reduce__(self) -> tuple[Any, ...]:
        return Blocks, (self.shape, self.side)  # where it is to be computed, they are computed already

    def volume(self, name: str, dtype: Any) -> Any:
        """A new volume of zeros."""
        return np.zeros(self.shape, dtype) if self.scratch is None else self.scratch(name, dtype)

    def indices(self) -> list[Index]:
        """Place of every block among those along Z, Y, X."""
        return list(product(*(range(-(-size // side)) for size, side in zip(self.shape, self.side, strict=True))))

    def map(self, function: Callable[[Box], Any]) -> Iterator[tuple[Index, Box, Any]]:
        """Index, box and what the function gives for it, for every block.

        The function may write to the block's own voxels of a `volume`, and must give the same if it runs twice.
        """
        indices = self.indices()
        boxes = [self.box(index) for index in indices]
        return zip(self.progress(indices), boxes, self.run(function, boxes), strict=True)

    def box(self, index: Index) -> Box:
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


@dataclass(frozen=True)
class FoundPieces:
    """The connected pieces of a mask in one block, numbered from 1.

    Attributes
    ----------
    sizes, firsts : ndarray, int64
        Voxels of each, and its first voxel (flat index in the volume).
    faces : dict
        By axis and end (0, -1): the pieces' numbers on a face of the block that lies inside the volume.
    """

    sizes: np.ndarray
    firsts: np.ndarray
    faces: dict[tuple[int, int], np.ndarray]


def find_pieces(mask: np.ndarray, box: Box, shape: tuple[int, int, int]) -> tuple[np.ndarray, FoundPieces]:
    """Numbers (Z, Y, X), int32, of a block's pieces, 0 outside the mask; and what `Pieces` needs to know of them."""
    runs = find_components(mask)
    numbers = np.zeros(mask.shape, dtype=np.int32)
    paint_runs(numbers, runs, np.arange(runs.sizes.size), 1 + np.arange(runs.sizes.size))
    # pieces are numbered by their first voxels, so the first run of each holds its first voxel
    _, first_run = np.unique(runs.component, return_index=True)
    row = np.searchsorted(runs.row_first, first_run, side="right") - 1
    z, y = box[0].start + row // mask.shape[1], box[1].start + row % mask.shape[1]
    firsts = (z * shape[1] + y) * shape[2] + box[2].start + runs.start[first_run]
    inside = [(axis, 0) for axis in range(3) if box[axis].start > 0]
    inside += [(axis, -1) for axis in range(3) if box[axis].stop < shape[axis]]
    faces = {(axis, end): np.ascontiguousarray(numbers.take(end, axis=axis)) for axis, end in inside}
    return numbers, FoundPieces(runs.sizes, firsts, faces)


class Pieces:
    """Connected pieces of a mask that is seen block by block: counted on from block to block, and joined at the faces.

    Attributes
    ----------
    before : ndarray, int32
        By block, how many pieces there are in the blocks before it.
    """

    def __init__(self, blocks: Blocks) -> None:
        self.blocks, self.before = blocks, np.zeros(np.add(blocks.indices()[-1], 1), np.int32)
        self.count = 0
        self.sizes: list[np.ndarray] = [np.zeros(1, np.int64)]
        self.firsts: list[np.ndarray] = [np.zeros(1, np.int64)]
        self.edges: list[np.ndarray] = [np.zeros((0, 2), np.int64)]
        self.faces: dict[tuple[int, Index], np.ndarray] = {}

    def add(self, index: Index, found: FoundPieces) -> None:
        """Take the pieces of the next block; blocks come in raster order."""
        self.before[index] = self.count
        self.sizes.append(found.sizes)
        self.firsts.append(found.firsts)
        for (axis, end), face in found.faces.items():
            here = np.where(face > 0, face + np.int32(self.count), 0)
            if end == 0:
                before = self.faces.pop((axis, index))
                both = (before > 0) & (here > 0)
                self.edges.append(np.unique(np.stack([before[both], here[both]], axis=1), axis=0).astype(np.int64))
            else:
                self.faces[axis, tuple(i + (a == axis) for a, i in enumerate(index))] = here
        self.count += len(found.sizes)

    def join(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Piece of every number (0 is piece 0), and per piece its voxels and first voxel (flat index)."""
        edges = np.concatenate(self.edges)
        graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(self.count + 1,) * 2)
        count, piece = connected_components(graph, directed=False)
        piece = np.where(piece == piece[0], 0, np.where(piece < piece[0], piece + 1, piece))
        sizes = np.bincount(piece, weights=np.concatenate(self.sizes), minlength=count).astype(np.int64)
        firsts = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(firsts, piece, np.concatenate(self.firsts))
        return piece.astype(np.int32), sizes, firsts

    def labels(self, numbers: Any, of_seed: np.ndarray, of_piece: np.ndarray) -> LabelVolume:
        """Labels of a volume with, in each block, seeds from 1, and the block's own pieces from -1 down.

        ``of_seed`` has the label of 0 and every seed; ``of_piece`` that of 0 and every piece, as they were counted.
        """
        table = np.concatenate([of_seed, of_piece[:0:-1]]).astype(np.int32)  # -k is the k-th from its end
        return LabelVolume(_CountedOn(numbers, self.blocks.side, self.before), table)


class _CountedOn(LazyVolume):
    """Numbers of which the negative ones, in each block from -1 down, are counted on from the blocks before."""

    def __init__(self, numbers: Any, side: tuple[int, int, int], before: np.ndarray) -> None:
        super().__init__(numbers.shape, np.int32)
        self.numbers, self.side, self.before = numbers, side, before

    def __getitem__(self, index: Any) -> np.ndarray:
        values = np.array(self.numbers[index])
        index, before = index if isinstance(index, tuple) else (index,), self.before
        axes: Iterable[Any] = zip_longest(self.shape, self.side, index, fillvalue=slice(None))
        for axis, (size, side, chosen) in enumerate(axes):
            before = before.take(np.arange(size)[chosen] // side, axis=axis - self.ndim + before.ndim)
        return np.subtract(values, before, out=values, where=values < 0)


def corner_of(box: Box) -> np.ndarray:
    """First voxel of a box, (3,) int64."""
    return np.array([one.start for one in box], dtype=np.int64)


def points_inside(points: np.ndarray, box: Box) -> np.ndarray:
    """Indices of the points in a box, in their order."""
    low, high = corner_of(box), np.array([one.stop for one in box])
    return np.flatnonzero(((points >= low) & (points < high)).all(axis=1))
