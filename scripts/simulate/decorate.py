"""Complexes placed into bilayers, their +z along the normal."""

from __future__ import annotations

from typing import Any

import numpy as np

from scripts.simulate.bodies import draw_body
from scripts.simulate.membranes import Membranes, random_site, rotation_to
from scripts.simulate.phantoms import Body, uniform
from scripts.simulate.placement import Patch, Placed, Stage, render

__all__ = ["decorate"]

_PROBES = 64  # points of a body that are looked at before it is drawn
_SITES = 200  # sites looked at for one complex
_DRAWINGS = 10  # of those that look free, drawn and compared voxel by voxel
_TOLERATED_FAILURES = 8  # complexes of one class in a row that find no site, before the membrane counts as full


def decorate(stage: Stage, membranes: Membranes, scene: dict, rng: np.random.Generator) -> dict[str, Any]:
    """Fill bilayers with the scene's membrane particles, then block the bilayers for everything else.

    A complex may reach through its own bilayer, and meets no other complex and no other bilayer.

    Parameters
    ----------
    stage : Stage
        Changed in place.
    membranes : Membranes
    scene : dict
        From `load_scene`; entries with ``"site": "membrane"`` are drawn by their ``share``, or their ``count``.
    rng : numpy Generator

    Returns
    -------
    dict
        Asked for and placed, by class.
    """
    settings, voxel_size = scene["membranes"], scene["voxel_size"]
    entries = [(n, e) for n, e in enumerate(scene["particles"], start=1) if e["site"] == "membrane"]
    area_um2 = len(membranes.middles_zyx) * (voxel_size * 1e-4) ** 2
    wanted = int(round(uniform(settings["particles_per_um2"], rng) * area_um2)) if entries else 0
    placed: dict[str, int] = {}
    failures: dict[str, int] = {}
    for class_id, entry in _order(entries, wanted, rng):
        if failures.get(entry["name"], 0) >= _TOLERATED_FAILURES:
            continue
        body = draw_body(entry, scene, rng)
        found = _find_site(stage, membranes, body, entry, scene, rng)
        if found is None:
            failures[entry["name"]] = failures.get(entry["name"], 0) + 1
            continue
        failures[entry["name"]] = 0
        patch, start, rotation = found
        patch.density *= uniform(entry["contrast"], rng)
        label = len(stage.placed) + 1
        stage.placed.append(Placed(entry["name"], class_id, label, start + patch.middle, rotation))
        stage.put(patch, start, label)
        placed[entry["name"]] = placed.get(entry["name"], 0) + 1
    stage.block(membranes.sheet > 0)
    return {"area_um2": area_um2, "wanted": wanted, "placed": placed}


def _order(entries: list[tuple[int, dict]], wanted: int, rng: np.random.Generator) -> list[tuple[int, dict]]:
    """The classes in the order of placement: those with a count, then by share, ``wanted`` in all."""
    chosen = []
    for class_id, entry in entries:
        if entry["count"] is not None:
            low, high = entry["count"]
            chosen += [(class_id, entry)] * int(rng.integers(low, high + 1))
    shared = [(n, e) for n, e in entries if e["count"] is None and e["share"] > 0]
    if shared:
        shares = np.array([entry["share"] for _, entry in shared])
        picks = rng.choice(len(shared), size=max(wanted - len(chosen), 0), p=shares / shares.sum())
        chosen += [shared[int(pick)] for pick in np.sort(picks)]  # in the scene's order: list the largest first
    return chosen


def _find_site(stage: Stage, membranes: Membranes, body: Body, entry: dict, scene: dict, rng: np.random.Generator):
    """A patch, its first voxel and its rotation at a free site; None when none is found."""
    probes, drawings = _inner_points(body, rng), 0
    for _ in range(_SITES):
        middle, normal, sheet = random_site(membranes, scene["membranes"]["sides"], rng)
        rotation = rotation_to(normal[::-1], rng.uniform(0, 2 * np.pi))
        reference = middle + normal * uniform(entry["offset"], rng) / scene["voxel_size"]
        if not stage.is_free(reference + rotation.apply(probes)[:, ::-1] / scene["voxel_size"]):
            continue
        drawings += 1
        nearest = np.round(reference).astype(int)
        patch = render(body, rotation, reference - nearest, scene["voxel_size"], entry["label"])
        start = np.round(reference - patch.middle).astype(int)
        if stage.fits(patch, start) and not _meets_another_sheet(patch, start, membranes.sheet, sheet):
            return patch, start, rotation
        if drawings >= _DRAWINGS:
            break
    return None


def _inner_points(body: Body, rng: np.random.Generator) -> np.ndarray:
    """Points inside a body, in its own frame (x, y, z) in Å, at most `_PROBES`."""
    points = rng.uniform(-body.reach, body.reach, (40 * _PROBES, 3))
    return points[body.inside(points) > 0][:_PROBES]


def _meets_another_sheet(patch: Patch, start: np.ndarray, sheets: np.ndarray, own: int) -> bool:
    index = np.argwhere(patch.support) + start
    inside = ((index >= 0) & (index < sheets.shape)).all(1)
    met = sheets[tuple(index[inside].T)]
    return bool(((met != 0) & (met != own)).any())
