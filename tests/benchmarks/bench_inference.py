"""Inference: what it takes beyond the networks' own time, beside MONAI's sliding window.

python -m tests.benchmarks.bench_inference                         # 128 x 256 x 256 on this CPU, about a minute
python -m tests.benchmarks.bench_inference --shape 464,928,928 --device cuda
python -m tests.benchmarks.bench_inference --json results.json
"""

from __future__ import annotations

import argparse
import json
import statistics
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
from scripts.inferer import TomogramInferer, reduced_precision
from scripts.networks import spare_padding
from scripts.plan import make_plan

TILE = (96, 96, 96)
OVERLAP = 0.25
ROOT = Path(__file__).parents[2]


class TimedNetwork(torch.nn.Module):
    """The networks of the config, with a record of every forward pass: wall and processor seconds.

    ``plain``: as MONAI makes them, instead of as the config runs them (channels last, padded only where needed).
    """

    def __init__(self, device: torch.device, plain: bool = False) -> None:
        super().__init__()
        parser = ConfigParser()
        parser.read_config([str(ROOT / "configs" / "inference.json")])
        network = parser.get_parsed_content("network_def").eval().to(device)
        self.network = network if plain else spare_padding(network.to(memory_format=torch.channels_last_3d))
        self.wall: list[float] = []
        self.processor: list[float] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Run and time one batch."""
        _wait(image.device)
        wall, processor = time.perf_counter(), time.process_time()
        result = self.network(image)
        _wait(image.device)
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)
        return result


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bench(shape: tuple[int, int, int], device_name: str = "cpu", monai: bool = True) -> list[dict[str, Any]]:
    """Time one whole inference, from the file to the maps, and MONAI's on the same data.

    Returns rows with seconds and their ratio to the time inside the network ("over_network"), by the wall clock and
    by processor time: the second hardly depends on what else the machine does.
    """
    device = torch.device(device_name)
    networks = {"ours": TimedNetwork(device), "MONAI": TimedNetwork(device)}
    networks["MONAI, plain networks"] = TimedNetwork(device, plain=True)
    options = {"roi_size": TILE, "overlap": OVERLAP, "mode": "gaussian", "sw_device": device, "device": "cpu"}
    rows = []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "tomogram.mrc"
        write_mrc(path, np.random.default_rng(0).normal(size=shape).astype(np.float32), 10.0)
        warm = torch.zeros((1, 1, *TILE), device=device)
        batch = make_plan(shape, networks["ours"].network, tile=TILE, overlap=OVERLAP, device=device).batch

        def ours(network: TimedNetwork) -> Any:
            inferer = TomogramInferer(sw_batch_size=batch, background=(-20, 0), map_dtype="float16", **options)
            return inferer(load(path)["image"][None], network)

        def theirs(network: TimedNetwork) -> Any:
            def run(tiles: torch.Tensor) -> torch.Tensor:
                with reduced_precision(device):
                    return network(tiles).float()

            return sliding_window_inference(
                load(path)["image"][None], sw_batch_size=batch, predictor=run, **options
            )  # fmt: skip

        for name, network in networks.items():
            if name == "ours" or monai:
                with reduced_precision(device):
                    for _ in range(2):
                        network(warm)
                network.wall.clear()
                network.processor.clear()
                wall, processor = time.perf_counter(), time.process_time()
                (ours if name == "ours" else theirs)(network)
                wall, processor = time.perf_counter() - wall, time.process_time() - processor
                rows.append(
                    {
                        "bench": "inference",
                        "path": name,
                        "device": str(device),
                        "shape": list(shape),
                        "tiles": len(network.wall),
                        "total_s": wall,
                        "tile_s": statistics.median(network.wall),
                        "over_network": wall / sum(network.wall),
                        "over_network_processor": processor / sum(network.processor),
                    }
                )
    return rows


def run(full: bool = False) -> list[dict[str, Any]]:
    """The rows for `make bench`; the full size takes a GPU, or a quarter of an hour."""
    shapes = [(128, 256, 256), (464, 928, 928)] if full and torch.cuda.is_available() else [(128, 256, 256)]
    return [row for shape in shapes for row in bench(shape, "cuda" if torch.cuda.is_available() else "cpu")]


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
