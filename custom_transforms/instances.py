"""instances: mask probability and center map -> labels and one table row per particle.

A chain of small named transforms for configs, each a thin adapter over a plain function:

========================  ==========================  =====================================
transform                 function                    reads -> writes
========================  ==========================  =====================================
`SplitPredictiond`        `split_prediction`          pred -> probability, center_map, class_maps
`MaskFromProbabilityd`    `mask_from_probability`     probability -> foreground
`FindSeedsd`              `find_seeds`,               center_map, class_maps -> seeds
                          `score_classes`,
                          `refine_seeds`
`AssignInstancesd`        `assign_instances`          foreground, center_map, seeds -> instances
`MeasureParticlesd`       `measure_particles`         instances, probability, seeds -> particles
`FilterParticlesd`        `filter_particles`          particles, instances -> the same
========================  ==========================  =====================================

`detect_instances` is the whole chain as one call. Lengths are Å, volumes Å^3; ``particle_diameter`` gives
every length that is not set by itself (`ParticleSizes`). The last two are in `custom_transforms.particles`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from custom_transforms.labelling.assign import METHODS, assign_instances
from custom_transforms.labelling.blockwise import (
    assign_in_blocks,
    classes_in_blocks,
    components_in_blocks,
    peaks_in_blocks,
    refined_in_blocks,
)
from custom_transforms.labelling.classes import ClassRules, SeedClasses, Seeds, score_classes
from custom_transforms.labelling.components import mask_from_probability
from custom_transforms.labelling.in_memory import check_finite, detect_instances, split_prediction
from custom_transforms.labelling.refine import refine_seeds
from custom_transforms.labelling.seeds import check_center_threshold, find_seeds
from custom_transforms.measuring.particle_table import (
    PARTICLE_COLUMNS,
    empty_particle_table,
    filter_particles,
    measure_particles,
)
from custom_transforms.particles import FilterParticlesd, MeasureParticlesd
from custom_transforms.units import ParticleSizes
from custom_transforms.volumes.lazy import ProbabilityVolume, StoredVolume, Streams
from custom_transforms.volumes.metatensors import volume_like, volume_of, voxel_size_of

__all__ = [
    "METHODS",
    "PARTICLE_COLUMNS",
    "AssignInstancesd",
    "FilterParticlesd",
    "FindSeedsd",
    "MaskFromProbabilityd",
    "MeasureParticlesd",
    "Seeds",
    "SplitPredictiond",
    "assign_instances",
    "detect_instances",
    "empty_particle_table",
    "filter_particles",
    "find_seeds",
    "mask_from_probability",
    "measure_particles",
    "refine_seeds",
    "split_prediction",
]


class SplitPredictiond(MapTransform):
    """Replace the prediction (1 + classes, Z, Y, X) by "probability" and "center_map", each (1, Z, Y, X).

    The center map is the highest of the classes' maps, which stay as "class_maps" if there is more than one. A
    prediction that is not finite is an error.

    Parameters
    ----------
    keys : str
        The prediction; leaves the dict, so that its memory can go.
    dtype : {"float32", "float16"}
        Type of the two maps.
    in_place : bool
        Reuse the memory of the prediction, which is lost then: 3.2 GB less for a full-size volume.
    """

    streams = Streams("predicted", "maps", {"keys": ("pred",), "dtype": torch.float32})

    def __init__(
        self, keys: str = "pred", dtype: str = "float32", in_place: bool = False, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if dtype not in ("float32", "float16"):
            raise ValueError(f"dtype: expected float32 or float16, got {dtype!r}")
        self.dtype = getattr(torch, dtype)
        self.in_place = in_place

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            prediction = d.pop(key)
            meta = dict(getattr(prediction, "meta", {}))
            plain = prediction.as_tensor() if isinstance(prediction, MetaTensor) else torch.as_tensor(prediction)
            check_finite(plain)
            maps = split_prediction(plain.detach(), self.dtype, self.in_place)
            for name, volume in zip(("probability", "center_map", "class_maps"), maps, strict=False):
                d[name] = MetaTensor(volume, meta=dict(meta))
        return d

    def streamed(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same of volumes on disk: mask logit, center map, class maps; the latter are stored clipped to 0..1."""
        d = dict(data)
        logits, centers, *classes = d.pop("pred")
        d["probability"] = ProbabilityVolume(logits).with_meta(d["image"].meta)
        d["center_map"] = StoredVolume(centers).with_meta(d["image"].meta)
        if classes:
            d["class_maps"] = [StoredVolume(one) for one in classes]
        return d


