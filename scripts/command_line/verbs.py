"""The verbs of the command line whose functions need more than text and numbers: they parse, call and print."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.console import note, tell
from scripts.detection.detect import overlays_of
from scripts.detection.detector import Detector
from scripts.evaluation import evaluate as evaluation
from scripts.records.bundle_zip import ROOT
from scripts.report.overview import overview
from scripts.report.report import report as make_report
from scripts.simulate.simulate import simulate as simulate_scene
from scripts.sources.detections import detections_below, find_detections
from scripts.weights.calibrate import as_well, calibrate_detector, centers_text, numbers_text

__all__ = ["calibrate", "evaluate", "report", "simulate"]


def simulate(
    scene: str,
    output_dir: str = "simulated",
    n: int = 1,
    seed: int = 0,
    device: str = "cpu",
    validation: int | None = None,
    test: int | None = None,
    maps: str | None = None,
    overwrite: bool = False,
    cluster: str | None = None,
) -> None:
    """Make tomograms with known particles, and the dataset.json that training takes as it is.

    example: python -m scripts simulate configs/scene_vlp.json --output_dir data/vlp --n 8 --seed 1

    Parameters
    ----------
    scene : str
        Scene file, or the name of a shipped one: vlp, cytosol, membranes.
    output_dir : str
        Folder for the tomograms.
    n : int
        How many tomograms.
    seed : int
        The same seed gives the same tomograms.
    device : str
        cpu or cuda.
    validation : int
        How many of them are for validation; by default the fraction in the scene.
    test : int
        How many of them are for testing; by default the fraction in the scene.
    maps : str
        Folder of the density maps and models the scene names; by default the scene's own folder.
    overwrite : bool
        Make finished tomograms again.
    cluster : str
        Spread the tomograms over workers, as with detect: local, tcp://host:8786, or a JSON file.
    """
    made = simulate_scene(scene, output_dir, n, seed, device, overwrite, validation, test, maps, cluster)
    tell(str(made), written=[made], tomograms=n)


def calibrate(
    dataset_dir: str,
    output: str = "thresholds.json",
    config: str | None = None,
    section: str = "validation",
    beta: float | None = None,
    particle_diameter: float | Mapping[str, float] | None = None,
    weights: str | None = None,
    method: str | None = None,
    tile: tuple[int, ...] | None = None,
    device: str | None = None,
) -> None:
    """Choose the thresholds of detection on tomograms with known particles, for `detect --config`.

    example: python -m scripts calibrate data/vlp --weights models/model.pt --particle_diameter 940 --output vlp.json

    Parameters
    ----------
    dataset_dir : str
        Folder with a dataset.json, or copick:CONFIG.json/TYPE@SPACING/OBJECT:USER/SESSION.
    output : str
        Settings file to write.
    config : str
        JSON with settings, laid over configs/inference.json; several with commas between.
    section : str
        Part of the dataset to choose on; never the one that is tested on.
    beta : float
        How much more a missed particle weighs than a false one; by default 1, with classes 4.
    """
    record = (ROOT / "models" / "model.pt" if weights is None else Path(weights).expanduser()).with_suffix(".json")
    if Path(output).expanduser().resolve() == record.resolve():
        raise ValueError(f"--output {output}: this is the name of the record of the weights. Give another one.")
    settings = {
        "particle_diameter": particle_diameter,
        "weights": weights,
        "method": method,
        "tile": tile,
        "device": device,
    }
    asked = {name: value for name, value in settings.items() if value is not None}
    detector = Detector({**asked, "progress": False}, overlays_of(config))
    beta = beta if beta is not None else 4.0 if detector.classes else 1.0
    chosen = calibrate_detector(detector, dataset_dir, output, section, beta)
    instances = chosen["scores"]["instances"]
    tell(
        f"{chosen['path']}: center_threshold {centers_text(chosen, 'center_threshold', 2)}, mask_threshold "
        f"{chosen['mask_threshold']:.2f}, min_size {numbers_text(chosen['min_size'])} cubic Å; on "
        f"{chosen['n_particles']} particles F{beta:g} of centers {centers_text(chosen)}, of instances "
        f"{instances['f_beta']:.3f}",
        written=[chosen["path"]],
        **{key: value for key, value in chosen.items() if key != "path"},
    )
    note(as_well(chosen))


def evaluate(predicted: str, truth: str, output_dir: str = "evaluation", **options: Any) -> None:
    """Compare detected with true particles: how many were found, merged, split, missed or made up.

    Label volumes are compared by overlap, centers (of volumes or lists) by one-to-one matching. Writes metrics.json,
    metrics.csv, matches.csv (a row per particle) and, for volumes, coloured MRC and PNG; the report of each detection
    shows the outcome from then on.

    example: python -m scripts evaluate detections/TS_01 truth/TS_01_labels.mrc --output_dir evaluation

    Parameters
    ----------
    predicted : str
        A label volume, a particle list, a folder or pattern of them, for example what detect wrote, a path with {name}
        for each tomogram's name, or a dataset.json; or of a copick project picks (copick:CONFIG.json/
        OBJECT:USER/SESSION) or segmentations (with @SPACING at its end).
    truth : str
        The same; folders are matched by tomogram name. Label -1 marks voxels to ignore.
    output_dir : str
        Folder for the results.
    **options : scripts.evaluation.evaluate:evaluate
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", evaluation.EvaluationWarning)  # printed below, without our file and line
        result = evaluation.evaluate(predicted, truth, output_dir, **options)
    for text in result["warnings"]:
        print(f"warning: {text}", file=sys.stderr)
    for kind, scores in result["pooled"].items():
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in scores.items() if isinstance(value, float))
        tell(f"{kind}: {numbers}", kind=kind, scores=scores)
    for name, block in result["classes"].items():
        points = block["points"]
        numbers = "  ".join(f"{key} {points[key]:.3f}" for key in ("precision", "recall", "f1", "f_beta"))
        tell(
            f"class {name}: {points['n_true']} particles, {points['n_predicted']} predicted  {numbers}",
            **{"class": name},
        )
    if "czii" in result:
        tell(f"czii: {result['czii']['score']:.3f}", czii=result["czii"])
    folder = Path(os.path.expanduser(predicted))
    for run in detections_below(folder) if folder.is_dir() else []:
        if run.with_name(f"{run.name}_report.html").is_file():
            made = make_report(run, evaluation=output_dir)
            tell(str(made), written=[made])
    tell(output_dir, written=[output_dir])


