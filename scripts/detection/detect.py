"""Detect: tomograms in, instance labels and particle lists out; thin over ``configs/inference.json``."""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from typing import Any

import pandas as pd

from custom_transforms.files.claim import claimed
from scripts.console import tell, user_message
from scripts.detection.detector import Detector, Source
from scripts.detection.finished import finished_record, recorded
from scripts.report.overview import overview
from scripts.sources.tomogram import Tomogram
from scripts.sources.tomograms import find_tomograms

__all__ = ["Detector", "detect"]

DONE = "{path}: done before, skipped (--overwrite repeats it)"


def detect(
    *tomograms: str,
    output_dir: str = "detections",
    bundle: str | None = None,
    trust: bool = False,
    config: str | None = None,
    memory: float | None = None,
    stream: bool | None = None,
    scratch_dir: str | None = None,
    **settings: Any,
) -> None:
    """Find the particles of tomograms, separate them, and write labels and lists.

    Each tomogram gets a folder with an instance-labelled MRC volume, the particle table (CSV), the centers (txt, STAR)
    and a JSON record of how they were made; several tomograms get an overview.html and overview.csv, too. A tomogram
    that is done already is skipped, so a stopped run can be started again; one that cannot be read is reported, and
    the others go on.

    example: python -m scripts detect tomograms/*.mrc --output_dir detections

    Parameters
    ----------
    tomograms : str
        Tomogram files (MRC, also .rec .map .gz .bz2; TIFF; NIfTI; OME-Zarr), folders or patterns of them, a folder
        with a dataset.json, or a copick project: copick:CONFIG.json/TYPE@SPACING.
    output_dir : str
        Folder for the results.
    bundle : str
        A bundle, zip or folder: its settings and weights are used as they come. Its config is code.
    trust : bool
        Let that bundle run here, from now on.
    config : str
        JSON with settings, laid over configs/inference.json, as calibrate writes it; several with commas between. It
        is code, too.
    memory : float
        Largest memory to use, GiB; by default what is free. Kept for MRC files alone.
    stream : bool
        true or false: keep volumes on disk instead of in memory (MRC files alone); by default where memory does not
        suffice.
    scratch_dir : str
        Folder on a fast disk for volumes larger than memory; by default output_dir.
    **settings
        Settings of detection: ids of configs/inference.json, which explains them.
    """
    if "weights" in settings and bundle is not None:
        raise ValueError("give --weights or --bundle: a bundle brings its own weights.")
    items = find_tomograms(tomograms)
    asked = {**settings, "output_dir": output_dir}
    detector = Detector(
        asked, overlays_of(config), memory=memory, stream=stream, scratch_dir=scratch_dir, bundle=bundle, trust=trust
    )
    failed = {}
    for number, item in enumerate(items, 1):
        path = item["image"]
        print(f"[{number}/{len(items)}] {path}", file=sys.stderr)
        try:
            tell(detect_one(detector, item), **recorded(detector.save, path))
        except Exception as error:
            if len(items) == 1:
                raise
            # one bad file must not cost a night's batch: it is reported, and the exit code says so
            logging.getLogger(__name__).debug("%s", path, exc_info=True)
            failed[path] = user_message(error)
            print(f"error: {failed[path]}", file=sys.stderr)
        gc.collect()
    try:
        if len(items) - len(failed) > 1:
            page, table = overview(output_dir)
            tell(str(page), written=[page, table])
    except Exception as error:  # the detections are whole without it
        print(f"warning: no overview was written: {user_message(error)}", file=sys.stderr)
    if failed:
        raise ValueError(f"{len(failed)} of {len(items)} tomograms failed: {', '.join(map(str, failed))}. See above.")


def overlays_of(config: str | None) -> list[str]:
    """The config files of ``--config``, which names several with commas between."""
    return [path for path in (config or "").split(",") if path]


def detect_one(detector: Detector, source: Source) -> str:
    """Detect one tomogram, a file or an item of a datalist, unless that is done; return the line for the user."""
    tomogram = detector.resolve(source)
    if finished_record(detector.save, tomogram.item):
        return DONE.format(path=tomogram.path)
    with claimed(detector.save.folder(tomogram.path)):
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
