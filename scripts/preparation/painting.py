"""Paint particles into an instance label volume: whoever is nearer owns a contested voxel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import edt
import numpy as np
from scipy.spatial import cKDTree

from custom_transforms.units import angstrom_xyz_to_voxel_zyx
from scripts.particles.particle_list import ParticleList
from scripts.preparation.shapes import Footprint, Shape

__all__ = ["Painted", "find_duplicates", "ignore_shells", "merge_duplicates", "paint_instances", "position_order"]

IGNORE = -1
_SLAB_VOXELS = 2**25


@dataclass
class Painted:
    """Labels, and what became of each particle.

    Every array has one entry per particle, in the order of ``particles`` (sorted by position, see `position_order`).
    """

    labels: np.ndarray  # (Z, Y, X) int16 or int32: -1 ignore, 0 background, 1..n
    particles: ParticleList  # reference points, as in the list
    centroids_xyz_angstrom: np.ndarray  # (n, 3)
    label: np.ndarray  # (n,) int; 0 if not in the volume
    mask_voxels: np.ndarray  # (n,) voxels of the whole shape
    volume_voxels: np.ndarray  # (n,) voxels that carry the label
    clipped: np.ndarray  # (n,) bool: the volume's border cuts it
    outside: np.ndarray  # (n,) bool: its center is outside; what is visible of it is ignored
    contested: np.ndarray  # (n,) voxels lost to a nearer particle
    radius_angstrom: np.ndarray  # (n,)
    dropped_by: np.ndarray  # (n,) str: why the label is 0: "outside_volume", "hidden" (by nearer ones), "no_voxel"


def position_order(particles: ParticleList) -> np.ndarray:
    """Sort order of particles by z, y, x, class and score (high first), so that the list's order does not matter."""
    x, y, z = np.round(particles.centers_xyz_angstrom, 3).T
    _, class_rank = np.unique(np.asarray(particles.class_name), return_inverse=True)
    return np.lexsort((-np.nan_to_num(particles.score, nan=-np.inf), class_rank, x, y, z))


def paint_instances(
    particles: ParticleList,
    shapes: Mapping[str, Shape],
    size_zyx: Sequence[int],
    voxel_size_zyx: np.ndarray,
    progress: Callable[[int], None] | None = None,
) -> Painted:
    """Give every voxel of every particle its label.

    A voxel that several shapes cover goes to the particle whose centroid is nearer in units of its radius; ties go to
    the lower z, y, x. So neither the list's order nor its file format changes a label.

    Parameters
    ----------
    particles : ParticleList
        Reference points, Å; one tomogram. Untouched.
    shapes : mapping of class name to Shape
        "" or "*" serves every class without its own.
    size_zyx : sequence of 3 int
        Voxels of the volume.
    voxel_size_zyx : ndarray, shape (3,)
        Å.
    progress : callable, optional
        Called with 1 after each particle.

    Returns
    -------
    Painted
        Labels 1..n without gaps, by the position (z, y, x) of the reference point. All zero for an empty list.

    Raises
    ------
    ValueError
        For a class without a shape, or a shape that needs an orientation the list lacks.
    """
    ordered = particles.select(position_order(particles))
    shape_of = [_shape_for(shapes, str(name)) for name in ordered.class_name]
    if ordered.rotation is None and any(shape.needs_orientation for shape in shape_of):
        raise ValueError(
            "a mask or density shape must be turned by each particle's orientation, and the list has none. "
            "Give a list with angles, or --radius for spheres."
        )
    canvas = _Canvas(ordered, shape_of, np.asarray(size_zyx), np.asarray(voxel_size_zyx, dtype=float))
    for index in range(len(ordered)):
        canvas.paint(index)
        if progress is not None:
            progress(1)
    return canvas.finish()


