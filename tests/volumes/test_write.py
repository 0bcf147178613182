"""write: MRC files that other programs read, with nothing lost and nothing half-written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_transforms.files.whole_files import check_folder, temporary_tag
from custom_transforms.io import (
    atomic_path,
    instance_dtype,
    read_tomogram,
    write_instances,
    write_mrc,
)

SHAPE = (12, 20, 28)
STORED = {"int8": "int8", "int16": "int16", "uint16": "uint16", "float32": "float32", "bool": "int8"}
STORED |= {"uint8": "uint16", "float64": "float32", "float16": "float32", "int64": "int16", "uint32": "int16"}


def phantom(dtype: str = "float32", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 2 if dtype == "bool" else 120, size=shape).astype(dtype)


sizes = st.floats(0.5, 100).filter(lambda size: abs(size - 1) > 1e-3)


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(sorted(STORED)),
    shape=st.tuples(st.integers(2, 6), st.integers(6, 9), st.integers(2, 9)),
    size=st.tuples(sizes, sizes, sizes),
    origin=st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 3),
    nstart=st.tuples(*[st.integers(-1000, 1000)] * 3),
    suffix=st.sampled_from([".mrc", ".rec", ".mrc.gz", ".mrc.bz2"]),
)
@pytest.mark.filterwarnings("ignore:.*not cubes:UserWarning")
def test_written_volumes_are_read_back_the_same(dtype, shape, size, origin, nstart, suffix):
    volume = phantom(dtype, shape)
    volume.flat[0], volume.flat[1] = 0, 1
    before = volume.copy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write_mrc(path, volume, size, origin, nstart, ["a label"])
        loaded, meta = read_tomogram(path)
        assert [entry.name for entry in Path(folder).iterdir()] == [path.name]
        loaded = np.array(loaded)
    assert loaded.dtype == STORED[dtype] and np.array_equal(loaded, volume) and np.array_equal(volume, before)
    np.testing.assert_allclose(meta["voxel_size_zyx"], size, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(meta["origin_xyz"], origin)
    assert tuple(meta["header"]["nstart_xyz"]) == nstart and meta["header"]["labels"] == "a label"


def test_header_is_valid_and_its_statistics_are_right(tmp_path):
    volume = np.random.default_rng(0).normal(1e4, 1, size=(50, 90, 1000)).astype("f4")  # more than one slab
    write_mrc(tmp_path / "a.mrc", volume, (10, 11, 12))
    assert mrcfile.validate(tmp_path / "a.mrc")
    with mrcfile.open(tmp_path / "a.mrc") as mrc:
        header = mrc.header
        assert header.ispg == 1 and (header.mapc, header.mapr, header.maps) == (1, 2, 3)
        assert mrc.voxel_size.tolist() == (12, 11, 10)
        assert header.dmin == volume.min() and header.dmax == volume.max()
        np.testing.assert_allclose(header.dmean, volume.mean(dtype="f8"), rtol=1e-7)
        np.testing.assert_allclose(header.rms, volume.std(dtype="f8"), rtol=1e-5)


@pytest.mark.parametrize(
    ("highest", "lowest", "dtype"),
    [
        (0, 0, "int16"),
        (32_767, 0, "int16"),
        (32_767, -1, "int16"),
        (32_768, 0, "uint16"),
        (65_535, 0, "uint16"),
        (32_768, -1, "float32"),
        (65_536, 0, "float32"),
        (2**24, 0, "float32"),
    ],
)
def test_label_type_follows_the_number_of_ids_and_loses_none(tmp_path, highest, lowest, dtype):
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[0, 0, :4] = highest, max(highest - 1, 0), lowest, min(1, highest)
    assert write_instances(tmp_path / "a.mrc", labels, 10) == instance_dtype(highest, lowest) == dtype
    loaded, _ = read_tomogram(tmp_path / "a.mrc", check="labels")
    assert loaded.dtype == dtype and np.array_equal(loaded, labels)


def test_labels_that_no_type_holds_are_refused(tmp_path):
    labels = np.zeros(SHAPE, dtype=np.int64)
    labels[0, 0, 0] = 2**24 + 1
    text = "instance labels: expected -1 (ignore), 0 (background) and 1 to 16,777,216, got 0 to 16,777,217. Renumber"
    with pytest.raises(ValueError) as caught:
        write_instances(tmp_path / "a.mrc", labels, 10)
    assert str(caught.value).startswith(text)
    with pytest.raises(ValueError, match="expected an integer array, got float32"):
        write_instances(tmp_path / "a.mrc", phantom(), 10)
    with pytest.raises(ValueError, match="integers from 0 to 16,777,217 have no exact MRC type"):
        write_mrc(tmp_path / "a.mrc", labels, 10)
    assert not list(tmp_path.iterdir())


def test_float16_is_written_when_asked_and_only_if_it_fits(tmp_path):
    volume = phantom()
    write_mrc(tmp_path / "a.mrc", volume, 10, dtype="float16")
    loaded, meta = read_tomogram(tmp_path / "a.mrc")
    assert meta["header"]["mode"] == 12 and np.array_equal(loaded, volume)
    volume[0, 0, 0] = 1e6
    with pytest.raises(ValueError, match="values from 0 to 1e\\+06 do not fit float16"):
        write_mrc(tmp_path / "b.mrc", volume, 10, dtype=np.float16)
    with pytest.raises(ValueError, match="expected int8, int16, uint16, float32 or float16 for an MRC file, got int64"):
        write_mrc(tmp_path / "b.mrc", volume, 10, dtype=np.int64)


def test_floats_are_rounded_into_an_integer_type(tmp_path):
    volume = np.array([1.9, -1.9, 0.5, 1.5, 2.4, -0.4]).reshape(1, 2, 3)
    write_mrc(tmp_path / "a.mrc", volume, 10.0, dtype="int16")
    with mrcfile.open(tmp_path / "a.mrc") as file:
        assert file.data.ravel().tolist() == [2, -2, 0, 2, 2, 0]
        assert (file.header.dmin, file.header.dmax) == (-2, 2)


def test_signed_bytes_say_so_in_imods_way(tmp_path):
    write_mrc(tmp_path / "a.mrc", phantom("bool"), 10)
    _, meta = read_tomogram(tmp_path / "a.mrc")
    assert (meta["header"]["imod_stamp"], meta["header"]["imod_flags"], meta["header"]["mode"]) == (1146047817, 1, 0)


@pytest.mark.parametrize("name", ["a.mrc", "a.mrc.gz", "a.mrc.bz2"])
def test_equal_volumes_give_equal_bytes(tmp_path, name):
    for folder in ("one", "two"):
        write_mrc(tmp_path / folder / name, phantom(), 10)
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_shapes_and_voxel_sizes_that_make_no_volume_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a volume \\(Z, Y, X\\) to write, got shape \\(20, 28\\)"):
        write_mrc(tmp_path / "a.mrc", phantom()[0], 10)
    with pytest.raises(ValueError, match="voxel size: expected one or three"):
        write_mrc(tmp_path / "a.mrc", phantom(), 0)
    with pytest.raises(ValueError, match="expected real numbers to write, got complex64"):
        write_mrc(tmp_path / "a.mrc", phantom("complex64"), 10)


def test_failure_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "a.mrc.gz"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        assert temporary.parent == tmp_path and temporary.name.endswith(".mrc.gz") and temporary != target
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


KILLED = """
import os, signal, sys
from pathlib import Path
from custom_transforms.files.whole_files import atomic_path
from custom_transforms.volumes.zarr_write import atomic_folder
from scripts.preparation.folder import staged_folder
folder = Path(sys.argv[1])
with staged_folder(folder), atomic_path(folder / "a.csv") as file, atomic_folder(folder / "b.zarr") as zarr:
    file.write_text("half")
    (zarr / "c").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_leaves_is_swept_at_the_next_writing_and_nothing_else(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=Path(__file__).parents[2], check=False)
    assert len(list(tmp_path.iterdir())) == 3
    living = tmp_path / f".{temporary_tag()}.d.csv"  # of this process
    elsewhere, old = tmp_path / ".0123456789ab.d.csv", tmp_path / ".0123456789ac.d.csv"
    for path in (living, elsewhere, old, tmp_path / ".hidden.csv", tmp_path / ".prepared"):
        path.write_text("x")
    os.utime(old, (0, 0))
    os.utime(tmp_path / ".hidden.csv", (0, 0))
    with atomic_path(tmp_path / "a.csv") as temporary:
        temporary.write_text("whole")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {living.name, elsewhere.name, ".hidden.csv", ".prepared", "a.csv"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_names_the_file_says_what_to_do_and_leaves_the_old_one(tmp_path, number):
    target = tmp_path / "a.csv"
    target.write_bytes(b"old")
    told = f"^{target}: expected room to write it, got '{os.strerror(number)}'. Make room"
    with pytest.raises(OSError, match=told), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise OSError(number, os.strerror(number))
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]
    with pytest.raises(FileNotFoundError), atomic_path(target) as temporary:
        (tmp_path / "none").read_bytes()


def test_a_folder_that_cannot_be_written_to_is_refused_and_one_that_can_is_made(tmp_path, monkeypatch):
    check_folder(tmp_path / "new" / "folder", "--output_dir")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "a.mrc").write_bytes(b"old")
    for wrong in (tmp_path / "a.mrc", tmp_path / "a.mrc" / "folder"):
        with pytest.raises(OSError, match="expected a folder to write to, but a file is in its place. Choose anoth"):
            check_folder(wrong, "--output_dir")

    def refuse(dir):
        raise PermissionError(13, "Permission denied", dir)

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(OSError, match=f"^{tmp_path}: expected a folder .* writing fails: Permission denied. Choose"):
        check_folder(tmp_path, "--scratch_dir")


def test_existing_file_is_replaced_only_if_allowed(tmp_path):
    write_mrc(tmp_path / "a.mrc", phantom(), 10)
    with pytest.raises(ValueError, match="a.mrc: exists already. Give another name, or --overwrite to replace it."):
        write_mrc(tmp_path / "a.mrc", phantom(), 10, overwrite=False)
    write_mrc(tmp_path / "a.mrc", phantom() + 1, 10)
    assert np.array_equal(read_tomogram(tmp_path / "a.mrc")[0], phantom() + 1)
