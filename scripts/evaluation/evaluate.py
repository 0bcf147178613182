"""evaluate: predicted and true particles in, numbers that can be trusted out.

Volumes are compared by their overlaps, centers by optimal one-to-one matching; see `evaluate` for the rules.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from custom_transforms.volumes.read import check_job
from scripts.cluster.spread import in_order
from scripts.cluster.workers import each
from scripts.evaluation.classes import METRICS, confusion, czii
from scripts.evaluation.outputs import write_coloured, write_tables
from scripts.evaluation.pair import PairResult, Rules, compare_sides
from scripts.evaluation.sides import Side, in_classes_of, pair_sides, read_side
from scripts.evaluation.summary import summarise
from scripts.particles.registry import find_format
from scripts.sources.labels_and_lists import SideFiles

__all__ = ["EvaluationWarning", "evaluate"]

COPIES = 4, 6  # bytes a voxel: the coloured volume and slabs as int32; labels of floats become whole numbers
MOST_DRAWS = 100_000  # more change the third digit of an interval, and take minutes and gigabytes


class EvaluationWarning(UserWarning):
    """What is odd about an evaluation; every one is in its result's ``warnings``, too."""


def evaluate(
    predicted: str | Path,
    truth: str | Path,
    output_dir: str | Path | None = None,
    particle_diameter: float | Mapping[str, float] | None = None,
    match_fraction: float = 0.5,
    beta: float = 4.0,
    rule: str = "main",
    point_rule: str = "distance",
    border: str = "count",
    voxel_size: float | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    from_format: str | None = None,
    cluster: str | None = None,
    metric: str | None = None,
    class_weights: str | Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Compare predicted with true particles and say how many were found, merged, split, missed or made up.

    Label volumes, particle lists, or both: volumes are compared by overlap where both sides have one, centers always.
    Lists are compared in Å, so they may come from another binning.

    Parameters
    ----------
    predicted : path
        A label volume, a particle list, a folder of them (for example what ``detect`` wrote), or picks or segmentations
        of a copick project, see `scripts.sources.labels_and_lists.find_sides`.
    truth : path
        The same; folders are matched by tomogram name. Label -1 marks voxels to ignore.
    output_dir : path
        Folder for metrics.json, metrics.csv, matches.csv and, for volumes, coloured MRC and PNG.
    particle_diameter : float, or mapping of str to float
        Å; for true particles that come without a size. {CLASS: ANGSTROM, ...} where classes differ.
    match_fraction : float
        A center may lie this fraction of the particle's radius from the true one (at least 2 voxels).
    beta : float
        How much more recall weighs than precision in F-beta.
    rule : {"main", "original"}
        How volumes are judged: main (each particle's main overlap, background competing) or original (the most common
        label under each true particle).
    point_rule : {"distance", "inside"}
        How centers are judged: distance, or inside (the center lies in the true particle's volume, as SHREC does).
    border : {"count", "ignore"}
        Whether particles that touch a face of the volume count: count or ignore.
    voxel_size : float
        Å per voxel; replaces what the files say.
    bootstrap : int
        Draws for the 95 % intervals, at most 100000; 0 leaves them out.
    seed : int
        Of the draws.
    from_format : str, optional
        Format of the particle lists; guessed from their content and names. Two with a comma between are that of the
        predicted and that of the true ones: csv,relion5.
    cluster : str, optional
        Spread the tomograms over workers, as with detect: local, tcp://host:8786, or a JSON file.
    metric : {"czii"}
        A score beside the others: czii, that of the CZII challenge of 2024 (F-beta of each class, pooled over the
        tomograms, within half the radius of the class, weighted mean over the classes).
    class_weights : str
        Of the metric, NAME=WEIGHT with commas between; by default those of the challenge, 1 for every other class.

    Returns
    -------
    dict
        ``pooled``, ``classes``, ``tomograms`` (each with ``points`` and ``volume``), ``macro``, ``settings``,
        ``unmatched``, ``warnings``, ``files``. A number is nan only where it is undefined: precision without
        predictions, recall without particles, F1 without both, a mean error without a match.

    Raises
    ------
    FileNotFoundError, ValueError
        If a path is missing, no names agree, shapes or voxel sizes differ, or a radius is unknown.
    """
    rules = Rules(rule, point_rule, border, match_fraction, particle_diameter=particle_diameter, beta=beta)
    if metric not in (None, *METRICS):
        raise ValueError(f"--metric: expected {' or '.join(METRICS)}, got {metric!r}.")
    weights = _weights(class_weights)
    for name, value, most in (("bootstrap", bootstrap, MOST_DRAWS), ("seed", seed, 2**32 - 1)):
        if not 0 <= value <= most:
            raise ValueError(f"--{name}: expected a whole number from 0 to {most:,}, got {value:,}.")
    formats = _formats(from_format)
    pairs, unmatched = pair_sides(predicted, truth, formats)
    folder = None if output_dir is None else Path(output_dir).expanduser()
    compare = partial(_compare, rules=rules, voxel_size=voxel_size, formats=formats, folder=folder)
    if cluster is None:  # workers have memory of their own
        for pair in pairs:
            _check_memory(pair, voxel_size)
    results, files = [], []
    for result, written in in_order(each(compare, pairs, cluster)):
        results.append(result)
        files += written
    inputs = {"predicted": str(predicted), "truth": str(truth), "voxel_size": voxel_size}
    summary = _finish(results, rules, bootstrap, seed, inputs, unmatched)
    if metric == "czii":
        summary["czii"] = czii(results, rules, weights)
    for sentence in summary["warnings"]:
        warnings.warn(sentence, EvaluationWarning, stacklevel=2)
    if folder is not None:
        files = [*write_tables(folder, summary, results), *files]
    return {**summary, "files": [str(path) for path in files]}


def _compare(
    pair: tuple[str, SideFiles, SideFiles],
    second: bool,
    *,
    rules: Rules,
    voxel_size: float | None,
    formats: Sequence[str | None],
    folder: Path | None,
) -> tuple[PairResult, list[Path]]:
    """Compare one tomogram, and show it in colour where both sides are volumes."""
    _check_memory(pair, voxel_size)
    name, predicted, true = pair
    sides = _read_pair(predicted, true, voxel_size, formats)
    result = compare_sides(name, *sides, rules)
    volumes = [side.volume for side in sides]
    if folder is None or volumes[0] is None or volumes[1] is None:
        return result, []
    return result, write_coloured(folder, result, volumes[0], volumes[1], predicted.volume)


def _check_memory(pair: tuple[str, SideFiles, SideFiles], voxel_size: float | None) -> None:
    name, *sides = pair
    check_job(f"evaluate: {name}", [side.volume for side in sides if side.volume], COPIES, voxel_size)


def _weights(text: str | Mapping[str, float] | None) -> dict[str, float] | None:
    """Read ``ribosome=1,vlp=2``."""
    if text is None or isinstance(text, Mapping):
        return None if text is None else dict(text)
    found = dict(word.rpartition("=")[::2] for word in text.split(","))
    try:
        numbers = {name.strip(): float(value) for name, value in found.items()}
    except ValueError:
        numbers = {"": -1.0}
    if not all(name and 0 <= value < float("inf") for name, value in numbers.items()):
        raise ValueError(f"--class_weights: expected NAME=WEIGHT with commas between, got {text!r}.")
    return numbers


def _formats(from_format: str | None) -> list[str | None]:
    """The formats of the predicted and of the true lists; None is to be told by each list."""
    words = [word.strip() for word in (from_format or "").split(",")]
    if len(words) > 2:
        raise ValueError(f"--from_format: expected one format or two, PREDICTED,TRUE, got {from_format!r}.")
    return [find_format(word).name if word else None for word in (words if len(words) == 2 else words * 2)]


def _read_pair(
    predicted: SideFiles, true: SideFiles, voxel_size: float | None, formats: Sequence[str | None]
) -> tuple[Side, Side]:
    """Read both sides; a list that counts in voxels borrows the voxel size of the other side's volume."""
    if predicted.volume is not None:
        first = read_side(predicted, voxel_size, format=formats[0])
        return first, in_classes_of(predicted, read_side(true, voxel_size, first.voxel_size_zyx, formats[1]))
    second = read_side(true, voxel_size, format=formats[1])
    first = read_side(predicted, voxel_size, second.voxel_size_zyx, formats[0])
    return first, in_classes_of(predicted, second)


def _finish(
    results: Sequence[PairResult],
    rules: Rules,
    draws: int,
    seed: int,
    inputs: dict[str, Any],
    unmatched: dict[str, list[str]],
) -> dict[str, Any]:
    if not results:
        raise ValueError("evaluate: expected at least one tomogram on both sides, got none")
    notes = [sentence for result in results for sentence in result.warnings]
    for key, side in (("only_predicted", "truth"), ("only_true", "prediction")):
        if unmatched.get(key):
            notes.append(f"evaluate: no {side} for {', '.join(unmatched[key][:10])}; left out of every number")
    settings = {**inputs, **vars(rules), "bootstrap": draws, "seed": seed}
    notes = list(dict.fromkeys(notes))
    found = summarise(results, rules, draws, seed)
    if any(r.class_points is not None for r in results):
        found["confusion"] = confusion(results)
        for r in results:
            found["tomograms"][r.name]["confusion"] = confusion([r])
    return {**found, "settings": settings, "unmatched": unmatched, "warnings": notes}
