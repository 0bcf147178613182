"""Evaluate what is in memory already, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scripts.evaluation.pair import Rules, compare_sides
from scripts.evaluation.sides import Side
from scripts.evaluation.summary import summarise


def evaluate_sides(
    pairs: Sequence[tuple[str, Side, Side]], rules: Rules | None = None, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The numbers of `evaluate` for (name, predicted, true) of every tomogram."""
    rules = rules or Rules()
    return summarise([compare_sides(name, *sides, rules) for name, *sides in pairs], rules, bootstrap, seed)
