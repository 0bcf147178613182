"""Simulator: time of each stage and peak memory for one tomogram of 128 x 256 x 256 voxels, 600 particles, 17 %.

python -m tests.benchmarks.bench_simulate
python -m tests.benchmarks.bench_simulate --shape 64 160 160 --occupancy 0.25
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch

from scripts.simulate.content import fill
from scripts.simulate.microscope import tomogram_of
from scripts.simulate.scene import load_scene

_SIZES = (240, 260, 280, 300, 320, 340)  # Å; together about 17 % at 600 particles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[128, 256, 256])
    parser.add_argument("--occupancy", type=float, default=0.17)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    scene = load_scene(_scene(options.shape, options.occupancy))
    rng = np.random.default_rng(0)
    marks = [("start", time.perf_counter(), time.process_time())]
    stage, drawn = fill(scene, rng)
    marks.append(("content", time.perf_counter(), time.process_time()))
    _, imaging = tomogram_of(stage, scene, rng, torch.device(options.device))
    marks.append(("imaging and reconstruction", time.perf_counter(), time.process_time()))
    for before, after in zip(marks, marks[1:], strict=False):
        print(f"{after[0]:28s} {after[1] - before[1]:7.1f} s elapsed {after[2] - before[2]:7.1f} s of processor")
    print(
        f"particles {len(stage.placed)}, occupancy {drawn['occupancy']:.3f}, no place {sum(drawn['no_place'].values())}"
    )
    print(f"tilts {len(imaging['imaging']['tilts_deg'])}, threads {torch.get_num_threads()}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


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


if __name__ == "__main__":
    main()
