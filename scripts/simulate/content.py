"""Fill the volume of one tomogram: particles, clutter, filaments, gold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from scripts.simulate.bodies import draw_body
from scripts.simulate.decorate import decorate
from scripts.simulate.filaments import add_filaments, add_gold
from scripts.simulate.membranes import draw_membranes
from scripts.simulate.phantoms import Body, uniform
from scripts.simulate.placement import Patch, Placed, Stage, render

__all__ = ["fill"]

_ROUNDS = 4  # of placement, until the occupancy is reached
_TOLERATED_FAILURES = 12  # particles of one class in a row that find no place, before the class is given up


@dataclass
class _Candidate:
    entry: dict
    class_id: int  # 0: clutter, not labelled
    body: Body
    rotation: Rotation
    fraction_zyx: np.ndarray
    patch: Patch


def fill(scene: dict, rng: np.random.Generator) -> tuple[Stage, dict[str, Any]]:
    """Draw the content of one tomogram.

    Parameters
    ----------
    scene : dict
        From `load_scene`.
    rng : numpy Generator

    Returns
    -------
    stage : Stage
        Density, labels 1..n and the placed particles.
    drawn : dict
        What was drawn and how it went: counts by class, particles that found no place, occupancy.
    """
    voxel_size = scene["voxel_size"]
    stage = _empty_stage(scene, rng)
    membranes = draw_membranes(scene["shape"], stage.slab, scene["membranes"], voxel_size, rng)
    decorated = decorate(stage, membranes, scene, rng) if membranes is not None else {}
    drawn: dict[str, Any] = {
        "ice_slab_voxels": list(stage.slab),
        "membranes": decorated,
        "filaments": add_filaments(stage, scene["filaments"], voxel_size, rng),
        "gold_beads": add_gold(stage, scene["gold"], voxel_size, rng),
        "touching_fraction": uniform(scene["placement"]["touching_fraction"], rng),
    }
    _fill_free(stage, scene, drawn, rng)
    if membranes is not None:
        stage.density += np.where(stage.labels == 0, membranes.density, 0)  # complexes displace lipid
    _number_in_order(stage)
    drawn["occupancy"] = stage.occupancy()
    return stage, drawn


def _fill_free(stage: Stage, scene: dict, drawn: dict, rng: np.random.Generator) -> None:
    """Place what is not in a membrane; what the border cut off is made up for, until the occupancy is reached."""
    before = np.count_nonzero(stage.labels)
    candidates = _candidates(scene, stage, rng, drawn)
    wanted = drawn.get("occupancy_requested", 0.0) * stage.labels.size
    drawn["placed"], drawn["no_place"] = Counter(), Counter()
    for _ in range(_ROUNDS):
        placed, failed = _place(stage, candidates, drawn["touching_fraction"], scene["placement"], rng)
        drawn["placed"].update(placed)
        drawn["no_place"].update(failed)
        missing = wanted - (np.count_nonzero(stage.labels) - before)
        if failed or missing < 0.02 * wanted or not wanted:
            break
        candidates = sorted(_until_full(scene, missing, [], rng), key=lambda c: -c.patch.size)
    drawn["placed"], drawn["no_place"] = dict(drawn["placed"]), dict(drawn["no_place"])


def _empty_stage(scene: dict, rng: np.random.Generator) -> Stage:
    placement, voxel_size, depth = scene["placement"], scene["voxel_size"], scene["shape"][0]
    thickness = float(depth)
    if placement["ice_thickness"] is not None:
        thickness = min(uniform(placement["ice_thickness"], rng) / voxel_size, depth)
    low = int(round(rng.uniform(0, depth - thickness)))
    high = max(min(int(round(low + thickness)), depth), low + 1)
    gap = int(round(uniform(placement["gap_angstrom"], rng) / voxel_size))
    return Stage(scene["shape"], (low, high), gap, placement["border"] == "inside")


def _candidates(scene: dict, stage: Stage, rng: np.random.Generator, drawn: dict) -> list[_Candidate]:
    """Draw all bodies, the largest first: they pack better, and small ones fill the gaps."""
    found = []
    for number, entry in enumerate(scene["particles"] + scene["clutter"]):
        class_id = number + 1 if number < len(scene["particles"]) else 0
        if entry["count"] is not None and entry["site"] == "free":
            low, high = entry["count"]
            found += [_draw(entry, class_id, scene, rng) for _ in range(int(rng.integers(low, high + 1)))]
    if scene["placement"]["occupancy"] is not None:
        target = uniform(scene["placement"]["occupancy"], rng)
        drawn["occupancy_requested"] = target
        found += _until_full(scene, target * stage.labels.size, found, rng)
    return sorted(found, key=lambda c: -c.patch.size)


def _until_full(scene: dict, voxels: float, found: list[_Candidate], rng: np.random.Generator) -> list[_Candidate]:
    """Particles without a count, by their shares, until their volumes add up."""
    entries = [
        (i + 1, e)
        for i, e in enumerate(scene["particles"])
        if e["count"] is None and e["share"] > 0 and e["site"] == "free"
    ]
    if not entries:
        raise ValueError("placement.occupancy: expected particles without a 'count', got none. Remove one of the two.")
    shares = np.array([entry["share"] for _, entry in entries])
    filled = sum(c.patch.size for c in found if c.class_id)
    more = []
    while filled < voxels:
        class_id, entry = entries[int(rng.choice(len(entries), p=shares / shares.sum()))]
        more.append(_draw(entry, class_id, scene, rng))
        filled += more[-1].patch.size
    return more


def _draw(entry: dict, class_id: int, scene: dict, rng: np.random.Generator) -> _Candidate:
    body = draw_body(entry, scene, rng)
    rotation = Rotation.from_quat(rng.normal(size=4))
    fraction = rng.uniform(-0.5, 0.5, 3)
    patch = render(body, rotation, fraction, scene["voxel_size"], entry["label"])
    patch.density *= uniform(entry["contrast"], rng)
    return _Candidate(entry, class_id, body, rotation, fraction, patch)


def _place(
    stage: Stage, candidates: list[_Candidate], touching: float, placement: dict, rng: np.random.Generator
) -> tuple[dict[str, int], dict[str, int]]:
    placed: dict[str, int] = {}
    failed: dict[str, int] = {}
    in_a_row: dict[str, int] = {}
    for candidate in candidates:
        name, patch = candidate.entry["name"], candidate.patch
        start = None
        if patch.size and in_a_row.get(name, 0) < _TOLERATED_FAILURES:
            if candidate.class_id and rng.random() < touching:
                start = stage.find_contact(patch, rng, attempts=8)
            if start is None:
                start = stage.find_place(patch, rng, placement["attempts"])
        if start is None:
            failed[name] = failed.get(name, 0) + 1
            in_a_row[name] = in_a_row.get(name, 0) + 1
            continue
        in_a_row[name] = 0
        placed[name] = placed.get(name, 0) + 1
        label = 0
        if candidate.class_id:
            label = len(stage.placed) + 1
            reference = np.asarray(start) + patch.middle
            stage.placed.append(Placed(name, candidate.class_id, label, reference, candidate.rotation))
        stage.put(patch, start, label)
    return placed, failed


def _number_in_order(stage: Stage) -> None:
    """Renumber the labels by z, y, x of the reference points; a body without a voxel in the volume goes."""
    present = np.bincount(stage.labels.ravel(), minlength=len(stage.placed) + 1) > 0
    kept = [particle for particle in stage.placed if present[particle.label]]
    kept.sort(key=lambda particle: tuple(particle.reference_zyx_vox))
    table = np.zeros(len(present), np.int32)
    for number, particle in enumerate(kept, start=1):
        table[particle.label] = number
        particle.label = number
    stage.labels = table[stage.labels]
    stage.placed = kept
