"""Volumes that are read when they are sliced: tomograms, maps and labels that do not fit into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from custom_transforms.volumes.checks import (
    Notes,
    RawVolume,
    build_metadata,
    check_values,
    decide_voxel_size,
    label_background,
    warn_if_unrotated,
)
from custom_transforms.volumes.mrc_read import read_mrc
from custom_transforms.volumes.read import read_tomogram

__all__ = [
    "FileVolume",
    "LabelVolume",
    "LazyVolume",
    "PlaneCache",
    "ProbabilityVolume",
    "RegionVolume",
    "StoredVolume",
    "Streams",
    "map_volume",
    "open_tomogram",
    "read_region_mask",
]

CACHED_PLANES = 32


@dataclass(frozen=True)
class Streams:
    """What a transform that also takes volumes larger than memory says of itself, in its attribute ``streams``.

    Its method ``streamed`` does to volumes that are read by slices what calling it does to arrays; without such a
    method it is called. A subclass inherits none of this, as it may do something else: it says ``streams`` anew.

    Attributes
    ----------
    takes, gives : str
        How far the tomogram is before and after the transform, which is the order of the steps: file, loaded,
        normalized; predicted, maps, foreground, seeds, instances, particles, saved.
    only : mapping
        The values of its attributes with which it streams; with others it needs the whole volume.
    """

    takes: str
    gives: str
    only: Mapping[str, Any] = field(default_factory=dict)


class LazyVolume:
    """What the functions that walk through volumes need of one: shape, type, and slices (Z, Y, X) as new arrays.

    Parameters
    ----------
    shape : sequence of 3 ints
    dtype : dtype
    """

    ndim = 3

    def __init__(self, shape: Sequence[int], dtype: Any) -> None:
        self.shape: tuple[int, int, int] = (int(shape[0]), int(shape[1]), int(shape[2]))
        self.dtype = np.dtype(dtype)
        self.meta: dict[str, Any] = {}

    def with_meta(self, meta: Mapping[str, Any]) -> Self:
        """Take a copy of metadata, as a MetaTensor has them; returns the volume itself."""
        self.meta = dict(meta)
        return self

    @property
    def size(self) -> int:
        """Voxels."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        raise NotImplementedError


class FileVolume(LazyVolume):
    """A volume in a file. The file is mapped anew for every slice, so what was read does not stay in memory.

    Parameters
    ----------
    mapped : memmap, shape (Z, Y, X)
        Says where the voxels lie in the file.

    Attributes
    ----------
    fill : float or None
        Takes the place of NaN and Inf.
    """

    def __init__(self, mapped: np.memmap) -> None:
        super().__init__(mapped.shape, mapped.dtype)
        self.filename, self.offset = mapped.filename, mapped.offset
        self.fill: float | None = None

    def __getitem__(self, index: Any) -> np.ndarray:
        mapped = np.memmap(self.filename, dtype=self.dtype, mode="r", offset=self.offset, shape=self.shape)  # type: ignore[call-overload]
        part = np.array(mapped[index])
        if self.fill is not None:
            part[~np.isfinite(part)] = self.fill
        return part


class LabelVolume(LazyVolume):
    """Labels, int32, looked up in a table by the numbers in an array on disk, as they are read.

    Parameters
    ----------
    numbers : array-like, shape (Z, Y, X), int32
    table : ndarray, int32
        Label of every number; those of negative numbers count from its end.
    """

    def __init__(self, numbers: Any, table: np.ndarray) -> None:
        super().__init__(numbers.shape, np.int32)
        self.numbers, self.table = numbers, table

    @property
    def highest(self) -> int:
        """The highest label."""
        return int(self.table.max(initial=0))

    def renumbered(self, table: np.ndarray) -> LabelVolume:
        """The same volume with another label for every label."""
        return LabelVolume(self.numbers, table[self.table])

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.table[np.asarray(self.numbers[index])]


class ProbabilityVolume(LazyVolume):
    """Mask probability of a volume of logits."""

    def __init__(self, logits: Any) -> None:
        super().__init__(logits.shape, np.float32)
        self.logits = logits

    def __getitem__(self, index: Any) -> np.ndarray:
        return torch.from_numpy(np.asarray(self.logits[index], dtype=np.float32)).sigmoid_().numpy()


