"""What `python -m scripts teach` has learnt from examples: numbers in a JSON file, checked when it is read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from custom_transforms.files.json_object import read_object, to_json
from custom_transforms.files.whole_files import atomic_path
from custom_transforms.measuring.descriptors import DESCRIPTORS

__all__ = ["Taught", "TaughtClass", "read_taught", "write_taught"]

VERSION = 1
CLIP = 5.0  # deviations: what lies farther away (gold, a face) is no better or worse
MOST_BYTES = 10_000_000
WHAT = "the file that `python -m scripts teach` writes"


@dataclass(frozen=True)
class TaughtClass:
    """What tells a class from everything else.

    Attributes
    ----------
    name : str
    weights : ndarray, shape (len(DESCRIPTORS),)
    bias, threshold : float
        A particle is of the class if its probability, the logistic of weights and bias, reaches the threshold.
    examples : int
        How many examples it was learnt from.
    """

    name: str
    weights: np.ndarray
    bias: float
    threshold: float
    examples: int = 0


@dataclass(frozen=True)
class Taught:
    """Classes learnt from examples.

    Attributes
    ----------
    particle_diameter : float
        Å; what descriptors are measured in.
    mean, scale : ndarrays, shape (len(DESCRIPTORS),)
        Of the descriptors of all candidates.
    classes : tuple of TaughtClass
        At least one.
    settings : mapping
        Of the detection that found the candidates.
    weights_sha256 : str
        Of the networks that found them.
    networks : str, optional
        The file with these networks, beside this one, where they were moved to the examples.
    about : str
        For people.
    """

    particle_diameter: float
    mean: np.ndarray
    scale: np.ndarray
    classes: tuple[TaughtClass, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights_sha256: str | None = None
    about: str = ""
    networks: str | None = None

    def probabilities(self, descriptors: np.ndarray) -> np.ndarray:
        """Probability (n, classes) of particles that `describe_particles` described."""
        values = np.clip((np.asarray(descriptors, float) - self.mean) / self.scale, -CLIP, CLIP)
        logits = [values @ one.weights + one.bias for one in self.classes]
        return expit(np.stack(logits, axis=1))

    def classify(self, descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Name (n,) of each particle's class, "" for none, and the probability of that, or the highest of all.

        Of several classes whose threshold it reaches it is of the most probable one; the first of equal ones.
        """
        probability = self.probabilities(descriptors)
        reached = probability >= np.array([one.threshold for one in self.classes])
        best = np.where(reached, probability, probability - 2).argmax(axis=1)
        rows = np.arange(len(best))
        names = np.array([one.name for one in self.classes], dtype=object)
        return np.where(reached[rows, best], names[best], ""), probability[rows, best]


def write_taught(path: str | Path, taught: Taught) -> None:
    """Write a `Taught`, whole or not at all."""
    content = {"taught": VERSION, "about": taught.about, "descriptors": list(DESCRIPTORS), **asdict(taught)}
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(json.dumps(to_json(content), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_taught(path: str | Path) -> Taught:
    """Read what `write_taught` wrote; nothing in it is run.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing, not such a file, of another version, or a number in it is none.
    """
    path = Path(path).expanduser()
    if os.path.isfile(path) and path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path}: expected {WHAT}, got {path.stat().st_size:,} bytes. Give that file.")
    content = read_object(path, WHAT)
    if content.get("taught") != VERSION or content.get("descriptors") != list(DESCRIPTORS):
        raise ValueError(
            f"{path}: expected {WHAT} of this version, got another file or one of another version. Teach anew."
        )
    try:
        count = len(DESCRIPTORS)
        classes = tuple(_class(one, count) for one in _typed(content, "classes", list))
        if not classes or len({one.name for one in classes}) < len(classes):
            raise ValueError("classes: at least one, each once")
        scale = _numbers(content, "scale", count)
        if not (scale > 0).all():
            raise ValueError("scale: numbers above 0")
        diameter = _number(content, "particle_diameter", 1e-3, 1e6)
        settings = _typed(content, "settings", dict)
        sha, networks = content.get("weights_sha256"), content.get("networks")
        if networks is not None and (not isinstance(networks, str) or Path(networks).name != networks):
            raise ValueError("networks: the name of a file beside it")
        mean = _numbers(content, "mean", count)
        return Taught(diameter, mean, scale, classes, settings, sha and str(sha), networks=networks)
    except ValueError as error:
        raise ValueError(f"{path}: expected {WHAT}, with {error}. It is damaged: teach anew.") from None


def _class(content: Any, count: int) -> TaughtClass:
    if not isinstance(content, dict):
        raise ValueError("classes: objects")
    return TaughtClass(
        _typed(content, "name", str), _numbers(content, "weights", count), _number(content, "bias", -1e6, 1e6),
        _number(content, "threshold", 0, 1), int(_number(content, "examples", 0, 1e9)),
    )  # fmt: skip


def _typed(content: Mapping[str, Any], key: str, kind: type) -> Any:
    if not isinstance(content.get(key), kind):
        raise ValueError(f"{key}: a JSON {kind.__name__}")
    return content[key]


def _number(content: Mapping[str, Any], key: str, least: float, most: float) -> float:
    value = content.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{key}: a number from {least:g} to {most:g}")
    return float(value)


def _numbers(content: Mapping[str, Any], key: str, count: int) -> np.ndarray:
    values = content.get(key)
    if not isinstance(values, list) or len(values) != count or not all(map(_is_finite, values)):
        raise ValueError(f"{key}: {count} finite numbers")
    return np.array(values, dtype=float)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
