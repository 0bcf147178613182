"""A tomogram is resolved once: who says its voxel size, and what is left open."""

import numpy as np
import pytest

from custom_transforms.io import write_mrc
from scripts.sources.tomogram import Tomogram


@pytest.fixture
def path(tmp_path):
    write_mrc(tmp_path / "TS_01.mrc", np.zeros((4, 5, 6), np.float32), 8.0)
    return tmp_path / "TS_01.mrc"


def test_the_dataset_comes_before_the_settings_and_these_before_the_header(path):
    own = {"image": path, "voxel_size": [9.0, 7.0, 7.0], "contrast": "bright", "label": "labels.mrc"}
    plain = Tomogram.resolve(path)
    assert (plain.name, plain.shape_zyx) == ("TS_01", (4, 5, 6))
    for tomogram, size in (
        (plain, 8),
        (Tomogram.resolve(path, 10.0), 10),
        (Tomogram.resolve(own, 10.0), [9, 7, 7]),
    ):
        np.testing.assert_array_equal(tomogram.voxel_size_zyx, np.broadcast_to(size, 3))
    assert Tomogram.resolve(own).item == {**own, "image": str(path)} and plain.item == {"image": str(path)}


def test_what_a_header_does_not_say_stays_open(path, tmp_path):
    write_mrc(tmp_path / "a.mrc", np.zeros((4, 5, 6), np.float32), 8.0)
    with open(tmp_path / "a.mrc", "r+b") as file:
        file.seek(40)
        file.write(bytes(12))
    (tmp_path / "text.mrc").write_text("not a tomogram at all")
    for name, shape in (("a.mrc", (4, 5, 6)), ("text.mrc", None), ("gone.mrc", None), ("b.tif", None)):
        tomogram = Tomogram.resolve({"image": tmp_path / name, "voxel_size": None})
        assert (tomogram.shape_zyx, tomogram.voxel_size_zyx) == (shape, None)


def test_a_voxel_size_that_is_none_is_an_error_of_the_item_s_own(path):
    with pytest.raises(ValueError, match="voxel size: expected one or three"):
        Tomogram.resolve({"image": path, "voxel_size": 0})
    with pytest.raises(AttributeError):
        Tomogram.resolve(path).name = "other"
