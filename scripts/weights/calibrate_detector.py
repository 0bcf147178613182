"""Calibrate a detector: run its networks over labelled tomograms, and choose the thresholds on what they gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from custom_transforms.volumes.read import read_tomogram
from scripts.datalist import load_datalist
from scripts.weights.calibrate import CalibrationSample, calibrate

__all__ = ["calibrate_detector", "samples"]


class Detects(Protocol):
    """What is used of `scripts.detection.detector.Detector`."""

    parser: Any

    def predict(self, item: Mapping[str, Any]) -> dict[str, Any]: ...

    def split(self, data: Mapping[str, Any]) -> dict[str, Any]: ...


def samples(detector: Detects, items: list[dict]) -> Iterator[CalibrationSample]:
    """Run the networks over labelled tomograms, one after the other."""
    for item in items:
        data = detector.split(detector.predict(item))
        voxel_size_zyx = data["image"].meta["voxel_size_zyx"]
        labels, _ = read_tomogram(item["label"], voxel_size=tuple(voxel_size_zyx), check="labels")
        probability, center_map = (np.array(data[key][0]) for key in ("probability", "center_map"))
        yield CalibrationSample(probability, center_map, np.asarray(labels), voxel_size_zyx)


def calibrate_detector(
    detector: Detects, dataset_dir: str, output: str, section: str = "validation", beta: float = 1.0
) -> dict[str, Any]:
    """Choose the thresholds of a detector on a section of a dataset, with its other settings as they are.

    Parameters
    ----------
    detector : Detector
    dataset_dir, section : str
        As `load_datalist` takes them.
    output : str
        The JSON overlay to write.
    beta : float
        Recall's weight against precision.

    Returns
    -------
    dict
        As `scripts.weights.calibrate.calibrate` gives it.
    """
    items = load_datalist(dataset_dir, section)
    return calibrate(
        lambda: samples(detector, tqdm(items, desc="calibrate", unit="tomogram")),
        output,
        detector.parser["particle_diameter"],
        beta,
        source=f"the {section} tomograms of {Path(dataset_dir).name}",
        **{name: detector.parser[name] for name in ("method", "min_distance", "radius_max", "require_seed")},
        voxel_size_model=detector.parser["voxel_size_model"],
    )
