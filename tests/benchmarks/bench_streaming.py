"""Larger than memory: time, disk and peak resident memory of a streamed detection, measured from outside the process.

python -m tests.benchmarks.bench_streaming                                   # 64 x 512 x 512
python -m tests.benchmarks.bench_streaming --shape 1024,2048,2048 --memory 7.4 --overlap 0.1 --folder /big/disk

The networks are a stand-in that costs next to nothing (the tomogram is made to look like their output), so the time is
that of everything else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from custom_transforms.mrc_write import _header
from scripts.detect import Detector

VOXEL_SIZE = 10.0
DIAMETER = 160.0
TILE = (96, 96, 96)


class StandIn(torch.nn.Module):
    """Mask logit and center map straight from the grey value."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Take (B, 1, Z, Y, X), give (B, 2, Z, Y, X)."""
        return torch.cat([4 * image - 1.2, 0.25 * image], dim=1)


def write_scene(path: Path, shape: tuple[int, int, int], percolating: bool) -> None:
    """Write a protein-dark tomogram of blobs, a plane at a time: a small scene side by side, many times over."""
    rng = np.random.default_rng(0)
    small = np.zeros((128, 128, 128), np.float32)
    grid = np.stack(np.mgrid[-14:15, -14:15, -14:15], axis=-1)
    blob = np.exp(-(grid**2).sum(axis=-1) / (2 * 4.0**2)).astype(np.float32)
    for corner in rng.integers(0, 128, (400 if percolating else 90, 3)):
        index = np.ix_(*(np.arange(c, c + 29) % 128 for c in corner))
        small[index] = np.maximum(small[index], blob)
    small += rng.normal(0, 0.01, small.shape).astype(np.float32)
    with open(path, "wb") as file:
        volume = np.broadcast_to(np.float32(0), shape)
        file.write(_header(volume, np.dtype(np.float32), VOXEL_SIZE, (0, 0, 0), (0, 0, 0), ()).tobytes())
        repeats = [-(-side // 128) for side in shape[1:]]
        for z in range(shape[0]):
            file.write(-np.tile(small[z % 128], repeats)[: shape[1], : shape[2]])


def child(folder: Path, memory: float | None, stream: bool | None, overlap: float) -> None:
    """Detect, in the process that is measured."""
    parts = [torch.nn.Conv3d(1, 1, 1), torch.nn.Conv3d(1, 1, 1)]
    state = {f"{name}.{key}": value for name, part in zip(("mask_network", "center_network"), parts, strict=True)
             for key, value in part.state_dict().items()}  # fmt: skip
    torch.save(state, folder / "model.pt")
    network = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 1, "kernel_size": 1}
    options = {
        "network_def": {"_target_": "scripts.networks.MaskAndCenterNet", "mask_network": network,
                        "center_network": network},
        "weights": str(folder / "model.pt"), "output_dir": str(folder / "out"), "tile": list(TILE),
        "overlap": overlap, "device": "cpu", "particle_diameter": DIAMETER, "amp": False, "report": False,
        "overwrite": True,
    }  # fmt: skip
    detector = Detector(options, memory=memory, stream=stream)
    detector.network = StandIn()
    plan = detector.plan(folder / "scene.mrc")
    assert plan is not None
    print(plan.text(), f"blocks of {plan.block}", flush=True)
    data = detector(folder / "scene.mrc", plan)
    print(json.dumps({"particles": int((data["particles"]["label"] > 0).sum()), **data["timings"]}), flush=True)


def measure(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run this file as a child; sample its resident memory, and the disk it uses, from here."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.bench_streaming", "--child", *arguments],
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    peak = {"resident": 0, "disk": 0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            try:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                used = sum(one.stat().st_blocks * 512 for one in (folder / "out").rglob("*") if one.is_file())
            except (OSError, IndexError):  # a file or the process went between two looks
                continue
            peak["resident"] = max(peak["resident"], pages * 4096)
            peak["disk"] = max(peak["disk"], used)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line
    code = process.wait()
    done.set()
    thread.join()
    if code:
        raise RuntimeError(f"the measured process ended with {code}")
    timings = {f"{name}_s" if name != "particles" else name: value for name, value in json.loads(last).items()}
    row = {"total_s": time.perf_counter() - start, "peak_gb": peak["resident"] / 1e9, "disk_gb": peak["disk"] / 1e9}
    return {**row, **timings}


def main() -> None:
    """Parse, run, print one line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="64,512,512")
    parser.add_argument("--memory", type=float)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--percolating", action="store_true")
    parser.add_argument("--path", choices=["both", "memory", "streamed"])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.memory, {"memory": False, "streamed": True}[given.path], given.overlap)
        return
    z, y, x = (int(side) for side in given.shape.split(","))
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        write_scene(folder / "scene.mrc", (z, y, x), given.percolating)
        for path in ("memory", "streamed") if (given.path or "both") == "both" else (given.path,):
            arguments = [name, "--path", path, "--overlap", str(given.overlap)]
            arguments += ["--memory", str(given.memory)] if given.memory else []
            row = {"bench": "streaming", "path": path, "shape": [z, y, x], **measure(arguments, folder)}
            print("  ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                            for key, value in row.items()))  # fmt: skip


if __name__ == "__main__":
    main()
