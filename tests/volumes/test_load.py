"""load: every format lands as (Z, Y, X) with its voxel size, alone and through MONAI."""

from __future__ import annotations

import bz2
import gzip
import warnings
from typing import Any

import mrcfile
import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, LoadImaged

from custom_transforms.io import LoadTomogramd, TomogramReader, read_tomogram
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

# what is good arrives as it is


@pytest.mark.parametrize(("dtype", "mode"), [("int8", 0), ("int16", 1), ("float32", 2), ("uint16", 6), ("float16", 12)])
@pytest.mark.parametrize("name", ["a.mrc", "a.rec", "a.map", "a.mrc.gz", "a.mrc.bz2"])
def test_every_mode_and_suffix_keeps_values_and_axis_order(tmp_path, dtype, mode, name):
    volume = np.abs(phantom("int16")).astype(dtype) if dtype == "uint16" else phantom(dtype)
    plain = save(tmp_path / "plain.mrc", volume)
    opener: Any = {"gz": gzip.open, "z2": bz2.open}.get(name[-2:], open)
    with opener(tmp_path / name, "wb") as stream:
        stream.write(plain.read_bytes())
    loaded, meta, told = warned(tmp_path / name)
    assert loaded.dtype == volume.dtype and np.array_equal(loaded, volume)
    assert meta["header"]["mode"] == mode and not told
    assert isinstance(loaded, np.memmap) == (name in ("a.mrc", "a.rec", "a.map"))


def test_metadata_has_voxel_size_origin_nstart_and_affine_in_their_orders(tmp_path):
    path = save(tmp_path / "a.mrc", phantom(), nxstart=-3, nystart=4, nzstart=5)
    with mrcfile.open(path, mode="r+") as mrc:
        mrc.voxel_size = (10.0, 10.05, 10.02)  # x, y, z; under 1 % apart: no warning
        mrc.header.origin = (1.0, 2.0, 3.0)
        mrc.add_label("made by a test")
    _, meta, told = warned(path)
    np.testing.assert_allclose(meta["voxel_size_zyx"], [10.02, 10.05, 10.0], atol=1e-5)
    assert meta["origin_xyz"].tolist() == [1, 2, 3] and meta["header"]["nstart_xyz"].tolist() == [-3, 4, 5]
    np.testing.assert_allclose(meta["affine"] @ [1, 0, 0, 1], [13.02, 2, 1, 1], atol=1e-5)
    assert "made by a test" in meta["header"]["labels"] and meta["filename_or_obj"] == str(path)
    assert tuple(meta["spatial_shape"]) == SHAPE and not told


def test_big_endian_files_are_read(tmp_path):
    path = save(tmp_path / "a.mrc", phantom().astype(">f4"))
    loaded, meta, _ = warned(path)
    assert meta["header"]["byte_order"] == "big" and loaded.dtype.isnative
    assert np.array_equal(loaded, phantom()) and not isinstance(loaded, np.memmap)
    raw = phantom("int8")
    patch(save(path, raw), 0, np.frombuffer(path.read_bytes()[:1024], dtype="<i4").astype(">i4").tobytes())
    patch(path, MAP_MARK, b"MAP \x11\x11\0\0")
    patch(path, IMOD_FIELDS, np.array([1146047817, 1], dtype=">i4").tobytes())
    loaded, meta, told = warned(path)
    assert np.array_equal(loaded, raw) and meta["header"]["imod_flags"] == 1 and not told


