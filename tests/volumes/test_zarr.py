"""OME-Zarr: tomograms of other programs land with the right voxels and Å; label volumes go out in several levels."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from monai.transforms import LoadImaged

from custom_transforms.io import LoadTomogramd, TomogramReader, read_tomogram, write_mrc
from custom_transforms.volumes.zarr_read import open_zarr
from custom_transforms.volumes.zarr_write import atomic_folder, write_labels_zarr
from tests.volumes.volume_files import SHAPE, phantom, refusal, warned

zarr = pytest.importorskip("zarr")

SPACE = [{"name": axis, "type": "space", "unit": "angstrom"} for axis in "zyx"]


def save_zarr(path, volume, scale=10.0, version="0.4", axes=SPACE, levels=2, shift=(0.0, 0.0, 0.0), whole=None):
    """A multiscale image in plain zarr calls, as other programs write it; level n is every 2^n-th voxel."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for n in range(levels):
        step = tuple(slice(None, None, 2**n if axis["name"] in "zyx" else None) for axis in axes)
        group.create_array(str(n), data=np.ascontiguousarray(volume[step]))
        spatial = [scale * 2**n if axis["name"] in "zyx" else 1.0 for axis in axes]
        moved = [*[0.0] * (len(axes) - 3), *shift]
        transforms = [{"type": "scale", "scale": spatial}, {"type": "translation", "translation": moved}]
        datasets.append({"path": str(n), "coordinateTransformations": transforms})
    multiscale = {"axes": list(axes), "datasets": datasets, **({"coordinateTransformations": whole} if whole else {})}
    group.attrs.update({"multiscales": [multiscale]} if version == "0.4" else {"ome": {"multiscales": [multiscale]}})
    return path


def test_a_folder_that_cannot_be_replaced_stays_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "older").touch()

    def replace(source, target):
        if Path(target).name == "a.zarr" and not (Path(source) / "older").exists():
            raise OSError("disk full")
        os.rename(source, target)

    monkeypatch.setattr("custom_transforms.volumes.zarr_write.os.replace", replace)
    with pytest.raises(OSError, match="disk full"), atomic_folder(tmp_path / "a.zarr"):
        pass
    assert [str(one.relative_to(tmp_path)) for one in sorted(tmp_path.rglob("*"))] == ["a.zarr", "a.zarr/older"]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dtype", ["float32", "int8", ">i2", "float16"])
def test_a_tomogram_is_read_with_values_voxel_size_and_origin(tmp_path, version, dtype):
    volume = phantom("int8").astype(dtype)
    path = save_zarr(tmp_path / "a.zarr", volume, 13.48, version, shift=(1.0, 2.0, 3.0))
    found, meta, told = warned(path)
    assert found.dtype.isnative and np.array_equal(found, volume) and not told
    np.testing.assert_allclose(meta["voxel_size_zyx"], 13.48)
    assert meta["origin_xyz"].tolist() == [3.0, 2.0, 1.0] and meta["header"]["format"] == "zarr"


def test_the_voxel_size_chooses_the_level_and_a_path_inside_names_one(tmp_path):
    volume = phantom()
    path = save_zarr(tmp_path / "a.zarr", volume)
    for wanted, step in ((None, 1), (10.0, 1), (20.0, 2)):
        found, meta = read_tomogram(path, voxel_size=wanted)
        assert np.array_equal(found, volume[::step, ::step, ::step])
        assert meta["voxel_size_zyx"].tolist() == [10.0 * step] * 3
    found, meta = read_tomogram(path / "1")
    assert np.array_equal(found, volume[::2, ::2, ::2]) and meta["voxel_size_zyx"].tolist() == [20.0] * 3
    found, meta, told = warned(path / "1", voxel_size=7.0)
    assert meta["voxel_size_zyx"].tolist() == [7.0] * 3 and told[0].startswith("the given voxel size 7 Å replaces")
    assert refusal(path, voxel_size=15.0) == (
        "no level has the voxel size [15.0] Å; it has 10, 20 Å. Leave it out for the finest, or name a level "
        "whose metadata are wrong: a.zarr/0."
    )


