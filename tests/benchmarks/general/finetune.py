"""How F1 on a class that training never saw grows with the particles somebody annotates.

    python -m tests.benchmarks.general.finetune --weights models/model.pt --maps DIR --minutes 5

Simulates the scene of unseen classes. One class is annotated, completely, in two balls that hold just so many of its
particles; everything outside is ignored (`prepare --labels --region`). Both networks go on from the given weights for
the given time on three quarters of them, those of the first ball. `calibrate` chooses thresholds on the others, in
another tomogram, which training does not see: on its own particles a network is too sure of itself. Both detect in
tomograms of another seed; *shipped thresholds* is the class F1 with those of the configs. Two scores: *class F1*
counts detections of the other classes as false, *F1, others ignored* does not count them.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from custom_transforms.io import read_tomogram, write_instances, write_mrc
from scripts.detection.detector import Detector
from scripts.evaluation.pair import Rules
from scripts.evaluation.sides import Side
from scripts.particles.particle_list import ParticleList
from scripts.simulate.simulate import simulate
from scripts.simulate.write import write_json
from scripts.weights.join import join
from tests.evaluation.in_memory import evaluate_sides

ROOT = Path(__file__).parents[3]
SCENE = Path(__file__).with_name("scenes") / "test_unseen.json"
COUNTS = (0, 5, 20, 50, 200)
TRAIN_SEED, TEST_SEED = 4001, 4002
LEARNING_RATE = 0.0005  # a quarter of training's: the networks know particles, and shall learn one more
BATCH = 2
PROBES = (4, 16)  # steps
NETWORKS = ("mask", "center")
HELD_OUT = 4  # one particle in so many chooses thresholds


def simulate_scene(given: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Simulate tomograms to annotate and tomograms to test on; returns their folders."""
    scene = json.loads(Path(given.scene).read_text(encoding="utf-8"))
    if given.shape:
        scene["shape"] = given.shape
    if given.alone:
        scene["particles"] = [entry for entry in scene["particles"] if entry["name"] == given.name]
    folders = []
    for part, count, seed in (("annotated", given.tomograms, TRAIN_SEED), ("test", given.test, TEST_SEED)):
        target = given.output_dir / part
        simulate(scene, target, n=count, seed=seed, validation=0, test=0, maps=given.maps)
        folders.append([target / f"{scene['name']}_{index:03d}" for index in range(count)])
    return folders[0], folders[1]


