"""copick picks (.json): Å from the corner (index times spacing), 4 x 4 transformation; one object and run a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from custom_transforms.files.json_object import read_json
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.declared import Says, usable_pixel
from scripts.particles.shared.format import Format, optional_numbers, write_text
from scripts.particles.shared.json_lists import point_xyz, rotation_from_matrices

__all__ = ["COPICK", "read", "says", "write"]


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read; needs nothing else. Orientations only if the file trusts them and not all are the identity."""
    content = _content(path)
    if content.get("unit", "angstrom") != "angstrom":
        raise ValueError(f"{path}: copick unit {content['unit']!r}: expected 'angstrom'.")
    points = content["points"]
    if not points:
        return ParticleList(np.zeros((0, 3)))
    for number, point in enumerate(points, start=1):
        if not isinstance(point, dict):
            raise ValueError(f"{path}: copick point {number}: expected an object with a location, got {point!r}.")
    centers = np.array([point_xyz(point.get("location"), path, "copick", i) for i, point in enumerate(points, start=1)])
    try:
        transforms = np.array([p.get("transformation_", np.eye(4).tolist()) for p in points], dtype=float).reshape(
            -1, 4, 4
        )
    except (TypeError, ValueError):
        raise ValueError(f"{path}: copick: expected a 4 x 4 transformation_ of numbers for every point.") from None
    rotation = rotation_from_matrices(list(transforms[:, :3, :3]), path, "copick")
    scores = [point.get("score") for point in points]
    scores = ["" if score is None else score for score in scores]
    return ParticleList(
        centers + transforms[:, :3, 3],
        tomogram=str(content.get("run_name") or context.name),
        class_name=str(content.get("pickable_object_name") or ""),
        score=optional_numbers(scores, "score", "copick", path),
        rotation=rotation if content.get("trust_orientation", True) else None,
    )


def says(path: Path, context: TomogramContext) -> Says:
    """The spacing of the tomogram that was picked, and its run."""
    content = _content(path)
    run = str(content.get("run_name") or "")
    return Says(usable_pixel(content.get("voxel_spacing")), "voxel_spacing", tomograms=(run,) if run else ())


def _content(path: Path) -> dict:
    content = read_json(path, "a copick list")
    if not isinstance(content, dict) or not isinstance(content.get("points"), list):
        raise ValueError(f'{path}: copick needs {{"pickable_object_name": ..., "points": [...]}}.')
    return content


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write one object's picks; user, session and run come from ``context.dataset`` (or detection, 0, the tomogram)."""
    classes = sorted(set(map(str, particles.class_name)))
    tomograms = sorted(set(map(str, particles.tomogram)))
    if len(classes) > 1 or len(tomograms) > 1:
        what = "class" if len(classes) > 1 else "tomogram"
        found = ", ".join((classes if len(classes) > 1 else tomograms)[:8])
        raise ValueError(
            f"copick: a file holds one {what}, the list has {found}. Export one at a time with --only_{what}."
        )
    words = context.dataset
    matrices = np.tile(np.eye(4), (len(particles), 1, 1))
    if particles.rotation is not None:
        matrices[:, :3, :3] = particles.rotation.as_matrix()
    points = [
        {
            "location": dict(zip("xyz", map(float, center.round(6)), strict=True)),
            "transformation_": matrix.tolist(),
            "instance_id": index,
            **({"score": float(score)} if np.isfinite(score) else {}),
        }
        for index, (center, matrix, score) in enumerate(
            zip(particles.centers_xyz_angstrom, matrices, np.asarray(particles.score), strict=True), start=1
        )
    ]
    spacing = None if context.voxel_size_zyx is None else float(context.voxel_size_zyx[2])
    content = {
        "pickable_object_name": words.get("object") or (classes[0] if classes and classes[0] else "particle"),
        "user_id": words.get("user", "detection"),
        "session_id": words.get("session", "0"),
        "run_name": words.get("run") or (tomograms[0] if tomograms else "") or context.name or None,
        "voxel_spacing": spacing,
        "unit": "angstrom",
        "points": points,
        "trust_orientation": particles.rotation is not None,
    }
    write_text(path, json.dumps(content) + "\n")


COPICK = Format(
    name="copick",
    description="copick picks: Å from the corner, 4 x 4 matrices",
    suffixes=(".json",),
    keeps=frozenset({"score", "class", "orientation", "subvoxel"}),
    read=read,
    write=write,
    sniff=lambda head: b'"pickable_object_name"' in head or (b'"points"' in head and b'"location"' in head),
    counts="angstrom",
    says=says,
)
