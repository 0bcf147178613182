"""What the general networks found in a tomogram, described: the candidates that examples choose among."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from custom_transforms.measuring.descriptors import describe_particles
from custom_transforms.normalize import NormalizedVolume
from custom_transforms.volumes.lazy import LazyVolume
from scripts.report.inputs import RunData, load_run

__all__ = ["Candidates", "common_settings", "open_candidates"]

SETTINGS = (
    "particle_diameter", "mask_threshold", "center_threshold", "min_distance", "min_size", "radius_max", "method",
    "require_seed",
)  # fmt: skip


@dataclass
class Candidates:
    """A finished detection of the general networks.

    Attributes
    ----------
    run : RunData
        With its tomogram and instances.
    """

    run: RunData

    @property
    def name(self) -> str:
        """The tomogram's."""
        return self.run.name

    @cached_property
    def table(self) -> pd.DataFrame:
        """The particles that no filter dropped."""
        return self.run.particles[self.run.particles["dropped_by"] == ""].reset_index(drop=True)

    @property
    def centers_xyz_angstrom(self) -> np.ndarray:
        """Shape (n, 3)."""
        return self.table[["x_angstrom", "y_angstrom", "z_angstrom"]].to_numpy(float)

    @cached_property
    def image(self) -> LazyVolume:
        """The tomogram as the networks saw it; read when it is sliced."""
        volume = np.asarray(self.run.tomogram)
        if self.settings.get("fill_nonfinite"):
            volume = np.where(np.isfinite(volume), volume, volume[np.isfinite(volume)].mean(dtype=np.float64))
        image = NormalizedVolume(volume, self.run.record.contrast)  # type: ignore[arg-type]
        return image.with_meta(self.meta)

    @property
    def meta(self) -> dict[str, Any]:
        """What is known of the tomogram, as its reader gave it."""
        tomogram = self.run.record.tomogram
        return {
            "filename_or_obj": str(self.run.record.inputs.tomogram.path),
            "voxel_size_zyx": self.run.voxel_size_zyx,
            "origin_xyz": [value or 0.0 for value in tomogram.origin_xyz_angstrom or (0, 0, 0)],
            "header": tomogram.header,
        }

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the detection."""
        return self.run.record.inputs.settings

    @cached_property
    def descriptors(self) -> np.ndarray:
        """Shape (n, descriptors)."""
        diameter = float(self.settings["particle_diameter"])
        return describe_particles(self.image, self.run.instances, self.table, self.run.voxel_size_zyx, diameter)


def open_candidates(run: Path, tomogram: str | None = None) -> Candidates:
    """Open a finished detection; ``tomogram`` if it is not where the record says.

    Raises
    ------
    FileNotFoundError, ValueError
        If one of its files or the tomogram is gone or damaged, or it was taught already.
    """
    found = load_run(run, tomogram)
    source = found.record.inputs.tomogram.path
    if found.tomogram is None:
        raise FileNotFoundError(f"{run}: expected its tomogram, {source}, which is gone. Put it back, or detect anew.")
    if found.instances is None:
        raise FileNotFoundError(f"{run}_instances.mrc: expected the labels of this detection. Detect anew.")
    if found.record.inputs.settings.get("teach") is not None:
        raise ValueError(
            f"{run}: expected all that the general networks find, got particles that were taught already "
            "(--teach). Name the detection they were chosen from."
        )
    return Candidates(found)


def common_settings(candidates: Sequence[Candidates]) -> tuple[dict[str, Any], str | None]:
    """Settings and weights (sha256) that all candidates were found with; ValueError if they differ."""
    first = candidates[0]
    for other in candidates[1:]:
        differing = [name for name in SETTINGS if other.settings.get(name) != first.settings.get(name)]
        if other.run.record.inputs.weights_sha256 != first.run.record.inputs.weights_sha256:
            differing.append("weights")
        if differing:
            raise ValueError(
                f"{other.name}: detected with other {', '.join(differing)} than {first.name}. "
                "Detect all of them with the same."
            )
    settings = {name: first.settings[name] for name in SETTINGS if first.settings.get(name) is not None}
    return settings, first.run.record.inputs.weights_sha256
