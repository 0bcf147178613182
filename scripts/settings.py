"""The settings of detection: what each may be. Its name, default, help and unit stand in ``configs/inference.json``."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

__all__ = [
    "RECORDED",
    "SETTINGS",
    "Kind",
    "check_classes",
    "check_setting",
    "checked_settings",
    "described_settings",
    "is_code",
    "recorded_settings",
]

LARGEST = 4096  # voxels along a side of a tile, and tiles at once: beyond what any device holds
CONFIG = Path(__file__).parents[1] / "configs" / "inference.json"


@dataclass(frozen=True)
class Kind:
    """What a setting may be.

    Attributes
    ----------
    expected : str
        In words, for the message.
    takes : callable
        Tells whether a value is one.
    typed : str
        What its text on the command line stands for: text, texts (with commas between), true or false, number,
        numbers, number by class, whole number, whole numbers.
    null : bool
        Whether it may be left to something else.
    by_class : bool
        Whether it may be an object with such a value for each class.
    """

    expected: str
    takes: Callable[[Any], bool]
    typed: str = "text"
    null: bool = False
    by_class: bool = False


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(value: Any, *counts: int) -> bool:
    """One number (a count of 1), or a list of as many as one of the counts says."""
    if _is_number(value):
        return 1 in counts
    return isinstance(value, (list, tuple)) and len(value) in counts and all(map(_is_number, value))


def _number(expected: str, inside: Callable[[float], bool], null: bool = False, by_class: bool = False) -> Kind:
    typed = "number by class" if by_class else "number"
    return Kind(f"a number {expected}", lambda value: _is_number(value) and inside(value), typed, null, by_class)


def _whole(expected: str, inside: Callable[[int], bool]) -> Kind:
    def takes(value: Any) -> bool:
        return isinstance(value, Integral) and not isinstance(value, bool) and inside(int(value))

    return Kind(expected, takes, "whole number")


def _positive(unit: str, null: bool = False, by_class: bool = False) -> Kind:
    return _number(f"above 0 ({unit})", lambda value: value > 0, null, by_class)


def _word(*words: str) -> Kind:
    return Kind(" or ".join(words), lambda value: isinstance(value, str) and value in words)


def _voxel_size(value: Any) -> bool:
    return _are_numbers(value, 1, 3) and min([value] if _is_number(value) else value) > 0


def _tile(value: Any) -> bool:
    sides = value if isinstance(value, (list, tuple)) else [value]
    return _are_numbers(value, 1, 3) and all(
        isinstance(side, Integral) and 16 <= int(side) <= LARGEST for side in sides
    )


def _classes(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and all(isinstance(name, str) and re.fullmatch(r"\w[\w .+-]*", name) for name in value)
        and len(set(value)) == len(value)
    )


def _device(value: Any) -> bool:
    return re.fullmatch(r"cpu|cuda(:\d+)?", str(value)) is not None  # a word, or torch's own type


SWITCH = Kind("true or false", lambda value: isinstance(value, bool), "true or false")
TEXT = Kind("text", lambda value: isinstance(value, (str, os.PathLike)))
VOLUME = Kind("a path", TEXT.takes, null=True)
SIZE = Kind("one or three (Z, Y, X) numbers above 0 (Å)", _voxel_size, "numbers", null=True)
DISTANCE = _number("of at least 0 (Å)", lambda value: value >= 0, null=True)

RESULT: dict[str, Kind] = {  # what a result depends on
    "contrast": _word("dark", "bright"),
    "voxel_size": SIZE,
    "fill_nonfinite": SWITCH,
    "signed": Kind(SWITCH.expected, SWITCH.takes, SWITCH.typed, null=True),
    "voxel_size_model": SIZE,
    "keep_voxel_size": SWITCH,
    "classes": Kind("a list of different names of letters, digits and . + - _", _classes, "texts", null=True),
    "particle_diameter": _positive("Å", by_class=True),
    "mask_threshold": _number("between 0 and 1 (a probability)", lambda value: 0 < value < 1),
    "center_threshold": _number("above 0 and at most 1", lambda value: 0 < value <= 1, by_class=True),
    "min_distance": _positive("Å", null=True),
    "min_size": _number("of at least 0 (cubic Å)", lambda value: value >= 0, null=True, by_class=True),
    "radius_max": _positive("Å", null=True),
    "method": _word("watershed", "nearest", "split"),
    "require_seed": SWITCH,
    "neighbor_number": _whole("a whole number of at least 0", lambda value: value >= 0),
    "neighbor_distance": _positive("Å", null=True),
    "exclude": VOLUME,
    "edge_margin": _number("of at least 0 (Å)", lambda value: value >= 0),
    "membrane": VOLUME,
    "membrane_min": DISTANCE,
    "membrane_max": DISTANCE,
    "membrane_action": _word("keep", "drop", "flag"),
    "teach": VOLUME,
    "flag_gold": SWITCH,
    "tile": Kind(f"one or three (Z, Y, X) whole numbers from 16 to {LARGEST}", _tile, "whole numbers", null=True),
    "largest_tile_side": _whole(f"a whole number from 32 to {LARGEST}", lambda value: 32 <= value <= LARGEST),
    "overlap": _number("of at least 0 (voxels; below 1, a fraction of the tile)", lambda value: value >= 0),
    "amp": SWITCH,
    "tta": _whole("1, 2, 4 or 8", lambda value: value in (1, 2, 4, 8)),
    "region": VOLUME,
    "background": Kind("two numbers", lambda value: _are_numbers(value, 2), "numbers", null=True),
    "map_dtype": _word("float16", "float32"),
}
SETTINGS: dict[str, Kind] = RESULT | {
    "formats": Kind(
        "a list of formats",
        lambda value: isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value),
        "texts",
    ),
    "copick": Kind("copick:CONFIG.json/OBJECT:USER/SESSION", TEXT.takes, null=True),
    "report": SWITCH,
    "overwrite": SWITCH,
    "batch_size": _whole(f"a whole number from 1 to {LARGEST}", lambda value: 1 <= value <= LARGEST),
    "runtime": _word("auto", "torch", "openvino"),
    "weights": Kind("a path", TEXT.takes),
    "output_dir": Kind("a path", TEXT.takes),
    "device": Kind("cpu, cuda, cuda:1 ...", _device),
}
RECORDED = tuple(RESULT)


def check_setting(name: str, value: Any, source: str = "") -> None:
    """Refuse a value that a setting cannot have.

    Parameters
    ----------
    name : str
        One of `SETTINGS`.
    value
    source : str
        The file it came from, or nothing.

    Examples
    --------
    >>> check_setting("center_threshold", 5, "my.json")
    Traceback (most recent call last):
    ValueError: my.json: center_threshold: expected a number above 0 and at most 1, got 5. Nothing was done.
    """
    kind = SETTINGS[name]
    if kind.by_class and isinstance(value, Mapping):
        for one, number in value.items():
            check_setting(name, number, f"{source + ': ' if source else ''}class {one}")
        return
    if (value is None and kind.null) or kind.takes(value):
        return
    got = json.dumps(value, default=str, ensure_ascii=False)
    got = got if len(got) < 80 else f"{got[:77]}..."
    expected = kind.expected + (", or null" if kind.null else "")
    raise ValueError(f"{source + ': ' if source else ''}{name}: expected {expected}, got {got}. Nothing was done.")


def check_classes(settings: Mapping[str, Any]) -> None:
    """Refuse a setting by class that does not name each of the classes, or names others.

    Examples
    --------
    >>> check_classes({"classes": ["vlp"], "min_size": {"vlb": 8000}})
    Traceback (most recent call last):
    ValueError: min_size: expected a value for each of the classes (vlp), got vlb. Nothing was done.
    """
    classes = list(settings.get("classes") or [])
    for name, value in settings.items():
        if isinstance(value, Mapping) and name in SETTINGS and (set(value) != set(classes) or not classes):
            wanted = (
                f"a value for each of the classes ({', '.join(classes)})" if classes else "one value without classes"
            )
            raise ValueError(f"{name}: expected {wanted}, got {', '.join(value) or 'none'}. Nothing was done.")


def checked_settings(**values: Any) -> dict[str, Any]:
    """Check all settings of a config, and give them as they are.

    Raises
    ------
    ValueError
        As `check_setting` and `check_classes`; of a run of ``monai.bundle`` it names the file or option that the value
        came from.
    """
    for name, value in values.items():
        try:
            check_setting(name, value)
        except ValueError:
            check_setting(name, value, _source_in_command(name))  # the same error, and where the value is from
    check_classes(values)
    return values


def recorded_settings(settings: Mapping[str, Any], sizes: Any) -> dict[str, Any]:
    """The settings that a result depends on, as its record keeps them: lengths (`ParticleSizes`) in numbers.

    Where a length differs by class, the settings it follows from say so.
    """
    lengths = {name: getattr(sizes, name) for name in ("min_distance", "min_size", "radius_max")}
    if isinstance(settings["particle_diameter"], Mapping):
        lengths = {"radius_max": lengths["radius_max"]}
    elif isinstance(settings["min_size"], Mapping):
        del lengths["min_size"]
    return {name: settings[name] for name in RECORDED if name in settings} | lengths


def _source_in_command(name: str) -> str:
    """Where ``python -m monai.bundle run`` has the value of an id from: an option, or the last file that names it."""
    words = [word.partition("=") for word in sys.argv[1:]]
    if f"--{name}" in (option for option, _, _ in words):
        return "options"
    files = ""
    for (option, equals, value), (following, _, _) in zip(words, [*words[1:], ("", "", "")], strict=False):
        if option == "--config_file":
            files = value if equals else following
    paths = ast.literal_eval(files) if files.startswith("[") else [files]
    naming = [path for path in paths if Path(path).is_file() and f'"{name}"' in Path(path).read_text(encoding="utf-8")]
    return naming[-1] if naming else ""


def described_settings() -> dict[str, tuple[Any, str]]:
    """Default and help of each setting, in the order of the config; its ``_desc_`` is the help.

    A default that is an expression is None: its help says what it is.
    """
    content: Mapping[str, Any] = json.loads(CONFIG.read_text(encoding="utf-8"))
    return {
        name: (None if is_code(content[name]) else content[name], content[f"_desc_{name}"])
        for name in content
        if name in SETTINGS
    }


def is_code(value: Any) -> bool:
    """Tell whether MONAI would run, resolve or rewrite a value, or one inside it, instead of taking it as it is.

    Examples
    --------
    >>> [is_code(one) for one in ("$print(1)", "@weights", "a.json", ["csv", "%b"], "a#b", 0.4)]
    [True, True, False, True, True, False]
    """
    if isinstance(value, (list, tuple)):
        return any(map(is_code, value))
    return isinstance(value, str) and (value.strip()[:1] in ("$", "@", "%") or "#" in value)
