"""Detect, what is there before the networks run: earlier detections, and what is refused before any work."""

import json
import os

import numpy as np
import pytest
import torch

from custom_transforms.io import write_mrc
from scripts.console import user_message
from scripts.detection.detect import Detector, detect
from scripts.detection.finished import _changed, finished_record
from scripts.detection.plan import Plan
from scripts.outputs import SaveDetectiond
from scripts.records.detection import Inputs, remove_detection
from tests.conftest import VOXEL_SIZE, run_config
from tests.detection.detect_scene import files_of


def test_finished_tomograms_are_skipped_and_overwrite_repeats_them(setting, command, tmp_path):
    folder, _ = setting
    code, out, _ = command(folder / "tomogram_0.mrc")
    assert code == 0 and "particles" in out and (tmp_path / "2024_01" / "tomogram_0").is_dir()
    code, out, _ = command(folder / "tomogram_0.mrc")
    assert code == 0 and "done before, skipped" in out
    code, out, _ = command("--overwrite", folder / "tomogram_0.mrc")
    assert code == 0 and "skipped" not in out
    for arguments, name in (
        (("--method", "nearest"), "method"),
        (("--voxel_size", "20"), "voxel_size"),
        (("--signed", "false"), "signed"),
        (("--fill_nonfinite",), "fill_nonfinite"),
    ):
        code, _, error = command(folder / "tomogram_0.mrc", *arguments)
        assert code == 1 and f"detected before with other {name}. Choose" in error and "--overwrite" in error


def test_a_setting_that_is_left_out_again_and_an_edited_mask_are_other_inputs(setting, tmp_path):
    folder, options = setting
    for name in ("region", "exclude", "membrane"):
        write_mrc(tmp_path / f"tomogram_0_{name}.mrc", np.ones((24, 48, 56), np.int8), VOXEL_SIZE)
    masks = {name: str(tmp_path / f"{{name}}_{name}.mrc") for name in ("exclude", "membrane")}
    masks["region"] = str(tmp_path / "tomogram_0_region.mrc")
    options = {**options, "output_dir": str(tmp_path), "report": False, "voxel_size": 10.0}
    save = Detector({**options, **masks, "membrane_max": 9.0}).save
    item = {"image": str(folder / "tomogram_0.mrc")}
    then = Inputs(**json.loads(save.inputs(item).text()))
    assert _changed(then, save.inputs(item)) == []
    for name in ("fill_nonfinite", "largest_tile_side"):  # which the first records did not name
        del then.settings[name]
    assert _changed(then, save.inputs(item)) == []
    for name in masks:
        os.utime(tmp_path / f"tomogram_0_{name}.mrc", (1, 1))
        assert _changed(then, save.inputs(item)) == [name]
        then = save.inputs(item)
    without = Detector({**options, "voxel_size": None}).save
    assert set(_changed(then, without.inputs(item))) == {*masks, "membrane_max", "voxel_size"}


def test_an_edited_step_is_another_input_and_records_that_do_not_say_are_believed(setting, tmp_path):
    folder, options = setting
    edit = {"postprocessing#transforms#2#threshold": 0.5}

    def run(**edits):
        detect(str(folder / "tomogram_0.mrc"), output_dir=str(tmp_path / "out"), report=False, **options, **edits)

    run()
    run()  # done before
    with pytest.raises(FileExistsError, match="detected before with other postprocessing#transforms#2#threshold"):
        run(**edit)
    record = tmp_path / "out" / "tomogram_0" / "tomogram_0.json"
    content = json.loads(record.read_text())
    del content["inputs"]["edits"]  # as earlier versions wrote it
    record.write_text(json.dumps(content))
    before = record.stat().st_mtime_ns
    run(**edit)
    assert record.stat().st_mtime_ns == before


