"""Shared by the tests of load: small volume files, and the messages that reading them gives."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from custom_transforms.io import metadata_warnings, read_tomogram

SHAPE = (12, 20, 28)
MACHINE_STAMP, MAP_MARK, IMOD_FIELDS = 212, 208, 152  # byte offsets in an MRC header


def phantom(dtype: str = "float32", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    values = np.random.default_rng(1).normal(0, 30, size=shape)
    return values.round().clip(-100, 100).astype(dtype) if np.dtype(dtype).kind == "i" else values.astype(dtype)


def save(path: Path, volume: np.ndarray, voxel_size: float = 10.0, **header: Any) -> Path:
    """Write with mrcfile, so that the reader is not tested against our own writer."""
    with mrcfile.new(path, volume, overwrite=True) as mrc:
        mrc.voxel_size = voxel_size
        for name, value in header.items():
            mrc.header[name] = value
    return path


def patch(path: Path, offset: int, content: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(bytes(data))
    return path


def refusal(path: Path, **options: Any) -> str:
    """The message of the error, without the path."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        read_tomogram(path, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text.removeprefix(f"{path}: ")


def warned(path: Path, **options: Any) -> tuple[np.ndarray, dict, list[str]]:
    """Volume, metadata and the warnings, which are issued and kept alike."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        volume, meta = read_tomogram(path, **options)
    assert [str(w.message) for w in caught] == metadata_warnings(meta)
    assert all(w.category is UserWarning for w in caught)
    return volume, meta, [str(w.message).removeprefix(f"{path}: ") for w in caught]
