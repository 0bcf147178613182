"""What arithmetic and rescaling do to the result: F1 of float32 and reduced precision, of tomograms as they are and
of the same tomograms on other voxels.

    python -m tests.benchmarks.bench_precision --weights runs/demo_real/model.pt --config runs/demo_real/thresholds.json

Tomograms that training never saw are simulated (or taken from ``--data``: ``<name>/tomogram.mrc`` and ``labels.mrc``
beside it). They are resampled to finer and to coarser voxels and detected there, rescaled on the fly to the voxel size
that the networks know; with ``--kept`` also as they are (``--keep_voxel_size``). All ways but the first compute in
float32. Resampling keeps every frequency that the new voxels can hold, as if the tomogram had been reconstructed on
them: interpolation would take away noise, and help the networks.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.fft import dctn, idctn

from custom_transforms.io import read_tomogram, write_mrc
from scripts.detection.detect import Detector
from scripts.evaluation.pair import Rules
from scripts.evaluation.sides import Side
from scripts.networks import reduced_precision
from scripts.simulate.simulate import simulate
from tests.evaluation.in_memory import evaluate_sides

SEED = 778
ROOT = Path(__file__).parents[2]
FACTORS = {"finer voxels": 0.8, "coarser voxels": 1.2}


def precision_of(device: str) -> str:
    """The arithmetic of ``amp`` on this device; "float32" where it changes nothing."""
    with reduced_precision(device):
        kind = torch.device(device).type
        return (
            str(torch.get_autocast_dtype(kind)).removeprefix("torch.") if torch.is_autocast_enabled(kind) else "float32"
        )


def resampled(
    volume: np.ndarray, labels: np.ndarray, size_zyx: np.ndarray, factor: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same box on voxels ``factor`` times as large: tomogram, labels (nearest), and the voxel size (Z, Y, X).

    By the cosine transform, whose samples lie at (i + 0.5) / n of the box, as those of `rescale_volume` do.
    """
    sides = [max(1, round(side / factor)) for side in volume.shape]
    at = [((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip(sides, volume.shape, strict=True)]
    waves, kept = dctn(volume.astype(np.float32), norm="ortho"), np.zeros(sides, np.float32)
    common = tuple(slice(0, min(pair)) for pair in zip(sides, volume.shape, strict=True))
    kept[common] = waves[common]
    moved = idctn(kept, norm="ortho") * np.float32(np.sqrt(kept.size / volume.size))
    return moved, labels[np.ix_(*at)], size_zyx * np.array(volume.shape) / sides


def ways_of(folder: Path, work: Path, device: str, kept: bool) -> Iterator[tuple[str, Path, Any, dict[str, Any]]]:
    """Each way to detect one tomogram: name, file, true labels, settings."""
    tomogram = folder / "tomogram.mrc"
    volume, meta = read_tomogram(tomogram)
    labels = read_tomogram(folder / "labels.mrc", check="labels")[0]
    size_zyx = np.asarray(meta["voxel_size_zyx"])
    model = {"voxel_size_model": [float(size) for size in size_zyx]}
    if precision_of(device) != "float32":
        yield precision_of(device), tomogram, labels, {**model, "amp": True}
    yield "float32", tomogram, labels, {**model, "amp": False}
    for name, factor in FACTORS.items():
        moved, truth, size = resampled(volume, labels, size_zyx, factor)
        path = work / f"{folder.name}_{name.split()[0]}.mrc"
        write_mrc(path, moved, size)
        yield f"{name}, rescaled", path, truth, {**model, "amp": False}
        if kept:
            yield f"{name}, kept", path, truth, {**model, "amp": False, "keep_voxel_size": True}


def main(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Simulate, detect every way, score; returns a row per way with its distance from float32."""
    pairs: dict[str, list] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        data = given.data or work / "simulated"
        if given.data is None:
            simulate(given.scene, data, n=given.tomograms, seed=SEED, validation=0, test=0)
        for folder in sorted(path.parent for path in data.glob("*/tomogram.mrc")):
            for way, path, labels, settings in ways_of(folder, work, given.device, given.kept):
                options = {"weights": given.weights, "device": given.device, "output_dir": str(work / "out"),
                           "overwrite": True, "report": False, "progress": False, **settings}  # fmt: skip
                detector = Detector(options, given.config.split(",") if given.config else [])
                if given.tile:
                    detector.inferer.roi_size = (given.tile,) * 3
                found = detector(path)
                size = found["image"].meta["voxel_size_zyx"]
                sides = Side(np.asarray(found["instances"])[0], voxel_size_zyx=size), Side(labels, voxel_size_zyx=size)
                pairs.setdefault(way, []).append((folder.name, *sides))
            print(f"after {folder.name}", *markdown(_rows(pairs)), sep="\n", flush=True)
    return _rows(pairs)


def _rows(pairs: dict[str, list]) -> list[dict[str, Any]]:
    rows = []
    for way, found in pairs.items():
        # a center may be 2 voxels off: those of the tomogram as it is, or coarser voxels would be judged more kindly
        ratio = np.max(pairs["float32"][0][2].voxel_size_zyx) / np.max(found[0][2].voxel_size_zyx)
        rules = Rules(min_voxels=Rules.min_voxels * float(ratio))
        pooled = evaluate_sides(found, rules, bootstrap=0)["pooled"]
        points, volume = pooled["points"], pooled["volume"]
        rows.append({"bench": "precision", "path": way, "particles": int(points["n_true"]), "center_f1": points["f1"],
                     "volume_f1": volume["f1"], "panoptic_quality": volume["panoptic_quality"]})  # fmt: skip
    plain = next(row for row in rows if row["path"] == "float32")
    for row in rows:
        row["center_f1_change"] = row["center_f1"] - plain["center_f1"]
        row["volume_f1_change"] = row["volume_f1"] - plain["volume_f1"]
    return rows


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    """The lines of a table."""
    names = list(rows[0])[1:]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = (f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]) for name in names)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--config", help="thresholds from `python -m scripts calibrate`; several with commas between")
    parser.add_argument("--scene", type=Path, default=ROOT / "configs" / "scene_vlp.json")
    parser.add_argument("--tomograms", type=int, default=3)
    parser.add_argument("--data", type=Path, help="tomograms that are simulated already")
    parser.add_argument("--kept", action="store_true", help="also detect on the other voxels without rescaling")
    parser.add_argument("--tile", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    options = parser.parse_args()
    table = main(options)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n")
