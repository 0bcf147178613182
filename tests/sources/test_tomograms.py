"""What a user names leads to the same tomograms whatever the verb: files, folders, patterns, doubles, projects."""

import json
from pathlib import Path

import pytest

from custom_transforms.io import VOLUME_SUFFIXES, TomogramReader
from scripts.preparation.inputs import tomogram_inputs
from scripts.sources.tomograms import find_tomograms, is_tomogram


def images(*named):
    return [item["image"] for item in find_tomograms(named)]


def test_every_ending_that_the_reader_takes_is_found_in_a_folder_and_other_folders_are_not(tmp_path):
    expected = [str(tmp_path / f"{number}{suffix}") for number, suffix in enumerate(sorted(VOLUME_SUFFIXES), 10)]
    for path in map(Path, expected):
        path.mkdir() if path.suffix == ".zarr" else path.touch()
    (tmp_path / "TS_backup.mrc").mkdir()
    (tmp_path / "notes.txt").touch()
    found = images(tmp_path)
    assert found == expected
    assert TomogramReader().verify_suffix(found)


def test_a_link_names_the_tomogram_and_not_its_target(tmp_path):
    (tmp_path / "blobs" / "set").mkdir(parents=True)
    (tmp_path / "blobs" / "deadbeef").touch()
    linked = [tmp_path / "runs" / "TS_01.mrc", tmp_path / "runs" / "TS_02.mrc"]
    linked[0].parent.mkdir()
    for path in linked:
        path.symlink_to("../blobs/deadbeef")
    expected = [{"image": str(path)} for path in linked]
    assert (
        find_tomograms(tmp_path / "runs") == find_tomograms([f"{tmp_path}/runs/*.mrc", *map(str, linked)]) == expected
    )
    assert [one for path in linked for one in find_tomograms(path)] == expected
    (tmp_path / "dataset.json").write_text(json.dumps({"test": [{"image": "runs/TS_02.mrc"}]}))
    assert find_tomograms(tmp_path) == expected[1:]


def write_files(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize("finished", ["c/c_particles.csv", "c/c_instances.mrc", "out/c/c_particles.csv"])
def test_a_pattern_finds_what_naming_each_finds_and_earlier_detections_are_left_out(finished, tmp_path, capsys):
    write_files(
        tmp_path, ["a/TS_01.mrc", "b/TS_02.mrc", "b/notes.txt", "c.mrc", "overview.html", "overview.csv", finished]
    )
    expected = [str(tmp_path / name) for name in ("a/TS_01.mrc", "b/TS_02.mrc", "c.mrc")]
    by_the_shell = sorted(str(path) for path in tmp_path.iterdir())
    for named in ([f"{tmp_path}/*"], by_the_shell):
        assert images(*named) == expected
        assert "note: earlier detections are no tomograms, left out: " in capsys.readouterr().err
    with pytest.raises(ValueError, match="found earlier detections. Name the tomograms they are of"):
        find_tomograms(tmp_path / finished.split("/")[0])


def test_labels_beside_a_tomogram_are_no_tomograms_of_a_folder_but_may_be_named(tmp_path):
    write_files(tmp_path, ["TS_01.mrc", "TS_01_labels.mrc", "labels.mrc", "TS_01_instances.mrc", "gt_7.mrc"])
    assert images(tmp_path) == [str(tmp_path / "TS_01.mrc"), str(tmp_path / "gt_7.mrc")]
    assert images(tmp_path / "labels.mrc") == [str(tmp_path / "labels.mrc")]


def test_the_same_named_twice_is_taken_once_with_a_note_and_two_of_one_name_are_an_error(tmp_path, capsys, monkeypatch):
    write_files(tmp_path, ["d/TS_01.mrc", "d/TS_02.mrc", "e/TS_01.mrc", "f[1].mrc"])
    monkeypatch.setenv("HOME", str(tmp_path))
    both = [str(tmp_path / "d" / name) for name in ("TS_01.mrc", "TS_02.mrc")]
    assert images("~/d/TS_01.mrc", tmp_path / "d", f"{tmp_path}/d/*2.mrc") == both
    assert f"note: named twice, taken once: {both[0]}, {both[1]}\n" in capsys.readouterr().err
    (tmp_path / "link").symlink_to(tmp_path / "d")
    assert images(*both, tmp_path / "link" / "TS_01.mrc") == both
    assert images("~/f[1].mrc") == [str(tmp_path / "f[1].mrc")]  # what is there is no pattern
    for find in (find_tomograms, lambda named: tomogram_inputs(named, None, None, None, None)):
        with pytest.raises(
            ValueError, match="d/TS_01.mrc and .*e/TS_01.mrc would both be written as TS_01: expected tom"
        ):
            find((both[0], str(tmp_path / "e")))
    with pytest.raises(ValueError, match=r"expected tomograms \(files, .* none is named"):
        find_tomograms([])
    with pytest.raises(ValueError, match="got an empty name"):
        find_tomograms("")


def test_two_files_that_detect_keeps_apart_are_one_tilt_series_to_prepare(tmp_path):
    write_files(tmp_path, ["TS_01_10.00Apx.mrc", "TS_01_5.00Apx.mrc"])
    assert len(images(tmp_path)) == 2
    with pytest.raises(ValueError, match="would both be written as TS_01"):
        tomogram_inputs((str(tmp_path),), None, None, None, None)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("...mrc", "got '._', which begins with a dot"),
        (".hidden.mrc", "got '.hidden', which begins with a dot"),
        ("x" * 200 + ".mrc", "which is longer than 180 bytes"),
    ],
)
def test_a_tomogram_whose_name_no_output_may_have_is_refused(name, reason, tmp_path):
    write_files(tmp_path, [name])
    with pytest.raises(ValueError, match=reason):
        find_tomograms(tmp_path / name)
    with pytest.raises(ValueError, match=reason.replace("._", "..")):
        tomogram_inputs((str(tmp_path / name),), None, None, None, None)


def test_the_folder_above_a_link_is_that_of_its_target(tmp_path):
    (tmp_path / "store" / "set").mkdir(parents=True)
    (tmp_path / "store" / "TS_01.mrc").touch()
    (tmp_path / "set").symlink_to("store/set")
    (tmp_path / "set" / "dataset.json").write_text(json.dumps({"test": [{"image": "../TS_01.mrc"}]}))
    expected = [{"image": str((tmp_path / "store" / "TS_01.mrc").resolve())}]
    assert find_tomograms(tmp_path / "set") == find_tomograms([f"{tmp_path}/set/../TS_01.mrc"]) == expected


def test_a_zarr_is_a_tomogram_and_not_a_folder_of_tomograms(tmp_path):
    (tmp_path / "TS_01.zarr" / "0").mkdir(parents=True)
    (tmp_path / "TS_01.zarr" / "0" / "inside.mrc").touch()
    for path in (tmp_path / "TS_01.zarr", tmp_path / "TS_01.zarr" / "0"):
        assert is_tomogram(path) and find_tomograms(path) == [{"image": str(path.resolve())}]
    assert not is_tomogram(tmp_path) and not is_tomogram(tmp_path / "gone.zarr")
    with pytest.raises(
        FileNotFoundError, match=r"gone: expected tomograms \(files, .*, found nothing there. Check the p"
    ):
        find_tomograms(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: expected a folder of tomograms .* or with a dataset.json"):
        find_tomograms(tmp_path / "empty")
