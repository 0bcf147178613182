"""Open OME-Zarr tomograms and labels: one level of a multiscale image, read only where it is sliced."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from custom_transforms.files.limits import check_memory
from custom_transforms.units import as_voxel_size_zyx
from custom_transforms.volumes.checks import Notes, RawVolume, check_shape
from custom_transforms.volumes.zarr_chunks import check_chunks, first_damaged, stores_empty_chunks

__all__ = ["ZarrLevel", "import_zarr", "is_zarr", "open_zarr", "read_zarr"]

ANGSTROM_PER_UNIT = {
    "angstrom": 1.0, "picometer": 1e-2, "nanometer": 10.0, "micrometer": 1e4, "millimeter": 1e7, "meter": 1e10,
    "å": 1.0, "pm": 1e-2, "nm": 10.0, "um": 1e4, "µm": 1e4, "micron": 1e4, "mm": 1e7,
}  # fmt: skip
LEVEL_TOLERANCE = 0.01  # a level this near the wanted voxel size is the wanted one


@dataclass(frozen=True)
class ZarrLevel:
    """One level of an OME-Zarr; voxels are read when it is sliced, and only those.

    Attributes
    ----------
    name : str
        Path of the level inside the file, "" for an array that stands alone.
    array : zarr.Array
        All its axes; those beside Z, Y, X have one entry.
    zyx : tuple of 3 int
        Positions of Z, Y, X among the axes of ``array``.
    voxel_size_zyx : ndarray, shape (3,)
        Å; (0, 0, 0) where the file does not tell, and ``size_missing`` is then the reason.
    origin_xyz : ndarray, shape (3,)
        Å, the position of voxel (0, 0, 0).

    Examples
    --------
    ``open_zarr("TS_01.zarr")[10:20, :, 50:80]`` reads just the chunks behind it.
    """

    name: str
    array: Any
    zyx: tuple[int, int, int]
    voxel_size_zyx: np.ndarray
    origin_xyz: np.ndarray
    size_missing: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along Z, Y, X."""
        depth, height, width = (int(self.array.shape[axis]) for axis in self.zyx)
        return depth, height, width

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels, in native byte order."""
        return np.dtype(self.array.dtype).newbyteorder("=")

    @property
    def ndim(self) -> int:
        """Always 3."""
        return 3

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, window: Any) -> np.ndarray:
        """Read a window: up to three slices (Z, Y, X); always three axes, in native byte order."""
        slices = window if isinstance(window, tuple) else (window,)
        if len(slices) > 3 or not all(isinstance(one, slice) for one in slices):
            raise ValueError(f"a level of a Zarr is read by up to three slices (Z, Y, X), got {window!r}.")
        selection: list[Any] = [slice(0, 1)] * self.array.ndim
        for axis, one in zip(self.zyx, (*slices, *[slice(None)] * (3 - len(slices))), strict=True):
            selection[axis] = one
        part = np.asarray(self.array[tuple(selection)])
        others = tuple(axis for axis in range(part.ndim) if axis not in self.zyx)
        order = [*others, *self.zyx]
        volume = part.transpose(order).reshape([part.shape[axis] for axis in self.zyx])
        return np.ascontiguousarray(volume, dtype=self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


def is_zarr(path: str | os.PathLike) -> bool:
    """Tell whether a path names a Zarr, or a level inside one.

    Examples
    --------
    >>> is_zarr("TS_01.ome.zarr"), is_zarr("TS_01.zarr/1"), is_zarr("TS_01.mrc")
    (True, True, False)
    """
    return any(part.lower().endswith(".zarr") for part in Path(path).parts)


def read_zarr(path: Path, voxel_size: Any, notes: Notes, empty_parts: bool = False) -> RawVolume:
    """Read one level of an OME-Zarr whole; see `open_zarr` for the choice of the level.

    Parameters
    ----------
    path : Path
    voxel_size : float, sequence of 3 floats (Z, Y, X) or None
        Å; chooses the level.
    notes : Notes
        Takes the warnings.
    empty_parts : bool
        Whether a chunk that is not stored may be an empty part, as of labels, rather than a hole of a broken copy.

    Raises
    ------
    ImportError, ValueError
        As `open_zarr`; also if a chunk is damaged, memory does not suffice, or labels lack a chunk although empty ones
        are stored.
    """
    level = open_zarr(path, voxel_size)
    check_shape(path, level.shape)
    if level.dtype.kind not in "iufb":
        raise ValueError(f"{path}: expected real values, got {level.dtype.name}. Give the tomogram in real space.")
    check_memory(path, level.shape, level.dtype)
    missing, count = check_chunks(path, level.array)
    try:
        array = level[:]
    except Exception as error:  # every codec raises its own kinds
        key, reason = first_damaged(level.array)
        raise ValueError(
            f"{path}: its chunk {key} cannot be read ({reason or ' '.join(str(error).split())}). Copy it again."
        ) from error
    if missing:
        _tell_missing(path, level, missing, count, array if empty_parts else None, notes)
    if array.dtype.kind == "b":
        array = array.astype(np.int8)
    header = {"format": "zarr", "labels": f"level {level.name}" if level.name else ""}
    return RawVolume(array, level.voxel_size_zyx, level.size_missing, level.origin_xyz, header)


def _tell_missing(
    path: Path, level: ZarrLevel, missing: int, count: int, labels: np.ndarray | None, notes: Notes
) -> None:
    """Warn of chunks that are not stored; of labels they may be empty, unless empty ones are stored elsewhere."""
    said = f"{path}: {missing} of {count} chunks are not stored"
    if labels is None:
        notes.warn(f"{said} and read as {level.array.fill_value}. Copy it again if the copy was interrupted.")
        return
    order = np.argsort([axis for axis in range(level.array.ndim) if axis not in level.zyx] + list(level.zyx))
    others = [1] * (level.array.ndim - 3)
    if stores_empty_chunks(level.array, labels.reshape([*others, *labels.shape]).transpose(order)):
        raise ValueError(f"{said}, and empty ones are: these were lost, with their labels. Copy it again.")
    notes.warn(f"{said}: taken as background. Programs leave out empty ones; copy it again if the copy broke off.")


def open_zarr(path: str | os.PathLike, voxel_size: float | Sequence[float] | np.ndarray | None = None) -> ZarrLevel:
    """Open one level of an OME-Zarr (OME-NGFF 0.4 or 0.5) or a plain Zarr array, without reading a voxel.

    Parameters
    ----------
    path : path
        The ``.zarr`` folder, or a level inside: ``TS_01.zarr/1`` is that level, whatever ``voxel_size`` says.
    voxel_size : float or sequence of 3 floats (Z, Y, X), optional
        Å; chooses the level of that voxel size. Without it, the finest.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ImportError
        If the optional package zarr is not installed.
    ValueError
        If it is no Zarr image, has more than one channel or time, or no level of that voxel size.
    """
    path = Path(path)
    if not path.exists() and not any(one.is_dir() for one in path.parents if one.name.lower().endswith(".zarr")):
        raise FileNotFoundError(f"{path}: no such Zarr. Check the path.")
    if not path.exists() or not path.is_dir():
        raise ValueError(f"{path}: expected a Zarr folder or a level inside one. Give the folder that ends in .zarr.")
    node = _open(path)
    if hasattr(node, "shape"):
        return _single_array(path, node)
    multiscale = _multiscale(node)
    if multiscale is None:
        raise ValueError(
            f"{path}: expected an OME-Zarr image (its attributes name multiscales), got a Zarr group without. "
            "Give the image's own folder inside it, for example a .zarr/0."
        )
    levels = _levels(path, node, multiscale)
    return _choose(path, levels, voxel_size)


def import_zarr() -> Any:
    """Import the optional package zarr, or say how to get it."""
    try:
        import zarr
    except ImportError as error:
        raise ImportError("OME-Zarr files need the optional package zarr: pip install 'zarr>=3.1'.") from error
    return zarr


def _open(path: Path) -> Any:
    zarr = import_zarr()
    try:
        return zarr.open(str(path), mode="r")
    except Exception as error:  # zarr raises many kinds for what is no Zarr, or a damaged one
        raise ValueError(
            f"{path}: expected a Zarr, got something else or damaged metadata "
            f"({type(error).__name__}: {' '.join(str(error).split())}). Copy it again."
        ) from error


def _single_array(path: Path, array: Any) -> ZarrLevel:
    """An array that is opened by itself: its place in a multiscale image, if it has one, tells its size."""
    for parent in path.parents:
        if not any((parent / name).is_file() for name in (".zgroup", "zarr.json")):
            break
        group = _open(parent)
        multiscale = None if hasattr(group, "shape") else _multiscale(group)
        if multiscale is not None:
            inside = path.relative_to(parent).as_posix()
            for level in _levels(path, group, multiscale):
                if level.name.strip("/") == inside:
                    return level
    names = [*["t"] * (array.ndim - 3), "z", "y", "x"][-array.ndim :]  # plain arrays: (..., Z, Y, X)
    check_shape(path, array.shape[-3:])
    zyx = _zyx(path, names, array.shape)
    return ZarrLevel("", array, zyx, np.zeros(3), np.zeros(3), "it is a plain Zarr array, which has none")


def _multiscale(group: Any) -> Mapping[str, Any] | None:
    attributes = dict(group.attrs)
    found = attributes.get("ome", attributes)  # 0.5 has them under "ome", 0.4 at the top
    images = found.get("multiscales") if isinstance(found, Mapping) else None
    return images[0] if isinstance(images, Sequence) and images and isinstance(images[0], Mapping) else None


def _levels(path: Path, group: Any, multiscale: Mapping[str, Any]) -> list[ZarrLevel]:
    axes = multiscale.get("axes") or ["z", "y", "x"]  # before 0.4 axes are (t, c,) z, y, x; before 0.3 none are given
    names = [str(axis.get("name") if isinstance(axis, Mapping) else axis).lower() for axis in axes]
    units = [str(axis.get("unit", "") if isinstance(axis, Mapping) else "").lower() for axis in axes]
    levels = []
    datasets = multiscale.get("datasets") or []
    if not isinstance(datasets, Sequence) or not all(isinstance(one, Mapping) for one in datasets):
        raise ValueError(f"{path}: expected a list of datasets in its metadata, got {str(datasets)[:60]!r}.")
    for dataset in datasets:
        name = str(dataset.get("path", ""))
        array = _level_array(path, group, name)
        if array.ndim != len(names):
            raise ValueError(f"{path}: its metadata name {len(names)} axes, level {name!r} has {array.ndim}.")
        zyx = _zyx(path, names, array.shape)
        steps = [dataset.get("coordinateTransformations"), multiscale.get("coordinateTransformations")]
        scale, shift = _scale_and_shift(path, steps, array.ndim)
        factors = np.array([ANGSTROM_PER_UNIT.get(units[axis], 0.0) for axis in zyx])
        size, missing = scale[list(zyx)] * factors, ""
        if not (factors > 0).all() or steps[0] is None:
            told = " x ".join(f"{one:g}" for one in scale[list(zyx)])
            missing = f"its metadata ({told}) have no unit of length" if steps[0] else "its metadata have no scale"
            size = np.zeros(3)
        origin = (shift[list(zyx)] * factors)[::-1].copy()  # torch batches no reversed views
        levels.append(ZarrLevel(name, array, zyx, np.round(size, 6), origin, missing))
    if not levels:
        raise ValueError(f"{path}: expected an OME-Zarr image, its metadata name no level. Copy it again.")
    return levels


def _level_array(path: Path, group: Any, name: str) -> Any:
    try:
        array = group[name]
    except KeyError as error:
        raise ValueError(f"{path}: its metadata name the level {name!r}, which is not there. Copy it again.") from error
    except Exception as error:  # zarr raises many kinds for damaged metadata
        raise ValueError(
            f"{path}: the metadata of its level {name!r} are damaged "
            f"({type(error).__name__}: {' '.join(str(error).split())}). Copy it again."
        ) from error
    if not hasattr(array, "ndim"):
        raise ValueError(f"{path}: its metadata name {name!r} as a level, which is no array. Copy it again.")
    return array


def _zyx(path: Path, names: Sequence[str], shape: Sequence[int]) -> tuple[int, int, int]:
    missing = [axis for axis in "zyx" if axis not in names]
    if missing:
        raise ValueError(f"{path}: expected a volume with the axes z, y, x, got {', '.join(names) or 'none'}.")
    for name, count in zip(names, shape, strict=True):
        if name not in "zyx" and count != 1:
            raise ValueError(f"{path}: expected one volume, got {count} along its axis {name}. Save one of them.")
    return names.index("z"), names.index("y"), names.index("x")


def _scale_and_shift(path: Path, steps: Sequence[Any], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Join the transformations of a level and of the image, in their order: position = scale * index + shift."""
    scale, shift = np.ones(count), np.zeros(count)
    for step in (one for group in steps for one in group or []):
        kind = step.get("type")
        try:
            values = np.asarray(step.get(kind, np.ones(count)), dtype=np.float64)
        except (TypeError, ValueError):
            values = np.full(1, np.nan)
        if (
            kind not in ("scale", "translation", "identity")
            or values.shape != (count,)
            or not np.isfinite(values).all()
        ):
            raise ValueError(f"{path}: expected scales and translations of {count} numbers, its metadata have {step}.")
        if kind == "scale":
            scale, shift = scale * values, shift * values
        elif kind == "translation":
            shift = shift + values
    return scale, shift


def _choose(path: Path, levels: Sequence[ZarrLevel], voxel_size: Any) -> ZarrLevel:
    if voxel_size is None or levels[0].size_missing:
        return levels[0]
    wanted = as_voxel_size_zyx(voxel_size)
    for level in levels:
        if (np.abs(level.voxel_size_zyx / wanted - 1) <= LEVEL_TOLERANCE).all():
            return level
    told = ", ".join(" x ".join(f"{size:g}" for size in np.unique(level.voxel_size_zyx)) for level in levels)
    raise ValueError(
        f"{path}: no level has the voxel size {np.unique(wanted).tolist()} Å; it has {told} Å. Leave it out "
        f"for the finest, or name a level whose metadata are wrong: {path.name}/{levels[0].name}."
    )
