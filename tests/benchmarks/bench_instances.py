"""Post-processing: time and memory of the stages, beside plain scipy + scikit-image and the original's algorithm."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy.special import logit

from custom_transforms.instances import (
    AssignInstancesd,
    FindSeedsd,
    MaskFromProbabilityd,
    SplitPredictiond,
    assign_instances,
    filter_particles,
    find_seeds,
    mask_from_probability,
    measure_particles,
    refine_seeds,
)
from custom_transforms.particles import FilterParticlesd, MeasureParticlesd
from custom_transforms.units import ParticleSizes
from tests.benchmarks.instance_scenes import DIAMETER, TILE, VOXEL_SIZE, make_tile, tile_maps
from tests.benchmarks.plain_chains import original_chain, scipy_chain

FULL = (464, 928, 928)
COMPARED = (116, 232, 232)  # small enough for the plain chains
ORIGINAL = ((58, 116, 116), (116, 116, 116), (116, 116, 232))  # the original grows with the square of the volume
MASK_THRESHOLD = CENTER_THRESHOLD = 0.3
CLASSES = 6


class PeakMemory:
    """Highest resident memory (GB) above what it was on entry, sampled every 5 ms by a thread."""

    def __enter__(self) -> PeakMemory:
        self.start, self.peak, self.done = _resident_gb(), 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.done.wait(0.005):
            self.peak = max(self.peak, _resident_gb() - self.start)


def _resident_gb() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9


def time_chain(probability: np.ndarray, center_map: np.ndarray, method: str = "watershed") -> dict[str, Any]:
    """Run the chain stage by stage. Returns seconds per stage, their total, processor seconds, peak memory, counts."""
    sizes, voxel = ParticleSizes.from_diameter(DIAMETER), np.full(3, VOXEL_SIZE)
    min_size_voxels = sizes.min_size / voxel.prod()
    row: dict[str, Any] = {}

    def timed(stage: str, function: Callable, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments, **options)
        row[f"{stage}_s"] = time.perf_counter() - start
        return result

    processor = time.process_time()
    with PeakMemory() as memory:
        mask = timed("mask", mask_from_probability, probability, MASK_THRESHOLD, min_size_voxels)
        peaks, _ = timed("seeds", find_seeds, center_map, CENTER_THRESHOLD, sizes.min_distance, voxel)
        centers, heights = timed("refine", refine_seeds, center_map, peaks, DIAMETER / 4, voxel)
        labels, seed_labels = timed(
            "assign", assign_instances, mask, center_map, peaks, method=method, radius_max=sizes.radius_max,
            voxel_size_zyx=voxel, min_size_voxels=min_size_voxels,
        )  # fmt: skip
        foreground = np.count_nonzero(mask) / mask.size
        del mask
        table = timed(
            "measure", measure_particles, labels, probability, seed_labels, centers, heights, voxel_size_zyx=voxel,
            center_threshold=CENTER_THRESHOLD, neighbor_distance=sizes.neighbor_distance,
        )  # fmt: skip
        table, labels = timed(
            "filter", filter_particles, table, labels, min_size=sizes.min_size,
            neighbor_distance=sizes.neighbor_distance, in_place=True,
        )  # fmt: skip
    row["total_s"] = sum(value for name, value in row.items() if name.endswith("_s"))
    row["processor_s"] = time.process_time() - processor
    row["peak_gb_over_maps"] = memory.peak
    row |= {"foreground": foreground, "particles": int((table["label"] > 0).sum())}
    return row


def run(full: bool = False, repeat: int = 1) -> list[dict[str, Any]]:
    """Measure, and return one row per measurement; every row says what was run (``bench``, ``path``, ``scene``).

    Parameters
    ----------
    full : bool
        Also the full size, 464 x 928 x 928: 3.2 GB of maps and up to 3 GB more.
    repeat : int
        Runs of every measurement of our own chain; the row holds the fastest.
    """
    rows = [_row("compile", "ours, first call", "spread", TILE, total_s=_compile_time())]
    for scene in ("spread", "percolating"):
        tile = make_tile(percolating=scene == "percolating")
        for shape in (COMPARED, FULL) if full else (COMPARED,):
            maps = tile_maps(tile, shape)
            best = min((time_chain(*maps) for _ in range(repeat)), key=lambda row: row["total_s"])
            rows.append(_row("instances", "ours", scene, shape, **best))
            if shape == COMPARED:
                rows.append(_plain(scipy_chain, "scipy + scikit-image", scene, maps, best["total_s"]))
            del maps
    return rows + _classes(FULL if full else COMPARED) + _growth_of_the_original()


def _classes(shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    """The config's transforms on what the networks give, with one center map and with one for each of `CLASSES`."""
    rows: list[dict[str, Any]] = []
    probability, center_map = make_tile(percolating=False)
    maps = list(tile_maps((probability, center_map), shape))
    maps[0] = logit(np.clip(maps[0], 0.01, 0.99))
    # particles of a class lie together; the maps of the others are a third as high there
    own = np.arange(shape[2]) * CLASSES // shape[2]
    for classes in (1, CLASSES):
        prediction = np.empty((1 + classes, *shape), np.float32)
        prediction[0] = maps[0]
        for number in range(classes):
            prediction[1 + number] = maps[1] * np.where((own == number) | (classes == 1), 1, 0.3).astype(np.float32)
        data: dict[Any, Any] = {"pred": MetaTensor(prediction, meta={"voxel_size_zyx": np.full(3, VOXEL_SIZE)})}
        names = [f"class {number}" for number in range(classes)] if classes > 1 else None
        start, needed = time.perf_counter(), prediction.nbytes / 1e9
        del prediction
        with PeakMemory() as memory:
            for transform in _transforms(names):
                data = transform(data)
        seconds = time.perf_counter() - start
        found = int((data["particles"]["label"] > 0).sum())
        path = f"transforms, {classes} class{'es' if names else ''}"
        ratio = seconds / rows[0]["total_s"] if rows else 1.0
        rows.append(_row(
            "instances", path, "spread", shape, total_s=seconds, ratio=ratio, peak_gb_over_maps=memory.peak,
            maps_gb=needed, particles=found,
        ))  # fmt: skip
    return rows


