"""Learn all classes of the examples, and say in words what is known of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

from custom_transforms.measuring.taught import CLIP, Taught, TaughtClass
from scripts.teach.fit import FEWEST, Fit, fit_class

__all__ = ["Learnt", "LearntClass", "learn_classes", "standardised"]

ALIKE = 0.7  # share of pairs of held-out examples of two classes in the right order, below which these look like one


@dataclass(frozen=True)
class LearntClass:
    """A class in probabilities, and what is known of it in words and numbers."""

    name: str
    weights: np.ndarray
    bias: float
    threshold: float
    examples: int
    text: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Learnt:
    """The classes, and what there is to warn of."""

    classes: list[LearntClass]
    warnings: list[str] = field(default_factory=list)

    def taught(self, mean: np.ndarray, scale: np.ndarray, settings: Mapping[str, Any], weights: str | None) -> Taught:
        """What a file holds of it; ``mean`` and ``scale`` as `standardised` gave them, the rest of the detection."""
        classes = tuple(
            TaughtClass(one.name, one.weights, one.bias, one.threshold, one.examples) for one in self.classes
        )
        about = " ".join(one.text for one in self.classes)
        return Taught(float(settings["particle_diameter"]), mean, scale, classes, settings, weights, about)


def standardised(descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Descriptors with mean 0 and deviation 1, clipped; their mean and deviation, 1 where they do not vary."""
    mean, scale = descriptors.mean(axis=0), descriptors.std(axis=0)
    scale = np.where(scale > 1e-9 * (1 + np.abs(mean)), scale, 1.0)
    return np.clip((descriptors - mean) / scale, -CLIP, CLIP), mean, scale


def learn_classes(values: np.ndarray, known: np.ndarray, names: Sequence[str]) -> Learnt:
    """Learn each class against everything else.

    Parameters
    ----------
    values : ndarray, shape (n, descriptors)
        Of all candidates, standardised.
    known : ndarray, shape (n,), str
        Their classes, "other", or "" where nobody has said.
    names : sequence of str
        The classes.
    """
    fits = {name: fit_class(values, known == name, (known != "") & (known != name)) for name in names}
    warnings = [text for name, fit in fits.items() for text in _doubts(name, fit, known)]
    for one, other in combinations(names, 2):
        order = _told_apart(fits[one].scores - fits[other].scores, known == one, known == other)
        if order is not None and order < max(ALIKE, min(0.5 + 2 * _chance(known == one, known == other), 0.99)):
            warnings.append(
                f"{one} and {other} can hardly be told apart: of two held-out examples the right one comes first in "
                f"{order:.0%} of cases (50% is chance). Are they one class?"
            )
    return Learnt([_in_probabilities(name, fit, known == name) for name, fit in fits.items()], warnings)


def _doubts(name: str, fit: Fit, known: np.ndarray) -> list[str]:
    """What is odd about the examples of a class."""
    texts, own = [], fit.scores[known == name]
    if len(own) < FEWEST:
        texts.append(f"{name}: {len(own)} examples are too few to choose: give at least {FEWEST}, better 20")
    unlike = int((own < np.nanmedian(fit.scores)).sum())
    if unlike and len(own) >= FEWEST:
        texts.append(
            f"{name}: {unlike} of {len(own)} examples look less like the others than half of all candidates do. "
            "Is any of them wrong?"
        )
    return texts


def _chance(one: np.ndarray, other: np.ndarray) -> float:
    """The deviation of `_told_apart` by chance."""
    n, m = int(one.sum()), int(other.sum())
    return float(np.sqrt((n + m + 1) / (12 * n * m)))


def _told_apart(difference: np.ndarray, one: np.ndarray, other: np.ndarray) -> float | None:
    """How often a held-out example of the one class has the larger difference; None for fewer than 2 of each."""
    n, m = int(one.sum()), int(other.sum())
    if min(n, m) < 2:
        return None
    ranks = rankdata(np.concatenate([difference[one], difference[other]]))
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def _in_probabilities(name: str, fit: Fit, positive: np.ndarray) -> LearntClass:
    """Turn decision values into probabilities, and write down what is known."""
    held, n = fit.held, int(positive.sum())
    slope, offset = _calibration(fit.scores, positive, held.most_particles)
    everything = not np.isfinite(held.threshold)
    threshold = 0.0 if everything else float(expit(slope * held.threshold + offset))
    if everything:
        said = f"keeps all candidates; {n} examples give no better choice: give more"
    else:
        said = (
            f"keeps those of at least {threshold:.2f}, which are {held.recall_low:.0%} to {held.recall_high:.0%} of "
            "the class's candidates; how many others are among them examples cannot say: look at the pictures"
        )
    facts = {**vars(held), "threshold": threshold, "class": name, "examples": n, "keeps_all": everything}
    text = f"{name}: {n} examples; {said}."
    return LearntClass(name, slope * fit.weights, slope * fit.bias + offset, threshold, n, text, facts)


def _calibration(scores: np.ndarray, positive: np.ndarray, particles: float) -> tuple[float, float]:
    """Slope and offset that make probabilities of held-out decision values.

    The risk of a logistic regression where the unlabelled are a mixture (du Plessis et al., ICML 2015): convex, and
    with it the probabilities of all candidates sum up to the number of particles.
    """
    used = scores[np.isfinite(scores)]
    share = min(particles / len(used), 0.95)
    own = scores[positive].mean()

    def risk(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, offset = parameters
        logits = slope * used + offset
        odds = 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
        value = np.logaddexp(0, logits).mean() - share * (slope * own + offset)
        return value, np.array([(odds * used).mean() - share * own, odds.mean() - share])

    found = minimize(risk, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.1, 20.0), (-50.0, 50.0)])
    return float(found.x[0]), float(found.x[1])
