"""Choose the thresholds of detection: on the networks' maps beside the true labels of tomograms."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from custom_transforms.labelling.assign import assign_instances
from custom_transforms.labelling.classes import ClassRules, SeedClasses
from custom_transforms.labelling.components import mask_from_probability
from custom_transforms.labelling.refine import refine_seeds
from custom_transforms.labelling.seeds import find_seeds
from custom_transforms.measuring.instance_centers import InstanceCenters, instance_centers
from custom_transforms.units import ParticleSizes, as_voxel_size_zyx, of_class, voxel_zyx_to_angstrom_xyz
from scripts.matching.overlap import overlap_table
from scripts.matching.points import candidate_pairs, hits_by_threshold, match_radius
from scripts.matching.scores import f_beta, ratio
from scripts.matching.volumes import judge_volumes, volume_counts, volume_scores

__all__ = ["CalibrationSample", "choose_center_threshold", "choose_thresholds"]

CENTER_GRID = tuple(round(0.05 + 0.01 * i, 2) for i in range(91))  # 0.05 ... 0.95
MASK_GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SIZE_GRID = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)  # of the volume of a full sphere
_TIE = 0.002  # scores this close are equal: validation data never tell them apart

Curve = list[dict[str, float]]


class CalibrationSample(NamedTuple):
    """One validation tomogram: maps (Z, Y, X) in 0..1, true labels (-1 ignored), Å per voxel (Z, Y, X), classes."""

    probability: np.ndarray
    center_map: np.ndarray
    labels: np.ndarray
    voxel_size_zyx: np.ndarray
    class_maps: Sequence[np.ndarray] = ()  # a center map for each class, of which center_map is the highest
    class_of_label: Mapping[int, str] = {}


def choose_thresholds(
    samples: Iterable[Sequence[Any]],
    particle_diameter: float | Mapping[str, float],
    beta: float = 1.0,
    match_fraction: float = 0.5,
    method: str = "watershed",
    min_distance: float | None = None,
    radius_max: float | None = None,
    require_seed: bool = False,
    center_grid: Sequence[float] = CENTER_GRID,
    mask_grid: Sequence[float] = MASK_GRID,
    size_grid: Sequence[float] = SIZE_GRID,
    classes: Sequence[str] = (),
    shipped: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Choose center_threshold, then mask_threshold, then min_size, on tomograms with known particles.

    1. *center_threshold*: F-beta of center matching. Seeds are found once, at the lowest threshold, and the sweep is
       read off one matching: a higher threshold keeps exactly the higher seeds. Of classes each has its own, chosen
       from the seeds and particles of that class; one without particles keeps the lowest that all others have.
    2. *mask_threshold*: panoptic quality of the instances with that center threshold and the default size, which falls
       with every merged particle and every wrong voxel.
    3. *min_size*: F-beta of the instances (`judge_volumes`), as a share of the sphere of each class's diameter.
    Thresholds around the best that these particles cannot tell from it (within 0.002, or a standard error of the
    difference, from the particles that differ) are an interval; of it the one nearest to the shipped threshold wins,
    or without one the middle (min_size: the one nearest the default). So few particles change little.

    Parameters
    ----------
    samples : iterable of CalibrationSample or (probability, center_map, labels, voxel_size_zyx)
        Validation tomograms; kept in memory.
    particle_diameter : float
        Å.
    beta : float
        Recall's weight against precision.
    match_fraction : float
        As in `scripts.evaluation.evaluate.evaluate`.
    method, min_distance, radius_max, require_seed
        As detection will use them: `find_seeds` and `assign_instances`, Å.
    center_grid, mask_grid : sequence of float
        Thresholds to try, above 0.
    classes : sequence of str
        In the order of the samples' class maps; ``particle_diameter`` may then be an object by class.
    size_grid : sequence of float
        Sizes to try, as fractions of the volume of a sphere of the particle's diameter.
    shipped : mapping, optional
        ``center_threshold`` and ``mask_threshold`` from which only better knowledge leads away.

    Returns
    -------
    dict
        ``particle_diameter``, ``center_threshold``, ``mask_threshold``, ``min_size`` (Å^3; by class
        where the diameter is), ``scores`` at the chosen values, ``intervals`` (lowest and highest of each threshold
        that fit as well), ``curves`` (``center``, ``mask``, ``size``: a row for each value tried), ``n_tomograms``,
        ``n_particles``, ``beta``.

    Raises
    ------
    ValueError
        If there are no samples, no particles in them, shapes differ, or no seed reaches any threshold.
    """
    known = [_checked(sample, i) for i, sample in enumerate(samples)]
    if not known:
        raise ValueError("calibrate: expected validation tomograms, got none; add them to the datalist's validation")
    sizes = ParticleSizes.from_diameter(particle_diameter, min_distance=min_distance, radius_max=radius_max)
    before = shipped or {}
    matching = (beta, match_fraction, center_grid, before.get("center_threshold"))
    if classes:
        rules = ClassRules.of(classes, min(center_grid), particle_diameter, min_distance)
        center = _of_classes(known, rules, particle_diameter, min_distance, matching)
    else:
        center = _of_all(known, sizes, float(of_class(particle_diameter, "")), matching)
    intervals = dict(center.intervals)
    usual = sizes.min_size / center.spheres.min()

    def score(mask_threshold: float, fraction: float) -> tuple[dict[str, float], np.ndarray]:
        trial = dataclasses.replace(sizes, min_size=fraction * center.spheres.min())
        judged = [
            _judge(s, its, fraction * whole, mask_threshold, trial, method, require_seed)
            for s, (its, whole) in zip(known, center.seeds, strict=True)
        ]
        counts = {key: sum(one[key] for one, _ in judged) for key in judged[0][0]}
        return _instance_scores(counts, beta), np.concatenate([quality for _, quality in judged])

    tried = [(float(t), *score(t, usual)) for t in sorted(mask_grid)]
    mask_curve = [{"mask_threshold": value, **row} for value, row, _ in tried]
    errors = _quality_errors(mask_curve, np.stack([quality for _, _, quality in tried]))
    mask_threshold, intervals["mask_threshold"] = _settle(
        mask_curve, "mask_threshold", "panoptic_quality", errors, before.get("mask_threshold")
    )
    diameter = dict(particle_diameter) if isinstance(particle_diameter, Mapping) else float(particle_diameter)
    size_curve = [{"share": float(f), **score(mask_threshold, f)[0]} for f in sorted(size_grid)]
    chosen = _nearest_of_best(size_curve, "share", "f_beta", usual)
    smallest = [float(one) for one in chosen["share"] * center.spheres]
    return {
        "particle_diameter": diameter,
        "center_threshold": center.threshold,
        "mask_threshold": mask_threshold,
        "min_size": dict(zip(classes, smallest, strict=True)) if isinstance(diameter, dict) else smallest[0],
        "intervals": intervals,
        "scores": {"centers": center.scores, "instances": chosen},
        "curves": {"center": center.curve, "mask": mask_curve, "size": size_curve},
        "n_tomograms": len(known),
        "n_particles": int(sum(len(np.unique(s.labels[s.labels > 0])) for s in known)),
        "beta": float(beta),
    }