def test_the_plan_reads_the_header_in_the_byte_order_of_the_reader(tmp_path):
    """256 is 65,536 in the other byte order, which would make sense, too."""
    path = save(tmp_path / "a.mrc", phantom().astype(">f4"))
    patch(path, 0, np.full(3, 256, ">i4").tobytes())
    assert mrc_geometry(path)[0] == (256, 256, 256)
    patch(path, MACHINE_STAMP, bytes(4))  # a doubt, of which the reader tells
    patch(path, 0, np.array(SHAPE[::-1], ">i4").tobytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mrc_geometry(path)[0] == SHAPE
    assert mrc_geometry(patch(path, 40, np.full(3, np.inf, ">f4").tobytes()))[1].tolist() == [0, 0, 0]


def test_extended_header_is_skipped(tmp_path):
    path = save(tmp_path / "a.mrc", phantom())
    with mrcfile.open(path, mode="r+") as mrc:
        mrc.set_extended_header(np.full(3000, 7, dtype="u1"))
    loaded, _, told = warned(path)
    assert np.array_equal(loaded, phantom()) and not told


def test_in_place_operations_change_neither_the_file_nor_crash(tmp_path):
    path = save(tmp_path / "a.mrc", phantom())
    before = path.read_bytes()
    loaded = LoadTomogramd("image")({"image": path})["image"]
    assert isinstance(loaded, MetaTensor) and loaded.dtype == torch.float32 and loaded.shape == (1, *SHAPE)
    loaded.mul_(0).add_(3)
    volume, _ = read_tomogram(path)
    volume[:] = 7
    assert path.read_bytes() == before and np.array_equal(read_tomogram(path)[0], phantom())


def test_loading_float32_does_not_copy(tmp_path, monkeypatch):
    opened = []

    class Recorded(np.memmap):
        def __array_finalize__(self, source):
            super().__array_finalize__(source)
            opened.append(self)

    monkeypatch.setattr(np, "memmap", Recorded)
    path = save(tmp_path / "a.mrc", phantom())
    tensor = LoadTomogramd("image")({"image": path})["image"]
    assert opened[0].mode == "c" and tensor.data_ptr() == opened[0].__array_interface__["data"][0]


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 2, 1), (2, 1, 3), (1, 3, 2), (2, 3, 1), (3, 1, 2)])
def test_map_axes_are_transposed_to_zyx(tmp_path, axes):
    truth = phantom()  # (Z, Y, X)
    size = {1: 10.0, 2: 20.0, 3: 30.0}  # of x, y, z: belongs to the axis, not to the column
    stored = truth.transpose([{3: 0, 2: 1, 1: 2}[axis] for axis in reversed(axes)])
    path = save(tmp_path / "a.mrc", np.ascontiguousarray(stored))
    with mrcfile.open(path, mode="r+") as mrc:
        header = mrc.header
        header.mapc, header.mapr, header.maps = axes
        header.nxstart, header.nystart, header.nzstart = [100 * axis for axis in axes]
        header.mx, header.my, header.mz = SHAPE[::-1]
        header.cella = tuple(size[axis] * SHAPE[3 - axis] for axis in (1, 2, 3))
    loaded, meta, told = warned(path)
    assert np.array_equal(loaded, truth) and loaded.flags.c_contiguous
    assert meta["voxel_size_zyx"].tolist() == [30, 20, 10]
    assert meta["header"]["nstart_xyz"].tolist() == [100, 200, 300]
    shape, voxel_size_zyx = mrc_geometry(path)
    assert shape == SHAPE and voxel_size_zyx.tolist() == [30, 20, 10]
    assert any("not [1, 2, 3]; the volume was transposed to (Z, Y, X)" in text for text in told) == (axes != (1, 2, 3))


def test_tiff_pages_are_z_and_need_a_voxel_size(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, phantom())
    assert refusal(path) == (
        "expected the tomogram's voxel size in Å, but TIFF stores none. Give it on the command line, for example "
        "--voxel_size 10."
    )
    loaded, meta, _ = warned(path, voxel_size=40)
    assert np.array_equal(loaded, phantom()) and isinstance(loaded, np.memmap) and loaded.mode == "c"
    assert meta["voxel_size_zyx"].tolist() == [40, 40, 40]
    tifffile.imwrite(path, phantom("int16").astype(">i2"), compression="zlib")
    assert np.array_equal(read_tomogram(path, voxel_size=40)[0], phantom("int16"))


@pytest.mark.parametrize(
    ("unit", "per_angstrom"), [("nm", 0.1), ("micron", 1e-4), ("\\u00B5m", 1e-4), ("mm", 1e-7), ("angstrom", 1.0)]
)
def test_imagej_says_the_voxel_size_of_a_tiff(tmp_path, unit, per_angstrom):
    path = tmp_path / "a.tif"
    z, y, x = (size * per_angstrom for size in (30.0, 20.0, 10.0))
    described = {"spacing": z, "unit": unit, "axes": "ZYX"}
    tifffile.imwrite(path, phantom(), imagej=True, resolution=(1 / x, 1 / y), metadata=described)
    loaded, meta, told = warned(path)
    np.testing.assert_allclose(meta["voxel_size_zyx"], [30, 20, 10], rtol=1e-5)
    assert np.array_equal(loaded, phantom())


