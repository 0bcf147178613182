"""What `prepare` takes from a copick project: tomograms, picks, segmentations, and the objects' radii."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from custom_transforms.files.names import tomogram_base_name
from scripts.sources.copick_labels import is_segmentation_uri, segmentations
from scripts.sources.copick_project import open_project, split_uri

__all__ = ["config_of", "project_radii", "source_of_run"]


def project_radii(uri: str) -> dict[str, float]:
    """Å by object, of the objects that have a radius in the project's config.

    Raises
    ------
    ValueError
        If none has.
    """
    project = open_project(config_of(uri))
    known = {name: radius for name, radius in project.radii.items() if np.isfinite(radius)}
    if not known:
        raise ValueError(
            f"{project.config}: no object has a radius. Give the particles' shape, for example --radius 120."
        )
    return known


def source_of_run(uri: str, name: str) -> Path:
    """The segmentation of a run, if the URI names segmentations; the URI itself if it names picks.

    Parameters
    ----------
    uri : str
    name : str
        Of the tomogram, as `tomogram_base_name` gives it.

    Raises
    ------
    FileNotFoundError
        If the project or the run's segmentation is missing.
    """
    if not is_segmentation_uri(uri):
        open_project(config_of(uri))
        return Path(uri)
    found = {tomogram_base_name(run): one.path for run, one in segmentations(uri).items()}
    if name not in found:
        raise FileNotFoundError(f"{uri}: no segmentation of {name}; the project has some of {', '.join(found)}.")
    return found[name]


def config_of(uri: str | Path) -> Path:
    """The config file in a copick URI."""
    return Path(split_uri(str(uri))[0]).expanduser()
