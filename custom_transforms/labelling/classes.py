"""Which class a seed is of: the highest around it of the center maps, of which there is one per class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numba import njit

from custom_transforms.labelling.seeds import find_seeds, thin_peaks
from custom_transforms.units import ParticleSizes, as_voxel_size_zyx, of_class
from custom_transforms.volumes.parallel import as_float_volume, squared_axis_weights

__all__ = [
    "CLASS_COLUMNS",
    "ClassRules",
    "SeedClasses",
    "Seeds",
    "ball_offsets",
    "score_classes",
    "sums_in_balls",
    "with_classes",
]

CLASS_COLUMNS = ("class", "class_score", "runner_up", "runner_up_score")


@dataclass(frozen=True)
class SeedClasses:
    """Of every seed, what each class's center map is around it.

    Attributes
    ----------
    names : tuple of str
        In the order of the maps.
    scores : ndarray, shape (n, classes), float64
        Means of the maps over the ball around each seed, 0..1.
    """

    names: tuple[str, ...]
    scores: np.ndarray

    @property
    def index(self) -> np.ndarray:
        """The class of each seed: the highest mean; of equal ones the first."""
        return np.asarray(self.scores.argmax(axis=1)) if len(self.scores) else np.zeros(0, np.int64)

    def of(self, kept: np.ndarray) -> SeedClasses:
        """Those of some of the seeds."""
        return SeedClasses(self.names, self.scores[kept])


@dataclass(frozen=True)
class Seeds:
    """The seeds of one tomogram, sorted by z, y, x.

    Attributes
    ----------
    peaks_zyx : ndarray, shape (n, 3), int64
        Voxels of the peaks.
    centers_zyx_vox, heights : ndarray, shapes (n, 3) and (n,), float64
        Refined centers, and the center map there.
    threshold : float
        The ``center_threshold`` they passed; of classes, the lowest.
    labels : ndarray, shape (n,), int64, or None
        Label of each seed in the instance volume, once assigned; 0 if it owns no voxel.
    classes : SeedClasses or None
        What each class's map is around each seed, where there are classes.
    """

    peaks_zyx: np.ndarray
    centers_zyx_vox: np.ndarray
    heights: np.ndarray
    threshold: float
    labels: np.ndarray | None = None
    classes: SeedClasses | None = None


@dataclass(frozen=True)
class ClassRules:
    """What a seed of each class must fulfil, by class in the order of their maps.

    Examples
    --------
    >>> rules = ClassRules.of(["a", "b"], {"a": 0.3, "b": 0.5}, {"a": 120.0, "b": 240.0})
    >>> rules.thresholds.tolist(), rules.min_distances.tolist(), rules.ball
    ([0.3, 0.5], [40.0, 80.0], 15.0)
    """

    names: tuple[str, ...]
    thresholds: np.ndarray  # center_threshold
    min_distances: np.ndarray  # Å; of two seeds of different classes, the smaller holds
    refine_radii: np.ndarray  # Å
    ball: float  # Å, the radius within which maps are averaged: half of the smallest refine_radius

    @classmethod
    def of(
        cls, names: Sequence[str], threshold: float | Mapping[str, float], diameter: float | Mapping[str, float],
        min_distance: float | None = None,
    ) -> ClassRules:  # fmt: skip
        """Rules from settings, each a number for all classes or an object by class name."""
        sizes = [ParticleSizes.from_diameter(of_class(diameter, name), min_distance=min_distance) for name in names]
        radii = np.array([one.refine_radius for one in sizes])
        return cls(
            tuple(names),
            np.array([float(of_class(threshold, name)) for name in names]),
            np.array([one.min_distance for one in sizes]),
            radii,
            float(radii.min()) / 2,
        )

    def seeds(
        self, center_map: Any, class_maps: Sequence[Any], *where: Any, find: Callable = find_seeds,
        score: Callable | None = None,
    ) -> tuple[np.ndarray, np.ndarray, SeedClasses]:  # fmt: skip
        """Peaks (n, 3) of the highest map that are seeds, the map there, and their classes.

        ``where`` is the voxel size, and what else ``find`` (`find_seeds`) and ``score`` (`score_classes`) take last.
        """
        peaks, heights = find(center_map, float(self.thresholds.min()), 0.0, *where)
        classes = (score or score_classes)(class_maps, self.names, peaks, self.ball, *where)
        kept = self.kept(peaks, heights, classes, where[0])
        return peaks[kept], heights[kept], classes.of(kept)

    def kept(self, peaks: np.ndarray, heights: np.ndarray, classes: SeedClasses, voxel_size_zyx: Any) -> np.ndarray:
        """Which peaks are seeds: high enough for their class, and far enough from higher ones.

        Parameters
        ----------
        peaks : ndarray, shape (n, 3), int64
            All peaks of the highest of the maps, sorted by z, y, x.
        heights : ndarray, shape (n,)
        classes : SeedClasses
            Of the peaks.
        voxel_size_zyx : ndarray, shape (3,)
            Å.

        Returns
        -------
        ndarray, int64
            Indices, ascending.
        """
        weights, unit = squared_axis_weights(as_voxel_size_zyx(voxel_size_zyx))
        high = np.flatnonzero(heights.astype(np.float32) >= self.thresholds.astype(np.float32)[classes.index])
        distances = self.min_distances[classes.index[high]] / unit
        order = np.argsort(-heights[high], kind="stable")  # ties: smallest z, y, x
        return high[thin_peaks(peaks[high], order, distances, weights)]


def score_classes(
    class_maps: Iterable[np.ndarray], names: Sequence[str], peaks: np.ndarray, radius: float, voxel_size_zyx: Any
) -> SeedClasses:
    """Average the center map of every class over a ball around each peak.

    Parameters
    ----------
    class_maps : iterable of ndarray, shape (Z, Y, X), float
        One per class, 0..1.
    names : sequence of str
    peaks : ndarray, shape (n, 3), int64
    radius : float
        Å. At the border of the volume only the voxels inside count; the peak's own voxel always does.
    voxel_size_zyx : ndarray, shape (3,)
        Å.

    Examples
    --------
    >>> maps = np.zeros((2, 5, 6, 7), np.float32)
    >>> maps[1, 2, 3, 4] = 0.7
    >>> found = score_classes(maps, ["a", "b"], np.array([[2, 3, 4]]), 10.0, np.full(3, 10.0))
    >>> found.index.tolist(), found.scores.round(1).tolist()
    ([1], [[0.0, 0.1]])
    """
    offsets = ball_offsets(radius, voxel_size_zyx)
    columns = [np.divide(*sums_in_balls(as_float_volume(one, "class map"), peaks, offsets)) for one in class_maps]
    return SeedClasses(tuple(names), np.stack(columns, axis=1))


def ball_offsets(radius: float, voxel_size_zyx: Any) -> np.ndarray:
    """Offsets (n, 3) of the voxels within ``radius`` Å of a voxel, in the order z, y, x."""
    size = as_voxel_size_zyx(voxel_size_zyx)
    reach = np.floor(radius / size).astype(np.int64)
    grid = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    return np.ascontiguousarray(grid[((grid * size) ** 2).sum(axis=1) <= radius**2])


def sums_in_balls(values: np.ndarray, peaks: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums (n,) of a volume over the voxels at ``offsets`` of each peak that lie inside it; how many these are."""
    sums, counts = np.zeros(len(peaks)), np.zeros(len(peaks), dtype=np.int64)
    _sums_in_balls(values, np.ascontiguousarray(peaks, dtype=np.int64).reshape(-1, 3), offsets, sums, counts)
    return sums, counts


