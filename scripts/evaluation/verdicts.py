"""Verdicts on predicted and true centers, with classes, ignored regions and the border taken into account."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scripts.evaluation.sides import Points, label_at
from scripts.matching.points import candidate_pairs, match_pairs

__all__ = ["POINT_RULES", "PointVerdicts", "judge_points"]

POINT_RULES = ("distance", "inside")


@dataclass(frozen=True)
class PointVerdicts:
    """Status of every predicted (TP, FP, ignored) and true (TP, FN, ignored) center, and its partner's row (-1: none).

    ``distance`` is that of each predicted center to its partner in Å (nan without). ``pair_predicted`` and
    ``pair_true`` are all candidates, for `scripts.matching.points.hits_by_threshold`.
    """

    predicted_status: np.ndarray
    predicted_partner: np.ndarray
    true_status: np.ndarray
    true_partner: np.ndarray
    distance: np.ndarray
    pair_predicted: np.ndarray
    pair_true: np.ndarray


def judge_points(
    predicted: Points,
    true: Points,
    reach: np.ndarray,
    true_volume: np.ndarray | None = None,
    voxel_size_zyx: np.ndarray | None = None,
    point_rule: str = "distance",
    by_class: bool = False,
    border: str = "count",
) -> PointVerdicts:
    """Match centers one to one and say what became of each.

    Parameters
    ----------
    predicted, true : Points
    reach : ndarray, shape (m,)
        Å; how far a prediction may lie from each true center (rule ``distance``).
    true_volume : ndarray, shape (Z, Y, X), optional
        True labels: for the rule ``inside``, and for regions to ignore (-1).
    voxel_size_zyx : ndarray, optional
        Å; needed with a volume.
    point_rule : {"distance", "inside"}
        ``distance``: within ``reach``. ``inside`` (SHREC's): the predicted center lies on a voxel of the particle;
        a second center in the same particle is a false positive.
    by_class : bool
        Whether only centers of the same class may match.
    border : {"count", "ignore"}
        ``ignore`` leaves out true particles that touch a face of the volume with whatever matched them, and false
        positives that touch one.

    Notes
    -----
    A prediction that lies on an ignored voxel and matches nothing is left out; one that matches counts.
    """
    at = None
    if true_volume is not None and voxel_size_zyx is not None:
        at = label_at(predicted.centers_xyz_angstrom, true_volume, voxel_size_zyx)
    if point_rule == "inside":
        if at is None:
            raise ValueError("point_rule inside: expected a true label volume, got a list; use point_rule distance")
        pairs = _inside_pairs(predicted, true, at)
    elif point_rule == "distance":
        pairs = candidate_pairs(predicted.centers_xyz_angstrom, true.centers_xyz_angstrom, reach)
    else:
        raise ValueError(f"point_rule: expected one of {', '.join(POINT_RULES)}, got {point_rule!r}")
    if by_class:
        same = predicted.class_name[pairs[0]] == true.class_name[pairs[1]]
        pairs = (pairs[0][same], pairs[1][same], pairs[2][same])
    found = match_pairs(*pairs, n_predicted=len(predicted), n_true=len(true))
    predicted_status, predicted_partner = np.full(len(predicted), "FP", "<U7"), np.full(len(predicted), -1)
    true_status, true_partner = np.full(len(true), "FN", "<U7"), np.full(len(true), -1)
    distance = np.full(len(predicted), np.nan)
    predicted_status[found.predicted], true_status[found.true] = "TP", "TP"
    predicted_partner[found.predicted], true_partner[found.true] = found.true, found.predicted
    distance[found.predicted] = found.distances
    if at is not None:
        predicted_status[(predicted_status == "FP") & (at < 0)] = "ignored"
    if border == "ignore":
        true_status[true.touches_border] = "ignored"
        with_border = found.predicted[true.touches_border[found.true]]
        predicted_status[with_border] = "ignored"
        predicted_status[(predicted_status == "FP") & predicted.touches_border] = "ignored"
    return PointVerdicts(predicted_status, predicted_partner, true_status, true_partner, distance, pairs[0], pairs[1])


def _inside_pairs(predicted: Points, true: Points, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row_of = {int(label): row for row, label in enumerate(true.label)}
    rows = np.array([row_of.get(int(label), -1) if label > 0 else -1 for label in at], np.int64)
    hit = np.flatnonzero(rows >= 0)
    offset = predicted.centers_xyz_angstrom[hit] - true.centers_xyz_angstrom[rows[hit]]
    return hit, rows[hit], np.linalg.norm(offset, axis=1)
