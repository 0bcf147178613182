"""Walk through a large volume in small views, so that no temporary is as large as the volume."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ["chunks", "mean_and_deviation", "moments", "slabs", "value_range"]

SLAB_BYTES = 16 * 2**20
CHUNK_VOXELS = 2**18  # in double precision this stays in the processor's cache


def slabs(volume: np.ndarray) -> Iterator[np.ndarray]:
    """Cut a volume into views of consecutive first-axis planes of about 16 MiB each (at least one plane)."""
    plane_bytes = max(1, volume[:1].nbytes)
    depth = max(1, SLAB_BYTES // plane_bytes)
    for start in range(0, len(volume), depth):
        yield volume[start : start + depth]


def value_range(volume: np.ndarray) -> tuple[float, float]:
    """Give the lowest and highest value, slab by slab; integers stay exact integers, and any NaN gives NaN."""
    if volume.dtype.kind == "b":
        return 0, 1
    bounds = np.array([(slab.min(), slab.max()) for slab in slabs(volume)])
    return bounds[:, 0].min().item(), bounds[:, 1].max().item()


def mean_and_deviation(volume: np.ndarray) -> tuple[float, float]:
    """Give mean and standard deviation (of the population) in double precision, in one pass and small pieces.

    Parameters
    ----------
    volume : ndarray, any shape, real, at least one value
        Only read.

    Returns
    -------
    tuple of float
        Mean, deviation; NaN where the values are not finite.
    """
    return moments(volume, -np.inf, np.inf)[:2]


def moments(volume: np.ndarray, lowest: float, highest: float) -> tuple[float, float, int]:
    """`mean_and_deviation` of the values from ``lowest`` to ``highest``, and how many finite ones lie outside.

    Where none does, mean and deviation are, to the last bit, those of all.
    """
    count, outside, mean, squares = 0, 0, 0.0, 0.0
    with np.errstate(invalid="ignore"):
        for chunk in chunks(volume):
            part = chunk.astype(np.float64).reshape(-1)
            if part.min() < lowest or part.max() > highest:
                extreme = ((part < lowest) | (part > highest)) & np.isfinite(part)
                outside += int(extreme.sum())
                part = part[~extreme]
            if part.size == 0:
                continue
            part_mean = float(part.mean())
            part -= part_mean
            # Chan's rule: joins the sums of squares of two samples without the cancellation of E[x^2] - E[x]^2
            total, shift = count + part.size, part_mean - mean
            # not `part @ part`, whose last bits depend on the number of threads
            squares += float(np.square(part, out=part).sum()) + shift * shift * count * part.size / total
            mean, count = mean + shift * part.size / total, total
    return mean, float(np.sqrt(squares / count)) if count else np.nan, outside


def chunks(volume: np.ndarray) -> Iterator[np.ndarray]:
    """Cut any array into views of at most `CHUNK_VOXELS` values (one row of the last axis at least)."""
    if volume.size <= CHUNK_VOXELS or volume.ndim == 1:
        for start in range(0, len(volume) if volume.ndim else 0, CHUNK_VOXELS):
            yield volume[start : start + CHUNK_VOXELS]
        return
    per_entry = volume[0].size
    if per_entry > CHUNK_VOXELS:
        for entry in volume:
            yield from chunks(entry)
        return
    step = CHUNK_VOXELS // per_entry
    for start in range(0, len(volume), step):
        yield volume[start : start + step]
