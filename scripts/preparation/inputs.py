"""What `prepare` is given beside particle lists: tomograms, shapes, lengths and fractions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from custom_transforms.files.json_object import read_object
from custom_transforms.files.names import check_name, tomogram_base_name
from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.mrc_read import mrc_geometry
from custom_transforms.volumes.read import check_job, read_tomogram
from scripts.particles.shared.options import context_of
from scripts.preparation.copick import project_radii
from scripts.preparation.shapes import Shape, Sphere, load_template
from scripts.sources.copick_project import is_copick
from scripts.sources.labels_and_lists import TomogramFile
from scripts.sources.particle_lists import read_particles
from scripts.sources.tomograms import find_tomograms, is_tomogram

__all__ = [
    "ShapeSpecs",
    "TomogramInput",
    "check_fractions",
    "check_length",
    "check_room",
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

    def geometry(self) -> tuple[tuple[int, int, int], np.ndarray]:
        """Size and Å per voxel as `read` gives them, by the header alone where that is enough."""
        known = None if self.path is None else mrc_geometry(self.path)
        if known is not None and self.voxel_size is not None:
            return known[0], as_voxel_size_zyx(self.voxel_size)
        if known is not None and (known[1] > 0).all() and (known[1] != 1).any():
            return known
        return self.read()[1:3]


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
    listed = sorted({str(name) or "tomogram" for name in read_particles(particles, from_format, context).tomogram})
    listed = listed or ["tomogram"]
    names = [check_name(tomogram_base_name(name), f"{particles}: a tomogram's name") for name in listed]
    return [TomogramInput(name, None, context.size_zyx, size) for name in names]


def check_room(
    inputs: Sequence[TomogramInput],
    files: Sequence[Mapping[str, TomogramFile]],
    target: float | None,
    moves: bool,
) -> None:
    """Refuse tomograms that memory cannot hold with their labels and regions (``files``) and what is worked on.

    ``target`` is the voxel size that they are resampled to; ``moves`` says that distances or densities are computed.
    """
    for one in inputs:
        known = None if one.path is None or target is None else mrc_geometry(one.path)
        size = np.mean(one.voxel_size or (0.0 if known is None else known[1]))
        factor = float(size / target) ** 3 if target and size > 0 else 1.0  # new voxels for an old one
        labels, resampled, region = 4, 8 * (target is not None), 1
        per_voxel = factor * (labels + resampled + 8 * moves) + region
        paths = [kind[one.name].path for kind in files if one.name in kind] + ([one.path] if one.path else [])
        check_job(f"prepare: {one.name}", paths, (per_voxel, 0), one.voxel_size, math.prod(one.size_zyx or (0,)))


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
    particles: str,
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
    particles : str
        The list; where it is of a copick project and no shape is given, that says the radii.
    shapes : str, optional
        A JSON file ``{"class": {"mask": "file.mrc", "voxel_size": 10, "threshold": 0.5, "invert": false,
        "name": "ribosome"}, "other": {"radius": 120}, "*": 100}``. A number is a radius in Å, a text a file; ``"*"``
        serves all other classes; files are relative to the JSON file.
    radius, template, template_voxel_size, threshold, invert
        The same for all classes at once.
    """
    check_length("radius", radius, "above 0")
    given = sum(option is not None for option in (shapes, radius, template))
    if given == 0 and is_copick(particles):
        return ShapeSpecs({name: {"radius": size} for name, size in project_radii(particles).items()}, {})
    if given != 1:
        raise ValueError(
            "give the particles' shape by exactly one of --shapes FILE.json, --radius 120 or --template FILE.mrc."
        )
    common = {"voxel_size": template_voxel_size, "threshold": threshold, "invert": invert}
    if radius is not None:
        return ShapeSpecs({"*": {"radius": float(radius)}}, {})
    if template is not None:
        return ShapeSpecs({"*": {"mask": str(_existing(Path(template))), **common}}, {})
    path = Path(str(shapes)).expanduser()
    content = read_object(path, 'classes and shapes, {"ribosome": {"radius": 120}}')
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
