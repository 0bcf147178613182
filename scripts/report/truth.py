"""What `evaluate` knows, put beside the particles of one run: an outcome for each, and what was missed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scripts.report.inputs import RunData

__all__ = ["OUTCOMES", "Comparison", "compare", "flat_metrics"]

OUTCOMES = ("TP", "merged", "split", "FP", "FN")
_PREDICTED = ("predicted_id", "predicted_label", "predicted", "particle_id", "label")
_TRUE = ("true_id", "true_label", "truth_id", "truth_label", "true", "truth")
Evaluation = dict[str, Any] | str | Path | None


@dataclass(frozen=True)
class Comparison:
    """``outcome``: one word per row of the particle table ("" unknown); ``misses``: centers_zyx_vox and label of FN."""

    metrics: dict[str, Any]
    outcome: np.ndarray
    scored: pd.DataFrame
    misses_zyx_vox: np.ndarray
    n_truth: int

    def counts(self) -> dict[str, int]:
        """Return how often each outcome occurs, misses included."""
        found = {name: int((self.outcome == name).sum()) for name in OUTCOMES}
        found["FN"] = len(self.misses_zyx_vox)
        return found


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
    metrics = json.loads(Path(parts[0]).read_text("utf-8")) if isinstance(parts[0], (str, Path)) else dict(parts[0])
    matches = pd.read_csv(parts[1]) if isinstance(parts[1], (str, Path)) else parts[1].reset_index(drop=True)
    if "outcome" not in matches.columns:
        raise ValueError(
            f"report: expected a column outcome ({', '.join(OUTCOMES)}) in the matches, found "
            f"{', '.join(map(str, matches.columns))}. Give the matches.csv that `python -m scripts evaluate` wrote."
        )
    if "tomogram" in matches.columns and (matches["tomogram"].astype(str) == run.name).any():
        matches = matches[matches["tomogram"].astype(str) == run.name]
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


def _column(matches: pd.DataFrame, names: tuple[str, ...]) -> pd.Series:
    for name in names:
        if name in matches.columns:
            return pd.to_numeric(matches[name], errors="coerce")
    return pd.Series(np.nan, index=matches.index)


def _join(metrics: dict[str, Any], matches: pd.DataFrame, run: RunData) -> Comparison:
    outcome = matches["outcome"].astype(str)
    predicted_name = next((n for n in _PREDICTED if n in matches.columns), "")
    key = "particle_id" if predicted_name in ("predicted_id", "particle_id") else "label"
    predicted = _column(matches, _PREDICTED)
    on_prediction = predicted.notna() & (predicted > 0) & (outcome != "FN")
    of_id = dict(zip(predicted[on_prediction].astype(int), outcome[on_prediction], strict=True))
    keys = run.particles[key].astype(int)
    outcomes = np.array([of_id.get(k, "") if k > 0 else "" for k in keys], dtype=object)
    scored = pd.DataFrame({"outcome": outcomes})
    scored["score"] = pd.to_numeric(run.particles["score"]) if "score" in run.particles.columns else np.nan
    missed = matches[outcome == "FN"]
    truths = _column(matches, _TRUE)
    known = truths[truths > 0].nunique()
    n_truth = int(known or (outcome == "TP").sum() + len(missed))
    return Comparison(metrics, outcomes, scored[scored["outcome"] != ""], _positions(missed, run), n_truth)


def _positions(missed: pd.DataFrame, run: RunData) -> np.ndarray:
    """Return the centers (Z, Y, X) in voxels of the rows that have one."""
    columns = []
    for axis, size in zip("zyx", run.voxel_size_zyx, strict=True):
        voxels = _column(missed, (f"true_{axis}_vox", f"truth_{axis}_vox", f"{axis}_vox"))
        angstrom = _column(missed, (f"true_{axis}_angstrom", f"truth_{axis}_angstrom", f"{axis}_angstrom"))
        columns.append(voxels.fillna(angstrom / size).to_numpy(float))
    centers = np.stack(columns, axis=1).reshape(-1, 3)
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
