"""The chunk files of a Zarr array: which are there, which were cut, which cannot be decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["check_chunks", "first_damaged", "stores_empty_chunks"]

MOST_FILES = 5_000_000
BLOSC_HEADER = 16  # bytes; the last four are the length of the whole, which blosc itself does not compare


def check_chunks(path: Path, array: Any) -> tuple[int, int]:
    """Look at the files of all chunks, without decoding them.

    Returns
    -------
    missing, all : int
        How many are not stored, and how many there should be.

    Raises
    ------
    ValueError
        If one was cut, or there should be too many; names the chunk.
    """
    missing, count = 0, int(np.prod(_grid(array), dtype=object))
    if count > MOST_FILES:
        raise ValueError(
            f"{path}: its metadata declare {count:,} chunks, which is no file that can be read. They are damaged, or "
            "it is to be written again with larger chunks."
        )
    cut_by_blosc = _is_blosc(array)
    for key, file, _ in _chunks(array):
        if not file.is_file():
            missing += 1
        elif cut_by_blosc and (there := file.stat().st_size) != (declared := _blosc_length(file)):
            raise ValueError(
                f"{path}: its chunk {key} is damaged: expected {declared:,} bytes, got {there:,}. Copy it again."
            )
    return missing, count


def stores_empty_chunks(array: Any, values: np.ndarray) -> bool:
    """Tell whether a chunk of nothing is stored: then one that is not there was lost, not left out.

    ``values`` are the whole array, with its own axes.
    """
    empty = np.asarray(array.fill_value, dtype=values.dtype)
    return any(file.is_file() and (values[region] == empty).all() for _, file, region in _chunks(array))


def first_damaged(array: Any) -> tuple[str, str]:
    """Find the first chunk that cannot be decoded; gives its name and the reason, or "" twice."""
    for key, _, region in _chunks(array):
        try:
            array[region]
        except Exception as error:  # every codec raises its own kinds
            return key, " ".join(str(error).split())
    return "", ""


def _grid(array: Any) -> list[int]:
    sides = getattr(array, "shards", None) or array.chunks  # a file holds one shard, or one chunk
    return [-(-length // side) for length, side in zip(array.shape, sides, strict=True)]


def _chunks(array: Any) -> Iterator[tuple[str, Path, tuple[slice, ...]]]:
    """Name, file and place of every chunk."""
    sides, folder = getattr(array, "shards", None) or array.chunks, Path(array.store.root) / array.path
    for place in np.ndindex(*_grid(array)):
        key = array.metadata.encode_chunk_key(place)
        yield key, folder / key, tuple(slice(at * side, (at + 1) * side) for at, side in zip(place, sides, strict=True))


def _is_blosc(array: Any) -> bool:
    codecs = array.compressors
    return bool(codecs) and "blosc" in type(codecs[-1]).__name__.lower() and not getattr(array, "shards", None)


def _blosc_length(file: Path) -> int:
    with open(file, "rb") as stream:
        head = stream.read(BLOSC_HEADER)
    return struct.unpack("<I", head[12:])[0] if len(head) == BLOSC_HEADER else BLOSC_HEADER
