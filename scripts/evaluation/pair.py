"""Compare the two sides of one tomogram."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from warnings import catch_warnings, simplefilter

import numpy as np

from scripts.evaluation.sides import Points, Side, points_of, true_radii
from scripts.evaluation.verdicts import POINT_RULES, PointVerdicts, judge_points
from scripts.matching.centers import filled_centers
from scripts.matching.overlap import LabelStatistics, OverlapTable, overlap_table
from scripts.matching.points import match_radius
from scripts.matching.volumes import RULES, VolumeMatches, judge_volumes
from scripts.particles.shared.context import ParticleListWarning
from scripts.particles.shared.plausible import check_positions

__all__ = ["PairResult", "Rules", "compare_sides"]


@dataclass(frozen=True)
class Rules:
    """How predictions are judged; see `scripts.evaluation.evaluate.evaluate`."""

    rule: str = "main"
    point_rule: str = "distance"
    border: str = "count"
    match_fraction: float = 0.5
    min_voxels: float = 2.0
    particle_diameter: float | Mapping[str, float] | None = None
    beta: float = 4.0

    def __post_init__(self) -> None:
        choices = {"rule": RULES, "point_rule": POINT_RULES, "border": ("count", "ignore")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("match_fraction", "beta"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}: expected a number above 0, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class PairResult:
    """Everything known about one tomogram.

    ``class_points`` are the verdicts when only centers of one class may match (None unless both sides have classes).
    ``table`` and ``volumes`` are None unless both sides are label volumes; ``volume_class_true`` and ``..._predicted``
    are the classes of the rows of the table's particles.
    """

    name: str
    predicted: Points
    true: Points
    points: PointVerdicts
    class_points: PointVerdicts | None
    table: OverlapTable | None
    volumes: VolumeMatches | None
    volume_class_true: np.ndarray
    volume_class_predicted: np.ndarray
    voxel_size_zyx: np.ndarray | None
    warnings: list[str] = field(default_factory=list)


def compare_sides(name: str, predicted: Side, true: Side, rules: Rules) -> PairResult:
    """Compare predicted with true particles of one tomogram.

    Volumes are compared where both sides have one, centers always. The inputs stay as they are.
    """
    warnings = [*predicted.warnings, *true.warnings]
    size = _common_voxel_size(name, predicted, true)
    if size is None and (predicted.volume is not None or true.volume is not None):
        size = np.ones(3)
        warnings.append(f"{name}: the voxel size is unknown, so every Å means a voxel; give --voxel_size")
    warnings += _strange_places(name, predicted, true, size)
    table = volumes = None
    if predicted.volume is not None and true.volume is not None:
        table = overlap_table(true.volume, predicted.volume)
        volumes = judge_volumes(table, rules.rule, rules.border)
    true_particles = None if table is None else table.true_particles
    predicted_particles = None if table is None else table.predicted_particles
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(points_of, predicted, size, _border(predicted_particles))
        true_points = points_of(true, size, _border(true_particles))
        predicted_points = waiting.result()
    reach = _reach(true, true_points, size, rules)
    judge = partial(
        judge_points, predicted_points, true_points, reach, true.volume, size, rules.point_rule, border=rules.border
    )
    classed = any(predicted_points.class_name) and any(true_points.class_name)
    return PairResult(
        name,
        predicted_points,
        true_points,
        judge(),
        judge(by_class=True) if classed else None,
        table,
        volumes,
        _classes(true_points, true_particles),
        _classes(predicted_points, predicted_particles),
        size,
        warnings,
    )


def _common_voxel_size(name: str, predicted: Side, true: Side) -> np.ndarray | None:
    first, second = predicted.voxel_size_zyx, true.voxel_size_zyx
    both_volumes = predicted.volume is not None and true.volume is not None
    if first is not None and second is not None and both_volumes and not np.allclose(first, second, rtol=0.01):
        raise ValueError(
            f"evaluate: {name}: expected one voxel size in both volumes, got {_text(first)} Å (predicted) and "
            f"{_text(second)} Å (truth); if the headers are wrong, give --voxel_size, else compare particle lists"
        )
    if true.volume is None and predicted.volume is not None and first is not None:
        return first
    return second if second is not None else first


def _text(size: np.ndarray) -> str:
    return " x ".join(f"{value:g}" for value in size)


def _border(particles: LabelStatistics | None) -> dict[int, bool]:
    if particles is None:
        return {}
    return dict(zip(particles.ids.tolist(), particles.touches_border.tolist(), strict=True))


def _strange_places(name: str, predicted: Side, true: Side, size: np.ndarray | None) -> list[str]:
    """What is wrong with the positions of a list in the volume of either side; ValueError if all lie outside."""
    volumes = [side.volume for side in (predicted, true) if side.volume is not None]
    with catch_warnings(record=True) as caught:
        simplefilter("always", ParticleListWarning)
        for word, side in (("prediction", predicted), ("truth", true)):
            if side.particles is not None and volumes and size is not None:
                shape = volumes[0].shape if side.volume is None else side.volume.shape
                check_positions(side.particles, f"{name}: {word}", size, shape)
    return [str(one.message) for one in caught]


def _reach(true: Side, points: Points, size: np.ndarray | None, rules: Rules) -> np.ndarray:
    if rules.point_rule == "inside":
        return np.zeros(len(points))
    diameters: dict[int, float] = {}
    if np.isnan(points.diameter_angstrom).any() and true.volume is not None and size is not None:
        found = filled_centers(true.volume, size)
        diameters = dict(zip(found.ids.tolist(), found.diameters_angstrom.tolist(), strict=True))
    radius = true_radii(points, diameters, rules.particle_diameter)
    return match_radius(radius, np.zeros(3) if size is None else size, rules.match_fraction, rules.min_voxels)


def _classes(points: Points, particles: LabelStatistics | None) -> np.ndarray:
    if particles is None:
        return np.empty(0, "<U1")
    class_of = dict(zip(points.label.tolist(), points.class_name.tolist(), strict=True))
    return np.array([class_of.get(int(label), "") for label in particles.ids], dtype=str)