@pytest.mark.parametrize(("unit", "factor"), [("angstrom", 1), ("nanometer", 10), ("micrometer", 1e4), ("meter", 1e10)])
def test_units_become_angstrom(tmp_path, unit, factor):
    axes = [{**axis, "unit": unit} for axis in SPACE]
    path = save_zarr(tmp_path / "a.zarr", phantom(), 12.5 / factor, axes=axes)
    np.testing.assert_allclose(read_tomogram(path)[1]["voxel_size_zyx"], 12.5)


def test_a_scale_of_the_whole_image_is_laid_over_that_of_its_level(tmp_path):
    whole = [{"type": "scale", "scale": [2.0, 2.0, 2.0]}, {"type": "translation", "translation": [0.0, 0.0, 5.0]}]
    path = save_zarr(tmp_path / "a.zarr", phantom(), 5.0, shift=(1.0, 1.0, 1.0), whole=whole)
    meta = read_tomogram(path)[1]
    assert meta["voxel_size_zyx"].tolist() == [10.0] * 3 and meta["origin_xyz"].tolist() == [7.0, 2.0, 2.0]


def test_single_channels_and_other_axis_orders_give_the_same_volume(tmp_path):
    volume = phantom()
    five = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *SPACE]
    assert np.array_equal(read_tomogram(save_zarr(tmp_path / "a.zarr", volume[None, None], axes=five))[0], volume)
    swapped = save_zarr(tmp_path / "b.zarr", volume.transpose(2, 1, 0).copy(), axes=SPACE[::-1])
    assert np.array_equal(read_tomogram(swapped)[0], volume)
    two = save_zarr(tmp_path / "c.zarr", np.stack([volume, volume])[None], axes=five)
    assert refusal(two) == "expected one volume, got 2 along its axis c. Save one of them."


def test_only_the_chunks_behind_a_window_are_read(tmp_path):
    volume = phantom()
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), data=volume, chunks=(4, 5, 7))
    (path / "c" / "0" / "0" / "0").write_bytes(b"damaged")
    level = open_zarr(path)
    assert level.shape == SHAPE and len(level) == 12
    assert np.array_equal(level[4:9, :, 20:], volume[4:9, :, 20:]) and np.array_equal(level[-2:], volume[-2:])
    assert refusal(path, voxel_size=10).startswith("its chunk c/0/0/0 cannot be read (Zstd decompression error")


def test_what_cannot_be_true_is_refused_with_a_way_out(tmp_path):
    plain = tmp_path / "plain.zarr"
    zarr.create_array(str(plain), data=phantom())
    assert "it is a plain Zarr array, which has none" in refusal(plain)
    assert read_tomogram(plain, voxel_size=8)[1]["voxel_size_zyx"].tolist() == [8.0] * 3
    unitless = save_zarr(tmp_path / "u.zarr", phantom(), axes=[{"name": axis, "type": "space"} for axis in "zyx"])
    assert "its metadata (10 x 10 x 10) have no unit of length" in refusal(unitless)
    assert read_tomogram(unitless, voxel_size=8)[0].shape == SHAPE
    zarr.open_group(str(tmp_path / "g.zarr"), mode="w")
    assert "got a Zarr group without" in refusal(tmp_path / "g.zarr")
    (tmp_path / "e.zarr").mkdir()
    assert refusal(tmp_path / "e.zarr").startswith("expected a Zarr, got something else or damaged metadata")
    (tmp_path / "f.zarr").write_text("no folder")
    assert refusal(tmp_path / "f.zarr").startswith("expected a Zarr folder")
    assert refusal(tmp_path / "none.zarr") == "no such Zarr. Check the path."
    flat = save_zarr(tmp_path / "flat.zarr", phantom()[0], axes=SPACE[1:])
    assert "expected a volume with the axes z, y, x, got y, x" in refusal(flat)
    broken = save_zarr(tmp_path / "broken.zarr", phantom())
    (broken / ".zattrs").write_text((broken / ".zattrs").read_text().replace('"path": "0"', '"path": "9"'))
    assert "name the level '9', which is not there" in refusal(broken)


