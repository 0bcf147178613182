"""How well touching particles are separated: instances against plain connected components of the same maps.

    python -m tests.benchmarks.bench_crowded --weights runs/demo_real/model.pt --config runs/demo_real/thresholds.json

Simulates crowded scenes of virus-like particles that training never saw (another seed, most particles touching),
runs the networks once, and scores both ways to make instances of their maps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import cc3d
import numpy as np

from custom_transforms.io import read_tomogram
from custom_transforms.units import ParticleSizes
from scripts.detection.detect import Detector
from scripts.evaluation.sides import Side
from scripts.simulate.simulate import simulate
from tests.evaluation.in_memory import evaluate_sides

SEED, TOMOGRAMS = 777, 3
ROOT = Path(__file__).parents[2]


def crowded_scene() -> dict:
    """The scene of `make demo-real`, with twice the particles and nine in ten of them touching another."""
    scene = json.loads((ROOT / "configs" / "scene_vlp.json").read_text())
    scene["name"] = "crowded"
    scene["particles"][0]["count"] = [45, 55]
    scene["placement"]["touching_fraction"] = [0.9, 0.9]
    scene["split"] = {"validation": 0.0, "test": 0.0}
    return scene


def main(weights: str, config: str, diameter: float, data: Path, device: str) -> dict[str, dict[str, float]]:
    """Simulate, detect, and score both ways; returns scores by way."""
    simulate(crowded_scene(), data, n=TOMOGRAMS, seed=SEED, validation=0, test=0)
    options = {"weights": weights, "particle_diameter": diameter, "device": device, "overwrite": True}
    detector = Detector({**options, "output_dir": str(data / "detections")}, [config])
    min_size = detector.parser["min_size"]
    ways: dict[str, list] = {"instances": [], "connected components": []}
    for folder in sorted(data.glob("crowded_*")):
        found = detector(folder / "tomogram.mrc")
        voxel_size_zyx = found["image"].meta["voxel_size_zyx"]
        true = Side(read_tomogram(folder / "labels.mrc", check="labels")[0], voxel_size_zyx=voxel_size_zyx)
        ours = np.asarray(found["instances"])[0]
        smallest = ParticleSizes.from_diameter(diameter, min_size=min_size).min_size / voxel_size_zyx.prod()
        mask = np.asarray(found["probability"])[0] > detector.parser["mask_threshold"]
        plain = cc3d.dust(cc3d.connected_components(mask, connectivity=6), threshold=smallest, connectivity=6)
        for way, labels in (("instances", ours), ("connected components", plain)):
            side = Side(labels.astype(np.int32), voxel_size_zyx=voxel_size_zyx)
            ways[way].append((folder.name, side, true))
    return {way: summary(evaluate_sides(pairs, bootstrap=0)["pooled"]) for way, pairs in ways.items()}


def summary(pooled: dict) -> dict[str, float]:
    """The figures of one way: centers within half the radius, and volumes."""
    points, volume = pooled["points"], pooled["volume"]
    return {
        "center F1": points["f1"],
        "center precision": points["precision"],
        "center recall": points["recall"],
        "volume F1": volume["f1"],
        "merged rate": volume["merged_rate"],
        "panoptic quality": volume["panoptic_quality"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--config", required=True, help="thresholds from `python -m scripts calibrate`")
    parser.add_argument("--diameter", type=float, default=940.0)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = main(given.weights, given.config, given.diameter, given.data or Path(temporary), given.device)
    names = list(next(iter(rows.values())))
    print("| " + " | ".join(["", *names]) + " |\n|" + "---|" * (len(names) + 1))
    for way, scores in rows.items():
        print("| " + " | ".join([way, *(f"{scores[name]:.3f}" for name in names)]) + " |")
