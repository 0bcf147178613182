"""Simulator: time of each stage and peak memory for one tomogram of 128 x 256 x 256 voxels, 600 particles, 17 %."""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np
import torch

from scripts.simulate.content import fill
from scripts.simulate.microscope import tomogram_of
from scripts.simulate.scene import load_scene

_SIZES = (240, 260, 280, 300, 320, 340)  # Å; together about 17 % at 600 particles


def run(full: bool = False) -> list[dict[str, Any]]:
    """Measure content and imaging of one tomogram of 660 particles; ``full`` changes nothing."""
    scene = load_scene(_scene([128, 256, 256], occupancy=0.17))
    rng = np.random.default_rng(0)
    row: dict[str, Any] = {"bench": "simulate", "path": "ours", "size": "128 x 256 x 256"}
    start, busy = time.perf_counter(), time.process_time()
    stage, drawn = fill(scene, rng)
    row["content_s"] = time.perf_counter() - start
    tomogram_of(stage, scene, rng, torch.device("cpu"))
    row["total_s"], row["processor_s"] = time.perf_counter() - start, time.process_time() - busy
    row["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return [{**row, "particles": len(stage.placed), "occupancy": drawn["occupancy"]}]


def _scene(shape: list[int], occupancy: float) -> dict:
    particles = [
        {"kind": "complex", "name": f"complex{size}", "diameter": size, "lobes": 8, "share": 1} for size in _SIZES
    ]
    return {
        "name": "bench",
        "shape": shape,
        "voxel_size": 10,
        "particles": particles,
        "placement": {"occupancy": occupancy},
        "imaging": {"tilt_max": 60, "tilt_step": 3},
    }
