"""What matters when CenterNet is trained: variants of configs/train_center.json, trained alike, scored on validation.

    python -m tests.benchmarks.general.compare --folder DIR --steps 400 [VARIANT ...]

``--folder`` is that of ``data.py`` with the training set. Every variant sees the same number of crops of the same
tomograms. Its score is the F1 of the centers (within half a particle's radius, at least 2 voxels) over the validation
tomograms, each at the threshold that is best over all of them, which no variant had chosen before; the test scenes are
not touched. Finished variants are kept in ``--output`` and not trained again.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser

from custom_transforms.io import LoadTomogramd
from custom_transforms.normalize import NormalizeTomogramd
from custom_transforms.units import ParticleSizes
from scripts.datalist import load_datalist
from scripts.inferer import TomogramInferer
from scripts.metrics import MaskDice
from scripts.networks import load_weights
from scripts.simulate.write import write_json
from scripts.weights.center_thresholds import CalibrationSample, choose_center_threshold

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs"
COMMON: dict[str, Any] = {"particle_diameter": 100, "center_sigma_max": 2, "patience": 0, "val_interval": 10_000}
COMMON |= {"memory_format": "$torch.channels_last_3d", "network_def#features": [16, 16, 32, 64, 128, 16]}
PARTICLE_DIAMETER, MIN_DISTANCE = 120.0, 40.0  # Å, those of the shipped settings
VOLUME = {"spatial_dims": 3, "in_channels": 1, "out_channels": 1}
STRIDED = {"_target_": "UNet", **VOLUME, "channels": [32, 64, 128, 128], "strides": [2, 2, 2], "norm": "batch"}
STRIDED["num_res_units"] = 2
INTENSITY = ("RandScaleIntensityd", "RandShiftIntensityd", "RandGaussianSmoothd", "RandGaussianNoised")
ZOOM = {"_target_": "RandZoomd", "keys": ["image", "center"], "prob": 0.5, "min_zoom": 0.85, "max_zoom": 1.15}
ZOOM |= {"mode": ["trilinear", "trilinear"], "padding_mode": "reflect"}
CENTER = json.loads((CONFIGS / "train_center.json").read_text(encoding="utf-8"))
TRANSFORMS = CENTER["train"]["random_transforms"]
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "distance": {"center_target": "distance"},
    "sigma3": {"center_sigma_max": 3},
    "sigma1.5": {"center_sigma_max": 1.5},
    "unbalanced": {"center_sigma_max": None},
    "balance2": {"center_sigma_max": None, "center_balance": 2},
    "plain_mse": {"positive_weight": 0.0},
    "weight60": {"positive_weight": 60.0},
    "smooth_l1": {"loss#kind": "smooth_l1"},
    "narrow": {"network_def#features": [8, 16, 32, 64, 128, 8], "memory_format": "$torch.contiguous_format"},
    "shipped_width": {"network_def#features": [16, 32, 64, 128, 128, 16]},
    "instance_norm": {"network_def#norm": ["instance", {"affine": True}]},
    "strided": {"network_def": STRIDED},
    "patch48": {"patch_size": [48, 48, 48], "batch_size": 5},
    "patch80": {"patch_size": [80, 80, 80], "batch_size": 1},
    "no_intensity": {"train#random_transforms": [one for one in TRANSFORMS if one["_target_"] not in INTENSITY]},
    "wedge": {"wedge_probability": 0.3},
    "amplitude": {"amplitude_probability": 0.3},
    "scale": {"train#random_transforms": [*TRANSFORMS[:-1], ZOOM, TRANSFORMS[-1]]},
    "joint": {},
    "mask": {},
}
CONFIGS_OF = {"mask": ["train_mask.json"], "joint": ["train_center.json", "train_joint.json"]}
CENTER_ONLY = ("particle_diameter", "center_sigma_max")


def configs_of(name: str) -> list[str]:
    """The configs of a variant, the later laid over the earlier."""
    return [str(CONFIGS / one) for one in CONFIGS_OF.get(name, ["train_center.json"])]


def train(name: str, folder: Path, output: Path, steps: int, seed: int) -> float:
    """Train one variant in its own process; returns its seconds per step, start and end included."""
    values = {**COMMON, **VARIANTS[name]}
    if name == "mask":
        values = {key: value for key, value in values.items() if key not in CENTER_ONLY}
    if "network_def" in values:  # as a whole
        values.pop("network_def#features")
    items = len(json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["training"])
    values |= {"dataset_dir": str(folder), "output_dir": str(output), "epochs": 1, "seed": seed, "progress": False}
    values["crops_per_tomogram"] = math.ceil(steps * values.get("batch_size", CENTER["batch_size"]) / items)
    values |= {"val_region": [48, 64, 64], "val_tile": [48, 64, 64]}  # of no interest: the last weights are scored
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(configs_of(name))]
    command += ["--bundle_root", str(ROOT)]
    for key, value in values.items():
        command += [f"--{key}", json.dumps(value) if isinstance(value, list | dict) else str(value)]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return (time.perf_counter() - start) / steps


def maps(
    network: torch.nn.Module, folder: Path, tile: int = 96, section: str = "validation"
) -> list[tuple[str, CalibrationSample]]:
    """The maps of every tomogram of a section beside its labels, with the scene's name.

    The first output of the network is taken for the mask's logit, the last for the center map.
    """
    load = [LoadTomogramd(["image"], label_keys=["label"]), NormalizeTomogramd("image")]
    inferer = TomogramInferer([tile] * 3, overlap=0.25)
    samples = []
    for item in load_datalist(folder, section):
        data: Any = {"image": item["image"], "label": item["label"]}
        for one in load:
            data = one(data)
        with torch.inference_mode():
            found = inferer(data["image"][None], network)[0]
        labels = np.asarray(data["label"])[0].astype(np.int32)
        size = np.asarray(data["image"].meta["voxel_size_zyx"], float)
        samples.append(
            (
                Path(item["image"]).parts[-3],
                CalibrationSample(np.asarray(found[0].sigmoid()), np.asarray(found[-1]), labels, size),
            )
        )
    return samples


def score(samples: list[tuple[str, CalibrationSample]]) -> dict[str, Any]:
    """F1 of the centers over all tomograms at the best threshold, and by scene at that threshold and its own best."""
    sizes = ParticleSizes.from_diameter(PARTICLE_DIAMETER, min_distance=MIN_DISTANCE)
    threshold, curve = choose_center_threshold([one for _, one in samples], sizes)
    at = {row["center_threshold"]: row for row in curve}[threshold]
    result: dict[str, Any] = {"f1": at["f_beta"], "precision": at["precision"], "recall": at["recall"]}
    result |= {"threshold": threshold, "scenes": {}, "best": {}}
    for scene in sorted({name for name, _ in samples}):
        _, curve = choose_center_threshold([one for name, one in samples if name == scene], sizes)
        result["scenes"][scene] = {row["center_threshold"]: row["f_beta"] for row in curve}[threshold]
        result["best"][scene] = max(row["f_beta"] for row in curve)
    return result


def mask_dice(samples: list[tuple[str, CalibrationSample]]) -> float:
    """Dice of the mask at a probability of 0.5, pooled over all tomograms."""
    metric = MaskDice(logits=False)
    for _, one in samples:
        metric(*(torch.as_tensor(volume)[None, None] for volume in (one.probability, one.labels)))
    return float(metric.aggregate())


def network_of(name: str, weights: Path) -> torch.nn.Module:
    """The variant's network with trained weights, ready for inference."""
    parser = ConfigParser()
    parser.read_config(configs_of(name))
    for key, value in {**COMMON, **VARIANTS[name]}.items():
        if key.startswith("network_def"):
            parser[key] = value
    network = parser.get_parsed_content("network_def", instantiate=True).to(memory_format=torch.channels_last_3d)
    return load_weights(network, weights).eval()


