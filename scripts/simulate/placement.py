"""Random placement of bodies without overlap, and their drawing into the volume."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from edt import edt
from scipy.spatial.transform import Rotation

from scripts.simulate.phantoms import Body

__all__ = ["Patch", "Placed", "Stage", "render"]

_CANDIDATES = 24  # positions tried per look at the free space


@dataclass
class Patch:
    """One body on the voxel grid, around its reference point.

    Attributes
    ----------
    density : ndarray, shape (d, d, d), float32
    support : ndarray, shape (d, d, d), bool
        The filled body: what gets labelled.
    middle : ndarray, shape (3,), float
        Index (Z, Y, X) of the reference point in the patch.
    """

    density: np.ndarray
    support: np.ndarray
    middle: np.ndarray

    @property
    def size(self) -> int:
        return int(self.support.sum())


@dataclass
class Placed:
    """A body that found its place.

    Attributes
    ----------
    reference_zyx_vox : ndarray, shape (3,)
        Index of the body's reference point in the volume.
    rotation : Rotation
        Active: takes the body's frame into the volume's, acting on (x, y, z).
    """

    name: str
    class_id: int
    label: int
    reference_zyx_vox: np.ndarray
    rotation: Rotation


def render(body: Body, rotation: Rotation, fraction_zyx: np.ndarray, voxel_size: float, label: str = "filled") -> Patch:
    """Draw a body on a small grid.

    Parameters
    ----------
    body : Body
    rotation : Rotation
        Active, body frame to volume frame, on (x, y, z) vectors.
    fraction_zyx : ndarray, shape (3,)
        Where in its voxel the reference point lies, -0.5 to 0.5 voxel from the voxel's center.
    voxel_size : float
        Å per voxel.
    label : str
        "filled": the support is the filled body; "density": where the density exceeds half of its maximum.

    Returns
    -------
    Patch
        Trimmed to the support and density, with one empty voxel around.
    """
    half = int(np.ceil(body.reach / voxel_size)) + 2
    axis = np.arange(-half, half + 1, dtype=np.float64)
    z, y, x = (axis - offset for offset in fraction_zyx)
    grid = np.stack(np.broadcast_arrays(x[None, None, :], y[None, :, None], z[:, None, None]), axis=-1)
    points = (grid * voxel_size) @ rotation.as_matrix()  # rows times R is the inverse rotation
    density, depth = body.draw(points, voxel_size)
    density, support = density.astype(np.float32), depth > 0
    if label == "density":
        support = density > 0.5 * density.max()
    used = support | (np.abs(density) > 1e-3)
    box = (
        tuple(slice(max(int(lines.min()) - 1, 0), int(lines.max()) + 2) for lines in np.nonzero(used))
        if used.any()
        else (slice(None),) * 3
    )
    middle = half + np.asarray(fraction_zyx) - [s.start or 0 for s in box]
    return Patch(np.ascontiguousarray(density[box]), np.ascontiguousarray(support[box]), middle)


@dataclass
class Stage:
    """The volume while it is being filled.

    Attributes
    ----------
    shape_zyx : tuple of 3 int
    slab : tuple of 2 int
        First and last-but-one z index where bodies may be centered (the layer of ice).
    gap : int
        Voxels kept free around every body; 0 lets neighbours touch.
    inside_only : bool
        Whether bodies cut by the volume's border are refused.
    density, labels, blocked : ndarray, shape_zyx
        What is there: density (float32), labels (int32), and where no support may come (bool).
    """

    shape_zyx: tuple[int, int, int]
    slab: tuple[int, int]
    gap: int = 0
    inside_only: bool = False
    density: np.ndarray = field(init=False)
    labels: np.ndarray = field(init=False)
    blocked: np.ndarray = field(init=False)
    placed: list[Placed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.density = np.zeros(self.shape_zyx, np.float32)
        self.labels = np.zeros(self.shape_zyx, np.int32)
        self.blocked = np.zeros(self.shape_zyx, bool)
        self._distance: np.ndarray | None = None  # to the nearest blocked voxel, from a recent look
        self._filled_since = 0

    def occupancy(self) -> float:
        """Fraction of the volume that is labelled."""
        return float(np.count_nonzero(self.labels) / self.labels.size)

    def find_place(self, patch: Patch, rng: np.random.Generator, attempts: int) -> np.ndarray | None:
        """Look for a position where the support meets nothing.

        Parameters
        ----------
        patch : Patch
        rng : numpy Generator
        attempts : int
            Positions tried before giving up.

        Returns
        -------
        ndarray of int, shape (3,), or None
            Index of the patch's first voxel; it may lie outside the volume when bodies may be cut.
        """
        middle, radius = _inscribed(patch.support)
        for tried in range(0, attempts, _CANDIDATES):
            wanted = min(_CANDIDATES, attempts - tried)
            positions = self._roomy_voxels(max(radius - 1, 0.5), wanted, rng)
            for position in positions:
                if self.fits(patch, position - middle):
                    return position - middle
            if not len(positions):
                return None
        return None

    def find_contact(self, patch: Patch, rng: np.random.Generator, attempts: int) -> np.ndarray | None:
        """Look for a position where the support touches a body that is there, coming from a random side."""
        for _ in range(attempts if self.placed else 0):
            neighbour = self.placed[int(rng.integers(len(self.placed)))]
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            for step in range(2, 2 * max(patch.support.shape) + 40):
                middle = neighbour.reference_zyx_vox + direction * step
                start = np.round(middle - patch.middle).astype(int)
                if not self._center_allowed(start + np.round(patch.middle).astype(int)):
                    break
                if self.fits(patch, start):
                    return start
        return None

    def fits(self, patch: Patch, start_zyx: np.ndarray) -> bool:
        """Whether a patch at this position meets nothing that is there."""
        box, part = _overlap(start_zyx, patch.support.shape, self.shape_zyx)
        if box is None or part is None:
            return False
        support = patch.support[part]
        if self.inside_only and support.sum() != patch.size:
            return False
        return not (self.blocked[box] & support).any()

    def is_free(self, points_zyx: np.ndarray) -> bool:
        """A quick look before a body is drawn: whether these positions (n, 3) are unblocked and mostly inside."""
        index = np.round(points_zyx).astype(int)
        inside = ((index >= 0) & (index < self.shape_zyx)).all(1)
        return bool(inside.mean() > 0.5) and not self.blocked[tuple(index[inside].T)].any()

    def put(self, patch: Patch, start_zyx: np.ndarray, label: int = 0) -> None:
        """Add a patch to the density, and to the labels when it has one."""
        box, part = _overlap(start_zyx, patch.support.shape, self.shape_zyx)
        if box is None or part is None:
            return
        support = patch.support[part]
        self.density[box] += patch.density[part]
        if label:
            self.labels[box][support] = label
        self._block(patch, start_zyx)

    def block(self, mask: np.ndarray) -> None:
        """Close voxels (a mask of the whole volume) for supports."""
        self.blocked |= mask
        self._distance = None

    def _block(self, patch: Patch, start_zyx: np.ndarray) -> None:
        support, start = patch.support, np.asarray(start_zyx)
        if self.gap:
            support = edt(~np.pad(support, self.gap)) <= self.gap
            start = start - self.gap
        box, part = _overlap(start, support.shape, self.shape_zyx)
        if box is not None and part is not None:
            self.blocked[box] |= support[part]
            self._filled_since += int(support[part].sum())

    def _center_allowed(self, index_zyx: np.ndarray) -> bool:
        inside = all(0 <= i < n for i, n in zip(index_zyx, self.shape_zyx, strict=True))
        return inside and self.slab[0] <= index_zyx[0] < self.slab[1]

    def _roomy_voxels(self, radius: float, count: int, rng: np.random.Generator) -> np.ndarray:
        """Up to ``count`` random voxels of the slab, at least ``radius`` voxels from anything in a recent look.

        Returns
        -------
        ndarray of int, shape (n, 3)
            Empty when there is no such voxel.
        """
        if self._distance is None or self._filled_since > 0.02 * self.blocked.size:
            self._distance = edt(~self.blocked, black_border=self.inside_only, parallel=2)
            self._filled_since = 0
        layer = self._distance[self.slab[0] : self.slab[1]]
        picks = rng.integers(layer.size, size=200 * count)  # looking at a few is cheaper than listing all
        picks = picks[layer.reshape(-1)[picks] >= radius][:count]
        if not len(picks):
            room = np.flatnonzero(layer >= radius)
            picks = rng.choice(room, size=count) if len(room) else room
        return np.stack(np.unravel_index(picks, layer.shape), axis=1) + [self.slab[0], 0, 0]


def _inscribed(support: np.ndarray) -> tuple[np.ndarray, float]:
    """Index of the voxel deepest inside a support, and its depth in voxels."""
    depth = edt(np.pad(support, 1))[1:-1, 1:-1, 1:-1]
    deepest = int(np.argmax(depth))
    return np.array(np.unravel_index(deepest, support.shape)), float(depth.flat[deepest])


def _overlap(start_zyx: np.ndarray, patch_shape: tuple[int, ...], shape_zyx: tuple[int, int, int]):
    """Slices of the volume and of the patch where they overlap, or (None, None)."""
    low = np.maximum(start_zyx, 0)
    high = np.minimum(np.asarray(start_zyx) + patch_shape, shape_zyx)
    if (low >= high).any():
        return None, None
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    part = tuple(slice(int(a - s), int(b - s)) for a, b, s in zip(low, high, start_zyx, strict=True))
    return box, part