def test_a_hole_in_a_tomogram_is_told(tmp_path):
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), data=phantom(), chunks=(6, 10, 14))
    (path / "c" / "1" / "1" / "1").unlink()
    _, _, told = warned(path, voxel_size=10)
    assert told == ["1 of 8 chunks are not stored and read as 0.0. Copy it again if the copy was interrupted."]


def test_chunks_that_labels_lack_are_refused_where_empty_ones_are_stored_and_told_otherwise(tmp_path):
    labels = np.zeros((130, 20, 28), np.int32)
    labels[:3, :3, :3] = 1
    write_labels_zarr(tmp_path / "l.zarr", labels, 10.0)
    assert warned(tmp_path / "l.zarr", check="labels")[2] == []  # ours store all chunks
    (tmp_path / "l.zarr" / "0" / "0" / "0" / "0").unlink()
    assert refusal(tmp_path / "l.zarr", check="labels") == (
        "1 of 3 chunks are not stored, and empty ones are: these were lost, with their labels. Copy it again."
    )
    for name, volume in (("a", labels), ("b", labels[None, None])):  # other programs leave out what is empty
        zarr.create_array(str(tmp_path / f"{name}.zarr"), data=volume, chunks=(*volume.shape[:-3], 64, 20, 28))
        _, _, told = warned(tmp_path / f"{name}.zarr", check="labels", voxel_size=10)
        assert told == [
            "2 of 3 chunks are not stored: taken as background. Programs leave out empty ones; copy it again if the "
            "copy broke off."
        ]


@pytest.mark.parametrize("damage", ["cut", "flipped"])
@pytest.mark.parametrize("codec", ["none", "crc32c", "zstd", "gzip", "blosc", "zarr 2"])
def test_a_damaged_chunk_is_refused_by_name(tmp_path, codec, damage):
    codecs = {
        "none": None,
        "crc32c": zarr.codecs.Crc32cCodec(),
        "zstd": zarr.codecs.ZstdCodec(checksum=True),
        "gzip": zarr.codecs.GzipCodec(),
        "blosc": zarr.codecs.BloscCodec(cname="lz4"),
        "zarr 2": __import__("numcodecs").Blosc(),
    }
    path, two = tmp_path / "a.zarr", codec == "zarr 2"
    options = {"zarr_format": 2} if two else {}
    zarr.create_array(str(path), data=phantom(), chunks=(6, 10, 14), compressors=codecs[codec], **options)
    name = "1.0.1" if two else "c/1/0/1"
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 16
    (path / name).write_bytes(content[:-16] if damage == "cut" else content)
    if damage == "flipped" and codec not in ("crc32c", "zstd", "gzip"):
        return  # without a checksum nobody can know
    assert refusal(path, voxel_size=10).startswith(f"its chunk {name} ")


def test_what_metadata_declare_is_refused_before_memory_and_time_are_spent(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(10**6,) * 3, chunks=(64,) * 3, dtype="f4")
    assert (
        "it declares 1000000 x 1000000 x 1000000 voxels of float32. Reading and using it takes 7,450,580,596.9 GiB"
        in refusal(tmp_path / "a.zarr", voxel_size=10)
    )
    zarr.create_array(str(tmp_path / "b.zarr"), shape=(300,) * 3, chunks=(1,) * 3, dtype="i1")
    assert "declare 27,000,000 chunks, which is no file that can be read" in refusal(tmp_path / "b.zarr", voxel_size=10)


