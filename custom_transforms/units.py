"""Voxels and Å: the one place where positions and sizes change unit or order."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from math import pi
from typing import Any, ClassVar

import numpy as np

__all__ = [
    "ParticleSizes",
    "angstrom_xyz_to_voxel_zyx",
    "as_voxel_size_zyx",
    "first_lengths",
    "following",
    "is_length_text",
    "of_class",
    "particle_sizes",
    "voxel_size_text",
    "voxel_zyx_to_angstrom_xyz",
]

LARGEST = 1e30  # Å, cubic Å: what is larger has a cube that no number holds
# the power of the diameter that a length grows with, and what null meant in version 0.1
FIRST_LENGTHS = {
    "min_distance": (1, "$0.25 * @particle_diameter"),
    "radius_max": (1, "$0.75 * @particle_diameter"),
    "min_size": (3, f"${0.1 * pi / 6!r} * @particle_diameter**3"),
}


def as_voxel_size_zyx(voxel_size: float | tuple[float, float, float] | np.ndarray) -> np.ndarray:
    """Check a voxel size and give it one form.

    Parameters
    ----------
    voxel_size : float or sequence of 3 floats
        Å per voxel; one number means the same on every axis, three are (Z, Y, X).

    Returns
    -------
    ndarray, shape (3,), float64
        Å per voxel along Z, Y, X.

    Examples
    --------
    >>> as_voxel_size_zyx(10.0)
    array([10., 10., 10.])
    """
    sizes = np.asarray(voxel_size, dtype=np.float64).reshape(-1)
    if sizes.size == 1:
        sizes = np.repeat(sizes, 3)
    if sizes.size != 3 or not np.isfinite(sizes).all() or (sizes <= 0).any():
        raise ValueError(
            f"voxel size: expected one or three (Z, Y, X) positive numbers in Å, got {voxel_size!r}. "
            "Give the voxel size of the tomogram, for example --voxel_size 10."
        )
    return sizes


def voxel_size_text(voxel_size: float | tuple[float, float, float] | np.ndarray) -> str:
    """A voxel size in words; one number where all axes have the same.

    Examples
    --------
    >>> voxel_size_text((10.0, 10.0, 10.0)), voxel_size_text((20.0, 10.0, 10.0))
    ('10 Å', '20 x 10 x 10 Å')
    """
    sizes = np.ravel(voxel_size)
    told = sizes[:1] if np.ptp(sizes) < 1e-5 else sizes
    return " x ".join(f"{size:g}" for size in told) + " Å"


def voxel_zyx_to_angstrom_xyz(centers_zyx_vox: np.ndarray, voxel_size_zyx: np.ndarray) -> np.ndarray:
    """Turn particle centers from array indices into physical positions.

    An index counts voxel centers: 0.0 is the middle of the first voxel, and lies at 0 Å.

    Parameters
    ----------
    centers_zyx_vox : ndarray, shape (n, 3), float
        Indices in array order (Z, Y, X). ``n`` may be 0.
    voxel_size_zyx : ndarray, shape (3,)
        Å per voxel along Z, Y, X; every entry > 0.

    Returns
    -------
    ndarray, shape (n, 3)
        Å, in the order (X, Y, Z). The input is untouched.

    Examples
    --------
    >>> voxel_zyx_to_angstrom_xyz(np.array([[1., 2., 3.]]), np.array([10., 5., 5.]))
    array([[15., 10., 10.]])
    """
    centers = np.asarray(centers_zyx_vox, dtype=np.float64).reshape(-1, 3)
    return (centers * as_voxel_size_zyx(voxel_size_zyx))[:, ::-1].copy()


def angstrom_xyz_to_voxel_zyx(centers_xyz_angstrom: np.ndarray, voxel_size_zyx: np.ndarray) -> np.ndarray:
    """Turn physical positions into array indices; the inverse of `voxel_zyx_to_angstrom_xyz`.

    Examples
    --------
    >>> angstrom_xyz_to_voxel_zyx(np.array([[15., 10., 10.]]), np.array([10., 5., 5.]))
    array([[1., 2., 3.]])
    """
    centers = np.asarray(centers_xyz_angstrom, dtype=np.float64).reshape(-1, 3)
    return centers[:, ::-1] / as_voxel_size_zyx(voxel_size_zyx)


@dataclass(frozen=True)
class ParticleSizes:
    """The lengths of post-processing and evaluation, in Å and cubic Å: the one place where they are derived.

    One setting, the particle's diameter, gives all of them in training, calibration, detection and its records; each
    can be replaced by the setting of its name. The factors are those that the shipped thresholds were chosen with.

    Examples
    --------
    >>> sizes = ParticleSizes.from_diameter(120.0)
    >>> sizes.min_distance, sizes.min_size, sizes.radius_max, sizes.refine_radius
    (40.0, 8000.0, 180.0, 30.0)
    """

    min_distance: float  # two seeds are at least this far apart
    min_size: float  # components and particles below this volume are specks
    radius_max: float  # R_max: a voxel farther from a seed never belongs to it
    refine_radius: float  # a seed moves to the centroid of the center map within this
    neighbor_distance: float  # reach of the neighbour filter
    match_radius: float  # radius whose fraction decides whether two centers match

    SETTINGS: ClassVar = ("min_distance", "min_size", "radius_max", "neighbor_distance")  # that a config may set

    @classmethod
    def from_diameter(
        cls, particle_diameter: float | Mapping[str, float], **replaced: float | Mapping[str, float] | None
    ) -> ParticleSizes:
        """Derive every length from the particle's diameter in Å; keywords that are not None replace single ones.

        A setting by class gives the lengths that hold for all classes together: the smallest distances and sizes, the
        largest radii and reaches.

        Raises
        ------
        ValueError
            If the diameter or a replacement is not a finite number above 0 (``min_size`` may be 0).
        """
        by_class = [value for value in (particle_diameter, *replaced.values()) if isinstance(value, Mapping)]
        if by_class:
            each = [
                cls.from_diameter(
                    of_class(particle_diameter, name), **{key: of_class(value, name) for key, value in replaced.items()}
                )
                for name in by_class[0]
            ]
            smallest = ("min_distance", "min_size", "refine_radius")
            return cls(**{
                key: (min if key in smallest else max)(getattr(sizes, key) for sizes in each) for key in vars(each[0])
            })  # fmt: skip
        diameter = _positive("particle_diameter", particle_diameter)
        sizes = {
            "min_distance": diameter / 3,
            "min_size": (diameter / 6) ** 3,
            "radius_max": 1.5 * diameter,
            "refine_radius": diameter / 4,
            "neighbor_distance": 2 * diameter,
            "match_radius": diameter / 2,
        }
        for name, value in replaced.items():
            if name not in sizes:
                raise ValueError(f"{name}: expected one of {', '.join(sizes)}")
            if value is not None:
                sizes[name] = _positive(name, value, zero_allowed=name == "min_size")
        return cls(**sizes)


particle_sizes = ParticleSizes.from_diameter  # by the name that a config can give


def of_class(value: Any, name: str) -> Any:
    """What a setting, a value for all classes or an object by class name, is for one class.

    Examples
    --------
    >>> of_class(0.3, "ribosome"), of_class({"ribosome": 0.4}, "ribosome")
    (0.3, 0.4)
    """
    if not isinstance(value, Mapping):
        return value
    if name not in value:
        raise ValueError(f"expected a value for each class, got none for {name!r}, only for {', '.join(value)}.")
    return value[name]


def following(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write lengths as multiples of the particle's diameter, so that another diameter takes them along.

    Settings that do not say for which diameter they were chosen stay as they are.

    Examples
    --------
    >>> following({"particle_diameter": 120.0, "min_size": 8640.0})
    {'particle_diameter': 120.0, 'min_size': '$0.005 * @particle_diameter**3'}
    """
    result = dict(settings)
    for name, (power, _) in FIRST_LENGTHS.items():
        if isinstance(result.get("particle_diameter"), (int, float)) and isinstance(result.get(name), (int, float)):
            factor = float(result[name]) / float(result["particle_diameter"]) ** power
            result[name] = f"${factor!r} * @particle_diameter" + ("" if power == 1 else f"**{power}")
    return result


