"""How the F1 of a class that the shipped networks never saw grows with the examples that `teach` gets.

    python -m tests.benchmarks.teach --maps DIR --output_dir runs/teach

Four classes that training never saw stand in one scene, each among the other three: compact (1bxn), elongated (3lue),
ring-shaped (6krk) and in a membrane (5wek), with small proteins as clutter; ``--scene second`` has four others.
Examples are drawn from one tomogram; the class F1, at half the particle's radius, is that on another tomogram, with the
truth's particles that the networks miss counted. *all found* keeps everything that the general networks find, with the
shipped threshold and with that of the candidates; *ceiling* labels every particle of the class. What is finished is not
done again.

With ``--minutes 5`` instead what moving the networks to examples drawn among all true particles brings. With ``--full
500`` what full supervision reaches: every particle of the class in the tomogram of the examples is a center, everything
else is none, and CenterNet learns that from the general network for 500 steps; F1 at its **best** threshold.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch

from custom_transforms.labelling.seeds import find_seeds
from scripts.detection.detector import Detector
from scripts.detection.single import detect_one
from scripts.matching.points import match_points, match_radius
from scripts.simulate.simulate import simulate
from scripts.simulate.write import write_json
from scripts.sources.detections import find_detections
from scripts.teach import lessons
from scripts.teach.candidates import Candidates, open_candidates
from scripts.teach.classes import learn_classes, standardised
from scripts.teach.teach import teach

SCENE = Path(__file__).with_name("general") / "scenes" / "test_membranes_unseen.json"
SHAPE = [96, 192, 192]
CLASSES: dict[str, dict[str, Any]] = {
    "compact": {"path": "1bxn.mrc"},
    "elongated": {"path": "models/3lue.mrc", "smallest_part": 1},
    "ring": {"path": "models/6krk.mrc", "smallest_part": 1},
    "membrane": {"path": "membrane/5wek.mrc", "site": "membrane"},
}
SECOND: dict[str, dict[str, Any]] = {
    "compact": {"path": "6utj.mrc"},
    "elongated": {"path": "3d2f.mrc"},
    "ring": {"path": "models/6scj.mrc", "smallest_part": 1},
    "membrane": {"path": "membrane/5gjv.mrc", "site": "membrane"},
}
SEEDS = {"examples": 5001, "test": 5002}
SECOND_FOLDER = "second"  # in the folder of the first
COUNTS = (3, 5, 20, 50, 200)  # fewer keep all that is found
DRAWS = 3
COLUMNS = ["x_angstrom", "y_angstrom", "z_angstrom"]


def scene(snr: float, classes: Mapping[str, dict[str, Any]]) -> dict:
    """The scene of unseen membrane complexes with four classes in it."""
    content = json.loads(SCENE.read_text(encoding="utf-8"))
    content |= {"name": "teach", "shape": SHAPE}
    content["particles"] = [{"kind": "map", "name": name, "share": 1, **entry} for name, entry in classes.items()]
    content["placement"] = {"occupancy": 0.15, "gap_angstrom": [0, 20], "ice_thickness": [800, 960], "border": "cut"}
    content["membranes"]["sheets"] = [3, 3]
    content["imaging"]["snr"] = snr
    return content


def detected(folder: Path, snr: float, part: str, threshold: float | None, maps: str) -> Candidates:
    """Simulate a tomogram and detect it, unless that is done; ``threshold`` None is the shipped one."""
    simulated, second = folder / f"{snr:g}" / part, folder.name == SECOND_FOLDER
    content, seed = scene(snr, SECOND if second else CLASSES), SEEDS[part] + 1000 * second
    simulate(content, simulated, n=1, seed=seed, validation=0, test=0, maps=maps)
    found = folder / f"{snr:g}" / f"{part}_{'shipped' if threshold is None else f'{threshold:g}'}"
    asked = {} if threshold is None else {"center_threshold": threshold}
    detector = Detector({**asked, "output_dir": str(found), "report": False, "progress": False})
    print(detect_one(detector, str(simulated / "teach_000" / "tomogram.mrc")), file=sys.stderr)
    return open_candidates(find_detections(found)[0])


def truth_of(folder: Path, snr: float, part: str) -> pd.DataFrame:
    """The true particles of a tomogram."""
    table = pd.read_csv(folder / f"{snr:g}" / part / "teach_000" / "particles.csv", keep_default_na=False)
    return table[table["label"] > 0].reset_index(drop=True)


def drawn(truth: pd.DataFrame, name: str, count: int, draw: int) -> pd.DataFrame:
    """So many particles of a class, of those that no face cuts."""
    free = truth[(truth["class"] == name) & ~truth["touches_border"]]
    return free.iloc[np.random.default_rng(draw).choice(len(free), count, replace=False)]


def classes_of(centers_xyz: np.ndarray, truth: pd.DataFrame, voxel_size_zyx: np.ndarray) -> np.ndarray:
    """The true class of each center (Å), "" for none: one-to-one at half the radius."""
    reach = match_radius(truth["diameter_angstrom"].to_numpy(float) / 2, voxel_size_zyx, 0.5)
    found = match_points(centers_xyz, truth[COLUMNS].to_numpy(float), reach)
    names = np.full(len(centers_xyz), "", dtype=object)
    names[found.predicted] = truth["class"].to_numpy()[found.true]
    return names


def f1(kept: np.ndarray, right: np.ndarray, particles: int) -> float:
    """Of the kept candidates; ``particles`` are all there are, also those that were not found."""
    return float(2 * (kept & right).sum() / max(kept.sum() + particles, 1))


def draws(learn: Candidates, labelled: np.ndarray, test: Candidates, right: np.ndarray, name: str, particles: int):
    """Rows of the table for one class: F1 for each number of examples, and with all."""
    values, mean, scale = standardised(learn.descriptors)
    others = np.clip((test.descriptors - mean) / scale, -5, 5)
    free = np.flatnonzero(labelled == name)
    for count in (*COUNTS, len(free)):
        if count > len(free):
            continue
        for draw in range(DRAWS if count < len(free) else 1):
            start = time.perf_counter()
            known = np.full(len(values), "", dtype=object)
            known[np.random.default_rng(draw).choice(free, count, replace=False)] = name
            one = learn_classes(values, known, [name]).classes[0]
            logits = others @ one.weights + one.bias
            kept = 1 / (1 + np.exp(-logits)) >= one.threshold
            yield {
                "examples": "ceiling" if count == len(free) else count, "draw": draw,
                "f1": f1(kept, right == name, particles), "best": best(logits, right == name, particles),
                "kept": int(kept.sum()), "keeps_all": one.threshold == 0,
                "seconds": round(time.perf_counter() - start, 2),
            }  # fmt: skip


def best(logits: np.ndarray, right: np.ndarray, particles: int) -> float:
    """F1 with the threshold that nobody can know."""
    hits = np.cumsum(right[np.argsort(-logits)])
    return float((2 * hits / (particles + np.arange(1, len(hits) + 1))).max())


def moved(folder: Path, snr: float, name: str, count: int, draw: int, minutes: float) -> dict:
    """Teach from examples drawn among the true particles, detect the other tomogram, and score the class there."""
    truths = {part: truth_of(folder, snr, part) for part in SEEDS}
    chosen = drawn(truths["examples"], name, count, draw)[["class", *COLUMNS]]
    place = folder / "moved" / f"{snr:g}_{name}_{count}_{draw}_{minutes:g}"
    if (place / "row.json").is_file():
        return json.loads((place / "row.json").read_text(encoding="utf-8"))
    place.mkdir(parents=True, exist_ok=True)
    chosen.assign(tomogram="teach_000").to_csv(place / "examples.csv", index=False)
    start = time.process_time()
    teach(
        str(folder / f"{snr:g}" / "examples_shipped"), particles=str(place / "examples.csv"),
        output_dir=str(place / "taught"), minutes=minutes, report=False,
    )  # fmt: skip
    seconds = time.process_time() - start
    options = {"teach": str(place / "taught" / "taught.json"), "output_dir": str(place / "test"), "overwrite": True}
    detector = Detector({**options, "report": False, "progress": False})
    detect_one(detector, str(folder / f"{snr:g}" / "test" / "teach_000" / "tomogram.mrc"))
    table = pd.read_csv(f"{find_detections(place / 'test')[0]}_particles.csv", keep_default_na=False)
    table = table[table["dropped_by"].isin(["", "class"])]
    right = classes_of(table[COLUMNS].to_numpy(float), truths["test"], np.full(3, 10.0)) == name
    kept, particles = (table["dropped_by"] == "").to_numpy(), int((truths["test"]["class"] == name).sum())
    row = {
        "snr": snr, "class": name, "examples": count, "draw": draw, "minutes": minutes, "particles": particles,
        "candidates": len(table), "found": int(right.sum()), "kept": int(kept.sum()), "f1": f1(kept, right, particles),
        "cpu_seconds": round(seconds), "moved": (place / "taught" / "moved.pt").is_file(),
    }  # fmt: skip
    write_json(place / "row.json", row)
    return row


def fully_supervised(folder: Path, snr: float, name: str, steps: int) -> dict:
    """Train CenterNet on a tomogram whose particles are all labelled, and score the centers of the other one."""
    learn, test = (open_candidates(find_detections(folder / f"{snr:g}" / f"{part}_shipped")[0]) for part in SEEDS)
    truths = {part: truth_of(folder, snr, part) for part in SEEDS}
    mine = (truths["examples"]["class"] == name).to_numpy()
    places = truths["examples"][COLUMNS].to_numpy(float)
    detector = Detector({**(learn.run.record.inputs.edits or {}), **learn.settings, "output_dir": str(folder)})
    lesson = lessons.lesson_of(detector, learn, places[mine], places[:0])
    lesson.target.clamp_(min=0)  # nothing is left open
    others = np.random.default_rng(0).permutation(places[~mine])[: mine.sum()]  # half of the crops are around these
    lesson.centers_zyx = np.concatenate([lesson.centers_zyx, others[:, ::-1] / learn.run.voxel_size_zyx])
    with mock.patch.multiple(lessons, STEPS=steps, MOVED=1.0):
        network, _ = lessons.trained(detector, [lesson], 1e9)
    detector.network.center_network = network
    image = torch.from_numpy(np.asarray(test.image[:], np.float32))[None, None]
    with torch.no_grad():
        center_map = detector.inferer(image, detector.network)[0, 1].numpy()
    peaks, heights = find_seeds(center_map, 0.05, float(learn.settings["min_distance"]), test.run.voxel_size_zyx)
    centers, voxel_size = (peaks * test.run.voxel_size_zyx)[:, ::-1], test.run.voxel_size_zyx
    right, particles = (
        classes_of(centers, truths["test"], voxel_size) == name,
        int((truths["test"]["class"] == name).sum()),
    )
    return {
        "snr": snr, "class": name, "examples": int(mine.sum()), "steps": steps, "particles": particles,
        "f1_best_threshold": best(heights, right, particles),
    }  # fmt: skip


def measure(folder: Path, snr: float, threshold: float | None, maps: str) -> list[dict]:
    """All classes of one setting."""
    learn, test = (detected(folder, snr, part, threshold, maps) for part in SEEDS)
    truths = {part: truth_of(folder, snr, part) for part in SEEDS}
    labelled, right = (
        classes_of(one.centers_xyz_angstrom, truths[part], one.run.voxel_size_zyx)
        for one, part in zip((learn, test), SEEDS, strict=True)
    )
    rows = []
    for name in CLASSES:
        particles = int((truths["test"]["class"] == name).sum())
        setting = {"snr": snr, "threshold": threshold or "shipped", "class": name, "particles": particles}
        setting["found"] = int((right == name).sum())
        everything = np.ones(len(right), bool)
        rows.append({**setting, "examples": "all found", "draw": 0, "f1": f1(everything, right == name, particles)})
        rows += [{**setting, **row} for row in draws(learn, labelled, test, right, name, particles)]
    return rows


def main() -> None:
    """Measure every setting that is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", required=True, help="folder of density maps")
    parser.add_argument("--output_dir", default="runs/teach", type=Path)
    parser.add_argument("--snr", default=[0.7, 0.25], type=float, nargs="+")
    parser.add_argument("--minutes", type=float, default=0, help="move the networks, too")
    parser.add_argument("--classes", nargs="+", default=list(CLASSES))
    parser.add_argument("--counts", type=int, nargs="+", default=[20, 50], help="examples with --minutes")
    parser.add_argument("--draws", type=int, nargs="+", default=[0], help="of the examples, with --minutes")
    parser.add_argument("--full", type=int, default=0, help="steps of full supervision instead")
    parser.add_argument("--scene", choices=["first", SECOND_FOLDER], default="first")
    given = parser.parse_args()
    if given.scene == SECOND_FOLDER:
        given.output_dir /= SECOND_FOLDER
    if given.minutes or given.full:
        for snr in given.snr:
            for part in SEEDS:
                detected(given.output_dir, snr, part, None, given.maps)
            if given.full:
                for name in given.classes:
                    print(json.dumps(fully_supervised(given.output_dir, snr, name, given.full)), flush=True)
                continue
            for name, count, draw in product(given.classes, given.counts, given.draws):
                for minutes in (0, given.minutes):
                    print(json.dumps(moved(given.output_dir, snr, name, count, draw, minutes)), flush=True)
        return
    rows = []
    for snr in given.snr:
        for threshold in (None, 0.3):
            path = given.output_dir / f"{snr:g}_{threshold or 'shipped'}.json"
            if not path.is_file():
                write_json(path, measure(given.output_dir, snr, threshold, given.maps))
            rows += json.loads(path.read_text(encoding="utf-8"))
    table = pd.DataFrame(rows)
    table.to_csv(given.output_dir / "teach.csv", index=False)
    order = ["all found", *COUNTS, "ceiling"]
    keys = ["snr", "threshold", "class"]
    for value in ("f1", "best"):
        print(value)
        mean = table.pivot_table(value, keys, "examples", "mean").reindex(columns=order)
        spread = table.pivot_table(value, keys, "examples", "std").reindex(columns=order)
        print(mean.round(3).to_string(), "\nstandard deviation\n", spread.round(3).to_string())


if __name__ == "__main__":
    main()
