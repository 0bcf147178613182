"""Template matching from the examples that `teach` gets: the common alternative.

    python -m tests.benchmarks.teach_templates --maps DIR --output_dir runs/teach --snr 0.7

On the tomograms of `tests.benchmarks.teach`. The template is the mean of the examples' boxes, each turned by its
**true** orientation, inside a ball that holds the particle; with ``--align`` by the one that fits the mean best, found
in rounds, as a user would have to. It is turned through orientations that cover all evenly, given the missing wedge of
the tomogram, and correlated with the **other** tomogram, whose mean and deviation under the ball are taken out at every
voxel (Roseman 2003). Peaks of the best orientation are the picks. Their threshold is the **best** there is, by the
truth. So the F1 is what this way could reach at most.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path

import mrcfile
import numpy as np
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation
from tqdm.auto import tqdm

from custom_transforms.labelling.seeds import find_seeds
from scripts.matching.points import match_points, match_radius
from tests.benchmarks.teach import CLASSES, SEEDS, best, detected, drawn, truth_of

VOXEL = 10.0  # Å
TILT = 58.0  # degrees, about Y: the middle of what the scenes draw
RIM = 2  # voxels of solvent around the particle
ROUNDS, SHIFT = 6, 2  # of finding orientations; voxels that a center may be wrong by
MIDDLE, REFERENCE = ["z_vox", "y_vox", "x_vox"], ["ref_z_vox", "ref_y_vox", "ref_x_vox"]


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


def boxes_of(image: np.ndarray, centers_zyx: np.ndarray, half: int) -> np.ndarray:
    """The cubes around the centers (voxels), mean 0 in the ball and 0 outside; shape (n, side, side, side)."""
    padded, inside, found = np.pad(image, half + 1, "symmetric"), ball(half), []
    for center in centers_zyx:
        low = np.floor(center).astype(int)
        box = padded[tuple(slice(a + 1, a + 2 * half + 2) for a in low)]
        box = ndimage.shift(box, low - center, order=1, mode="nearest")
        found.append(np.where(inside, box - box[inside].mean(), 0))
    return np.array(found, np.float32)


def mean_of(boxes: np.ndarray, rotations: Rotation) -> np.ndarray:
    """The mean of the cubes in their own frame."""
    total = np.mean([turned(box, one.inv()) for box, one in zip(boxes, rotations, strict=True)], axis=0)
    inside = ball(len(total) // 2)
    return np.where(inside, total - total[inside].mean(), 0)


def measured(side: int) -> np.ndarray:
    """Which frequencies of a cube's real transform are outside the missing wedge."""
    z, x = np.meshgrid(fft.fftfreq(side), fft.rfftfreq(side), indexing="ij")
    return (np.abs(z) <= np.abs(x) * np.tan(np.radians(TILT)) + 1e-9)[:, None]


def aligned_mean(boxes: np.ndarray, rotations: Rotation) -> np.ndarray:
    """The mean of cubes whose orientations are found: each against the mean of the round before, first against one."""
    mean, seen = boxes[0].astype(float), measured(boxes.shape[1])
    spectra = fft.rfftn(boxes, axes=(1, 2, 3))
    for _ in tqdm(range(ROUNDS), unit="round"):
        best_score, best_turn, best_shift = np.full(len(boxes), -np.inf), np.zeros(len(boxes), int), [()] * len(boxes)
        for number, rotation in enumerate(rotations):
            kernel = fft.rfftn(turned(mean, rotation)) * seen
            scores = fft.irfftn(spectra * kernel.conj(), s=boxes.shape[1:], axes=(1, 2, 3))
            scores /= np.sqrt((np.abs(kernel) ** 2).sum())
            near = np.roll(scores, (SHIFT,) * 3, axis=(1, 2, 3))[:, : 2 * SHIFT + 1, : 2 * SHIFT + 1, : 2 * SHIFT + 1]
            flat = near.reshape(len(boxes), -1)
            better = flat.max(axis=1) > best_score
            for row in np.flatnonzero(better):
                best_score[row], best_turn[row] = flat[row].max(), number
                best_shift[row] = np.subtract(np.unravel_index(flat[row].argmax(), near.shape[1:]), SHIFT)
        moved = [ndimage.shift(box, -np.array(by), order=1) for box, by in zip(boxes, best_shift, strict=True)]
        mean = mean_of(np.array(moved), rotations[best_turn])
    return mean


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
    seen = measured(template.shape[0])
    for rotation in tqdm(rotations, unit="orientation"):
        kernel = fft.irfftn(fft.rfftn(turned(template, rotation)) * seen, s=template.shape) * inside
        kernel -= inside * (kernel.sum() / inside.sum())
        score = under(spectrum, (kernel / np.sqrt((kernel**2).sum() * inside.sum())).astype(np.float32)) / deviation
        np.maximum(highest, score, out=highest, casting="same_kind")
    return highest


def matched(folder: Path, snr: float, name: str, count: int, draw: int, angles: int, align: bool) -> dict:
    """F1 of a class in the test tomogram by the template of so many examples."""
    truth = {part: truth_of(folder, snr, part) for part in SEEDS}
    image = {
        part: -mrcfile.read(folder / f"{snr:g}" / part / "teach_000" / "tomogram.mrc").astype(np.float32)
        for part in SEEDS
    }
    chosen = drawn(truth["examples"], name, count, draw)
    sizes = truth["examples"].query("`class` == @name and not touches_border")["diameter_angstrom"]
    start = time.perf_counter()
    half = int(np.ceil(0.75 * sizes.max() / VOXEL)) + RIM
    point = MIDDLE if align else REFERENCE
    boxes = boxes_of(image["examples"], chosen[point].to_numpy(float), half)
    known = Rotation.from_quat(chosen[["qx", "qy", "qz", "qw"]].to_numpy(float))
    template = aligned_mean(boxes, orientations(angles)) if align else mean_of(boxes, known)
    highest = correlation(image["test"], template, orientations(angles))
    peaks, heights = find_seeds(highest, 0.05, 0.75 * float(sizes.median()), np.full(3, VOXEL))
    wanted = truth["test"]
    radius = match_radius(wanted["diameter_angstrom"].to_numpy(float) / 2, np.full(3, VOXEL), 0.5)
    order = np.argsort(-heights)[: 10 * int((wanted["class"] == name).sum())]
    mine = (wanted["class"] == name).to_numpy()
    pairs = match_points(peaks[order] * VOXEL, wanted.loc[mine, point].to_numpy(float) * VOXEL, radius[mine])
    right = np.zeros(len(order), bool)
    right[pairs.predicted] = True
    return {
        "snr": snr, "class": name, "examples": len(chosen), "draw": draw, "orientations": angles, "aligned": align,
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
    parser.add_argument("--orientations", type=int, default=500)
    parser.add_argument("--align", action="store_true", help="find the examples' orientations instead of knowing them")
    given = parser.parse_args()
    for snr in given.snr:
        for part in SEEDS:
            detected(given.output_dir, snr, part, None, given.maps)
        for name, count in product(given.classes, given.counts):
            row = matched(given.output_dir, snr, name, count, 0, given.orientations, given.align)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
