"""Train DeepFinder on a data set with classes and pick with it; run by the Python of its own environment.

    python train_deepfinder.py --data DIR --minutes 50 --output FOLDER

``--data`` is a folder as `simulate` writes it: the tomograms and class volumes of its "training" section train, those
of "validation" and "test" are picked. ``FOLDER/SECTION/TOMOGRAM.csv`` lists centers (Å), class, and as score the size
of the cluster, by which DeepFinder's manual drops false ones. Patches, rates, loss and mean shift are DeepFinder's own;
only a batch of 25 patches, of which two cores do one a minute, can be made smaller (``--batch``), so that there are
steps enough to learn anything. ``--minutes`` counts from the first step.
The environment, Python 3.11: ``pip install cryoet-deepfinder==0.2.1 tensorflow-cpu==2.13.1``.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import mrcfile
import numpy as np
import tensorflow as tf
from deepfinder.inference import Cluster, Segment
from deepfinder.training import Train
from deepfinder.utils import smap

PATCH = 56  # of training; as DeepFinder's examples have it
TILE = 144  # of prediction; its 192 does not fit into a tomogram of 96 voxels and the 25 that it pads on each side
STEPS_PER_EPOCH = 100


class TimeUp(Exception):
    """The minutes are over."""


class Clock:
    """Ends training after some seconds; DeepFinder calls `display` after every step."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.start, self.steps = seconds, 0.0, 0

    def display(self, message: str) -> None:
        if " - it " not in message:
            return
        self.steps += 1
        self.start = self.start or time.monotonic()
        if time.monotonic() - self.start >= self.seconds:
            raise TimeUp


def read(path: Path) -> np.ndarray:
    """The volume (Z, Y, X) of an MRC file."""
    with mrcfile.open(path) as file:
        return np.array(file.data)


def particles(data: Path, item: dict) -> list[dict[str, str]]:
    """The rows of a tomogram's true particles that are seen in it."""
    with (data / item["particles"]).open() as file:
        return [row for row in csv.DictReader(file) if int(row["label"]) > 0]


def train(items: list[dict], data: Path, classes: list[str], minutes: float, batch: int, output: Path) -> None:
    """Train from scratch and write ``output/weights.h5``."""
    trainer = Train(Ncl=len(classes) + 1, dim_in=PATCH)
    trainer.path_out = f"{output}/"
    trainer.batch_size, trainer.epochs, trainer.steps_per_epoch = batch, 100_000, STEPS_PER_EPOCH
    trainer.steps_per_valid = 1
    trainer.flag_direct_read, trainer.flag_batch_bootstrap = 0, True
    objects = []
    for number, item in enumerate(items):
        for row in particles(data, item):
            place = {axis: round(float(row[f"{axis}_vox"])) for axis in "xyz"}
            objects.append({"tomo_idx": number, "label": classes.index(row["class"]) + 1, **place})
    clock = Clock(60 * minutes)
    trainer.set_observer(clock)
    images, targets = ([str(data / item[key]) for item in items] for key in ("image", "classes"))
    try:
        trainer.launch(images, targets, objects, objects)
    except TimeUp:
        trainer.net.save(f"{output}/weights.h5")
    took = time.monotonic() - clock.start
    print(f"{clock.steps} steps of {batch} patches of {PATCH} cubed, {took / clock.steps:.2f} s per step, {took:.0f} s")


def pick(image: np.ndarray, voxel_size: float, segment: Segment, classes: list[str], radii: dict[str, int]) -> list:
    """Rows x, y, z (Å), class and score. Mean shift runs class by class, each with the mean radius of its particles."""
    labels = smap.to_labelmap(segment.launch(image))
    rows = []
    for number, name in enumerate(classes, 1):
        mask = (labels == number).astype(np.int8)
        for found in Cluster(radii[name]).launch(mask) if mask.any() else []:
            place = [float(found[axis]) * voxel_size for axis in "xyz"]
            rows.append([*place, name, found["cluster_size"]])
    return rows


def main(data: Path, minutes: float, batch: int, output: Path, threads: int, seed: int) -> None:
    """Train if there are no weights yet; pick what is not picked yet."""
    tf.keras.utils.set_random_seed(seed)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    listed = json.loads((data / "dataset.json").read_text())
    training = listed["training"]
    scene = json.loads((data / training[0]["image"]).with_name("scene.json").read_text())
    classes = list(scene["classes"].values())  # by number, from 1
    if not (output / "weights.h5").exists():
        train(training, data, classes, minutes, batch, output)
    diameters: dict[str, list[float]] = {name: [] for name in classes}
    for item in training:
        for row in particles(data, item):
            diameters[row["class"]].append(float(row["diameter_angstrom"]))
    voxel_size = listed["voxel_size"]
    radii = {name: max(1, round(float(np.median(of)) / 2 / voxel_size)) for name, of in diameters.items()}
    segment = Segment(Ncl=len(classes) + 1, path_weights=str(output / "weights.h5"), patch_size=TILE)
    for section in ("validation", "test"):
        (output / section).mkdir(exist_ok=True)
        for item in listed[section]:
            path = output / section / f"{Path(item['image']).parent.name}.csv"
            if path.exists():
                continue
            rows = pick(read(data / item["image"]), voxel_size, segment, classes, radii)
            with path.with_suffix(".part").open("w", newline="") as file:
                csv.writer(file).writerows([["x_angstrom", "y_angstrom", "z_angstrom", "class", "score"], *rows])
            path.with_suffix(".part").replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
