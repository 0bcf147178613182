"""How visible the particles of the test scenes are, and which of them are found: where networks fall short, and why.

    python -m tests.benchmarks.general.limits --maps DIR --folder DIR --detections DIR

``--folder`` is that of ``data.py``, ``--detections`` what ``score.py`` wrote into (the output's name without ending).
Each tomogram is simulated again, with and without its particles, noise aside. From the two come the transfer function
(missing wedge, contrast transfer, reconstruction) and the spectrum of all that is not a particle (noise, solvent,
clutter, lipid), and from these the signal-to-noise ratio d' of a matched filter that knows the particle's form and
orientation: d' ^ 2 is the sum over frequencies of the particle's power over that of the rest. No linear detector does
better on a particle that stands alone. One that has to search a million voxels in many orientations needs a d' of 5
to 6 to keep false particles rare; neighbours come on top, and so does the place, right to half a radius.

It also says how far the scores are from the probability of being right: the expected calibration error, in ten bins.
"""

from __future__ import annotations

import argparse
import copy
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import fft, ndimage
from tqdm.auto import tqdm

from scripts.matching.points import match_points, match_radius
from scripts.simulate.content import fill
from scripts.simulate.microscope import tomogram_of
from scripts.simulate.scene import load_scene
from scripts.simulate.write import write_json
from tests.benchmarks.general.data import SCENES, TEST, TEST_SEED, TEST_TOMOGRAMS

WINDOW = 48  # voxels; longer than any particle of the scenes
EDGES = (0.0, 4.0, 6.0, 8.0, 12.0, 20.0, np.inf)  # of d'
REACHABLE = 8.0  # d' from which on we mean to find all
CENTER = ["z_angstrom", "y_angstrom", "x_angstrom"]


