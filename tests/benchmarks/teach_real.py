"""`teach` on real data: 3 of the 9 annotated HIV-1 virus-like particles find the other 6 among what is found.

    python -m tests.benchmarks.teach_real

The shipped networks never saw a virus, nor a real tomogram. With ``--voxel_size_model 80`` these particles of about
950 Å look to them like a complex of 120 Å, and they find a center in each, and many elsewhere. Every choice of so many
examples is tried. The annotation is incomplete, so a part of what is not annotated is right.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot
from scipy.spatial import cKDTree

from scripts.demo.demo_real import PARTICLE_DIAMETER, VOXEL_SIZE, annotated_particles, fetch_tomogram
from scripts.detection.detect import detect
from scripts.sources.detections import find_detections
from scripts.teach.candidates import Candidates, open_candidates
from scripts.teach.classes import learn_classes, standardised

HEIGHTS, REACH = (56, 68), 6  # voxels: slices of the picture, and how far from one a center is still shown


def kept_by(candidates: Candidates, chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """How like these examples (rows of the candidates) each candidate is, and whether it is kept."""
    values, mean, scale = standardised(candidates.descriptors)
    known = np.full(len(values), "", dtype=object)
    known[list(chosen)] = "vlp"
    taught = learn_classes(values, known, ["vlp"]).taught(mean, scale, candidates.settings, None)
    score = taught.probabilities(candidates.descriptors)[:, 0]
    return score, score >= taught.classes[0].threshold


def picked(candidates: Candidates, annotated: np.ndarray, count: int) -> list[dict[str, float]]:
    """What each choice of so many examples keeps; ``annotated`` are rows of the candidates."""
    rows, others = [], np.setdiff1d(np.arange(len(candidates.table)), annotated)
    for chosen in combinations(annotated, count):
        score, kept = kept_by(candidates, chosen)
        rest = np.setdiff1d(annotated, chosen)
        order = (score[rest][:, None] > score[others]).mean()
        rows.append({"kept": kept[rest].sum(), "others": kept[others].sum(), "order": order})
    return rows


def draw(candidates: Candidates, chosen: Sequence[int], places: np.ndarray, path: Path) -> None:
    """Two heights: what these examples (rows of the candidates) keep in red, the rest yellow; crosses: annotated."""
    _, kept = kept_by(candidates, chosen)
    figure, axes = pyplot.subplots(1, len(HEIGHTS), figsize=(5 * len(HEIGHTS), 5), layout="constrained")
    centers, marked = candidates.centers_xyz_angstrom / VOXEL_SIZE, places / VOXEL_SIZE
    for axis, z in zip(axes, HEIGHTS, strict=True):
        axis.imshow(np.asarray(candidates.image[z - 1 : z + 2]).mean(axis=0), cmap="gray", vmin=-1.5, vmax=3)
        axis.autoscale(False)
        near = np.abs(centers[:, 2] - z) <= REACH
        for radius, color, rows in ((REACH * 2, "red", near & kept), (2, "yellow", near & ~kept)):
            for x, y in centers[rows, :2]:
                axis.add_patch(pyplot.Circle((x, y), radius, fill=False, color=color))
        axis.plot(*marked[np.abs(marked[:, 2] - z) <= REACH, :2].T, "c+", markersize=10)
        axis.set_axis_off()
    figure.savefig(path, dpi=80)


def main() -> None:
    """Detect, print a row for each number of examples, and draw what one choice of three keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="runs/teach_real", type=Path)
    parser.add_argument("--voxel_size_model", default=80.0, type=float)
    parser.add_argument("--center_threshold", default=0.2, type=float)
    given = parser.parse_args()
    tomogram, points = fetch_tomogram(given.output_dir / "real")
    found = given.output_dir / f"{given.voxel_size_model:g}_{given.center_threshold:g}"
    detect(
        str(tomogram), output_dir=str(found), contrast="bright", voxel_size=VOXEL_SIZE, report=False,
        voxel_size_model=given.voxel_size_model, particle_diameter=PARTICLE_DIAMETER,
        center_threshold=given.center_threshold,
    )  # fmt: skip
    candidates = open_candidates(find_detections(found)[0])
    places = annotated_particles(points)[:, ::-1] * VOXEL_SIZE
    distance, rows = cKDTree(candidates.centers_xyz_angstrom).query(places)
    near = distance <= PARTICLE_DIAMETER / 2
    print(f"{len(candidates.table)} candidates; within the radius of {near.sum()} of {len(near)}: {distance.round()} Å")
    for count in (3, 5):
        results = picked(candidates, np.unique(rows[near]), count)
        kept, others, order = (np.array([row[name] for row in results]) for name in ("kept", "others", "order"))
        every = (kept == near.sum() - count).mean()
        print(
            f"{count} examples, {len(results)} choices: {kept.mean():.2f} of the other {near.sum() - count} kept (all "
            f"in {every:.0%}), {others.mean():.1f} of {len(candidates.table) - near.sum()} not annotated; area under "
            f"the curve {order.mean():.3f}"
        )
    matplotlib.use("Agg")
    picture = given.output_dir / "teach_real.webp"
    draw(candidates, rows[[1, 3, 5]], places, picture)
    print(picture)


if __name__ == "__main__":
    main()
