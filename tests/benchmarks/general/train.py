"""Train the general detector on tomograms that are simulated while it trains: how the shipped weights were made.

    python -m tests.benchmarks.general.train --maps DIR --folder DIR --minutes 9 --device cuda:0 --workers 15

Processes simulate without end: a specimen of one of the scenes, with particles of new sizes and phantoms of new forms,
imaged several times. The networks of configs/train_mask.json and train_center.json see the same crops, with the same
augmentation as there, made on the device in batches. Each gets ``--folder``/NAME/model.pt (averaged weights) and
model.json, every five minutes and at the end; losses go to log.csv. The rate is a cosine over ``--minutes``.
Specimens and the state of training stay in ``--folder``: the same call goes on where an interrupted one stopped. Crops
of several ``--sizes`` teach the networks to see the same in tiles of any size; their norms should be held then
(``--hold_norms``), as those of one large crop say little. On CPUs train each network in a
process of its own, of a thread (``OMP_NUM_THREADS=1``): two cores do half as much again as with both on one network.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import multiprocessing
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch.nn import functional
from tqdm.auto import tqdm

from custom_transforms.files.whole_files import atomic_path
from custom_transforms.normalize import normalize_tomogram
from custom_transforms.targets import CenterTargetd, mask_target
from scripts.networks import load_pretrained
from scripts.simulate.content import fill
from scripts.simulate.microscope import tomogram_of
from scripts.simulate.scene import load_scene
from scripts.simulate.write import write_json
from scripts.training import average_weights
from tests.benchmarks.general.data import SCENES

ROOT = Path(__file__).parents[3]
SHARES = {  # how often a scene is drawn
    "train_middle": 0.22,
    "train_small": 0.13,
    "train_membranes": 0.15,
    "train_shapes": 0.32,
    "train_bilayers": 0.18,
}
SNR = {"train_middle": [0.03, 2.0]}  # the whole range at once
SHAPE, ICE, CLUTTER = [128, 192, 192], [700, 1280], 420
IMAGES = 3  # of every specimen
STORED_CENTERS = 20_000  # voxels of particles that crops are drawn around
BACKGROUND_CROPS = 1 / 3
MASK_EVERY = 2  # steps; the centers decide what is found, and are harder
LOGGED_EVERY = 50  # steps
SAVED_EVERY = 300.0  # seconds
AVERAGED_EVERY, AVERAGE_DECAY = 4, 0.98  # over the last 200 steps or so
FIRST = 15  # specimens before training starts
# the networks by name, and how the center target of each is made
NETWORKS: dict[str, dict[str, float] | None] = {
    "mask": None,
    "center": {"balance_voxels": 2},
    "unbalanced": {},
    "sigma2": {"sigma_max_voxels": 2},
    "sigma3": {"sigma_max_voxels": 3},
}


def varied_scene(name: str, rng: np.random.Generator) -> dict[str, Any]:
    """A scene file with other sizes of its maps, other forms of its phantoms, and some of the classes left out."""
    scene = json.loads((SCENES / f"{name}.json").read_text(encoding="utf-8"))
    scene |= {"shape": SHAPE, "placement": {**scene["placement"], "ice_thickness": ICE}}
    scene["imaging"]["snr"] = SNR.get(name, scene["imaging"]["snr"])
    scene["clutter"][1]["count"] = [0, CLUTTER]
    kept = []
    for entry in scene["particles"]:
        if rng.random() < 0.4:
            continue
        if entry["kind"] == "map" and "map_voxel_size" in entry:
            entry["map_voxel_size"] = round(float(rng.uniform(8, 13)) * 4) / 4
        elif entry["kind"] != "map":
            scale = float(rng.uniform(0.8, 1.2))
            lengths = ("diameter", "radius", "thickness", "height", "distance")
            entry |= {key: entry[key] * scale for key in lengths if key in entry}
            entry["share"] = 1.0
            if entry["kind"] == "complex":
                entry |= {"form": int(rng.integers(2**31)), "lobes": max(2, entry["lobes"] + int(rng.integers(-2, 3)))}
        kept.append(entry)
    return {**scene, "particles": kept or scene["particles"]}


def make_specimens(maps: Path, folder: Path, seed: int, wanted: list[str], numbers: Any, limit: int) -> None:
    """Simulate specimens and write each as .npz, until the process is ended."""
    torch.set_num_threads(1)
    device = torch.device("cpu")
    while True:
        with numbers.get_lock():
            number = numbers.value
            numbers.value += 1
        if number >= limit:
            return
        path = folder / f"{seed}_{number:05d}.npz"
        if path.exists():
            continue
        rng = np.random.default_rng([seed, number])
        names = list(SHARES)
        name = names[int(rng.choice(len(names), p=list(SHARES.values())))]
        scene = load_scene(varied_scene(name, rng), maps)
        stage, _ = fill(scene, rng)
        if not stage.labels.any():
            continue
        images = [normalize_tomogram(tomogram_of(stage, scene, rng, device)[0], "bright") for _ in range(IMAGES)]
        labels = MetaTensor(stage.labels[None], meta={"voxel_size_zyx": np.full(3, scene["voxel_size"])})
        targets = {name: _target(labels, options) for name, options in NETWORKS.items() if name in wanted}
        particles = np.flatnonzero(stage.labels)
        particles = rng.choice(particles, min(len(particles), STORED_CENTERS), replace=False)
        at = np.stack(np.unravel_index(particles, stage.labels.shape), 1).astype(np.int16)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, images=np.stack(images).astype(np.float16), at=at, **targets)


def _target(labels: MetaTensor, options: dict[str, float] | None) -> np.ndarray:
    """Target of one network, (C, Z, Y, X)."""
    if options is None:
        return mask_target(labels.numpy())
    return CenterTargetd("label", "center", dtype="float16", **options)({"label": labels})["center"].numpy()


class Crops:
    """Random augmented crops of the specimens in a folder, which may grow; all on the device.

    Parameters
    ----------
    folder : Path
    device : torch.device
    names : list of str
        Targets.
    seed : int
    """

    def __init__(self, folder: Path, device: torch.device, names: list[str], seed: int) -> None:
        self.folder, self.device, self.names = folder, device, names
        self.rng = np.random.default_rng(seed)
        self.seen: set[Path] = set()
        self.specimens: list[tuple[torch.Tensor, torch.Tensor, np.ndarray]] = []

    def follow(self) -> None:
        """Take up specimens as they are finished, for ever; for a thread of its own."""
        while True:
            for path in sorted(self.folder.glob("[0-9]*.npz")):
                if path not in self.seen:
                    self.seen.add(path)
                    with np.load(path) as data:
                        images = torch.from_numpy(data["images"]).to(self.device)
                        targets = torch.cat([torch.from_numpy(data[name]).half() for name in self.names])
                        self.specimens.append((images, targets.to(self.device), data["at"]))
            time.sleep(0.5)

    def draw(self, batch: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 1, Z, Y, X) and targets (B, C, Z, Y, X), float32; flipped and with changed intensities."""
        images, targets = [], []
        for _ in range(batch):
            image, target, at = self.specimens[int(self.rng.integers(len(self.specimens)))]
            shape = np.array(image.shape[1:])
            low = self.rng.integers(0, shape - size + 1)
            if len(at) and self.rng.random() > BACKGROUND_CROPS:
                center = at[int(self.rng.integers(len(at)))].astype(int)
                low = np.clip(center - size // 2, 0, shape - size)
            box = tuple(slice(int(a), int(a) + size) for a in low)
            axes = [1 + axis for axis in range(3) if self.rng.random() < 0.5]
            images.append(image[int(self.rng.integers(len(image)))][None][(slice(None), *box)].flip(axes))
            targets.append(target[(slice(None), *box)].flip(axes))
        return self._changed(torch.stack(images).float()), torch.stack(targets).float()

    def _changed(self, images: torch.Tensor) -> torch.Tensor:
        """Scale, shift, blur and noise as in configs/train_center.json, drawn for each crop."""
        batch = len(images)

        def drawn(low: float, high: float, probability: float, otherwise: float, *shape: int) -> torch.Tensor:
            values = self.rng.uniform(low, high, (batch, *shape))
            on = self.rng.random((batch, *[1] * len(shape))) < probability
            return torch.from_numpy(np.where(on, values, otherwise)).float().to(self.device)

        images = images * drawn(0.7, 1.3, 0.5, 1.0, 1, 1, 1, 1) + drawn(-0.2, 0.2, 0.5, 0.0, 1, 1, 1, 1)
        sigma = drawn(0.3, 1.0, 0.3, 1e-3, 3)
        steps = torch.arange(-4, 5, device=self.device)
        kernels = torch.exp(-(steps**2) / (2 * sigma[..., None] ** 2))
        kernels = kernels / kernels.sum(-1, keepdim=True)
        joined = images.transpose(0, 1)
        for axis in range(3):
            shape, padding = [batch, 1, 1, 1, 1], [0, 0, 0]
            shape[2 + axis], padding[axis] = 9, 4
            ends = [side for one in reversed(padding) for side in (one, one)]
            padded = functional.pad(joined, ends, mode="replicate")
            joined = functional.conv3d(padded, kernels[:, axis].reshape(shape), groups=batch)
        return joined.transpose(0, 1) + torch.randn_like(images) * drawn(0.0, 0.5, 0.5, 0.0, 1, 1, 1, 1)


class Learner:
    """One network with its loss, optimiser and averaged weights."""

    def __init__(
        self, name: str, device: torch.device, pretrained: Path | None, rate: float, hold_norms: bool = False
    ) -> None:
        part = "mask" if name == "mask" else "center"
        parser = ConfigParser()
        parser.read_config(str(ROOT / "configs" / f"train_{part}.json"))
        network = parser.get_parsed_content("network_def", instantiate=True)
        start = pretrained / name / "model.pt" if pretrained is not None and pretrained.is_dir() else pretrained
        load_pretrained(network, start, f"{part}_network")
        self.name, self.device, self.rate = name, device, rate
        self.network = network.to(device, memory_format=torch.channels_last_3d).train()
        self.loss = parser.get_parsed_content("loss", instantiate=True)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), rate, weight_decay=1e-4, fused=device.type == "cuda"
        )
        self.average = average_weights(self.network, device, AVERAGE_DECAY)
        self.losses: list[torch.Tensor] = []
        if hold_norms:
            for module in self.network.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def step(self, images: torch.Tensor, target: torch.Tensor, factor: float, number: int) -> None:
        """One step at ``factor`` times the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor
        with torch.autocast(self.device.type, torch.bfloat16):
            found = self.network(images)
        loss = self.loss(found.float(), target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.losses.append(loss.detach())
        if number % AVERAGED_EVERY == 0:
            self.average.update_parameters(self.network)

    @property
    def parts(self) -> dict[str, Any]:
        """What an interrupted training needs to go on."""
        return {"network": self.network, "average": self.average, "optimizer": self.optimizer}

    def mean_loss(self) -> float:
        """Of the steps since the last call."""
        mean = float(torch.stack(self.losses).mean()) if self.losses else math.nan
        self.losses = []
        return mean

    def save(self, folder: Path, record: dict[str, Any]) -> None:
        """Write model.pt and model.json."""
        weights = {name: value.cpu().contiguous() for name, value in self.average.module.state_dict().items()}
        (folder / self.name).mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / self.name / "model.pt") as temporary:
            torch.save(weights, temporary)
        write_json(folder / self.name / "model.json", record)


@dataclass
class Progress:
    """How far training is; with the learners' state it lies in ``folder``/state.pt."""

    folder: Path
    learners: list[Learner]
    steps: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def load(self) -> None:
        """Go on where an earlier call stopped, if there was one."""
        path = self.folder / "state.pt"
        if path.exists():
            state = torch.load(path, weights_only=True, map_location=self.learners[0].device)
            for learner in self.learners:
                for name, part in learner.parts.items():
                    part.load_state_dict(state[learner.name][name])
            self.steps, self.seconds, self.rows = state["steps"], state["seconds"], state["rows"]

    def save(self, record: dict[str, Any], seed: int) -> None:
        """Write the weights, what is needed to go on, and the losses."""
        for learner in self.learners:
            options = NETWORKS[learner.name]
            target = {} if options is None else {"center_target": "gaussian", **options}
            learner.save(self.folder, {"seed": seed, "training": {**record, "steps": self.steps, **target}})
        state: dict[str, Any] = {"steps": self.steps, "seconds": self.seconds, "rows": self.rows}
        for learner in self.learners:
            state[learner.name] = {name: part.state_dict() for name, part in learner.parts.items()}
        with atomic_path(self.folder / "state.pt") as temporary:
            torch.save(state, temporary)
        with atomic_path(self.folder / "log.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0] if self.rows else ["step"])
            writer.writeheader()
            writer.writerows(self.rows)


def train_step(learners: list[Learner], crops: Crops, number: int, factor: float, batch: int, size: int) -> None:
    """One step of every network on the same crops; of the mask every `MASK_EVERY` steps, beside others."""
    images, targets = crops.draw(batch, size)
    images = images.contiguous(memory_format=torch.channels_last_3d)
    first = 0
    for learner in learners:
        last = first + 1 + ("balance_voxels" in (NETWORKS[learner.name] or {}))
        if learner.name != "mask" or len(learners) == 1 or number % MASK_EVERY == 0:
            learner.step(images, targets[:, first:last], factor, number)
        first = last


def main(
    maps: Path,
    folder: Path,
    minutes: float,
    networks: list[str],
    device: str,
    workers: int,
    batch: int,
    sizes: list[int],
    rate: float,
    seed: int,
    pretrained: Path | None,
    hold_norms: bool,
    specimens: int,
) -> None:
    """Simulate in the background and train until the time is over."""
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = True
    where = torch.device(device)
    store = folder / "specimens"
    store.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    numbers = context.Value("q", 0)
    given = (maps, store, seed, networks, numbers, specimens)
    processes = [context.Process(target=make_specimens, args=given, daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    learners = [Learner(name, where, pretrained, rate, hold_norms) for name in networks]
    progress = Progress(folder, learners)
    progress.load()
    crops = Crops(store, where, networks, seed + progress.steps)
    threading.Thread(target=crops.follow, daemon=True).start()
    while len(crops.specimens) < min(FIRST, specimens):
        if not any(process.is_alive() for process in processes) and not list(store.glob("[0-9]*.npz")):
            raise RuntimeError(f"{store}: expected specimens of {workers} processes, all ended without one; see above")
        time.sleep(0.2)
    bar = tqdm(total=round(minutes, 2), unit="min", bar_format="{l_bar}{bar}| {n:.2f}/{total:.2f} min {postfix}")

    def save() -> None:
        simulated = {"tomograms": IMAGES * len(crops.specimens), "seed": seed, "scenes": SHARES}
        record = {
            "dataset": {"name": "general, simulated while training", **simulated},
            "voxel_size": 10.0,
            "contrast": "dark",
            "pretrained": None if pretrained is None else pretrained.name,
            "batch_size": batch,
            "patch_size": sizes,
            "learning_rate": rate,
        }
        progress.save(record, seed)

    shares = 1 / np.array(sizes)  # how often a size is drawn
    saved = last = time.perf_counter()
    while progress.seconds < 60 * minutes:
        progress.steps += 1
        cosine = 0.5 * (1 + math.cos(math.pi * progress.seconds / (60 * minutes)))
        factor = min(1.0, progress.steps / 100) * (cosine * 0.99 + 0.01)
        size = int(crops.rng.choice(sizes, p=shares / shares.sum()))
        fitting = max(1, round(batch * (min(sizes) / size) ** 3))
        train_step(learners, crops, progress.steps, factor, fitting, size)
        now = time.perf_counter()
        progress.seconds, last = progress.seconds + now - last, now
        if progress.steps % LOGGED_EVERY == 0:
            losses = {learner.name: round(learner.mean_loss(), 5) for learner in learners}
            gone = round(progress.seconds / 60, 2)
            progress.rows.append({"step": progress.steps, "minutes": gone, "specimens": len(crops.specimens), **losses})
            bar.set_postfix_str(" ".join(f"{key} {value}" for key, value in progress.rows[-1].items()))
            bar.n = gone
            bar.refresh()
        if now - saved > SAVED_EVERY:
            save()
            saved = now
    for process in processes:
        process.terminate()
    save()
    print(f"{progress.steps} steps in {progress.seconds:.0f} s, {len(crops.specimens)} specimens")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path, required=True, help="as for data.py")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0, help="of training, in all calls on this folder")
    parser.add_argument("--networks", nargs="+", default=["mask", "center"], choices=list(NETWORKS))
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=max(1, (multiprocessing.cpu_count() or 2) - 1))
    parser.add_argument("--batch", type=int, default=8, help="crops of the smallest size in a step")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64], help="sides of crops, voxels")
    parser.add_argument("--rate", type=float, default=0.002)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pretrained", type=Path, help="model.pt of both networks, or the folder of an earlier call")
    parser.add_argument("--hold_norms", action="store_true", help="batch norms keep what --pretrained knows")
    parser.add_argument("--specimens", type=int, default=100_000, help="no more than these are made")
    main(**vars(parser.parse_args()))
