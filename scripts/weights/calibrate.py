"""calibrate: choose the thresholds of a detector on labelled tomograms, and keep them as a config overlay."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from custom_transforms.files.json_object import to_json
from custom_transforms.files.whole_files import atomic_path
from custom_transforms.units import following
from custom_transforms.volumes.read import read_tomogram
from scripts.datalist import load_datalist
from scripts.weights.thresholds import CalibrationSample, choose_thresholds

__all__ = ["calibrate", "calibrate_detector", "samples", "write_overlay"]


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


def write_overlay(
    path: str | Path, chosen: Mapping[str, Any], provenance: str, settings: Mapping[str, Any] | None = None
) -> Path:
    """Write the chosen values as a config overlay, whole or not at all.

    The file holds ``particle_diameter``, ``mask_threshold``, ``center_threshold``, ``min_size``, the other settings of
    detection they were chosen with, and a ``_desc_`` with where they come from: it lies on top of
    ``configs/inference.json``. Lengths are written as `following` gives them.
    """
    target = Path(path).expanduser()
    overlay = {
        "_desc_": provenance,
        "particle_diameter": float(chosen["particle_diameter"]),
        "mask_threshold": round(float(chosen["mask_threshold"]), 4),
        "center_threshold": round(float(chosen["center_threshold"]), 4),
        "min_size": chosen["min_size"],
        **{name: value for name, value in (settings or {}).items() if value is not None},
    }
    with atomic_path(target) as temporary:
        temporary.write_text(
            json.dumps(to_json(following(overlay)), indent=4, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return target


def calibrate(
    samples: Iterable[Sequence[Any]] | Callable[[], Iterable[Sequence[Any]]],
    output: str | Path,
    particle_diameter: float,
    beta: float = 1.0,
    source: str = "validation data",
    voxel_size_model: float | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Choose the thresholds and write them as an overlay for ``detect``.

    Parameters
    ----------
    samples : iterable, or a function that returns one
        See `choose_thresholds`.
    output : path
        The JSON overlay.
    particle_diameter, beta
        See `choose_thresholds`; ``options`` go there, too. ``method``, ``min_distance``, ``radius_max`` and
        ``require_seed`` are written into the file as well: the thresholds hold for them.
    source : str
        What the samples are, for the file's ``_desc_``.
    voxel_size_model : float, optional
        Å per voxel the networks saw the samples at; written into the file, too.

    Returns
    -------
    dict
        As `choose_thresholds`, and ``path``.
    """
    chosen = choose_thresholds(samples() if callable(samples) else samples, particle_diameter, beta, **options)
    scores = chosen["scores"]
    provenance = (
        f"Chosen by `python -m scripts calibrate` on {source}: {chosen['n_tomograms']} tomograms, "
        f"{chosen['n_particles']} particles of {particle_diameter:g} Å. F{beta:g} of centers "
        f"{scores['centers']['f_beta']:.3f}, of instances {scores['instances']['f_beta']:.3f}, "
        f"panoptic quality {scores['instances']['panoptic_quality']:.3f}."
    )
    settings = {name: options.get(name) for name in ("method", "min_distance", "radius_max", "require_seed")}
    settings["voxel_size_model"] = voxel_size_model
    return {**chosen, "path": str(write_overlay(output, chosen, provenance, settings))}
