"""What `prepare` is given: shapes, tomograms, and which particles belong to which tomogram."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from custom_transforms.files.names import check_name
from custom_transforms.volumes.read import read_tomogram
from scripts.particles.csv_table import CSV, position_unit
from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import find_format, guess_format
from scripts.particles.shared.context import TomogramContext, tomogram_base_name, tomogram_stem
from scripts.particles.shared.options import context_of
from scripts.preparation.copick import source_of_run
from scripts.preparation.shapes import Shape, Sphere, load_template
from scripts.sources.copick_project import is_copick
from scripts.sources.particle_lists import read_particles
from scripts.sources.tomograms import find_tomograms, is_tomogram

__all__ = [
    "ShapeSpecs",
    "TomogramInput",
    "check_fractions",
    "check_length",
    "match_particles",
    "number_classes",
    "per_tomogram",
    "read_list",
    "read_shape_specs",
    "tomogram_inputs",
]

_SPEC_KEYS = {"radius", "mask", "density", "voxel_size", "threshold", "invert", "name"}


@dataclass(frozen=True)
class TomogramInput:
    """One tomogram, or only its size.

    Parameters
    ----------
    name : str
        Names the output files.
    path : Path or None
    size_zyx, voxel_size
        Used where there is no file; ``voxel_size`` (Å) otherwise replaces the header's.
    """

    name: str
    path: Path | None
    size_zyx: tuple[int, int, int] | None = None
    voxel_size: float | None = None

    def read(self) -> tuple[np.ndarray | None, tuple[int, int, int], np.ndarray, dict[str, Any]]:
        """The volume (None without a file), its size, Å per voxel and metadata.

        Raises
        ------
        FileNotFoundError, ValueError
            As `read_tomogram`; without a file, if size or voxel size is missing.
        """
        if self.path is None:
            if self.size_zyx is None or self.voxel_size is None:
                raise ValueError(
                    "without tomograms, give their size and voxel size: --shape 200,512,512 --voxel_size 10."
                )
            return None, self.size_zyx, np.full(3, float(self.voxel_size)), {}
        try:
            volume, metadata = read_tomogram(self.path, voxel_size=self.voxel_size)
        except ValueError as error:
            raise ValueError(str(error).replace("--voxel_size", "--tomogram_voxel_size")) from error
        size = (int(volume.shape[0]), int(volume.shape[1]), int(volume.shape[2]))
        return volume, size, np.asarray(metadata["voxel_size_zyx"]), metadata


def tomogram_inputs(
    tomograms: tuple[str, ...],
    shape: tuple[int, int, int] | None,
    tomogram_voxel_size: float | None,
    voxel_size: float | None,
    particles: str | None,
    from_format: str | None = None,
    binning: float | None = None,
    tomograms_star: str | None = None,
) -> list[TomogramInput]:
    """The tomograms of a call, or what stands for them where labels alone are made; ValueError if there are none."""
    if tomograms:
        return [
            TomogramInput(
                tomogram_base_name(item["image"]),
                Path(item["image"]),
                voxel_size=tomogram_voxel_size or item.get("voxel_size"),
            )
            for item in find_tomograms(tomograms, tomogram_base_name, sections=None)
        ]
    size = tomogram_voxel_size or voxel_size
    if shape is None or size is None or particles is None or "{name}" in particles:
        raise ValueError(
            "give tomogram files; or, for labels alone, --particles LIST with --shape 200,512,512 and --voxel_size 10."
        )
    if len(np.atleast_1d(shape)) != 3 or min(shape) < 2:
        raise ValueError(f"--shape: expected three whole numbers Z,Y,X of at least 2, got {shape!r}.")
    context = context_of(voxel_size=size, size_zyx=shape, binning=binning, tomograms_star=tomograms_star)
    listed = sorted({str(name) or "tomogram" for name in read_list(Path(particles), from_format, context).tomogram})
    listed = listed or ["tomogram"]
    names = [check_name(tomogram_base_name(name), f"{particles}: a tomogram's name") for name in listed]
    return [TomogramInput(name, None, context.size_zyx, size) for name in names]


@dataclass
class ShapeSpecs:
    """Shapes by class as the user wrote them; templates are read once per voxel size."""

    specs: dict[str, dict[str, Any]]
    class_names: dict[str, str]
    _cache: dict[tuple[float, ...], dict[str, Shape]] = field(default_factory=dict)

    def shapes(self, voxel_size_zyx: np.ndarray) -> dict[str, Shape]:
        """Shape by class name, for tomograms of a voxel size."""
        key = tuple(np.round(voxel_size_zyx, 6))
        if key not in self._cache:
            self._cache[key] = {name: _shape(spec, voxel_size_zyx) for name, spec in self.specs.items()}
        return self._cache[key]


def read_shape_specs(
    shapes: str | None,
    radius: float | None = None,
    template: str | None = None,
    template_voxel_size: float | None = None,
    threshold: float | None = None,
    invert: bool = False,
) -> ShapeSpecs:
    """Turn the shape options into one specification per class.

    Parameters
    ----------
    shapes : str, optional
        A JSON file ``{"class": {"mask": "file.mrc", "voxel_size": 10, "threshold": 0.5, "invert": false,
        "name": "ribosome"}, "other": {"radius": 120}, "*": 100}``. A number is a radius in Å, a text a file; ``"*"``
        serves all other classes; files are relative to the JSON file.
    radius, template, template_voxel_size, threshold, invert
        The same for all classes at once.

    Raises
    ------
    ValueError, FileNotFoundError
        For anything else; names the class and the word.
    """
    if sum(option is not None for option in (shapes, radius, template)) != 1:
        raise ValueError(
            "give the particles' shape by exactly one of --shapes FILE.json, --radius 120 or --template FILE.mrc."
        )
    common = {"voxel_size": template_voxel_size, "threshold": threshold, "invert": invert}
    if radius is not None:
        return ShapeSpecs({"*": {"radius": float(radius)}}, {})
    if template is not None:
        return ShapeSpecs({"*": {"mask": str(_existing(Path(template))), **common}}, {})
    path = Path(str(shapes))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such shapes file. Check --shapes.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}).") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(
            f'{path}: expected classes and shapes, {{"ribosome": {{"radius": 120}}}}, got {str(content)[:60]}.'
        )
    specs: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}
    for key, value in content.items():
        spec = _checked_spec(path, key, value)
        name = str(spec.pop("name", key))
        names.update({key: name} if name != key else {})
        specs[name] = {**{k: v for k, v in common.items() if v is not None and "mask" in spec}, **spec}
    return ShapeSpecs(specs, names)


def check_length(option: str, value: float | None, least: str = "at least 0") -> None:
    """Raise ValueError unless a length (Å) is a finite number, ``"at least 0"`` or ``"above 0"``; None is not given."""
    if value is None:
        return
    if not _is_number(value) or value < 0 or (least == "above 0" and value == 0):
        raise ValueError(f"--{option}: expected a length in Å, {least}, got {value!r}. Give {least}, or leave it out.")


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Raise ValueError unless both are at least 0 and leave something to train on."""
    for option, value in (("validation_fraction", validation_fraction), ("test_fraction", test_fraction)):
        if not _is_number(value) or not 0 <= value < 1:
            raise ValueError(
                f"--{option}: expected a part of the tomograms, at least 0 and below 1, got {value!r}. 0.2 is common."
            )
    if validation_fraction + test_fraction >= 1:
        raise ValueError(
            f"--validation_fraction and --test_fraction: expected a sum below 1, got {validation_fraction} + "
            f"{test_fraction}: nothing would be left to train on. Lower one of them."
        )


