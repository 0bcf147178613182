"""The score of the CZII challenge of 2024 (CryoET Object Identification): F-beta of each class, pooled over tomograms.

A prediction is right if a particle of its class lies within half the radius of the class, and a particle is found if
such a prediction is there; counts are added up over the tomograms before they are divided. This is the rule of the
challenge's own code, also where particles are nearer to each other than that: there a prediction may find two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scripts.matching.points import candidate_pairs
from scripts.matching.scores import f_beta, ratio

__all__ = ["CZII_WEIGHTS", "czii_counts", "czii_score"]

FRACTION = 0.5
CZII_WEIGHTS = {"beta-amylase": 0.0, "beta-galactosidase": 2.0, "thyroglobulin": 2.0}  # of the challenge; others 1


def czii_counts(predicted: np.ndarray, true: np.ndarray, radius: float) -> tuple[int, int, int]:
    """Hits, false predictions and missed particles of one class in one tomogram.

    Parameters
    ----------
    predicted, true : ndarray, shape (n, 3)
        Å.
    radius : float
        Å, of the class.

    Examples
    --------
    >>> czii_counts(np.array([[0.0, 0, 0], [0, 0, 1], [90, 0, 0]]), np.array([[0.0, 0, 4], [50, 0, 0]]), 10.0)
    (1, 2, 1)
    """
    _, found, _ = candidate_pairs(predicted, true, FRACTION * radius)
    hits = len(np.unique(found))
    return hits, len(predicted) - hits, len(true) - hits


def czii_score(
    counts: Mapping[str, Sequence[tuple[int, int, int]]], weights: Mapping[str, float], beta: float = 4.0
) -> dict[str, object]:
    """The weighted mean over the classes of F-beta from counts that are added up over tomograms.

    Parameters
    ----------
    counts : mapping of class name to a `czii_counts` for each tomogram
    weights : mapping of class name to number
    beta : float

    Returns
    -------
    dict
        ``score``, and ``classes``: ``tp``, ``fp``, ``fn``, ``precision``, ``recall``, ``f_beta``, ``weight`` of each.
        A class without particles and predictions scores 0, as in the challenge.

    Examples
    --------
    >>> float(czii_score({"a": [(3, 1, 0), (0, 0, 1)], "b": [(0, 0, 2)]}, {"a": 1.0, "b": 1.0}, beta=1.0)["score"])
    0.375
    """
    classes = {}
    for name, each in counts.items():
        tp, fp, fn = (int(value) for value in np.sum(each, axis=0))
        classes[name] = {
            "tp": tp, "fp": fp, "fn": fn, "precision": float(ratio(tp, tp + fp)), "recall": float(ratio(tp, tp + fn)),
            "f_beta": float(np.nan_to_num(f_beta(tp, fp, fn, beta))), "weight": float(weights[name]),
        }  # fmt: skip
    total = sum(one["weight"] for one in classes.values())
    score = sum(one["weight"] * one["f_beta"] for one in classes.values())
    return {"score": score / total if total else float("nan"), "beta": beta, "classes": classes}
