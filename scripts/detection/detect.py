"""Detect: tomograms in, instance labels and particle lists out; thin over ``configs/inference.json``."""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd

from custom_transforms.volumes.checks import metadata_warnings
from scripts.console import tell, user_message
from scripts.detection.detector import Detector, check_device
from scripts.detection.finished import finished_record, recorded
from scripts.report.overview import overview
from scripts.sources.tomograms import find_tomograms
from scripts.tiling.tiles import tile_of

__all__ = ["Detector", "check_device", "detect"]


def detect(
    *tomograms: str,
    output_dir: str = "detections",
    particle_diameter: float | None = None,
    weights: str | None = None,
    bundle: str | None = None,
    config: str | None = None,
    contrast: str | None = None,
    voxel_size: float | tuple[float, ...] | None = None,
    keep_voxel_size: bool | None = None,
    fill_nonfinite: bool | None = None,
    signed: bool | None = None,
    mask_threshold: float | None = None,
    center_threshold: float | None = None,
    min_distance: float | None = None,
    min_size: float | None = None,
    radius_max: float | None = None,
    method: str | None = None,
    require_seed: bool | None = None,
    neighbor_number: int | None = None,
    neighbor_distance: float | None = None,
    exclude: str | None = None,
    edge_margin: float | None = None,
    membrane: str | None = None,
    membrane_min: float | None = None,
    membrane_max: float | None = None,
    membrane_action: str | None = None,
    flag_gold: bool | None = None,
    formats: str | None = None,
    copick: str | None = None,
    report: bool | None = None,
    tile: tuple[int, ...] | None = None,
    runtime: str | None = None,
    tta: int | None = None,
    region: str | None = None,
    memory: float | None = None,
    stream: bool | None = None,
    scratch_dir: str | None = None,
    device: str | None = None,
    overwrite: bool | None = None,
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
    particle_diameter : float
        Rough diameter of the particles in Å; all distances and sizes below follow from it.
    weights : str
        Trained networks (.pt); by default the general ones that come along, models/model.pt. The voxel size and
        thresholds of other networks come from the .json beside them.
    bundle : str
        A bundle, zip or folder: its settings and weights are used as they come.
    config : str
        JSON with settings, laid over configs/inference.json, as calibrate writes it; several with commas between.
    contrast : str
        What protein looks like in the tomogram: dark (the rule for raw tomograms) or bright.
    voxel_size : float
        Å per voxel, where the file does not say or says it wrong; one number, or three as Z,Y,X.
    keep_voxel_size : bool
        Do not rescale a tomogram whose voxels are not of the size the networks know.
    fill_nonfinite : bool
        Replace NaN and infinite voxels by the mean instead of refusing the file.
    signed : bool
        true or false: whether the bytes of a mode 0 file are signed, where its header does not tell.
    mask_threshold : float
        Probability above which a voxel is particle.
    center_threshold : float
        Height above which a peak of the center map is a particle.
    min_distance : float
        Smallest distance of two centers, Å.
    min_size : float
        Smallest particle, cubic Å.
    radius_max : float
        No voxel farther than this from a center belongs to it, Å.
    method : str
        How touching particles are separated: watershed, nearest or split.
    require_seed : bool
        Drop parts of the mask without a center, instead of keeping each as one particle.
    neighbor_number : int
        Drop particles with fewer neighbours than this; 0 drops none.
    neighbor_distance : float
        How near a neighbour is, Å.
    exclude : str
        Volume of the tomogram's shape, above 0 where nothing counts (carbon, ice): particles there are dropped; {name}
        in the path stands for the tomogram's name.
    edge_margin : float
        Drop particles whose center is nearer than this to a face of the tomogram, Å.
    membrane : str
        Segmentation of the tomogram's shape, above 0 inside ({name} as above): particles between --membrane_min and
        --membrane_max of it are chosen.
    membrane_min : float
        Smallest distance of a chosen particle's center from the segmentation, Å.
    membrane_max : float
        Largest distance of a chosen particle's center from the segmentation, Å.
    membrane_action : str
        What happens to the chosen: keep (all others are dropped; the default), drop or flag.
    flag_gold : bool
        true or false: say in the table which particles hold a gold bead (true); none is dropped.
    formats : str
        Particle lists to write, with commas between: csv, original, relion5.
    copick : str
        Write picks and instances into a copick project, too: copick:CONFIG.json/OBJECT:USER/SESSION.
    report : bool
        true or false: make the HTML page of each tomogram (true).
    tile : int
        Voxels Z,Y,X the networks see at once; larger is faster and takes more memory.
    runtime : str
        What runs the networks on a CPU: torch, openvino (faster on most CPUs), or auto, which takes the faster one.
    tta : int
        Average over 1, 2, 4 or 8 flips of each tile: slower by that factor, a little better.
    region : str
        Volume of the tomogram's shape; particles are looked for only where it is above 0.
    memory : float
        Largest memory to use, GiB; by default what is free. Kept for MRC files alone.
    stream : bool
        true or false: keep volumes on disk instead of in memory (MRC files alone); by default where memory does not
        suffice.
    scratch_dir : str
        Folder on a fast disk for volumes larger than memory; by default output_dir.
    device : str
        cpu, cuda, cuda:1 ...; the first GPU if there is one.
    overwrite : bool
        Replace earlier results.
    """
    given = {
        name: value
        for name, value in locals().items()
        if name not in ("tomograms", "bundle", "config", "formats", "tile", "memory", "stream", "scratch_dir")
        and value is not None
    }
    if formats is not None:
        given["formats"] = [one.strip() for one in formats.split(",") if one.strip()]
    if tile is not None:
        given["tile"] = tile_of(tile)
    if weights is not None and bundle is not None:
        raise ValueError("give --weights or --bundle: a bundle brings its own weights.")
    items = find_tomograms(tomograms)
    overlays = [one for one in (config or "").split(",") if one]
    detector = Detector(given, overlays, memory=memory, stream=stream, scratch_dir=scratch_dir, bundle=bundle)
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
    except OSError as error:  # the detections are whole without it
        print(f"warning: no overview was written: {error}", file=sys.stderr)
    if failed:
        raise ValueError(f"{len(failed)} of {len(items)} tomograms failed: {', '.join(map(str, failed))}. See above.")


def detect_one(detector: Detector, item: Mapping[str, Any]) -> str:
    """Detect one tomogram, an item of a datalist, unless that is done; return the line for the user."""
    path = item["image"]
    if finished_record(detector.save, item):
        return f"{path}: done before, skipped (--overwrite repeats it)"
    plan = detector.plan(item)
    if plan is not None:
        print(plan.text(), file=sys.stderr)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        data = detector(item, plan)
    ours = list(dict.fromkeys(metadata_warnings(data["image"].meta)))
    for text in ours:
        print(f"warning: {text}", file=sys.stderr)
    for one in caught:
        if str(one.message) not in ours:
            logging.getLogger(__name__).info("%s", one.message)
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