def _transforms(classes: list[str] | None) -> list[MapTransform]:
    size = {"particle_diameter": DIAMETER}
    return [
        SplitPredictiond(in_place=True),
        MaskFromProbabilityd(threshold=MASK_THRESHOLD, **size),
        FindSeedsd(threshold=CENTER_THRESHOLD, classes=classes, **size),
        AssignInstancesd(**size),
        MeasureParticlesd(**size),
        FilterParticlesd(in_place=True, **size),
    ]


def _compile_time() -> float:
    """Seconds that the very first call costs more than the second (near 0 when numba's cache is warm)."""
    maps = make_tile(percolating=False)
    return time_chain(*maps)["total_s"] - time_chain(*maps)["total_s"]


def _plain(chain: Callable, path: str, scene: str, maps: tuple, ours_s: float) -> dict[str, Any]:
    with PeakMemory() as memory:
        start = time.perf_counter()
        particles = chain(*maps, DIAMETER / VOXEL_SIZE, MASK_THRESHOLD, CENTER_THRESHOLD)
        seconds = time.perf_counter() - start
    return _row(
        "instances", path, scene, maps[0].shape, total_s=seconds, ratio=seconds / ours_s,
        peak_gb_over_maps=memory.peak, particles=particles,
    )  # fmt: skip


def _growth_of_the_original() -> list[dict[str, Any]]:
    """The original's algorithm on growing volumes; the fitted exponent gives the full-size time."""
    rows, tile = [], make_tile(percolating=False)
    for shape in ORIGINAL:
        maps = tile_maps(tile, shape)
        rows.append(_plain(original_chain, "original, plain", "spread", maps, time_chain(*maps)["total_s"]))
    voxels = [np.prod(shape) for shape in ORIGINAL]
    exponent, factor = np.polyfit(np.log(voxels), np.log([row["total_s"] for row in rows]), 1)
    expected = float(np.exp(factor + exponent * np.log(np.prod(FULL))))
    rows.append(_row("instances", f"original, fitted ~ V^{exponent:.2f}", "spread", FULL, total_s=expected))
    return rows


def _row(bench: str, path: str, scene: str, shape: tuple, **values: Any) -> dict[str, Any]:
    size = " x ".join(map(str, shape))
    return {"bench": bench, "path": path, "scene": scene, "size": size, "threads": torch.get_num_threads(), **values}
