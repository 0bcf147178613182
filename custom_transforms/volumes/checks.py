"""What a loaded volume must satisfy: voxel size, finite values, whole-numbered labels, and the metadata it carries."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from custom_transforms.units import as_voxel_size_zyx, voxel_size_text
from custom_transforms.volumes.slabs import slabs

__all__ = [
    "Notes",
    "RawVolume",
    "add_warning",
    "build_metadata",
    "check_shape",
    "check_values",
    "decide_voxel_size",
    "label_background",
    "metadata_warnings",
    "warn_if_unrotated",
]

CHECKS = ("tomogram", "labels")
ANISOTROPY_LIMIT = 0.01  # voxel sizes that differ by less are rounding


@dataclass
class RawVolume:
    """One volume as its format gave it, before the checks.

    ``array`` is (Z, Y, X), native byte order, C order, and may be a copy-on-write memory map; ``voxel_size_zyx``
    is in Å, (0, 0, 0) where the file does not tell, and ``size_missing`` is then the reason for the message.
    """

    array: np.ndarray
    voxel_size_zyx: np.ndarray
    size_missing: str = "its MRC header has none (0)"
    origin_xyz: np.ndarray = field(default_factory=lambda: np.zeros(3))
    header: dict[str, Any] = field(default_factory=dict)


class Notes(list):
    """The warnings of one load: each is issued as a `UserWarning` and kept for the metadata."""

    def warn(self, text: str) -> None:
        """Issue ``text`` (one line) as a warning and remember it."""
        self.append(text)
        warnings.warn(text, UserWarning, stacklevel=3)


def metadata_warnings(metadata: Mapping[str, Any]) -> list[str]:
    """List the warnings in a volume's metadata.

    They are stored as one string, a line each: MONAI cannot batch lists of unequal length.

    Examples
    --------
    >>> metadata_warnings({"warnings": "first\\nsecond"})
    ['first', 'second']
    >>> metadata_warnings({})
    []
    """
    return str(metadata.get("warnings", "")).splitlines()


def add_warning(metadata: MutableMapping[str, Any], text: str) -> None:
    """Issue ``text`` (one line) as a `UserWarning` and append it to ``metadata["warnings"]``, in place."""
    warnings.warn(text, UserWarning, stacklevel=2)
    metadata["warnings"] = "\n".join([*metadata_warnings(metadata), text])


def check_shape(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse everything but a volume, by a `ValueError`: 2D images, stacks of volumes, colour pictures."""
    told = " x ".join(str(n) for n in shape)
    if len(shape) != 3:
        kind = "a 2D image" if len(shape) < 3 else "an array of more than three axes"
        raise ValueError(
            f"{path}: expected a volume (Z, Y, X), got {kind} ({told}). Give the reconstructed tomogram, one volume."
        )
    if min(shape) < 2:
        raise ValueError(
            f"{path}: expected a volume (Z, Y, X) with at least 2 voxels on every axis, got a 2D image ({told}). "
            "Give the reconstructed tomogram, not a micrograph or a single slice."
        )