@njit(nogil=True, cache=True)
def _sums_in_balls(values, peaks, offsets, sums, counts):
    nz, ny, nx = values.shape
    for k in range(peaks.shape[0]):
        for o in range(offsets.shape[0]):
            z, y, x = peaks[k, 0] + offsets[o, 0], peaks[k, 1] + offsets[o, 1], peaks[k, 2] + offsets[o, 2]
            if 0 <= z < nz and 0 <= y < ny and 0 <= x < nx:
                sums[k] += values[z, y, x]
                counts[k] += 1


def with_classes(table: pd.DataFrame, classes: SeedClasses) -> pd.DataFrame:
    """Put the class of every seed, and the runner-up, into the first rows of a particle table.

    Particles without a seed, which follow, have no class and no score.
    """
    count, rest = len(classes.scores), len(table) - len(classes.scores)
    order = np.argsort(-classes.scores, axis=1, kind="stable")
    columns: dict[str, Any] = {}
    for rank, (name, score) in enumerate((CLASS_COLUMNS[:2], CLASS_COLUMNS[2:])):
        if rank < len(classes.names):
            names = [classes.names[k] for k in order[:, rank]]
            values = classes.scores[np.arange(count), order[:, rank]]
        else:  # of a single class there is no second
            names, values = [""] * count, np.full(count, np.nan)
        columns[name] = pd.Series([*names, *[""] * rest], index=table.index, dtype=object)
        columns[score] = np.concatenate([values, np.full(rest, np.nan)])
    return table.assign(**columns)
