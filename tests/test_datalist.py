"""The datalist: what a broken dataset.json says, and which paths of a folder are tomograms."""

import json
import re

import pytest

from custom_transforms.io import VOLUME_SUFFIXES, TomogramReader
from scripts.datalist import find_tomograms, is_tomogram, load_datalist
from scripts.detection.detect import expand


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"image": "a.mrc", "label": "b.mrc"}], "expected an object with lists of tomograms.*got a list"),
        ({"training": [{"image": "a.mrc", "label": None}]}, "expected a path as 'label' of each item, got null"),
        ({"training": [{"image": ["a.mrc"], "label": "a.mrc"}]}, r"expected a path as 'image' .* got \[\"a.mrc\"\]"),
        ({"training": ["a.mrc"]}, r"expected each item as \{'image'"),
        ({"training": {"image": "a.mrc"}}, "expected a non-empty list 'training', found sections: none"),
    ],
)
@pytest.mark.parametrize("fallback", [None, "validation"])
def test_a_datalist_of_another_form_is_a_clear_error(content, message, fallback, tmp_path):
    (tmp_path / "a.mrc").touch()
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        load_datalist(tmp_path, "training", fallback=fallback)
    assert str(tmp_path / "dataset.json") in str(error.value)


def test_a_datalist_in_another_encoding_is_a_clear_error(tmp_path):
    (tmp_path / "dataset.json").write_bytes('{"name": "Å"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=re.escape("dataset.json: expected JSON in UTF-8, but byte 10 is not")):
        load_datalist(tmp_path, "training")


def test_every_ending_that_the_reader_takes_is_found_in_a_folder_and_other_folders_are_not(tmp_path):
    for suffix in VOLUME_SUFFIXES:
        path = tmp_path / f"TS{suffix}"
        path.mkdir() if suffix == ".zarr" else path.touch()
    (tmp_path / "TS_backup.mrc").mkdir()
    (tmp_path / "notes.txt").touch()
    found = [item["image"] for item in find_tomograms(tmp_path)]
    assert found == sorted(str((tmp_path / f"TS{suffix}").resolve()) for suffix in VOLUME_SUFFIXES)
    assert TomogramReader().verify_suffix(found)


def test_a_link_names_the_tomogram_and_not_its_target(tmp_path):
    (tmp_path / "blobs" / "set").mkdir(parents=True)
    (tmp_path / "blobs" / "deadbeef").touch()
    linked = [tmp_path / "runs" / "TS_01.mrc", tmp_path / "runs" / "TS_02.mrc"]
    linked[0].parent.mkdir()
    for path in linked:
        path.symlink_to("../blobs/deadbeef")
    expected = [{"image": str(path)} for path in linked]
    assert find_tomograms(tmp_path / "runs") == expand([f"{tmp_path}/runs/*.mrc", *map(str, linked)]) == expected
    assert [one for path in linked for one in find_tomograms(path)] == expected
    (tmp_path / "dataset.json").write_text(json.dumps({"test": [{"image": "runs/TS_02.mrc"}]}))
    assert find_tomograms(tmp_path) == expected[1:]


def test_a_pattern_finds_folders_as_naming_them_does(tmp_path):
    for name in ("a/TS_01.mrc", "b/TS_02.mrc", "b/notes.txt", "c/c_instances.mrc"):  # c: an earlier detection of c.mrc
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("c.mrc", "overview.html", "overview.csv"):  # the last two: of earlier detections
        (tmp_path / name).touch()
    expected = [str(tmp_path / name) for name in ("a/TS_01.mrc", "b/TS_02.mrc", "c.mrc")]
    assert [item["image"] for item in expand([f"{tmp_path}/*"])] == expected
    assert expand([f"{tmp_path}/*"]) == expand([f"{tmp_path}/{name}" for name in ("a", "b", "c.mrc")])


def test_the_folder_above_a_link_is_that_of_its_target(tmp_path):
    (tmp_path / "store" / "set").mkdir(parents=True)
    (tmp_path / "store" / "TS_01.mrc").touch()
    (tmp_path / "set").symlink_to("store/set")
    (tmp_path / "set" / "dataset.json").write_text(json.dumps({"test": [{"image": "../TS_01.mrc"}]}))
    expected = [{"image": str((tmp_path / "store" / "TS_01.mrc").resolve())}]
    assert find_tomograms(tmp_path / "set") == expand([f"{tmp_path}/set/../TS_01.mrc"]) == expected


def test_a_zarr_is_a_tomogram_and_not_a_folder_of_tomograms(tmp_path):
    (tmp_path / "TS_01.zarr" / "0").mkdir(parents=True)
    (tmp_path / "TS_01.zarr" / "0" / "inside.mrc").touch()
    for path in (tmp_path / "TS_01.zarr", tmp_path / "TS_01.zarr" / "0"):
        assert is_tomogram(path) and find_tomograms(path) == [{"image": str(path.resolve())}]
    assert not is_tomogram(tmp_path) and not is_tomogram(tmp_path / "gone.zarr")
    with pytest.raises(FileNotFoundError, match="expected a folder of tomograms"):
        find_tomograms(tmp_path / "gone")