def decide_voxel_size(path: Path, raw: RawVolume, voxel_size: Any, check: str, notes: Notes) -> np.ndarray:
    """Choose between the given voxel size and the file's, and refuse a file's that cannot be true.

    Parameters
    ----------
    path : Path
        For the messages.
    raw : RawVolume
        The file's own voxel size and where it comes from.
    voxel_size : float, sequence of 3 floats (Z, Y, X) or None
        Å; given, it is taken.
    check : {"tomogram", "labels"}
        Labels without a voxel size get 1.0 Å and a warning instead of the error.
    notes : Notes
        Takes the warnings.

    Returns
    -------
    ndarray, shape (3,), float64
        Å along Z, Y, X.

    Raises
    ------
    ValueError
        If a tomogram has no voxel size, or exactly 1.0 Å, and none was given.
    """
    stored = np.asarray(raw.voxel_size_zyx, dtype=np.float64)
    problem = _size_problem(stored, raw.size_missing)
    if voxel_size is not None:
        chosen = as_voxel_size_zyx(voxel_size)
        if not problem and (np.abs(stored / chosen - 1) > ANISOTROPY_LIMIT).any():
            notes.warn(
                f"{path}: the given voxel size {voxel_size_text(chosen)} replaces the {voxel_size_text(stored)} of its "
                "header."
            )
    elif not problem:
        chosen = stored
    elif check == "labels":
        notes.warn(
            f"{path}: no usable voxel size, {problem}; 1 Å is used for these labels. "
            "Give the tomogram's, for example --voxel_size 10."
        )
        chosen = np.ones(3)
    else:
        raise ValueError(
            f"{path}: expected the tomogram's voxel size in Å, but {problem}. "
            "Give it on the command line, for example --voxel_size 10."
        )
    if chosen.max() / chosen.min() - 1 > ANISOTROPY_LIMIT:
        notes.warn(
            f"{path}: the voxels are not cubes, {voxel_size_text(chosen)} along Z, Y, X. Distances in Å are right, but "
            "networks trained on cubes see distorted particles. If the header is wrong, give --voxel_size."
        )
    return chosen


def _size_problem(stored: np.ndarray, missing: str) -> str:
    if not np.isfinite(stored).all() or (stored <= 0).any():
        return missing
    if np.allclose(stored, 1.0, rtol=0, atol=1e-5):
        return "its header says exactly 1.0 Å, which programs write when they do not know it"
    return ""


def warn_if_unrotated(path: Path, shape: tuple[int, ...], notes: Notes) -> None:
    """Warn of a tomogram, shape (Z, Y, X), that is thinner along Y than along Z."""
    depth, height = shape[:2]
    if height < depth:
        notes.warn(
            f"{path}: y is thinner than z ({height} < {depth} voxels). An IMOD reconstruction that was not rotated "
            "has its thickness along y: rotate it first (IMOD: clip rotx, or trimvol -rx)."
        )


def check_values(path: Path, volume: np.ndarray, check: str, fill_nonfinite: bool, notes: Notes) -> np.ndarray:
    """Refuse values that nothing later could work with; one pass, slab by slab.

    Parameters
    ----------
    path : Path
        For the messages.
    volume : ndarray, shape (Z, Y, X)
        Any real dtype. Only ``fill_nonfinite`` writes to it (a copy-on-write map keeps the file as it is). A volume
        that is read by slices is told the value by its attribute ``fill`` instead.
    check : {"tomogram", "labels"}
        A tomogram has finite values and is not constant; labels are whole numbers from -1, and may be empty.
    fill_nonfinite : bool
        Put the mean of the finite values in the place of NaN and Inf of a tomogram, with a warning.
    notes : Notes
        Takes the warnings.

    Returns
    -------
    ndarray, shape (Z, Y, X)
        ``volume`` itself, or for labels of IMOD's shifted bytes (-128 is background) a corrected copy.

    Raises
    ------
    ValueError
        As above; a message about NaN and Inf says how many there are.
    """
    if check == "labels":
        return _check_labels(path, volume, notes)
    lowest, highest, bad, total, finite = np.inf, -np.inf, 0, 0.0, 0
    for slab in slabs(volume):
        low, high = float(slab.min()), float(slab.max())  # NaN and Inf show in one of the two
        if np.isfinite(low) and np.isfinite(high):
            lowest, highest = min(lowest, low), max(highest, high)
            if volume.dtype.kind in "iu" and lowest < highest:
                return volume  # integers have no NaN, and it is not constant: the rest need not be read
            if fill_nonfinite:
                total, finite = total + float(slab.sum(dtype=np.float64)), finite + slab.size
            continue
        good = slab[np.isfinite(slab)]
        bad += slab.size - good.size
        if good.size:
            lowest, highest = min(lowest, float(good.min())), max(highest, float(good.max()))
            total, finite = total + float(good.sum(dtype=np.float64)), finite + good.size
    if bad and not fill_nonfinite:
        raise ValueError(
            f"{path}: expected finite values, got {bad:,} voxels that are NaN or Inf (of {volume.size:,}). "
            "Reconstruct it again, or give --fill_nonfinite to put the mean of the others there."
        )
    if not lowest < highest:
        value = f"every voxel is {lowest:g}" if finite or not bad else "no voxel is finite"
        raise ValueError(
            f"{path}: expected a tomogram, got a constant volume ({value}). Its reconstruction or copy went wrong."
        )
    if bad:
        _fill(volume, total / finite)
        notes.warn(f"{path}: {bad:,} voxels that are NaN or Inf were replaced by the mean of the others.")
    return volume


