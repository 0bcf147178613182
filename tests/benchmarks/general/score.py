"""Detect on the test scenes and score: the table of the model card.

    python -m tests.benchmarks.general.score --folder DIR [--weights models/model.pt --config thresholds.json]

``--folder`` is that of ``data.py``. Centers count within half a particle's radius (at least two voxels); the interval
is the 95 % bootstrap over particles.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from scripts.detection.detect import detect
from scripts.evaluation.evaluate import evaluate
from scripts.simulate.write import write_json
from tests.benchmarks.general.data import TEST, TEST_SEED

COLUMNS = (
    "scene",
    "particles",
    "center F1",
    "interval",
    "precision",
    "recall",
    "merged rate",
    "split rate",
    "error (Å)",
    "PQ",
)


def score(folder: Path, output_dir: Path, **options: Any) -> dict[str, Any]:
    """Detect on the tomograms of one scene and compare with their truth; ``options`` are those of `detect`."""
    detect(
        *(str(path) for path in sorted(folder.glob("*/tomogram.mrc"))),
        output_dir=str(output_dir),
        report=False,
        **options,
    )
    pooled = evaluate(output_dir, folder)["pooled"]
    points, volume = pooled["points"], pooled["volume"]
    return {
        "scene": folder.name.removeprefix("test_").replace("_", " "),
        "particles": points["n_true"],
        "center F1": points["f1"],
        "interval": points["intervals"]["particles"]["f1"],
        "precision": points["precision"],
        "recall": points["recall"],
        "merged rate": volume["merged_rate"],
        "split rate": volume["split_rate"],
        "error (Å)": points["mean_center_error_angstrom"],
        "PQ": volume["panoptic_quality"],
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(_cell(name, row[name]) for name in COLUMNS) + " |" for row in rows]
    return "\n".join(lines)


def _cell(name: str, value: Any) -> str:
    if name == "interval":
        return " to ".join(f"{one:.3f}" for one in value)
    if name == "error (Å)":
        return f"{value:.1f}"
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def main(folder: Path, output: Path, scenes: list[str], **options: Any) -> None:
    rows = []
    for scene in scenes:
        rows.append(score(folder / f"test_{scene}", output.with_suffix("") / scene, **options))
        print(json.dumps(rows[-1]), flush=True)
    command = "python -m tests.benchmarks.general.score"
    write_json(output, {"command": command, "seed": TEST_SEED, "settings": options, "scenes": rows})
    print(markdown(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/general/scores.json"), help="scores")
    parser.add_argument("--weights")
    parser.add_argument("--config", help="thresholds from `python -m scripts calibrate`")
    parser.add_argument("--scenes", nargs="+", default=list(TEST), choices=TEST)
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    main(**given)
