"""Choose the thresholds of detection: on the networks' maps beside the true labels of tomograms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from custom_transforms.labelling.assign import assign_instances
from custom_transforms.labelling.components import mask_from_probability
from custom_transforms.units import ParticleSizes, as_voxel_size_zyx
from scripts.matching.overlap import overlap_table
from scripts.matching.scores import f_beta
from scripts.matching.volumes import judge_volumes, volume_counts, volume_scores
from scripts.weights.center_thresholds import CENTER_GRID, TIE, CalibrationSample, Centers, Curve, settle, sweep_centers

__all__ = ["choose_thresholds"]

MASK_GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SIZE_GRID = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)  # of the volume of a full sphere


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
    center = sweep_centers(
        known, particle_diameter, classes, min_distance, beta, match_fraction, center_grid,
        before.get("center_threshold"),
    )  # fmt: skip
    usual = sizes.min_size / center.spheres.min()
    trials = _Trials(known, center, sizes, beta, method, require_seed)
    tried = [(float(t), *trials.score(t, usual)) for t in sorted(mask_grid)]
    mask_curve = [{"mask_threshold": value, **row} for value, row, _ in tried]
    errors = _quality_errors(mask_curve, np.stack([quality for _, _, quality in tried]))
    mask_threshold, mask_interval = settle(
        mask_curve, "mask_threshold", "panoptic_quality", errors, before.get("mask_threshold")
    )
    size_curve = [{"share": float(share), **trials.score(mask_threshold, share)[0]} for share in sorted(size_grid)]
    instances = _nearest_of_best(size_curve, "share", "f_beta", usual)
    by_class = isinstance(particle_diameter, Mapping)
    smallest = [float(one) for one in instances["share"] * center.spheres]
    return {
        "particle_diameter": dict(particle_diameter) if by_class else float(particle_diameter),  # type: ignore[arg-type]
        "center_threshold": center.threshold,
        "mask_threshold": mask_threshold,
        "min_size": dict(zip(classes, smallest, strict=True)) if by_class else smallest[0],
        "intervals": {**center.intervals, "mask_threshold": mask_interval},
        "scores": {"centers": center.scores, "instances": instances},
        "curves": {"center": center.curve, "mask": mask_curve, "size": size_curve},
        "n_tomograms": len(known),
        "n_particles": int(sum(len(np.unique(s.labels[s.labels > 0])) for s in known)),
        "beta": float(beta),
    }


@dataclass(frozen=True)
class _Trials:
    """The instances that the seeds give at any mask threshold and smallest size, against the truth."""

    samples: Sequence[CalibrationSample]
    center: Centers
    sizes: ParticleSizes
    beta: float
    method: str
    require_seed: bool

    def score(self, mask_threshold: float, share: float) -> tuple[dict[str, float], np.ndarray]:
        """Scores, and the IoU of each true particle; ``share`` is the smallest size over the sphere of its class."""
        sizes = replace(self.sizes, min_size=share * self.center.spheres.min())
        judged = [
            _judge(sample, peaks, share * spheres, mask_threshold, sizes, self.method, self.require_seed)
            for sample, (peaks, spheres) in zip(self.samples, self.center.seeds, strict=True)
        ]
        counts = {key: sum(one[key] for one, _ in judged) for key in judged[0][0]}
        return _instance_scores(counts, self.beta), np.concatenate([quality for _, quality in judged])


def _nearest_of_best(curve: Curve, value: str, score: str, default: float) -> dict[str, float]:
    """Of the rows whose scores cannot be told from the best one, the one nearest to the default."""
    best = max(row[score] for row in curve)
    return min((row for row in curve if row[score] >= best - TIE), key=lambda row: abs(row[value] - default))


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
