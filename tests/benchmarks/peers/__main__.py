"""Compare ways to get particle centers on the test scenes: the table of the README.

    python -m tests.benchmarks.peers --folder DIR --maps DIR --weights models/model.pt --config thresholds.json

``--folder`` and ``--maps`` are those of ``tests/benchmarks/general/data.py``. Methods:

- ours: `detect` as it comes, with ``--config``.
- components, mean_shift: the mask of the same MaskNet, then connected components, or mean shift as DeepFinder does it.
- blobs: scikit-image's difference of Gaussians, untrained.
- templates: normalised cross-correlation with the maps of the training classes, averaged over all orientations; a
  weak form of template matching, without a search over orientations and without the missing wedge.
- stardist: StarDist 3D, trained by ``train_stardist.py``; give ``--stardist_python`` and ``--stardist_model``.

Every parameter but ours is chosen on the validation tomograms, over the grids in ``methods.py``, by F1 of centers
within half a particle's radius (at least 2 voxels), and used unchanged on the test scenes. Ours comes with thresholds
that `calibrate` chose on the same tomograms. What is finished is kept in ``--output`` and not done again.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from custom_transforms.files.json_object import to_json
from custom_transforms.io import LoadTomogramd
from custom_transforms.normalize import NormalizeTomogramd
from scripts.datalist import load_datalist
from scripts.detection.detector import Detector
from scripts.evaluation.sides import Side, points_of, read_side
from scripts.matching.points import candidate_pairs, hits_by_threshold, match_radius
from scripts.simulate.write import write_json
from scripts.sources.labels_and_lists import SideFiles
from tests.benchmarks.general.data import SCENES, TEST, TRAIN
from tests.benchmarks.peers.methods import (
    STARDIST_WEIGHTS,
    Found,
    Method,
    Volume,
    all_methods,
    voxel_zyx_to_angstrom_xyz,
)
from tests.evaluation.in_memory import evaluate_sides

NAMES = ("ours", "components", "mean_shift", "blobs", "templates", "stardist")
TRAINED = ("ours", "components", "mean_shift")


def load(item: dict[str, Any], detector: Detector | None) -> tuple[Volume, Side]:
    """Read a tomogram of a datalist and its truth; run the networks once if there is a detector."""
    given = {"image": item["image"], "contrast": item.get("contrast", "dark")}
    if detector is None:
        data = NormalizeTomogramd("image")(LoadTomogramd(["image"])(given))
    else:
        detector.plan(item["image"])  # sets the tile, as detect does
        data = detector.split(detector.predict(given))
    size = np.asarray(data["image"].meta["voxel_size_zyx"], float)
    particles = Path(item["particles"]) if "particles" in item else None
    truth = read_side(SideFiles(Path(item["image"]).parent.name, Path(item["label"]), particles), size)
    return Volume(data, size, data.get("timings", {}).get("networks", 0.0)), truth


def calibrate(method: Method, samples: Sequence[tuple[Volume, Side]], progress: tqdm) -> dict[str, Any]:
    """The parameters and the cutoff with the best F1 of centers, pooled over the samples; the first of equal ones."""
    grids: list[list[tuple]] = [[] for _ in method.grid]
    n_true = 0
    for volume, truth in samples:
        true = points_of(truth, volume.voxel_size_zyx)
        reach = match_radius(true.diameter_angstrom / 2, volume.voxel_size_zyx)
        n_true += len(true)
        for steps, found in zip(grids, method.find(volume, method.grid), strict=True):
            centers = voxel_zyx_to_angstrom_xyz(found.centers_zyx_vox, volume.voxel_size_zyx)
            near = candidate_pairs(centers, true.centers_xyz_angstrom, reach)
            steps.append(hits_by_threshold(near[0], near[1], found.score))
            progress.update()
    best: dict[str, Any] = {"f1": -1.0}
    for params, steps in zip(method.grid, grids, strict=True):
        for cutoff in method.cutoffs:
            tp, kept = (sum(_at(one[0], one[k], cutoff) for one in steps) for k in (1, 2))
            f1 = 2 * tp / (kept + n_true)
            if f1 > best["f1"]:
                best = {"params": params, "cutoff": cutoff, "f1": f1}
    return best


def _at(scores: np.ndarray, counts: np.ndarray, cutoff: float) -> int:
    """The count at the lowest score that reaches the cutoff; scores fall."""
    reached = int(np.count_nonzero(scores >= cutoff))
    return int(counts[reached - 1]) if reached else 0


def judge(found: Sequence[tuple[Found, Volume, Side]], seconds: float) -> dict[str, Any]:
    """Scores of one method on the tomograms of one scene."""
    pairs = [(str(i), one.side(volume.voxel_size_zyx), truth) for i, (one, volume, truth) in enumerate(found)]
    pooled = evaluate_sides(pairs)["pooled"]
    points = pooled["points"]
    return {
        **{name: points[name] for name in ("f1", "precision", "recall", "n_true", "mean_center_error_angstrom")},
        "interval": points["intervals"]["particles"]["f1"],
        "merged_rate": pooled.get("volume", {}).get("merged_rate"),
        "seconds": seconds / len(found),
    }


def run_scene(
    items: Sequence[dict], methods: dict[str, Method], calibrated: dict, detector: Detector | None, progress: tqdm
) -> dict[str, Any]:
    """Every method on every tomogram of a scene; the networks run once for all."""
    found: dict[str, list] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    for item in items:
        volume, truth = load(item, detector)
        for name, method in methods.items():
            progress.set_postfix_str(f"{Path(item['image']).parent.name} {name}")
            start = time.perf_counter()
            one = next(iter(method.find(volume, [calibrated[name]["params"]]))).above(calibrated[name]["cutoff"])
            seconds[name] += time.perf_counter() - start + method.network_share * volume.network_seconds
            found[name].append((one, Volume({}, volume.voxel_size_zyx), truth))
            progress.update()
        del volume
        gc.collect()
    return {name: judge(found[name], seconds[name]) for name in methods}


def markdown(scenes: dict[str, dict[str, dict]], names: Sequence[str]) -> str:
    """Rows are scenes, columns methods: F1 (interval), merged rate where there are labels, seconds per tomogram."""
    lines = ["| scene | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for scene, row in scenes.items():
        cells = [_cell(row[name]) if name in row else "" for name in names]
        lines.append(f"| {scene.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(score: dict[str, Any]) -> str:
    low, high = score["interval"]
    merged = "" if score["merged_rate"] is None else f", merged {score['merged_rate']:.3f}"
    return f"{score['f1']:.3f} ({low:.3f} to {high:.3f}){merged}, {score['seconds']:.0f} s"


def template_paths(maps: Path) -> list[Path]:
    """The maps in the training scenes, none of the unseen ones."""
    scenes = [json.loads((SCENES / f"{name}.json").read_text(encoding="utf-8")) for name in TRAIN]
    return [maps / path for path in sorted({p["path"] for scene in scenes for p in scene["particles"] if "path" in p})]


def _source(
    name: str,
    weights: Path | None,
    config: Path | None,
    templates: Sequence[Path],
    stardist: tuple[Path, Path] | None = None,
) -> dict[str, Any]:
    """What a method's results stand on."""
    if name == "templates":
        return {"templates": [path.stem for path in templates]}
    if name == "stardist" and stardist is not None:
        return {"weights": hashlib.sha256((stardist[1] / STARDIST_WEIGHTS).read_bytes()).hexdigest()}
    if name not in TRAINED:
        return {}
    digests = {kind: hashlib.sha256(path.read_bytes()).hexdigest() for kind, path in _given(weights, config)}
    return {kind: digest for kind, digest in digests.items() if kind == "weights" or name == "ours"}


