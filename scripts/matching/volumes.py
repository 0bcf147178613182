"""Verdicts on the particles of two label volumes, from their overlap table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scripts.matching.overlap import LabelStatistics, OverlapTable
from scripts.matching.scores import f_beta, ratio

__all__ = ["RULES", "VolumeMatches", "judge_volumes", "volume_counts", "volume_scores"]

RULES = ("main", "original")


@dataclass(frozen=True)
class VolumeMatches:
    """The verdict on every particle; rows follow ``OverlapTable.true_particles`` and ``.predicted_particles``.

    ``*_status`` is TP, merged, split, FN (true) or FP (predicted), or ignored; ``*_match`` the id of the particle's
    main overlap (0: background covers most of it); ``*_iou`` the IoU with that one (0 for background).
    ``matched_iou`` holds the IoUs above 0.5, whose pairs are unique.
    """

    true_status: np.ndarray
    true_match: np.ndarray
    true_iou: np.ndarray
    predicted_status: np.ndarray
    predicted_match: np.ndarray
    predicted_iou: np.ndarray
    matched_iou: np.ndarray


def judge_volumes(table: OverlapTable, rule: str = "main", border: str = "count") -> VolumeMatches:
    """Decide for every particle whether it was found, merged, split or missed.

    Parameters
    ----------
    table : OverlapTable
    rule : {"main", "original"}
        ``main``: a particle's main overlap is the label that covers most of it, background competing. Two particles
        that are each other's main overlap, and nobody else's, are TP. A predicted label that is the main overlap of
        two or more true particles is merged, and so are all of those; a true label that is the main overlap of two
        or more predicted ones is split, and so are those that are not merged. The rest is FN and FP.
        ``original``: only the label under each true particle counts. It is merged if that label serves two or more,
        FN if it is background, else TP; a predicted label that serves no true particle is FP.
    border : {"count", "ignore"}
        ``ignore`` leaves out true particles that touch a face of the volume, predictions that match nothing else,
        and false positives that touch a face.

    Notes
    -----
    Voxels the truth ignores belong to nobody. A false positive at least half of whose voxels are ignored is left out.
    Ties: a particle wins over background, then the smaller one, then the overlap that comes first in z, y, x; so ids
    never matter.
    """
    for name, value, allowed in (("rule", rule, RULES), ("border", border, ("count", "ignore"))):
        if value not in allowed:
            raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
    true, predicted = table.true_particles, table.predicted_particles
    iou = _iou(table)
    true_match, true_iou = _main_overlap(table.true, table.predicted, true, predicted, table, iou)
    predicted_match, predicted_iou = _main_overlap(table.predicted, table.true, predicted, true, table, iou)
    served = _times(predicted.ids, true_match)  # true particles whose main overlap it is
    pieces = _times(true.ids, predicted_match) if rule == "main" else np.zeros(len(true.ids), np.int64)
    true_status = _status(true_match, _lookup(predicted.ids, served, true_match), pieces, "FN")
    predicted_status = np.full(len(predicted.ids), "FP", dtype="<U7")
    if rule == "main":
        mutual = (true_match > 0) & (_lookup(predicted.ids, predicted_match, true_match) == true.ids)
        true_status[(true_status == "TP") & ~mutual] = "FN"
        predicted_status[_lookup(true.ids, (true_status == "TP") & mutual, predicted_match) == 1] = "TP"
        predicted_status[_lookup(true.ids, pieces, predicted_match) >= 2] = "split"
    else:
        predicted_status[served == 1] = "TP"
    predicted_status[served >= 2] = "merged"
    predicted_status[(predicted_status == "FP") & (2 * predicted.ignored >= predicted.voxels)] = "ignored"
    if border == "ignore":
        _leave_out_border(table, true_status, predicted_status, true_match, predicted_match)
    matched = (iou > 0.5) & (_lookup(true.ids, true_status != "ignored", table.true) == 1)
    return VolumeMatches(
        true_status, true_match, true_iou, predicted_status, predicted_match, predicted_iou, iou[matched]
    )


def _iou(table: OverlapTable) -> np.ndarray:
    """IoU of every row of the table, over the voxels that are not ignored; 0 where one side is background."""
    true, predicted = table.true_particles, table.predicted_particles
    union = (
        _lookup(true.ids, true.voxels, table.true)
        + _lookup(predicted.ids, predicted.voxels - predicted.ignored, table.predicted)
        - table.voxels
    )
    both = (table.true > 0) & (table.predicted > 0)
    return np.where(both, table.voxels / np.maximum(union, 1), 0.0)


def _main_overlap(
    own: np.ndarray,
    other: np.ndarray,
    particles: LabelStatistics,
    others: LabelStatistics,
    table: OverlapTable,
    iou: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The label that covers most of each particle (0: background, or nothing but ignored voxels) and its IoU."""
    match, match_iou = np.zeros(len(particles.ids), np.int64), np.zeros(len(particles.ids))
    rows = np.flatnonzero(own > 0)
    size = _lookup(others.ids, others.voxels, other[rows])
    z, y, x = table.position[rows].T
    order = np.lexsort((x, y, z, size, other[rows] == 0, -table.voxels[rows], own[rows]))
    best = rows[order[np.flatnonzero(np.diff(own[rows][order], prepend=-1))]]
    where = np.searchsorted(particles.ids, own[best])
    match[where], match_iou[where] = other[best], iou[best]
    return match, match_iou


