"""instances, block by block: the chain of `detect_instances` for volumes that do not fit into memory.

The same labels as in memory, whatever the blocks: a voxel's owner depends on what lies within two R_max of it, so a
block with a halo that wide decides its own voxels; components that cross a border between blocks are joined afterwards;
peaks are thinned and numbered as one list. Centers and scores agree to rounding (a center is computed in the
coordinates of its block).

Volumes are anything that is read and written by slices and has a ``shape``: arrays, or Zarr arrays on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from custom_transforms.labelling.assign import METHODS, mark_labels
from custom_transforms.labelling.blocks import Blocks, Box, Pieces, corner_of, points_inside
from custom_transforms.labelling.components import find_components
from custom_transforms.labelling.flood import Ball, flood_all, nearest_all, touched_components
from custom_transforms.labelling.plateaus import PeakRuns, find_peak_runs, one_peak_per_plateau, reaches_a_face
from custom_transforms.labelling.refine import refine_seeds
from custom_transforms.labelling.seeds import check_center_threshold, settle_peaks
from custom_transforms.measuring.particle_table import filter_particles, sums_by_label, table_from_sums
from custom_transforms.units import ParticleSizes, as_voxel_size_zyx
from custom_transforms.volumes.parallel import squared_axis_weights

__all__ = ["BlockedLabels", "detect_instances_blockwise"]


class BlockedLabels:
    """Instance labels (Z, Y, X), int32, looked up in the owners on disk as they are read.

    Attributes
    ----------
    shape : tuple of 3 ints
    highest : int
        The number of particles.
    """

    dtype = np.dtype(np.int32)
    ndim = 3

    def __init__(self, owners: Any, table: np.ndarray, n_pieces: int) -> None:
        self.owners, self.table, self.n_pieces = owners, table, n_pieces
        self.shape: tuple[int, ...] = tuple(owners.shape)

    @property
    def highest(self) -> int:
        """The highest label."""
        return int(self.table.max(initial=0))

    def filtered(self, table: pd.DataFrame, **options: Any) -> tuple[pd.DataFrame, BlockedLabels]:
        """Drop particles as `filter_particles` does, with its options; returns the new table and labels."""
        # as a label volume of one voxel per particle: what becomes of it is the table of new labels
        old = np.arange(self.highest + 1, dtype=np.int32).reshape(1, 1, -1)
        table, new = filter_particles(table, old, **options)
        return table, BlockedLabels(self.owners, new.reshape(-1)[self.table], self.n_pieces)

    def __getitem__(self, index: Any) -> np.ndarray:
        owners = np.asarray(self.owners[index])
        return self.table[owners + np.int32(self.n_pieces)]


def detect_instances_blockwise(
    probability: Any,
    center_map: Any,
    voxel_size_zyx: np.ndarray,
    particle_diameter: float,
    mask_threshold: float,
    center_threshold: float,
    method: str = "watershed",
    *,
    block: int | tuple[int, int, int],
    scratch: Callable[[str, Any], Any],
    require_seed: bool = False,
    neighbor_number: int = 0,
    min_distance: float | None = None,
    min_size: float | None = None,
    radius_max: float | None = None,
    neighbor_distance: float | None = None,
    progress: Callable = iter,
) -> tuple[BlockedLabels, pd.DataFrame]:
    """Run the whole chain as `detect_instances` does, with only a block and its halo in memory at a time.

    Parameters
    ----------
    probability, center_map : array-like, shape (Z, Y, X), float
        Mask probability and center map, 0..1; only read, by slices.
    block : int or tuple of 3 ints
        Voxels of a block along Z, Y, X. Two R_max are read around it.
    scratch : callable
        ``scratch(name, dtype)`` makes a volume of zeros of this shape to write to: "components" and "owners".
    progress : callable
        Wraps the list of blocks of each of the five rounds, for a progress bar.
    voxel_size_zyx, particle_diameter, mask_threshold, center_threshold, method, require_seed, neighbor_number, \
