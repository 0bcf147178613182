"""Work on a volume in slabs, on several threads, with results that do not depend on how many there are.

Compiled kernels release Python's lock, so plain threads run them side by side. Each kernel call writes
only where no other call of the same round writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

__all__ = ["as_float_volume", "run_parallel", "slab_bounds", "squared_axis_weights", "thread_count"]


def thread_count() -> int:
    """How many threads work on a volume: as many as PyTorch has, all cores or ``OMP_NUM_THREADS``.

    Not ``numba.get_num_threads()``: asked for the first time, it sets PyTorch's threads to all cores, and on a machine
    that others use, too, networks then train several times as slowly.
    """
    return torch.get_num_threads()


def run_parallel(function: Callable[..., Any], jobs: Iterable[tuple]) -> list:
    """Call ``function(*job)`` for every job and return the results in the order of the jobs.

    As many threads as `thread_count` says.

    Examples
    --------
    >>> run_parallel(lambda a, b: a + b, [(1, 2), (3, 4)])
    [3, 7]
    """
    listed = list(jobs)
    threads = min(thread_count(), len(listed))
    if threads <= 1:
        return [function(*job) for job in listed]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda job: function(*job), listed))


def slab_bounds(length: int, thickness: int = 16) -> list[tuple[int, int]]:
    """Cut ``range(length)`` into slabs; the cut never depends on the number of threads.

    Examples
    --------
    >>> slab_bounds(40)
    [(0, 16), (16, 32), (32, 40)]
    """
    return [(first, min(first + thickness, length)) for first in range(0, length, thickness)]


def as_float_volume(volume: np.ndarray, name: str) -> np.ndarray:
    """Give a map the one form that the compiled kernels read: (Z, Y, X), float32, C order.

    Parameters
    ----------
    volume : ndarray, shape (Z, Y, X)
        float32 comes back as it is (no copy); other types, float16 too, are copied to float32.
    name : str
        What the map is called in the error.

    Raises
    ------
    ValueError
        If the array does not have three axes.
    """
    array = np.asarray(volume)
    if array.ndim != 3:
        raise ValueError(f"{name}: expected an array with axes (Z, Y, X), got shape {array.shape}. Pass one volume.")
    return np.ascontiguousarray(array, dtype=np.float32)


def squared_axis_weights(voxel_size_zyx: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights that turn squared index differences into squared distances, in units of the smallest voxel side.

    With cubic voxels the weights are exactly 1, so squared distances are whole numbers and ties are true ties.

    Parameters
    ----------
    voxel_size_zyx : ndarray, shape (3,)
        Å per voxel along Z, Y, X.

    Returns
    -------
    weights : ndarray, shape (3,), float64
        ``(voxel size / smallest voxel size) ** 2`` per axis.
    unit : float
        The smallest voxel size in Å.

    Examples
    --------
    >>> squared_axis_weights(np.array([20.0, 10.0, 10.0]))
    (array([4., 1., 1.]), 10.0)
    """
    sizes = np.asarray(voxel_size_zyx, dtype=np.float64)
    unit = float(sizes.min())
    return (sizes / unit) ** 2, unit
