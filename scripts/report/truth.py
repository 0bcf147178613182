"""What `evaluate` knows, put beside the particles of one run: an outcome for each, and what was missed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from custom_transforms.files.json_object import read_object
from scripts.particles.shared.context import tomogram_base_name
from scripts.report.inputs import RunData

__all__ = ["OUTCOMES", "Comparison", "compare", "flat_metrics"]

OUTCOMES = {
    "TP": "right (true positive, TP)",
    "merged": "merged",
    "split": "split",
    "FP": "false (false positive, FP)",
    "FN": "missed (false negative, FN)",
}
Evaluation = dict[str, Any] | str | Path | None


@dataclass(frozen=True)
class Comparison:
    """An evaluation beside one run's particles.

    Attributes
    ----------
    metrics : dict
        Of this tomogram, where the evaluation has it, else of all.
    outcome, reason : ndarray, shape (n,), str
        One word of `OUTCOMES` (or "ignored") and a sentence for each row of the particle table; "" unknown.
    scored : DataFrame
        ``score`` and ``outcome`` of the predicted particles that count, judged by their centers where both were.
    misses_zyx_vox : ndarray, shape (m, 3)
        Centers of the true particles that were missed.
    n_truth : int
        True particles that count.
    true_counts : dict
        How many true particles have each outcome; empty for matches that list no true particle but the missed.
    """

    metrics: dict[str, Any]
    outcome: np.ndarray
    reason: np.ndarray
    scored: pd.DataFrame
    misses_zyx_vox: np.ndarray
    n_truth: int
    true_counts: dict[str, int]

    def counts(self) -> dict[str, int]:
        """Return how many detections have each outcome, and how many true particles were missed (FN)."""
        found = {name: int((self.outcome == name).sum()) for name in OUTCOMES}
        found["FN"] = len(self.misses_zyx_vox)
        return found

    def sentence(self) -> str:
        """Say what became of the detections and of the true particles, each in its own unit."""
        n, true = self.counts(), self.true_counts
        parts = [f"{n['TP']:,} right"]
        for name in ("split", "merged"):
            found, particles = n[name], true.get(name)
            into = f"{found:,} detection{'' if found == 1 else 's'}"
            if particles is None:
                parts.append(f"{into} {name}")
            elif found or particles:
                parts.append(f"{particles:,} particle{'' if particles == 1 else 's'} {name} into {into}")
            else:
                parts.append(f"none {name}")
        parts += [f"{n['FP']:,} false", f"{n['FN']:,} of {self.n_truth:,} true particles missed"]
        return "; ".join(parts)

    def by_class(self) -> list[tuple[str, dict[str, Any]]]:
        """Return class name and scores, for the classes that the metrics know."""
        classes = self.metrics.get("classes")
        return list(classes.items()) if isinstance(classes, dict) else []

    def confusion(self) -> tuple[list[str], list[tuple[str, list[int]]]]:
        """Return the classes of the predictions, and of each true class how many particles were taken for which.

        ``(none)`` comes last: what was missed, and what was made up.
        """
        table = self.metrics.get("confusion") or {}

        def in_order(names: Iterable[str]) -> list[str]:
            return sorted(names, key=lambda name: (name == "(none)", name))

        columns = in_order({name for row in table.values() for name in row})
        return columns, [(true, [table[true].get(name, 0) for name in columns]) for true in in_order(table)]

    def class_scores(self) -> list[tuple[str, str]]:
        """Return those of the scores that some class has: detections without classes have no precision by class."""
        known = [scores for _, scores in self.by_class()]
        pairs = [(kind, key) for kind in ("points", "volume") for key in ("precision", "recall", "f1")]
        return [(kind, key) for kind, key in pairs if any((of.get(kind) or {}).get(key) is not None for of in known)]


def compare(evaluation: Evaluation, run: RunData) -> Comparison | None:
    """Join an evaluation to the particle table.

    Parameters
    ----------
    evaluation : dict, path or None
        A folder with ``metrics.json`` and ``matches.csv``, or a dict with ``metrics`` (dict or path) and ``matches``
        (DataFrame or path). None looks for the two files beside the run and gives None if they are not there.
    run : RunData

    Raises
    ------
    FileNotFoundError
        If a given file does not exist.
    ValueError
        If the matches have no column ``outcome``.
    """
    parts = _parts(evaluation, run)
    if parts is None:
        return None
    metrics = read_object(parts[0], "the metrics of evaluate") if isinstance(parts[0], (str, Path)) else dict(parts[0])
    matches = pd.read_csv(parts[1]) if isinstance(parts[1], (str, Path)) else parts[1].reset_index(drop=True)
    if "outcome" not in matches.columns:
        raise ValueError(
            f"report: expected a column outcome ({', '.join(OUTCOMES)}) in the matches, found "
            f"{', '.join(map(str, matches.columns))}. Give the matches.csv that `python -m scripts evaluate` wrote."
        )
    name = tomogram_base_name(run.name)
    if "tomogram" in matches.columns and (own := matches["tomogram"].astype(str) == name).any():
        matches = matches[own]
    return _join(metrics, matches, run)


def _parts(evaluation: Evaluation, run: RunData) -> tuple[Any, Any] | None:
    if isinstance(evaluation, dict):
        if "matches" not in evaluation:
            raise ValueError(
                f"report: expected an evaluation with metrics and matches, got {', '.join(map(str, evaluation))}. "
                "Give the folder that `python -m scripts evaluate` wrote."
            )
        return evaluation.get("metrics") or {}, evaluation["matches"]
    folder = run.prefix.parent if evaluation is None else Path(evaluation)
    metrics, matches = folder / "metrics.json", folder / "matches.csv"
    if evaluation is None and not matches.is_file():
        return None
    for path in (metrics, matches):
        if not path.is_file():
            raise FileNotFoundError(
                f"report: expected {str(path)!r}, which does not exist. "
                "Give the folder that `python -m scripts evaluate` wrote."
            )
    return metrics, matches


def _column(matches: pd.DataFrame, *names: str) -> pd.Series:
    for name in names:
        if name in matches.columns:
            return pd.to_numeric(matches[name], errors="coerce")
    return pd.Series(np.nan, index=matches.index)


def _join(metrics: dict[str, Any], matches: pd.DataFrame, run: RunData) -> Comparison:
    outcome = matches["outcome"].astype(str)
    side = matches["side"] if "side" in matches.columns else pd.Series(np.where(outcome == "FN", "true", "predicted"))
    on_prediction = (side == "predicted").to_numpy()
    predicted = matches[on_prediction].assign(
        key=_column(matches, "predicted_label", "predicted_id")[on_prediction],
        reason=matches["reason"] if "reason" in matches.columns else "",
    )
    by_label = predicted[predicted["key"] > 0].drop_duplicates("key").set_index("key")
    rows = by_label.reindex(run.particles["label"].where(run.particles["label"] > 0, -1))
    center_outcome = "point_outcome" if "point_outcome" in predicted.columns else "outcome"
    scored = predicted[["key", center_outcome]].rename(columns={center_outcome: "outcome"})
    scored["score"] = scored["key"].map(run.particles.drop_duplicates("label").set_index("label")["score"])
    true = matches[~on_prediction]
    counted = int((true["outcome"] != "ignored").sum())
    listed = int(_column(matches, "true_label", "true_id").replace(0, np.nan).nunique())
    tomograms = metrics.get("tomograms")
    own = tomograms.get(tomogram_base_name(run.name)) if isinstance(tomograms, dict) else None
    return Comparison(
        metrics=own or metrics,
        outcome=rows["outcome"].fillna("").to_numpy(str),
        reason=rows["reason"].fillna("").to_numpy(str),
        scored=scored[scored["outcome"].isin(OUTCOMES)],
        misses_zyx_vox=_positions(true[true["outcome"] == "FN"], run),
        n_truth=counted if "side" in matches.columns else listed,
        true_counts={name: int((true["outcome"] == name).sum()) for name in OUTCOMES if name != "FP"}
        if "side" in matches.columns
        else {},
    )


def _positions(missed: pd.DataFrame, run: RunData) -> np.ndarray:
    """Return the centers (Z, Y, X) in voxels of the rows that have one."""
    columns = []
    for axis, size in zip("zyx", run.voxel_size_zyx, strict=True):
        columns.append(_column(missed, f"{axis}_vox").fillna(_column(missed, f"{axis}_angstrom") / size))
    centers = np.stack([column.to_numpy(float) for column in columns], axis=1).reshape(-1, 3)
    return centers[np.isfinite(centers).all(axis=1)]


def flat_metrics(metrics: dict[str, Any], prefix: str = "", limit: int = 200) -> list[tuple[str, str]]:
    """Flatten nested metrics to dotted names and short texts; lists of more than four numbers are left out.

    Examples
    --------
    >>> flat_metrics({"volume": {"f1": 0.91234, "n": 3}, "curve": [1, 2, 3, 4, 5]})
    [('volume.f1', '0.912'), ('volume.n', '3')]
    """
    rows: list[tuple[str, str]] = []
    for name, value in metrics.items():
        full = f"{prefix}{name}"
        if isinstance(value, dict):
            rows += flat_metrics(value, full + ".", limit)
        elif isinstance(value, (list, tuple)) and not (len(value) <= 4 and all(not isinstance(v, dict) for v in value)):
            continue
        else:
            rows.append((full, ", ".join(map(_short, value)) if isinstance(value, (list, tuple)) else _short(value)))
    return rows[:limit]


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
