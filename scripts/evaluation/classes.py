"""What becomes of classes: who was taken for whom, and the score of the CZII challenge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scripts.evaluation.pair import PairResult, Rules
from scripts.matching.czii import CZII_WEIGHTS, czii_counts, czii_score

__all__ = ["METRICS", "confusion", "czii"]

METRICS = ("czii",)
NOBODY = "(none)"  # the other side of what was missed or made up


def confusion(results: Sequence[PairResult]) -> dict[str, dict[str, int]]:
    """Count, for each true class, the classes of the predictions that its particles were matched to by place alone.

    Returns
    -------
    dict of dict of int
        True class -> predicted class -> particles. ``(none)`` is what was missed, or as a true class what was made up.
        What lies in ignored regions is left out.
    """
    table: dict[str, dict[str, int]] = {}

    def count(true: str, predicted: str) -> None:
        row = table.setdefault(true or NOBODY, {})
        row[predicted or NOBODY] = row.get(predicted or NOBODY, 0) + 1

    for r in results:
        for name, status, partner in zip(r.true.class_name, r.points.true_status, r.points.true_partner, strict=True):
            if status != "ignored":
                count(str(name), str(r.predicted.class_name[partner]) if partner >= 0 else "")
        for name, status in zip(r.predicted.class_name, r.points.predicted_status, strict=True):
            if status == "FP":
                count("", str(name))
    return {true: dict(sorted(row.items())) for true, row in sorted(table.items())}


def czii(results: Sequence[PairResult], rules: Rules, weights: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The challenge's score; see `scripts.matching.czii`.

    The radius of a class is half of its ``particle_diameter``, where that is named, else the median radius of its true
    particles. Weights that are not given are the challenge's: `CZII_WEIGHTS`, 1 for every other class.

    Raises
    ------
    ValueError
        If the truth has no classes, a class has no known radius, or a weight is for a class that is not there.
    """
    names = sorted({str(name) for r in results for name in r.true.class_name} - {""})
    if not names:
        raise ValueError("--metric czii: expected true particles with classes, got none. Give a list that names them.")
    if unknown := sorted(set(weights or {}) - set(names)):
        raise ValueError(f"--class_weights: expected classes of the truth ({', '.join(names)}), got {unknown[0]}.")
    weights = {name: (weights or CZII_WEIGHTS).get(name, 1.0) for name in names}
    counts = {}
    for name in names:
        radius = _radius(results, rules, name)
        each = []
        for r in results:
            found, true = (side.centers_xyz_angstrom[side.class_name == name] for side in (r.predicted, r.true))
            each.append(czii_counts(found, true, radius))
        counts[name] = each
    return czii_score(counts, weights, rules.beta)


def _radius(results: Sequence[PairResult], rules: Rules, name: str) -> float:
    given = rules.particle_diameter
    given = given.get(name) if isinstance(given, Mapping) else given
    if given is not None:
        return float(given) / 2
    diameters = np.concatenate([r.true.diameter_angstrom[r.true.class_name == name] for r in results])
    known = diameters[np.isfinite(diameters)]
    if not len(known):
        raise ValueError(f"--metric czii: the radius of {name} is unknown. Give --particle_diameter (Å).")
    return float(np.median(known)) / 2
