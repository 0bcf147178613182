"""Inference: what it takes beyond the networks' own time, beside MONAI's sliding window.

python -m tests.benchmarks.bench_inference                         # 128 x 256 x 256 on this CPU, about a minute
python -m tests.benchmarks.bench_inference --shape 464,928,928 --device cuda
python -m tests.benchmarks.bench_inference --json results.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.inferers import sliding_window_inference

from custom_transforms.io import LoadTomogramd, write_mrc
from custom_transforms.normalize import NormalizeTomogramd
from scripts.detection.plan import make_plan
from scripts.inferer import TomogramInferer
from scripts.networks import reduced_precision, spare_padding
from scripts.tiling.choice import computed_share

TILE = (96, 96, 96)
OVERLAP = 0.25
ROOT = Path(__file__).parents[2]


class TimedNetwork(torch.nn.Module):
    """The networks of the config, with a record of the forward passes.

    On a CPU the wall and processor seconds of each. On a GPU nothing waits for a pass to end, so that the rest may run
    meanwhile, and `bare` times passes by themselves.

    ``plain``: as MONAI makes them, instead of as the config runs them (channels last, padded only where needed).
    """

    def __init__(self, device: torch.device, plain: bool = False) -> None:
        super().__init__()
        parser = ConfigParser()
        parser.read_config([str(ROOT / "configs" / "inference.json")])
        network = parser.get_parsed_content("network_def").eval().to(device)
        self.network = network if plain else spare_padding(network.to(memory_format=torch.channels_last_3d))
        self.tiles = 0
        self.wall, self.processor = 0.0, 0.0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Run and time one batch."""
        wall, processor = time.perf_counter(), time.process_time()
        result = self.network(image)
        self.tiles += len(image)
        self.wall += time.perf_counter() - wall
        self.processor += time.process_time() - processor
        return result

    def start(self) -> None:
        """Forget what was recorded."""
        self.tiles, self.wall, self.processor = 0, 0.0, 0.0

    def bare(self, batch: int, device: torch.device, passes: int = 20) -> float:
        """Seconds per tile of forward passes by themselves, on tiles that are on the device."""
        tiles = torch.randn((batch, 1, *TILE), device=device)
        with reduced_precision(device):
            self.network(tiles)
            torch.cuda.synchronize(device)
            start = time.perf_counter()
            for _ in range(passes):
                self.network(tiles)
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / passes / batch


def bench(shape: tuple[int, int, int], device_name: str = "cpu", monai: bool = True) -> list[dict[str, Any]]:
    """Time one whole inference, from the file to the maps, and MONAI's on the same data.

    Returns rows with seconds: the whole, reading and normalising alone, the network's own; and the ratio
    "over_network": of the whole to the network's own time on a CPU, of all but reading and normalising on a GPU.
    On a CPU also by processor time, which hardly depends on what else the machine does.
    """
    device = torch.device(device_name)
    on_gpu = device.type == "cuda"
    networks = {"ours": TimedNetwork(device), "MONAI": TimedNetwork(device)}
    networks["MONAI, plain networks"] = TimedNetwork(device, plain=True)
    options = {"roi_size": TILE, "overlap": OVERLAP, "mode": "gaussian", "sw_device": device, "device": "cpu"}
    rows = []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "tomogram.mrc"
        write_mrc(path, np.random.default_rng(0).normal(size=shape).astype(np.float32), 10.0)
        batch = make_plan(shape, networks["ours"].network, tile=TILE, overlap=OVERLAP, device=device).batch
        warm = torch.zeros((batch, 1, *TILE), device=device)

        def ours(image: torch.Tensor, network: TimedNetwork) -> Any:
            return TomogramInferer(sw_batch_size=batch, background=(-20, 0), map_dtype="float16", **options)(
                image, network
            )

        def theirs(image: torch.Tensor, network: TimedNetwork) -> Any:
            def run(tiles: torch.Tensor) -> torch.Tensor:
                with reduced_precision(device):
                    return network(tiles).float()

            return sliding_window_inference(image, sw_batch_size=batch, predictor=run, **options)

        for name, network in networks.items():
            if name == "ours" or monai:
                with reduced_precision(device):
                    for _ in range(2):
                        network(warm)
                network.start()
                wall, processor = time.perf_counter(), time.process_time()
                image = load(path)["image"][None]
                loading = time.perf_counter() - wall
                (ours if name == "ours" else theirs)(image, network)
                wall, processor = time.perf_counter() - wall, time.process_time() - processor
                tiles = network.tiles
                own = tiles * network.bare(batch, device) if on_gpu else network.wall
                row = {
                    "bench": "inference",
                    "path": name,
                    "device": torch.cuda.get_device_name(device) if on_gpu else str(device),
                    "size": " x ".join(map(str, shape)),
                    "tiles": tiles,
                    "total_s": wall,
                    "loading_s": loading,
                    "network_s": own,
                    "over_network": (wall - loading if on_gpu else wall) / own,
                }
                rows.append(row if on_gpu else {**row, "over_network_processor": processor / network.processor})
    return rows


def compare_versions(shape: tuple[int, int, int], device: str = "cpu") -> list[dict[str, Any]]:
    """The networks over one volume as version 0.1 ran them, and as `detect` does now: seconds, voxels computed."""
    network = TimedNetwork(torch.device(device)).network
    plan = make_plan(shape, network, device=device)
    options: dict[str, Any] = {"background": (-20, 0), "map_dtype": "float16", "sw_device": device, "device": "cpu"}
    ways = {
        "0.1: 96^3 tiles, PyTorch": TomogramInferer(TILE, OVERLAP, mode="gaussian", **options),
        "now: chosen tiles, runtime auto": TomogramInferer(
            plan.tile, runtime="auto", sw_batch_size=plan.batch, **options
        ),
    }
    image, rows = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0)), []
    for name, inferer in ways.items():
        start = time.perf_counter()
        with torch.no_grad():
            inferer(image, network)
        row = {"bench": "inference", "path": f"{name} ({inferer.ran})", "device": device,
               "size": " x ".join(map(str, shape)), "total_s": time.perf_counter() - start,
               "voxels_computed": computed_share(shape, inferer.tile or TILE, inferer.overlap)}  # fmt: skip
        rows.append(row)
    rows[1]["ratio_to_0.1"] = rows[1]["total_s"] / rows[0]["total_s"]
    return rows


def run(full: bool = False) -> list[dict[str, Any]]:
    """The rows for `make bench`; the full size takes a GPU, or a quarter of an hour."""
    shapes = [(128, 256, 256), (464, 928, 928)] if full and torch.cuda.is_available() else [(128, 256, 256)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [row for shape in shapes for row in bench(shape, device) + compare_versions(shape, device)]


def load(path: Path) -> dict:
    """Read and normalise, as the config does."""
    return NormalizeTomogramd("image")(LoadTomogramd(["image"])({"image": str(path)}))


def main() -> None:
    """Parse, run, print one line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="128,256,256")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    z, y, x = (int(side) for side in given.shape.split(","))
    rows = bench((z, y, x), given.device)
    for row in rows:
        print("  ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                        for name, value in row.items()))  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
