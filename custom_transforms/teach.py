"""Keep the particles that are of the classes `python -m scripts teach` has learnt from examples."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from custom_transforms.measuring.descriptors import describe_particles
from custom_transforms.measuring.particle_filter import ParticleFilter
from custom_transforms.measuring.particle_table import filter_particles
from custom_transforms.measuring.taught import Taught, read_taught
from custom_transforms.volumes.checks import add_warning
from custom_transforms.volumes.lazy import Streams
from custom_transforms.volumes.metatensors import volume_like, volume_of, voxel_size_of

__all__ = ["KeepTaughtd"]

WORD = "class"  # in the column dropped_by


class KeepTaughtd(ParticleFilter):
    """Give each particle its class, and drop those of none of them ("class" in ``dropped_by``).

    The columns ``class`` and ``class_score``, its probability, are written; of a dropped particle that of the most
    probable class. Particles that were dropped before have none.

    Parameters
    ----------
    keys : str
        The instances, with their voxel size in the metadata.
    image_key : str
        The tomogram, protein bright.
    file : path, optional
        What ``teach`` wrote (`Taught`); None does nothing.
    particle_diameter : float
        Å; gives neighbor_distance.
    neighbor_distance : float, optional
        Å; reach of the column "neighbors", which is counted anew.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is not there or damaged.
    """

    streams = Streams("particles", "particles", {"keys": ("instances",), "image_key": "image"})

    def __init__(
        self, keys: str = "instances", image_key: str = "image", *, file: str | Path | None = None,
        particle_diameter: float, neighbor_distance: float | None = None, allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, particle_diameter, neighbor_distance, allow_missing_keys)
        self.image_key, self.file = image_key, file
        self.taught: Taught | None = None if file is None else read_taught(file)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """In memory or of volumes that are read when they are sliced."""
        d = dict(data)
        if self.taught is None:
            return d
        for key in self.key_iterator(d):
            labels, image, table = volume_of(d, key), volume_of(d, self.image_key), d["particles"]
            candidates, diameter = table[table["dropped_by"] == ""], self.taught.particle_diameter
            described = describe_particles(image, labels, candidates, voxel_size_of(d, key), diameter)
            self._compare(d)
            d["particles"], labels = self.chosen(table, labels, described)
            d[key] = volume_like(labels, d[key])
        return d

    def chosen(self, table: pd.DataFrame, labels: Any, described: np.ndarray) -> tuple[pd.DataFrame, Any]:
        """Table with classes and reasons, and the labels without what is dropped.

        ``described`` is what `describe_particles` gives of the particles that were not dropped before.
        """
        if self.taught is None:
            return table, labels
        present = (table["dropped_by"] == "").to_numpy()
        names, probability = self.taught.classify(described)
        result = table.assign(class_score=np.nan)
        result.loc[present, "class"], result.loc[present, "class_score"] = names, probability
        result.loc[present, "dropped_by"] = np.where(names == "", WORD, "")
        return filter_particles(result, labels, neighbor_distance=self.neighbor_distance)

    def _compare(self, data: Mapping[Hashable, Any]) -> None:
        """Warn of candidates that were found otherwise than those it was taught on."""
        wanted = None if self.taught is None else self.taught.settings.get("center_threshold")
        found = getattr(data.get("seeds"), "threshold", wanted)
        if wanted is not None and found != wanted:
            add_warning(
                data[self.image_key].meta,
                f"{self.file}: taught on particles found at center_threshold {wanted:g}, these are of {found:g}. "
                f"Give --center_threshold {wanted:g}.",
            )
