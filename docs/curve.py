"""Draw how well `teach` does by the number of examples, from the rows of the benchmarks: ``python docs/curve.py``.

``tests/benchmarks/teach.json`` holds the rows that ``tests.benchmarks.teach`` and ``teach_templates`` printed.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "tests" / "benchmarks" / "teach.json"
PICTURE = ROOT / "docs" / "pages" / "pictures" / "teach_curve.webp"
CLASSES = ("compact", "elongated", "ring", "membrane")
COUNTS = (3, 5, 20, 50, 200)


def main() -> None:
    """A panel for each class and signal-to-noise ratio."""
    rows = {name: pd.DataFrame(part) for name, part in json.loads(ROWS.read_text(encoding="utf-8")).items()}
    figure, axes = plt.subplots(2, 4, figsize=(12, 5.6), sharex=True, sharey="row", layout="constrained")
    for line, snr in zip(axes, (0.7, 0.25), strict=True):
        for axis, name in zip(line, CLASSES, strict=True):
            draw(axis, {key: part[(part["snr"] == snr) & (part["class"] == name)] for key, part in rows.items()})
            axis.set_title(f"{name}, SNR {snr:g}", fontsize=10)
        line[0].set_ylabel("F1 of the class")
        line[0].set_ylim(0, None)
    for axis in axes[1]:
        axis.set_xlabel("examples")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=6, fontsize=9, frameon=False)
    figure.savefig(PICTURE, dpi=110, pil_kwargs={"quality": 85})


def draw(axis: plt.Axes, rows: dict[str, pd.DataFrame]) -> None:
    """The curves of one class at one ratio."""
    chosen = rows["chosen"]
    counted = chosen[chosen["examples"].isin(COUNTS)]
    spread = counted.groupby("examples")["f1"].agg(["mean", "std"])
    axis.errorbar(spread.index, spread["mean"], spread["std"].fillna(0), marker="o", color="C0", label="teach")
    axis.axhline(chosen[chosen["examples"] == "all found"]["f1"].mean(), color="C7", ls=":", label="networks alone")
    moved = rows["moved"]
    moved = moved[(moved["minutes"] > 0) & (moved["scene"] == "first")].groupby("examples")["f1"].mean()
    axis.plot(moved.index, moved, marker="s", color="C3", label="teach --minutes 5")
    for aligned, marker, label in ((False, "^", "templates, orientations known*"), (True, "v", "templates, found*")):
        part = rows["templates"][rows["templates"]["aligned"] == aligned]
        axis.plot(part["examples"], part["f1_best_threshold"], marker=marker, ls="", color="C2", label=label)
    for height in rows["full"]["f1_best_threshold"]:
        axis.axhline(height, color="k", ls="--", label="all labelled, trained*")
    axis.set_xscale("log")
    axis.set_xticks(COUNTS, [str(count) for count in COUNTS])
    axis.minorticks_off()


if __name__ == "__main__":
    main()
