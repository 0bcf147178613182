"""The demo: simulate a crowded tomogram, detect its particles with the shipped weights, compare with the truth."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from scripts.console import tell
from scripts.detection.detector import Detector
from scripts.evaluation.evaluate import EvaluationWarning, evaluate
from scripts.records.bundle_zip import ROOT
from scripts.report.report import report
from scripts.simulate.simulate import simulate

__all__ = ["demo", "run_demo"]

BOOTSTRAP = 200  # draws of the intervals; more take time and change no digit that matters here


def demo(output_dir: str = "runs/demo", seed: int = 1, shape: tuple[int, ...] = (128, 256, 256)) -> None:
    """Find the particles of a simulated tomogram with the weights that come along: see what the output looks like.

    Simulates one crowded tomogram (10 Å per voxel; complexes of 140 to 320 Å, a vesicle, a filament, gold), detects,
    compares with the truth, and writes all outputs and the HTML report. About a minute on two CPU cores.

    example: python -m scripts demo --output_dir runs/demo

    Parameters
    ----------
    output_dir : str
        Folder for everything. What was detected there before is replaced.
    seed : int
        Another seed gives another tomogram.
    shape : tuple of int
        Voxels Z,Y,X of the tomogram.
    """
    start = time.perf_counter()
    made = run_demo(output_dir, seed, shape)
    points, volume = (made["scores"][kind] for kind in ("points", "volume"))
    seconds = time.perf_counter() - start
    tell(
        f"{points['n_true']} particles, {points['n_predicted']} detected in {seconds:.0f} s: "
        f"F1 of centers {points['f1']:.3f} (within half a radius), of instances {volume['f1']:.3f}, "
        f"merged {volume['merged_rate']:.1%}, split {volume['split_rate']:.1%}",
        written=[made["folder"]],
        scores=made["scores"],
        seconds=seconds,
    )
    tell(str(made["report"]), written=[made["report"]])


def run_demo(
    output_dir: str | Path,
    seed: int = 1,
    shape: tuple[int, ...] = (128, 256, 256),
    weights: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """`demo` without words.

    Parameters
    ----------
    output_dir, seed, shape
        See `demo`.
    weights : path, optional
        Instead of the shipped ones.
    **settings
        Ids of ``configs/inference.json`` and their values.

    Returns
    -------
    dict
        ``scores`` (of `evaluate`: ``points`` and ``volume``), ``report`` (the page), ``folder`` of the detection.
    """
    if weights is None and not (ROOT / "models" / "model.pt").is_file():
        raise FileNotFoundError(
            f"{ROOT / 'models' / 'model.pt'}: expected the shipped weights, found none. They are part of the "
            "repository and of every zip: `git checkout -- models/model.pt`, or unpack it again. "
            "`python -m scripts demo_real` needs none."
        )
    folder = Path(output_dir).expanduser().resolve()
    given: dict[str, Any] = {} if weights is None else {"weights": str(weights)}
    sides = [int(side) for side in shape]
    given |= {"output_dir": str(folder / "detections"), "overwrite": True}
    detector = Detector({**given, **settings})
    scene = json.loads((ROOT / "configs" / "scene_demo.json").read_text(encoding="utf-8"))
    scene = {**scene, "shape": sides}
    _say("simulate")
    simulate(scene, folder / "simulated", seed=seed, validation=0, overwrite=True)
    truth = folder / "simulated" / f"{scene['name']}_000"
    tomogram = truth / "tomogram.mrc"
    plan = detector.plan(tomogram)
    _say(f"detect, {plan.text()}" if plan else "detect")
    found = detector(tomogram, plan)
    run = found["output_files"]["record"].parent
    _say("evaluate")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EvaluationWarning)
        result = evaluate(run, truth / "labels.mrc", folder / "evaluation", bootstrap=BOOTSTRAP)
    _say("report")
    page = report(run, evaluation=folder / "evaluation")
    return {"scores": result["pooled"], "report": page, "folder": run}


def _say(step: str) -> None:
    print(f"{step} ...", file=sys.stderr, flush=True)
