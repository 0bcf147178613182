"""What inaccurate labels cost CenterNet, and what wins some of it back.

    python -m tests.benchmarks.general.noisy_labels --folder DIR --steps 360

The training tomograms of ``data.py`` get labels as people draw them: balls, some of them wrong. ``jitter`` moves every
center by up to 3 voxels (uniform in a ball), ``missing`` leaves 20 % of the particles out, ``radii`` scales every
radius by 0.75 to 1.25, ``all`` does the three. Every network is trained alike (`compare`) and scored on the clean
validation tomograms. Remedies, on ``all``: ``robust loss`` is smooth L1; ``recentered`` trains anew on labels that were
moved to the peaks of the first network; ``second round`` also takes its confident peaks without a label for particles.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from custom_transforms.io import read_tomogram, write_instances
from custom_transforms.labelling.refine import refine_seeds
from custom_transforms.labelling.seeds import find_seeds
from custom_transforms.measuring.instance_centers import instance_centers
from scripts.matching.points import match_points
from scripts.particles.particle_list import ParticleList
from scripts.preparation.painting import paint_instances
from scripts.preparation.shapes import Sphere
from scripts.simulate.write import write_json
from tests.benchmarks.general.compare import MIN_DISTANCE, PARTICLE_DIAMETER, maps, network_of, score, train

JITTER, MISSING, RADII = 3.0, 0.2, 0.25
CONFIDENT = 0.7  # of the largest peak height that is common in a map (its 95th percentile over the labels)
KINDS = {
    "all": (JITTER, MISSING, RADII),
    "spheres": (0.0, 0.0, 0.0),
    "missing": (0.0, MISSING, 0.0),
    "jitter": (JITTER, 0.0, 0.0),
    "radii": (0.0, 0.0, RADII),
}
VARIANT, ROBUST = "base", "smooth_l1"  # of `compare`
REMEDIES = {"all, recentered": False, "all, second round": True}  # whether labels are added, too
ROWS = ("exact", *KINDS, *REMEDIES, "all, robust loss")


def spheres(centers_zyx: np.ndarray, radii: np.ndarray, shape: tuple[int, ...], size: np.ndarray) -> np.ndarray:
    """Label a ball for every center (voxels) and radius (Å)."""
    names = [str(i) for i in range(len(radii))]
    particles = ParticleList((centers_zyx * size)[:, ::-1], class_name=names, radius_angstrom=radii)
    return paint_instances(particles, dict(zip(names, map(Sphere, radii), strict=True)), shape, size).labels


def degrade(
    centers_zyx: np.ndarray, radii: np.ndarray, errors: tuple[float, float, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Centers (voxels) and radii (Å) as somebody in a hurry would give them; ``errors``: jitter, missing, radii."""
    jitter, missing, wrong = errors
    kept = rng.random(len(radii)) >= missing
    direction = rng.normal(size=(len(radii), 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    moved = centers_zyx + direction * jitter * np.cbrt(rng.random((len(radii), 1)))
    scaled = radii * rng.uniform(1 - wrong, 1 + wrong, len(radii))
    return moved[kept], scaled[kept]


def corrected(
    centers_zyx: np.ndarray, radii: np.ndarray, center_map: np.ndarray, size: np.ndarray, complete: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Move labels to the peak near them; ``complete`` takes confident peaks without one as of the median radius."""
    peaks, height = find_seeds(center_map, 0.1, MIN_DISTANCE, size)
    found, _ = refine_seeds(center_map, peaks, PARTICLE_DIAMETER / 4, size)
    near = match_points((found * size)[:, ::-1], (centers_zyx * size)[:, ::-1], np.maximum(radii, JITTER * size.max()))
    moved = centers_zyx.copy()
    moved[near.true] = found[near.predicted]
    if not complete:
        return moved, radii
    limit = CONFIDENT * np.percentile(height[near.predicted], 95) if len(near.predicted) else np.inf
    extra = np.setdiff1d(np.flatnonzero(height >= limit), near.predicted)
    return np.concatenate([moved, found[extra]]), np.concatenate([radii, np.full(len(extra), np.median(radii))])


def write_dataset(
    source: Path, target: Path, points: dict[str, tuple[np.ndarray, np.ndarray]], size: np.ndarray
) -> Path:
    """The dataset of ``source`` with balls as labels of training; validation stays as it is."""
    datalist = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    (target / "labels").mkdir(parents=True, exist_ok=True)
    for section in ("training", "validation"):
        for item in datalist[section]:
            name = Path(item["image"]).parent.name
            for key in ("image", "label"):
                item[key] = str((source / item[key]).resolve())
            for key in ("classes", "particles"):
                item.pop(key, None)
            if section == "training":
                shape = read_tomogram(item["label"], check="labels")[0].shape
                item["label"] = str((target / "labels" / f"{name}.mrc").resolve())
                write_instances(item["label"], spheres(*points[name], shape, size), size, overwrite=True)
    write_json(target / "dataset.json", datalist)
    return target


def main(folder: Path, output: Path, steps: int, seed: int, kinds: list[str]) -> None:
    """Train and score what ``output`` lacks; print the table."""
    rows: dict[str, Any] = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    work = output.with_suffix("")
    truth, size = {}, np.full(3, 10.0)
    for item in json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["training"]:
        labels, meta = read_tomogram(folder / item["label"], check="labels")
        size = np.asarray(meta["voxel_size_zyx"], float)
        _, centers, diameters = instance_centers(np.asarray(labels).astype(np.int32), size)
        truth[Path(item["image"]).parent.name] = (centers, diameters / 2)

    def run(kind: str, points: dict | None, variant: str = VARIANT) -> Path:
        """Train on these points (None: the true labels) and score."""
        weights = work / kind.replace(", ", "_") / "run" / "model.pt"
        if kind not in rows:
            data = folder if points is None else write_dataset(folder, weights.parents[1] / "data", points, size)
            train(variant, data.resolve(), weights.parent, steps, seed)
            rows[kind] = score(maps(network_of(variant, weights), folder))
            write_json(output, rows)
            print(kind, json.dumps(rows[kind]), flush=True)
        return weights

    def degraded(kind: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng([seed, *map(ord, kind)])
        return {name: degrade(*one, KINDS[kind], rng) for name, one in truth.items()}

    for kind in kinds:
        if kind == "exact":
            run(kind, None)
        elif kind in KINDS:
            run(kind, degraded(kind))
        elif kind not in REMEDIES:
            run(kind, degraded("all"), ROBUST)
        elif kind not in rows:
            points, complete = degraded("all"), REMEDIES[kind]
            found = maps(network_of(VARIANT, run("all", points)), folder, section="training")
            better = {
                name: corrected(*points[name], one.center_map, one.voxel_size_zyx, complete)
                for (_, one), name in zip(found, truth, strict=True)
            }
            run(kind, better)
    print("| labels | F1 | loss |\n|---|---|---|")
    for kind, row in rows.items():
        lost = f"{rows['exact']['f1'] - row['f1']:.3f}" if "exact" in rows else ""
        print(f"| {kind} | {row['f1']:.3f} | {lost} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/noisy_labels.json"))
    parser.add_argument("--steps", type=int, default=360)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=list(ROWS), choices=ROWS)
    main(**vars(parser.parse_args()))
