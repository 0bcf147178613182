"""The datalist as configs read it: which tomograms a run trains, validates or detects on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.sources import tomograms
from scripts.sources.datalists import read_datalist
from scripts.sources.tomograms import pick_section

__all__ = ["find_tomograms", "load_datalist"]


def load_datalist(dataset_dir: str | Path, section: str, repeat: int = 1, fallback: str | None = None) -> list[dict]:
    """Read one section of a dataset's ``dataset.json``, or of a copick project.

    Parameters
    ----------
    dataset_dir : path
        Folder that holds ``dataset.json``, as `prepare` and `simulate` write it, or a JSON file of this form; paths in
        it are relative to it. Or ``copick:CONFIG.json/TYPE@SPACING/OBJECT:USER/SESSION``: the project's tomograms with
        their instance segmentations, of which the last fifth of the runs (one of two to seven) is the validation
        section.
    section : str
        ``"training"``, ``"validation"`` or ``"test"``.
    repeat : int
        How often each item appears: a tomogram gives one random crop per appearance in an epoch.
    fallback : str, optional
        Section to use, with a warning, when ``section`` is absent or empty.

    Returns
    -------
    list of dict
        Items with absolute paths; at least one.

    Raises
    ------
    FileNotFoundError
        If the datalist or a file it names is missing.
    ValueError
        If it is not JSON of this form, or the section is empty.
    """
    return pick_section(read_datalist(dataset_dir), [section] if fallback is None else [section, fallback]) * repeat


def find_tomograms(dataset_dir: str | Path) -> list[dict[str, Any]]:
    """List the tomograms to detect; see `scripts.sources.tomograms.find_tomograms` for what may be named.

    Parameters
    ----------
    dataset_dir : path
        A folder, a tomogram, a pattern, a datalist (its test section), or ``copick:CONFIG.json/TYPE@SPACING``.

    Returns
    -------
    list of dict
        ``{"image": path, ...}``, at least one. Those of a copick project have their ``voxel_size``.
    """
    return tomograms.find_tomograms(dataset_dir, keys=None)
