"""Compressed volumes: a flipped bit is never read as other data, and what a header declares is not believed."""

from __future__ import annotations

import bz2
import gzip
import random

import nibabel
import numpy as np
import pytest
import tifffile

from custom_transforms.files import limits
from custom_transforms.io import read_tomogram
from tests.volumes.volume_files import phantom, refusal, save, warned

FLIPS = 60
MODULES = {"gz": gzip, "bz2": bz2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a compressed file of each format; all hold `phantom`."""
    folder = tmp_path_factory.mktemp("whole")
    mrc = save(folder / "a.mrc", phantom()).read_bytes()
    nibabel.save(nibabel.Nifti1Image(phantom().T, np.diag([10, 10, 10, 1])), folder / "a.nii")
    tifffile.imwrite(folder / "a.tif", phantom(), compression="zlib")
    return {
        ".mrc.gz": gzip.compress(mrc),
        ".mrc.bz2": bz2.compress(mrc),
        ".nii.gz": gzip.compress((folder / "a.nii").read_bytes()),
        ".tif": (folder / "a.tif").read_bytes(),
    }


@pytest.mark.parametrize("ending", [".mrc.gz", ".mrc.bz2", ".nii.gz", ".tif"])
def test_a_flipped_bit_is_an_error_or_changes_nothing(tmp_path, whole, ending):
    rng, path, same = random.Random(0), tmp_path / f"a{ending}", 0
    for _ in range(FLIPS):
        content = bytearray(whole[ending])
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(content))
        try:
            volume, _ = read_tomogram(path, voxel_size=10)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            same += 1
            assert np.array_equal(volume, phantom()), "other data without a word"
    assert same < FLIPS / 4  # in the few bytes that are not of the data: names, dates, tags


@pytest.mark.parametrize("ending", ["gz", "bz2"])
def test_a_wrong_or_missing_checksum_is_named(tmp_path, whole, ending):
    content, path = whole[f".mrc.{ending}"], tmp_path / f"a.mrc.{ending}"
    at = -8 if ending == "gz" else len(content) // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at:][1:])
    assert refusal(path).startswith("cannot be decompressed, it is damaged (")
    path.write_bytes(content[:-4])
    assert "truncated" in refusal(path)


@pytest.mark.parametrize("ending", ["gz", "bz2"])
def test_bytes_after_the_volume_are_told_and_many_are_refused(tmp_path, ending):
    mrc, path = save(tmp_path / "a.mrc", phantom()).read_bytes(), tmp_path / f"a.mrc.{ending}"
    path.write_bytes(MODULES[ending].compress(mrc + b"12345"))
    volume, _, told = warned(path)
    assert np.array_equal(volume, phantom())
    assert told == ["it holds 5 bytes more than its header says; they were ignored."]
    path.write_bytes(MODULES[ending].compress(mrc + bytes(2**25)))
    assert refusal(path).startswith("holds over 16,777,216 bytes more than its header declares.")


@pytest.mark.parametrize("ending", ["gz", "bz2"])
@pytest.mark.parametrize("field", ["nx", "nsymbt"])
def test_sizes_that_the_file_cannot_hold_are_refused_before_memory_is_taken(tmp_path, monkeypatch, ending, field):
    monkeypatch.setattr(limits, "available_memory", lambda: 2**20)
    path = tmp_path / f"a.mrc.{ending}"
    path.write_bytes(MODULES[ending].compress(save(tmp_path / "a.mrc", phantom(), **{field: 99_999}).read_bytes()))
    if field == "nsymbt":
        assert refusal(path).startswith("the file is truncated: expected 26,880 bytes")
    elif ending == "gz":
        assert refusal(path).startswith("its header declares 95,999,040 bytes, which a compressed file of ")
    else:
        said = (
            "it declares 12 x 20 x 99999 voxels of float32. Reading and using it takes 0.2 GiB, and 0.0 GiB of memory"
        )
        assert refusal(path).startswith(said)
    path.write_bytes(MODULES[ending].compress(save(tmp_path / "a.mrc", phantom(), nsymbt=2**31 - 1).read_bytes()))
    assert refusal(path).startswith("its header declares 2,147,510,527 bytes, which a compressed file of ")