def test_ome_says_the_voxel_size_of_a_tiff_and_an_impossible_one_is_asked_for(tmp_path):
    path = tmp_path / "a.ome.tif"
    described = {"axes": "ZYX", "PhysicalSizeZ": 3.0, "PhysicalSizeY": 2.0, "PhysicalSizeX": 1.348}
    units = {f"PhysicalSize{axis}Unit": "nm" for axis in "XYZ"}
    tifffile.imwrite(path, phantom(), metadata={**described, **units})
    assert warned(path)[1]["voxel_size_zyx"].tolist() == [30.0, 20.0, 13.48]
    tifffile.imwrite(path, phantom(), metadata=described)  # µm, by OME's own rule
    assert "its OME header says 3 µm x 2 µm x 1.348 µm (Z, Y, X), which cannot be a tomogram's" in refusal(path)


def test_bad_tiffs_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    path.write_text("no picture")
    assert refusal(path).startswith("expected a TIFF stack, got something else or a damaged file (")
    tifffile.imwrite(path, np.zeros((20, 28), dtype="f4"))
    assert refusal(path).startswith("expected a volume (Z, Y, X), got a 2D image (20 x 28).")
    tifffile.imwrite(path, np.zeros((12, 20, 28, 3), dtype="u1"), photometric="rgb")
    assert refusal(path).startswith("expected one grey value per voxel, got a colour picture.")


def test_nifti_xyz_becomes_zyx_and_mm_become_angstrom(tmp_path):
    truth = phantom()
    image = nib.Nifti1Image(np.ascontiguousarray(truth.T), np.diag([12e-7, 11e-7, 10e-7, 1]))
    image.header.set_xyzt_units("mm")
    for name in ("a.nii", "a.nii.gz"):
        nib.save(image, tmp_path / name)
        loaded, meta, _ = warned(tmp_path / name)
        assert np.array_equal(loaded, truth) and loaded.flags.c_contiguous
        np.testing.assert_allclose(meta["voxel_size_zyx"], [10, 11, 12], rtol=1e-5)


def test_nifti_sizes_that_cannot_be_a_tomograms_are_not_guessed(tmp_path):
    image = nib.Nifti1Image(phantom().T, np.diag([10, 10, 10, 1]))
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "a.nii")
    assert "its NIfTI header says 10 x 10 x 10 mm, which cannot be a tomogram's. Give it" in refusal(tmp_path / "a.nii")
    image.header.set_xyzt_units("unknown")
    nib.save(image, tmp_path / "a.nii")
    assert "its NIfTI header (10 x 10 x 10) has no unit. Give it" in refusal(tmp_path / "a.nii")
    assert read_tomogram(tmp_path / "a.nii", voxel_size=10)[0].shape == SHAPE


def test_damaged_nifti_is_refused(tmp_path):
    path = tmp_path / "a.nii"
    path.write_text("no volume")
    assert refusal(path).startswith("expected a NIfTI volume, got something else or a damaged file (")
    nib.save(nib.Nifti1Image(phantom().T, np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:-100])
    assert "(Expected 26880 bytes, got 26780 bytes from" in refusal(path)


def test_em_volumes_are_read(tmp_path):
    head = bytearray(512)
    head[0], head[3] = 6, 5  # PC, float32
    head[4:16] = np.array(SHAPE[::-1], dtype="<i4").tobytes()
    path = tmp_path / "a.em"
    path.write_bytes(bytes(head) + phantom().tobytes())
    assert np.array_equal(read_tomogram(path, voxel_size=10)[0], phantom())
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(path, voxel_size=10).startswith("the file is truncated: expected 26,880 bytes of data, got 26,780.")


# labels


def test_empty_labels_without_voxel_size_are_legal(tmp_path):
    path = save(tmp_path / "a.mrc", np.zeros(SHAPE, dtype="int16"), voxel_size=0)
    loaded, meta, told = warned(path, check="labels")
    assert not loaded.any() and meta["voxel_size_zyx"].tolist() == [1, 1, 1]
    assert told == [
        "no usable voxel size, its MRC header has none (0); 1 Å is used for these labels. "
        "Give the tomogram's, for example --voxel_size 10."
    ]


def test_labels_must_be_whole_numbers_from_minus_1(tmp_path):
    labels = np.zeros(SHAPE, dtype="float32")
    labels[0, 0, :3] = 0.5, np.nan, np.inf
    assert refusal(save(tmp_path / "a.mrc", labels), check="labels") == (
        "expected labels (whole numbers: 0 background, 1..n particles, -1 ignore), got 3 voxels that are not whole "
        "numbers. Give the label volume, not a map of densities or probabilities."
    )
    labels[0, 0, :3] = -2, 0, 5
    assert "got values from -2 to 5. Give the label volume" in refusal(save(tmp_path / "a.mrc", labels), check="labels")