def _given(weights: Path | None, config: Path | None) -> list[tuple[str, Path]]:
    return [(kind, path) for kind, path in (("weights", weights), ("config", config)) if path is not None]


def _earlier(output: Path, sources: dict[str, dict], overwrite: bool) -> dict[str, dict]:
    """What ``output`` holds already; with ``overwrite``, without the methods that are asked for."""
    if not output.exists():
        return {"calibrated": {}, "scenes": {}}
    record = json.loads(output.read_text(encoding="utf-8"))
    for name, source in sources.items():
        if overwrite:
            for part in (record["calibrated"], *record["scenes"].values()):
                part.pop(name, None)
        elif record["calibrated"].get(name, {"source": source})["source"] != source:
            raise ValueError(
                f"{output}: expected {name} made with the same weights, config and maps, found others. "
                "Give another --output, or --overwrite to do it again."
            )
    return record


def main(
    folder: Path,
    maps: Path | None,
    output: Path,
    scenes: Sequence[str],
    methods: Sequence[str],
    weights: Path | None = None,
    config: Path | None = None,
    overwrite: bool = False,
    stardist_python: Path | None = None,
    stardist_model: Path | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Run what ``output`` lacks, write it after every scene, print; ``overrides`` are ids of inference.json."""
    templates = template_paths(maps) if maps is not None and "templates" in methods else []
    if "templates" in methods and not templates:
        raise ValueError("templates: expected the folder of the density maps, got none. Give --maps.")
    stardist = None
    if "stardist" in methods:
        if stardist_python is None or stardist_model is None:
            raise ValueError(
                "stardist: expected the Python of StarDist and a trained model, got "
                f"{stardist_python} and {stardist_model}. Give --stardist_python and --stardist_model."
            )
        stardist = stardist_python, stardist_model
    sources = {name: _source(name, weights, config, templates, stardist) for name in methods}
    record = _earlier(output, sources, overwrite)
    missing = {scene: [m for m in methods if m not in record["scenes"].get(scene, {})] for scene in scenes}
    todo = [name for name in methods if name not in record["calibrated"]]
    detector = None
    if any(name in TRAINED for name in {*todo, *(m for names in missing.values() for m in names)}):
        given = {} if weights is None else {"weights": str(weights)}
        detector = Detector({**given, "progress": False, **overrides}, [] if config is None else [config])
    known = all_methods(detector, templates, stardist)
    if todo:
        items = load_datalist(folder, "validation")
        samples = [load(item, detector) for item in tqdm(items, desc="validation", unit="tomogram")]
        for name in todo:
            with tqdm(total=len(samples) * len(known[name].grid), desc=f"calibrate {name}") as progress:
                chosen = calibrate(known[name], samples, progress)
            record["calibrated"][name] = {**chosen, "source": sources[name]}
            write_json(output, to_json(record))
        del samples
    work = {scene: load_datalist(folder / f"test_{scene}", "training") for scene in scenes if missing[scene]}
    with tqdm(total=sum(len(items) * len(missing[s]) for s, items in work.items()), desc="scenes") as progress:
        for scene, items in work.items():
            chosen_methods = {name: known[name] for name in missing[scene]}
            needed = detector if any(name in TRAINED for name in chosen_methods) else None
            scores = run_scene(items, chosen_methods, record["calibrated"], needed, progress)
            record["scenes"][scene] = {**record["scenes"].get(scene, {}), **scores}
            write_json(output, to_json(record))
    print(markdown({scene: record["scenes"][scene] for scene in scenes}, methods))
    return record


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--weights", type=Path, default=Path("models/model.pt"))
    parser.add_argument("--config", type=Path, help="thresholds from `python -m scripts calibrate`, for ours")
    parser.add_argument("--output", type=Path, default=Path("runs/peers/scores.json"))
    parser.add_argument("--scenes", nargs="+", default=list(TEST), choices=TEST)
    parser.add_argument("--methods", nargs="+", default=[name for name in NAMES if name != "stardist"], choices=NAMES)
    parser.add_argument("--overwrite", action="store_true", help="do the methods asked for again")
    parser.add_argument("--stardist_python", type=Path, help="the Python of an environment with StarDist")
    parser.add_argument("--stardist_model", type=Path, help="the folder that train_stardist.py made")
    main(**vars(parser.parse_args()))