def test_files_that_are_wanted_and_not_there_are_told_and_nothing_is_detected_again(setting, command, tmp_path):
    folder, _ = setting
    few = (folder / "tomogram_0.mrc", "--formats", "csv", "--report", "false")
    assert command(*few)[0] == 0
    for arguments, lacking in (
        (("--formats", "csv,relion5", "--report", "false"), "relion5"),
        (("--formats", "csv", "--report", "true"), "report"),
    ):
        code, _, error = command(few[0], *arguments)
        assert code == 1 and f"its files lack {lacking} (not asked for then, or gone since)" in error
    assert "done before, skipped" in command(*few)[1]
    page = tmp_path / "2024_01" / "tomogram_0" / "tomogram_0_report.html"
    page.write_text("as `python -m scripts report` makes it")
    assert "done before, skipped" in command(*few[:-1], "true")[1]
    (tmp_path / "2024_01" / "tomogram_0" / "tomogram_0_instances.mrc").unlink()
    assert "its files lack instances" in command(*few)[2]
    whole = command(few[0], "--overwrite", "--formats", "csv,dynamo", "--report", "true")
    assert whole[0] == 0
    made = {"tomogram_0.json", "tomogram_0_instances.mrc", "tomogram_0_particles.csv"}
    more = {"tomogram_0_particles_dynamo.tbl", "tomogram_0_report.html", "tomogram_0_center_map.npz"}
    notes = tmp_path / "2024_01" / "tomogram_0" / "notes.txt"
    notes.write_text("the user's own")
    assert set(files_of(notes.parent)) == made | more | {"notes.txt"}
    assert command(*few, "--overwrite")[0] == 0 and set(files_of(notes.parent)) == made | {"notes.txt"}
    assert "done before, skipped" in command(*few)[1]


@pytest.mark.parametrize(
    "text,told",
    [
        ("{", "but line 1 is not"),
        ("[]", "got a list"),
        ('{"inputs": {}}', "but tomogram is missing"),
        (
            '{"inputs": {}, "tomogram": {"shape_zyx": [9, 9]}}',
            "tomogram.shape_zyx: expected three numbers (Z, Y, X), got",
        ),
    ],
)
def test_a_damaged_record_is_an_error_that_names_it_and_overwrite_replaces_it(setting, command, tmp_path, text, told):
    folder, _ = setting
    record = tmp_path / "2024_01" / "tomogram_0" / "tomogram_0.json"
    record.parent.mkdir(parents=True)
    record.write_text(text)
    code, _, error = command(folder / "tomogram_0.mrc")
    assert code == 1 and f"error: {record}: " in error and told in error
    assert error.endswith("Remove it or --overwrite to detect again.\n") and record.read_text() == text
    assert command(folder / "tomogram_0.mrc", "--overwrite")[0] == 0


def test_only_files_in_the_record_s_own_folder_are_removed(tmp_path):
    record = tmp_path / "t" / "t.json"
    record.parent.mkdir()
    (tmp_path / "other.csv").write_text("kept")
    (tmp_path / "t" / "t.csv").write_text("goes")
    files = {"csv": "t.csv", "a": "../other.csv", "b": str(tmp_path / "other.csv"), "d": "gone.csv"}
    tomogram = {"shape_zyx": [12, 20, 28], "voxel_size_zyx_angstrom": [10, 10, 10]}
    record.write_text(json.dumps({"inputs": {}, "tomogram": tomogram, "particles": {}, "files": files}))
    (tmp_path / "t" / "t_report.html").write_text("made later, of the old particles")
    remove_detection(record)
    assert list(files_of(tmp_path)) == ["other.csv"]


def test_the_record_has_the_tile_that_was_used_and_the_settings_the_one_asked_for(setting, tmp_path, monkeypatch):
    folder, options = setting
    plan = Plan("memory", (24, 48, 56), (16, 24, 16), 9, 2, 1, 1, 1)
    monkeypatch.setattr("scripts.detection.detector.make_plan", lambda *_, **__: plan)
    detector = Detector({**options, "output_dir": str(tmp_path), "report": False})
    item = {"image": str(folder / "tomogram_0.mrc")}
    found = detector(item, detector.plan(item))
    record = json.loads(found["output_files"]["record"].read_text())
    assert record["computed"] == {"path": "memory", "tile": [16, 24, 16], "batch": 2, "runtime": "torch"}
    assert record["inputs"]["settings"]["tile"] == [32, 32, 32] and finished_record(detector.save, item)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("stream", [False, True])
def test_maps_that_are_not_finite_are_an_error_and_leave_nothing(setting, tmp_path, value, stream):
    folder, options = setting
    item = {"image": str(folder / "tomogram_0.mrc")}
    detector = Detector({**options, "output_dir": str(tmp_path)}, stream=stream)
    plan = detector.plan(item)
    detector.network = lambda image: torch.cat([image, image * 0 + value], dim=1)
    with pytest.raises(Exception) as error:
        detector(item, plan)
    assert user_message(error.value).startswith("the networks gave values that are not finite (NaN, Inf) in planes 0")
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize(
    "setting_of,value,told",
    [
        ("center_threshold", 0.0, "center_threshold: expected a number above 0"),
        ("center_threshold", float("nan"), "center_threshold: expected a number above 0"),
        ("mask_threshold", 50.0, "mask_threshold: expected a number between 0 and 1 (a probability), got 50.0"),
        ("mask_threshold", 0.0, "mask_threshold: expected a number between 0 and 1 (a probability), got 0.0"),
        ("neighbor_number", -1, "neighbor_number: expected a whole number of at least 0, got -1"),
    ],
)
def test_settings_out_of_range_are_errors_before_any_tomogram_is_read(setting, setting_of, value, told):
    with pytest.raises(Exception) as error:
        Detector({**setting[1], setting_of: value})
    assert user_message(error.value).startswith(told)


