"""Train StarDist 3D and predict with it; run by the Python of StarDist's own environment, so without this project.

    python stardist3d.py train --datalist volumes.json --minutes 20 --output MODEL
    python stardist3d.py predict --model MODEL --images a.npy b.npy --output FOLDER --prob 0.2

Images are .npy (Z, Y, X), protein bright and z-scored; labels .npy, 0 is background. ``volumes.json`` lists pairs
``{"image": ..., "label": ...}``, relative to its folder, under "training" and "validation". Threads: OMP_NUM_THREADS.
The environment, Python 3.11: ``pip install tensorflow-cpu==2.21.0 stardist==0.9.2 csbdeep==0.8.2 edt==3.1.2``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is imported

import keras
import numpy as np
import tensorflow as tf
from stardist.geometry import polyhedron_to_label
from stardist.models import Config3D, StarDist3D
from stardist.rays3d import Rays_GoldenSpiral

PATCH, BATCH, RAYS = 64, 2, 32
GRID = (2, 2, 2)  # particles are 4 to 25 voxels across; at (1, 1, 1) a step takes several times as long
STEPS_PER_EPOCH = 50  # between looks at the validation tomograms
WARM_UP = 0.05
TILE = 128  # voxels of a prediction's tiles; the first layers hold 32 channels at full size


class Clock(keras.callbacks.Callback):
    """Raise the learning rate for `WARM_UP` of the time, lower it by a cosine of the time that has passed, and stop."""

    def __init__(self, seconds: float, rate: float) -> None:
        super().__init__()
        self.seconds, self.rate, self.steps = seconds, rate, 0
        self.start = time.monotonic()

    def on_train_begin(self, logs: Any = None) -> None:
        self.start = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        part = min((time.monotonic() - self.start) / self.seconds, 1.0)
        share = min(part / WARM_UP, 1.0) * (1 + math.cos(math.pi * part)) / 2
        self.model.optimizer.learning_rate = self.rate * max(share, 0.01)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps += 1
        if time.monotonic() - self.start >= self.seconds:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        took = time.monotonic() - self.start
        losses = ", ".join(f"{k} {logs[k]:.4f}" for k in ("loss", "val_loss", "val_dist_dist_iou_metric") if k in logs)
        print(f"{self.steps} steps, {took:.0f} s, {losses}", flush=True)


def augmenter(seed: int) -> Any:
    """Flips along every axis; another contrast, brightness and a little noise."""
    rng = np.random.default_rng(seed)

    def augment(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flips = tuple(slice(None, None, step) for step in rng.choice((-1, 1), 3))
        noise = rng.uniform(0, 0.2) * rng.standard_normal(image.shape, np.float32)
        changed = image[flips] * rng.uniform(0.8, 1.2) + rng.uniform(-0.2, 0.2) + noise
        return changed.astype(np.float32), labels[flips]

    return augment


def read_pairs(datalist: Path, section: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images and labels of a section; ignored voxels (-1) are background."""
    items = json.loads(datalist.read_text(encoding="utf-8"))[section]
    images = [np.load(datalist.parent / item["image"]).astype(np.float32) for item in items]
    return images, [np.maximum(np.load(datalist.parent / item["label"]), 0) for item in items]


def train(datalist: Path, minutes: float, output: Path, seed: int, rate: float) -> None:
    """Train from scratch; keeps the weights with the lowest loss on the validation patches, as StarDist does."""
    keras.utils.set_random_seed(seed)
    images, labels = read_pairs(datalist, "training")
    validation = read_pairs(datalist, "validation")
    config = Config3D(
        rays=Rays_GoldenSpiral(RAYS),
        grid=GRID,
        unet_batch_norm=True,  # without, 387 steps left the probability the same everywhere
        train_patch_size=(PATCH,) * 3,
        train_batch_size=BATCH,
        train_learning_rate=rate,
        train_reduce_lr=None,  # the clock does
        train_tensorboard=False,
    )
    output = output.absolute()
    model = StarDist3D(config, name=output.name, basedir=str(output.parent))
    model.prepare_for_training()
    clock = Clock(60 * minutes, rate)
    model.callbacks.append(clock)
    model.keras_model.fit = _silent(model.keras_model.fit)
    # far more epochs than there is time for: the clock ends it
    model.train(images, labels, validation, augmenter=augmenter(seed), epochs=100_000, steps_per_epoch=STEPS_PER_EPOCH)
    took = time.monotonic() - clock.start
    print(f"{clock.steps} steps of {BATCH} patches of {PATCH} cubed, {took / clock.steps:.2f} s per step, {took:.0f} s")


def _silent(fit: Any) -> Any:
    """Keras's ``fit`` without its progress bar, which StarDist asks for."""
    return lambda *args, **kwargs: fit(*args, **{**kwargs, "verbose": 0})


def predict(model: Path, images: list[Path], output: Path, prob: float, nms: float) -> None:
    """Write ``output/<image>.npz`` for each image: labels (Z, Y, X), centers (n, 3) and prob; row i is label i + 1."""
    model = model.absolute()
    network = StarDist3D(None, name=model.name, basedir=str(model.parent))
    output.mkdir(parents=True, exist_ok=True)
    for path in images:
        image = np.load(path).astype(np.float32)
        tiles = tuple(math.ceil(n / TILE) for n in image.shape)
        arguments = {"prob_thresh": prob, "nms_thresh": nms, "n_tiles": tiles, "show_tile_progress": False}
        _, found = network.predict_instances(image, return_labels=False, **arguments)
        np.savez(output / f"{path.stem}.npz", **instances(found, image.shape))


def instances(found: dict[str, Any], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Draw the polyhedra, the likeliest on top, and leave out those that others hide.

    `predict_instances` draws them too, but numbers anew those that can be seen, and lists all.
    """
    n = len(found["prob"])
    labels = polyhedron_to_label(found["dist"], found["points"], found["rays"], shape, found["prob"], verbose=False)
    seen = np.bincount(labels.ravel(), minlength=n + 1)[1:] > 0
    new = np.zeros(n + 1, np.int32)
    new[1:][seen] = np.arange(1, seen.sum() + 1)
    centers = np.asarray(found["points"], np.float64).reshape(-1, 3)
    return {"labels": new[labels], "centers": centers[seen], "prob": np.asarray(found["prob"], np.float64)[seen]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("--datalist", type=Path, required=True)
    training.add_argument("--minutes", type=float, required=True)
    training.add_argument("--output", type=Path, required=True)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--rate", type=float, default=1e-3, help="the highest learning rate (StarDist: 3e-4)")
    predicting = commands.add_parser("predict")
    predicting.add_argument("--model", type=Path, required=True)
    predicting.add_argument("--images", type=Path, nargs="+", required=True)
    predicting.add_argument("--output", type=Path, required=True)
    predicting.add_argument("--prob", type=float, default=0.2)
    predicting.add_argument("--nms", type=float, default=0.4)
    given = vars(parser.parse_args())
    threads = int(os.environ.get("OMP_NUM_THREADS", "0"))  # TensorFlow does not look at it; 0: as many as it likes
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    run = {"train": train, "predict": predict}[given.pop("command")]
    run(**given)