def _fill(volume: np.ndarray, value: float) -> None:
    if not isinstance(volume, np.ndarray):
        volume.fill = value
        return
    for slab in slabs(volume):
        finite = np.isfinite(slab)
        if not finite.all():
            slab[~finite] = value


def _check_labels(path: Path, labels: np.ndarray, notes: Notes) -> np.ndarray:
    background = label_background(path, labels, notes)
    return labels if background == 0 else labels.astype(np.int16) - np.int16(background)


def label_background(path: Path, labels: np.ndarray, notes: Notes) -> int:
    """Refuse what are no labels, as `check_values` does; return the background's value: 0, or -128 of IMOD's bytes."""
    lowest, highest, odd = 0.0, 0.0, 0
    for slab in slabs(labels):
        low, high = float(slab.min()), float(slab.max())
        lowest, highest = min(lowest, low), max(highest, high)
        if labels.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                odd += int(np.count_nonzero(~(np.rint(slab) == slab) | np.isinf(slab)))
    if odd:
        raise ValueError(
            f"{path}: expected labels (whole numbers: 0 background, 1..n particles, -1 ignore), got {odd:,} voxels "
            "that are not whole numbers. Give the label volume, not a map of densities or probabilities."
        )
    if labels.dtype == np.int8 and lowest == -128:
        notes.warn(
            f"{path}: the lowest label is -128, as in masks of IMOD's shifted bytes; 128 was added to every label."
        )
        return -128
    if lowest < -1 or highest > np.iinfo(np.int32).max:
        raise ValueError(
            f"{path}: expected labels (0 background, 1..n particles, -1 ignore), got values from {lowest:g} to "
            f"{highest:g}. Give the label volume, not a tomogram."
        )
    return 0


def build_metadata(path: Path, raw: RawVolume, voxel_size_zyx: np.ndarray, notes: Notes) -> dict[str, Any]:
    """Collect what travels with the volume; every value survives MONAI's batching.

    ``affine`` maps an index (Z, Y, X) to Å in the same order: a voxel size on the diagonal, the origin as
    translation.
    """
    affine = np.diag([*voxel_size_zyx, 1.0])
    affine[:3, 3] = raw.origin_xyz[::-1]
    header = {
        "format": "",
        "mode": -1,
        "nstart_xyz": np.zeros(3, dtype=np.int64),
        "ispg": 1,
        "map_axes": np.array([1, 2, 3]),
        "labels": "",
        "imod_stamp": 0,
        "imod_flags": 0,
        "byte_order": "",
        "machine_stamp": "",
        "stored_dtype": str(raw.array.dtype),
        "stored_voxel_size_zyx": np.asarray(raw.voxel_size_zyx, dtype=np.float64),
    }
    return {
        "filename_or_obj": str(path),
        "voxel_size_zyx": voxel_size_zyx,
        "origin_xyz": np.asarray(raw.origin_xyz, dtype=np.float64),
        "affine": affine,
        "spatial_shape": np.array(raw.array.shape),
        "original_channel_dim": "no_channel",
        "header": header | raw.header,
        "warnings": "\n".join(notes),
    }
