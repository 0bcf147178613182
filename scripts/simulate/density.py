"""Bodies from files: density maps (MRC) and atomic models (PDB, mmCIF)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import mrcfile
import numpy as np
from edt import edt
from scipy.ndimage import binary_closing, binary_fill_holes, gaussian_filter, label, map_coordinates, spline_filter
from skimage.filters import threshold_otsu

from scripts.simulate.phantoms import Body

__all__ = ["MapBody", "find_file", "load_body", "model_density", "read_map"]

_CLOSING_ANGSTROM = 10.0  # clefts narrower than twice this count as inside a particle


class MapBody(Body):
    """A density on a grid, seen at any position and orientation.

    Parameters
    ----------
    density : ndarray, shape (Z, Y, X)
        Protein positive, solvent near 0. The reference point is index n // 2 on each axis.
    voxel_size : float
        Å per voxel of the map.
    threshold : float, optional
        Density at the particle's surface; Otsu's threshold by default.
    target_voxel_size : float, optional
        Å per voxel where it will be drawn: what that grid cannot hold is blurred away first.
    smallest_part : float
        Fraction of the largest connected part above the threshold that others need in order to stay; 1 keeps the
        largest alone, as of an asymmetric unit with two copies of a complex.

    Attributes
    ----------
    filled : ndarray, shape (Z, Y, X), bool
        The support: above the threshold, specks gone, holes filled, then closed by 10 Å.
    """

    def __init__(
        self,
        density: np.ndarray,
        voxel_size: float,
        threshold: float | None = None,
        target_voxel_size: float | None = None,
        smallest_part: float = 0.1,
    ) -> None:
        density = np.asarray(density, dtype=np.float32)
        ratio = (target_voxel_size or voxel_size) / voxel_size
        if ratio > 1:
            density = gaussian_filter(density, 0.42 * np.sqrt(ratio**2 - 1))
        surface = float(threshold_otsu(density)) if threshold is None else threshold
        solid = _large_parts(density > surface, smallest_part)
        if not solid.any():
            raise ValueError(
                f"map threshold: expected one below the map's highest density {density.max():g}, got {surface:g}."
            )
        margin = int(np.ceil(_CLOSING_ANGSTROM / voxel_size)) + 2
        padded = np.pad(density / density[solid].mean(), margin)  # dense protein is 1
        self.filled = _filled(np.pad(solid, margin), voxel_size)
        self.voxel_size = voxel_size
        self._reference = np.array([n // 2 + margin for n in density.shape], dtype=float)
        self._margin = 2 * max(ratio, 1) * voxel_size  # Å of soft edge around the support that are kept
        near = edt(~self.filled) <= self._margin / voxel_size
        self._coefficients = spline_filter(np.where(near, np.maximum(padded, 0), 0), order=3, output=np.float32)
        self._depth = (edt(self.filled) - edt(~self.filled)).astype(np.float32) * voxel_size
        far = np.linalg.norm(np.argwhere(near) - self._reference, axis=1).max()
        self.reach = float(far + 1) * voxel_size

    def density(self, points: np.ndarray, edge: float) -> np.ndarray:
        del edge  # a map brings its own softness
        near = self.inside(points) > -self._margin  # most of a box around a particle is empty
        values = np.zeros(points.shape[:-1])
        values[near] = self._sample(self._coefficients, points[near], order=3, outside=0.0)
        return values

    def inside(self, points: np.ndarray) -> np.ndarray:
        return self._sample(self._depth, points, order=1, outside=float(self._depth.min()))

    def _sample(self, grid: np.ndarray, points: np.ndarray, order: int, outside: float) -> np.ndarray:
        index = np.moveaxis(points[..., ::-1] / self.voxel_size + self._reference, -1, 0)
        return map_coordinates(grid, index, order=order, prefilter=False, mode="constant", cval=outside)


def load_body(entry: dict, folders: tuple[str, ...], target_voxel_size: float) -> MapBody:
    """Read the map or model of a scene's entry; kept in memory for the next call.

    Parameters
    ----------
    entry : dict
        A validated entry of kind "map" or "model".
    folders : tuple of str
        Where relative paths are looked for, in this order.
    target_voxel_size : float
        Å per voxel of the scene.

    Raises
    ------
    FileNotFoundError
        Naming the folders, when the file is in none.
    ValueError
        When the file is not what its kind says, or has no voxel size.
    ModuleNotFoundError
        Naming gemmi, when a model is asked for and gemmi is not installed.
    """
    path = find_file(entry["path"], folders)
    if entry["kind"] == "map":
        return _map_body(path, entry["map_voxel_size"], entry["threshold"], target_voxel_size, entry["smallest_part"])
    return _model_body(path, entry["resolution"], entry["threshold"], target_voxel_size, entry["smallest_part"])


@lru_cache(maxsize=256)
def _map_body(
    path: str, voxel_size: float | None, threshold: float | None, target: float, smallest_part: float
) -> MapBody:
    density, size = read_map(path, voxel_size)
    return MapBody(density, size, threshold, target, smallest_part)


@lru_cache(maxsize=256)
def _model_body(
    path: str, resolution: float | None, threshold: float | None, target: float, smallest_part: float
) -> MapBody:
    grid = target / 2
    return MapBody(model_density(path, grid, resolution or 2 * target), grid, threshold, target, smallest_part)


def find_file(path: str, folders: tuple[str, ...]) -> str:
    """Resolve a path of a scene file against folders; see `load_body`."""
    for folder in folders:
        found = Path(folder) / path  # an absolute path stays itself
        if found.is_file():
            return str(found)
    raise FileNotFoundError(
        f"{path}: expected a map or model in {' or '.join(folders)}, found none. "
        "Paths are relative to the scene file; give another folder with --maps."
    )


def read_map(path: str, voxel_size: float | None = None) -> tuple[np.ndarray, float]:
    """Read an MRC density map.

    Parameters
    ----------
    path : str
    voxel_size : float, optional
        Å per voxel, instead of the header's.

    Returns
    -------
    density : ndarray, shape (Z, Y, X), float32
    voxel_size : float
        Å.

    Raises
    ------
    ValueError
        If it is no 3D MRC file, or its voxels have no size or are not cubes.
    """
    try:
        with mrcfile.open(path, permissive=True) as mrc:
            density, size = mrc.data, mrc.voxel_size
    except ValueError as error:
        raise ValueError(f"{path}: expected an MRC density map, got: {error}") from error
    if density is None or density.ndim != 3:
        raise ValueError(f"{path}: expected a 3D MRC density map, got {None if density is None else density.shape}.")
    sizes = np.array([size.x, size.y, size.z], dtype=float)
    if voxel_size is None and (sizes.min() <= 0 or np.ptp(sizes) > 0.01 * sizes.max()):
        raise ValueError(
            f"{path}: expected cubic voxels of a known size, got {sizes.tolist()} Å. Set 'map_voxel_size' in the scene."
        )
    return density.astype(np.float32), float(voxel_size or sizes.mean())


def model_density(path: str, voxel_size: float, resolution: float) -> np.ndarray:
    """Blur an atomic model into a density.

    Parameters
    ----------
    path : str
        PDB or mmCIF, also compressed. Waters are left out.
    voxel_size : float
        Å per voxel of the result.
    resolution : float
        Å; atoms become Gaussians whose transform halves at 1 / resolution.

    Returns
    -------
    ndarray, shape (n, n, n), float32
        Atomic numbers per voxel; the atoms' centroid is at index n // 2, the axes are the file's.
    """
    try:
        import gemmi
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Atomic models need the package gemmi: pip install gemmi") from error
    try:
        structure = gemmi.read_structure(path)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: expected a PDB or mmCIF file, got: {error}") from error
    structure.remove_waters()
    atoms = [(a.pos.x, a.pos.y, a.pos.z, a.element.atomic_number * a.occ) for a in _atoms(structure)]
    if not atoms:
        raise ValueError(f"{path}: expected atoms in the file, found none.")
    table = np.array(atoms)
    positions = (table[:, 2::-1] - table[:, 2::-1].mean(0)) / voxel_size  # z, y, x
    sigma = resolution * np.sqrt(np.log(2) / 2) / np.pi / voxel_size
    half = int(np.ceil(np.abs(positions).max() + 4 * sigma)) + 1
    return gaussian_filter(_splat(positions + half, table[:, 3], 2 * half + 1), sigma)


def _atoms(structure):
    return (site.atom for site in structure[0].all()) if len(structure) else ()


def _splat(index_zyx: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Share each weight between the eight voxels around its position, shape (size, size, size)."""
    grid = np.zeros((size,) * 3)
    low = np.floor(index_zyx).astype(int)
    part = index_zyx - low
    for corner in np.ndindex(2, 2, 2):
        share = np.prod(np.where(np.array(corner) == 1, part, 1 - part), axis=1)
        np.add.at(grid, tuple((low + corner).T), weights * share)
    return grid.astype(np.float32)


def _large_parts(solid: np.ndarray, smallest: float) -> np.ndarray:
    """Components of at least this fraction of the largest one's size; of two equal ones, the first for 1."""
    parts, count = label(solid)
    if count < 2:
        return solid
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    if smallest >= 1:
        return parts == sizes.argmax()
    return np.isin(parts, np.flatnonzero(sizes >= smallest * sizes.max()))


def _filled(solid: np.ndarray, voxel_size: float) -> np.ndarray:
    radius = _CLOSING_ANGSTROM / voxel_size
    reach = int(np.floor(radius))
    filled = binary_fill_holes(solid)
    if reach < 1:
        return filled
    offsets = np.indices((2 * reach + 1,) * 3) - reach
    return binary_fill_holes(binary_closing(filled, (offsets**2).sum(0) <= radius**2))
