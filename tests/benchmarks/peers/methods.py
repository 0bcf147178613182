"""Ways to get particle centers from a tomogram, each with the few parameters it is calibrated over.

Every method takes one `Volume` and a list of parameters and yields one `Found` for each of them. What it finds carries
a score, so that the last parameter, the lowest score that counts, is read off without finding again.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pandas as pd
from scipy.ndimage import center_of_mass
from scipy.spatial import cKDTree
from skimage.feature import blob_dog, match_template
from skimage.filters import threshold_otsu
from sklearn import config_context
from sklearn.cluster import MeanShift

from custom_transforms.labelling.seeds import find_seeds
from custom_transforms.units import voxel_zyx_to_angstrom_xyz
from scripts.detection.detector import Detector
from scripts.evaluation.sides import Side
from scripts.particles.particle_list import ParticleList
from scripts.simulate.density import read_map

Params = dict[str, Any]
SPARSE = 4  # mean shift runs on every 4th voxel of a component of more than SPARSE_FROM voxels
SPARSE_FROM = 500
STARDIST = Path(__file__).with_name("stardist3d.py")
STARDIST_WEIGHTS = "weights_best.h5"  # in the model's folder
STARDIST_PROB = 0.2  # instances below are not looked at


@dataclass(frozen=True)
class Volume:
    """One tomogram: ``data`` holds "image" (1, Z, Y, X), protein bright and z-scored, and, where a network has run,
    "probability" and "center_map" as `Detector.split` gives them; ``network_seconds`` is what that took."""

    data: dict[str, Any]
    voxel_size_zyx: np.ndarray
    network_seconds: float = 0.0

    def array(self, key: str) -> np.ndarray:
        """An entry as (Z, Y, X)."""
        return np.asarray(self.data[key])[0]


@dataclass(frozen=True)
class Found:
    """Centers (n, 3) in voxels, Z, Y, X; a score each; ``labels`` (Z, Y, X), where row i is label i + 1, or None."""

    centers_zyx_vox: np.ndarray
    score: np.ndarray
    labels: np.ndarray | None = None

    def above(self, cutoff: float) -> Found:
        """Those whose score reaches the cutoff, labelled anew from 1."""
        kept = self.score >= cutoff
        labels = self.labels
        if labels is not None:
            new = np.zeros(len(kept) + 1, np.int32)
            new[1:][kept] = np.arange(1, kept.sum() + 1)
            labels = new[labels]
        return Found(self.centers_zyx_vox[kept], self.score[kept], labels)

    def side(self, voxel_size_zyx: np.ndarray) -> Side:
        """As `evaluate_sides` takes it."""
        centers = voxel_zyx_to_angstrom_xyz(self.centers_zyx_vox, voxel_size_zyx)
        numbers = pd.DataFrame({"label": np.arange(1, len(centers) + 1)})
        return Side(self.labels, ParticleList(centers, score=self.score, extra=numbers), voxel_size_zyx)


Find = Callable[[Volume, Sequence[Params]], Iterator[Found]]


@dataclass(frozen=True)
class Method:
    """How to find, the parameters tried, the lowest scores tried, and the share of the networks' time it needs."""

    find: Find
    grid: tuple[Params, ...] = ({},)
    cutoffs: tuple[float, ...] = (0.0,)
    network_share: float = 0.0


def found_in(table: pd.DataFrame, labels: np.ndarray) -> Found:
    """What the chain hands over: the particles of its table that have a label in the volume (Z, Y, X)."""
    table = table[table["label"] > 0].sort_values("label")
    return Found(table[["z_vox", "y_vox", "x_vox"]].to_numpy(float), table["score"].to_numpy(float), labels)


class Ours:
    """The post-processing of `detect`, with the settings it has."""

    def __init__(self, detector: Detector) -> None:
        self.steps = detector.postprocessing.transforms[1:-1]  # without splitting the maps and writing files

    def __call__(self, volume: Volume, grid: Sequence[Params]) -> Iterator[Found]:
        for _ in grid:
            data = dict(volume.data)
            for step in self.steps:
                data = step(data)
            yield found_in(data["particles"], np.asarray(data["instances"])[0])


