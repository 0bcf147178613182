"""What a list of particles does not say about its tomogram, and which option supplies it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from custom_transforms.files.names import PLAIN_NAMES, tomogram_base_name, tomogram_stem
from custom_transforms.units import as_voxel_size_zyx

__all__ = [
    "PLAIN_NAMES",
    "ParticleListWarning",
    "RelionTomogram",
    "TomogramContext",
    "tomogram_base_name",
    "tomogram_stem",
]

_MISSING = {
    "voxel_size_zyx": ("the tomogram's voxel size in Å", "--voxel_size 10 (or --tomogram FILE.mrc)"),
    "size_zyx": ("the tomogram's size in voxels", "--size 200,512,512 (Z,Y,X; or --tomogram FILE.mrc)"),
    "name": ("the tomogram's name", "--tomogram NAME"),
}


class ParticleListWarning(UserWarning):
    """A conversion lost something, or had to assume something."""


@dataclass(frozen=True)
class RelionTomogram:
    """What RELION's tomograms.star says of one tomogram; None where it says nothing.

    ``size_zyx`` in unbinned pixels, ``pixel`` in Å per unbinned pixel, ``binning`` of the reconstructed tomogram.
    """

    size_zyx: tuple[int, int, int] | None = None
    pixel: float | None = None
    binning: float | None = None


@dataclass(frozen=True)
class TomogramContext:
    """The tomogram that a particle list belongs to.

    Parameters
    ----------
    voxel_size_zyx : ndarray, shape (3,), or one number, optional
        Å per voxel of the tomogram in use (binned).
    size_zyx : tuple of 3 int, optional
        Voxels of the tomogram in use (binned), (Z, Y, X).
    binning : float, optional
        Binned voxel over unbinned pixel, for lists that count in pixels of the tilt series (RELION, EMAN2, ...). None
        if it is not given: `declared.settle` takes it from the list or the tomograms.star.
    list_binning : float
        Voxel of the tomogram in use over voxel of the tomogram that the list was made on, where the list counts in
        voxels of its own; `declared.settle` sets it.
    name : str
        Name for particles that have none.
    unbinned_size_zyx : tuple of 3 int, optional
        Size in unbinned pixels; otherwise ``size_zyx`` times ``binning``.
    tomograms : dict of str to RelionTomogram
        What a tomograms.star says, by tomogram; a name that is not there is an error.
    sizes : dict of str to tuple of 3 int
        ``size_zyx`` by tomogram (`tomogram_base_name`), where a list is of several.
    center_rule : {"size/2", "size/2-1"}
        Where RELION 5 counts from: size/2 (RELION), or size/2 - 1 (its own Python tools on export).
    axis_order : str, optional
        Order of the three numbers of a row where a format leaves it open, for example "zyx".
    class_names : dict of str to str
        Names for the class numbers of a list, for example ``{"1": "1bxn"}``.
    dataset : dict
        Further words that a format may write down (user, session, object name).
    """

    voxel_size_zyx: np.ndarray | None = None
    size_zyx: tuple[int, int, int] | None = None
    binning: float | None = None
    list_binning: float = 1.0
    name: str = ""
    unbinned_size_zyx: tuple[int, int, int] | None = None
    tomograms: dict[str, RelionTomogram] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    center_rule: str = "size/2"
    axis_order: str | None = None
    class_names: dict[str, str] = field(default_factory=dict)
    dataset: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.voxel_size_zyx is not None:
            object.__setattr__(self, "voxel_size_zyx", as_voxel_size_zyx(self.voxel_size_zyx))
        for name in ("size_zyx", "unbinned_size_zyx"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _size(name, getattr(self, name)))
        if self.binning is not None and not (np.isfinite(self.binning) and self.binning > 0):
            raise ValueError(f"binning: expected a number above 0, got {self.binning!r}")
        if self.center_rule not in ("size/2", "size/2-1"):
            raise ValueError(f"center_rule: expected 'size/2' or 'size/2-1', got {self.center_rule!r}")
        if self.axis_order is not None and sorted(self.axis_order) != ["x", "y", "z"]:
            raise ValueError(f"axis_order: expected the letters x, y, z in some order, got {self.axis_order!r}")

    def require(self, name: str, format_name: str) -> Any:
        """The value of a field, or an error that says which option supplies it."""
        value = getattr(self, name)
        if value is None or (isinstance(value, str) and value == ""):
            what, option = _MISSING[name]
            raise ValueError(f"{format_name}: needs {what}, which the list does not hold. Give {option}.")
        return value

    def voxel_size_xyz(self, format_name: str) -> np.ndarray:
        """Å per voxel along X, Y, Z, or an error if unknown."""
        return np.asarray(self.require("voxel_size_zyx", format_name))[::-1]

    @property
    def factor(self) -> float:
        """The binning; 1 if it is not known (`declared.settle` has said so)."""
        return 1.0 if self.binning is None else float(self.binning)

    def relion_tomogram(self, tomogram: str, format_name: str) -> RelionTomogram:
        """What the tomograms.star says of a tomogram; nothing if none was given."""
        if not self.tomograms:
            return RelionTomogram()
        base = tomogram_base_name(tomogram)
        if base not in self.tomograms:
            known = ", ".join(sorted(self.tomograms)[:5])
            raise ValueError(
                f"{format_name}: tomogram {tomogram!r} is not in tomograms.star (it holds {known}). Give the "
                "tomograms.star that belongs to the list, or none."
            )
        return self.tomograms[base]

    def unbinned_size_xyz(self, tomogram: str, format_name: str) -> tuple[np.ndarray, str]:
        """Unbinned pixels along X, Y, Z of a tomogram, and the words that say where they come from."""
        listed = self.relion_tomogram(tomogram, format_name).size_zyx
        if listed is not None:
            return np.array(listed[::-1], dtype=float), "tomograms.star"
        if self.unbinned_size_zyx is not None:
            return np.array(self.unbinned_size_zyx[::-1], dtype=float), "the given unbinned size"
        size = self.sizes.get(tomogram_base_name(tomogram)) or self.require("size_zyx", format_name)
        return np.array(size[::-1], dtype=float) * self.factor, "size x binning"


def _size(name: str, value: Any) -> tuple[int, int, int]:
    size = np.asarray(value, dtype=float).reshape(-1)
    if size.size != 3 or not np.isfinite(size).all() or (size < 1).any() or (size != np.round(size)).any():
        raise ValueError(f"{name}: expected three whole numbers (Z, Y, X) above 0, got {value!r}")
    return int(size[0]), int(size[1]), int(size[2])
