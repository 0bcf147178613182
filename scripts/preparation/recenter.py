"""Move annotated points onto the density around them, by correlation with their class's average, or onto detections."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from custom_transforms.units import angstrom_xyz_to_voxel_zyx
from scripts.matching.points import match_points
from scripts.particles.particle_list import ParticleList

__all__ = ["doubtful_moves", "recenter", "recenter_on"]

_ROUNDS = 3
_MIN_PARTICLES = 3
_MAX_AVERAGED = 500
_FULL = 0.9  # of the limit: the grid of voxels rarely has a point right at it


def recenter(
    particles: ParticleList,
    volume: np.ndarray,
    voxel_size_zyx: np.ndarray,
    radius_angstrom: np.ndarray,
    search_angstrom: float,
) -> tuple[ParticleList, np.ndarray]:
    """Find where each particle's surroundings agree best with the average of its class.

    Surroundings are turned by the orientations where the list has them. The average is of the annotated points, so
    the moves of a class are taken to be zero in the mean; three rounds, each with a sharper average.

    Parameters
    ----------
    particles : ParticleList
        Å of ``volume``. Untouched.
    volume : ndarray, shape (Z, Y, X)
        The tomogram; its contrast does not matter.
    voxel_size_zyx : ndarray, shape (3,)
        Å.
    radius_angstrom : ndarray, shape (n,)
        Of each particle.
    search_angstrom : float
        A particle moves by at most this much.

    Returns
    -------
    moved : ParticleList
    moves_xyz_angstrom : ndarray, shape (n, 3)
        Zero for classes with fewer than three particles.
    """
    moves = np.zeros((len(particles), 3))
    for name in np.unique(particles.class_name):
        members = np.flatnonzero(particles.class_name == name)
        if len(members) >= _MIN_PARTICLES:
            moves[members] = _recenter_class(
                particles.select(members),
                volume,
                voxel_size_zyx,
                float(radius_angstrom[members].max()),
                search_angstrom,
            )
    return particles.with_centers(particles.centers_xyz_angstrom + moves), moves


def recenter_on(
    particles: ParticleList, detections_xyz_angstrom: np.ndarray, search_angstrom: float
) -> tuple[ParticleList, np.ndarray]:
    """Move each particle to a detection near it, no two to the same one; those without one stay.

    A network trained on roughly placed centers finds better ones: their errors average out over the particles.

    Parameters
    ----------
    particles : ParticleList
        Untouched.
    detections_xyz_angstrom : ndarray, shape (m, 3)
        Å of the same tomogram.
    search_angstrom : float
        A particle moves by at most this much.

    Returns
    -------
    moved : ParticleList
    moves_xyz_angstrom : ndarray, shape (n, 3)

    Examples
    --------
    >>> moved, _ = recenter_on(ParticleList([[0.0, 0, 0], [50, 0, 0]]), np.array([[9.0, 0, 0], [80, 0, 0]]), 20.0)
    >>> moved.centers_xyz_angstrom[:, 0].tolist()
    [9.0, 50.0]
    """
    found = match_points(detections_xyz_angstrom, particles.centers_xyz_angstrom, search_angstrom)
    moves = np.zeros((len(particles), 3))
    moves[found.true] = detections_xyz_angstrom[found.predicted] - particles.centers_xyz_angstrom[found.true]
    return particles.with_centers(particles.centers_xyz_angstrom + moves), moves


def doubtful_moves(moves_xyz_angstrom: np.ndarray, search_angstrom: float) -> str:
    """Say what speaks against the moves of `recenter`; "" if nothing does.

    Where the density decides, moves are short beside the limit. Without a clear peak near by they fill the sphere:
    their mean is three quarters of the limit, and a quarter of them end near it.

    Examples
    --------
    >>> doubtful_moves(np.array([[40.0, 0, 0], [5, 0, 0], [0, 8, 0]]), 40.0)[:62]
    '1 of 3 particles moved the full 40 Å, the mean is 17.7 Å: look'
    """
    length = np.linalg.norm(moves_xyz_angstrom, axis=1)
    full = int((length >= _FULL * search_angstrom).sum())
    if not len(length) or (length.mean() <= search_angstrom / 2 and full < len(length) / 10):
        return ""
    return (
        f"{full} of {len(length)} particles moved the full {search_angstrom:g} Å, the mean is {length.mean():.1f} Å: "
        "look at the pictures, use --recenter_on or a smaller value"
    )


def _recenter_class(
    particles: ParticleList, volume: np.ndarray, voxel_size_zyx: np.ndarray, radius: float, search: float
) -> np.ndarray:
    half = np.ceil((1.25 * radius + search) / voxel_size_zyx).astype(int)
    rotations = [None] * len(particles) if particles.rotation is None else list(particles.rotation)
    moves = np.zeros((len(particles), 3))
    for _ in range(_ROUNDS):
        centers = particles.centers_xyz_angstrom + moves
        average = np.zeros(2 * half + 1)
        for i in range(0, len(particles), max(1, len(particles) // _MAX_AVERAGED)):
            average += _surroundings(volume, centers[i], rotations[i], half, voxel_size_zyx)
        spectrum = np.conj(fft.rfftn(_standardised(average, radius, half, voxel_size_zyx)))
        for i, rotation in enumerate(rotations):
            box = _surroundings(volume, particles.centers_xyz_angstrom[i], rotation, half, voxel_size_zyx)
            correlation = fft.irfftn(fft.rfftn(box) * spectrum, s=box.shape)  # no shift: index `half`
            shift = _peak(correlation, search, voxel_size_zyx)[::-1]  # x, y, z in the template's frame
            moves[i] = shift if rotation is None else rotation.apply(shift)
        moves -= moves.mean(axis=0)
    length = np.linalg.norm(moves, axis=1, keepdims=True)
    return moves * np.minimum(1.0, search / np.maximum(length, 1e-9))


def _surroundings(
    volume: np.ndarray, center_xyz_angstrom: np.ndarray, rotation: Rotation | None, half: np.ndarray, voxel: np.ndarray
) -> np.ndarray:
    """A box of 2*half + 1 voxels around a sub-voxel point, turned into the template's frame; mean 0."""
    center = angstrom_xyz_to_voxel_zyx(center_xyz_angstrom, voxel)[0]
    turn = np.eye(3) if rotation is None else rotation.as_matrix()[::-1, ::-1]
    matrix = turn * voxel[None, :] / voxel[:, None]
    reach = np.ceil(np.abs(matrix) @ half).astype(int) + 2
    low = np.clip(np.floor(center).astype(int) - reach, 0, np.array(volume.shape) - 1)
    high = np.clip(np.floor(center).astype(int) + reach + 2, low + 1, volume.shape)
    part = np.asarray(volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], dtype=np.float32)
    part = part - part.mean()
    return ndimage.affine_transform(
        part, matrix, offset=center - low - matrix @ half, output_shape=tuple(2 * half + 1), order=1, mode="constant"
    )


