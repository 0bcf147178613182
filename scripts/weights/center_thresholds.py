"""Choose the center threshold, or that of each class, on the networks' maps beside the true labels of tomograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from custom_transforms.labelling.classes import ClassRules, SeedClasses
from custom_transforms.labelling.refine import refine_seeds
from custom_transforms.labelling.seeds import find_seeds
from custom_transforms.measuring.instance_centers import InstanceCenters, instance_centers
from custom_transforms.units import ParticleSizes, of_class, voxel_zyx_to_angstrom_xyz
from scripts.matching.points import candidate_pairs, hits_by_threshold, match_radius
from scripts.matching.scores import f_beta, ratio

__all__ = ["CalibrationSample", "Centers", "Curve", "choose_center_threshold", "settle", "sweep_centers"]

CENTER_GRID = tuple(round(0.05 + 0.01 * i, 2) for i in range(91))  # 0.05 ... 0.95
TIE = 0.002  # scores this close are equal: validation data never tell them apart

Curve = list[dict[str, float]]


class CalibrationSample(NamedTuple):
    """One validation tomogram: maps (Z, Y, X) in 0..1, true labels (-1 ignored), Å per voxel (Z, Y, X), classes."""

    probability: np.ndarray
    center_map: np.ndarray
    labels: np.ndarray
    voxel_size_zyx: np.ndarray
    class_maps: Sequence[np.ndarray] = ()  # a center map for each class, of which center_map is the highest
    class_of_label: Mapping[int, str] = {}


class Centers(NamedTuple):
    """What the sweep of the center threshold gave: of all particles, or each by class."""

    threshold: Any
    curve: Any
    scores: Mapping[str, Any]
    intervals: Mapping[str, Any]
    spheres: np.ndarray  # Å^3, of the diameter of each class
    seeds: list[tuple[np.ndarray, np.ndarray]]  # of each sample at that threshold, and the spheres of their classes


def sweep_centers(
    samples: Sequence[CalibrationSample],
    particle_diameter: float | Mapping[str, float],
    classes: Sequence[str] = (),
    min_distance: float | None = None,
    beta: float = 1.0,
    match_fraction: float = 0.5,
    grid: Sequence[float] = CENTER_GRID,
    shipped: Any = None,
) -> Centers:
    """The center threshold, of classes that of each, and the seeds at it.

    Parameters
    ----------
    samples : sequence of CalibrationSample
    particle_diameter : float, or mapping of class name to float
        Å.
    classes, min_distance, beta, match_fraction, grid, shipped
        See `scripts.weights.thresholds.choose_thresholds`.
    """
    matching = (beta, match_fraction, grid, shipped)
    if classes:
        rules = ClassRules.of(classes, min(grid), particle_diameter, min_distance)
        return _of_classes(samples, rules, particle_diameter, min_distance, matching)
    diameter = float(of_class(particle_diameter, ""))
    return _of_all(samples, ParticleSizes.from_diameter(diameter, min_distance=min_distance), diameter, matching)


def _of_all(
    known: Sequence[CalibrationSample], sizes: ParticleSizes, diameter: float, matching: Sequence[Any]
) -> Centers:
    threshold, curve = choose_center_threshold(known, sizes, *matching)
    intervals = {"center_threshold": _f_interval(curve, matching[0])}
    sphere = _sphere(diameter)
    peaks = [find_seeds(s.center_map, threshold, sizes.min_distance, s.voxel_size_zyx)[0] for s in known]
    seeds = [(its, np.full(len(its), sphere)) for its in peaks]
    return Centers(threshold, curve, _row_at(curve, threshold), intervals, np.array([sphere]), seeds)


def _of_classes(
    known: Sequence[CalibrationSample], rules: ClassRules, diameter: Any, min_distance: Any, matching: Sequence[Any]
) -> Centers:
    thresholds, curves = choose_class_thresholds(known, rules, *matching)
    rows = {name: _row_at(curve, thresholds[name]) for name, curve in curves.items()}
    intervals = {f"center_threshold of {name}": _f_interval(curve, matching[0]) for name, curve in curves.items()}
    rules = ClassRules.of(rules.names, thresholds, diameter, min_distance)
    spheres = np.array([_sphere(of_class(diameter, name)) for name in rules.names])
    found = [_class_seeds(rules, s) for s in known]
    seeds = [(peaks, spheres[classes.index]) for peaks, _, classes in found]
    return Centers(thresholds, curves, rows, intervals, spheres, seeds)


def _sphere(diameter: float) -> float:
    return np.pi / 6 * diameter**3


def choose_center_threshold(
    samples: Sequence[CalibrationSample],
    sizes: ParticleSizes,
    beta: float = 1.0,
    match_fraction: float = 0.5,
    grid: Sequence[float] = CENTER_GRID,
    shipped: Any = None,
) -> tuple[float, Curve]:
    """The threshold with the best F-beta of center matching, and its curve; see `choose_thresholds`.

    A seed on an ignored voxel that is near no true center counts at no threshold.
    """
    found = []
    for sample in samples:
        peaks, height = find_seeds(sample.center_map, min(grid), sizes.min_distance, sample.voxel_size_zyx)
        centers, _ = refine_seeds(sample.center_map, peaks, sizes.refine_radius, sample.voxel_size_zyx)
        found.append((sample, peaks, centers, height, instance_centers(sample.labels, sample.voxel_size_zyx)))
    return _best_threshold(found, beta, match_fraction, grid, shipped)


def choose_class_thresholds(
    samples: Sequence[CalibrationSample],
    rules: ClassRules,
    beta: float = 1.0,
    match_fraction: float = 0.5,
    grid: Sequence[float] = CENTER_GRID,
    shipped: Any = None,
) -> tuple[dict[str, float], dict[str, Curve]]:
    """The thresholds of the classes and their curves; see `choose_thresholds`.

    Seeds are found once, at the lowest threshold: one that a higher seed of another class keeps away stays away, also
    at thresholds that the other does not reach.
    """
    found = []
    for sample in samples:
        peaks, heights, classes = _class_seeds(rules, sample)
        radii = rules.refine_radii[classes.index]
        centers, _ = refine_seeds(sample.center_map, peaks, radii, sample.voxel_size_zyx)
        true = instance_centers(sample.labels, sample.voxel_size_zyx)
        kinds = np.array([sample.class_of_label.get(int(label), "") for label in true.ids], dtype=object)
        found.append((sample, peaks, centers, heights, classes.index, true, kinds))
    chosen: dict[str, float] = {}
    curves: dict[str, Curve] = {}
    for number, name in enumerate(rules.names):
        own = []
        for sample, peaks, centers, heights, index, true, kinds in found:
            mine, its = index == number, kinds == name
            particles = InstanceCenters(*(values[its] for values in true))
            own.append((sample, peaks[mine], centers[mine], heights[mine], particles))
        if sum(len(one[4].ids) for one in own) and sum(len(one[1]) for one in own):
            chosen[name], curves[name] = _best_threshold(own, beta, match_fraction, grid, of_class(shipped, name))
    if not chosen:
        raise ValueError(
            f"calibrate: expected particles and peaks of {', '.join(rules.names)} in the validation tomograms, got "
            "none of any class. Check that their particle tables name these classes."
        )
    return {name: chosen.get(name, min(chosen.values())) for name in rules.names}, curves


def _class_seeds(rules: ClassRules, sample: CalibrationSample) -> tuple[np.ndarray, np.ndarray, SeedClasses]:
    return rules.seeds(sample.center_map, sample.class_maps or [sample.center_map], sample.voxel_size_zyx)


def _row_at(curve: Curve, threshold: float) -> dict[str, float]:
    return next(row for row in curve if row["center_threshold"] == threshold)


def _best_threshold(
    found: Sequence[tuple[CalibrationSample, np.ndarray, np.ndarray, np.ndarray, InstanceCenters]],
    beta: float,
    match_fraction: float,
    grid: Sequence[float],
    shipped: Any,
) -> tuple[float, Curve]:
    """The threshold with the best F-beta, and the curve, from samples, peaks, refined centers, heights and truth."""
    predicted_index, true_index, heights, n_seeds, n_true = [], [], [], 0, 0
    for sample, peaks, centers, height, (_, true, diameters) in found:
        size = sample.voxel_size_zyx
        reach = match_radius(diameters / 2, size, match_fraction)
        pairs = candidate_pairs(voxel_zyx_to_angstrom_xyz(centers, size), voxel_zyx_to_angstrom_xyz(true, size), reach)
        counted = sample.labels[tuple(peaks.T)] >= 0
        counted[pairs[0]] = True
        predicted_index.append((np.cumsum(counted) - 1)[pairs[0]] + n_seeds)
        true_index.append(pairs[1] + n_true)
        heights.append(height[counted])
        n_seeds, n_true = n_seeds + int(counted.sum()), n_true + len(true)
    if n_true == 0:
        raise ValueError("calibrate: expected particles in the validation labels, got none; label some first")
    if n_seeds == 0:
        raise ValueError(
            f"calibrate: no peak of the center maps reaches {min(grid):g}; train longer, or check that weights and "
            "contrast belong to these tomograms"
        )
    steps = hits_by_threshold(np.concatenate(predicted_index), np.concatenate(true_index), np.concatenate(heights))
    curve = [_center_row(threshold, *steps, n_true, beta) for threshold in sorted(float(t) for t in grid)]
    return settle(curve, "center_threshold", "f_beta", _f_errors(curve, beta), shipped)[0], curve


def _center_row(
    threshold: float, thresholds: np.ndarray, hits: np.ndarray, kept: np.ndarray, n_true: int, beta: float
) -> dict[str, float]:
    # find_seeds compares in float32
    reached = int(np.count_nonzero(thresholds.astype(np.float32) >= np.float32(threshold)))
    tp, n = (int(hits[reached - 1]), int(kept[reached - 1])) if reached else (0, 0)
    return {
        "center_threshold": threshold,
        "f_beta": float(f_beta(tp, n - tp, n_true - tp, beta)),
        "precision": float(ratio(tp, n)),
        "recall": float(ratio(tp, n_true)),
        "hits": tp,
        "kept": n,
        "particles": n_true,
    }


def settle(
    curve: Curve, threshold: str, score: str, errors: np.ndarray, shipped: Any = None
) -> tuple[float, tuple[float, float]]:
    """Choose of the run of thresholds around the best that cannot be told from it; gives that run's ends, too."""
    values = np.array([row[score] for row in curve])
    values = np.where(np.isnan(values), -np.inf, values)
    best = int(np.argmax(values))
    tied = values >= values[best] - np.maximum(TIE, errors)
    first = last = best
    while first > 0 and tied[first - 1]:
        first -= 1
    while last < len(curve) - 1 and tied[last + 1]:
        last += 1
    run = [float(row[threshold]) for row in curve[first : last + 1]]
    if isinstance(shipped, (int, float)):
        return min(run, key=lambda value: abs(value - shipped)), (run[0], run[-1])
    return run[(len(run) - 1) // 2], (run[0], run[-1])


def _f_interval(curve: Curve, beta: float) -> tuple[float, float]:
    return settle(curve, "center_threshold", "f_beta", _f_errors(curve, beta))[1]


def _f_errors(curve: Curve, beta: float) -> np.ndarray:
    """Standard error of how much each F-beta lies below the best: by the hits and false ones in which they differ."""
    best = max(curve, key=lambda row: np.nan_to_num(row["f_beta"], nan=-1.0))
    f, hit = np.nan_to_num(best["f_beta"]), 1 + beta**2
    hits = np.array([abs(row["hits"] - best["hits"]) for row in curve])
    wrong = np.array([abs((row["kept"] - row["hits"]) - (best["kept"] - best["hits"])) for row in curve])
    size = max(beta**2 * best["particles"] + best["kept"], 1)
    return np.asarray(np.sqrt(hits * (hit - f) ** 2 + wrong * f**2) / size)
