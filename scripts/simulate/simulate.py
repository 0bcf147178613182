"""Make labelled tomograms: content, tilt series, noise, weighted back-projection, files."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from custom_transforms.files.json_object import read_object
from custom_transforms.volumes.mrc_write import write_instances, write_mrc
from scripts.cluster.spread import in_order
from scripts.cluster.workers import each
from scripts.simulate.content import fill
from scripts.simulate.microscope import tomogram_of
from scripts.simulate.scene import load_scene
from scripts.simulate.write import particle_table, split_datalist, write_json, write_table

__all__ = ["simulate", "simulate_one"]

MOST = 100_000  # tomograms of one call


def simulate(
    scene: str | Path | dict,
    output_dir: str | Path,
    n: int = 1,
    seed: int = 0,
    device: str = "cpu",
    overwrite: bool = False,
    validation: int | None = None,
    test: int | None = None,
    maps: str | Path | None = None,
    cluster: str | None = None,
) -> Path:
    """Simulate tomograms of a scene and write them as a training set.

    Each tomogram gets a folder ``<output_dir>/<name>_000`` with tomogram.mrc, labels.mrc (0 background, 1..n),
    classes.mrc, particles.csv and scene.json (the scene and all drawn values); ``<output_dir>/dataset.json``
    lists them for training. A finished tomogram is not made again; dataset.json is written last.

    Parameters
    ----------
    scene : str, Path or dict
        Scene file (``configs/scene_vlp.json``), the name of a shipped scene ("vlp"), or its content.
    output_dir : path
        Made when missing.
    n : int
        Tomograms.
    seed : int
        The same seed gives the same bytes; tomogram i does not depend on n.
    device : str
        "cpu" or "cuda"; where projections and reconstruction are computed.
    overwrite : bool
        Make finished tomograms again.
    validation, test : int, optional
        Tomograms for validation and test, instead of the fractions of the scene's ``split``.
    maps : path, optional
        Folder of the scene's density maps and models; without it their paths start at the scene file.
    cluster : str, optional
        Workers to spread the tomograms over; see `scripts.cluster.workers.hire`.

    Returns
    -------
    Path
        The dataset.json.

    Raises
    ------
    FileNotFoundError, ValueError
        See `load_scene`; also if a folder holds tomograms of another scene or seed, or n is not positive.
    """
    if not 1 <= n <= MOST:
        raise ValueError(f"n: expected 1 to {MOST:,} tomograms, got {n:,}.")
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device: expected cpu, cuda, cuda:1 ..., got {device!r}.")
    content, folder = load_scene(scene, maps), Path(output_dir)
    counts = _split_counts(content["split"], n, validation, test)
    split_datalist([{}] * n, *counts)  # an impossible split is refused before any work
    names = [f"{content['name']}_{index:03d}" for index in range(n)]
    todo = [index for index in range(n) if overwrite or not _finished(folder / names[index], content, seed)]
    write = partial(_write_one, folder=folder.absolute(), scene=content, seed=seed, device=device)
    written = in_order(each(write, todo, cluster))
    for _ in tqdm(written, "simulate " + content["name"], len(todo), unit="tomogram", disable=cluster is not None):
        pass
    items = [_item(name, content) for name in names]
    provenance = {"made_by": "python -m scripts simulate", "seed": seed, "scene_sha256": _fingerprint(content)}
    datalist = {"name": content["name"], "voxel_size": content["voxel_size"], **split_datalist(items, *counts)}
    write_json(folder / "dataset.json", {**datalist, "provenance": provenance})
    return folder / "dataset.json"


def simulate_one(scene: dict, seed: int = 0, index: int = 0, device: str = "cpu") -> dict[str, Any]:
    """Simulate one tomogram in memory.

    Parameters
    ----------
    scene : dict
        From `load_scene`.
    seed, index : int
        Together they decide everything that is drawn.
    device : str

    Returns
    -------
    dict
        ``tomogram`` (Z, Y, X) float32, ``labels`` and ``classes`` (Z, Y, X) int32, ``particles`` (DataFrame),
        ``clean`` (the density), ``drawn`` (dict of every drawn value).
    """
    rng = np.random.default_rng([seed, index])
    stage, drawn = fill(scene, rng)
    tomogram, imaging = tomogram_of(stage, scene, rng, torch.device(device))
    class_of = np.zeros(len(stage.placed) + 1, np.int32)
    for particle in stage.placed:
        class_of[particle.label] = particle.class_id
    return {
        "tomogram": tomogram if scene["contrast"] == "bright" else -tomogram,
        "labels": stage.labels,
        "classes": class_of[stage.labels],
        "particles": particle_table(stage.labels, stage.placed, scene["voxel_size"]),
        "clean": stage.density,
        "drawn": {"seed": seed, "index": index, **drawn, **imaging},
    }


def _write_one(index: int, second: bool, *, folder: Path, scene: dict, seed: int, device: str) -> None:
    folder = folder / f"{scene['name']}_{index:03d}"
    made = simulate_one(scene, seed, index, device)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scene.json").unlink(missing_ok=True)  # comes last: where it is, the rest is whole
    voxel_size = scene["voxel_size"]
    write_mrc(folder / "tomogram.mrc", made["tomogram"], voxel_size)
    write_instances(folder / "labels.mrc", made["labels"], voxel_size)
    if scene["output"]["classes"]:
        write_instances(folder / "classes.mrc", made["classes"], voxel_size)
    if scene["output"]["clean"]:
        write_mrc(folder / "clean.mrc", made["clean"], voxel_size)
    write_table(folder / "particles.csv", made["particles"])
    names = {str(number): entry["name"] for number, entry in enumerate(scene["particles"], start=1)}
    record = {"seed": seed, "scene_sha256": _fingerprint(scene), "classes": names, "drawn": made["drawn"]}
    write_json(folder / "scene.json", {**record, "scene": {k: v for k, v in scene.items() if k != "folders"}})


def _finished(folder: Path, scene: dict, seed: int) -> bool:
    """Whether a folder holds this tomogram already; another scene's or seed's is an error."""
    record = folder / "scene.json"
    if not record.is_file():
        return False
    made = read_object(record, "the scene of an earlier run")
    if (made.get("seed"), made.get("scene_sha256")) != (seed, _fingerprint(scene)):
        raise ValueError(
            f"{folder}: expected this scene with seed {seed}, found tomograms of another scene or seed. "
            "Give another --output_dir, or --overwrite to replace them."
        )
    return True


def _fingerprint(scene: dict) -> str:
    content = {key: value for key, value in scene.items() if key not in ("folders", "split")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _item(name: str, scene: dict) -> dict[str, Any]:
    item = {
        "image": f"{name}/tomogram.mrc",
        "label": f"{name}/labels.mrc",
        "contrast": scene["contrast"],
        "particles": f"{name}/particles.csv",
        "voxel_size": scene["voxel_size"],
    }
    return {**item, "classes": f"{name}/classes.mrc"} if scene["output"]["classes"] else item


def _split_counts(split: dict, n: int, validation: int | None, test: int | None) -> tuple[int, int]:
    """Tomograms for validation and test; a fraction above 0 gives at least one where training keeps one."""
    counts = []
    left = n - 1
    for given, fraction in ((validation, split["validation"]), (test, split["test"])):
        count = given if given is not None else min(max(round(fraction * n), int(fraction > 0)), left)
        left -= count
        counts.append(count)
    return counts[0], counts[1]
