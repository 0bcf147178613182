"""instances, block by block: the steps of `custom_transforms.instances` for volumes that do not fit into memory.

The same labels as in memory, whatever the blocks: a voxel's owner depends on what lies within two R_max of it, so a
block with a halo that wide decides its own voxels; components that cross a border between blocks are joined afterwards;
peaks are thinned and numbered as one list. Centers and scores agree to rounding (a center is computed in the
coordinates of its block).

What a block needs is one function of its box, which may run elsewhere (`Blocks.run`): it writes to its own voxels of a
volume, and gives the little that the whole needs of it.

Volumes are anything that is read and written by slices and has a ``shape``: arrays, or Zarr arrays on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from custom_transforms.labelling.assign import mark_labels
from custom_transforms.labelling.blocks import Blocks, Box, FoundPieces, Pieces, corner_of, find_pieces, points_inside
from custom_transforms.labelling.classes import SeedClasses, ball_offsets, sums_in_balls
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
    numbers, pieces = blocks.volume("components", np.int32), Pieces(blocks)
    for index, _, found in blocks.map(
        partial(_components_of_block, numbers, probability, np.float32(threshold), blocks.shape)
    ):
        pieces.add(index, found)
    piece, voxels, _ = pieces.join()
    return pieces.labels(numbers, np.zeros(1), np.where(voxels[piece] >= min_size_voxels, piece, 0))


def _components_of_block(
    numbers: Any, probability: Any, limit: np.float32, shape: tuple[int, int, int], box: Box
) -> FoundPieces:
    own, found = find_pieces(_floats(probability, box) > limit, box, shape)
    numbers[box] = -own
    return found


def peaks_in_blocks(
    center_map: Any, threshold: float, min_distance: float, voxel_size_zyx: np.ndarray, blocks: Blocks
) -> tuple[np.ndarray, np.ndarray]:
    """Peaks (n, 3), sorted by z, y, x, and the map there; see `find_seeds`."""
    weights, _ = squared_axis_weights(voxel_size_zyx)
    of_block = partial(peaks_of_block, center_map, limit=np.float32(threshold), weights=weights, blocks=blocks)
    runs = PeakRuns.join(found for _, _, found in blocks.map(of_block))
    return settle_peaks(runs, blocks.shape, min_distance, voxel_size_zyx)


def refined_in_blocks(
    center_map: Any, peaks: np.ndarray, radius: float | np.ndarray, voxel_size_zyx: np.ndarray, blocks: Blocks
) -> tuple[np.ndarray, np.ndarray]:
    """Refined centers (n, 3) and heights of peaks; see `refine_seeds`."""
    weights, unit = squared_axis_weights(voxel_size_zyx)
    radii = np.full(len(peaks), radius, dtype=np.float64)
    centers, heights = peaks.astype(np.float64), np.zeros(len(peaks))
    halo = np.ceil(4 * (radii.max(initial=0.0) / unit + 1) / np.sqrt(weights)) + 2
    for _, _, (here, *found) in blocks.map(
        partial(_refined_of_block, center_map, peaks, radii, voxel_size_zyx, blocks, halo)
    ):
        if here.size:
            centers[here], heights[here] = found
    return centers, heights


def _refined_of_block(
    center_map: Any, peaks: np.ndarray, radii: np.ndarray, voxel_size_zyx: np.ndarray, blocks: Blocks,
    halo: np.ndarray, box: Box,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """Which peaks lie in a block, and their refined centers and heights."""
    here = points_inside(peaks, box)
    if not here.size:
        return (here,)
    grown, _ = blocks.grown(box, halo)
    near, corner = points_inside(peaks, grown), corner_of(grown)
    refined, height = refine_seeds(_floats(center_map, grown), peaks[near] - corner, radii[near], voxel_size_zyx)
    own = np.isin(near, here)
    return here, refined[own] + corner, height[own]


def classes_in_blocks(
    class_maps: Sequence[Any], names: Sequence[str], peaks: np.ndarray, radius: float, voxel_size_zyx: np.ndarray,
    blocks: Blocks,
) -> SeedClasses:  # fmt: skip
    """The classes of peaks; see `score_classes`.

    A ball that several blocks share is added up from its parts, so that no block is read with what lies around it: of
    compressed chunks that would be several times as many. The sums are those of whole balls, to the bit for maps of
    float16, of which float64 adds up thousands without rounding.
    """
    offsets = ball_offsets(radius, voxel_size_zyx)
    sums, counts = np.zeros((len(peaks), len(class_maps))), np.zeros(len(peaks), dtype=np.int64)
    for _, _, (near, added, voxels) in blocks.map(partial(_classes_of_block, class_maps, peaks, offsets, blocks)):
        sums[near] += added
        counts[near] += voxels
    return SeedClasses(tuple(names), sums / counts[:, None])


def _classes_of_block(
    class_maps: Sequence[Any], peaks: np.ndarray, offsets: np.ndarray, blocks: Blocks, box: Box
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which peaks have voxels of their balls in a block; their sums (n, classes) and how many voxels these are."""
    near = points_inside(peaks, blocks.grown(box, offsets.max(axis=0))[0])
    sums, counts = np.zeros((len(near), len(class_maps))), np.zeros(len(near), dtype=np.int64)
    if near.size:
        for column, one in enumerate(class_maps):
            sums[:, column], counts = sums_in_balls(_floats(one, box), peaks[near] - corner_of(box), offsets)
    return near, sums, counts


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
    alone = None  # by component, the seed that has it for itself
    if method == "split" and allowed:
        alone = np.zeros(foreground.highest + 1, dtype=np.int32)
        seeds_in = np.bincount(np.concatenate(allowed).astype(np.int64), minlength=alone.size)
        for seed, ids in enumerate(allowed):
            alone[ids[seeds_in[ids] == 1]] = seed + 1
        allowed = [ids[seeds_in[ids] > 1] for ids in allowed]
    pieces, owns = Pieces(blocks), np.zeros(len(peaks) + 1, dtype=bool)
    owners = blocks.volume("owners", np.int32)
    owners_of = partial(_owners_of_block, foreground, center_map, peaks, allowed, blocks, ball)
    for index, _, (found, here) in blocks.map(partial(_mark_owners, owners, owners_of, alone, not require_seed)):
        pieces.add(index, found)
        owns[here] = True
    # labels 1..n: seeds that own something in their order, then large enough pieces by their first voxels
    owns[0] = False
    of_seed = np.where(owns, np.cumsum(owns), 0)
    piece, voxels, firsts = pieces.join()
    kept = np.flatnonzero(voxels >= min_size_voxels)
    kept = kept[kept > 0]
    of_piece = np.zeros(len(voxels), dtype=np.int64)
    of_piece[kept[np.argsort(firsts[kept])]] = of_seed.max(initial=0) + 1 + np.arange(len(kept))
    return pieces.labels(owners, of_seed, of_piece[piece]), of_seed[1:].astype(np.int64)


