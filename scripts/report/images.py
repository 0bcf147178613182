"""Volumes made small enough to mail: binned JPEG slices of the tomogram, and instance labels coded without loss."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = [
    "MAX_VOXELS",
    "LabelCode",
    "SliceStack",
    "bin_slab",
    "binning_candidates",
    "encode_labels",
    "encode_slices",
    "fit_labels",
    "fit_slices",
    "grey_range",
    "to_grey",
]

MAX_VOXELS = 40_000_000  # what a browser holds without effort: one byte of image and two of labels for each
_JPEG_QUALITIES = (70, 50, 35)
_COARSEST = 16  # nothing can be seen in anything coarser


@dataclass(frozen=True)
class SliceStack:
    """Z slices as JPEG files. ``shape_zyx`` is the binned one; block ``i`` covers voxels ``i*b`` to ``i*b + b - 1``."""

    shape_zyx: tuple[int, int, int]
    binning_zyx: tuple[int, int, int]
    jpegs: list[bytes]
    grey_range: tuple[float, float]

    @property
    def size(self) -> int:
        """Bytes of all slices once they are base64 text."""
        return sum(-(-len(jpeg) // 3) * 4 + 1 for jpeg in self.jpegs)


@dataclass(frozen=True)
class LabelCode:
    """A binned label volume as two zlib streams; see `encode_labels`."""

    shape_zyx: tuple[int, int, int]
    binning_zyx: tuple[int, int, int]
    symbols: bytes
    values: bytes
    max_label: int

    @property
    def size(self) -> int:
        """Bytes once both streams are base64 text."""
        return (len(self.symbols) + len(self.values)) * 4 // 3 + 8


def binned_shape(shape_zyx: tuple[int, ...], binning_zyx: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape after binning; a part of a block at the end counts as a block."""
    z, y, x = (-(-n // b) for n, b in zip(shape_zyx, binning_zyx, strict=True))
    return z, y, x


def binning_candidates(
    shape_zyx: tuple[int, ...], voxel_size_zyx: np.ndarray, max_voxels: int = MAX_VOXELS
) -> Iterator[tuple[int, int, int]]:
    """Yield binnings (Z, Y, X) from the sharpest that a browser can hold to the coarsest.

    Slices are looked at along Z, and neighbours differ little there: Z may be binned up to twice as much as Y and X,
    unless a voxel is already longer along Z.

    Examples
    --------
    >>> next(binning_candidates((464, 928, 928), np.array([10.0, 10.0, 10.0])))
    (3, 2, 2)
    >>> next(binning_candidates((12, 20, 28), np.array([10.0, 10.0, 10.0])))
    (1, 1, 1)
    """
    stretched = voxel_size_zyx[0] > 1.2 * voxel_size_zyx[2]
    for b in range(1, min(max(shape_zyx), _COARSEST) + 1):
        for bz in (b,) if stretched else sorted({b, -(-3 * b // 2), 2 * b}):
            binning = (min(bz, shape_zyx[0]), b, b)
            if np.prod(binned_shape(shape_zyx, binning)) <= max_voxels:
                yield binning


def bin_slab(slab: np.ndarray, by: int, bx: int) -> np.ndarray:
    """Average a slab (z, Y, X) over z and over blocks of ``by`` x ``bx``; incomplete blocks average what is there.

    Examples
    --------
    >>> bin_slab(np.arange(6.0).reshape(1, 2, 3), 2, 2)
    array([[2. , 3.5]], dtype=float32)
    """
    image = np.asarray(slab, dtype=np.float32).mean(axis=0)
    for axis, b in ((0, by), (1, bx)):
        if b > 1:
            starts = np.arange(0, image.shape[axis], b)
            counts = np.diff(np.append(starts, image.shape[axis])).astype(np.float32)
            image = np.add.reduceat(image, starts, axis=axis) / (counts[:, None] if axis == 0 else counts)
    return image


def grey_range(volume: np.ndarray, binning_zyx: tuple[int, int, int]) -> tuple[float, float]:
    """Return the values shown as black and white: the 0.3 and 99.7 percentiles of some binned slices."""
    bz, by, bx = binning_zyx
    starts = np.unique(np.linspace(0, max(volume.shape[0] - bz, 0), 9).astype(int))
    sample = np.concatenate([bin_slab(volume[z : z + bz], by, bx).ravel() for z in starts])
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(sample, (0.3, 99.7)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def to_grey(image: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Map values to 0..255; what is not finite becomes black."""
    low, high = limits
    scaled = np.nan_to_num((np.asarray(image, dtype=np.float32) - low) * (255.0 / (high - low)), nan=0.0)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> bytes:
    """Encode a uint8 image: (Y, X) grey or (Y, X, 3) colour."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def encode_slices(
    volume: np.ndarray,
    binning_zyx: tuple[int, int, int],
    quality: int,
    limits: tuple[float, float],
    only: np.ndarray | None = None,
) -> list[bytes]:
    """Bin and encode Z slices; one slab at a time, so a memory-mapped volume is never in memory as a whole.

    Parameters
    ----------
    volume : array, shape (Z, Y, X)
    binning_zyx : tuple
    quality : int
        JPEG quality, 1 to 95.
    limits : tuple
        Values shown as black and white.
    only : ndarray of int, optional
        Binned slices to encode; by default all.

    Returns
    -------
    list of bytes
        One JPEG file a slice.
    """
    bz, by, bx = binning_zyx
    chosen = range(-(-volume.shape[0] // bz)) if only is None else only

    def one(z: int) -> bytes:
        return jpeg(to_grey(bin_slab(volume[z * bz : (z + 1) * bz], by, bx), limits), quality)

    with ThreadPoolExecutor(2) as pool:  # Pillow and NumPy let go of the GIL
        return list(pool.map(one, chosen))


def fit_slices(
    volume: np.ndarray,
    voxel_size_zyx: np.ndarray,
    max_bytes: int,
    max_voxels: int = MAX_VOXELS,
    limits: tuple[float, float] | None = None,
) -> SliceStack | None:
    """Encode a volume with the least binning whose slices stay below a size; None if nothing fits.

    The size is estimated from up to eight slices, then checked on all of them. ``limits`` are the values shown as
    black and white, by default those of `grey_range`.
    """
    for binning in binning_candidates(volume.shape, voxel_size_zyx, max_voxels):
        shape = binned_shape(volume.shape, binning)
        shown = limits or grey_range(volume, binning)
        sample = np.unique(np.linspace(0, shape[0] - 1, 8).astype(int))
        for quality in _JPEG_QUALITIES:
            probe = SliceStack(shape, binning, encode_slices(volume, binning, quality, shown, sample), shown)
            if probe.size / len(sample) * shape[0] > max_bytes:
                continue
            stack = SliceStack(shape, binning, encode_slices(volume, binning, quality, shown), shown)
            if stack.size <= max_bytes:
                return stack
    return None


def encode_labels(labels: np.ndarray, binning_zyx: tuple[int, int, int]) -> LabelCode:
    """Code a label volume without loss, after taking the middle voxel of every block.

    Each voxel becomes a symbol: 0 as the voxel before it (x - 1), 1 as the one above (y - 1), 2 as the one in the
    slice before (z - 1), 3 a value of its own; outside the volume counts as 0. Nearly all symbols are 0, which zlib
    packs well, and the browser undoes it in one pass. Negative labels (ignore) count as background.

    Parameters
    ----------
    labels : array, shape (Z, Y, X), integer valued
    binning_zyx : tuple

    Returns
    -------
    LabelCode
        ``symbols``: zlib of one byte a voxel; ``values``: zlib of little-endian uint32, one for each symbol 3.
    """
    bz, by, bx = binning_zyx
    nz, ny, nx = binned_shape(labels.shape, binning_zyx)
    rows = np.minimum(np.arange(ny) * by + by // 2, labels.shape[1] - 1)
    columns = np.minimum(np.arange(nx) * bx + bx // 2, labels.shape[2] - 1)
    packer, values, max_label = zlib.compressobj(6), [], 0
    symbols: list[bytes] = []
    before = np.zeros((ny, nx), np.uint32)
    for z in range(nz):
        plane = np.asarray(labels[min(z * bz + bz // 2, labels.shape[0] - 1)])[np.ix_(rows, columns)]
        plane = np.maximum(plane, 0).astype(np.uint32)
        left, above = np.zeros_like(plane), np.zeros_like(plane)
        left[:, 1:], above[1:] = plane[:, :-1], plane[:-1]
        code = np.where(plane == left, 0, np.where(plane == above, 1, np.where(plane == before, 2, 3))).astype(np.uint8)
        values.append(plane[code == 3])
        symbols.append(packer.compress(code.tobytes()))
        max_label = max(max_label, int(plane.max(initial=0)))
        before = plane
    own = np.concatenate(values).astype("<u4") if values else np.zeros(0, "<u4")
    packed = b"".join(symbols) + packer.flush()
    return LabelCode((nz, ny, nx), binning_zyx, packed, zlib.compress(own.tobytes(), 6), max_label)


def fit_labels(
    labels: np.ndarray, voxel_size_zyx: np.ndarray, max_bytes: int, max_voxels: int = MAX_VOXELS
) -> LabelCode | None:
    """Code a label volume with the least binning that stays below a size; None if nothing fits."""
    for binning in binning_candidates(labels.shape, voxel_size_zyx, max_voxels):
        code = encode_labels(labels, binning)
        if code.size <= max_bytes:
            return code
    return None