def class_labels(folder: Path, name: str, others: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (Z, Y, X) of one class as 1..n and Å per voxel; particles of the other classes become ``others``."""
    labels, meta = read_tomogram(folder / "labels.mrc", check="labels")
    table = pd.read_csv(folder / "particles.csv", keep_default_na=False)
    wanted = sorted(table.loc[(table["class"] == name) & (table["label"] > 0), "label"])
    if not wanted and name not in set(table["class"]):
        raise ValueError(
            f"{folder}: no particle of class {name!r}; classes are {', '.join(sorted(set(table['class'])))}."
        )
    numbers = np.full(int(np.max(labels)) + 1, others, np.int32)
    numbers[0] = 0
    numbers[wanted] = np.arange(1, len(wanted) + 1)
    return numbers[np.asarray(labels).astype(np.int32)], meta["voxel_size_zyx"]


def annotated_ball(centers_zyx: np.ndarray, count: int, shape: Sequence[int], seed: int) -> np.ndarray:
    """A ball around a random particle that holds it and its nearest: ``count`` centers in all; a bool volume."""
    if count >= len(centers_zyx):
        return np.ones(shape, bool)
    middle = centers_zyx[np.random.default_rng(seed).integers(len(centers_zyx))]
    distances = np.sort(np.linalg.norm(centers_zyx - middle, axis=1))
    reach = (distances[count - 1] + distances[count]) / 2
    grid = np.ogrid[tuple(slice(0, side) for side in shape)]
    return sum((axis - center) ** 2 for axis, center in zip(grid, middle, strict=True)) <= reach**2


def annotate(folders: Sequence[Path], name: str, count: int, seed: int, output: Path) -> int:
    """Write the dataset in which ``count`` particles of a class are annotated; returns how many there are."""
    for part in ("tomograms", "labels", "regions"):
        (output / part).mkdir(parents=True, exist_ok=True)
    left, names = count, []
    for folder in folders:
        if left <= 0:
            break
        labels, voxel_size_zyx = class_labels(folder, name, others=0)
        present = np.unique(labels[labels > 0])
        if not len(present):
            continue
        table = pd.read_csv(folder / "particles.csv", keep_default_na=False)
        centers = (
            table.loc[(table["class"] == name) & (table["label"] > 0)]
            .sort_values("label")[["z_vox", "y_vox", "x_vox"]]
            .to_numpy(float)
        )
        region = annotated_ball(centers, left, labels.shape, seed)
        names.append(folder.name)
        link = output / "tomograms" / f"{folder.name}.mrc"
        link.unlink(missing_ok=True)
        link.symlink_to((folder / "tomogram.mrc").resolve())
        write_instances(output / "labels" / link.name, labels, voxel_size_zyx)
        write_mrc(output / "regions" / link.name, region.astype(np.int8), voxel_size_zyx, dtype=np.int8)
        left -= len(centers) if region.all() else left
    command = [sys.executable, "-m", "scripts", "prepare", *(str(output / "tomograms" / f"{one}.mrc") for one in names)]
    command += ["--labels", str(output / "labels" / "{name}.mrc"), "--region", str(output / "regions" / "{name}.mrc")]
    command += ["--validation_fraction", "0", "--output_dir", str(output / "dataset"), "--overwrite", "--quiet"]
    subprocess.run(command, cwd=ROOT, check=True)
    prepared = json.loads((output / "dataset" / "prepare.json").read_text(encoding="utf-8"))
    return sum(one["particles"] for one in prepared["tomograms"].values())


def train(network: str, dataset: Path, folder: Path, given: argparse.Namespace) -> Path:
    """Go on from the weights for the given minutes; two probes tell how many steps fit. Returns the new weights."""
    few, more = (_run(network, dataset, folder / "probe", given, steps) for steps in PROBES)
    per_step = max((more - few) / (PROBES[1] - PROBES[0]), 1e-3)
    left = 60 * given.minutes / len(NETWORKS) - (few - PROBES[0] * per_step)
    _run(network, dataset, folder / network, given, max(int(left / per_step), PROBES[0]))
    return folder / network / "model.pt"


def _run(network: str, dataset: Path, folder: Path, given: argparse.Namespace, steps: int) -> float:
    """Train one epoch of so many steps; returns the seconds it took, start and end included."""
    items = len(json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))["training"])
    values = {
        "dataset_dir": dataset,
        "output_dir": folder,
        "pretrained": Path(given.weights).resolve(),
        "epochs": 1,
        "crops_per_tomogram": math.ceil(steps * BATCH / items),
        "batch_size": BATCH,
        "learning_rate": LEARNING_RATE,
        "val_region": "[48,64,64]",  # nothing is chosen by validation: the last weights are taken
        "val_tile": "[48,64,64]",
        "patience": 0,
        "seed": given.seed,
        "progress": False,
        **({"device": given.device} if given.device else {}),
        **({"particle_diameter": given.particle_diameter} if network == "center" and given.particle_diameter else {}),
        **dict(one.split("=", 1) for one in given.set),
    }
    command = [sys.executable, "-m", "monai.bundle", "run", "training"]
    command += ["--config_file", str(ROOT / "configs" / f"train_{network}.json"), "--bundle_root", str(ROOT)]
    for key, value in values.items():
        command += [f"--{key}", str(value)]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return time.perf_counter() - start


def calibrate(weights: Path, dataset: Path, given: argparse.Namespace, output: Path) -> Path:
    """Choose thresholds on annotated particles, as a user would; returns the file."""
    command = [sys.executable, "-m", "scripts", "calibrate", str(dataset), "--weights", str(weights), "--quiet"]
    command += ["--output", str(output), "--section", "training"]  # all there is
    command += ["--particle_diameter", str(given.particle_diameter)] if given.particle_diameter else []
    command += ["--device", given.device] if given.device else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return output


def score(
    weights: Path, tests: Sequence[Path], given: argparse.Namespace, output: Path, thresholds: Path | None = None
) -> dict[str, float]:
    """Detect in the test tomograms; returns both F1, precision, recall and average precision of the class."""
    options: dict[str, Any] = {"weights": str(weights), "output_dir": str(output), "overwrite": True, "report": False}
    options |= {"device": given.device} if given.device else {}
    options |= {"particle_diameter": given.particle_diameter} if given.particle_diameter else {}
    overlays = [one for one in (given.config, thresholds) if one]
    detector = Detector({**options, "progress": False}, overlays)
    pairs: dict[str, list] = {"class": [], "ignored": []}
    for folder in tests:
        found = detector(folder / "tomogram.mrc")
        voxel_size_zyx = found["image"].meta["voxel_size_zyx"]
        kept = found["particles"][found["particles"]["label"] > 0]
        centers = kept[["x_vox", "y_vox", "z_vox"]].to_numpy(float) * voxel_size_zyx[::-1]
        for way, others in (("class", 0), ("ignored", -1)):
            truth = Side(class_labels(folder, given.name, others)[0], voxel_size_zyx=voxel_size_zyx)
            labels = np.asarray(found["instances"])[0].astype(np.int32)
            particles = ParticleList(centers, score=kept["score"].to_numpy(float))
            predicted = Side(labels, particles, voxel_size_zyx)
            pairs[way].append((folder.name, predicted, truth))
    results = {way: evaluate_sides(one, Rules(), bootstrap=0)["pooled"]["points"] for way, one in pairs.items()}
    of_class = results["class"]
    return {
        "class F1": of_class["f1"],
        "class precision": of_class["precision"],
        "class recall": of_class["recall"],
        "class AP": of_class.get("average_precision", math.nan),
        "F1, others ignored": results["ignored"]["f1"],
    }


def run(given: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each count: annotate, train, score."""
    annotated, tests = simulate_scene(given)
    rows: list[dict[str, Any]] = []
    for count in given.counts:
        folder = given.output_dir / f"{given.name}_{count}"
        weights, there, thresholds = Path(given.weights).resolve(), 0, None
        start = time.perf_counter()
        if count:
            held = math.ceil(count / HELD_OUT)
            there = annotate(annotated[:-1], given.name, count - held, given.seed, folder / "training")
            there += annotate(annotated[-1:], given.name, held, given.seed, folder / "held")
            parts = [train(network, folder / "training" / "dataset", folder, given) for network in NETWORKS]
            weights = folder / "model.pt"
            join(str(parts[0]), str(parts[1]), str(weights), voxel_size=given.voxel_size)
            thresholds = calibrate(weights, folder / "held" / "dataset", given, folder / "thresholds.json")
        minutes = (time.perf_counter() - start) / 60
        shipped = score(weights, tests, given, folder / "detections")
        chosen = shipped if thresholds is None else score(weights, tests, given, folder / "detections", thresholds)
        rows.append({"annotated": there, **chosen, "shipped thresholds": shipped["class F1"], "minutes": minutes})
        print(rows[-1], file=sys.stderr, flush=True)
        write_json(given.output_dir / "finetune.json", {"options": _plain(vars(given)), "rows": rows})
    return rows


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--weights", default=str(ROOT / "models" / "model.pt"), help="weights of both networks to start from")
    add("--maps", type=Path, required=True, help="folder of the density maps that the scene names")
    add("--minutes", type=float, default=5.0, help="training time of a run, both networks together")
    add("--counts", type=int, nargs="+", default=list(COUNTS), help="particles annotated; 0 is no fine-tuning")
    add("--class", dest="name", default="3d2f", help="the annotated class")
    add("--alone", action="store_true", help="simulate the class alone, without the scene's others")
    add("--scene", type=Path, default=SCENE)
    add("--tomograms", type=int, default=4, help="tomograms that can be annotated")
    add("--test", type=int, default=1, help="tomograms to test on")
    add("--shape", type=int, nargs=3, default=None, help="Z Y X of the tomograms, instead of the scene's")
    add("--particle_diameter", type=float, default=None, help="Å; the configs' by default")
    add("--voxel_size", type=float, default=None, help="Å; the record's of the weights by default")
    add("--config", default=None, help="settings of detection, laid over configs/inference.json")
    add("--set", nargs="*", default=[], metavar="ID=VALUE", help="other ids of the training configs")
    add("--device", default=None)
    add("--seed", type=int, default=0)
    add("--output_dir", type=Path, default=Path("runs/finetune"))
    given = parser.parse_args(arguments)
    given.output_dir = given.output_dir.resolve()
    if given.tomograms < 2:
        parser.error(f"--tomograms: expected at least 2, one of them for thresholds, got {given.tomograms}")
    return given


if __name__ == "__main__":
    options = _options()
    rows = run(options)
    names = list(rows[0])
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(str(row[n]) if isinstance(row[n], int) else f"{row[n]:.3f}" for n in names) + " |")