class MaskFromProbabilityd(MapTransform):
    """Write "foreground", the mask without specks; see `mask_from_probability`.

    Parameters
    ----------
    keys : str
        The mask probability, with its voxel size in the metadata.
    threshold : float
        ``mask_threshold``.
    particle_diameter : float
        Å; gives min_size.
    min_size : float, optional
        Å^3; smaller components go.
    """

    streams = Streams("maps", "foreground", {"keys": ("probability",)})

    def __init__(
        self, keys: str = "probability", *, threshold: float, particle_diameter: float, min_size: float | None = None,
        allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        if not 0 < threshold < 1:
            raise ValueError(f"mask_threshold: expected a probability between 0 and 1, got {threshold!r}. Try 0.5.")
        self.threshold = threshold
        self.min_size = ParticleSizes.from_diameter(particle_diameter, min_size=min_size).min_size

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            min_size_voxels = self.min_size / voxel_size_of(d, key).prod()
            foreground = mask_from_probability(volume_of(d, key), self.threshold, min_size_voxels)
            d["foreground"] = volume_like(foreground, d[key])
        return d

    def streamed(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same block by block; "foreground" holds numbers of components."""
        min_size_voxels = self.min_size / voxel_size_of(data, "probability").prod()
        foreground = components_in_blocks(data["probability"], self.threshold, min_size_voxels, data["blocks"])
        return {**data, "foreground": foreground}


class FindSeedsd(MapTransform):
    """Write "seeds" (`Seeds`): the refined peaks of the center map; see `find_seeds` and `refine_seeds`.

    With classes, a peak of the highest map is of the class whose own map is highest around it (`score_classes`), and
    threshold, distance and radius are those of its class (`ClassRules`).

    Parameters
    ----------
    keys : str
        The center map, with its voxel size in the metadata; "class_maps" are read and removed.
    threshold : float, or mapping of class name to float
        ``center_threshold``.
    particle_diameter : float, or mapping of class name to float
        Å; gives min_distance, and the radius of the refinement.
    min_distance : float, optional
        Å; seeds are at least this far apart.
    classes : sequence of str, optional
        Names of the classes, in the order of their maps; without, there is one kind of particle.
    """

    streams = Streams("foreground", "seeds", {"keys": ("center_map",)})

    def __init__(
        self, keys: str = "center_map", *, threshold: float | Mapping[str, float],
        particle_diameter: float | Mapping[str, float], min_distance: float | None = None,
        classes: Sequence[str] | None = None, allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        self.rules = ClassRules.of(classes, threshold, particle_diameter, min_distance) if classes else None
        lowest: Any = self.rules.thresholds.min() if self.rules else threshold
        check_center_threshold(lowest)
        self.threshold = float(lowest)
        sizes = ParticleSizes.from_diameter(particle_diameter, min_distance=min_distance)
        self.radius, self.min_distance = sizes.refine_radius, sizes.min_distance

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            center_map, voxel = volume_of(d, key), voxel_size_of(d, key)
            d["seeds"] = self._seeds(d, center_map, (find_seeds, score_classes, refine_seeds), voxel)
        return d

    def streamed(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same block by block."""
        d = dict(data)
        where = voxel_size_of(d, "center_map"), d["blocks"]
        d["seeds"] = self._seeds(d, d["center_map"], (peaks_in_blocks, classes_in_blocks, refined_in_blocks), *where)
        return d

    def _seeds(
        self, d: dict[Hashable, Any], center_map: Any, steps: tuple[Callable, Callable, Callable], *where: Any
    ) -> Seeds:
        """Find, tell apart, refine: the three steps of either path; ``where`` is voxel size, and blocks if streamed."""
        (find, score, refine), maps = steps, self._class_maps(d, center_map)
        classes: SeedClasses | None = None
        radius: float | np.ndarray = self.radius
        if self.rules is None:
            peaks, _ = find(center_map, self.threshold, self.min_distance, *where)
        else:
            peaks, _, classes = self.rules.seeds(center_map, maps, *where, find=find, score=score)
            radius = self.rules.refine_radii[classes.index]
        centers, heights = refine(center_map, peaks, radius, *where)
        return Seeds(peaks, centers, heights, self.threshold, classes=classes)

    def _class_maps(self, d: dict[Hashable, Any], center_map: Any) -> Any:
        """Take the maps of the classes out of the data; of a single class it is the center map."""
        maps = d.pop("class_maps", None)
        if isinstance(maps, torch.Tensor):
            maps = maps.detach().cpu().numpy()
        maps = [center_map] if maps is None else maps
        if len(maps) != (len(self.rules.names) if self.rules else 1):
            names = f" ({', '.join(self.rules.names)})" if self.rules else ""
            raise ValueError(
                f"classes: expected a center map for each of {len(self.rules.names) if self.rules else 1} "
                f"classes{names}, got {len(maps)} from the networks. Set classes to those of the weights."
            )
        return maps


class AssignInstancesd(MapTransform):
    """Write "instances" (int32) and the labels of the seeds; see `assign_instances`.

    Parameters
    ----------
    keys : str
        The center map; "foreground" and "seeds" are read too.
    method : {"watershed", "nearest", "split"}
    particle_diameter : float
        Å; gives radius_max.
    radius_max : float, optional
        Å, the largest particle radius.
    min_size : float, optional
        Å^3; a piece without a seed that is smaller is a speck, not a particle.
    require_seed : bool
        Drop what no seed owns.
    """

    streams = Streams("seeds", "instances", {"keys": ("center_map",)})

    def __init__(
        self, keys: str = "center_map", *, method: str = "watershed", particle_diameter: float,
        radius_max: float | None = None, min_size: float | None = None, require_seed: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        if method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
        self.method = method
        self.sizes = ParticleSizes.from_diameter(particle_diameter, radius_max=radius_max, min_size=min_size)
        self.require_seed = require_seed

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            voxel = voxel_size_of(d, key)
            labels, seed_labels = assign_instances(
                volume_of(d, "foreground"), volume_of(d, key), d["seeds"].peaks_zyx, method=self.method,
                radius_max=self.sizes.radius_max, voxel_size_zyx=voxel, require_seed=self.require_seed,
                min_size_voxels=self.sizes.min_size / voxel.prod(),
            )  # fmt: skip
            d["instances"] = volume_like(labels, d[key])
            d["seeds"] = replace(d["seeds"], labels=seed_labels)
        return d

    def streamed(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same block by block."""
        center_map, seeds, voxel = data["center_map"], data["seeds"], voxel_size_of(data, "center_map")
        labels, seed_labels = assign_in_blocks(
            data["foreground"], center_map, seeds.peaks_zyx, data["blocks"], method=self.method,
            radius_max=self.sizes.radius_max, voxel_size_zyx=voxel, require_seed=self.require_seed,
            min_size_voxels=self.sizes.min_size / voxel.prod(),
        )  # fmt: skip
        return {**data, "instances": volume_like(labels, center_map), "seeds": replace(seeds, labels=seed_labels)}