@pytest.mark.parametrize("option", ["region", "exclude", "membrane"])
def test_a_volume_of_another_shape_is_an_error_before_any_work(setting, tmp_path, option):
    folder, options = setting
    write_mrc(tmp_path / "small.mrc.gz", np.ones((24, 48, 55), np.int8), VOXEL_SIZE)
    more = {option: str(tmp_path / "small.mrc.gz"), **({"membrane_max": 9.0} if option == "membrane" else {})}
    detector = Detector({**options, **more, "output_dir": str(tmp_path / "out")})
    detector.network = None  # never asked
    told = r"small.mrc.gz: expected a volume of the tomogram's shape \(Z, Y, X\) \(24, 48, 56\), got \(24, 48, 55\)"
    with pytest.raises(ValueError, match=told):
        detector(folder / "tomogram_0.mrc")
    write_mrc(tmp_path / "small.mrc.gz", np.ones((56, 48, 24), np.int8), VOXEL_SIZE, overwrite=True)  # transposed
    with pytest.raises(ValueError, match=r"\(24, 48, 56\), got \(56, 48, 24\)"):
        detector(folder / "tomogram_0.mrc")
    (tmp_path / "small.mrc.gz").unlink()
    with pytest.raises(FileNotFoundError, match="small.mrc.gz: no such file"):
        detector(folder / "tomogram_0.mrc")
    assert not (tmp_path / "out").exists()


def test_results_without_a_place_are_an_error_before_any_work(setting, tmp_path):
    folder, options = setting
    (tmp_path / "file").write_text("no folder")
    earlier = tmp_path / "out" / "tomogram_0" / "tomogram_0.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}")
    for output_dir, told in (("file", "is in its place. Choose another --output_dir"), ("out", "Choose another")):
        detector = Detector({**options, "output_dir": str(tmp_path / output_dir)})
        detector.network = None  # never asked
        with pytest.raises(OSError, match=told):
            detector(folder / "tomogram_0.mrc")
        some = {key: value for key, value in options.items() if key not in ("device", "progress", "weights")}
        with pytest.raises(Exception) as error:  # there are no weights to load, either: this comes first
            run_config("inference.json", "inference", dataset_dir=str(folder), weights=str(tmp_path / "none.pt"),
                       output_dir=str(tmp_path / output_dir), **some)  # fmt: skip
        assert told in user_message(error.value)
    assert [one.name for one in earlier.parent.iterdir()] == [earlier.name]


@pytest.mark.parametrize("text,told", [(None, "found none"), ("{", "is not"), ('{"name": "a"}', "version is missing")])
def test_damaged_metadata_is_an_error_when_the_chain_is_built(tmp_path, monkeypatch, text, told):
    monkeypatch.setattr("scripts.outputs.__file__", str(tmp_path / "scripts" / "outputs.py"))
    if text is not None:
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "metadata.json").write_text(text)
    with pytest.raises((OSError, ValueError)) as error:
        SaveDetectiond(tmp_path, "model.pt", {}, bundle_root=tmp_path)
    assert f"{tmp_path}/configs/metadata.json: expected" in str(error.value) and told in str(error.value)


def test_a_name_too_long_for_its_files_is_an_error_before_any_work(setting, tmp_path):
    folder, options = setting
    detector = Detector({**options, "output_dir": str(tmp_path / "out")})
    detector.network = None  # never asked
    tomogram = tmp_path / f"{'x' * 230}.mrc"
    tomogram.write_bytes((folder / "tomogram_0.mrc").read_bytes())
    with pytest.raises(ValueError, match=r"x_instances.mrc: expected a shorter name, got 244 bytes\. Its files are"):
        detector(tomogram)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_mask_is_an_error_before_the_networks_run(setting, command, tmp_path):
    folder, _ = setting
    code, _, error = command(folder / "tomogram_0.mrc", "--exclude", tmp_path / "{name}_carbon.mrc")
    assert code == 1 and "tomogram_0_carbon.mrc: no such file" in error
    assert command(folder / "tomogram_0.mrc", "--membrane", tmp_path / "m.mrc")[2].endswith(
        "Give --membrane and --membrane_min or --membrane_max.\n"
    )
