"""95 % intervals: what the scores would be if other particles, or other tomograms, had been looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["bootstrap_intervals"]

Scores = Callable[[np.ndarray], dict[str, np.ndarray]]


def bootstrap_intervals(
    outcomes: Sequence[Sequence[int]], scores: Scores, draws: int = 1000, seed: int = 0
) -> dict[str, dict[str, list[float]]]:
    """Percentile bootstrap over particles and over tomograms.

    A particle is one outcome (a true positive is one, though it has a true and a predicted side). Drawing the
    particles of a tomogram with replacement makes its counts multinomial, so they are drawn as such.

    Parameters
    ----------
    outcomes : sequence of length t (tomograms) of k counts
        How often each outcome occurred in each tomogram.
    scores : callable
        Takes counts of shape (draws, k), gives name -> values of shape (draws,).
    draws : int
        0 gives no intervals.
    seed : int
        The same seed gives the same intervals.

    Returns
    -------
    dict
        ``particles``: particles drawn within each tomogram; ``tomograms`` (only with two or more): tomograms drawn
        first, then their particles, as a new data set would bring both. Each: name -> [low, high], the 2.5 and 97.5
        percentiles; nan where a score is undefined in every draw.

    Examples
    --------
    >>> one = bootstrap_intervals([[90, 10]], lambda c: {"recall": c[:, 0] / c.sum(axis=1)})
    >>> [round(v, 2) for v in one["particles"]["recall"]]
    [0.84, 0.96]
    """
    counts = np.asarray(outcomes, np.int64).reshape(len(outcomes), -1)
    if draws < 1 or not counts.sum():
        return {}
    rng = np.random.default_rng(seed)
    every = np.tile(np.arange(len(counts)), (draws, 1))
    result = {"particles": _percentiles(scores(_draw(rng, counts, every)))}
    if len(counts) > 1:
        chosen = rng.integers(len(counts), size=every.shape)
        result["tomograms"] = _percentiles(scores(_draw(rng, counts, chosen)))
    return result


def _draw(rng: np.random.Generator, counts: np.ndarray, tomograms: np.ndarray) -> np.ndarray:
    """Sum of the redrawn counts of the given tomograms, (draws, t) -> (draws, k)."""
    totals = np.zeros((len(tomograms), counts.shape[1]), np.int64)
    sizes = counts.sum(axis=1)
    for column in tomograms.T:
        shares = counts[column] / np.maximum(sizes[column], 1)[:, None]
        shares[sizes[column] == 0, 0] = 1.0  # an empty tomogram: nothing is drawn, any shares will do
        totals += rng.multinomial(sizes[column], shares)
    return totals


def _percentiles(scores: dict[str, np.ndarray]) -> dict[str, list[float]]:
    intervals = {}
    for name, values in scores.items():
        defined = values[np.isfinite(values)]
        intervals[name] = np.percentile(defined, [2.5, 97.5]).tolist() if len(defined) else [float("nan")] * 2
    return intervals