class RegionVolume(LazyVolume):
    """Where a volume in an MRC file is above its background; `read_region_mask` without holding the whole of it.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_region_mask`, and for files that cannot be read by parts.
    """

    def __init__(self, path: str | Path, shape: Sequence[int]) -> None:
        path, notes = Path(path), Notes()
        self.volume = map_volume(path, notes=notes)[0]
        super().__init__(self.volume.shape, bool)
        _check_region_shape(path, self.shape, shape)
        self.background = label_background(path, self.volume, notes)  # type: ignore[arg-type]

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.volume[index] > self.background


class StoredVolume(LazyVolume):
    """A volume in an array on disk; half precision comes out as single."""

    def __init__(self, volume: Any) -> None:
        super().__init__(volume.shape, np.float32 if volume.dtype == np.float16 else volume.dtype)
        self.volume = volume

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self.volume[index], dtype=self.dtype)


class PlaneCache(LazyVolume):
    """A volume that is read by plane, of which some planes are kept: its chunks are unpacked once, not per plane."""

    def __init__(self, volume: Any) -> None:
        super().__init__(volume.shape, np.float32 if volume.dtype == np.float16 else volume.dtype)
        self.volume, self.first = volume, -1
        self.planes = np.empty((0, 0, 0))

    def __getitem__(self, index: Any) -> np.ndarray:
        z, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(z, slice):
            first, last, step = z.indices(len(self))
            if step == 1 and last - first <= CACHED_PLANES and first // CACHED_PLANES == (last - 1) // CACHED_PLANES:
                return self._cached(first)[(slice(first - self.first, last - self.first), *rest)]
            return np.asarray(self.volume[index], dtype=self.dtype)
        if not 0 <= z < len(self):
            raise IndexError(f"plane {z} of {len(self)}")
        return self._cached(int(z))[(int(z) - self.first, *rest)]

    def __reduce__(self) -> tuple[Any, ...]:
        return PlaneCache, (self.volume,)  # the planes need not travel

    def _cached(self, z: int) -> np.ndarray:
        first = z - z % CACHED_PLANES
        if first != self.first:
            self.planes = np.empty((0, 0, 0))  # before the next ones come
            self.planes = np.asarray(self.volume[first : first + CACHED_PLANES], dtype=self.dtype)
            self.first = first
        return self.planes


def open_tomogram(
    path: str | Path, voxel_size: Any = None, fill_nonfinite: bool = False, signed: bool | None = None
) -> tuple[FileVolume, dict[str, Any]]:
    """Open an MRC file as `read_tomogram` does, with all its checks, but without ever holding the whole of it.

    Returns
    -------
    volume : FileVolume, shape (Z, Y, X)
    metadata : dict
        As `read_tomogram` gives it.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_tomogram`, and for files that cannot be read by parts.
    """
    path, notes = Path(path), Notes()
    volume, raw = map_volume(path, signed, notes)
    size_zyx = decide_voxel_size(path, raw, voxel_size, "tomogram", notes)
    warn_if_unrotated(path, volume.shape, notes)
    check_values(path, volume, "tomogram", fill_nonfinite, notes)  # type: ignore[arg-type]
    return volume, build_metadata(path, raw, size_zyx, notes)


def map_volume(path: Path, signed: bool | None = None, notes: Notes | None = None) -> tuple[FileVolume, RawVolume]:
    """Open an MRC file of any content to be read by slices.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing, damaged, or cannot be read by parts.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Check the path.")
    raw = read_mrc(path, signed, notes if notes is not None else Notes())
    if not isinstance(raw.array, np.memmap):
        raise ValueError(
            f"{path}: expected a file that can be read by parts, as it is larger than memory: MRC, not compressed, "
            "little-endian, map axes 1-2-3. Convert it (IMOD: newstack input.mrc.gz output.mrc)."
        )
    return FileVolume(raw.array), raw


def read_region_mask(path: str | Path, shape: Sequence[int]) -> np.ndarray:
    """Read the region in which to look, of any format: true where its labels are above 0.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing or damaged, its values are no labels, or its shape is not the tomogram's.
    """
    volume, _ = read_tomogram(path, check="labels")
    _check_region_shape(path, volume.shape, shape)
    return np.asarray(volume > 0)


def _check_region_shape(path: str | Path, shape: Sequence[int], expected: Sequence[int]) -> None:
    if tuple(shape) != tuple(expected):
        raise ValueError(
            f"{path}: expected a region of the tomogram's shape (Z, Y, X) {tuple(expected)}, got {tuple(shape)}. "
            "Draw it on this tomogram, at the same binning."
        )
