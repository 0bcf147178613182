"""Compare found with true particles: labels by overlap, centers by distance; one call, any threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from scripts.api.volumes import as_volume
from scripts.matching.overlap import OverlapTable, overlap_table
from scripts.matching.points import candidate_pairs, match_pairs
from scripts.matching.scores import f_beta, ratio
from scripts.matching.volumes import judge_volumes
from scripts.particles.particle_list import ParticleList

__all__ = ["Match", "match"]

# columns with the position of a particle, the best first
POSITIONS = (("x_angstrom", "y_angstrom", "z_angstrom"), ("x_vox", "y_vox", "z_vox"), ("x", "y", "z"))


class Match(NamedTuple):
    """How predicted and true particles compare at one threshold; a score without anything to judge is nan.

    Attributes
    ----------
    threshold : float
        Smallest IoU of a pair of labels, or largest distance of a pair of centers.
    n_true, n_predicted, tp, fp, fn : int
        Particles, and how many were found, made up and missed.
    precision, recall, f1 : float
    mean_score : float
        Mean IoU, or mean distance, of the pairs.
    panoptic_quality : float
        Sum of the pairs' IoUs over the mean number of particles; nan for centers.
    merged, split : int
        True particles that share their main overlap with others, and those that are the main overlap of several
        predicted ones; they do not depend on the threshold. 0 for centers.
    pairs : ndarray, shape (tp, 2), int64
        True and predicted label of each pair, or for centers their rows, counted from 0.
    scores : ndarray, shape (tp,)
        IoU or distance of each pair.
    """

    threshold: float
    n_true: int
    n_predicted: int
    tp: int
    fp: int
    fn: int
    precision: float
    recall: float
    f1: float
    mean_score: float
    panoptic_quality: float
    merged: int
    split: int
    pairs: np.ndarray
    scores: np.ndarray


@overload
def match(true: Any, predicted: Any, threshold: float | None = None) -> Match: ...
@overload
def match(true: Any, predicted: Any, threshold: Sequence[float]) -> list[Match]: ...
def match(true: Any, predicted: Any, threshold: float | Sequence[float] | None = None) -> Match | list[Match]:
    """Compare found with true particles, one to one.

    As many pairs as possible are chosen, and among these choices the one of the largest total IoU, or the least total
    distance.

    Parameters
    ----------
    true, predicted : ndarray, shape (Z, Y, X), integers; or centers
        Labels: 0 background, 1..n particles, and in ``true`` -1 for voxels to ignore. Centers: an array (n, 3), a
        table with columns x_angstrom, y_angstrom, z_angstrom (or x_vox ..., or x ...), or a `ParticleList` (Å); both
        in one unit and axis order.
    threshold : float or sequence of floats
        Labels: the smallest IoU of a pair, above 0 (0.5). Centers: the largest distance of a pair, in their unit.

    Returns
    -------
    Match, or a list of one for each threshold

    Raises
    ------
    ValueError
        If labels are compared with centers, shapes or units differ, or a threshold cannot be.

    Notes
    -----
    ``python -m scripts evaluate`` judges files by each particle's main overlap, so its counts may differ from these;
    its panoptic quality is the one of threshold 0.5 here.

    Examples
    --------
    >>> true = np.zeros((4, 6, 8), int); true[1:3, 1:3, 1:3] = 1; true[1:3, 1:3, 5:7] = 2
    >>> found = match(true, np.where(true == 1, 7, 0))
    >>> found.tp, found.fn, found.precision, found.recall, found.pairs.tolist()
    (1, 1, 1.0, 0.5, [[1, 7]])
    >>> match([[0, 0, 0], [50, 0, 0]], [[3, 4, 0]], threshold=[4, 5])[1].f1
    0.6666666666666666
    """
    volumes = [_is_volume(one) for one in (true, predicted)]
    if volumes[0] != volumes[1]:
        names = ["labels (Z, Y, X)" if one else "centers" for one in volumes]
        raise ValueError(
            f"match: expected labels and labels, or centers and centers, got true {names[0]} and predicted {names[1]}. "
            "The particles table of a detection holds the centers of its labels."
        )
    if threshold is None and not volumes[0]:
        raise ValueError("match: centers need a threshold, the largest distance of a pair. Half a radius is usual.")
    asked = np.atleast_1d(np.asarray(0.5 if threshold is None else threshold, dtype=float))
    if not (np.isfinite(asked) & (asked > 0)).all() or volumes[0] and (asked > 1).any():
        wanted = "an IoU above 0 and at most 1" if volumes[0] else "a distance above 0"
        raise ValueError(f"match: threshold: expected {wanted}, got {threshold!r}.")
    if volumes[0]:
        table = overlap_table(as_volume(true, "true"), as_volume(predicted, "predicted"))
        found = [_match_labels(table, float(one)) for one in asked]
    else:
        true_centers, centers = _centers(true, predicted)
        found = [_match_centers(true_centers, centers, float(one)) for one in asked]
    return found[0] if threshold is None or np.ndim(threshold) == 0 else found


def _is_volume(particles: Any) -> bool:
    return not isinstance(particles, (pd.DataFrame, ParticleList)) and np.ndim(particles) >= 3


def _match_labels(table: OverlapTable, threshold: float) -> Match:
    judged = judge_volumes(table)
    true, predicted = table.true_particles, table.predicted_particles
    rows = np.flatnonzero((table.true > 0) & (table.predicted > 0))
    t, p = (np.searchsorted(ids, own[rows]) for ids, own in ((true.ids, table.true), (predicted.ids, table.predicted)))
    shared = table.voxels[rows]
    iou = shared / ((true.voxels - true.ignored)[t] + (predicted.voxels - predicted.ignored)[p] - shared)
    near = iou >= threshold
    chosen = match_pairs(p[near], t[near], 1 - iou[near], len(predicted.ids), len(true.ids))
    judged_out = judged.predicted_status == "ignored"  # lies where the truth says nothing
    judged_out[chosen.predicted] = False
    merged, split = (int(np.count_nonzero(judged.true_status == word)) for word in ("merged", "split"))
    pairs = np.stack([true.ids[chosen.true], predicted.ids[chosen.predicted]], axis=1)
    scores = 1 - chosen.distances
    n_predicted = len(predicted.ids) - int(judged_out.sum())
    quality = float(ratio(2 * scores.sum(), len(true.ids) + n_predicted))
    return _scored(threshold, len(true.ids), n_predicted, pairs, scores, quality, merged, split)


def _match_centers(true: np.ndarray, predicted: np.ndarray, threshold: float) -> Match:
    chosen = match_pairs(*candidate_pairs(predicted, true, threshold), len(predicted), len(true))
    pairs = np.stack([chosen.true, chosen.predicted], axis=1)
    return _scored(threshold, len(true), len(predicted), pairs, chosen.distances, float("nan"))


def _scored(
    threshold: float,
    n_true: int,
    n_predicted: int,
    pairs: np.ndarray,
    scores: np.ndarray,
    panoptic_quality: float,
    merged: int = 0,
    split: int = 0,
) -> Match:
    tp = len(pairs)
    fp, fn = n_predicted - tp, n_true - tp
    return Match(
        threshold,
        n_true,
        n_predicted,
        tp,
        fp,
        fn,
        float(ratio(tp, n_predicted)),
        float(ratio(tp, n_true)),
        float(f_beta(tp, fp, fn, beta=1.0)),
        float(scores.mean()) if tp else float("nan"),
        panoptic_quality,
        merged,
        split,
        pairs,
        scores,
    )


def _centers(true: Any, predicted: Any) -> list[np.ndarray]:
    """Both sides as (n, 3); of two tables the best columns that both have."""
    given = [one.to_dataframe() if isinstance(one, ParticleList) else one for one in (true, predicted)]
    tables = [one for one in given if isinstance(one, pd.DataFrame)]
    columns = next((names for names in POSITIONS if all(set(names) <= set(one.columns) for one in tables)), None)
    if columns is None:
        wanted = " or ".join(", ".join(names) for names in POSITIONS)
        got = "; ".join(", ".join(map(str, one.columns)) for one in tables)
        raise ValueError(f"match: expected the columns {wanted} in both tables, got {got}.")
    return [
        _points(one[list(columns)] if isinstance(one, pd.DataFrame) else one, name)
        for one, name in zip(given, ("true", "predicted"), strict=True)
    ]


def _points(centers: ArrayLike, name: str) -> np.ndarray:
    points = np.asarray(centers, dtype=float)
    points = points.reshape(0, 3) if points.size == 0 else points
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"match: {name}: expected labels (Z, Y, X) or centers (n, 3), got shape {points.shape}.")
    return points
