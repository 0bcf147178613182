"""What `prepare` takes from a copick project beside tomograms and particles: the objects' radii."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scripts.sources.copick_project import open_project, split_uri

__all__ = ["config_of", "project_radii"]


def project_radii(uri: str) -> dict[str, float]:
    """Å by object, of the objects that have a radius in the project's config."""
    project = open_project(config_of(uri))
    known = {name: radius for name, radius in project.radii.items() if np.isfinite(radius)}
    if not known:
        raise ValueError(
            f"{project.config}: no object has a radius. Give the particles' shape, for example --radius 120."
        )
    return known


def config_of(uri: str | Path) -> Path:
    """The config file in a copick URI."""
    return Path(split_uri(str(uri))[0]).expanduser()
