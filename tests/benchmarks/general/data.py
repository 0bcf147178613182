"""Simulate the tomograms the general detector is trained on, chosen by and tested on.

    python -m tests.benchmarks.general.data --maps DIR --folder DIR train
    python -m tests.benchmarks.general.data --maps DIR --folder DIR test

``--maps`` holds the density maps of PolNet (https://github.com/anmartinezs/polnet, Apache-2.0, 10 Å per voxel) as
``4v4r.mrc`` and so on, those of membrane complexes in its folder ``membrane``. The complexes of the scenes "odd",
"shapes" and "bilayers" lie in its folder ``models``, as ``models/3lue.mrc`` and so on: PDB entries (CC0), blurred to
20 Å, 10 Å per voxel (`scripts.simulate.density.model_density` makes such a map of an entry's file). Finished tomograms
are kept, so an interrupted call goes on. ``train`` joins its scenes in one ``dataset.json`` (two tomograms of each$
scene are for validation); each test scene keeps its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from scripts.simulate.simulate import simulate
from scripts.simulate.write import write_json

SCENES = Path(__file__).parent / "scenes"
TRAIN = {
    "train_middle": 22,
    "train_small": 14,
    "train_clear": 14,
    "train_membranes": 20,
    "train_faint": 20,
    "train_shapes": 20,
    "train_bilayers": 16,
}
VALIDATION = {"validation_shapes": 2, "validation_bilayers": 2}  # families that training lacks
TEST = ("easy", "hard", "faint", "dense", "small", "mixed", "unseen", "membranes", "membranes_unseen", "odd")
TRAIN_SEED, TEST_SEED = 1, 1001
TEST_TOMOGRAMS = 2
PATH_KEYS = ("image", "label", "classes", "particles")


def make_training_set(maps: Path, folder: Path) -> Path:
    """Simulate `TRAIN` and `VALIDATION`, tomograms by scene, and join them; returns the folder of dataset.json."""
    joined: dict = {"name": "general", "voxel_size": 10.0, "training": [], "validation": []}
    for scene, count in (TRAIN | VALIDATION).items():
        simulate(SCENES / f"{scene}.json", folder / scene, count, TRAIN_SEED, maps=maps, validation=2, test=0)
        part = json.loads((folder / scene / "dataset.json").read_text(encoding="utf-8"))
        for section in ("training", "validation"):
            for item in part[section]:
                paths = {key: f"{scene}/{item[key]}" for key in PATH_KEYS if key in item}
                joined[section].append({**item, **paths})
    write_json(folder / "dataset.json", joined)
    return folder


def make_test_sets(maps: Path, folder: Path) -> list[Path]:
    """Simulate `TEST_TOMOGRAMS` of every test scene; returns their folders."""
    made = []
    for scene in TEST:
        source = SCENES / f"test_{scene}.json"
        made.append(folder / f"test_{scene}")
        simulate(source, made[-1], TEST_TOMOGRAMS, TEST_SEED, maps=maps, validation=0, test=0)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("train", "test"))
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    make = make_training_set if given.part == "train" else make_test_sets
    print(make(given.maps, given.folder))
