"""Scores by tomogram, by class and pooled, from the verdicts of every tomogram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scripts.evaluation.bootstrap import bootstrap_intervals
from scripts.evaluation.pair import PairResult, Rules
from scripts.matching.points import hits_by_threshold
from scripts.matching.scores import average_precision, f_beta, ratio
from scripts.matching.volumes import volume_counts, volume_scores

__all__ = ["point_summary", "score_sweep", "summarise", "volume_summary"]

Summary = dict[str, Any]
_SWEEP_ROWS = 101  # thresholds kept in the files; average precision uses all
_VOLUME_OUTCOMES = ("tp", "merged", "split", "fn", "fp", "merged_predicted", "split_predicted")


def summarise(results: Sequence[PairResult], rules: Rules, draws: int, seed: int) -> Summary:
    """Everything `metrics.json` holds about the tomograms.

    Returns
    -------
    dict
        ``pooled``, ``tomograms`` (by name), ``classes`` (by class), each with ``points`` and, for volumes, ``volume``;
        pooled and by class with ``intervals``. ``macro`` is the plain mean over classes, as CZII and SHREC report.
    """
    classes = sorted({str(name) for r in results for name in r.true.class_name} - {""})
    if classes:  # a class that only predictions have is all false positives, once the truth knows classes
        classes = sorted({*classes, *(str(name) for r in results for name in r.predicted.class_name)} - {""})
    by_class = {name: _both(results, rules, name, draws, seed, sweep=False) for name in classes}
    summary: Summary = {
        "pooled": _both(results, rules, None, draws, seed, sweep=True),
        "classes": by_class,
        "tomograms": {
            r.name: {
                **_both([r], rules, None, 0, seed, sweep=False),
                "classes": {name: _both([r], rules, name, 0, seed, sweep=False) for name in classes},
            }
            for r in results
        },
    }
    if classes:
        summary["macro"] = {
            kind: _mean_of(by_class, kind) for kind in ("points", "volume") if kind in summary["pooled"]
        }
    return summary


def _mean_of(by_class: dict[str, Summary], kind: str) -> dict[str, float]:
    names = ("precision", "recall", "f1", "f_beta", "average_precision", "panoptic_quality")
    blocks = [block[kind] for block in by_class.values()]
    means = {}
    for name in names:
        values = np.array([block[name] for block in blocks if name in block], np.float64)
        if len(values):
            means[name] = float(np.mean(values[np.isfinite(values)])) if np.isfinite(values).any() else float("nan")
    return means


def _both(
    results: Sequence[PairResult], rules: Rules, class_name: str | None, draws: int, seed: int, sweep: bool
) -> Summary:
    both: Summary = {"points": point_summary(results, rules, class_name, draws, seed, sweep)}
    judged = [r for r in results if r.volumes is not None]
    if judged:
        both["volume"] = volume_summary(judged, class_name, draws, seed)
    return both


def volume_summary(
    results: Sequence[PairResult], class_name: str | None = None, draws: int = 0, seed: int = 0
) -> Summary:
    """Volume scores, pooled over the tomograms.

    With a class: its true particles, and the predictions of that class; a particle that was found under another class
    is FN for its own and FP for the other. Where predictions have no class, precision and whatever needs their
    number is nan, recall is not.
    """
    counts = [_class_counts(r, class_name) for r in results]
    totals = {key: sum(c[key] for c in counts) for key in counts[0]}
    scores = volume_scores(totals)
    classless = class_name is not None and not any(any(r.volume_class_predicted) for r in results)
    if classless:
        for name in ("precision", "f1", "panoptic_quality", "recognition_quality"):
            scores[name] = float("nan")
    summary: Summary = {**scores, **totals}
    if draws and not classless:
        outcomes = [[int(c[name]) for name in _VOLUME_OUTCOMES] for c in counts]
        summary["intervals"] = bootstrap_intervals(outcomes, _volume_scores_of_draws, draws, seed)
    return summary


def _volume_scores_of_draws(draws: np.ndarray) -> dict[str, np.ndarray]:
    tp, merged, split, fn, fp, merged_predicted, split_predicted = draws.T
    n_true, n_predicted = tp + merged + split + fn, tp + fp + merged_predicted + split_predicted
    return {
        "precision": ratio(tp, n_predicted),
        "recall": ratio(tp, n_true),
        "f1": ratio(2 * tp, n_true + n_predicted),
        "merged_rate": ratio(merged, n_true),
        "split_rate": ratio(split, n_true),
    }


def _class_counts(result: PairResult, class_name: str | None) -> dict[str, float]:
    found = result.volumes
    if found is None or result.table is None:
        raise ValueError(f"{result.name}: expected two label volumes to count overlaps")
    true_status, predicted_status, iou = found.true_status, found.predicted_status, found.matched_iou
    if class_name is None:
        return volume_counts(true_status, predicted_status, iou)
    mine_true = result.volume_class_true == class_name
    mine_predicted = result.volume_class_predicted == class_name
    true_status, predicted_status = true_status.copy(), predicted_status.copy()
    if any(result.volume_class_predicted):
        class_of = dict(zip(result.table.predicted_particles.ids.tolist(), result.volume_class_predicted, strict=True))
        agrees = np.array([class_of.get(m, "") for m in found.true_match.tolist()]) == result.volume_class_true
        true_status[(true_status == "TP") & ~agrees] = "FN"
        true_of = dict(zip(result.table.true_particles.ids.tolist(), result.volume_class_true, strict=True))
        agrees = np.array([true_of.get(m, "") for m in found.predicted_match.tolist()]) == result.volume_class_predicted
        predicted_status[(predicted_status == "TP") & ~agrees] = "FP"
    mine_iou = found.true_iou[mine_true & (true_status == "TP")]
    return volume_counts(true_status[mine_true], predicted_status[mine_predicted], mine_iou[mine_iou > 0.5])


def point_summary(
    results: Sequence[PairResult],
    rules: Rules,
    class_name: str | None = None,
    draws: int = 0,
    seed: int = 0,
    sweep: bool = False,
) -> Summary:
    """Center scores, pooled over the tomograms; all classes together (whatever the class), or one class.

    With a class, only centers of that class match each other. Where predictions have no class at all, the matching
    ignores it and only recall is defined.
    """
    classless = class_name is not None and all(r.class_points is None for r in results)
    counts, distances = zip(*(_center_counts(result, class_name) for result in results), strict=True)
    tp, fp, fn = np.sum(counts, axis=0).tolist()
    errors = np.concatenate(distances)
    scores = {name: float(value) for name, value in _point_scores(tp, fp, fn, rules.beta).items()}
    if classless:
        scores.update(dict.fromkeys(("precision", "f1", "f_beta"), float("nan")))
    summary: Summary = {
        **scores,
        "average_precision": float("nan"),
        "mean_center_error_angstrom": float(errors.mean()) if len(errors) else float("nan"),
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "n_true": tp + fn,
        "n_predicted": tp + fp,
    }
    table = None if classless else score_sweep(results, rules, class_name)
    if table is not None:
        steps = table["true_positives"].to_numpy(), table["predicted"].to_numpy()
        summary["average_precision"] = average_precision(*steps, n_true=tp + fn)
        if sweep:
            summary["sweep"] = _thinned(table)
    if draws and not classless:
        summary["intervals"] = bootstrap_intervals(
            counts, lambda c: _point_scores(c[:, 0], c[:, 1], c[:, 2], rules.beta), draws, seed
        )
    return summary


def _center_counts(result: PairResult, class_name: str | None) -> tuple[tuple[int, int, int], np.ndarray]:
    """True positives, false positives and false negatives of a tomogram, and the distances of the first."""
    verdicts, mine_true, mine_predicted = _selected(result, class_name)
    true, predicted = verdicts.true_status[mine_true], verdicts.predicted_status[mine_predicted]
    counts = [int(np.count_nonzero(status)) for status in (true == "TP", predicted == "FP", true == "FN")]
    partners = verdicts.true_partner[mine_true & (verdicts.true_status == "TP")]
    return (counts[0], counts[1], counts[2]), verdicts.distance[partners]


def _point_scores(tp: Any, fp: Any, fn: Any, beta: float) -> dict[str, np.ndarray]:
    return {
        "precision": ratio(tp, np.add(tp, fp)),
        "recall": ratio(tp, np.add(tp, fn)),
        "f1": f_beta(tp, fp, fn, 1.0),
        "f_beta": f_beta(tp, fp, fn, beta),
    }


def _selected(result: PairResult, class_name: str | None) -> tuple[Any, np.ndarray, np.ndarray]:
    """The verdicts that count for a class, and its rows on both sides."""
    if class_name is None:
        return result.points, np.ones(len(result.true), bool), np.ones(len(result.predicted), bool)
    verdicts = result.points if result.class_points is None else result.class_points
    return verdicts, result.true.class_name == class_name, result.predicted.class_name == class_name


def score_sweep(results: Sequence[PairResult], rules: Rules, class_name: str | None = None) -> pd.DataFrame | None:
    """Scores at every threshold of the predictions' score, from the candidates alone; nothing is run again.

    Predictions and particles that were left out (ignored regions, border) stay out at every threshold.

    Returns
    -------
    DataFrame or None
        Highest threshold first: threshold, true_positives, predicted, precision, recall, f1, f_beta.
        None if a prediction has no score, or there are no predictions.
    """
    predicted_index, true_index, scores, n_predicted, n_true = [], [], [], 0, 0
    for r in results:
        verdicts, mine_true, mine_predicted = _selected(r, class_name)
        counted = mine_predicted & (verdicts.predicted_status != "ignored")
        wanted = mine_true & (verdicts.true_status != "ignored")
        both = counted[verdicts.pair_predicted] & wanted[verdicts.pair_true]
        predicted_index.append((np.cumsum(counted) - 1)[verdicts.pair_predicted[both]] + n_predicted)
        true_index.append((np.cumsum(wanted) - 1)[verdicts.pair_true[both]] + n_true)
        scores.append(r.predicted.score[counted])
        n_predicted, n_true = n_predicted + int(counted.sum()), n_true + int(wanted.sum())
    score = np.concatenate(scores)
    if not len(score) or not np.isfinite(score).all():
        return None
    thresholds, hits, kept = hits_by_threshold(np.concatenate(predicted_index), np.concatenate(true_index), score)
    table = pd.DataFrame({"threshold": thresholds, "true_positives": hits, "predicted": kept})
    return table.assign(**_point_scores(hits, kept - hits, n_true - hits, rules.beta))


def _thinned(table: pd.DataFrame) -> list[dict[str, float]]:
    rows = np.unique(np.linspace(0, len(table) - 1, min(len(table), _SWEEP_ROWS)).round().astype(int))
    best = int(table["f1"].fillna(-1).to_numpy().argmax())
    return table.iloc[np.union1d(rows, [best])].to_dict("records")