def find_blobs(volume: Volume, grid: Sequence[Params]) -> Iterator[Found]:
    """scikit-image's difference of Gaussians, whose smallest Gaussian is the low-pass filter."""
    for params in grid:
        blobs = blob_dog(volume.array("image"), max_sigma=8, overlap=0.5, exclude_border=False, **params)
        yield Found(blobs[:, :3].astype(float), np.ones(len(blobs)))


class Templates:
    """Normalised cross-correlation with density maps, each averaged over all orientations; the largest of all maps.

    A weak form of template matching: no search over orientations (15 maps take a minute as it is), no missing wedge,
    no contrast transfer.

    Parameters
    ----------
    paths : sequence of path
        MRC density maps.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.maps = [read_map(str(path)) for path in paths]

    def __call__(self, volume: Volume, grid: Sequence[Params]) -> Iterator[Found]:
        image = volume.array("image")
        best: dict[str, np.ndarray] = {}
        for density, voxel_size in self.maps:
            template = radial_template(density, voxel_size, volume.voxel_size_zyx)
            correlation = match_template(image, template, pad_input=True)  # constant padding: 0, the mean
            # small maps correlate with noise by chance: in units of each map's own spread they do not outdo large ones
            for kind, scale in (("correlation", 1.0), ("deviations", 1.0 / correlation.std())):
                scaled = correlation * np.float32(scale)
                best[kind] = np.maximum(best[kind], scaled, out=best[kind]) if kind in best else scaled
        for params in grid:
            peaks, heights = find_seeds(best[params["score"]], 0.05, params["min_distance"], volume.voxel_size_zyx)
            yield Found(peaks.astype(float), heights)


def radial_template(density: np.ndarray, voxel_size: float, voxel_size_zyx: np.ndarray) -> np.ndarray:
    """Average a map (Z, Y, X) over all orientations around its center of mass, on the tomogram's grid (Å per voxel)."""
    solid = density > threshold_otsu(density)
    center = np.array(center_of_mass(np.where(solid, density, 0)))
    radius = np.linalg.norm(np.moveaxis(np.indices(density.shape), 0, -1) - center, axis=-1)
    shell = np.rint(radius).astype(int).ravel()
    profile = np.bincount(shell, weights=np.maximum(density, 0).ravel()) / np.maximum(np.bincount(shell), 1)
    reach = (radius[solid].max() + 2) * voxel_size  # a rim of solvent, or there is no contrast to correlate
    half = np.ceil(reach / voxel_size_zyx).astype(int)
    grids = np.meshgrid(*(np.arange(-n, n + 1) * s for n, s in zip(half, voxel_size_zyx, strict=True)), indexing="ij")
    distance = np.sqrt(sum(g**2 for g in grids))
    return np.interp(distance, np.arange(len(profile)) * voxel_size, profile).astype(np.float32)


def find_components(volume: Volume, grid: Sequence[Params]) -> Iterator[Found]:
    """Connected components (6 neighbours) of the mask; the score is the size in cubic Å, so the cutoff drops dust."""
    for params in grid:
        mask = volume.array("probability") > params["mask_threshold"]
        yield _by_label(cc3d.connected_components(mask, connectivity=6), volume.voxel_size_zyx)


def find_mean_shift(volume: Volume, grid: Sequence[Params]) -> Iterator[Found]:
    """DeepFinder's recipe: mean shift over the voxels of the mask, here by connected component.

    A component that lies within the bandwidth of its centroid is one cluster. Large ones are clustered on every
    `SPARSE`-th voxel; then every voxel goes to its nearest cluster. The score is the size in cubic Å.
    """
    size = volume.voxel_size_zyx
    for params in grid:
        parts = cc3d.connected_components(volume.array("probability") > params["mask_threshold"], connectivity=6)
        labels, n = np.zeros(parts.shape, np.int32), 0
        boxes = cc3d.statistics(parts)["bounding_boxes"][1:]
        for part, box in enumerate(boxes, 1):
            voxels = np.argwhere(parts[box] == part)
            number, clusters = _shift(voxels * size, params["bandwidth"])
            labels[box][tuple(voxels.T)] = number + n + 1
            n += clusters
        yield _by_label(labels, size)


