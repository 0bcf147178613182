"""Detect one tomogram, and say what there is to say about it."""

from __future__ import annotations

import sys
import warnings

import pandas as pd

from custom_transforms.files.claim import claimed, clear_claim
from scripts.detection.detector import Detector, Source
from scripts.detection.finished import finished_record
from scripts.sources.tomogram import Tomogram

__all__ = ["detect_one"]

DONE = "{path}: done before, skipped (--overwrite repeats it)"


def detect_one(detector: Detector, source: Source, run: str = "") -> str:
    """Detect one tomogram, a file or an item of a datalist, unless that is done; return the line for the user.

    ``run`` is for its claim, see `claimed`.
    """
    tomogram = detector.resolve(source)
    folder = detector.save.folder(tomogram.path)
    if finished_record(detector.save, tomogram.item):
        clear_claim(folder)
        return DONE.format(path=tomogram.path)
    with claimed(folder, run=run):
        if finished_record(detector.save, tomogram.item):  # by the process that had it until now
            return DONE.format(path=tomogram.path)
        return _detected(detector, tomogram)


def _detected(detector: Detector, tomogram: Tomogram) -> str:
    path, plan = tomogram.path, detector.plan(tomogram)
    if plan is not None:
        print(plan.text(), file=sys.stderr)
    with warnings.catch_warnings(record=True):  # told below, each once
        warnings.simplefilter("always", UserWarning)
        data = detector(tomogram, plan)
    for text in data["warnings"]:
        print(f"warning: {text}", file=sys.stderr)
    table = data["particles"]
    kept = int((table["label"] > 0).sum())
    if kept == 0:
        print(f"warning: {path}: {nothing_kept(table)}", file=sys.stderr)
    dropped = f", {len(table) - kept} dropped by filters" if len(table) > kept else ""
    return f"{path}: {kept} particles{dropped} -> {data['output_files']['record'].parent}"


def nothing_kept(table: pd.DataFrame) -> str:
    """Say why a table has no particle that was kept, and what to look at.

    Examples
    --------
    >>> nothing_kept(pd.DataFrame({"dropped_by": ["size", "edge", "size"]}))
    'no particle is left: the filters dropped all 3 that were found (2 by size, 1 by edge). Are their settings right?'
    """
    if len(table) == 0:
        return (
            "no particle was found. Is the contrast right (--contrast)? Or are the particles larger or smaller than "
            "those the networks were trained on?"
        )
    reasons = ", ".join(f"{count} by {word}" for word, count in table["dropped_by"].value_counts().items())
    return (
        f"no particle is left: the filters dropped all {len(table)} that were found ({reasons}). "
        "Are their settings right?"
    )