def _standardised(average: np.ndarray, radius: float, half: np.ndarray, voxel: np.ndarray) -> np.ndarray:
    """The average inside a soft sphere, mean 0 there; its middle voxel moves to index 0."""
    axes = np.meshgrid(*[np.arange(-n, n + 1) * size for n, size in zip(half, voxel, strict=True)], indexing="ij")
    distance = np.sqrt(sum(axis**2 for axis in axes))
    mask = np.clip((1.25 * radius - distance) / (2 * voxel.max()) + 0.5, 0, 1)
    centered = (average - (average * mask).sum() / mask.sum()) * mask
    return fft.ifftshift(centered / max(float(np.sqrt((centered**2).sum())), 1e-12))


def _peak(correlation: np.ndarray, search: float, voxel: np.ndarray) -> np.ndarray:
    """Å (Z, Y, X) of the highest correlation within the search radius, by a parabola on each axis."""
    middle = np.array(correlation.shape) // 2
    axes = np.ogrid[tuple(slice(-m, n - m) for m, n in zip(middle, correlation.shape, strict=True))]
    squared = sum((axis * size) ** 2 for axis, size in zip(axes, voxel, strict=True))
    best = np.array(np.unravel_index(np.argmax(np.where(squared <= search**2, correlation, -np.inf)), squared.shape))
    shift = (best - middle).astype(float)
    for axis in range(3):
        if 0 < best[axis] < correlation.shape[axis] - 1:
            step = np.eye(3, dtype=int)[axis]
            below, here, above = (float(correlation[tuple(best + d * step)]) for d in (-1, 0, 1))
            curvature = below - 2 * here + above
            if curvature < 0:
                shift[axis] += float(np.clip((below - above) / (2 * curvature), -0.5, 0.5))
    return shift * voxel
