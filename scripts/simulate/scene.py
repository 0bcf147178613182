"""The scene file: what it may hold, its defaults, and clear errors for everything else.

A scene is JSON. Keys of the form ``_desc_`` or ``_desc_something_`` are comments. A value of kind "range" is a
number, or [low, high] from which every tomogram (or every particle, for a particle's own sizes) draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custom_transforms.files.json_object import read_json

__all__ = ["BODIES", "SCENE", "Setting", "load_scene", "validate_scene"]


@dataclass(frozen=True)
class Setting:
    """One key of a scene file.

    Attributes
    ----------
    kind : str
        "number", "integer", "range", "integers" (a range of whole numbers), "text", "flag", "choice", "shape",
        "section", "bodies", "maps".
    default : object
        Used when the key is missing; `REQUIRED` makes it an error.
    low, high : float
        Limits of the numbers, inclusive.
    choices : tuple
        Values a "choice" may have, or the settings of a "section".
    """

    kind: str
    default: Any
    low: float = -math.inf
    high: float = math.inf
    choices: Any = ()


REQUIRED = object()


def _range(default: Any, low: float = 0.0, high: float = math.inf) -> Setting:
    return Setting("range", default, low, high)


_SURFACE = {"ellipticity": _range(0.0, 0, 0.5), "bumps": _range(0.0, 0, 0.3)}
_COMMON = {
    "name": Setting("text", REQUIRED),
    "count": Setting("integers", None, 0),
    "share": Setting("number", 1.0, 0.0),
    "contrast": _range(1.0, -10, 100),
    "label": Setting("choice", "filled", choices=("filled", "density")),
    "site": Setting("choice", "free", choices=("free", "membrane")),
    "offset": _range(0.0, -10000),
}
BODIES: dict[str, dict[str, Setting]] = {
    "vlp": {
        "radius": _range(REQUIRED, 1),
        "membrane_thickness": _range(45.0, 1),
        "membrane_density": _range(1.0, -10, 10),
        "layer_thickness": _range(80.0, 1),
        "layer_density": _range(1.0, -10, 10),
        "layer_spacing": _range(20.0, 0),
        "lumen_density": _range(0.0, -10, 10),
        "incomplete_fraction": Setting("number", 0.0, 0, 1),
        "core_fraction": Setting("number", 0.0, 0, 1),
        "lattice_strength": _range(0.0, 0, 1),
        **_SURFACE,
    },
    "vesicle": {
        "radius": _range(REQUIRED, 1),
        "membrane_thickness": _range(50.0, 1),
        "density": _range(1.0, -10, 10),
        "lumen_density": _range(0.0, -10, 10),
        "filled": Setting("flag", False),
        **_SURFACE,
    },
    "ball": {"radius": _range(REQUIRED, 1), "density": _range(1.0, -10, 100), **_SURFACE},
    "ring": {"radius": _range(REQUIRED, 1), "thickness": _range(REQUIRED, 1), "height": _range(REQUIRED, 1)},
    "two_lobed": {
        "radius": _range(REQUIRED, 1),
        "ratio": _range(0.8, 0.1, 1.0),
        "distance": _range(REQUIRED, 0),
    },
    "complex": {
        "diameter": _range(REQUIRED, 1),
        "lobes": Setting("integer", 6, 1, 40),
        "cavity_fraction": Setting("number", 0.0, 0, 1),
        "form": Setting("integer", 0, 0),
    },
    "map": {
        "path": Setting("text", REQUIRED),
        "threshold": Setting("number", None),
        "map_voxel_size": Setting("number", None, 0.1, 1000),
        "smallest_part": Setting("number", 0.1, 0, 1),
    },
    "model": {
        "path": Setting("text", REQUIRED),
        "threshold": Setting("number", None),
        "resolution": Setting("number", None, 1, 1000),
        "smallest_part": Setting("number", 0.1, 0, 1),
    },
}
_PLACEMENT = {
    "occupancy": _range(None, 0, 0.6),
    "gap_angstrom": _range(0.0, 0),
    "touching_fraction": _range(0.0, 0, 1),
    "attempts": Setting("integer", 300, 1),
    "border": Setting("choice", "cut", choices=("cut", "inside")),
    "ice_thickness": _range(None, 1),
}
_MEMBRANES = {
    "sheets": Setting("integers", (0, 0), 0, 100),
    "spacing": _range((150.0, 300.0), 1),
    "thickness": _range((45.0, 55.0), 1),
    "density": _range(0.8, -10, 10),
    "tilt": _range((-20.0, 20.0), -90, 90),
    "bend": _range((100.0, 400.0)),
    "bend_length": _range((800.0, 2000.0), 1),
    "particles_per_um2": _range((1000.0, 2500.0)),
    "sides": Setting("choice", "alternate", choices=("one", "alternate", "both")),
}
_FILAMENTS = {
    "count": Setting("integers", (0, 0), 0),
    "radius": _range((35.0, 125.0), 1),
    "persistence": _range(5000.0, 1),
    "hollow_fraction": Setting("number", 0.5, 0, 1),
    "density": _range(1.0, -10, 10),
}
_GOLD = {"count": Setting("integers", (0, 0), 0), "diameter": _range(100.0, 1), "density": _range((8.0, 14.0), 0)}
_BACKGROUND = {"strength": _range(0.0, 0), "correlation": _range((50.0, 200.0), 1)}
_IMAGING = {
    "tilt_max": _range(60.0, 1, 85),
    "tilt_step": _range(3.0, 0.2, 30),
    "tilt_order": Setting("choice", "dose_symmetric", choices=("dose_symmetric", "bidirectional", "continuous")),
    "dose_per_tilt": _range(3.0, 0),
    "voltage_kv": Setting("number", 300.0, 60, 1000),
    "spherical_aberration_mm": Setting("number", 2.7, 0, 10),
    "amplitude_contrast": _range(0.07, 0, 1),
    "defocus_um": _range((2.0, 6.0), -20, 30),
    "defocus_spread_um": _range(0.1, 0),
    "ctf": Setting("choice", "flipped", choices=("none", "flipped", "modulated")),
    "b_factor": _range(0.0, 0),
    "mean_free_path": Setting("number", 3500.0, 1),
    "snr": _range((0.05, 0.5), 1e-6, 1e9),
    "noise_blur": _range(0.0, 0, 5),
    "noise_color": _range(0.0, 0, 3),
    "noise": Setting("flag", True),
    "shift_jitter": _range(0.0, 0),
    "angle_jitter": _range(0.0, 0, 10),
}
_RECONSTRUCTION = {
    "ramp_cutoff": _range(0.5, 0.05, 0.5),
    "ramp_falloff": _range(0.05, 0, 0.5),
    "lowpass_probability": Setting("number", 0.0, 0, 1),
    "lowpass": _range(None, 1),
    "highpass_probability": Setting("number", 0.0, 0, 1),
    "highpass": _range(None, 1),
    "deconvolve_probability": Setting("number", 0.0, 0, 1),
    "deconvolve_strength": _range((0.5, 1.5), 0, 10),
}
_OUTPUT = {"classes": Setting("flag", True), "clean": Setting("flag", False)}
_SPLIT = {"validation": Setting("number", 0.17, 0, 1), "test": Setting("number", 0.0, 0, 1)}
SCENE: dict[str, Setting] = {
    "name": Setting("text", REQUIRED),
    "shape": Setting("shape", REQUIRED),
    "voxel_size": Setting("number", REQUIRED, 0.1, 1000),
    "contrast": Setting("choice", "dark", choices=("dark", "bright")),
    "split": Setting("section", {}, choices=_SPLIT),
    "particles": Setting("bodies", REQUIRED),
    "clutter": Setting("bodies", []),
    "placement": Setting("section", {}, choices=_PLACEMENT),
    "membranes": Setting("section", {}, choices=_MEMBRANES),
    "filaments": Setting("section", {}, choices=_FILAMENTS),
    "gold": Setting("section", {}, choices=_GOLD),
    "background": Setting("section", {}, choices=_BACKGROUND),
    "imaging": Setting("section", {}, choices=_IMAGING),
    "reconstruction": Setting("section", {}, choices=_RECONSTRUCTION),
    "output": Setting("section", {}, choices=_OUTPUT),
}


def load_scene(source: str | Path | dict, maps: str | Path | None = None) -> dict:
    """Read a scene file (or take a dict), check it and fill in the defaults.

    Parameters
    ----------
    source : str, Path or dict
        JSON file, or its content. Without a file of that name, a bare name NAME means ``configs/scene_NAME.json``
        beside the package.
    maps : path, optional
        Folder where maps and models are looked for first; the scene file's folder comes next.

    Returns
    -------
    dict
        Every key of `SCENE`; ranges as (low, high) tuples; ``"folders"`` are those where maps are looked for.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not JSON, or a key or value is not one a scene may have; the message names the key.
    """
    first = (str(maps),) if maps is not None else ()
    if isinstance(source, dict):
        return {**validate_scene(source), "folders": (*first, ".")}
    path = Path(source)
    if not path.is_file():
        configs = Path(__file__).parents[2] / "configs"
        shipped = configs / f"scene_{source}.json"
        if not shipped.is_file():
            names = [one.stem.removeprefix("scene_") for one in sorted(configs.glob("scene_*.json"))]
            raise FileNotFoundError(
                f"scene: expected a JSON file or the name of a shipped scene, found no file {path}. "
                f"Shipped are {', '.join(names)}."
            )
        path = shipped
    content = read_json(path)
    try:
        return {**validate_scene(content), "folders": (*first, str(path.parent))}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def validate_scene(content: Any) -> dict:
    """Check the content of a scene file and fill in the defaults; see `load_scene`.

    Examples
    --------
    >>> validate_scene({"name": "a", "shape": [8, 9, 10], "voxel_size": 10, "particles": [], "snr": 1})
    Traceback (most recent call last):
        ...
    ValueError: unknown key 'snr'. Did you mean imaging.snr? Known here: name, shape, voxel_size, ...
    """
    if not isinstance(content, dict):
        raise ValueError(f"scene: expected an object of keys and values, got {type(content).__name__}.")
    return _section("", content, SCENE)


def _section(where: str, content: Any, settings: dict[str, Setting]) -> dict:
    if not isinstance(content, dict):
        raise ValueError(f"{where}: expected an object of keys and values, got {content!r}.")
    given = {key: value for key, value in content.items() if not key.startswith("_desc_")}
    for key in given:
        if key not in settings:
            raise ValueError(f"unknown key {_join(where, key)!r}.{_hint(key)} Known here: {', '.join(settings)}.")
    result = {}
    for key, setting in settings.items():
        name = _join(where, key)
        value = given.get(key, setting.default)
        if value is REQUIRED:
            raise ValueError(f"{name}: this key is missing, and has no default. Add it.")
        optional = setting.default is None and value is None
        result[key] = None if optional else _CHECKS[setting.kind](name, value, setting)
    return result


def _hint(key: str) -> str:
    places = [
        f"{section}.{key}" for section, setting in SCENE.items() if setting.kind == "section" and key in setting.choices
    ]
    return f" Did you mean {' or '.join(places)}?" if places else ""


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _number(name: str, value: Any, setting: Setting) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a number, got {value!r}.")
    if not setting.low <= value <= setting.high:
        raise ValueError(f"{name}: expected a number from {setting.low:g} to {setting.high:g}, got {value!r}.")
    return float(value)


def _integer(name: str, value: Any, setting: Setting) -> int:
    number = _number(name, value, setting)
    if number != int(number):
        raise ValueError(f"{name}: expected a whole number, got {value!r}.")
    return int(number)


def _pair(name: str, value: Any, setting: Setting) -> tuple[float, float]:
    pair = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(pair) != 2:
        raise ValueError(f"{name}: expected a number or [low, high], got {value!r}.")
    low, high = (_number(name, part, setting) for part in pair)
    if low > high:
        raise ValueError(f"{name}: expected [low, high] with low <= high, got {value!r}. Swap them.")
    return low, high


def _integers(name: str, value: Any, setting: Setting) -> tuple[int, int]:
    low, high = _pair(name, value, setting)
    return _integer(name, low, setting), _integer(name, high, setting)


def _text(name: str, value: Any, setting: Setting) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}: expected a text, got {value!r}.")
    return value


def _flag(name: str, value: Any, setting: Setting) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {value!r}.")
    return value


def _choice(name: str, value: Any, setting: Setting) -> str:
    if value not in setting.choices:
        raise ValueError(f"{name}: expected one of {', '.join(setting.choices)}; got {value!r}.")
    return value


def _shape(name: str, value: Any, setting: Setting) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError(f"{name}: expected three whole numbers [Z, Y, X], got {value!r}.")
    return tuple(_integer(name, n, Setting("integer", None, 8, 4096)) for n in value)


def _bodies(name: str, value: Any, setting: Setting) -> list[dict]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name}: expected a list of objects, got {value!r}.")
    bodies = []
    for number, entry in enumerate(value):
        where = f"{name}[{number}]"
        kind = entry.get("kind") if isinstance(entry, dict) else None
        if kind not in BODIES:
            raise ValueError(f"{where}.kind: expected one of {', '.join(BODIES)}; got {kind!r}.")
        rest = {key: part for key, part in entry.items() if key != "kind"}
        bodies.append({"kind": kind, **_section(where, rest, {**_COMMON, **BODIES[kind]})})
    names = [body["name"] for body in bodies]
    for repeated in {n for n in names if names.count(n) > 1}:
        raise ValueError(f"{name}: expected a different name for every entry, got {repeated!r} twice.")
    return bodies


_CHECKS = {
    "number": _number,
    "integer": _integer,
    "range": _pair,
    "integers": _integers,
    "text": _text,
    "flag": _flag,
    "choice": _choice,
    "shape": _shape,
    "bodies": _bodies,
    "section": lambda name, value, setting: _section(name, value, setting.choices),
}
