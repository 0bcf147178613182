"""Drop, keep or flag particles by where they are: distance to a membrane, neighbours, excluded places, gold beads.

To be put after `FilterParticlesd`, in any order and number. Each reads and replaces "particles" (the table) and
"instances". A dropped particle keeps its row, with label 0 and its reason in ``dropped_by``; a flagged one only gets a
word in the column ``flags`` (comma-separated, after the table's own columns).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import edt
import numpy as np
import pandas as pd
from monai.transforms import MapTransform
from scipy import ndimage

from custom_transforms.measuring.gold import GOLD_DEVIATIONS, GOLD_DIAMETERS, gold_beads
from custom_transforms.measuring.particle_filter import ParticleFilter, check_action, flag
from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.lazy import PlaneCache, Streams
from custom_transforms.volumes.metatensors import volume_of, voxel_size_of
from custom_transforms.volumes.slabs import slabs

__all__ = [
    "ExcludeParticlesd",
    "FilterByDistanced",
    "FlagGoldd",
    "distances_to_segmentation",
]

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


class FilterByDistanced(ParticleFilter):
    """Keep, drop or flag the particles within a range of distances from a segmentation, such as membranes.

    Their distances go into the column ``<name>_distance_angstrom``.

    Parameters
    ----------
    keys : str
        The instances, with their voxel size in the metadata.
    particle_diameter : float
        Å; gives neighbor_distance.
    segmentation : path, optional
        Volume of the tomogram's shape, above 0 inside; ``{name}`` stands for the tomogram's name, as its file has it
        or without what programs add to it (`tomogram_base_name`). None does nothing.
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
        If the segmentation is missing or of another shape, an option is unknown, a limit comes without a
        segmentation or the other way round, or the smallest distance is above the largest.
    """

    streams = ParticleFilter.streams

    def __init__(
        self, keys: str = "instances", *, particle_diameter: float, segmentation: str | None = None,
        min_distance: float | None = None, max_distance: float | None = None, action: str = "keep",
        name: str = "membrane", neighbor_distance: float | None = None, allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, particle_diameter, neighbor_distance, allow_missing_keys)
        check_action(action)
        limited = min_distance is not None or max_distance is not None
        if (segmentation is not None) != limited:
            got = "a distance without a segmentation" if limited else "a segmentation without a distance"
            raise ValueError(
                f"{name}: expected a segmentation and a smallest or largest distance from it in Å, got {got}. "
                f"Give --{name} and --{name}_min or --{name}_max."
            )
        self.mask, self.action, self.name, self.active = segmentation, action, name, segmentation is not None
        self.limits = (min_distance or 0.0, np.inf if max_distance is None else max_distance)
        if not self.limits[0] <= self.limits[1]:
            raise ValueError(
                f"{name}: expected a smallest distance below the largest, got {self.limits[0]:g} and "
                f"{self.limits[1]:g} Å. Mend --{name}_min and --{name}_max."
            )

    def choose(
        self, table: pd.DataFrame, labels: np.ndarray, meta: Mapping[str, Any]
    ) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Choose by the distance from the segmentation."""
        mask = self._read_mask(meta, labels.shape)
        distances = distances_to_segmentation(table[CENTERS].to_numpy(float), mask, meta["voxel_size_zyx"])
        table = table.assign(**{f"{self.name}_distance_angstrom": distances.round(2)})
        return table, {self.name: (distances >= self.limits[0]) & (distances <= self.limits[1])}


class ExcludeParticlesd(ParticleFilter):
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

    streams = ParticleFilter.streams

    def __init__(
        self, keys: str = "instances", *, particle_diameter: float, mask: str | None = None, edge_margin: float = 0.0,
        neighbor_distance: float | None = None, allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, particle_diameter, neighbor_distance, allow_missing_keys)
        if not edge_margin >= 0:
            raise ValueError(f"edge_margin: expected 0 Å (off) or more, got {edge_margin!r}.")
        self.mask, self.edge_margin = mask, edge_margin
        self.active = mask is not None or edge_margin > 0

    def choose(
        self, table: pd.DataFrame, labels: np.ndarray, meta: Mapping[str, Any]
    ) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Choose what is inside the mask, then what is near a face."""
        chosen = {}
        if self.mask is not None:
            chosen["exclude"] = _excluded(table, labels, self._read_mask(meta, labels.shape))
        if self.edge_margin > 0:
            centers = table[CENTERS].to_numpy(float)
            to_face = np.minimum(centers, np.array(labels.shape) - 1 - centers) + 0.5  # faces are outside
            near = to_face * as_voxel_size_zyx(meta["voxel_size_zyx"]) < self.edge_margin
            chosen["edge"] = near.any(axis=1)
        return table, chosen


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

    streams = Streams("particles", "particles", {"keys": ("instances",), "image_key": "image"})

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
            image = volume_of(d, self.image_key)
            sizes = voxel_size_of(d, self.image_key)
            d["particles"] = self.flagged(d["particles"], image, volume_of(d, key), sizes)
        return d

    def streamed(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same, with the labels read by planes."""
        return {**self({**data, "instances": PlaneCache(data["instances"])}), "instances": data["instances"]}

    def flagged(self, table: pd.DataFrame, image: Any, labels: Any, voxel_size_zyx: np.ndarray) -> pd.DataFrame:
        """The table with the flags; the volumes are only sliced, so they may be larger than memory."""
        gold = gold_beads(image, labels, table, voxel_size_zyx, self.diameters, self.deviations)
        return flag(table, gold, "gold")


def _excluded(table: pd.DataFrame, labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    shape = np.array(labels.shape)
    voxels = np.rint(table[CENTERS].to_numpy(float)).astype(int).clip(0, shape - 1)
    center = mask[tuple(voxels.T)] > 0
    highest = int(table["label"].max()) if len(table) else 0
    hidden = np.zeros(highest + 1, dtype=np.int64)
    for slab, part in zip(slabs(labels), _slabs_like(mask, labels), strict=True):
        hidden += np.bincount(slab[(part > 0) & (slab > 0)], minlength=highest + 1)[: highest + 1]
    label = table["label"].to_numpy()
    return center | ((label > 0) & (hidden[label] * 2 > table["volume_vox"].to_numpy()))


def _slabs_like(volume: np.ndarray, other: np.ndarray) -> Iterator[np.ndarray]:
    """Cut a volume where `slabs` cuts another of the same shape."""
    start = 0
    for slab in slabs(other):
        yield volume[start : start + len(slab)]
        start += len(slab)