def test_shifted_bytes_of_imod_masks_become_0_and_1(tmp_path):
    mask = (phantom() > 0).astype("int8") - np.int8(127) - np.int8(1)
    loaded, _, told = warned(save(tmp_path / "a.mrc", mask), check="labels")
    assert np.array_equal(loaded, phantom() > 0) and "128 was added to every label" in told[0]


@pytest.mark.parametrize(
    ("stored", "loaded"),
    [("int8", torch.int16), ("int16", torch.int16), ("uint16", torch.int32), ("float32", torch.int32)],
)
def test_labels_keep_an_integer_type_and_take_the_tomograms_voxel_size(tmp_path, stored, loaded):
    labels = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 100
    image = save(tmp_path / "image.mrc", phantom(), voxel_size=13.5)
    label = save(tmp_path / "label.mrc", labels.astype(stored), voxel_size=0)
    item = {"image": str(image), "label": str(label)}
    for load in (LoadTomogramd(["image"], ["label"]), LoadTomogramd(["image", "label"], label_keys="label")):
        result = load(item)
        assert result["label"].dtype == loaded and result["label"].shape == (1, *SHAPE)
        assert np.array_equal(result["label"][0].numpy(), labels)
        np.testing.assert_allclose(result["label"].meta["voxel_size_zyx"], 13.5)
        assert result["label"].meta["warnings"] == "" and item["image"] == str(image)


def test_labels_of_another_shape_are_refused(tmp_path):
    image = save(tmp_path / "image.mrc", phantom())
    label = save(tmp_path / "label.mrc", np.zeros((12, 20, 27), dtype="int16"))
    with pytest.raises(ValueError) as caught:
        LoadTomogramd("image", "label")({"image": image, "label": label})
    assert str(caught.value) == (
        f"{label}: expected labels of the tomogram's shape (Z, Y, X) (12, 20, 28), got (12, 20, 27). Its tomogram is "
        f"{image}: give labels made for it, at the same binning."
    )


# through MONAI


def test_items_voxel_size_comes_before_the_options_and_missing_keys_are_named(tmp_path):
    image = save(tmp_path / "image.mrc", phantom(), voxel_size=0)
    load = LoadTomogramd("image", "label", voxel_size=8, allow_missing_keys=True)
    assert load({"image": image})["image"].meta["voxel_size_zyx"].tolist() == [8, 8, 8]
    assert load({"image": image, "voxel_size": 9.5})["image"].meta["voxel_size_zyx"].tolist() == [9.5] * 3
    with pytest.raises(ValueError, match="label: the item of the datalist has no such entry \\(it has image\\)"):
        LoadTomogramd("image", "label", voxel_size=8)({"image": image})


def test_our_message_reaches_the_user_through_monais_loader(tmp_path):
    path = save(tmp_path / "a.mrc", phantom(), voxel_size=0)
    with pytest.raises(ValueError) as caught:
        LoadImaged("image", reader=TomogramReader())({"image": path})
    assert str(caught.value).startswith(f"{path}: expected the tomogram's voxel size in Å")
    with pytest.raises(RuntimeError) as wrapped:
        Compose([LoadImaged("image", reader=TomogramReader())])({"image": path})
    assert str(wrapped.value.__cause__) == str(caught.value)
    loaded = LoadImaged("image", reader=TomogramReader(voxel_size=10), ensure_channel_first=True)({"image": path})[
        "image"
    ]
    assert loaded.shape == (1, *SHAPE) and np.array_equal(loaded[0].numpy(), phantom())
    assert not TomogramReader().verify_suffix("a.png") and TomogramReader().verify_suffix(path)


def test_items_with_different_headers_and_warnings_can_be_batched(tmp_path):
    first = patch(save(tmp_path / "a.mrc", phantom()), MACHINE_STAMP, bytes(4))
    second = tmp_path / "b.tif"
    tifffile.imwrite(second, phantom())
    items: list[dict[str, Any]] = [{"image": str(first)}, {"image": str(second), "voxel_size": 10.0}]
    data = Dataset([{"image": LoadTomogramd("image")(item)["image"]} for item in items])
    batch = next(iter(DataLoader(data, batch_size=2)))
    assert batch["image"].shape == (2, 1, *SHAPE) and len(batch["image"].meta["warnings"]) == 2