min_distance, min_size, radius_max, neighbor_distance
        As in `detect_instances`.

    Returns
    -------
    labels : BlockedLabels, shape (Z, Y, X)
        0 background, 1..n particles; read by slices.
    table : DataFrame
        One row per particle, as `detect_instances` gives it.

    Raises
    ------
    ValueError
        For maps of different shapes and settings out of range; the message says which.

    Examples
    --------
    >>> probability, center_map = np.zeros((2, 9, 10, 11), np.float32)
    >>> probability[2:7, 3:8, 4:9] = 0.9
    >>> center_map[4, 5, 6] = 1.0
    >>> labels, table = detect_instances_blockwise(
    ...     probability, center_map, np.full(3, 10.0), 60.0, 0.5, 0.3, block=4,
    ...     scratch=lambda name, dtype: np.zeros((9, 10, 11), dtype),
    ... )
    >>> table[["label", "z_vox", "y_vox", "x_vox", "volume_vox"]].values.tolist()
    [[1.0, 4.0, 5.0, 6.0, 125.0]]
    """
    shape = tuple(int(side) for side in center_map.shape)
    if tuple(probability.shape) != shape:
        raise ValueError(f"probability and center_map: expected one shape, got {tuple(probability.shape)} and {shape}")
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    check_center_threshold(center_threshold)
    voxel = as_voxel_size_zyx(voxel_size_zyx)
    sizes = ParticleSizes.from_diameter(
        particle_diameter, min_distance=min_distance, min_size=min_size, radius_max=radius_max,
        neighbor_distance=neighbor_distance,
    )  # fmt: skip
    sides = (block,) * 3 if isinstance(block, int) else block
    blocks = Blocks((shape[0], shape[1], shape[2]), sides, progress)
    job = Job(blocks, probability, center_map, voxel, sizes, sizes.refine_radius, scratch)
    job.label_components(mask_threshold)
    peaks = job.find_peaks(center_threshold)
    allowed = job.allowed_components(peaks) if method != "watershed" else []
    owned = job.assign(peaks, allowed, method, require_seed)
    labels = BlockedLabels(job.owners, owned.table, owned.n_pieces)
    table = job.measure(labels, owned, center_threshold)
    table, labels = labels.filtered(
        table, min_size=sizes.min_size, neighbor_number=neighbor_number, neighbor_distance=sizes.neighbor_distance
    )
    return labels, table


@dataclass(frozen=True)
class _Owned:
    """What the assignment gave: label of each owner (shifted by the pieces), labels, centers, heights of the seeds."""

    table: np.ndarray
    n_pieces: int
    seed_labels: np.ndarray
    centers: np.ndarray
    heights: np.ndarray


class Job:
    """The rounds over the blocks of one volume."""

    def __init__(
        self, blocks: Blocks, probability: Any, center_map: Any, voxel: np.ndarray, sizes: ParticleSizes,
        refine_radius: float, scratch: Callable[[str, Any], Any],
    ) -> None:  # fmt: skip
        self.blocks, self.probability, self.center_map = blocks, probability, center_map
        self.voxel, self.sizes, self.refine_radius = voxel, sizes, refine_radius
        self.weights, self.unit = squared_axis_weights(voxel)
        self.ball = Ball(sizes.radius_max / self.unit, self.weights, blocks.shape)
        self.min_voxels = sizes.min_size / voxel.prod()
        self.components, self.owners = scratch("components", np.int32), scratch("owners", np.int32)
        self.component_of = np.zeros(1, np.int32)  # component of every id in self.components, 0 where it is a speck

    def label_components(self, threshold: float) -> None:
        """Round 1: components of the thresholded mask; specks go."""
        pieces, limit = Pieces(self.blocks.shape), np.float32(threshold)
        for index, box in self.blocks:
            self.components[box] = pieces.add(index, box, _floats(self.probability, box) > limit)
        piece, voxels, _ = pieces.join()
        self.component_of = np.where(voxels[piece] >= self.min_voxels, piece, 0).astype(np.int32)

    def find_peaks(self, threshold: float) -> np.ndarray:
        """Round 2: seeds (n, 3), sorted by z, y, x; see `find_seeds`."""
        limit = np.float32(threshold)
        runs = PeakRuns.join(self.peaks_of(box, limit) for _, box in self.blocks)
        return settle_peaks(runs, self.blocks.shape, self.sizes.min_distance, self.voxel)[0]

    def peaks_of(self, box: Box, limit: np.float32) -> PeakRuns:
        """Peaks of a block. A plateau that ends inside gives its one voxel; of one that reaches a face, all runs."""
        shape = self.blocks.shape
        grown, inner = self.blocks.grown(box, np.ones(3))
        runs = find_peak_runs(_floats(self.center_map, grown), limit, inner, corner_of(grown), shape)
        is_open = reaches_a_face(runs, shape, corner_of(box), np.array([one.stop for one in box]))
        settled = PeakRuns.lone(*one_peak_per_plateau(runs[~is_open], shape, self.weights))
        return PeakRuns.join([settled, runs[is_open]])

    def allowed_components(self, peaks: np.ndarray) -> list[np.ndarray]:
        """Round 3, not for the watershed: the components that each seed may own."""
        allowed = [np.zeros(0, np.int64)] * len(peaks)
        for _, box in self.blocks:
            here = points_inside(peaks, box)
            if here.size:
                grown, _ = self.blocks.grown(box, self.ball.reach)
                component = self.component_of[np.asarray(self.components[grown])]
                mask, runs = _runs_of(component)
                values = _floats(self.center_map, grown)
                for seed in here:
                    local = peaks[seed] - corner_of(grown)
                    allowed[seed] = touched_components(mask, values, runs, local, self.ball)
        return allowed

    def assign(self, peaks: np.ndarray, allowed: list[np.ndarray], method: str, require_seed: bool) -> _Owned:
        """Round 4: the owner of every voxel, and the refined seeds; then labels for the owners."""
        seeds_in = np.bincount(np.concatenate([*allowed, np.zeros(0, np.int64)]).astype(np.int64),
                               minlength=int(self.component_of.max(initial=0)) + 1)  # fmt: skip
        alone = np.zeros(seeds_in.size, dtype=np.int32)  # the seed that has a component for itself
        if method == "split":
            for seed, ids in enumerate(allowed):
                alone[ids[seeds_in[ids] == 1]] = seed + 1
            allowed = [ids[seeds_in[ids] > 1] for ids in allowed]
        refine_halo = np.ceil(4 * (self.refine_radius / self.unit + 1) / np.sqrt(self.weights)) + 2
        halo = np.maximum(2 * self.ball.reach + 1, refine_halo)
        pieces, owns = Pieces(self.blocks.shape), np.zeros(len(peaks) + 1, dtype=bool)
        centers, heights = peaks.astype(np.float64), np.zeros(len(peaks))
        for index, box in self.blocks:
            grown, inner = self.blocks.grown(box, halo)
            component = self.component_of[np.asarray(self.components[grown])]
            here = points_inside(peaks, box)
            mask_here = component[inner] > 0
            if not here.size and not mask_here.any():
                self.owners[box] = pieces.add(index, box, mask_here)
                continue
            values = _floats(self.center_map, grown)
            self._refine(peaks, here, grown, values, centers, heights)
            owner = self._owners(peaks, allowed, grown, inner, box, component, values, method)
            if method == "split":
                single = alone[component[inner]]
                owner = np.where(single > 0, single, owner)
            mark_labels(owner.reshape(-1), owns)
            rest = np.zeros_like(mask_here) if require_seed else mask_here & (owner == 0)
            owner -= pieces.add(index, box, rest)
            self.owners[box] = owner
        return self._number(pieces, owns, centers, heights)

    def _refine(
        self, peaks: np.ndarray, here: np.ndarray, grown: Box, values: np.ndarray, centers: np.ndarray,
        heights: np.ndarray,
    ) -> None:  # fmt: skip
        if not here.size:
            return
        near = points_inside(peaks, grown)
        corner = corner_of(grown)
        refined, height = refine_seeds(values, peaks[near] - corner, self.refine_radius, self.voxel)
        ours = np.isin(near, here)
        centers[near[ours]], heights[near[ours]] = refined[ours] + corner, height[ours]

    def _owners(
        self, peaks: np.ndarray, allowed: list[np.ndarray], grown: Box, inner: Box, box: Box, component: np.ndarray,
        values: np.ndarray, method: str,
    ) -> np.ndarray:  # fmt: skip
        """Owner (1 + seed) of every voxel of a block."""
        reachable, _ = self.blocks.grown(box, self.ball.reach)
        near = points_inside(peaks, reachable)
        local = np.ascontiguousarray(peaks[near] - corner_of(grown))
        if method == "watershed":
            owner, _ = flood_all(component > 0, values, local, self.ball)
        else:
            _, runs = _runs_of(component)
            owner = nearest_all(runs, component.shape, local, [allowed[seed] for seed in near], self.ball)
        return np.concatenate([[0], near + 1]).astype(np.int32)[owner[inner]]

    def _number(self, pieces: Pieces, owns: np.ndarray, centers: np.ndarray, heights: np.ndarray) -> _Owned:
        """Labels 1..n: seeds that own something in their order, then large enough pieces by their first voxels."""
        owns[0] = False
        of_seed = np.where(owns, np.cumsum(owns), 0)
        piece, voxels, firsts = pieces.join()
        kept = np.flatnonzero(voxels >= self.min_voxels)
        kept = kept[kept > 0]
        of_piece = np.zeros(len(voxels), dtype=np.int64)
        of_piece[kept[np.argsort(firsts[kept])]] = of_seed.max(initial=0) + 1 + np.arange(len(kept))
        # owner -k is the k-th id of the pieces, owner s + 1 is seed s
        table = np.concatenate([of_piece[piece[1:]][::-1], of_seed]).astype(np.int32)
        return _Owned(table, pieces.count, of_seed[1:].astype(np.int64), centers, heights)

    def measure(self, labels: BlockedLabels, owned: _Owned, center_threshold: float) -> pd.DataFrame:
        """Round 5: the table; see `measure_particles`."""
        sums = np.zeros((labels.highest + 1, 6), dtype=np.int64)
        for _, box in self.blocks:
            volume = np.ascontiguousarray(labels[box])
            if volume.any():
                part = sums_by_label(volume, _floats(self.probability, box))
                part[:, 2:5] += part[:, :1] * corner_of(box)  # coordinates were counted from the block's corner
                sums[: len(part), :5] += part[:, :5]
                for axis in range(3):
                    if box[axis].start == 0:
                        sums[np.unique(volume.take(0, axis=axis)), 5] = 1
                    if box[axis].stop == self.blocks.shape[axis]:
                        sums[np.unique(volume.take(-1, axis=axis)), 5] = 1
        sums[0] = 0
        return table_from_sums(
            sums, owned.seed_labels, owned.centers, owned.heights, voxel_size_zyx=self.voxel,
            center_threshold=center_threshold, neighbor_distance=self.sizes.neighbor_distance,
        )  # fmt: skip


def _floats(volume: Any, box: Any) -> np.ndarray:
    return np.ascontiguousarray(volume[box], dtype=np.float32)


def _runs_of(component: np.ndarray) -> tuple[np.ndarray, Any]:
    """Mask and runs of a volume of component numbers; the runs carry these numbers."""
    mask = component > 0
    runs = find_components(mask)
    row = np.searchsorted(runs.row_first, np.arange(runs.start.size), side="right") - 1
    numbers = component.reshape(-1, component.shape[2])[row, runs.start]
    return mask, replace(runs, component=np.ascontiguousarray(numbers, dtype=np.int32))
