"""Which candidates are most like the examples and which least: guesses that teach the networks beside the examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scripts.teach.candidates import Candidates
from scripts.teach.classes import standardised
from scripts.teach.examples import OTHER, Examples
from scripts.teach.fit import fit_class

__all__ = ["alike"]

MORE, MOST = 2, 40  # so many times the examples of a class, and at most so many, are most like them: taken for such
UNLIKE = 0.25  # of the candidates, those least like the examples of any class, are taken for something else


def alike(candidates: Sequence[Candidates], examples: Examples) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Guess what some candidates are, by what tells the examples from the rest; see `fit_class`.

    A candidate that no fit has seen tells more than one that it had as "not labelled", so scores are the held-out ones.
    Only tomograms with examples have guesses: the networks are not trained on others.

    Returns
    -------
    tuple of lists of ndarray, shape (n, 3)
        X, Y, Z in Å, of each tomogram: candidates taken for one of the classes, and for something else.
    """
    known = np.concatenate(examples.known)
    owner = np.repeat(np.arange(len(candidates)), [len(one.table) for one in candidates])
    taught = np.isin(owner, owner[np.isin(known, examples.classes)])
    values, _, _ = standardised(np.concatenate([one.descriptors for one in candidates]))
    more, rank = np.zeros(len(known), bool), np.full(len(known), np.nan)
    for name in examples.classes:
        scores = fit_class(values, known == name, (known != "") & (known != name)).scores
        free = np.flatnonzero(taught & (known == "") & np.isfinite(scores))
        order = free[np.argsort(-scores[free], kind="stable")]
        more[order[: min(MORE * int((known == name).sum()), MOST)]] = True
        rank[order] = np.fmin(rank[order], np.arange(len(order)))  # the class that it is most like counts
    guessed = np.isfinite(rank)
    unlike = known == OTHER
    if guessed.any():
        unlike |= (rank >= np.quantile(rank[guessed], 1 - UNLIKE)) & ~more
    centers = np.concatenate([one.centers_xyz_angstrom for one in candidates])
    split = [[centers[chosen & (owner == number)] for number in range(len(candidates))] for chosen in (more, unlike)]
    return split[0], split[1]
