"""Post-processing in plain, slow, obviously right lines: what the fast paths are compared with."""

import heapq
import itertools

import numpy as np
from scipy import ndimage

FACES = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]


def squared_distance(a, b, voxel_size):
    """In units of the smallest voxel side, so that ties round as they do in the fast path."""
    return sum((a[k] - b[k]) ** 2 * (voxel_size[k] / min(voxel_size)) ** 2 for k in range(3))


def is_within(a, b, distance, voxel_size):
    return squared_distance(a, b, voxel_size) <= (distance / min(voxel_size)) ** 2


def inside(voxel, shape):
    return all(0 <= voxel[k] < shape[k] for k in range(3))


def plain_mask(probability, threshold, min_size_voxels):
    mask = probability > np.float32(threshold)
    components, count = ndimage.label(mask)  # faces only
    for label in range(1, count + 1):
        if (components == label).sum() < min_size_voxels:
            mask = mask & (components != label)
    return mask


def plain_seeds(center_map, threshold, min_distance, voxel_size):
    """Plateaus by scipy, their neighbourhood by dilation; then greedy thinning."""
    cube = np.ones((3, 3, 3), bool)
    peaks = []
    for value in np.unique(center_map[center_map >= np.float32(threshold)]):
        plateaus, count = ndimage.label(center_map == value, structure=cube)
        for plateau in range(1, count + 1):
            here = plateaus == plateau
            if (center_map[ndimage.binary_dilation(here, structure=cube)] > value).any():
                continue
            voxels = np.argwhere(here)
            nearest = min(
                voxels.tolist(), key=lambda v: (round(squared_distance(v, voxels.mean(axis=0), voxel_size), 6), v)
            )
            peaks.append((-float(value), tuple(nearest)))
    taken: list = []
    for _, peak in sorted(peaks):
        if all(squared_distance(peak, other, voxel_size) >= (min_distance / min(voxel_size)) ** 2 for other in taken):
            taken.append(peak)
    return sorted(taken)


def plain_levels(center_map):
    return (np.clip(center_map, 0, 1) * np.float32(255) + np.float32(0.5)).astype(int)


def plain_costs(mask, center_map, seed, radius_max, voxel_size):
    """Dijkstra for one seed: cost of every voxel it reaches, background passed through included."""
    level = plain_levels(center_map)
    floor = max(np.float32(0.15) * np.float32(level[seed]), 1)
    costs, queue = {}, [(255 - level[seed], seed)]
    while queue:
        cost, voxel = heapq.heappop(queue)
        if voxel in costs:
            continue
        costs[voxel] = cost
        for step in FACES:
            other = tuple(np.add(voxel, step).tolist())
            if not inside(other, mask.shape) or not is_within(other, seed, radius_max, voxel_size):
                continue
            if mask[other] or (not mask[voxel] and level[other] >= floor):
                heapq.heappush(queue, (max(cost, 255 - level[other]), other))
    return costs


def plain_watershed(mask, center_map, seeds, radius_max, voxel_size):
    """Owner (1 + index) of each voxel by (cost, distance, seed)."""
    best: dict = {}
    for index, seed in enumerate(seeds):
        for voxel, cost in plain_costs(mask, center_map, seed, radius_max, voxel_size).items():
            if mask[voxel]:
                claim = (cost, squared_distance(voxel, seed, voxel_size), index)
                best[voxel] = min(best.get(voxel, claim), claim)
    return owners_to_volume(best, mask.shape)


def plain_nearest(mask, center_map, seeds, radius_max, voxel_size, split=False):
    components, count = ndimage.label(mask)
    own: list[set] = []
    for seed in seeds:
        if mask[seed]:
            own.append({components[seed]})
            continue
        passed = list(interior(mask, center_map, seed, radius_max, voxel_size))
        touched = {tuple(np.add(v, step).tolist()) for v in passed for step in FACES}
        own.append({
            components[t] for t in touched
            if inside(t, mask.shape) and mask[t] and is_within(t, seed, radius_max, voxel_size)
        })  # fmt: skip
    best: dict = {}
    for voxel in map(tuple, np.argwhere(mask).tolist()):
        rivals = [i for i in range(len(seeds)) if components[voxel] in own[i]]
        if split and len(rivals) == 1:
            best[voxel] = (0, 0, rivals[0])
            continue
        near = [i for i in rivals if is_within(voxel, seeds[i], radius_max, voxel_size)]
        claims = [(0, squared_distance(voxel, seeds[i], voxel_size), i) for i in near]
        if claims:
            best[voxel] = min(claims)
    return owners_to_volume(best, mask.shape)


def interior(mask, center_map, seed, radius_max, voxel_size):
    """Background voxels that a seed outside the mask passes through."""
    level = plain_levels(center_map)
    allowed = ~mask & (level >= max(np.float32(0.15) * np.float32(level[seed]), 1))
    for voxel in itertools.product(*map(range, mask.shape)):
        allowed[voxel] &= is_within(voxel, seed, radius_max, voxel_size)
    pieces, _ = ndimage.label(allowed)
    return map(tuple, np.argwhere(pieces == pieces[seed]).tolist())


def owners_to_volume(best, shape):
    owner = np.zeros(shape, dtype=int)
    for voxel, (_, _, index) in best.items():
        owner[voxel] = index + 1
    return owner


def plain_labels(mask, owner, n_seeds, require_seed=False, min_size_voxels=0):
    """Number the owners without gaps, then the pieces that nobody owns."""
    labels = np.zeros(owner.shape, dtype=int)
    seed_labels: list[int] = []
    for index in range(n_seeds):
        owned = owner == index + 1
        seed_labels.append(max(seed_labels, default=0) + 1 if owned.any() else 0)
        labels[owned] = seed_labels[-1]
    count = labels.max()
    pieces, n_pieces = ndimage.label(mask & (owner == 0))
    for piece in range(1, n_pieces + 1):
        if not require_seed and (pieces == piece).sum() >= min_size_voxels:
            count += 1
            labels[pieces == piece] = count
    return labels, seed_labels
