"""The particle list that a user names: a file of any format, or picks of a copick project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scripts.particles import registry
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext
from scripts.sources.copick_project import is_copick, read_picks_by_uri

__all__ = ["read_particles"]


def read_particles(
    path: Path | str,
    format: str | None = None,
    context: TomogramContext | None = None,
    member: str | None = None,
    **options: Any,
) -> ParticleList:
    """Read a particle list as `scripts.particles.registry.read_particles` does, or picks of a copick project.

    Parameters
    ----------
    path : path
        A file, or the picks ``copick:CONFIG.json/OBJECT:USER/SESSION`` of all runs of a project.
    format, context, **options
        As there.
    member : str, optional
        Only the particles of this tomogram, as the list calls it.
    """
    if is_copick(path):
        if format not in (None, "copick"):
            raise ValueError(f"{path}: these are copick picks, but the format {format} was asked for. Leave it out.")
        return read_picks_by_uri(path, None if member is None else [member])
    particles = registry.read_particles(path, format, context, **options)
    return particles if member is None else particles.select(np.asarray(particles.tomogram) == member)
