"""instances, block by block: the steps of `custom_transforms.instances` for volumes that do not fit into memory.

The same labels as in memory, whatever the blocks: a voxel's owner depends on what lies within two R_max of it, so a
block with a halo that wide decides its own voxels; components that cross a border between blocks are joined afterwards;
peaks are thinned and numbered as one list. Centers and scores agree to rounding (a center is computed in the
coordinates of its block).

Volumes are anything that is read and written by slices and has a ``shape``: arrays, or Zarr arrays on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from custom_transforms.labelling.assign import mark_labels
from custom_transforms.labelling.blocks import Blocks, Box, Pieces, corner_of, points_inside
from custom_transforms.labelling.classes import SeedClasses, ball_offsets, mean_in_balls
from custom_transforms.labelling.components import find_components
from custom_transforms.labelling.flood import Ball, flood_all, nearest_all, touched_components
from custom_transforms.labelling.plateaus import PeakRuns, find_peak_runs, one_peak_per_plateau, reaches_a_face
from custom_transforms.labelling.refine import refine_seeds
from custom_transforms.labelling.seeds import settle_peaks
from custom_transforms.measuring.particle_table import sums_by_label
from custom_transforms.volumes.lazy import LabelVolume
from custom_transforms.volumes.parallel import squared_axis_weights

__all__ = [
    "assign_in_blocks",
    "classes_in_blocks",
    "components_in_blocks",
    "peaks_in_blocks",
    "refined_in_blocks",
    "sums_in_blocks",
]


def components_in_blocks(probability: Any, threshold: float, min_size_voxels: float, blocks: Blocks) -> LabelVolume:
    """The components of the thresholded mask without specks, numbered from 1; see `mask_from_probability`."""
    pieces, limit = Pieces(blocks.shape), np.float32(threshold)
    numbers = blocks.volume("components", np.int32)
    for index, box in blocks:
        numbers[box] = pieces.add(index, box, _floats(probability, box) > limit)
    piece, voxels, _ = pieces.join()
    return LabelVolume(numbers, np.where(voxels[piece] >= min_size_voxels, piece, 0).astype(np.int32))


def peaks_in_blocks(
    center_map: Any, threshold: float, min_distance: float, voxel_size_zyx: np.ndarray, blocks: Blocks
) -> tuple[np.ndarray, np.ndarray]:
    """Peaks (n, 3), sorted by z, y, x, and the map there; see `find_seeds`."""
    weights, _ = squared_axis_weights(voxel_size_zyx)
    limit = np.float32(threshold)
    runs = PeakRuns.join(peaks_of_block(center_map, box, limit, weights, blocks) for _, box in blocks)
    return settle_peaks(runs, blocks.shape, min_distance, voxel_size_zyx)


def refined_in_blocks(
    center_map: Any, peaks: np.ndarray, radius: float | np.ndarray, voxel_size_zyx: np.ndarray, blocks: Blocks
) -> tuple[np.ndarray, np.ndarray]:
    """Refined centers (n, 3) and heights of peaks; see `refine_seeds`."""
    weights, unit = squared_axis_weights(voxel_size_zyx)
    radii = np.full(len(peaks), radius, dtype=np.float64)
    centers, heights = peaks.astype(np.float64), np.zeros(len(peaks))
    halo = np.ceil(4 * (radii.max(initial=0.0) / unit + 1) / np.sqrt(weights)) + 2
    for _, box in blocks:
        here = points_inside(peaks, box)
        if not here.size:
            continue
        grown, _ = blocks.grown(box, halo)
        near, corner = points_inside(peaks, grown), corner_of(grown)
        refined, height = refine_seeds(_floats(center_map, grown), peaks[near] - corner, radii[near], voxel_size_zyx)
        own = np.isin(near, here)
        centers[here], heights[here] = refined[own] + corner, height[own]
    return centers, heights


def classes_in_blocks(
    class_maps: Sequence[Any], names: Sequence[str], peaks: np.ndarray, radius: float, voxel_size_zyx: np.ndarray,
    blocks: Blocks,
) -> SeedClasses:  # fmt: skip
    """The classes of peaks; see `score_classes`."""
    offsets = ball_offsets(radius, voxel_size_zyx)
    scores = np.zeros((len(peaks), len(class_maps)))
    for _, box in blocks:
        here = points_inside(peaks, box)
        if here.size:
            grown, _ = blocks.grown(box, offsets.max(axis=0))
            for column, one in enumerate(class_maps):
                scores[here, column] = mean_in_balls(_floats(one, grown), peaks[here] - corner_of(grown), offsets)
    return SeedClasses(tuple(names), scores)


def peaks_of_block(center_map: Any, box: Box, limit: np.float32, weights: np.ndarray, blocks: Blocks) -> PeakRuns:
    """Peaks of a block. A plateau that ends inside gives its one voxel; of one that reaches a face, all runs."""
    grown, inner = blocks.grown(box, np.ones(3))
    runs = find_peak_runs(_floats(center_map, grown), limit, inner, corner_of(grown), blocks.shape)
    is_open = reaches_a_face(runs, blocks.shape, corner_of(box), np.array([side.stop for side in box]))
    settled = PeakRuns.lone(*one_peak_per_plateau(runs[~is_open], blocks.shape, weights))
    return PeakRuns.join([settled, runs[is_open]])


def assign_in_blocks(
    foreground: LabelVolume, center_map: Any, peaks: np.ndarray, blocks: Blocks, *, method: str, radius_max: float,
    voxel_size_zyx: np.ndarray, require_seed: bool, min_size_voxels: float,
) -> tuple[LabelVolume, np.ndarray]:  # fmt: skip
    """Instance labels, and the label of each seed; see `assign_instances`. ``foreground`` numbers its components."""
    weights, unit = squared_axis_weights(voxel_size_zyx)
    ball = Ball(radius_max / unit, weights, blocks.shape)
    allowed = _allowed_components(foreground, center_map, peaks, blocks, ball) if method != "watershed" else None
    alone = np.zeros(foreground.highest + 1, dtype=np.int32)  # the seed that has a component for itself
    if method == "split" and allowed:
        seeds_in = np.bincount(np.concatenate(allowed).astype(np.int64), minlength=alone.size)
        for seed, ids in enumerate(allowed):
            alone[ids[seeds_in[ids] == 1]] = seed + 1
        allowed = [ids[seeds_in[ids] > 1] for ids in allowed]
    pieces, owns = Pieces(blocks.shape), np.zeros(len(peaks) + 1, dtype=bool)
    owners = blocks.volume("owners", np.int32)
    for index, box in blocks:
        owner, component = _owners_of_block(foreground, center_map, peaks, allowed, blocks, box, ball)
        if method == "split":
            owner = np.where(alone[component] > 0, alone[component], owner)
        mark_labels(owner.reshape(-1), owns)
        rest = (component > 0) & (owner == 0) & (not require_seed)
        owners[box] = owner - pieces.add(index, box, rest)
    # labels 1..n: seeds that own something in their order, then large enough pieces by their first voxels
    owns[0] = False
    of_seed = np.where(owns, np.cumsum(owns), 0)
    piece, voxels, firsts = pieces.join()
    kept = np.flatnonzero(voxels >= min_size_voxels)
    kept = kept[kept > 0]
    of_piece = np.zeros(len(voxels), dtype=np.int64)
    of_piece[kept[np.argsort(firsts[kept])]] = of_seed.max(initial=0) + 1 + np.arange(len(kept))
    # owner -k is the k-th id of the pieces, owner s + 1 is seed s
    table = np.concatenate([of_piece[piece[1:]][::-1], of_seed]).astype(np.int32)
    return LabelVolume(owners, table, pieces.count), of_seed[1:].astype(np.int64)


def _allowed_components(
    foreground: LabelVolume, center_map: Any, peaks: np.ndarray, blocks: Blocks, ball: Ball
) -> list[np.ndarray]:
    """The components that each seed may own."""
    allowed = [np.zeros(0, np.int64)] * len(peaks)
    for _, box in blocks:
        here = points_inside(peaks, box)
        if here.size:
            grown, _ = blocks.grown(box, ball.reach)
            mask, runs = _runs_of(foreground[grown])
            values = _floats(center_map, grown)
            for seed in here:
                allowed[seed] = touched_components(mask, values, runs, peaks[seed] - corner_of(grown), ball)
    return allowed


def _owners_of_block(
    foreground: LabelVolume, center_map: Any, peaks: np.ndarray, allowed: list[np.ndarray] | None, blocks: Blocks,
    box: Box, ball: Ball,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Owner (1 + seed, 0 for none) and component of every voxel of a block: the watershed, or the nearest allowed."""
    grown, inner = blocks.grown(box, 2 * ball.reach + 1)
    component = foreground[grown]
    if not component[inner].any():
        return np.zeros(component[inner].shape, dtype=np.int32), component[inner]
    near = points_inside(peaks, blocks.grown(box, ball.reach)[0])
    local = np.ascontiguousarray(peaks[near] - corner_of(grown))
    if allowed is None:
        owner, _ = flood_all(component > 0, _floats(center_map, grown), local, ball)
    else:
        owner = nearest_all(_runs_of(component)[1], component.shape, local, [allowed[seed] for seed in near], ball)
    return np.concatenate([[0], near + 1]).astype(np.int32)[owner[inner]], component[inner]


