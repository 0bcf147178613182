"""Larger than memory: time, disk and peak resident memory of a streamed detection, measured from outside the process.

python -m tests.benchmarks.bench_streaming                                   # 64 x 512 x 512
python -m tests.benchmarks.bench_streaming --shape 1024,2048,2048 --memory 7.4 --overlap 0.1 --folder /big/disk

The networks are a stand-in that costs next to nothing (the tomogram is made to look like their output), so the time is
that of everything else. Resident memory counts every page of the process and its children, pages of mapped files
(the tomogram, the libraries) included; they are also given by themselves, as the system takes them back when it needs
room. ``--saturated`` clips the center map into wide plateaus, as a network that is too sure of itself does. With
``--classes 6`` there are six center maps, of which the first is the highest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from custom_transforms.volumes.mrc_write import new_header
from scripts.detection.detect import Detector

VOXEL_SIZE = 10.0
DIAMETER = 160.0
TILE = (96, 96, 96)


class StandIn(torch.nn.Module):
    """Mask logit and center map straight from the normalised grey value.

    Parameters
    ----------
    peak : float
        Grey value of a particle's center.
    saturated : bool
        Let the center map end in plateaus of 1, a third of the particle wide.
    classes : int
        Center maps.
    """

    def __init__(self, peak: float, saturated: bool, classes: int) -> None:
        super().__init__()
        center = (2.5 if saturated else 0.9) / peak
        self.mask_gain, self.center_gains = 20 / peak, [center, *[center / 3] * (classes - 1)]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Take (B, 1, Z, Y, X), give (B, 1 + classes, Z, Y, X)."""
        return torch.cat([self.mask_gain * image - 5, *(gain * image for gain in self.center_gains)], dim=1)


def small_scene(percolating: bool) -> np.ndarray:
    """Blobs of height 1 in noise, (128, 128, 128), to be laid side by side."""
    rng = np.random.default_rng(0)
    small = np.zeros((128, 128, 128), np.float32)
    grid = np.stack(np.mgrid[-14:15, -14:15, -14:15], axis=-1)
    blob = np.exp(-(grid**2).sum(axis=-1) / (2 * 4.0**2)).astype(np.float32)
    for corner in rng.integers(0, 128, (400 if percolating else 90, 3)):
        index = np.ix_(*(np.arange(c, c + 29) % 128 for c in corner))
        small[index] = np.maximum(small[index], blob)
    return small + rng.normal(0, 0.01, small.shape).astype(np.float32)


def write_scene(path: Path, shape: Sequence[int], percolating: bool) -> None:
    """Write a protein-dark tomogram of blobs, a plane at a time: a small scene side by side, many times over."""
    small = small_scene(percolating)
    with open(path, "wb") as file:
        file.write(new_header(shape, np.dtype(np.float32), VOXEL_SIZE).tobytes())
        repeats = [-(-side // 128) for side in shape[1:]]
        for z in range(shape[0]):
            file.write(-np.tile(small[z % 128], repeats)[: shape[1], : shape[2]])


def child(folder: Path, given: argparse.Namespace) -> None:
    """Detect, in the process that is measured."""
    small = small_scene(given.percolating)
    peak = float((1 - small.mean()) / small.std())
    parts = [torch.nn.Conv3d(1, 1, 1), torch.nn.Conv3d(1, 1, 1)]
    state = {f"{name}.{key}": value for name, part in zip(("mask_network", "center_network"), parts, strict=True)
             for key, value in part.state_dict().items()}  # fmt: skip
    names = [f"class {number}" for number in range(given.classes)] if given.classes > 1 else None
    state["center_network.weight"] = state["center_network.weight"].repeat(given.classes, 1, 1, 1, 1)
    state["center_network.bias"] = state["center_network.bias"].repeat(given.classes)
    torch.save(state, folder / "model.pt")
    network = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 1, "kernel_size": 1}
    options = {
        "network_def": {"_target_": "scripts.networks.MaskAndCenterNet", "mask_network": network,
                        "center_network": {**network, "out_channels": given.classes}},
        "weights": str(folder / "model.pt"), "output_dir": str(folder / "out"), "tile": list(TILE),
        "overlap": given.overlap, "device": "cpu", "particle_diameter": DIAMETER, "amp": False, "report": False,
        "overwrite": True, "classes": names,
    }  # fmt: skip
    detector = Detector(options, memory=given.memory, stream={"memory": False, "streamed": True}[given.path])
    detector.network = StandIn(peak, given.saturated, given.classes)
    plan = detector.plan(folder / "scene.mrc")
    assert plan is not None
    print(plan.text(), f"blocks of {plan.block}", flush=True)
    data = detector(folder / "scene.mrc", plan)
    print(json.dumps({"particles": int((data["particles"]["label"] > 0).sum()), **data["timings"]}), flush=True)


def resident(process: int) -> tuple[int, int]:
    """Bytes of resident memory of a process and its children: all pages, and those of mapped files."""
    folder = Path(f"/proc/{process}")
    fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    total, mapped = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "RssFile"))
    for children in folder.glob("task/*/children"):
        for child in children.read_text().split():
            more = resident(int(child))
            total, mapped = total + more[0], mapped + more[1]
    return total, mapped