def _shift(points: np.ndarray, bandwidth: float) -> tuple[np.ndarray, int]:
    """Number of each point's cluster, from 0, and how many there are."""
    if np.linalg.norm(points - points.mean(0), axis=1).max() <= bandwidth:  # the shift of the centroid is 0
        return np.zeros(len(points), int), 1
    few = points[:: SPARSE if len(points) > SPARSE_FROM else 1]
    with config_context(assume_finite=True, skip_parameter_validation=True):  # checks of every step of every seed
        centers = MeanShift(bandwidth=bandwidth, bin_seeding=True).fit(few).cluster_centers_
    number = cKDTree(centers).query(points)[1]
    kept, number = np.unique(number, return_inverse=True)
    return number, len(kept)


class StarDist:
    """StarDist 3D, run by the Python of its own environment.

    Parameters
    ----------
    python : path
        That Python.
    model : path
        Folder of the model, as ``train_stardist`` writes it.
    """

    def __init__(self, python: Path, model: Path) -> None:
        self.python, self.model = python, model

    def __call__(self, volume: Volume, grid: Sequence[Params]) -> Iterator[Found]:
        """The points that StarDist names, or the centroids of what it draws."""
        found = self.predict(volume.array("image"))
        for params in grid:
            if params["center"] == "centroid":
                drawn = _by_label(np.asarray(found.labels), volume.voxel_size_zyx)
                yield replace(found, centers_zyx_vox=drawn.centers_zyx_vox)
            else:
                yield found

    def predict(self, image: np.ndarray) -> Found:
        """Every instance that is likelier than `STARDIST_PROB`; its score is StarDist's probability."""
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder, "image.npy"), image)
            command = [str(self.python), str(STARDIST), "predict", "--model", str(self.model), "--output", folder]
            command += ["--images", f"{folder}/image.npy", "--prob", str(STARDIST_PROB)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(
                    f"{self.python}: expected StarDist to predict, it ended with {done.returncode}. "
                    f"Look for the cause in what it printed last:\n{done.stderr[-3000:]}"
                )
            with np.load(Path(folder, "image.npz")) as found:
                return Found(found["centers"], found["prob"], found["labels"])


def _by_label(labels: np.ndarray, voxel_size_zyx: np.ndarray) -> Found:
    """Centroid and size of every label 1..n."""
    measured = cc3d.statistics(labels)
    sizes = measured["voxel_counts"][1:] * float(np.prod(voxel_size_zyx))
    return Found(np.asarray(measured["centroids"][1:], float).reshape(-1, 3), sizes, labels)


def all_methods(
    detector: Detector | None, templates: Sequence[Path], stardist: tuple[Path, Path] | None = None
) -> dict[str, Method]:
    """Every method by name; ours only with a detector, template matching only with maps, StarDist only with its Python
    and model."""
    dust = tuple(8e3 * 2**k for k in range(8))  # cubic Å: 20 to 125 Å across
    blobs = ((1.5, (0.3, 0.45, 0.6, 0.8)), (2.5, (0.1, 0.15, 0.2, 0.3, 0.45)), (4.0, (0.05, 0.1, 0.15, 0.2, 0.3)))
    share = 0.5 if detector is not None and hasattr(detector.network, "mask_network") else 1.0  # MaskNet alone
    methods = {
        "blobs": Method(
            find_blobs,
            tuple({"min_sigma": sigma, "threshold": height} for sigma, heights in blobs for height in heights),
        ),
        "components": Method(
            find_components, tuple({"mask_threshold": t} for t in (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)), dust, share
        ),
        "mean_shift": Method(
            find_mean_shift,
            tuple({"mask_threshold": t, "bandwidth": b} for t in (0.8, 0.9) for b in (60.0, 90.0)),
            dust,
            share,
        ),
    }
    if templates:
        raw, scaled = np.arange(0.1, 0.96, 0.05), np.arange(1.5, 12.1, 0.5)
        methods["templates"] = Method(
            Templates(templates),
            tuple({"score": s, "min_distance": d} for s in ("correlation", "deviations") for d in (60.0, 100.0, 140.0)),
            tuple(np.round([*raw, *scaled], 2).tolist()),
        )
    if stardist is not None:
        methods["stardist"] = Method(
            StarDist(*stardist),
            tuple({"center": center} for center in ("point", "centroid")),
            tuple(np.round(np.arange(STARDIST_PROB, 0.91, 0.05), 2).tolist()),
        )
    if detector is not None:
        methods["ours"] = Method(Ours(detector), network_share=1.0)
    return methods