def _mark_owners(
    owners: Any, owners_of: Callable[[Box], tuple[np.ndarray, np.ndarray]], alone: np.ndarray | None, seedless: bool,
    box: Box,
) -> tuple[FoundPieces, np.ndarray]:  # fmt: skip
    """Write who owns a block's voxels: 1 + seed, or a piece without one from -1 down; gives pieces and owners."""
    owner, component = owners_of(box)
    if alone is not None:
        owner = np.where(alone[component] > 0, alone[component], owner)
    owns = np.zeros(owner.max(initial=0) + 1, dtype=bool)
    mark_labels(owner.reshape(-1), owns)
    rest, found = find_pieces((component > 0) & (owner == 0) & seedless, box, owners.shape)
    owners[box] = owner - rest
    return found, np.flatnonzero(owns)


def _allowed_components(
    foreground: LabelVolume, center_map: Any, peaks: np.ndarray, blocks: Blocks, ball: Ball
) -> list[np.ndarray]:
    """The components that each seed may own."""
    allowed = [np.zeros(0, np.int64)] * len(peaks)
    for _, _, found in blocks.map(partial(_allowed_of_block, foreground, center_map, peaks, blocks, ball)):
        for seed, ids in found.items():
            allowed[seed] = ids
    return allowed


def _allowed_of_block(
    foreground: LabelVolume, center_map: Any, peaks: np.ndarray, blocks: Blocks, ball: Ball, box: Box
) -> dict[int, np.ndarray]:
    """The components that each seed in a block may own."""
    here = points_inside(peaks, box)
    if not here.size:
        return {}
    grown, _ = blocks.grown(box, ball.reach)
    mask, runs = _runs_of(foreground[grown])
    values, local = _floats(center_map, grown), peaks[here] - corner_of(grown)
    return {
        seed: touched_components(mask, values, runs, peak, ball)
        for seed, peak in zip(here.tolist(), local, strict=True)
    }


def _owners_of_block(
    foreground: LabelVolume, center_map: Any, peaks: np.ndarray, allowed: list[np.ndarray] | None, blocks: Blocks,
    ball: Ball, box: Box,
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
    for _, _, (found, part) in blocks.map(partial(_sums_of_block, labels, probability)):
        sums[found, :5] += part[:, :5]
        sums[found, 5] |= part[:, 5]
    return sums


def _sums_of_block(labels: LabelVolume, probability: Any, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The labels in a block, and their rows of the sums; in the last, whether it lies on a face of the volume."""
    volume = np.ascontiguousarray(labels[box])
    if not volume.any():
        return np.zeros(0, np.int64), np.zeros((0, 6), np.int64)
    sums = sums_by_label(volume, _floats(probability, box))
    sums[:, 2:5] += sums[:, :1] * corner_of(box)  # coordinates were counted from the block's corner
    sums[:, 5] = 0
    for axis in range(3):
        if box[axis].start == 0:
            sums[np.unique(volume.take(0, axis=axis)), 5] = 1
        if box[axis].stop == labels.shape[axis]:
            sums[np.unique(volume.take(-1, axis=axis)), 5] = 1
    sums[0] = 0
    found = np.flatnonzero(sums[:, 0])
    return found, sums[found]


def _floats(volume: Any, box: Any) -> np.ndarray:
    return np.ascontiguousarray(volume[box], dtype=np.float32)


def _runs_of(component: np.ndarray) -> tuple[np.ndarray, Any]:
    """Mask and runs of a volume of component numbers; the runs carry these numbers."""
    mask = component > 0
    runs = find_components(mask)
    row = np.searchsorted(runs.row_first, np.arange(runs.start.size), side="right") - 1
    numbers = component.reshape(-1, component.shape[2])[row, runs.start]
    return mask, replace(runs, component=np.ascontiguousarray(numbers, dtype=np.int32))
