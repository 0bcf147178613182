"""From counts to precision, recall, F and average precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["average_precision", "f_beta", "ratio"]


def ratio(part: ArrayLike, whole: ArrayLike) -> np.ndarray:
    """Divide; where the whole is 0 there is nothing to judge and the result is nan.

    Examples
    --------
    >>> ratio([1, 0], [2, 0])
    array([0.5, nan])
    """
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)


def f_beta(
    true_positives: ArrayLike, false_positives: ArrayLike, false_negatives: ArrayLike, beta: float
) -> np.ndarray:
    """Weigh precision against recall, recall ``beta`` times as heavily.

    Written in counts, (1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP), so that it is 0 and not nan when nothing was
    predicted or nothing was there to find; nan only if both hold.

    Examples
    --------
    >>> float(f_beta(3, 1, 1, beta=1.0))
    0.75
    """
    hits = (1 + beta**2) * np.asarray(true_positives, np.float64)
    return ratio(hits, hits + beta**2 * np.asarray(false_negatives) + np.asarray(false_positives))


def average_precision(true_positives: Sequence[int] | np.ndarray, predicted: np.ndarray, n_true: int) -> float:
    """Area under the precision-recall steps (no interpolation), from the strictest threshold to the loosest.

    Parameters
    ----------
    true_positives, predicted : ndarray, shape (k,)
        True positives and predictions that remain at each distinct threshold, from the highest threshold down.
    n_true : int
        Particles there are to find.

    Returns
    -------
    float
        0 to 1; nan when there is nothing to find, 0 when nothing was predicted.

    Examples
    --------
    >>> average_precision([1, 1, 2], np.array([1, 2, 3]), n_true=2)  # 1/2 x 1 + 1/2 x 2/3
    0.8333333333333333
    """
    if n_true == 0:
        return float("nan")
    hits = np.asarray(true_positives, np.float64)
    gained = np.diff(hits, prepend=0.0) / n_true
    return float(np.sum(gained * hits / np.asarray(predicted, np.float64)))
