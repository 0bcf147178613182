"""Move CenterNet a little towards a few examples, so that each of their class gets one center, in its middle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from scripts.console import note
from scripts.detection.detector import Detector
from scripts.detection.single import detect_one
from scripts.matching.points import match_radius
from scripts.networks import save_tensors
from scripts.records.weights import file_digest, read_record, write_record
from scripts.sources.detections import find_detections
from scripts.teach.candidates import Candidates, open_candidates
from scripts.teach.lessons import lesson_of, trained
from scripts.weights.join import compact

__all__ = ["FILE", "move_networks"]

FILE, FOLDER = "moved.pt", "moved"
FEWEST = 8  # examples
HELD_OUT = 4, 3  # one example in so many, and at least so many, decide whether the moved networks are better


def move_networks(
    candidates: Sequence[Candidates], examples: Sequence[np.ndarray], minutes: float, folder: Path
) -> list[Candidates] | None:
    """Train CenterNet on the examples, detect again, and compare by examples that training did not see.

    Parameters
    ----------
    candidates : sequence
        What the general networks found, of each tomogram.
    examples : sequence of ndarray, shape (n, 3)
        X, Y, Z in Å, of each tomogram; of any class.
    minutes : float
        Training ends then, or after `STEPS` steps.
    folder : Path
        Gets the joined weights, `FILE`, and a folder of new detections; neither where they are no better.

    Returns
    -------
    list of Candidates or None
        Of the moved networks; None where these are no better.

    Raises
    ------
    FileNotFoundError, ValueError
        If the examples are too few, or the networks are gone or not of one center map.
    """
    training, held = _held_out(examples)
    detectors = [_detector(one, _networks_of(candidates[0]), folder) for one in candidates]
    lessons = [
        lesson_of(detector, one, centers)
        for detector, one, centers in zip(detectors, candidates, training, strict=True)
        if len(centers)
    ]
    network, steps = trained(detectors[0], lessons, minutes)
    file = _save(network, detectors[0], candidates[0], folder / FILE)
    moved = []
    for one in candidates:
        detector = _detector(one, file, folder)
        note(detect_one(detector, one.meta["filename_or_obj"]))
        moved.append(open_candidates(find_detections(folder / FOLDER / one.name)[0]))
    hits, counts = zip(*(_found(some, held) for some in (candidates, moved)), strict=True)
    better = hits[1] > hits[0] and counts[1] <= counts[0]
    note(
        f"networks moved in {steps} steps: of {sum(map(len, held))} examples that they did not see {hits[1]} have a "
        f"center within half the radius, {hits[0]} before; {counts[1]} candidates, {counts[0]} before. "
        + ("The moved networks are used" if better else "Not better: the networks stay as they are")
    )
    if better:
        return moved
    shutil.rmtree(folder / FOLDER)
    file.unlink()
    file.with_suffix(".json").unlink()
    return None


def _held_out(examples: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The examples of each tomogram to train on, and those that decide."""
    owner = np.repeat(np.arange(len(examples)), [len(one) for one in examples])
    if len(owner) < FEWEST:
        raise ValueError(
            f"--minutes: expected at least {FEWEST} examples to move the networks, got {len(owner)}. Give "
            "more, or leave it out."
        )
    centers, order = np.concatenate(examples), np.random.default_rng(0).permutation(len(owner))
    count = max(len(order) // HELD_OUT[0], HELD_OUT[1])
    held, training = (
        [centers[rows[owner[rows] == number]] for number in range(len(examples))]
        for rows in (order[:count], order[count:])
    )
    return training, held


def _networks_of(candidates: Candidates) -> Path:
    """The weights that found the candidates, as the record says."""
    record = candidates.run.record
    file = Path(record.weights or "")
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: expected the networks that found {candidates.name}, they are gone. Put them back, or detect anew."
        )
    if file_digest(file) != record.inputs.weights_sha256:
        raise ValueError(f"{file}: expected the networks that found {candidates.name}, got others. Detect anew.")
    if candidates.settings.get("classes"):
        raise ValueError(f"{candidates.name}: --minutes moves networks of one center map, got several. Leave it out.")
    return file


def _detector(candidates: Candidates, weights: Path, folder: Path) -> Detector:
    """Detect as the candidates were detected, with these weights."""
    asked = {"weights": str(weights), "output_dir": str(folder / FOLDER), "report": False, "overwrite": True}
    return Detector({**(candidates.run.record.inputs.edits or {}), **candidates.settings, **asked})


def _save(network: torch.nn.Module, detector: Detector, candidates: Candidates, file: Path) -> Path:
    """Write both networks as one file that detect takes, and its record, with the settings of the general ones."""
    center = {f"center_network.{name}": value for name, value in network.state_dict().items()}
    state = {name: value.cpu().contiguous() for name, value in (detector.network.state_dict() | center).items()}
    save_tensors(file, compact(state))
    source = Path(str(candidates.run.record.weights))
    record = read_record(source)
    settings: Mapping[str, Any] = {"voxel_size_model": candidates.settings.get("voxel_size_model")}
    write_record(file, record.changed(
        settings={**record.settings.content(), **settings}, thresholds=None, metrics=None,
        training={**record.training.content(), "pretrained": f"{source.name}, moved by teach"},
    ))  # fmt: skip
    return file


def _found(candidates: Sequence[Candidates], held: Sequence[np.ndarray]) -> tuple[int, int]:
    """How many examples have a center within half the radius, and how many candidates there are."""
    hits = 0
    for one, centers in zip(candidates, held, strict=True):
        if len(one.table) and len(centers):
            reach = match_radius(float(one.settings["particle_diameter"]) / 2, one.run.voxel_size_zyx)
            hits += int((cKDTree(one.centers_xyz_angstrom).query(centers)[0] <= reach).sum())
    return hits, sum(len(one.table) for one in candidates)
