"""load: what is bad is refused in words, what is doubtful is told."""

from __future__ import annotations

import bz2
import gzip

import numpy as np
import pytest

from custom_transforms.volumes.mrc_read import mrc_geometry
from tests.volumes.volume_files import (
    IMOD_FIELDS,
    MACHINE_STAMP,
    MAP_MARK,
    SHAPE,
    patch,
    phantom,
    refusal,
    save,
    warned,
)

# what is bad is refused


def test_truncated_mrc_is_refused_with_the_bytes(tmp_path):
    path = save(tmp_path / "a.mrc", phantom())
    path.write_bytes(path.read_bytes()[:-13440])
    assert refusal(path) == (
        "the file is truncated: expected 26,880 bytes for 12 x 20 x 28 voxels (Z, Y, X) of float32, got 13,440. "
        "Copy or reconstruct it again."
    )


def test_an_extended_header_that_is_not_there_is_named(tmp_path):
    path = save(tmp_path / "a.mrc", phantom(), nsymbt=4096)
    assert refusal(path) == (
        "the header declares an extended header of 4,096 bytes (nsymbt), which is not there: the file holds the header "
        "and 26,880 bytes of voxels, no more. Set nsymbt to 0, or write it again."
    )
    path = save(tmp_path / "b.mrc", phantom(), nsymbt=2**31 - 1)
    path.write_bytes(path.read_bytes()[:20000])
    assert "an extended header of 2,147,483,647 bytes (nsymbt), but the file ends before it does" in refusal(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["cella", "cellb", "origin"])
def test_header_values_that_are_no_numbers_are_refused(tmp_path, field, value):
    path = save(tmp_path / "a.mrc", phantom())
    patch(path, {"cella": 40, "cellb": 52, "origin": 196}[field] + 4, np.float32(value).tobytes())
    for options in ({}, {"voxel_size": 10.0}):
        assert f"expected finite numbers in the header, got {field} " in refusal(path, **options)