def first_lengths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The lengths in the config of a bundle of version 0.1: numbers follow the diameter, null by the factors of then.

    Examples
    --------
    >>> first_lengths({"particle_diameter": 120.0, "min_distance": 40, "radius_max": None})
    {'min_distance': '$0.3333333333333333 * @particle_diameter', 'radius_max': '$0.75 * @particle_diameter'}
    """
    lengths = {name: settings[name] for name in FIRST_LENGTHS if name in settings}
    written = following({"particle_diameter": settings["particle_diameter"], **lengths})
    return {name: FIRST_LENGTHS[name][1] if lengths[name] is None else written[name] for name in lengths}


def _positive(name: str, value: Any, zero_allowed: bool = False) -> float:
    number = float(value)
    if not np.isfinite(number) or number > LARGEST or number < 0 or (number == 0 and not zero_allowed):
        raise ValueError(f"{name}: expected a number above 0 in Å (volumes: cubic Å), got {value!r}")
    return number


def is_length_text(text: str) -> bool:
    """Whether a text is a length or volume as `following` writes it: numbers, ``+ - * / **``, the particle's diameter.

    Nothing is run; a config may compute it without danger.

    Examples
    --------
    >>> [is_length_text(text) for text in ("$@particle_diameter / 3", "$(@particle_diameter / 6)**3", "$9**9**9")]
    [True, True, False]
    """
    if not text.startswith("$") or "DIAMETER" in text or len(text) > 200:
        return False
    try:
        tree = ast.parse(text[1:].replace("@particle_diameter", "DIAMETER").strip(), mode="eval")
    except (SyntaxError, ValueError):
        return False
    return _is_arithmetic(tree.body)


def _is_arithmetic(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=float() | int() as number):
            return not isinstance(number, bool)
        case ast.Name(id="DIAMETER"):
            return True
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _is_arithmetic(operand)
        case ast.BinOp(op=ast.Pow(), left=left, right=ast.Constant(value=1 | 2 | 3)):
            return _is_arithmetic(left)
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), left=left, right=right):
            return _is_arithmetic(left) and _is_arithmetic(right)
    return False