def visibility(scene: dict[str, Any], seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a simulated tomogram and d' of each particle, 1..n.

    The transfer function and the spectrum of the rest are averages over Hann windows of `WINDOW` voxels that overlap by
    half.
    """
    rng = np.random.default_rng([seed, index])
    stage, _ = fill(scene, rng)
    empty = copy.copy(stage)
    empty.density = np.where(stage.labels > 0, 0, stage.density).astype(np.float32)
    silent = {**scene, "imaging": {**scene["imaging"], "noise": False}}
    cpu = torch.device("cpu")
    whole, with_particles, without = (
        tomogram_of(content, settings, copy.deepcopy(rng), cpu)[0]
        for content, settings in ((stage, scene), (stage, silent), (empty, silent))
    )
    imaged = with_particles - without
    density = stage.density - empty.density
    cross, own, rest = _spectra(imaged, density, whole - imaged)
    gain = np.abs(cross / own) ** 2 / rest
    gain[..., 1:-1] *= 2  # the half of the spectrum that a real transform leaves out
    found = np.zeros(len(stage.placed))
    for number, box in enumerate(ndimage.find_objects(stage.labels)):
        particle = np.where(stage.labels[box] == number + 1, density[box], 0)[:WINDOW, :WINDOW, :WINDOW]
        power = np.abs(fft.rfftn(particle, s=[WINDOW] * 3)) ** 2
        found[number] = np.sqrt((gain * power).sum() / WINDOW**3)
    return stage.labels, found


def _spectra(imaged: np.ndarray, density: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cross spectrum of image and density, power of the density, power of the rest; per voxel."""
    line = np.hanning(WINDOW + 1)[:WINDOW]
    taper = line[:, None, None] * line[:, None] * line
    cross, own, power = (np.zeros((WINDOW, WINDOW, WINDOW // 2 + 1), kind) for kind in (complex, float, float))
    corners = list(product(*(range(0, side - WINDOW + 1, WINDOW // 2) for side in density.shape)))
    for corner in corners:
        box = tuple(slice(a, a + WINDOW) for a in corner)
        image, truth, other = (fft.rfftn(taper * volume[box]) for volume in (imaged, density, rest))
        cross += image * truth.conj()
        own += np.abs(truth) ** 2
        power += np.abs(other) ** 2
    count = len(corners) * (taper**2).sum()
    return cross / count, own / count, power / count


def table_of(arguments: tuple[str, int, Path, Path, Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of one test tomogram every particle: d', whether its center was found; every detection: score, whether right."""
    name, index, maps, folder, detections = arguments
    torch.set_num_threads(1)
    scene = load_scene(SCENES / f"test_{name}.json", maps)
    labels, ratio = visibility(scene, TEST_SEED, index)
    tomogram = f"test_{name}_{index:03d}"
    true = pd.read_csv(folder / f"test_{name}" / tomogram / "particles.csv").sort_values("label")
    if not np.array_equal(np.bincount(labels.ravel(), minlength=1)[1:], true["volume_vox"]):
        raise ValueError(f"{tomogram}: expected the particles that are simulated now, got others. Run data.py again.")
    found = pd.read_csv(detections / name / tomogram / f"{tomogram}_particles.csv").query("label > 0")
    reach = match_radius(true["diameter_angstrom"] / 2, scene["voxel_size"])
    pairs = [match_points(found[CENTER].to_numpy(), true[CENTER].to_numpy(), wide) for wide in (reach, 2 * reach)]
    hit, near = (np.isin(np.arange(len(true)), some.true) for some in pairs)
    right = np.isin(np.arange(len(found)), pairs[0].predicted)
    return (
        pd.DataFrame({"scene": name, "index": index, "snr": ratio, "found": hit, "near": near}),
        pd.DataFrame({"scene": name, "score": found["score"], "right": right}),
    )


def calibration_error(score: np.ndarray, right: np.ndarray) -> float:
    """The mean difference of score and share of right ones in ten bins, by how many are in them."""
    bins = np.clip((score * 10).astype(int), 0, 9)
    return float(sum(abs((score - right)[bins == one].sum()) for one in range(10)) / len(score))


def markdown(table: pd.DataFrame) -> str:
    """One row per scene: the median of d', the part found at half the radius and at the radius, and the part by d'."""
    names = [f"{a:g} to {b:g}" if np.isfinite(b) else f"above {a:g}" for a, b in zip(EDGES, EDGES[1:], strict=False)]
    lines = ["| scene | d' | found | to a radius | " + " | ".join(names) + " |", "|---" * (4 + len(names)) + "|"]
    for name, rows in table.groupby("scene", sort=False):
        cells = [f"{rows['snr'].median():.1f}", f"{rows['found'].mean():.2f}", f"{rows['near'].mean():.2f}"]
        for _, part in rows.groupby(pd.cut(rows["snr"], EDGES), observed=False):
            cells.append(f"{part['found'].mean():.2f} ({len(part):,})" if len(part) else "")
        lines.append(f"| {str(name).replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(maps: Path, folder: Path, detections: Path, output: Path, scenes: list[str], workers: int) -> None:
    """Write every scene's numbers to ``output`` and print the table."""
    jobs = [(name, index, maps, folder, detections) for name in scenes for index in range(TEST_TOMOGRAMS)]
    with ProcessPoolExecutor(workers) as pool:
        parts = list(tqdm(pool.map(table_of, jobs), total=len(jobs), unit="tomogram"))
    table, detections_of = (pd.concat(some) for some in zip(*parts, strict=True))
    write_json(output, {name: rows.drop(columns="scene").to_dict("list") for name, rows in table.groupby("scene")})
    print(markdown(table))
    for name, rows in [*detections_of.groupby("scene", sort=False), ("all", detections_of)]:
        error = calibration_error(rows["score"].to_numpy(float), rows["right"].to_numpy(float))
        reachable = table[(table["snr"] > REACHABLE) & table["scene"].isin(rows["scene"])]
        print(f"{name}: calibration error {error:.3f}; of d' above {REACHABLE:g} found {reachable['found'].mean():.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--detections", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/general/limits.json"))
    parser.add_argument("--scenes", nargs="+", default=list(TEST), choices=TEST)
    parser.add_argument("--workers", type=int, default=1)
    main(**vars(parser.parse_args()))