def report(run_dir: str, tomogram: str | None = None, evaluation: str | None = None, output: str | None = None) -> None:
    """Make the HTML report of one detection: one file to open, scrub through, and mail.

    Of the whole output folder of detect it makes an overview: which tomograms to look at first, with links; with
    --evaluation also the page of each.

    example: python -m scripts report detections/TS_01 --evaluation evaluation

    Parameters
    ----------
    run_dir : str
        The folder of one tomogram that detect wrote, a pattern of them, or the folder of all tomograms.
    tomogram : str
        The tomogram, if it is not any more where detect read it.
    evaluation : str
        Folder that evaluate wrote; adds what is right, wrong and missed. By default the one the page showed last.
    output : str
        Page to write; by default beside the other files.
    """
    runs = find_detections(run_dir)
    folder = Path(os.path.expanduser(run_dir))
    is_of_all = folder.is_dir() and folder not in [run.parent for run in runs]
    if (tomogram or output) and len(runs) > 1:
        raise ValueError(f"{run_dir}: expected one detection with --tomogram or --output, got {len(runs)}.")
    if not is_of_all or tomogram or output or evaluation:
        for run in runs:
            made = make_report(run, tomogram=tomogram, evaluation=evaluation, output=output)
            tell(str(made), written=[made])
    if is_of_all and not output:
        page, table = overview(folder)
        tell(str(page), written=[page, table])