def sums_in_blocks(labels: LabelVolume, probability: Any, blocks: Blocks) -> np.ndarray:
    """The numbers that the particle table is made of, as `sums_by_label` gives them."""
    sums = np.zeros((labels.highest + 1, 6), dtype=np.int64)
    for _, box in blocks:
        volume = np.ascontiguousarray(labels[box])
        if volume.any():
            part = sums_by_label(volume, _floats(probability, box))
            part[:, 2:5] += part[:, :1] * corner_of(box)  # coordinates were counted from the block's corner
            sums[: len(part), :5] += part[:, :5]
            for axis in range(3):
                if box[axis].start == 0:
                    sums[np.unique(volume.take(0, axis=axis)), 5] = 1
                if box[axis].stop == blocks.shape[axis]:
                    sums[np.unique(volume.take(-1, axis=axis)), 5] = 1
    sums[0] = 0
    return sums


def _floats(volume: Any, box: Any) -> np.ndarray:
    return np.ascontiguousarray(volume[box], dtype=np.float32)


def _runs_of(component: np.ndarray) -> tuple[np.ndarray, Any]:
    """Mask and runs of a volume of component numbers; the runs carry these numbers."""
    mask = component > 0
    runs = find_components(mask)
    row = np.searchsorted(runs.row_first, np.arange(runs.start.size), side="right") - 1
    numbers = component.reshape(-1, component.shape[2])[row, runs.start]
    return mask, replace(runs, component=np.ascontiguousarray(numbers, dtype=np.int32))