def measure(arguments: list[str], folder: Path, samples: Path | None) -> dict[str, Any]:
    """Run this file as a child; sample its resident memory, and the disk it uses, from here."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.bench_streaming", "--child", *arguments],
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    peak = {"resident": 0, "own": 0, "disk": 0}
    done = threading.Event()

    def watch() -> None:
        looks = 0
        with open(samples, "w", buffering=1) if samples else nullcontext() as file:
            while not done.wait(0.2):
                try:
                    total, mapped = resident(process.pid)
                    peak["resident"] = max(peak["resident"], total)
                    peak["own"] = max(peak["own"], total - mapped)
                    if looks % 25 == 0:  # thousands of files: not at every look
                        used = sum(one.stat().st_blocks * 512 for one in (folder / "out").rglob("*") if one.is_file())
                        peak["disk"] = max(peak["disk"], used)
                        if file is not None:
                            seconds = time.perf_counter() - start
                            file.write(f"{seconds:.1f} s, resident {total / 1e9:.3f} GB, of mapped files "
                                       f"{mapped / 1e9:.3f} GB, disk {used / 1e9:.2f} GB\n")  # fmt: skip
                except (OSError, KeyError):  # a file or the process went between two looks
                    continue
                looks += 1

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
    row = {"total_s": time.perf_counter() - start}
    row |= {"peak_gb": peak["resident"] / 1e9, "peak_without_mapped_files_gb": peak["own"] / 1e9}
    return {**row, "disk_gb": peak["disk"] / 1e9, **timings}


def main() -> None:
    """Parse, run, print one line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="64,512,512")
    parser.add_argument("--memory", type=float)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--classes", type=int, default=1)
    parser.add_argument("--percolating", action="store_true")
    parser.add_argument("--saturated", action="store_true")
    parser.add_argument("--samples", type=Path, help="file for what memory and disk were, every five seconds")
    parser.add_argument("--path", choices=["both", "memory", "streamed"])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given)
        return
    shape = tuple(int(side) for side in given.shape.split(","))
    flags = [f"--{flag}" for flag in ("percolating", "saturated") if getattr(given, flag)]
    flags += ["--overlap", str(given.overlap), "--classes", str(given.classes)] + (
        ["--memory", str(given.memory)] if given.memory else []
    )
    paths = ("memory", "streamed") if (given.path or "both") == "both" else (given.path,)
    for row in compare(shape, paths, flags, given.folder, given.samples):
        print("  ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                        for key, value in row.items()))  # fmt: skip


def compare(
    shape: tuple[int, ...], paths: Sequence[str], flags: Sequence[str] = (), folder: Path | None = None,
    samples: Path | None = None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Measure each path on one scene; the second row has its time and memory over those of the first."""
    first: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        write_scene(Path(name) / "scene.mrc", shape, "--percolating" in flags)
        for path in paths:
            size = " x ".join(map(str, shape))
            row = {"bench": "streaming", "path": path, "scene": "stand-in networks", "size": size}
            row |= measure([name, "--path", path, *flags], Path(name), samples)
            if first:
                row["ratio"] = row["total_s"] / first["total_s"]
            first = first or row
            yield row


def run(full: bool = False) -> list[dict[str, Any]]:
    """Both paths on a volume that fits into memory; ``full`` takes one of the size of a lab's tomogram."""
    return list(compare((464, 928, 928) if full else (96, 384, 384), ("memory", "streamed"), ["--overlap", "0"]))


if __name__ == "__main__":
    main()
