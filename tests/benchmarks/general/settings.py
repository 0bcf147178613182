"""Choose mask_threshold, min_size and center_threshold by the F1 of the centers that detection hands over.

    python -m tests.benchmarks.general.settings --folder DIR --weights runs/model.pt --config runs/thresholds.json

`calibrate` chooses min_size by the overlap of instances, which gives up the smallest complexes for fewer specks. Here
the whole chain runs on the validation tomograms for every setting of a small grid around what ``--config`` holds; of
those within 0.002 of the best F1 of centers (half a particle's radius) the one with the best panoptic quality wins.
Writes ``--output``, the config with what was chosen; the test scenes are not touched.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from custom_transforms.labelling.in_memory import detect_instances
from custom_transforms.units import ParticleSizes, following
from scripts.datalist import load_datalist
from scripts.detection.detector import Detector
from scripts.evaluation.sides import Side
from scripts.simulate.write import write_json
from scripts.weights.calibrate import samples
from scripts.weights.center_thresholds import CalibrationSample
from tests.benchmarks.peers.methods import found_in
from tests.evaluation.in_memory import evaluate_sides

MASK_GRID = (0.2, 0.3, 0.4, 0.5)
SIZE_GRID = (8_000, 16_000, 25_000, 40_000)  # cubic Å
CENTER_STEPS = (-0.06, -0.03, 0.0, 0.03)  # added to the threshold of calibrate
TIE = 0.002


def score(maps: Sequence[CalibrationSample], settings: dict[str, Any]) -> dict[str, float]:
    """Pooled F1 of centers and panoptic quality of the chain with these settings."""
    given = {k: v for k, v in settings.items() if not k.startswith("_") and k != "voxel_size_model"}
    pairs = []
    for number, one in enumerate(maps):
        labels, table = detect_instances(one.probability, one.center_map, one.voxel_size_zyx, **given)
        found = found_in(table, labels).side(one.voxel_size_zyx)
        pairs.append((str(number), found, Side(one.labels, voxel_size_zyx=one.voxel_size_zyx)))
    pooled = evaluate_sides(pairs, bootstrap=0)["pooled"]
    points = {name: pooled["points"][name] for name in ("f1", "precision", "recall")}
    return {**points, "panoptic_quality": pooled["volume"]["panoptic_quality"]}


def main(folder: Path, weights: Path, config: Path, output: Path) -> None:
    """Try the grid, print every row, write the best."""
    base = json.loads(config.read_text(encoding="utf-8"))
    detector = Detector({"weights": str(weights), "progress": False}, [config])
    lengths = {**base, **{name: detector.parser[name] for name in ParticleSizes.SETTINGS}}
    items = load_datalist(folder, "validation")
    maps = list(tqdm(samples(detector, items), desc="validation", unit="tomogram", total=len(items)))
    rows = []
    for mask, size, step in tqdm(list(itertools.product(MASK_GRID, SIZE_GRID, CENTER_STEPS)), desc="settings"):
        values = {"mask_threshold": mask, "min_size": size}
        values["center_threshold"] = round(base["center_threshold"] + step, 4)
        rows.append({**values, **score(maps, {**lengths, **values})})
    best = max(row["f1"] for row in rows)
    chosen = max((row for row in rows if row["f1"] >= best - TIE), key=lambda row: row["panoptic_quality"])
    for row in sorted(rows, key=lambda row: -row["f1"])[:12]:
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    told = f"F1 of the centers handed over {chosen['f1']:.3f}, panoptic quality {chosen['panoptic_quality']:.3f}"
    base |= {name: chosen[name] for name in ("mask_threshold", "min_size", "center_threshold")}
    base["_desc_"] += f" Then, by tests.benchmarks.general.settings on the same tomograms: {told}."
    write_json(output, following(base))
    print(f"{output}: {told}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("folder", "weights", "config", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    main(**vars(parser.parse_args()))
