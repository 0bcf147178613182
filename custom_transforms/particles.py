"""particles: the table of the particles, one row each, measured in the instances, and what drops rows of it.

Adapters for configs over `measure_particles` and `filter_particles`, to be put after `AssignInstancesd`; more filters
are in `custom_transforms.filters`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import MapTransform

from custom_transforms.labelling.blockwise import sums_in_blocks
from custom_transforms.labelling.classes import with_classes
from custom_transforms.measuring.particle_table import (
    check_neighbor_number,
    filter_particles,
    measure_particles,
    table_from_sums,
)
from custom_transforms.units import ParticleSizes, of_class
from custom_transforms.volumes.lazy import Streams
from custom_transforms.volumes.metatensors import volume_like, volume_of, voxel_size_of

__all__ = ["FilterParticlesd", "MeasureParticlesd"]


class MeasureParticlesd(MapTransform):
    """Write "particles", the table; see `measure_particles`.

    Parameters
    ----------
    keys : str
        The instances; "probability" and "seeds" are read too.
    particle_diameter : float
        Å; gives neighbor_distance.
    neighbor_distance : float, optional
        Å; reach of the column "neighbors".
    """

    streams = Streams("instances", "particles", {"keys": ("instances",)})

    def __init__(
        self, keys: str = "instances", *, particle_diameter: float, neighbor_distance: float | None = None,
        allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        sizes = ParticleSizes.from_diameter(particle_diameter, neighbor_distance=neighbor_distance)
        self.neighbor_distance = sizes.neighbor_distance

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        seeds = d["seeds"]
        for key in self.key_iterator(d):
            if seeds.labels is None:
                raise ValueError("seeds: expected their labels, got none. Put AssignInstancesd before this transform.")
            d["particles"] = measure_particles(
                volume_of(d, key), volume_of(d, "probability"), seeds.labels, seeds.centers_zyx_vox, seeds.heights,
                voxel_size_zyx=voxel_size_of(d, key), center_threshold=seeds.threshold,
                neighbor_distance=self.neighbor_distance,
            )  # fmt: skip
            if seeds.classes is not None:
                d["particles"] = with_classes(d["particles"], seeds.classes)
        return d

    def streamed(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same block by block."""
        seeds = data["seeds"]
        sums = sums_in_blocks(data["instances"], data["probability"], data["blocks"])
        table = table_from_sums(
            sums, seeds.labels, seeds.centers_zyx_vox, seeds.heights, center_threshold=seeds.threshold,
            voxel_size_zyx=voxel_size_of(data, "instances"), neighbor_distance=self.neighbor_distance,
        )  # fmt: skip
        return {**data, "particles": table if seeds.classes is None else with_classes(table, seeds.classes)}


class FilterParticlesd(MapTransform):
    """Drop particles from "instances" that are too small or lonely, and say so in "particles".

    See `filter_particles`.

    Parameters
    ----------
    keys : str
        The instances; "particles" is read and replaced too.
    particle_diameter : float, or mapping of class name to float
        Å; gives min_size and neighbor_distance.
    min_size : float, or mapping of class name to float, optional
        Å^3; a particle must be as large as its class asks for.
    neighbor_number : int
        A particle needs so many others within neighbor_distance; 0 is off.
    neighbor_distance : float, optional
        Å.
    in_place : bool
        Renumber the instance volume itself: 1.6 GB less for a full-size volume.
    """

    streams = Streams("particles", "particles", {"keys": ("instances",)})

    def __init__(
        self, keys: str = "instances", *, particle_diameter: float | Mapping[str, float],
        min_size: float | Mapping[str, float] | None = None,
        neighbor_number: int = 0, neighbor_distance: float | None = None, in_place: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        self.sizes = ParticleSizes.from_diameter(
            particle_diameter, min_size=min_size, neighbor_distance=neighbor_distance
        )
        check_neighbor_number(neighbor_number)
        self.neighbor_number = neighbor_number
        self.in_place = in_place
        named = next((value for value in (particle_diameter, min_size) if isinstance(value, Mapping)), {})
        self.min_size_of = {}
        for name in named:
            sizes = ParticleSizes.from_diameter(of_class(particle_diameter, name), min_size=of_class(min_size, name))
            self.min_size_of[name] = sizes.min_size

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            min_size = d["particles"]["class"].map(self.min_size_of).fillna(self.sizes.min_size).to_numpy(float)
            d["particles"], labels = filter_particles(
                d["particles"], volume_of(d, key), min_size=min_size, neighbor_number=self.neighbor_number,
                neighbor_distance=self.sizes.neighbor_distance, in_place=self.in_place,
            )  # fmt: skip
            d[key] = volume_like(labels, d[key])
        return d