@pytest.mark.parametrize("module", [gzip, bz2])
def test_truncated_compressed_mrc_is_refused(tmp_path, module):
    content = module.compress(save(tmp_path / "a.mrc", phantom(shape=(40, 60, 80))).read_bytes())
    path = tmp_path / f"b.mrc.{'gz' if module is gzip else 'bz2'}"
    path.write_bytes(content[: len(content) // 2])
    assert "truncated" in refusal(path) or "cannot be decompressed" in refusal(path)


@pytest.mark.parametrize("module", [gzip, bz2])
@pytest.mark.parametrize("damage", ["cut", "other bytes"])
def test_what_cannot_be_decompressed_is_left_to_the_reader_by_the_plan(tmp_path, module, damage):
    content = module.compress(save(tmp_path / "a.mrc", phantom()).read_bytes())
    path = tmp_path / f"b.mrc.{'gz' if module is gzip else 'bz2'}"
    path.write_bytes(content[:60] if damage == "cut" else content[:30] + b"\x55" * 300)
    assert mrc_geometry(path) is None
    assert any(word in refusal(path) for word in ("is truncated: its end", "cannot be decompressed, it is damaged ("))


def test_text_file_named_mrc_is_refused(tmp_path):
    path = tmp_path / "a.mrc"
    path.write_text("<html><body>404 not found</body></html>\n" * 100)
    assert refusal(path) == (
        'expected an MRC volume, got a text file (it begins "<html><body>404 not found</body></html>"). '
        "Give the tomogram; a download may have saved an error page instead."
    )
    path.write_text("Größe\n" * 300, encoding="utf-8")
    assert refusal(path).startswith('expected an MRC volume, got a text file (it begins "Größe")')
    path.write_bytes(b"")
    assert refusal(path).startswith("expected an MRC volume, got a file of 0 bytes, shorter than an MRC header")


def test_other_bytes_named_mrc_are_refused(tmp_path):
    path = tmp_path / "a.mrc"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    assert refusal(path).startswith('expected an MRC volume, but its header has no "MAP" mark and its sizes make no')


def test_complex_and_unknown_modes_are_refused(tmp_path):
    path = save(tmp_path / "a.mrc", phantom("complex64"))
    assert refusal(path).startswith("expected real values (MRC modes 0, 1, 2, 6, 12), got mode 4, complex numbers.")
    path = save(tmp_path / "a.mrc", phantom(), mode=101)
    assert refusal(path).startswith("expected MRC mode 0, 1, 2, 6 or 12, got unknown mode 101. Convert it")


def test_2d_image_is_refused(tmp_path):
    text = (
        "expected a volume (Z, Y, X) with at least 2 voxels on every axis, got a 2D image (1 x 20 x 28). Give the "
        "reconstructed tomogram, not a micrograph or a single slice."
    )
    assert refusal(save(tmp_path / "a.mrc", phantom()[0])) == text


@pytest.mark.parametrize("suffix", [".st", ".ali", ".mrcs"])
def test_tilt_series_is_refused(tmp_path, suffix):
    path = save(tmp_path / "a.mrc", phantom()).rename(tmp_path / f"a{suffix}")
    assert refusal(path) == (
        f"expected a reconstructed tomogram, got a tilt series or image stack ({suffix}). Give the reconstruction, "
        "usually .rec or .mrc; rename the file if it is one."
    )


def test_nan_and_inf_are_refused_with_their_count_or_filled(tmp_path):
    volume = phantom()
    volume[3, 4, 5], volume[0, 0, 0], volume[11, 19, 27] = np.nan, np.inf, -np.inf
    path = save(tmp_path / "a.mrc", volume)
    before = path.read_bytes()
    assert refusal(path) == (
        "expected finite values, got 3 voxels that are NaN or Inf (of 6,720). Reconstruct it again, or give "
        "--fill_nonfinite to put the mean of the others there."
    )
    loaded, _, told = warned(path, fill_nonfinite=True)
    good = np.isfinite(volume)
    np.testing.assert_allclose(loaded[~good], volume[good].mean(dtype="f8"), rtol=1e-5)
    assert np.array_equal(loaded[good], volume[good]) and path.read_bytes() == before
    assert told == ["3 voxels that are NaN or Inf were replaced by the mean of the others."]


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_constant_volume_is_refused(tmp_path, dtype):
    path = save(tmp_path / "a.mrc", np.full(SHAPE, 3, dtype=dtype))
    assert refusal(path) == (
        "expected a tomogram, got a constant volume (every voxel is 3). Its reconstruction or copy went wrong."
    )


@pytest.mark.parametrize(
    ("voxel_size", "reason"),
    [
        (0.0, "its MRC header has none (0)"),
        (1.0, "its header says exactly 1.0 Å, which programs write when they do not know it"),
    ],
)
def test_voxel_size_0_or_exactly_1_is_refused_unless_given(tmp_path, voxel_size, reason):
    path = save(tmp_path / "a.mrc", phantom(), voxel_size=voxel_size)
    assert refusal(path) == (
        f"expected the tomogram's voxel size in Å, but {reason}. Give it on the command line, for example "
        "--voxel_size 10."
    )
    _, meta, told = warned(path, voxel_size=(8, 9, 9.05))
    assert meta["voxel_size_zyx"].tolist() == [8, 9, 9.05]
    assert told[0].startswith("the voxels are not cubes, 8 x 9 x 9.05 Å along Z, Y, X.")


def test_missing_file_folder_and_unknown_suffix_are_told(tmp_path):
    assert refusal(tmp_path / "none.mrc") == "no such file. Check the path."
    assert refusal(tmp_path).startswith("expected a tomogram file, got a folder.")
    (tmp_path / "a.png").write_bytes(b"x")
    assert refusal(tmp_path / "a.png").startswith("expected a name that ends in .mrc, .rec, .map,")


# what is doubtful is told


def test_override_of_another_header_size_is_told(tmp_path):
    _, meta, told = warned(save(tmp_path / "a.mrc", phantom(), voxel_size=13.48), voxel_size=10)
    assert told == ["the given voxel size 10 Å replaces the 13.48 Å of its header."]
    assert meta["voxel_size_zyx"].tolist() == [10, 10, 10]


def test_missing_machine_stamp_is_told(tmp_path):
    path = patch(save(tmp_path / "a.mrc", phantom()), MACHINE_STAMP, bytes(4))
    loaded, _, told = warned(path)
    assert np.array_equal(loaded, phantom())
    assert told == [
        "the header has no machine stamp (0x00 0x00 0x00 0x00); its sizes make sense as little-endian, so it was "
        "read like that."
    ]


def test_wrong_machine_stamp_is_told(tmp_path):
    path = patch(save(tmp_path / "a.mrc", phantom()), MACHINE_STAMP, b"\x11\x11\0\0")
    loaded, _, told = warned(path)
    assert np.array_equal(loaded, phantom())
    assert told == ["the machine stamp tells the wrong byte order; the other one makes sense and was used."]


def test_old_file_without_map_mark_is_read_if_its_size_fits(tmp_path):
    path = patch(save(tmp_path / "a.mrc", phantom()), MAP_MARK, bytes(8))
    loaded, _, told = warned(path)
    assert np.array_equal(loaded, phantom())
    assert told[0] == 'the header has no "MAP" mark (old MRC?); its size fits, so it was read all the same.'


def test_longer_file_is_told(tmp_path):
    path = save(tmp_path / "a.mrc", phantom())
    path.write_bytes(path.read_bytes() + b"12345")
    assert warned(path)[2] == ["the file is 5 bytes longer than its header says; they were ignored."]


def test_y_thinner_than_z_is_told(tmp_path):
    path = save(tmp_path / "a.mrc", phantom(shape=(20, 12, 28)))
    assert warned(path)[2][0].startswith("y is thinner than z (12 < 20 voxels). An IMOD reconstruction that was not")


def test_sign_of_bytes_follows_imod_flag_then_statistics_then_option(tmp_path):
    raw = phantom("int8")  # has negative values, so the readings differ
    path = save(tmp_path / "a.mrc", raw)
    assert np.array_equal(warned(path)[0], raw) and not warned(path)[2]  # dmin < 0: signed
    patch(path, 76, np.array([0, 255], dtype="<f4").tobytes())  # dmin, dmax
    loaded, _, told = warned(path)
    assert np.array_equal(loaded, raw.view(np.uint8))
    assert told == [
        "the header does not tell whether its bytes (mode 0) are signed; taken as unsigned. "
        "If the picture looks wrong, give --signed true."
    ]
    assert np.array_equal(warned(path, signed=True)[0], raw) and not warned(path, signed=True)[2]
    patch(path, IMOD_FIELDS, np.array([1146047817, 1], dtype="<i4").tobytes())
    assert np.array_equal(warned(path)[0], raw) and not warned(path)[2]
    patch(path, IMOD_FIELDS, np.array([1146047817, 0], dtype="<i4").tobytes())
    patch(path, 76, np.array([0, -1], dtype="<f4").tobytes())  # undetermined
    assert np.array_equal(warned(path)[0], raw.view(np.uint8)) and "taken as unsigned" in warned(path)[2][0]
