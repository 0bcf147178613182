"""Detect: tomograms in, instance labels and particle lists out; thin over ``configs/inference.json``."""

from __future__ import annotations

import logging
import sys
from typing import Any

from scripts.cluster.workers import part_of
from scripts.console import tell, user_message
from scripts.detection.batch import Batch, detect_batch
from scripts.detection.detector import Detector
from scripts.report.overview import overview
from scripts.sources.tomograms import find_tomograms

__all__ = ["Detector", "detect"]


def detect(
    *tomograms: str,
    output_dir: str = "detections",
    bundle: str | None = None,
    trust: bool = False,
    config: str | None = None,
    memory: float | None = None,
    stream: bool | None = None,
    scratch_dir: str | None = None,
    cluster: str | None = None,
    part: str | None = None,
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
    cluster : str
        Spread the tomograms over workers: local (of this machine: one a GPU, or as many as cores and memory allow),
        the address of a Dask scheduler (tcp://host:8786) or its file, or a JSON file that says how to start jobs, such
        as configs/cluster_slurm.json. Needs Dask: pip install "dask[distributed]" dask-jobqueue.
    part : str
        Only the share of one job of an array: 3/200 (--part $SLURM_ARRAY_TASK_ID/200).
    **settings
        Settings of detection: ids of configs/inference.json, which explains them.
    """
    if "weights" in settings and bundle is not None:
        raise ValueError("give --weights or --bundle: a bundle brings its own weights.")
    items = find_tomograms(tomograms)
    many = cluster is not None or part is not None or len(items) > 1
    if part is not None and not (items := part_of(items, part)):
        tell(f"{part}: no tomogram is left for this part, nothing to do")
        return
    options: dict[str, Any] = {
        "overrides": {**settings, "output_dir": output_dir}, "config": overlays_of(config), "memory": memory,
        "stream": stream, "scratch_dir": scratch_dir, "bundle": bundle, "trust": trust,
    }  # fmt: skip
    batch = Batch(options, output_dir, account=many)
    failed = {}
    for done in detect_batch(batch, Detector(**options), items, cluster):
        if not done.failure:
            tell(done.line, **done.facts)
            continue
        if len(items) == 1 and done.error is not None:
            raise done.error
        # one bad file must not cost a night's batch: it is reported, and the exit code says so
        logging.getLogger(__name__).debug("%s", done.path, exc_info=done.error)
        failed[done.path] = done.failure
        print(f"error: {done.failure}", file=sys.stderr)
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
