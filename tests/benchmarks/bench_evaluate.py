"""Time `evaluate` at full size, and the original's algorithm in plain form on a smaller volume.

The volumes are in memory; the line to hold is 10 s for all metrics on 2 cores.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from scripts.evaluation.pair import Rules, compare_sides
from scripts.evaluation.picture import color_volume
from scripts.evaluation.sides import Side
from scripts.matching.overlap import overlap_table
from tests.evaluation.in_memory import evaluate_sides

VOXEL = np.array([10.0, 10.0, 10.0])


def scene(shape: tuple[int, int, int], n: int, radius: int = 11, hollow: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Balls, a fifth of them shells, on a jittered grid; predictions shifted by up to two voxels, a tenth merged."""
    rng = np.random.default_rng(0)
    true, predicted = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    box = 2 * radius + 1
    squared = ((np.indices((box,) * 3) - radius) ** 2).sum(0)
    ball, shell = squared <= radius**2, (squared <= radius**2) & (squared >= (radius - 4) ** 2)
    cells = np.stack(np.meshgrid(*[np.arange(3, s - box - 3, box + 2) for s in shape], indexing="ij"), -1).reshape(
        -1, 3
    )
    corners = cells[np.sort(rng.permutation(len(cells))[:n])]  # in raster order, so that neighbours merge
    for i, corner in enumerate(corners, start=1):
        body = shell if rng.random() < hollow else ball
        for volume, at, label in ((true, corner, i), (predicted, corner + rng.integers(-2, 3, 3), i - (i % 10 == 0))):
            volume[tuple(slice(a, a + box) for a in at)][body] = label
    return true, predicted


def original_in_plain_form(true: np.ndarray, predicted: np.ndarray) -> tuple[int, int, np.ndarray]:
    """The original's way: for each true particle a look at the whole volume, then a look for each colour."""
    best = {}
    for label in np.unique(true)[1:]:
        values, counts = np.unique(predicted[true == label], return_counts=True)
        best[label] = values[np.argmax(counts)]
    shared = {p for p in best.values() if list(best.values()).count(p) > 1 and p > 0}
    painted = np.zeros(true.shape, np.int8)
    for label, p in best.items():
        painted[true == label] = 2 if p in shared else 1 if p > 0 else 3
    for label in set(np.unique(predicted)[1:]) - set(best.values()):
        painted[predicted == label] = 3
    found = sum(p > 0 and p not in shared for p in best.values())
    return found, sum(p in shared for p in best.values()), painted


def run(full: bool = False) -> list[dict[str, Any]]:
    """Measure, and return one row per measurement.

    Parameters
    ----------
    full : bool
        Also the full size, 464 x 928 x 928 with 20,000 particles a side.
    """
    true, predicted = scene((96, 192, 192), 600, radius=7)
    sides = Side(predicted, None, VOXEL), Side(true, None, VOXEL)
    evaluate_sides([("warm-up", *sides)])  # compiles
    slow, (_, _, plain) = _row(
        true, "original in plain form, metrics and colours", original_in_plain_form, true, predicted
    )
    metrics, result = _row(true, "ours, all metrics", compare_sides, "small", *sides, Rules(rule="original"))
    # the original has no centers: the ratio is of what both do
    table, _ = _row(true, "ours, overlap table", overlap_table, true, predicted)
    colours, painted = _row(true, "ours, colours", color_volume, result, predicted, true)
    slow["ratio"] = slow["total_s"] / (table["total_s"] + colours["total_s"])
    slow["same_colours"] = float(np.mean(painted[true > 0] == plain[true > 0]))
    rows = [slow, metrics, table, colours]
    if full:
        true, predicted = scene((464, 928, 928), 20_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pair = ("full", Side(predicted, None, VOXEL), Side(true, None, VOXEL))
        whole, _ = _row(true, "ours, all metrics, 1000 bootstrap draws", evaluate_sides, [pair])
        whole["extra_gb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
        result = compare_sides(*pair, Rules())
        rows += [whole, _row(true, "ours, coloured volume", color_volume, result, predicted, true)[0]]
    return rows


def _row(true: np.ndarray, path: str, function: Callable, *arguments: Any) -> tuple[dict[str, Any], Any]:
    """Time one call; the row, and what the call returned."""
    start, busy = time.perf_counter(), time.process_time()
    result = function(*arguments)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    size = " x ".join(map(str, true.shape))
    return {"bench": "evaluate", "path": path, "size": size, "total_s": seconds, "processor_s": busy}, result