def test_monai_and_the_transform_of_the_configs_read_it_with_labels_from_mrc(tmp_path):
    volume = phantom()
    path = save_zarr(tmp_path / "a.zarr", volume)
    write_mrc(tmp_path / "l.mrc", np.ones(SHAPE, np.int16), 10.0)
    item = LoadTomogramd(["image", "label"], "label")({"image": path, "label": tmp_path / "l.mrc"})
    assert np.array_equal(item["image"][0], volume) and item["label"].shape == (1, *SHAPE)
    loaded = LoadImaged("image", reader=TomogramReader())({"image": path})["image"]
    assert np.array_equal(loaded, volume)
    assert TomogramReader().verify_suffix(path / "1") and not TomogramReader().verify_suffix(tmp_path / "a")


@pytest.mark.parametrize(("lowest", "highest", "dtype"), [(0, 9, "uint16"), (-1, 9, "int16"), (0, 70_000, "uint32")])
def test_labels_come_back_at_every_level(tmp_path, lowest, highest, dtype):
    labels = np.random.default_rng(0).integers(lowest, highest, (13, 20, 70), endpoint=True).astype(np.int32)
    labels[0, 0, 0], labels[-1, -1, -1] = lowest, highest
    path = tmp_path / "l.zarr"
    assert write_labels_zarr(path, labels, (20, 10, 10)) == np.dtype(dtype)
    found, meta, told = warned(path, check="labels")
    assert np.array_equal(found, labels) and found.dtype == np.dtype(dtype)
    assert meta["voxel_size_zyx"].tolist() == [20, 10, 10]
    half = open_zarr(path / "1")
    assert np.array_equal(half[:], labels[::2, ::2, ::2]) and half.voxel_size_zyx.tolist() == [40, 20, 20]
    assert [p.name for p in tmp_path.iterdir()] == ["l.zarr"] and len(told) == 1  # not cubes


def test_metadata_are_what_ome_ngff_asks_for(tmp_path):
    write_labels_zarr(tmp_path / "a.zarr", np.ones((100, 20, 28), np.int16), 10.0)
    attributes = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text())
    (image,) = attributes["multiscales"]
    assert image["version"] == "0.4" and [axis["name"] for axis in image["axes"]] == ["z", "y", "x"]
    assert [one["path"] for one in image["datasets"]] == ["0", "1"] and "image-label" in attributes
    array = json.loads((tmp_path / "a.zarr" / "0" / ".zarray").read_text())
    assert array["zarr_format"] == 2 and array["dimension_separator"] == "/" and array["chunks"] == [64, 20, 28]


def test_a_failed_or_refused_writing_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "l.zarr"
    write_labels_zarr(path, np.ones(SHAPE, np.int16), 10.0)
    monkeypatch.setattr("custom_transforms.volumes.zarr_write._metadata", lambda *a: {}["no"])
    with pytest.raises(KeyError):
        write_labels_zarr(path, np.zeros(SHAPE, np.int16), 10.0)
    monkeypatch.undo()
    assert read_tomogram(path, check="labels")[0].min() == 1 and [p.name for p in tmp_path.iterdir()] == ["l.zarr"]
    write_labels_zarr(path, np.full(SHAPE, 2, np.int16), 10.0)
    assert read_tomogram(path, check="labels")[0].max() == 2 and [p.name for p in tmp_path.iterdir()] == ["l.zarr"]
    (tmp_path / "file.zarr").write_text("")
    with pytest.raises(ValueError, match="file.zarr: expected a folder to replace, got a file"):
        write_labels_zarr(tmp_path / "file.zarr", np.ones(SHAPE, np.int16), 10.0)
    for wrong in (np.ones(SHAPE), np.ones((3, 4), np.int16), np.full(SHAPE, -2)):
        with pytest.raises(ValueError, match="expected"):
            write_labels_zarr(path, wrong, 10.0)


def test_without_zarr_the_message_names_the_package(tmp_path, monkeypatch):
    path = save_zarr(tmp_path / "a.zarr", phantom())
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(ImportError, match="OME-Zarr files need the optional package zarr: pip install 'zarr>=3.1'"):
        read_tomogram(path)