class _Centers(NamedTuple):
    """What the sweep of the center threshold gave: of all particles, or each by class."""

    threshold: Any
    curve: Any
    scores: Mapping[str, Any]
    intervals: Mapping[str, Any]
    spheres: np.ndarray  # Å^3, of the diameter of each class
    seeds: list[tuple[np.ndarray, np.ndarray]]  # of each sample at that threshold, and the spheres of their classes


def _of_all(
    known: Sequence[CalibrationSample], sizes: ParticleSizes, diameter: float, matching: Sequence[Any]
) -> _Centers:
    threshold, curve = choose_center_threshold(known, sizes, *matching)
    intervals = {"center_threshold": _f_interval(curve, matching[0])}
    sphere = _sphere(diameter)
    peaks = [find_seeds(s.center_map, threshold, sizes.min_distance, s.voxel_size_zyx)[0] for s in known]
    seeds = [(its, np.full(len(its), sphere)) for its in peaks]
    return _Centers(threshold, curve, _row_at(curve, threshold), intervals, np.array([sphere]), seeds)


def _of_classes(
    known: Sequence[CalibrationSample], rules: ClassRules, diameter: Any, min_distance: Any, matching: Sequence[Any]
) -> _Centers:
    thresholds, curves = choose_class_thresholds(known, rules, *matching)
    rows = {name: _row_at(curve, thresholds[name]) for name, curve in curves.items()}
    intervals = {f"center_threshold of {name}": _f_interval(curve, matching[0]) for name, curve in curves.items()}
    rules = ClassRules.of(rules.names, thresholds, diameter, min_distance)
    spheres = np.array([_sphere(of_class(diameter, name)) for name in rules.names])
    found = [_class_seeds(rules, s) for s in known]
    seeds = [(peaks, spheres[classes.index]) for peaks, _, classes in found]
    return _Centers(thresholds, curves, rows, intervals, spheres, seeds)


def _sphere(diameter: float) -> float:
    return np.pi / 6 * diameter**3