def number_classes(names: Iterable[str], known: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    """Give every class a number from 1 that fits a volume of small integers.

    Parameters
    ----------
    names : iterable of str
        Classes; "" is none.
    known : mapping of str to int
        Numbers given already; they stay.
    wanted : mapping of str to int
        Numbers of the shapes file.

    Returns
    -------
    dict of str to int
        A class takes its wanted number, or the number that is its name, if that is from 1 to 32,767 and free;
        the others follow in alphabetical order with what is left.

    Examples
    --------
    >>> number_classes(["b", "2", "40205", ""], {"a": 1}, {})
    {'a': 1, '2': 2, '40205': 3, 'b': 4}
    """
    numbers = dict(known)
    new = sorted({name for name in names if name} - set(known))
    taken = set(numbers.values())
    for name in new:
        own = wanted.get(name, int(name) if name.isdecimal() else 0)
        if 1 <= own <= np.iinfo(np.int16).max and own not in taken:
            numbers[name] = own
            taken.add(own)
    free = (number for number in itertools.count(1) if number not in taken)
    numbers.update(zip([name for name in new if name not in numbers], free, strict=False))
    return numbers


def match_particles(
    particles: ParticleList, tomograms: Sequence[TomogramInput]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Find the particles (row numbers) of every tomogram by its name, or else by its number.

    Names are compared without folder, ending, ``rec_`` and Warp's pixel size. Particles without a name, and those of a
    list with one other name, go to the tomogram if there is only one. Numbers count the tomograms from 0 (or from
    1, if 0 does not occur).

    Returns
    -------
    rows : dict of tomogram name to int array
        Every tomogram is there; possibly empty.
    notes : list of str
        What was assumed or left out.

    Raises
    ------
    ValueError
        If nothing matches; lists both sides.
    """
    spelled, spelling = np.unique(np.asarray(particles.tomogram), return_inverse=True)
    base_of = np.array([tomogram_base_name(str(name)) for name in spelled], dtype=object)
    given = [tomogram_base_name(tomogram.name) for tomogram in tomograms]
    found = sorted(set(base_of))
    notes: list[str] = []
    to_tomogram = {name: name for name in found if name in given}
    if found and not to_tomogram:
        to_tomogram = _by_number(found, tomograms, given, notes)
    files = {base: one.path.name for one, base in zip(tomograms, given, strict=True) if one.path is not None}
    apart = [
        f"{name} = {files[base]}"
        for name, base in zip(map(str, spelled), base_of, strict=True)
        if base in to_tomogram and base in files and tomogram_stem(name) != tomogram_stem(files[base]) and name
    ]
    if apart:
        notes.append(f"names were matched without what programs add to them: {', '.join(apart[:10])}")
    left = [name for name in found if name not in to_tomogram]
    if left:
        count = int(np.isin(base_of, left)[spelling].sum())
        notes.append(f"{count} particles belong to tomograms that were not given: {', '.join(left[:10])}")
    rows = {
        tomogram.name: np.flatnonzero(
            np.array([to_tomogram.get(name) == base for name in base_of], dtype=bool)[spelling]
        )
        for tomogram, base in zip(tomograms, given, strict=True)
    }
    notes += [f"{name}: the list has no particle in this tomogram" for name, index in rows.items() if len(index) == 0]
    return rows, notes


def _by_number(
    found: list[str], tomograms: Sequence[TomogramInput], given: list[str], notes: list[str]
) -> dict[str, str]:
    if len(found) == 1 and len(given) == 1:
        if found[0]:
            notes.append(f"the list's tomogram {found[0]!r} is taken to be {tomograms[0].name}")
        return {found[0]: given[0]}
    if all(name.isdecimal() for name in found):
        first = 0 if "0" in found else 1
        if max(map(int, found)) - first < len(given):
            notes.append(
                "the list numbers its tomograms; they are taken in the order of the command line: " + ", ".join(given)
            )
            return {name: given[int(name) - first] for name in found}
    if found == [""]:
        raise ValueError(
            f"the list does not say which tomogram a particle is in, and {len(given)} are given. Add a column tomogram "
            "with their names, or use one list per tomogram: --particles 'lists/{name}.csv'."
        )
    listed = [repr(name) if name else "particles without a tomogram" for name in found[:10]]
    raise ValueError(
        f"no tomogram of the list is among those given. The list has {', '.join(listed)}; "
        f"given are {', '.join(map(repr, given[:10]))}. Rename the files, or use one list per tomogram: "
        "--particles 'lists/{name}.csv'."
    )


def per_tomogram(pattern: str | None, name: str) -> Path | None:
    """A path for one tomogram: ``{name}`` is replaced, or it is `source_of_run`; an error if the file is not there."""
    if pattern is None:
        return None
    return source_of_run(pattern, name) if is_copick(pattern) else _existing(Path(pattern.replace("{name}", name)))


def read_list(path: Path, format_name: str | None, context: TomogramContext) -> ParticleList:
    """Read particles in the frame of a tomogram, with warnings kept quiet for empty lists alone."""
    particles = read_particles(path, format_name, context)
    if len(particles) == 0:
        warnings.warn(f"{path}: the particle list is empty.", UserWarning, stacklevel=2)
    return particles


def position_note(path: Path, format_name: str | None) -> str:
    """Say which columns of a table were taken, and in which unit; "" for formats that leave no choice."""
    if is_copick(path) or (find_format(format_name) if format_name else guess_format(path)) is not CSV:
        return ""
    return f"the list's positions are its columns {position_unit(path)}"


def _checked_spec(path: Path, key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = {"radius": value}
    elif isinstance(value, str):
        value = {"mask": value}
    if not isinstance(value, dict) or len({"radius", "mask", "density"} & set(value)) != 1:
        raise ValueError(
            f"{path}: class {key!r} needs one of radius (Å), mask or density (a file), got {str(value)[:80]}."
        )
    unknown = sorted(set(value) - _SPEC_KEYS)
    if unknown:
        raise ValueError(f"{path}: class {key!r} has {unknown[0]!r}; expected {', '.join(sorted(_SPEC_KEYS))}.")
    spec = {**value}
    for word in ("mask", "density"):
        if word in spec:
            file = Path(str(spec.pop(word)))
            spec["mask"] = str(_existing(file if file.is_absolute() else path.parent / file))
    for word in ("radius", "voxel_size", "threshold"):
        if spec.get(word) is not None and not isinstance(spec[word], (int, float)):
            raise ValueError(f"{path}: class {key!r}: {word} must be a number, got {spec[word]!r}.")
    return spec


def _shape(spec: dict[str, Any], voxel_size_zyx: np.ndarray) -> Shape:
    if "radius" in spec:
        return Sphere(float(spec["radius"]))
    return load_template(
        spec["mask"], spec.get("voxel_size"), spec.get("threshold"), bool(spec.get("invert")), voxel_size_zyx
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _existing(path: Path) -> Path:
    if not is_tomogram(path):
        raise FileNotFoundError(f"{path}: no such file. Check the path (files in a shapes file are relative to it).")
    return path
