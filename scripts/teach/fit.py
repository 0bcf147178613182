"""Learn a class from examples among candidates of which most are not labelled, and choose its threshold.

An unlabelled candidate may well be of the class. So nothing is taken for a wrong answer: the examples are a random part
of the class, and how much of it lies above a threshold is measured on examples that were held out. That, and how many
candidates lie there, says how many particles of the class there can be at most; see `choose_threshold`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm

__all__ = ["FEWEST", "Fit", "Held", "choose_threshold", "fit_class", "fit_logistic", "held_out"]

FEWEST = 3  # examples that can choose
FOLDS = 5
STRENGTH = 0.2  # how much an example weighs against the wish for small weights
LEAST_RECALL = 0.25  # of thresholds that say how many particles of the class there are
PRIOR = 3.0  # examples' worth of the belief that the class spreads as far as everything else
CAUTION = 0.5, 4.0  # a + b / n standard errors by which the mean of n examples is taken to be lower
GAIN = 0.3  # part of the F1 of keeping all, over sqrt(n), by which a choice of n examples has to be better
MOST_UNLABELLED = 20_000


@dataclass(frozen=True)
class Held:
    """What held-out examples say of a threshold.

    Attributes
    ----------
    threshold : float
        Of the decision values; -inf where all candidates are kept, because nothing would be better.
    recall_low, recall_high : float
        Between which the recall lies, of the class among the candidates: three standard errors of the mean.
    most_particles : float
        How many of the class there can be among the candidates at most. How many there are, and so the precision,
        nobody can say from examples alone: whatever lies among them may be of the class or not.
    """

    threshold: float
    recall_low: float
    recall_high: float
    most_particles: float


@dataclass(frozen=True)
class Fit:
    """A class: decision value ``weights @ standardised descriptors + bias``, and what is known of it.

    ``scores`` are the held-out decision values of all candidates; nan of those beyond `MOST_UNLABELLED`.
    """

    weights: np.ndarray
    bias: float
    held: Held
    scores: np.ndarray


def fit_class(values: np.ndarray, positive: np.ndarray, negative: np.ndarray, seed: int = 0) -> Fit:
    """Learn a class from examples.

    Parameters
    ----------
    values : ndarray, shape (n, descriptors)
        Standardised.
    positive, negative : ndarray, shape (n,), bool
        Examples and counter-examples; the rest is not labelled.
    seed : int
        Of the folds.
    """
    use, rest = positive | negative, np.flatnonzero(~positive & ~negative)
    use[np.random.default_rng(seed).permutation(rest)[:MOST_UNLABELLED]] = True
    weights, bias = fit_logistic(values[use], positive[use], negative[use])
    scores = np.full(len(values), np.nan)
    scores[use] = held_out(values[use], positive[use], negative[use], seed)
    held = choose_threshold(scores[positive], scores[use & ~positive])
    if positive.sum() < FEWEST:  # one says nothing of how the class spreads, and two next to nothing
        held = replace(held, threshold=-np.inf, recall_low=1.0, recall_high=1.0)
    return Fit(weights, bias, held, scores)


def fit_logistic(values: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit weights and bias of a logistic regression with an L2 penalty; both sides weigh the same.

    The penalty weakens with the number of examples. Counter-examples weigh as much as half the other side.
    """
    n = int(positive.sum())
    share = np.where(positive, 0.5 / max(n, 1), 0.0)
    rest, known = ~positive & ~negative, int(negative.sum())
    part = 0.5 * known / (known + n) if rest.any() else float(known > 0)
    share[negative] = 0.5 * part / max(known, 1)
    share[rest] = 0.5 * (1 - part) / max(int(rest.sum()), 1)
    penalty = 1 / (STRENGTH * max(n, 1))
    target = positive.astype(float)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = parameters[:-1], parameters[-1]
        logits = values @ weights + bias
        error = share * (1 / (1 + np.exp(-np.clip(logits, -50, 50))) - target)
        value = (share * (np.logaddexp(0, logits) - target * logits)).sum() + penalty / 2 * (weights**2).sum()
        return value, np.append(values.T @ error + penalty * weights, error.sum())

    found = minimize(loss, np.zeros(values.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    return found[:-1], float(found[-1])


def held_out(values: np.ndarray, positive: np.ndarray, negative: np.ndarray, seed: int = 0) -> np.ndarray:
    """Decision value of each candidate by a fit without it; of a single example by its own fit, which flatters it."""
    folds = min(int(positive.sum()), FOLDS)
    scores = np.empty(len(values))
    if folds < 2:
        weights, bias = fit_logistic(values, positive, negative)
        return values @ weights + bias
    random, fold = np.random.default_rng(seed), np.empty(len(values), int)
    for group in (positive, negative, ~positive & ~negative):
        rows = random.permutation(np.flatnonzero(group))
        fold[rows] = np.arange(len(rows)) % folds
    for number in range(folds):
        test = fold == number
        weights, bias = fit_logistic(values[~test], positive[~test], negative[~test])
        scores[test] = values[test] @ weights + bias
    return scores


def choose_threshold(examples: np.ndarray, others: np.ndarray) -> Held:
    """Choose the decision value above which candidates are kept, by the F1 that can be expected.

    Recall comes from a normal distribution of the examples' values, wider the fewer they are. No more of the class can
    lie above a threshold than candidates do: over all thresholds that bounds how many there are. Both give the F1.

    Parameters
    ----------
    examples, others : ndarrays, shapes (n,) and (m,)
        Held-out decision values of examples and of all other candidates.
    """
    n, every = len(examples), np.concatenate([examples, others])
    thresholds = np.concatenate([[-np.inf], np.quantile(every, np.linspace(0, 0.998, 300))])
    spread = every.var() if len(others) == 0 else others.var()
    variance = (PRIOR * spread + ((examples - examples.mean()) ** 2).sum()) / (PRIOR + n - 1) * (1 + 1 / n)
    deviation = np.sqrt(max(variance, 1e-12))
    error = deviation / np.sqrt(n)
    recall = norm.sf(thresholds, examples.mean() - (CAUTION[0] + CAUTION[1] / n) * error, deviation)
    kept = len(others) - np.searchsorted(np.sort(others), thresholds) + n * recall
    enough = recall >= LEAST_RECALL
    particles = max(float(n), float((kept[enough] / recall[enough]).min()))
    f1 = 2 * recall * particles / (particles + kept)
    best = int(np.argmax(f1))  # the first of equal ones keeps most
    if f1[best] < f1[0] * (1 + GAIN / np.sqrt(n)):
        best = 0
    low, high = (float(norm.sf(thresholds[best], examples.mean() + side * error, deviation)) for side in (-3, 3))
    return Held(float(thresholds[best]), low, high, particles)