def main(folder: Path, output: Path, variants: list[str], steps: int, seed: int) -> None:
    """Train and score what ``output`` lacks; print the table."""
    rows = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    for name in variants:
        key = f"{name} {steps} {seed}"
        if key in rows:
            continue
        run = output.with_suffix("") / key.replace(" ", "_")
        seconds = train(name, folder, run, steps, seed)
        samples = maps(network_of(name, run / "model.pt"), folder)
        rows[key] = {"seconds_per_step": seconds, "scenes": {}, **({} if name == "mask" else score(samples))}
        rows[key] |= {"mask_dice": mask_dice(samples)} if name in ("mask", "joint") else {}
        write_json(output, rows)
        print(key, json.dumps(rows[key]), flush=True)
    scenes = sorted({scene for row in rows.values() for scene in row["scenes"]})
    print("| variant, steps, seed | F1 | " + " | ".join(scenes) + " | Dice | s/step |\n|" + "---|" * (len(scenes) + 4))
    for key, row in rows.items():
        numbers = [row.get("f1", math.nan), *(row["scenes"].get(scene, math.nan) for scene in scenes)]
        numbers += [row.get("mask_dice", math.nan), row["seconds_per_step"]]
        print(f"| {key} | " + " | ".join(f"{one:.3f}" for one in numbers) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", default=["base"], choices=list(VARIANTS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/compare.json"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
