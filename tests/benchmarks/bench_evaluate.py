"""Time `evaluate` at full size, and the original's algorithm in plain form on a smaller volume.

    python tests/benchmarks/bench_evaluate.py [--small]

Prints one line per figure. The volumes are in memory; the line to hold is 10 s for all metrics on 2 cores.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.evaluate import evaluate_sides
from scripts.evaluation.outputs import color_volume
from scripts.evaluation.overlap import overlap_table
from scripts.evaluation.pair import Rules, compare_sides
from scripts.evaluation.sides import Side

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


def timed(what: str, function, *arguments):
    start, busy = time.perf_counter(), time.process_time()
    result = function(*arguments)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    print(f"{what}: {seconds:.2f} s ({busy:.2f} s of processor time, all threads)")
    return result, seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="leave out the full size")
    options = parser.parse_args()
    true, predicted = scene((96, 192, 192), 600, radius=7)
    sides = Side(predicted, None, VOXEL), Side(true, None, VOXEL)
    evaluate_sides([("warm-up", *sides)])  # compiles
    print(f"{true.shape}, {true.max()} particles")
    (_, _, plain), slow = timed("  original's algorithm, metrics and colours", original_in_plain_form, true, predicted)
    result, _ = timed("  ours, all metrics", compare_sides, "small", *sides, Rules(rule="original"))
    # the original has no centers: the ratio is of what both do
    _, first = timed("  ours, overlap table", overlap_table, true, predicted)
    painted, second = timed("  ours, colours", color_volume, result, predicted, true)
    agree = np.mean(painted[true > 0] == plain[true > 0])
    print(f"  ratio: {slow / (first + second):.0f} (same colours on {agree:.1%} of the true particles' voxels)")
    if options.small:
        return
    true, predicted = scene((464, 928, 928), 20_000)
    print(f"{true.shape}, {len(np.unique(true[::8])) - 1}+ particles a side")
    timed("  overlap table", overlap_table, true, predicted)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pair = ("full", Side(predicted, None, VOXEL), Side(true, None, VOXEL))
    timed("  all metrics, volumes and centers, 1000 bootstrap draws", evaluate_sides, [pair])
    print(f"  extra peak memory: {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6:.2f} GB")
    result = compare_sides(*pair, Rules())
    timed("  coloured volume", color_volume, result, predicted, true)


if __name__ == "__main__":
    main()
