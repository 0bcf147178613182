"""Detect: tomograms in, instance labels and particle lists out; thin over ``configs/inference.json``."""

from __future__ import annotations

import gc
import glob
import json
import logging
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser

from custom_transforms.instances import (
    AssignInstancesd,
    FilterParticlesd,
    FindSeedsd,
    MaskFromProbabilityd,
    MeasureParticlesd,
    SplitPredictiond,
)
from custom_transforms.io import metadata_warnings
from custom_transforms.rescale import model_shape
from custom_transforms.units import ParticleSizes, as_voxel_size_zyx
from scripts.cli import user_message
from scripts.datalist import find_tomograms
from scripts.outputs import SaveDetectiond, finished_record, tomogram_name
from scripts.plan import Plan, check_disk, make_plan, mrc_geometry
from scripts.streaming import SETTINGS, detect_streamed

__all__ = ["Detector", "detect", "tile_of"]

ROOT = Path(__file__).parents[1]
STREAMABLE = {
    SplitPredictiond,
    MaskFromProbabilityd,
    FindSeedsd,
    AssignInstancesd,
    MeasureParticlesd,
    FilterParticlesd,
    SaveDetectiond,
}


class Detector:
    """The parts of ``configs/inference.json``, built once and used for one tomogram after another.

    Parameters
    ----------
    overrides : mapping
        Ids of ``inference.json`` to replace, as ``--id value`` does for ``monai.bundle run``.
    config : sequence of paths
        Config files laid over ``inference.json``, in order, before the overrides.
    memory : float, optional
        Largest memory to use, GiB; by default what is free.
    stream : bool, optional
        Whether volumes go through files instead of memory; by default where memory does not suffice.
    scratch_dir : path, optional
        Where streamed volumes are kept meanwhile; by default where the results go.

    Raises
    ------
    ValueError
        If an override names no id of the config, or the device is not there.
    """

    def __init__(
        self,
        overrides: Mapping[str, Any] | None = None,
        config: Sequence[str | Path] = (),
        memory: float | None = None,
        stream: bool | None = None,
        scratch_dir: str | Path | None = None,
    ) -> None:
        self.parser = ConfigParser()
        self.parser.read_config([str(ROOT / "configs" / "inference.json")])
        known = set(self.parser.get())
        for path in config:
            self._override(read_overlay(path), known, str(path))
        self._override({"bundle_root": str(ROOT), **(overrides or {})}, known, "options")
        check_device(self.parser.get_parsed_content("device"))
        self.preprocessing = self.parser.get_parsed_content("preprocessing")
        self.postprocessing = self.parser.get_parsed_content("postprocessing")
        self.inferer = self.parser.get_parsed_content("inferer")
        self.save = self.parser.get_parsed_content("write")
        self.network = self.parser.get_parsed_content("network").eval()
        self.memory, self.stream, self.scratch_dir = memory, stream, scratch_dir

    def _override(self, values: Mapping[str, Any], known: set[str], source: str) -> None:
        for key, value in values.items():
            if key.startswith("_"):
                continue
            if key.split("::")[0].split("#")[0] not in known:
                raise ValueError(f"{source}: {key!r} is not an id of configs/inference.json. Nothing was done.")
            self.parser[key] = value

    def plan(self, tomogram: str | Path) -> Plan | None:
        """Decide how to detect a tomogram, and set tile and batch for it; None for a file whose header is not MRC.

        Raises
        ------
        ValueError
            If memory or disk do not suffice.
        """
        geometry = mrc_geometry(tomogram)
        if geometry is None:
            return None
        shape, voxel_size_zyx = geometry
        if self.parser["voxel_size"] is not None:
            voxel_size_zyx = as_voxel_size_zyx(self.parser["voxel_size"])
        seen = shape
        if (voxel_size_zyx > 0).all() and not self.parser["keep_voxel_size"]:
            seen = model_shape(shape, voxel_size_zyx, self.parser["voxel_size_model"])
        plan = make_plan(
            shape,
            self.network,
            seen_zyx=seen,
            tile=self.parser["tile"],
            overlap=self.parser["overlap"],
            device=self.parser.get_parsed_content("device"),
            memory=self.memory,
            stream=self.stream,
            reach=self._reach(voxel_size_zyx),
        )
        if plan.path == "streamed":
            self._check_streamable()
        check_disk(plan, self.scratch_dir or self.save.folder(tomogram))
        self.inferer.roi_size = plan.tile
        self.inferer.batch = max(plan.batch, self.parser["batch_size"])
        return plan

    def _reach(self, voxel_size_zyx: np.ndarray) -> int:
        """R_max in voxels; 0 if the voxel size is not known."""
        sizes = ParticleSizes.from_diameter(self.parser["particle_diameter"], radius_max=self.parser["radius_max"])
        return int(np.ceil(sizes.radius_max / voxel_size_zyx.min())) if (voxel_size_zyx > 0).all() else 0

    def _check_streamable(self) -> None:
        """Refuse steps of post-processing that need the whole volume."""
        unknown = [type(step).__name__ for step in self.postprocessing.transforms if type(step) not in STREAMABLE]
        if unknown:
            raise ValueError(
                f"postprocessing: this tomogram is larger than memory, and {', '.join(unknown)} needs all of it. "
                "Leave it out of the config, or use a machine with more memory."
            )

    def predict(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Load one tomogram and run the networks: adds ``pred`` (2, Z, Y, X) to the item, and ``timings``."""
        start = time.perf_counter()
        data = self.preprocessing(dict(item))
        loaded = time.perf_counter()
        with torch.no_grad():
            data["pred"] = self.inferer(data["image"][None], self.network)[0]
        data["image"].meta["warnings"] = data["pred"].meta.get("warnings", "")
        timings = {"load": loaded - start, "networks": time.perf_counter() - loaded}
        return {**data, "timings": {stage: round(seconds, 2) for stage, seconds in timings.items()}}

    def split(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Turn ``pred`` into ``probability`` and ``center_map``: the first step of post-processing, by itself."""
        return self.postprocessing.transforms[0](data)

    def __call__(self, tomogram: str | Path, plan: Plan | None = None) -> dict[str, Any]:
        """Detect one tomogram and write its files; returns all data of the chain, or without volumes if streamed."""
        if plan is None or plan.path == "memory":
            return self.postprocessing(self.predict({"image": str(tomogram)}))
        return detect_streamed(
            tomogram,
            plan,
            self.network,
            self.inferer,
            self.save,
            reading={name: self.parser[name] for name in ("voxel_size", "fill_nonfinite", "signed")},
            contrast=self.parser["contrast"],
            settings={name: self.parser[name] for name in SETTINGS},
            scratch_dir=self.scratch_dir,
            progress=self.parser["progress"],
        )


def detect(
    *tomograms: str,
    output_dir: str = "detections",
    particle_diameter: float | None = None,
    weights: str | None = None,
    config: str | None = None,
    contrast: str | None = None,
    voxel_size: float | tuple[float, ...] | None = None,
    keep_voxel_size: bool = False,
    fill_nonfinite: bool = False,
    signed: bool | None = None,
    mask_threshold: float | None = None,
    center_threshold: float | None = None,
    min_distance: float | None = None,
    min_size: float | None = None,
    radius_max: float | None = None,
    method: str | None = None,
    require_seed: bool = False,
    neighbor_number: int | None = None,
    neighbor_distance: float | None = None,
    formats: str | None = None,
    report: bool | None = None,
    tile: tuple[int, ...] | None = None,
    tta: int | None = None,
    region: str | None = None,
    memory: float | None = None,
    stream: bool | None = None,
    scratch_dir: str | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> None:
    """Find the particles of tomograms, separate them, and write labels and lists.

    Each tomogram gets a folder with an instance-labelled MRC volume, the particle table (CSV), the centers (txt, STAR)
    and a JSON record of how they were made. A tomogram that is done already is skipped, so a stopped run can be started
    again; one that cannot be read is reported, and the others go on.

    example: python -m scripts detect tomograms/*.mrc --output_dir detections --particle_diameter 250

    Parameters
    ----------
    tomograms : str
        Tomogram files (MRC, also .rec .map .gz .bz2; TIFF; NIfTI), or folders of them.
    output_dir : str
        Folder for the results.
    particle_diameter : float
        Rough diameter of the particles in Å; all distances and sizes below follow from it.
    weights : str
        Trained networks (.pt).
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
    formats : str
        Particle lists to write, with commas between: csv, original, relion5.
    report : bool
        true or false: make the HTML page of each tomogram (true).
    tile : int
        Voxels Z,Y,X the networks see at once; larger is faster and takes more memory.
    tta : int
        Average over 1, 2, 4 or 8 flips of each tile: slower by that factor, a little better.
    region : str
        Volume of the tomogram's shape; particles are looked for only where it is above 0.
    memory : float
        Largest memory to use, GiB; by default what is free.
    stream : bool
        true or false: keep volumes on disk instead of in memory; by default where memory does not suffice.
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
        if name not in ("tomograms", "config", "formats", "tile", "memory", "stream", "scratch_dir")
        and value is not None
    }
    if formats is not None:
        given["formats"] = [one.strip() for one in formats.split(",") if one.strip()]
    if tile is not None:
        given["tile"] = tile_of(tile)
    paths = expand(tomograms)
    overlays = [one for one in (config or "").split(",") if one]
    detector = Detector(given, overlays, memory=memory, stream=stream, scratch_dir=scratch_dir)
    failed = {}
    for number, path in enumerate(paths, 1):
        print(f"[{number}/{len(paths)}] {path}", file=sys.stderr)
        try:
            print(detect_one(detector, path))
        except (
            Exception
        ) as error:  # one bad file must not cost a night's batch: it is reported, and the exit code says so
            logging.getLogger(__name__).debug("%s", path, exc_info=True)
            failed[path] = user_message(error)
            print(f"error: {failed[path]}", file=sys.stderr)
            if len(paths) == 1:
                raise
        gc.collect()
    if failed:
        raise ValueError(f"{len(failed)} of {len(paths)} tomograms failed: {', '.join(map(str, failed))}. See above.")


def tile_of(tile: int | Sequence[int]) -> list[int]:
    """Read ``--tile``: one number for a cube, or three.

    Raises
    ------
    ValueError
        If it is neither, or below 16 voxels.
    """
    sides = [tile] * 3 if isinstance(tile, int) else list(tile)
    if len(sides) != 3 or min(sides) < 16:
        raise ValueError(f"--tile: expected one or three (Z,Y,X) whole numbers of at least 16, got {tile}.")
    return sides


def detect_one(detector: Detector, path: Path) -> str:
    """Detect one tomogram unless that is done; return the line for the user."""
    if finished_record(detector.save, path):
        return f"{path}: done before, skipped (--overwrite repeats it)"
    plan = detector.plan(path)
    if plan is not None:
        print(plan.text(), file=sys.stderr)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        data = detector(path, plan)
    ours = list(dict.fromkeys(metadata_warnings(data["image"].meta)))
    for text in ours:
        print(f"warning: {text}", file=sys.stderr)
    for one in caught:
        if str(one.message) not in ours:
            logging.getLogger(__name__).info("%s", one.message)
    table = data["particles"]
    kept = int((table["label"] > 0).sum())
    if kept == 0:
        print(f"warning: {path}: no particle was found. Is the contrast right (--contrast)?", file=sys.stderr)
    dropped = f", {len(table) - kept} dropped by filters" if len(table) > kept else ""
    return f"{path}: {kept} particles{dropped} -> {data['output_files']['record'].parent}"


def expand(tomograms: Sequence[str]) -> list[Path]:
    """Turn files, folders and patterns into a list of files.

    Raises
    ------
    FileNotFoundError
        If one names nothing.
    ValueError
        If two tomograms would get the same output folder.
    """
    if not tomograms:
        raise ValueError("detect needs tomograms: files, folders or patterns. See `python -m scripts detect --help`.")
    paths: list[Path] = []
    for one in tomograms:
        path = Path(one).expanduser()
        if path.is_dir():
            paths += [Path(item["image"]) for item in find_tomograms(path)]
        elif path.exists():
            paths.append(path)
        else:
            found = sorted(glob.glob(str(path)))
            if not found:
                raise FileNotFoundError(f"{one}: expected a tomogram, a folder or a pattern, found nothing there.")
            paths += [Path(name) for name in found]
    paths = list(dict.fromkeys(path.resolve() for path in paths))
    names: dict[str, Path] = {}
    for path in paths:
        other = names.setdefault(tomogram_name(path), path)
        if other != path:
            raise ValueError(f"{other} and {path} would both be written to {tomogram_name(path)}/. Detect them apart.")
    return paths


def read_overlay(path: str | Path) -> dict[str, Any]:
    """Read a config overlay.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing, or not a JSON object.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a config file (JSON), found none.")
    try:
        values = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON, but line {error.lineno} is not: {error.msg}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a JSON object of settings, got a {type(values).__name__}.")
    return values


def check_device(device: str | torch.device) -> None:
    """Refuse a GPU that is not there; warn of one that is there and unused.

    Raises
    ------
    ValueError
        If the device is unknown or missing.
    """
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"--device {device}: expected cpu or cuda (cuda:0, cuda:1 ...).") from error
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind.type == "cuda" and (kind.index or 0) >= available:
        raise ValueError(
            f"--device {device}: {available} GPUs are visible to PyTorch. Use --device cpu, or mend the driver."
        )
    if kind.type == "cpu" and available:
        warnings.warn(
            f"{available} GPUs are there and unused: leave --device out to use one", UserWarning, stacklevel=2
        )
