"""Compressed files, read to their end: only there stands the checksum of what was read."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from custom_transforms.files.limits import check_memory
from custom_transforms.volumes.slabs import slabs

__all__ = ["check_damage", "check_end", "naming_damage", "open_compressed", "read_compressed"]

DEFLATE_RATIO = 1032  # no gzip file holds more bytes for one of its own
LONGEST_REST = 2**24  # bytes after the volume; more of them are a file that is not what its header says
LONGEST_SKIPPED = 2**28  # bytes before it
PIECE = 2**20


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn what the decompressors raise into one error of ours."""
    try:
        yield
    except EOFError as error:
        raise ValueError(
            f"{path}: the compressed file is truncated: its end, with the checksum, is missing. Copy it again."
        ) from error
    except (OSError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be decompressed, it is damaged ({error}). Copy it again.") from error


def open_compressed(path: Path) -> BinaryIO | None:
    """Open a gzip or bzip2 file, recognised by its first bytes, to read what is in it; None for other files."""
    with open(path, "rb") as stream:
        magic = stream.read(3)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(path)  # type: ignore[return-value]
    return bz2.open(path) if magic == b"BZh" else None  # type: ignore[return-value]


def read_compressed(path: Path, stream: BinaryIO, dtype: np.dtype, shape: tuple[int, ...], skipped: int) -> np.ndarray:
    """Read a volume from a compressed stream, and on to the stream's end.

    Parameters
    ----------
    path : Path
        For the messages, and the size of the file.
    stream : file
        As `open_compressed` gives it.
    dtype, shape
        Of the volume.
    skipped : int
        Bytes between the stream's place and the volume.

    Raises
    ------
    EOFError
        If a whole stream holds less than the volume; says how many bytes of it are there.
    ValueError
        If it is damaged or cut, or cannot hold the volume, or memory cannot.
    """
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    most = DEFLATE_RATIO * path.stat().st_size
    if skipped > LONGEST_SKIPPED or (isinstance(stream, gzip.GzipFile) and skipped + needed > most):
        raise ValueError(
            f"{path}: its header declares {skipped + needed:,} bytes, which a compressed file of "
            f"{path.stat().st_size:,} bytes cannot hold. The header is damaged: copy it again."
        )
    check_memory(path, shape, dtype)
    volume = np.empty(shape, dtype=dtype)
    with naming_damage(path):
        read = _fill(volume, stream, skipped)
    if read < volume.nbytes:
        raise EOFError(read)
    return volume


def _fill(volume: np.ndarray, stream: BinaryIO, skipped: int) -> int:
    """Read the volume behind the skipped bytes; returns the bytes of it that were there."""
    read = 0
    while skipped > 0 and (part := stream.read(min(PIECE, skipped))):
        skipped -= len(part)
    for slab in slabs(volume):
        target = memoryview(slab.reshape(-1).view(np.uint8).data)
        while len(target):
            count = stream.readinto(target)  # type: ignore[attr-defined]
            if not count:
                return read
            read, target = read + count, target[count:]
    return read


def check_end(path: Path, stream: BinaryIO) -> int:
    """Read what is left of a compressed stream, so that its checksums are compared; return how many bytes that were.

    Raises
    ------
    ValueError
        If a checksum differs, the end is missing, or more than 16 MiB are left.
    """
    rest = check_damage(path, stream)
    if rest > LONGEST_REST:
        raise ValueError(
            f"{path}: holds over {LONGEST_REST:,} bytes more than its header declares. The header is damaged, or it is "
            "another file: copy or write it again."
        )
    return rest


def check_damage(path: Path, stream: BinaryIO) -> int:
    """As `check_end`, but what is left may be long; little more than 16 MiB of it are read."""
    rest = 0
    with naming_damage(path):
        while rest <= LONGEST_REST and (part := stream.read(PIECE)):
            rest += len(part)
    return rest
