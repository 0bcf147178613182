"""Template matching from the examples that `teach` gets: the common alternative, given every advantage.

    python -m tests.benchmarks.teach_templates --maps DIR --output_dir runs/teach --snr 0.7

On the tomograms of `tests.benchmarks.teach`. The template is the mean of the examples' boxes, each turned by its
**true** orientation, which a user would have to find first, inside a ball that holds the particle. It is turned through
orientations that cover all evenly, given the missing wedge of the tomogram, and correlated with the **other** tomogram,
whose mean and deviation under the ball are taken out at every voxel (Roseman 2003). Peaks of the best orientation are
the picks. Their threshold is the **best** there is, by the truth. So the F1 is what this way could reach at most.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation
from tqdm.auto import tqdm

from custom_transforms.labelling.seeds import find_seeds
from scripts.matching.points import match_points, match_radius
from tests.benchmarks.teach import CLASSES, SEEDS, best, detected, truth_of

VOXEL = 10.0  # Å
TILT = 58.0  # degrees, about Y: the middle of what the scenes draw
RIM = 2  # voxels of solvent around the particle


def orientations(count: int) -> Rotation:
    """Cover all rotations evenly: the super-Fibonacci spiral (Alexa, CVPR 2022)."""
    s = np.arange(count) + 0.5
    first, second = 2 * np.pi * s / np.sqrt(2), 2 * np.pi * s / 1.533751168755204288118041
    low, high = np.sqrt(s / count), np.sqrt(1 - s / count)
    return Rotation.from_quat(
        np.column_stack([low * np.sin(first), low * np.cos(first), high * np.sin(second), high * np.cos(second)])
    )


def turned(box: np.ndarray, rotation: Rotation) -> np.ndarray:
    """A cube (Z, Y, X) turned about its middle by a rotation of (x, y, z) vectors."""
    inverse = rotation.as_matrix().T[::-1, ::-1]  # on (z, y, x); output voxel to input voxel
    middle = (np.array(box.shape) - 1) / 2
    return ndimage.affine_transform(box, inverse, middle - inverse @ middle, order=1, mode="constant")


def ball(half: int) -> np.ndarray:
    """A ball of that radius in voxels, in its cube."""
    z, y, x = np.ogrid[-half : half + 1, -half : half + 1, -half : half + 1]
    return z * z + y * y + x * x <= half * half


def template_of(image: np.ndarray, examples: pd.DataFrame, half: int) -> np.ndarray:
    """The mean of the examples in their own frame, zero outside the ball."""
    padded = np.pad(image, half + 1, "symmetric")
    total = np.zeros((2 * half + 1,) * 3)
    for row in examples.itertuples():
        center = np.array([row.ref_z_vox, row.ref_y_vox, row.ref_x_vox])
        low = np.floor(center).astype(int)
        box = tuple(slice(a + 1, a + 2 * half + 2) for a in low)
        shifted = ndimage.shift(padded[box], low - center, order=1, mode="nearest")
        total += turned(shifted, Rotation.from_quat([row.qx, row.qy, row.qz, row.qw]).inv())
    inside = ball(half)
    return np.where(inside, total / len(examples) - (total / len(examples))[inside].mean(), 0)


def correlation(image: np.ndarray, template: np.ndarray, rotations: Rotation) -> np.ndarray:
    """The highest local correlation over the rotations, at every voxel (Z, Y, X)."""
    half = template.shape[0] // 2
    shape = tuple(fft.next_fast_len(side + template.shape[0], real=True) for side in image.shape)
    spectrum, inside = fft.rfftn(image, s=shape), ball(half).astype(np.float32)

    def under(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        found = fft.irfftn(values * fft.rfftn(kernel, s=shape).conj(), s=shape)
        return np.roll(found, (half,) * 3, axis=(0, 1, 2))[tuple(slice(side) for side in image.shape)]

    mean = under(spectrum, inside) / inside.sum()
    square = under(fft.rfftn(image**2, s=shape), inside) / inside.sum()
    deviation = np.sqrt(np.maximum(square - mean**2, 1e-6))
    highest = np.full(image.shape, -1, np.float32)
    z, x = np.meshgrid(fft.fftfreq(template.shape[0]), fft.rfftfreq(template.shape[0]), indexing="ij")
    measured = (np.abs(z) <= np.abs(x) * np.tan(np.radians(TILT)) + 1e-9)[:, None]
    for rotation in tqdm(rotations, unit="orientation"):
        kernel = fft.irfftn(fft.rfftn(turned(template, rotation)) * measured, s=template.shape) * inside
        kernel -= inside * (kernel.sum() / inside.sum())
        score = under(spectrum, (kernel / np.sqrt((kernel**2).sum() * inside.sum())).astype(np.float32)) / deviation
        np.maximum(highest, score, out=highest, casting="same_kind")
    return highest


def matched(folder: Path, snr: float, name: str, count: int, draw: int, angles: int) -> dict:
    """F1 of a class in the test tomogram by the template of so many examples."""
    truth = {part: truth_of(folder, snr, part) for part in SEEDS}
    image = {
        part: -mrcfile.read(folder / f"{snr:g}" / part / "teach_000" / "tomogram.mrc").astype(np.float32)
        for part in SEEDS
    }
    own = truth["examples"]
    free = np.flatnonzero((own["class"] == name) & ~own["touches_border"])
    chosen = own.iloc[np.random.default_rng(draw).choice(free, min(count, len(free)), replace=False)]
    start = time.perf_counter()
    reach = own.loc[free, "diameter_angstrom"].max() / 2
    half = int(np.ceil(1.5 * reach / VOXEL)) + RIM
    template = template_of(image["examples"], chosen, half)
    highest = correlation(image["test"], template, orientations(angles))
    distance = float(own.loc[free, "diameter_angstrom"].median()) * 0.75
    peaks, heights = find_seeds(highest, 0.05, distance, np.full(3, VOXEL))
    wanted = truth["test"]
    radius = match_radius(wanted["diameter_angstrom"].to_numpy(float) / 2, np.full(3, VOXEL), 0.5)
    order = np.argsort(-heights)[: 10 * int((wanted["class"] == name).sum())]
    mine = (wanted["class"] == name).to_numpy()
    turned_about = wanted.loc[mine, ["ref_x_vox", "ref_y_vox", "ref_z_vox"]].to_numpy(float) * VOXEL
    pairs = match_points(peaks[order][:, ::-1] * VOXEL, turned_about, radius[mine])
    right = np.zeros(len(order), bool)
    right[pairs.predicted] = True
    return {
        "snr": snr, "class": name, "examples": len(chosen), "draw": draw, "orientations": angles,
        "particles": int(mine.sum()), "f1_best_threshold": round(best(heights[order], right, int(mine.sum())), 3),
        "seconds": round(time.perf_counter() - start),
    }  # fmt: skip


def main() -> None:
    """Print a row for each class."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", required=True, help="folder of density maps")
    parser.add_argument("--output_dir", default="runs/teach", type=Path)
    parser.add_argument("--snr", default=[0.7, 0.25], type=float, nargs="+")
    parser.add_argument("--classes", nargs="+", default=list(CLASSES))
    parser.add_argument("--counts", type=int, nargs="+", default=[20])
    parser.add_argument("--orientations", type=int, default=1000)
    given = parser.parse_args()
    for snr in given.snr:
        for part in SEEDS:
            detected(given.output_dir, snr, part, None, given.maps)
        for name, count in product(given.classes, given.counts):
            print(json.dumps(matched(given.output_dir, snr, name, count, 0, given.orientations)), flush=True)


if __name__ == "__main__":
    main()
