"""calibrate: choose the thresholds of a detector on labelled tomograms, and keep them as a config overlay."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from custom_transforms.class_targets import classes_in_table
from custom_transforms.files.json_object import to_json
from custom_transforms.files.whole_files import atomic_path
from custom_transforms.units import following
from custom_transforms.volumes.read import read_tomogram
from scripts.datalist import load_datalist
from scripts.networks import UNSAID
from scripts.records.weights import read_record
from scripts.weights.center_thresholds import CalibrationSample
from scripts.weights.thresholds import choose_thresholds

__all__ = ["as_well", "calibrate", "calibrate_detector", "centers_text", "numbers_text", "samples", "write_overlay"]


class Detects(Protocol):
    """What is used of `scripts.detection.detector.Detector`."""

    parser: Any
    classes: list[str]

    def predict(self, item: Mapping[str, Any]) -> dict[str, Any]: ...

    def split(self, data: Mapping[str, Any]) -> dict[str, Any]: ...


def samples(
    detector: Detects, items: list[dict], class_of: Mapping[str, str] | None = None
) -> Iterator[CalibrationSample]:
    """Run the networks over labelled tomograms, one after the other; ``class_of`` are the classes of its names."""
    for item in items:
        data = detector.split(detector.predict(item))
        voxel_size_zyx = data["image"].meta["voxel_size_zyx"]
        labels, _ = read_tomogram(item["label"], voxel_size=tuple(voxel_size_zyx), check="labels")
        probability, center_map = (np.array(data[key][0]) for key in ("probability", "center_map"))
        class_maps, of_label = [np.array(one) for one in data.get("class_maps", ())], {}
        if class_of:
            table = classes_in_table(_particles_of(item))
            of_label = {int(label): class_of.get(name, "") for label, name in table.items()}
        yield CalibrationSample(probability, center_map, np.asarray(labels), voxel_size_zyx, class_maps, of_label)


def _particles_of(item: Mapping[str, Any]) -> str:
    if "particles" not in item:
        raise ValueError(
            f"{item['image']}: expected a particle table that names the class of each label ('particles' in the "
            "datalist), got none. `python -m scripts prepare` and `simulate` write it."
        )
    return str(item["particles"])


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
    known = read_record(detector.parser.get_parsed_content("weights")).class_of()
    class_of = {name: name for name in detector.classes} | {k: v for k, v in known.items() if v in detector.classes}
    return calibrate(
        lambda: samples(detector, tqdm(items, desc="calibrate", unit="tomogram"), class_of),
        output,
        detector.parser["particle_diameter"],
        beta,
        source=f"the {section} tomograms of {Path(dataset_dir).name}",
        **{name: detector.parser[name] for name in ("method", "min_distance", "radius_max", "require_seed")},
        networks={name: detector.parser[name] for name in UNSAID},
        **({"classes": detector.classes} if detector.classes else {}),
        shipped={name: detector.parser[name] for name in ("center_threshold", "mask_threshold")},
    )


def centers_text(chosen: Mapping[str, Any], score: str = "f_beta", digits: int = 3) -> str:
    """A score of the centers at the chosen thresholds; of classes, each with its name."""
    centers = chosen["scores"]["centers"]
    return numbers_text(centers[score] if score in centers else {k: row[score] for k, row in centers.items()}, digits)


def numbers_text(value: float | Mapping[str, float], digits: int = 0) -> str:
    """A number, or those of the classes, each with its name.

    Examples
    --------
    >>> numbers_text(0.5, 2), numbers_text({"ribosome": 12.4, "vlp": 80.0})
    ('0.50', 'ribosome 12, vlp 80')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number:.{digits}f}" for name, number in value.items())
    return f"{value:.{digits}f}"


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
        "particle_diameter": _rounded(chosen["particle_diameter"], 16),
        "mask_threshold": round(float(chosen["mask_threshold"]), 4),
        "center_threshold": _rounded(chosen["center_threshold"]),
        "min_size": chosen["min_size"],
        **{name: value for name, value in (settings or {}).items() if value is not None},
    }
    with atomic_path(target) as temporary:
        temporary.write_text(
            json.dumps(to_json(following(overlay)), indent=4, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return target


def _rounded(value: Any, digits: int = 4) -> Any:
    """A number, or an object of them by class, rounded."""
    if isinstance(value, Mapping):
        return {name: round(float(one), digits) for name, one in value.items()}
    return round(float(value), digits)


def as_well(chosen: Mapping[str, Any]) -> str:
    """The thresholds that fit as well, in words."""
    texts = [f"{name} from {low:.2f} to {high:.2f}" for name, (low, high) in chosen["intervals"].items()]
    return f"As far as these particles tell, {' and '.join(texts)} fit as well"


def calibrate(
    samples: Iterable[Sequence[Any]] | Callable[[], Iterable[Sequence[Any]]],
    output: str | Path,
    particle_diameter: float | Mapping[str, float],
    beta: float = 1.0,
    source: str = "validation data",
    networks: Mapping[str, Any] | None = None,
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
    networks : mapping, optional
        Settings that belong to the networks, such as ``voxel_size_model``; written into the file, too.

    Returns
    -------
    dict
        As `choose_thresholds`, and ``path``.
    """
    chosen = choose_thresholds(samples() if callable(samples) else samples, particle_diameter, beta, **options)
    scores = chosen["scores"]
    sizes = particle_diameter.values() if isinstance(particle_diameter, Mapping) else [particle_diameter]
    provenance = (
        f"Chosen by `python -m scripts calibrate` on {source}: {chosen['n_tomograms']} tomograms, "
        f"{chosen['n_particles']} particles of {', '.join(f'{size:g}' for size in sizes)} Å. F{beta:g} of centers "
        f"{centers_text(chosen)}, of instances {scores['instances']['f_beta']:.3f}, "
        f"panoptic quality {scores['instances']['panoptic_quality']:.3f}. {as_well(chosen)}."
    )
    settings = {name: options.get(name) for name in ("method", "min_distance", "radius_max", "require_seed")}
    settings |= networks or {}
    return {**chosen, "path": str(write_overlay(output, chosen, provenance, settings))}