class _Canvas:
    """The label volume while it is painted; particle i has the label i + 1 until `finish`."""

    def __init__(self, particles: ParticleList, shapes: list[Shape], size_zyx: np.ndarray, voxel_size: np.ndarray):
        count = len(particles)
        self.particles, self.shapes, self.size_zyx, self.voxel_size = particles, shapes, size_zyx, voxel_size
        # half the memory where the ids fit
        self.labels = np.zeros(tuple(size_zyx), dtype=np.int16 if count < np.iinfo(np.int16).max else np.int32)
        rotations = particles.rotation
        self.rotations = [None] * count if rotations is None else [rotations[i] for i in range(count)]
        offsets = [s.centroid_offset_xyz(r) for s, r in zip(shapes, self.rotations, strict=True)]
        self.centroids = particles.centers_xyz_angstrom + np.array(offsets).reshape(-1, 3)
        self.centers_vox = angstrom_xyz_to_voxel_zyx(particles.centers_xyz_angstrom, voxel_size)
        self.centroids_vox = angstrom_xyz_to_voxel_zyx(self.centroids, voxel_size)
        self.radius = np.array([shape.radius_angstrom for shape in shapes])
        beyond = (self.centroids_vox < -0.5) | (self.centroids_vox >= size_zyx - 0.5)
        self.outside = np.asarray(np.any(beyond, axis=1))
        self.clipped = np.zeros(count, dtype=bool)
        self.mask_voxels, self.contested = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)

    def paint(self, index: int) -> None:
        reach = 2.5 * self.radius[index] / self.voxel_size + 64
        center = self.centers_vox[index]
        if (center < -reach).any() or (center > self.size_zyx + reach).any():
            return  # far away: its shape cannot reach the volume
        footprint = self.shapes[index].footprint(center, self.rotations[index], self.voxel_size)
        self.mask_voxels[index] = int(footprint.mask.sum())
        window, mask, cut = _inside(footprint, self.size_zyx)
        self.clipped[index] = cut
        if mask.any():
            self._claim(index, window, mask)

    def _claim(self, index: int, window: tuple[slice, ...], mask: np.ndarray) -> None:
        view = self.labels[window]
        free = mask & (view == 0)
        taken = np.argwhere(mask & (view != 0))
        view[free] = index + 1
        if len(taken) == 0:
            return
        rivals = view[tuple(taken.T)] - 1
        start = np.array([s.start for s in window])
        mine = self._cost(taken + start, np.full(len(taken), index))
        theirs = self._cost(taken + start, rivals)
        won = mine < theirs - 1e-9  # particles come in position order, so a tie stays with the lower position
        view[tuple(taken[won].T)] = index + 1
        self.contested[index] += int((~won).sum())
        np.add.at(self.contested, rivals[won], 1)

    def _cost(self, voxels_zyx: np.ndarray, owner: np.ndarray) -> np.ndarray:
        offset = (voxels_zyx - self.centroids_vox[owner]) * self.voxel_size
        return np.sqrt((offset**2).sum(axis=1)) / self.radius[owner]

    def finish(self) -> Painted:
        count = len(self.particles)
        volume = _count_labels(self.labels, count)
        alive = (volume > 0) & ~self.outside
        final = np.zeros(count + 1, dtype=self.labels.dtype)
        final[1:][alive] = np.arange(1, int(alive.sum()) + 1)
        final[1:][self.outside] = IGNORE
        if not alive.all():
            for slab in _slabs(self.labels):
                slab[...] = final[slab]
        return Painted(
            labels=self.labels,
            particles=self.particles,
            centroids_xyz_angstrom=self.centroids,
            label=np.where(alive, final[1:], 0),
            mask_voxels=self.mask_voxels,
            volume_voxels=np.where(alive, volume, 0),
            clipped=self.clipped & ~self.outside,
            outside=self.outside,
            contested=self.contested,
            radius_angstrom=self.radius,
            dropped_by=np.select(
                [self.outside, alive, self.contested > 0], ["outside_volume", "", "hidden"], default="no_voxel"
            ).astype("<U16"),
        )