def _lookup(ids: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """``values`` of the wanted ids; 0 for background."""
    if not len(ids):
        return np.zeros(len(wanted), np.int64)
    where = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[where] == wanted, values[where], 0)


def _times(ids: np.ndarray, matches: np.ndarray) -> np.ndarray:
    """How often each id is somebody's match."""
    found, counts = np.unique(matches[matches > 0], return_counts=True)
    return _lookup(found, counts, ids)


def _status(match: np.ndarray, shared_by: np.ndarray, pieces: np.ndarray, missed: str) -> np.ndarray:
    status = np.full(len(match), missed, dtype="<U7")
    status[match > 0] = "TP"
    status[pieces >= 2] = "split"
    status[shared_by >= 2] = "merged"
    return status


def _leave_out_border(
    table: OverlapTable,
    true_status: np.ndarray,
    predicted_status: np.ndarray,
    true_match: np.ndarray,
    predicted_match: np.ndarray,
) -> None:
    true, predicted = table.true_particles, table.predicted_particles
    true_status[true.touches_border] = "ignored"
    inner = _times(predicted.ids, true_match[~true.touches_border])
    at_border = _lookup(true.ids, true.touches_border, predicted_match) == 1
    only_border = (_times(predicted.ids, true_match) > 0) & (inner == 0)
    predicted_status[(predicted_status != "FP") & (inner == 0) & (at_border | only_border)] = "ignored"
    predicted_status[(predicted_status == "FP") & (predicted.touches_border | at_border)] = "ignored"


def volume_counts(true_status: np.ndarray, predicted_status: np.ndarray, matched_iou: np.ndarray) -> dict[str, float]:
    """Count the verdicts; counts of several volumes may be added up before `volume_scores`."""
    return {
        "tp": int(np.count_nonzero(true_status == "TP")),
        "merged": int(np.count_nonzero(true_status == "merged")),
        "split": int(np.count_nonzero(true_status == "split")),
        "fn": int(np.count_nonzero(true_status == "FN")),
        "fp": int(np.count_nonzero(predicted_status == "FP")),
        "merged_predicted": int(np.count_nonzero(predicted_status == "merged")),
        "split_predicted": int(np.count_nonzero(predicted_status == "split")),
        "n_true": int(np.count_nonzero(true_status != "ignored")),
        "n_predicted": int(np.count_nonzero(predicted_status != "ignored")),
        "iou_matched": len(matched_iou),
        "iou_sum": float(np.sum(matched_iou)),
    }


def volume_scores(counts: dict[str, float]) -> dict[str, float]:
    """Precision, recall, F1, merged rate, split rate and panoptic quality from (summed) counts.

    Precision = TP / predicted, recall = TP / true, F1 = 2 TP / (predicted + true), merged and split rate = merged and
    split true particles / true; panoptic quality = sum of the IoUs above 0.5 / mean of the two numbers of particles.
    nan only where the denominator is 0.

    Examples
    --------
    >>> two = np.array(["TP", "TP"])
    >>> volume_scores(volume_counts(two, two, np.array([1.0, 0.8])))["panoptic_quality"]
    0.9
    """
    n_true, n_predicted, hits = counts["n_true"], counts["n_predicted"], counts["tp"]
    return {
        "precision": float(ratio(hits, n_predicted)),
        "recall": float(ratio(hits, n_true)),
        "f1": float(f_beta(hits, n_predicted - hits, n_true - hits, beta=1.0)),
        "merged_rate": float(ratio(counts["merged"], n_true)),
        "split_rate": float(ratio(counts["split"], n_true)),
        "panoptic_quality": float(ratio(2 * counts["iou_sum"], n_true + n_predicted)),
        "segmentation_quality": float(ratio(counts["iou_sum"], counts["iou_matched"])),
        "recognition_quality": float(ratio(2 * counts["iou_matched"], n_true + n_predicted)),
    }
