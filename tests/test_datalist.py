"""The datalist: our form, the zoo's and the Decathlon's, and what a broken one says."""

import json
import re

import pytest

from scripts.datalist import find_tomograms, load_datalist


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"image": "a.mrc", "label": "b.mrc"}], "expected an object with lists of tomograms.*got a list"),
        ({"training": [{"image": "a.mrc", "label": None}]}, "expected a path as 'label' of each item, got null"),
        ({"training": [{"image": ["a.mrc"], "label": "a.mrc"}]}, r"expected a path as 'image' .* got \[\"a.mrc\"\]"),
        ({"training": [3]}, r"expected each item as \{'image': ..., 'label': ...\}, got 3"),
        ({"training": {"image": "a.mrc"}}, "expected a list of tomograms as 'training', got a dict"),
        ({"training": [], "labels": [1]}, "expected a non-empty list '(training|validation)', found sections: labels"),
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
    with pytest.raises(
        ValueError, match=re.escape("dataset.json: expected a JSON file, which is text in UTF-8, but byte 10 is not")
    ):
        load_datalist(tmp_path, "training")


def test_a_datalist_of_the_decathlon_or_the_zoo_is_taken_as_it_is(tmp_path):
    for folder, name in (("imagesTr", "a"), ("labelsTr", "a"), ("imagesTs", "b"), ("imagesTs", "c")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.nii.gz").touch()
    content = {
        "name": "Task", "modality": {"0": "ET"}, "labels": {"0": "background"}, "numTraining": 1, "numTest": 2,
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
        "test": ["./imagesTs/b.nii.gz", "./imagesTs/c.nii.gz"],
    }  # fmt: skip
    (tmp_path / "dataset_0.json").write_text(json.dumps(content))
    expected = [{"image": str(tmp_path / "imagesTs" / f"{name}.nii.gz")} for name in "bc"]
    for named in (tmp_path / "dataset_0.json", f"{tmp_path}/dataset_?.json"):
        assert find_tomograms(named) == expected
    assert load_datalist(tmp_path / "dataset_0.json", "test") == expected
    assert load_datalist(tmp_path / "dataset_0.json", "training")[0]["label"].endswith("/labelsTr/a.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"training": ["imagesTs/b.nii.gz"]}))
    assert find_tomograms(tmp_path) == expected[:1] == load_datalist(f"{tmp_path}/", "training")