def _nearest_of_best(curve: Curve, value: str, score: str, default: float) -> dict[str, float]:
    """Of the rows whose scores cannot be told from the best one, the one nearest to the default."""
    best = max(row[score] for row in curve)
    return min((row for row in curve if row[score] >= best - _TIE), key=lambda row: abs(row[value] - default))


def _checked(sample: Sequence[Any], index: int) -> CalibrationSample:
    probability, center_map, labels, voxel_size, *classes = sample
    maps = [np.asarray(a, np.float32) for a in (probability, center_map)]
    labels = np.asarray(labels)
    if labels.ndim != 3 or any(a.shape != labels.shape for a in maps):
        raise ValueError(
            f"calibrate: sample {index}: expected three volumes of one shape (Z, Y, X), got {maps[0].shape}, "
            f"{maps[1].shape} and {labels.shape}"
        )
    return CalibrationSample(
        maps[0], maps[1], labels.astype(np.int32, copy=False), as_voxel_size_zyx(voxel_size), *classes
    )


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
    return _settle(curve, "center_threshold", "f_beta", _f_errors(curve, beta), shipped)[0], curve


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


def _settle(
    curve: Curve, threshold: str, score: str, errors: np.ndarray, shipped: Any = None
) -> tuple[float, tuple[float, float]]:
    """Choose of the run of thresholds around the best that cannot be told from it; gives that run's ends, too."""
    values = np.array([row[score] for row in curve])
    values = np.where(np.isnan(values), -np.inf, values)
    best = int(np.argmax(values))
    tied = values >= values[best] - np.maximum(_TIE, errors)
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
    return _settle(curve, "center_threshold", "f_beta", _f_errors(curve, beta))[1]


def _f_errors(curve: Curve, beta: float) -> np.ndarray:
    """Standard error of how much each F-beta lies below the best: by the hits and false ones in which they differ."""
    best = max(curve, key=lambda row: np.nan_to_num(row["f_beta"], nan=-1.0))
    f, hit = np.nan_to_num(best["f_beta"]), 1 + beta**2
    hits = np.array([abs(row["hits"] - best["hits"]) for row in curve])
    wrong = np.array([abs((row["kept"] - row["hits"]) - (best["kept"] - best["hits"])) for row in curve])
    size = max(beta**2 * best["particles"] + best["kept"], 1)
    return np.asarray(np.sqrt(hits * (hit - f) ** 2 + wrong * f**2) / size)


def _quality_errors(curve: Curve, quality: np.ndarray) -> np.ndarray:
    """The same of panoptic quality: by how much the IoU of each true particle (rows of ``quality``) differs."""
    best = int(np.argmax([np.nan_to_num(row["panoptic_quality"], nan=-1.0) for row in curve]))
    differing = np.sqrt(((quality - quality[best]) ** 2).sum(axis=1))
    return np.asarray(differing / max((quality.shape[1] + curve[best]["kept"]) / 2, 1))


def _judge(
    sample: CalibrationSample,
    peaks: np.ndarray,
    min_sizes: np.ndarray,
    threshold: float,
    sizes: ParticleSizes,
    method: str,
    require_seed: bool,
) -> tuple[dict[str, float], np.ndarray]:
    """Instances as detection makes them, against the truth: counts, and the IoU of each true particle, 0 below 0.5."""
    voxel_volume = float(sample.voxel_size_zyx.prod())
    smallest = sizes.min_size / voxel_volume
    mask = mask_from_probability(sample.probability, threshold, smallest)
    labels, seed_labels = assign_instances(
        mask,
        sample.center_map,
        peaks,
        method=method,
        radius_max=sizes.radius_max,
        voxel_size_zyx=sample.voxel_size_zyx,
        require_seed=require_seed,
        min_size_voxels=smallest,
    )
    smallest_of = np.full(int(labels.max()) + 1, smallest)
    smallest_of[seed_labels] = min_sizes / voxel_volume
    kept = np.bincount(labels.ravel()) >= smallest_of
    found = judge_volumes(overlap_table(sample.labels, np.where(kept[labels], labels, 0)))
    counts = volume_counts(found.true_status, found.predicted_status, found.matched_iou)
    return counts, np.where(found.true_iou > 0.5, found.true_iou, 0.0)


def _instance_scores(counts: Mapping[str, float], beta: float) -> dict[str, float]:
    scores = volume_scores(dict(counts))
    tp = counts["tp"]
    names = ("panoptic_quality", "precision", "recall", "merged_rate", "split_rate")
    value = float(f_beta(tp, counts["n_predicted"] - tp, counts["n_true"] - tp, beta))
    return {"f_beta": value, **{name: scores[name] for name in names}, "kept": counts["n_predicted"]}