def ignore_shells(labels: np.ndarray, thickness_angstrom: float, voxel_size_zyx: np.ndarray) -> None:
    """Set background voxels within a distance (Å) of any particle to -1, in place.

    Where a particle ends is the least certain part of an annotation. Works slab by slab, so a large volume needs
    little memory.
    """
    if thickness_angstrom <= 0:
        return
    margin = int(np.ceil(thickness_angstrom / voxel_size_zyx[0])) + 1
    depth = max(1, _SLAB_VOXELS // max(1, labels[0].size))
    shells = []
    for start in range(0, len(labels), depth):
        low, high = max(0, start - margin), min(len(labels), start + depth + margin)
        background = labels[low:high] <= 0
        distance = edt.edt(background, anisotropy=tuple(map(float, voxel_size_zyx)), black_border=False, parallel=2)
        part = slice(start - low, min(start + depth, len(labels)) - low)
        near = (distance[part] <= thickness_angstrom) & (labels[start : start + depth] == 0)
        shells.append((start, np.packbits(near) if background.any() and not background.all() else None, near.shape))
    for start, bits, shape in shells:
        if bits is not None:
            near = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
            labels[start : start + shape[0]][near] = IGNORE


def find_duplicates(particles: ParticleList, radius_angstrom: np.ndarray) -> np.ndarray:
    """Pairs of particles closer than a third of the smaller radius: indices, shape (m, 2), lower index first."""
    if len(particles) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    centers = particles.centers_xyz_angstrom
    pairs = cKDTree(centers).query_pairs(float(radius_angstrom.max()) / 3, output_type="ndarray")
    if len(pairs) == 0:
        return pairs.reshape(0, 2)
    pairs = np.sort(pairs, axis=1)
    distance = np.linalg.norm(centers[pairs[:, 0]] - centers[pairs[:, 1]], axis=1)
    pairs = pairs[distance < np.minimum(radius_angstrom[pairs[:, 0]], radius_angstrom[pairs[:, 1]]) / 3]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def merge_duplicates(particles: ParticleList, pairs: np.ndarray) -> np.ndarray:
    """Choose one particle of each pair: the higher score, else the lower index. Returns a bool mask, shape (n,)."""
    keep = np.ones(len(particles), dtype=bool)
    score = np.nan_to_num(np.asarray(particles.score), nan=-np.inf)
    order = np.lexsort((np.arange(len(particles)), -score))
    rank = np.empty(len(particles), dtype=np.int64)
    rank[order] = np.arange(len(particles))
    partners: dict[int, list[int]] = {}
    for first, second in pairs:
        partners.setdefault(int(first), []).append(int(second))
        partners.setdefault(int(second), []).append(int(first))
    for index in sorted(partners, key=lambda i: rank[i]):
        if keep[index]:
            keep[[other for other in partners[index] if rank[other] > rank[index]]] = False
    return keep


def _shape_for(shapes: Mapping[str, Shape], name: str) -> Shape:
    for key in (name, "*", ""):
        if key in shapes:
            return shapes[key]
    known = ", ".join(map(repr, shapes)) or "none"
    raise ValueError(
        f"class {name!r} of the list has no shape; shapes are given for {known}. "
        "Add it to the shapes file, or '*' for all other classes."
    )


def _inside(footprint: Footprint, size_zyx: np.ndarray) -> tuple[tuple[slice, ...], np.ndarray, bool]:
    """The part of a footprint within the volume: window of the volume, mask, and whether something was cut off."""
    start = footprint.start_zyx
    low = np.clip(start, 0, size_zyx)
    high = np.clip(start + footprint.mask.shape, low, size_zyx)
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    mask = footprint.mask[tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))]
    return window, mask, bool(footprint.mask.sum() > mask.sum())


def _count_labels(labels: np.ndarray, count: int) -> np.ndarray:
    total = np.zeros(count + 1, dtype=np.int64)
    for slab in _slabs(labels):
        total += np.bincount(slab.ravel(), minlength=count + 1)
    return total[1:]


def _slabs(labels: np.ndarray):
    depth = max(1, 2**22 // max(1, labels[0].size))
    for start in range(0, len(labels), depth):
        yield labels[start : start + depth]
