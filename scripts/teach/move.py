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
from scripts.particles.particle_list import ParticleList
from scripts.records.weights import file_digest, read_record, write_record
from scripts.sources.detections import find_detections
from scripts.teach.alike import alike
from scripts.teach.candidates import Candidates, open_candidates
from scripts.teach.examples import match_examples, named
from scripts.teach.lessons import lesson_of, trained
from scripts.weights.join import compact

__all__ = ["FILE", "move_networks"]

FILE, FOLDER = "moved.pt", "moved"
FEWEST = 8  # examples
HELD_OUT = 4, 3  # one example in so many, and at least so many, decide whether the moved networks are better
STILL = 0.9  # of these, and of what is most like the examples, that the general ones found, the moved have to find


def move_networks(
    candidates: Sequence[Candidates],
    lists: Sequence[ParticleList],
    others: Sequence[ParticleList] | None,
    minutes: float,
    folder: Path,
) -> list[Candidates] | None:
    """Train CenterNet on the examples, detect again, and compare by examples that training did not see.

    It also learns from the candidates that are most and least like the examples, `alike`: without the first it is sure
    of the few it has seen and loses others of the class, without the second it keeps everything else.

    Parameters
    ----------
    candidates : sequence
        What the general networks found, of each tomogram.
    lists : sequence of ParticleList
        Examples of each tomogram, of any class; rows of `OTHER` are counter-examples.
    others : sequence of ParticleList, optional
        More counter-examples.
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
    weights = _networks_of(candidates[0])
    training, held = _held_out(lists)
    more, unlike = alike(candidates, match_examples(candidates, training, others))
    general, lessons = _detector(candidates[0], weights, folder), []
    for one, particles, like, other in zip(candidates, training, more, unlike, strict=True):
        own = particles.centers_xyz_angstrom[named(particles)]
        if len(own):
            lessons.append(lesson_of(_detector(one, weights, folder), one, np.concatenate([own, like]), other))
    network, steps = trained(general, lessons, minutes)
    file = _save(network, general, candidates[0], folder / FILE)
    moved = []
    for one in candidates:
        note(detect_one(_detector(one, file, folder), one.meta["filename_or_obj"]))
        moved.append(open_candidates(find_detections(folder / FOLDER / one.name)[0]))
    asked = [np.concatenate(both) for both in zip(held, more, strict=True)]
    hits, counts = zip(*(_found(some, asked) for some in (candidates, moved)), strict=True)
    better = hits[1] >= max(STILL * hits[0], 1) and counts[1] <= counts[0]
    note(
        f"networks moved in {steps} steps: of {sum(map(len, held))} examples that they did not see and the "
        f"{sum(map(len, more))} candidates most like the others {hits[1]} have a center within half the radius, "
        f"{hits[0]} before; {counts[1]} candidates, {counts[0]} before. "
        + ("The moved networks are used" if better else "Not better: the networks stay as they are")
    )
    if better:
        return moved
    shutil.rmtree(folder / FOLDER)
    file.unlink()
    file.with_suffix(".json").unlink()
    return None


def _held_out(lists: Sequence[ParticleList]) -> tuple[list[ParticleList], list[np.ndarray]]:
    """The lists without the examples that decide, and these: X, Y, Z in Å, of each tomogram."""
    rows = [np.flatnonzero(named(one)) for one in lists]
    owner = np.repeat(np.arange(len(lists)), [len(one) for one in rows])
    if len(owner) < FEWEST:
        raise ValueError(
            f"--minutes: expected at least {FEWEST} examples to move the networks, got {len(owner)}. Give "
            "more, or leave it out."
        )
    order = np.random.default_rng(0).permutation(len(owner))
    out = order[: max(len(order) // HELD_OUT[0], HELD_OUT[1])]
    training, held, every = [], [], np.concatenate(rows)
    for number, one in enumerate(lists):
        aside = np.isin(np.arange(len(one)), every[out[owner[out] == number]])
        training.append(one.select(~aside))
        held.append(one.centers_xyz_angstrom[aside])
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


def _found(candidates: Sequence[Candidates], places: Sequence[np.ndarray]) -> tuple[int, int]:
    """How many of the places (X, Y, Z in Å) have a center within half the radius, and how many candidates there are."""
    hits = 0
    for one, centers in zip(candidates, places, strict=True):
        if len(one.table) and len(centers):
            reach = match_radius(float(one.settings["particle_diameter"]) / 2, one.run.voxel_size_zyx)
            hits += int((cKDTree(one.centers_xyz_angstrom).query(centers)[0] <= reach).sum())
    return hits, sum(len(one.table) for one in candidates)
