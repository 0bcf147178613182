"""What a few examples teach CenterNet: targets where something is known, and a short training on crops around them."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, RandCropByLabelClassesd
from tqdm.auto import tqdm

from custom_transforms.normalize import normalize_tomogram
from custom_transforms.volumes.rescale import rescale_volume
from scripts.detection.detector import Detector
from scripts.networks import reduced_precision
from scripts.teach.candidates import Candidates
from scripts.tiling.heap import blocks_from_heap, heap_kept
from scripts.training import average_weights

__all__ = ["Lesson", "lesson_of", "painted", "trained"]

STEPS, BATCH, CROP, RATE = 150, 2, 48, 0.001
SHIFT, RIM = 12, 4  # voxels: from a crop's middle to the example at most; the outermost of a crop do not count
WARM_UP = 10  # steps
MOVED = 0.75  # of the way from the general to the trained weights: forgets less (WiSE-FT, Wortsman et al. 2022)
REACH = 0.6  # of the diameter: so far around an example its target counts
EMPTY = 0.3  # of the diameter: so far around what is like no example there is no center
SURE = 0.1  # below it in both maps the general networks are sure that nothing is there
NARROW = 16  # channels; gradients of smaller layers are wrong in bfloat16 with channels last (oneDNN)


@dataclass
class Lesson:
    """A tomogram as the networks see it, the target (-1 where nobody knows), and the voxels that examples are at."""

    image: torch.Tensor
    target: torch.Tensor
    centers_zyx: np.ndarray


def lesson_of(detector: Detector, candidates: Candidates, centers_xyz: np.ndarray, unlike_xyz: np.ndarray) -> Lesson:
    """What the examples of a tomogram, what is like none of them and the general networks say of its voxels."""
    volume, inferer = torch.from_numpy(np.asarray(candidates.image[:], np.float32)), detector.inferer
    own, seen = tuple(volume.shape), inferer.seen_shape(volume.shape, dict(candidates.meta))
    if own != seen:
        volume = torch.from_numpy(normalize_tomogram(rescale_volume(volume, seen).numpy(), "bright"))
    inferer.region = None  # is of the tomogram's own voxels
    with torch.no_grad():
        mask, center = inferer(volume[None, None], detector.network)[0]
    sure = (torch.sigmoid(mask) < SURE) & (center < SURE)
    target = torch.where(sure, 0.0, -1.0).numpy()
    scale, spacing = np.divide(seen, own), np.asarray(candidates.run.voxel_size_zyx) * np.divide(own, seen)
    centers, unlike = (
        (some[:, ::-1] / candidates.run.voxel_size_zyx + 0.5) * scale - 0.5 for some in (centers_xyz, unlike_xyz)
    )
    target = painted(target, centers, unlike, spacing, float(candidates.settings["particle_diameter"]))
    missing = [(0, max(CROP - side, 0)) for side in seen]
    image = np.pad(volume.numpy(), missing, "symmetric")
    target = np.pad(target, missing, constant_values=-1)
    return Lesson(torch.from_numpy(image)[None], torch.from_numpy(target)[None], centers)


def painted(
    target: np.ndarray, centers_zyx: np.ndarray, unlike_zyx: np.ndarray, spacing_zyx: np.ndarray, diameter: float
) -> np.ndarray:
    """The target with a Gaussian of a quarter of the diameter around each center, and nothing else within `REACH`.

    Around what is unlike, within `EMPTY`, it is 0 where no center is near.

    Examples
    --------
    >>> known = np.full((1, 1, 6), -1.0)
    >>> center, unlike = np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 0.0, 4.0]])
    >>> painted(known, center, unlike, np.full(3, 10.0), 40.0).round(2)
    array([[[0.61, 1.  , 0.61, 0.14, 0.  , 0.  ]]])
    """
    value, target = np.zeros_like(target), target.copy()
    for box, squared in _balls(target.shape, unlike_zyx, spacing_zyx, EMPTY * diameter):
        target[box][squared <= (EMPTY * diameter) ** 2] = 0
    for box, squared in _balls(target.shape, centers_zyx, spacing_zyx, REACH * diameter):
        here = np.where(squared <= (REACH * diameter) ** 2, np.exp(-8 * squared / diameter**2), 0)
        np.maximum(value[box], here, out=value[box], casting="same_kind")
    return np.where(value > 0, value, target)


def _balls(
    shape: tuple[int, ...], centers_zyx: np.ndarray, spacing_zyx: np.ndarray, reach: float
) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """The box around each center, and the square of the distance in it, in Å."""
    for center in centers_zyx:
        low = np.maximum(np.ceil(center - reach / spacing_zyx), 0).astype(int)
        high = np.minimum(np.floor(center + reach / spacing_zyx) + 1, shape).astype(int)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        yield box, sum(((a - c) * s) ** 2 for a, c, s in zip(np.ogrid[box], center, spacing_zyx, strict=True))


def trained(detector: Detector, lessons: Sequence[Lesson], minutes: float) -> tuple[torch.nn.Module, int]:
    """CenterNet after training, averaged, `MOVED` of the way to there; and the steps that took.

    Norms are held: few crops say little of them.
    """
    parser = ConfigParser()
    parser.read_config(str(detector.root / "configs" / "train_center.json"))
    loss, steps = parser.get_parsed_content("loss"), parser.get_parsed_content("train#random_transforms")
    change = Compose([step for step in steps if not isinstance(step, RandCropByLabelClassesd)]).set_random_state(0)
    network = copy.deepcopy(detector.network.center_network).eval().requires_grad_()
    kernels = [one for one in network.parameters() if one.ndim == 5]
    narrow = any(1 < len(one) < NARROW for one in kernels)
    form = torch.contiguous_format if narrow else torch.channels_last_3d
    network, device = network.to(memory_format=form), kernels[0].device
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    average, random, number, start = average_weights(network, device), np.random.default_rng(0), 0, time.perf_counter()
    with heap_kept(), blocks_from_heap(), tqdm(total=STEPS, unit="step", desc="move the networks") as bar:
        while (part := max(number / STEPS, (time.perf_counter() - start) / (60 * minutes))) < 1:
            images, targets = _crops(lessons, change, random)
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1, (number + 1) / WARM_UP) * (0.5 + 0.5 * np.cos(np.pi * part))
            with reduced_precision(device):
                found = network(images.to(device).contiguous(memory_format=form))
            value = loss(found.float(), targets.to(device))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(network)
            number += 1
            bar.update()
    with torch.no_grad():
        for value, general in zip(
            average.module.parameters(), detector.network.center_network.parameters(), strict=True
        ):
            value.lerp_(general, 1 - MOVED)
    return average.module, number


def _crops(
    lessons: Sequence[Lesson], change: Compose, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and targets (BATCH, 1, Z, Y, X) around examples, augmented as in configs/train_center.json."""
    owners = np.repeat(np.arange(len(lessons)), [len(one.centers_zyx) for one in lessons])
    centers = np.concatenate([one.centers_zyx for one in lessons])
    crops = []
    for row in random.integers(len(centers), size=BATCH):
        lesson = lessons[owners[row]]
        low = centers[row] + random.uniform(-SHIFT, SHIFT, 3) - CROP // 2
        low = np.clip(low.astype(int), 0, np.array(lesson.image.shape[1:]) - CROP)
        box = (slice(None), *(slice(a, a + CROP) for a in low))
        crops.append(change({"image": lesson.image[box].clone(), "center": lesson.target[box].clone()}))
    images, targets = (torch.stack([torch.as_tensor(one[key]) for one in crops]) for key in ("image", "center"))
    rim = torch.ones_like(targets, dtype=torch.bool)
    rim[..., RIM:-RIM, RIM:-RIM, RIM:-RIM] = False
    return images, targets.masked_fill(rim, -1)
