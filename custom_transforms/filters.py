"""Drop, keep or flag particles by where they are: distance to a membrane, neighbours, excluded places, gold beads.

To be put after `FilterParticlesd`, in any order and number. Each reads and replaces "particles" (the table) and
"instances". A dropped particle keeps its row, with label 0 and its reason in ``dropped_by``; a flagged one only gets a
word in the column ``flags`` (comma-separated, after the table's own columns).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import edt
import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage
from scipy.spatial import cKDTree

from custom_transforms.gold import GOLD_DEVIATIONS, GOLD_DIAMETERS, gold_beads
from custom_transforms.io import read_tomogram
from custom_transforms.particle_table import filter_particles
from custom_transforms.slabs import slabs
from custom_transforms.units import ParticleSizes, as_voxel_size_zyx

__all__ = [
    "ACTIONS",
    "ExcludeParticlesd",
    "FilterByDensityd",
    "FilterByDistanced",
    "FlagGoldd",
    "distances_to_segmentation",
    "flag",
]

ACTIONS = ("keep", "drop", "flag")
CENTERS = ["z_vox", "y_vox", "x_vox"]


def distances_to_segmentation(
    centers_zyx_vox: np.ndarray, segmentation: np.ndarray, voxel_size_zyx: np.ndarray
) -> np.ndarray:
    """Measure how far points are from a segmentation, in Å.

    Parameters
    ----------
    centers_zyx_vox : ndarray, shape (n, 3), float
    segmentation : ndarray, shape (Z, Y, X)
        Above 0 is inside.
    voxel_size_zyx : ndarray, shape (3,)
        Å.

    Returns
    -------
    ndarray, shape (n,), float64
        Å to the nearest voxel's center of the segmentation, 0 inside; between voxels linearly interpolated. Points
        outside the volume are measured from its nearest voxel; an empty segmentation is infinitely far.
    """
    inside = np.asarray(segmentation) > 0
    if not inside.any() or len(centers_zyx_vox) == 0:
        return np.full(len(centers_zyx_vox), np.inf)
    sizes = tuple(map(float, as_voxel_size_zyx(voxel_size_zyx)))
    field = edt.edt(~inside, anisotropy=sizes, black_border=False)
    return ndimage.map_coordinates(field, np.asarray(centers_zyx_vox, float).T, order=1, mode="nearest").astype(float)


def flag(table: pd.DataFrame, rows: np.ndarray, word: str) -> pd.DataFrame:
    """Add a word to the column ``flags`` of some rows of a copy of the table; the column is made if it is not there.

    Examples
    --------
    >>> flag(pd.DataFrame({"label": [1, 2]}), np.array([False, True]), "gold")["flags"].tolist()
    ['', 'gold']
    """
    flagged = table.copy()
    words = table["flags"].astype(str).tolist() if "flags" in table else [""] * len(table)
    flagged["flags"] = pd.Series(
        [",".join(filter(None, [old, word])) if new else old for old, new in zip(words, rows, strict=True)],
        index=table.index,
        dtype=object,
    )
    return flagged


class _ParticleFilter(MapTransform):
    """What the filters share: taking the entries apart, and dropping or flagging rows."""

    def __init__(
        self, keys: str, particle_diameter: float, neighbor_distance: float | None, allow_missing_keys: bool
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        sizes = ParticleSizes.from_diameter(particle_diameter, neighbor_distance=neighbor_distance)
        self.neighbor_distance = sizes.neighbor_distance

    def _apply(
        self, d: dict[Hashable, Any], key: Hashable, table: pd.DataFrame, chosen: np.ndarray, word: str, action: str
    ) -> None:
        """Lay the choice over the table: flag the chosen rows, drop them, or drop all others."""
        if action == "flag":
            d["particles"] = flag(table, chosen & (table["dropped_by"] == "").to_numpy(), word)
            return
        leaves = (table["dropped_by"] == "").to_numpy() & (~chosen if action == "keep" else chosen)
        marked = table.copy()
        marked.loc[leaves, "dropped_by"] = word
        labels = _volume(d[key], key)
        d["particles"], kept = filter_particles(marked, labels, neighbor_distance=self.neighbor_distance)
        d[key] = _like(kept, d[key])


class FilterByDistanced(_ParticleFilter):
    """Keep, drop or flag the particles within a range of distances from a segmentation, such as membranes.

    Their distances go into the column ``<name>_distance_angstrom``.

    Parameters
    ----------
    keys : str
        The instances, with their voxel size in the metadata.
    particle_diameter : float
        Å; gives neighbor_distance.
    segmentation : path, optional
        Volume of the tomogram's shape, above 0 inside; ``{name}`` stands for the tomogram's file name without ending.
        None does nothing.
    min_distance, max_distance : float, optional
        Å, both included; 0 is inside. A particle within both limits is chosen.
    action : {"keep", "drop", "flag"}
        keep drops all but the chosen.
    name : str
        The word in ``dropped_by`` or ``flags``.
    neighbor_distance : float, optional
        Å; reach of the column "neighbors", which is counted anew.

    Raises
    ------
    FileNotFoundError, ValueError
        If the segmentation is missing or of another shape, or an option is unknown.
    """

    def __init__(
        self, keys: str = "instances", *, particle_diameter: float, segmentation: str | None = None,
        min_distance: float | None = None, max_distance: float | None = None, action: str = "keep",
        name: str = "membrane", neighbor_distance: float | None = None, allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, particle_diameter, neighbor_distance, allow_missing_keys)
        _check_action(action)
        if segmentation is not None and min_distance is None and max_distance is None:
            raise ValueError(f"{name}: expected a smallest or largest distance in Å with the segmentation, got none.")
        self.segmentation, self.action, self.name = segmentation, action, name
        self.limits = (min_distance or 0.0, np.inf if max_distance is None else max_distance)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d) if self.segmentation is not None else ():
            shape, meta = _volume(d[key], key).shape, d[key].meta
            mask = _read_mask(str(self.segmentation), meta, shape)
            table = d["particles"].copy()
            centers = table[CENTERS].to_numpy(float)
            distances = distances_to_segmentation(centers, mask, meta["voxel_size_zyx"])
            table[f"{self.name}_distance_angstrom"] = distances.round(2)
            chosen = (distances >= self.limits[0]) & (distances <= self.limits[1])
            self._apply(d, key, table, chosen, self.name, self.action)
        return d


class FilterByDensityd(_ParticleFilter):
    """Keep, drop or flag the particles that have a number of neighbours within a range: crowds, or loners.

    Parameters
    ----------
    keys : str
        The instances.
    particle_diameter : float
        Å; gives ``radius`` and neighbor_distance.
    radius : float, optional
        Å within which kept particles are counted, by their centers; by default neighbor_distance.
    min_neighbors, max_neighbors : int, optional
        Both included. Without either nothing is done.
    action, name, neighbor_distance
        As in `FilterByDistanced`.
    """

    def __init__(
        self, keys: str = "instances", *, particle_diameter: float, radius: float | None = None,
        min_neighbors: int | None = None, max_neighbors: int | None = None, action: str = "keep",
        name: str = "density", neighbor_distance: float | None = None, allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, particle_diameter, neighbor_distance, allow_missing_keys)
        _check_action(action)
        self.radius = self.neighbor_distance if radius is None else radius
        self.active = min_neighbors is not None or max_neighbors is not None
        self.limits = (min_neighbors or 0, np.inf if max_neighbors is None else max_neighbors)
        self.action, self.name = action, name

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d) if self.active else ():
            table = d["particles"]
            points = table[["x_angstrom", "y_angstrom", "z_angstrom"]].to_numpy(float)
            counted = (table["dropped_by"] == "").to_numpy()
            found = np.zeros(len(table))
            if counted.any():
                within = cKDTree(points[counted]).query_ball_point(points, self.radius, return_length=True)
                found = np.asarray(within) - counted
            chosen = (found >= self.limits[0]) & (found <= self.limits[1])
            self._apply(d, key, table, chosen, self.name, self.action)
        return d


class ExcludeParticlesd(_ParticleFilter):
    """Drop particles in excluded places ("exclude") and near the faces of the tomogram ("edge").

    Parameters
    ----------
    keys : str
        The instances, with their voxel size in the metadata.
    particle_diameter : float
        Å; gives neighbor_distance.
    mask : path, optional
        Volume of the tomogram's shape, above 0 where nothing counts (carbon, ice); ``{name}`` as in
        `FilterByDistanced`. A particle goes if its center, or more than half of its voxels, are in it.
    edge_margin : float
        Å; a particle goes if its center is nearer to a face of the volume.
    neighbor_distance : float, optional
        Å.
    """

    def __init__(
        self, keys: str = "instances", *, particle_diameter: float, mask: str | None = None, edge_margin: float = 0.0,
        neighbor_distance: float | None = None, allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, particle_diameter, neighbor_distance, allow_missing_keys)
        if not edge_margin >= 0:
            raise ValueError(f"edge_margin: expected 0 Å (off) or more, got {edge_margin!r}.")
        self.mask, self.edge_margin = mask, edge_margin

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            labels, meta = _volume(d[key], key), d[key].meta
            if self.mask is not None:
                inside = _excluded(d["particles"], labels, _read_mask(str(self.mask), meta, labels.shape))
                self._apply(d, key, d["particles"], inside, "exclude", "drop")
            if self.edge_margin > 0:
                centers = d["particles"][CENTERS].to_numpy(float)
                to_face = np.minimum(centers, np.array(labels.shape) - 1 - centers) + 0.5  # faces are outside
                near = (to_face * as_voxel_size_zyx(meta["voxel_size_zyx"]) < self.edge_margin).any(axis=1)
                self._apply(d, key, d["particles"], near, "edge", "drop")
        return d


class FlagGoldd(MapTransform):
    """Flag particles that hold a gold bead with the word ``gold``; none is dropped. See `gold_beads`.

    Parameters
    ----------
    keys : str
        The instances.
    image_key : str
        The tomogram, protein bright, with its voxel size in the metadata.
    active : bool
        False does nothing.
    diameters : tuple of 2 float
        Å, the smallest and largest bead.
    deviations : float
        How far a bead stands out, in robust standard deviations of the tomogram.
    """

    def __init__(
        self, keys: str = "instances", image_key: str = "image", active: bool = True,
        diameters: tuple[float, float] = GOLD_DIAMETERS, deviations: float = GOLD_DEVIATIONS,
        allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        self.image_key, self.active = image_key, active
        self.diameters, self.deviations = (float(diameters[0]), float(diameters[1])), deviations

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d) if self.active else ():
            image = _volume(d[self.image_key], self.image_key)
            sizes = d[self.image_key].meta["voxel_size_zyx"]
            table = d["particles"]
            gold = gold_beads(image, _volume(d[key], key), table, sizes, self.diameters, self.deviations)
            d["particles"] = flag(table, gold, "gold")
        return d


def _excluded(table: pd.DataFrame, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    shape = np.array(labels.shape)
    voxels = np.rint(table[CENTERS].to_numpy(float)).astype(int).clip(0, shape - 1)
    center = mask[tuple(voxels.T)] > 0
    highest = int(table["label"].max()) if len(table) else 0
    hidden = np.zeros(highest + 1, dtype=np.int64)
    for slab, part in zip(slabs(labels), slabs_like(mask, labels), strict=True):
        hidden += np.bincount(slab[(part > 0) & (slab > 0)], minlength=highest + 1)[: highest + 1]
    label = table["label"].to_numpy()
    return center | ((label > 0) & (hidden[label] * 2 > table["volume_vox"].to_numpy()))


def slabs_like(volume: np.ndarray, other: np.ndarray) -> Any:
    """Cut a volume where `slabs` cuts another of the same shape."""
    start = 0
    for slab in slabs(other):
        yield volume[start : start + len(slab)]
        start += len(slab)


def _read_mask(path: str, meta: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    name = Path(str(meta.get("filename_or_obj", ""))).name
    while Path(name).suffix.lower() in (".mrc", ".rec", ".map", ".gz", ".bz2", ".tif", ".tiff", ".nii", ".em", ".zarr"):
        name = Path(name).stem
    file = path.replace("{name}", name)
    mask, _ = read_tomogram(file, voxel_size=np.asarray(meta["voxel_size_zyx"]), check="labels")
    if mask.shape != tuple(shape):
        raise ValueError(f"{file}: expected a mask of the tomogram's shape (Z, Y, X) {tuple(shape)}, got {mask.shape}.")
    return mask


def _check_action(action: str) -> None:
    if action not in ACTIONS:
        raise ValueError(f"action: expected one of {', '.join(ACTIONS)}, got {action!r}.")


def _volume(value: Any, key: Hashable) -> np.ndarray:
    """The array (Z, Y, X) behind an entry (1, Z, Y, X) or (Z, Y, X) with metadata; no copy on the CPU."""
    if "voxel_size_zyx" not in getattr(value, "meta", {}):
        raise ValueError(
            f"{key}: expected voxel_size_zyx (Å) in its metadata, found none. Load with custom_transforms.io."
        )
    array = value.as_tensor().detach().cpu().numpy()
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise ValueError(f"{key}: expected (1, Z, Y, X) or (Z, Y, X), got {array.shape}. Pass one tomogram at a time.")
    return array


def _like(array: np.ndarray, source: MetaTensor) -> MetaTensor:
    return MetaTensor(torch.from_numpy(array if source.ndim == 3 else array[None]), meta=dict(source.meta))
