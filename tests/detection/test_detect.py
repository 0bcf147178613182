"""Detect: tomogram in, whole set of files out; repeatable, resumable, and the same by either way in."""

import fcntl
import json
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from monai.transforms import MapTransform

from custom_transforms.files.claim import CLAIM
from custom_transforms.io import read_tomogram, write_mrc
from custom_transforms.volumes.mrc_read import mrc_geometry
from scripts.command_line.parser import main
from scripts.console import user_message
from scripts.detection.detect import Detector, detect
from scripts.detection.single import detect_one
from scripts.networks import check_device
from tests.conftest import ROOT, VOXEL_SIZE, run_config
from tests.detection.detect_scene import Blobs, files_of


def test_two_runs_write_identical_bytes_but_for_the_timings(setting, tmp_path):
    folder, options = setting
    for run in ("a", "b"):
        Detector({**options, "output_dir": str(tmp_path / run)})(folder / "tomogram_0.mrc")
    first, second = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    records = [json.loads(one.pop("tomogram_0.json")) for one in (first, second)]
    for record in records:
        record.pop("timings_seconds")
    pages = [one.pop("tomogram_0_report.html") for one in (first, second)]  # shows the timings
    assert all(len(page) > 10_000 for page in pages)
    assert first == second and records[0] == records[1]
    names = set(files_of(tmp_path / "a")) - {"tomogram_0.json"}
    assert set(records[0]["files"].values()) == names and "tomogram_0_report.html" in names
    assert set(first) == {
        "tomogram_0_center_map.npz",
        "tomogram_0_instances.mrc",
        "tomogram_0_particles.csv",
        "tomogram_0_centers.txt",
        "tomogram_0_particles.star",
    }


def test_monai_bundle_run_inference_writes_the_same_files_as_detect(setting, tmp_path):
    folder, options = setting
    Detector({**options, "output_dir": str(tmp_path / "detect")})(folder / "tomogram_1.mrc")
    overrides = {key: value for key, value in options.items() if key not in ("device", "progress")}
    run_config("inference.json", "inference", dataset_dir=str(folder), output_dir=str(tmp_path / "bundle"), **overrides)
    ours, theirs = files_of(tmp_path / "detect"), files_of(tmp_path / "bundle" / "tomogram_1")
    for name in ("tomogram_1.json", "tomogram_1_report.html"):
        del ours[name], theirs[name]
    assert ours == theirs


def test_labels_and_table_belong_together_and_keep_the_header(setting, tmp_path):
    folder, options = setting
    detector = Detector({**options, "output_dir": str(tmp_path)})
    detector.network = Blobs()
    found = detector(folder / "tomogram_0.mrc")
    labels, meta = read_tomogram(found["output_files"]["instances"], check="labels")
    table = pd.read_csv(found["output_files"]["csv"], keep_default_na=False)
    kept = table[table["label"] > 0]
    assert sorted(kept["label"]) == list(range(1, int(labels.max()) + 1)) and len(kept) > 3
    np.testing.assert_allclose(meta["voxel_size_zyx"], VOXEL_SIZE)
    np.testing.assert_array_equal(np.bincount(labels.ravel().astype(int))[1:], kept.sort_values("label")["volume_vox"])
    np.testing.assert_allclose(kept["x_angstrom"], kept["x_vox"] * VOXEL_SIZE, rtol=1e-5)


def test_flipping_the_tomogram_flips_the_labels(setting, tmp_path):
    folder, options = setting
    volume, _ = read_tomogram(folder / "tomogram_0.mrc")
    write_mrc(tmp_path / "flipped.mrc", np.ascontiguousarray(volume[::-1, :, ::-1]), VOXEL_SIZE)
    results = []
    for path in (folder / "tomogram_0.mrc", tmp_path / "flipped.mrc"):
        detector = Detector({**options, "output_dir": str(tmp_path / "out"), "tile": [64, 64, 64], "amp": False})
        detector.network = Blobs()
        results.append(np.asarray(detector(path)["instances"])[0])
    flipped = results[1][::-1, :, ::-1]
    assert results[0].max() == results[1].max() > 3
    pairs, counts = np.unique(np.stack([results[0].ravel(), flipped.ravel()]), axis=1, return_counts=True)
    main = [counts[pairs[0] == label].max() for label in range(1, results[0].max() + 1)]
    # a voxel exactly between two seeds goes to the first in z, y, x, which a flip reverses: single layers may differ
    assert sum(main) > 0.98 * (results[0] > 0).sum()
    np.testing.assert_array_equal(results[0] > 0, flipped > 0)


@pytest.mark.parametrize("tile,overlap", [([24, 24, 24], 0.25), ([24, 32, 56], 0.5), ([64, 64, 64], 0.25)])
def test_tile_and_overlap_change_no_label(setting, tmp_path, tile, overlap):
    folder, options = setting
    outcomes = []
    for number, values in enumerate(({"tile": [24, 48, 56]}, {"tile": tile, "overlap": overlap})):
        detector = Detector({**options, **values, "output_dir": str(tmp_path / str(number)), "amp": False})
        # a network without reach is a perfect map: each voxel's output is its own, whatever the tile
        detector.network = lambda image: torch.cat([4 * (image - 0.5), (image / 3).clamp(0, 1)], dim=1)
        outcomes.append(np.asarray(detector(folder / "tomogram_0.mrc")["instances"]))
    np.testing.assert_array_equal(*outcomes)


def test_an_empty_tomogram_gives_zero_particles_and_a_whole_set_of_files(setting, tmp_path, capsys):
    folder, options = setting
    detector = Detector({**options, "output_dir": str(tmp_path)})
    detector.network = lambda image: torch.cat([image * 0 - 9, image * 0], dim=1)
    found = detector(folder / "tomogram_0.mrc")
    assert len(found["particles"]) == 0
    assert len(files_of(tmp_path)) == 7
    assert read_tomogram(found["output_files"]["instances"], check="labels")[0].max() == 0
    assert list(pd.read_csv(found["output_files"]["csv"]).columns)[:5] == [
        "particle_id",
        "label",
        "class",
        "x_vox",
        "y_vox",
    ]


def test_nothing_kept_says_whether_nothing_was_found_or_which_filters_dropped_it(
    setting, command, tmp_path, monkeypatch
):
    folder, _ = setting
    monkeypatch.setattr("scripts.networks.load_weights", lambda network, path, **_: Blobs())
    drop = ("--edge_margin", "1e4", "--center_threshold", "0.2", "--report", "false")
    code, _, error = command(folder / "tomogram_0.mrc", *drop)
    assert code == 0 and "no particle is left: the filters dropped all" in error and "by edge). Are" in error
    empty = Blobs()
    empty.forward = lambda image: torch.cat([image * 0 - 9, image * 0], dim=1)
    monkeypatch.setattr("scripts.networks.load_weights", lambda network, path, **_: empty)
    code, _, error = command(folder / "tomogram_1.mrc")
    assert code == 0 and "no particle was found. Is the contrast right (--contrast)? Or are the particles" in error


def test_one_bad_tomogram_of_several_is_reported_and_the_others_go_on(setting, command, tmp_path):
    folder, _ = setting
    (tmp_path / "2024_01" / "overview.html" / "in its place").mkdir(parents=True)
    bad = tmp_path / "bad.mrc"
    bad.write_text("not a tomogram at all" * 100)
    code, out, error = command(folder / "tomogram_0.mrc", bad, folder / "tomogram_1.mrc")
    assert code == 1
    assert "tomogram_0.mrc: " in out and "tomogram_1.mrc: " in out
    assert "expected an MRC volume, got a text file" in error and "1 of 3 tomograms failed" in error
    assert "warning: no overview was written: [Errno 21]" in error


class Warnsd(MapTransform):
    """Warns twice of one thing; a library under it says something to itself, and another is deprecated."""

    def __call__(self, data):
        for _ in range(2):
            warnings.warn("image: odd, but usable", UserWarning, stacklevel=2)
        warnings.warn_explicit("not writable", UserWarning, torch.__file__, 1)
        warnings.warn("soon gone", DeprecationWarning, stacklevel=2)
        return dict(data)


@pytest.mark.parametrize("part", ["preprocessing", "postprocessing"])
def test_what_a_transform_warns_of_reaches_the_user_once_and_the_record(setting, tmp_path, capsys, part):
    folder, options = setting
    steps = json.loads((ROOT / "configs" / "inference.json").read_text(encoding="utf-8"))[part]["transforms"]
    steps.insert(1, {"_target_": "tests.detection.test_detect.Warnsd", "keys": "image"})
    options = {**options, "output_dir": str(tmp_path), "report": False, f"{part}#transforms": steps}
    detector = Detector({**options, "voxel_size": 20.0, "voxel_size_model": None})
    detector.network = Blobs()
    item = {"image": folder / "tomogram_0.mrc"}
    detect_one(detector, item)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert told.count("warning: image: odd, but usable") == 1
    assert sum("given voxel size 20 Å replaces the 10 Å" in line for line in told) == 1 and len(told) == 2
    record = json.loads((tmp_path / "tomogram_0" / "tomogram_0.json").read_text(encoding="utf-8"))
    assert sorted(f"warning: {text}" for text in record["warnings"]) == sorted(told)


@pytest.mark.parametrize("stream", [False, True])
def test_the_header_is_read_once_before_the_file_is_loaded(setting, tmp_path, monkeypatch, stream):
    folder, options = setting
    asked = []
    monkeypatch.setattr("scripts.sources.tomogram.mrc_geometry", lambda path: asked.append(path) or mrc_geometry(path))
    monkeypatch.setattr("scripts.detection.checks.mrc_geometry", None)  # of masks alone, and there is none
    detector = Detector({**options, "output_dir": str(tmp_path), "report": False}, stream=stream)
    detector.network = Blobs()
    detect_one(detector, {"image": folder / "tomogram_0.mrc"})
    assert asked == [str(folder / "tomogram_0.mrc")]


def test_filters_by_place_drop_particles_from_volume_and_table(setting, tmp_path, monkeypatch):
    """Edge, excluded places and membrane as options: the table says why, the volume loses them, the rest stays."""
    folder, options = setting
    monkeypatch.setattr("scripts.networks.load_weights", lambda network, path, **_: Blobs())
    whole = Detector({**options, "report": False, "output_dir": str(tmp_path / "whole")})(folder / "tomogram_0.mrc")
    table = whole["particles"]
    kept = table[table["label"] > 0]
    mask = np.zeros(whole["instances"].shape[-3:], np.int8)
    mask[:, :, 30:] = 1
    write_mrc(tmp_path / "tomogram_0_mask.mrc", mask, VOXEL_SIZE)
    masks = str(tmp_path / "{name}_mask.mrc")
    config = tmp_path / "settings.json"
    config.write_text(json.dumps({key: value for key, value in options.items() if key not in ("device", "weights")}))
    common = ["--weights", options["weights"], "--config", str(config), "--report", "false", "--device", "cpu"]
    for name, arguments, rule in (
        ("neighbors", ["--neighbor_number", "3", "--neighbor_distance", "160"], third_neighbour(kept) > 160),
        ("edge", ["--edge_margin", "80"], near_face(kept, mask.shape) < 80),
        ("exclude", ["--exclude", masks], kept["x_vox"].round() >= 30),
        ("membrane", ["--membrane", masks, "--membrane_max", "60"], (30 - kept["x_vox"]) * VOXEL_SIZE > 60),
    ):
        line = ["detect", str(folder / "tomogram_0.mrc"), *common, *arguments, "--output_dir", str(tmp_path / name)]
        assert main(line) == 0
        found = pd.read_csv(tmp_path / name / "tomogram_0" / "tomogram_0_particles.csv", keep_default_na=False)
        dropped = found["dropped_by"] == name
        assert 0 < dropped.sum() < len(kept) and list(found.loc[dropped, "particle_id"]) == list(
            kept.loc[rule, "particle_id"]
        )
        labels, _ = read_tomogram(tmp_path / name / "tomogram_0" / "tomogram_0_instances.mrc", check="labels")
        assert labels.max() == (found["label"] > 0).sum()
        record = json.loads((tmp_path / name / "tomogram_0" / "tomogram_0.json").read_text())
        assert record["particles"]["dropped"][name] == dropped.sum()
        assert str(record["inputs"]["settings"][arguments[0].removeprefix("--")]).removesuffix(".0") == arguments[1]


def third_neighbour(table):
    """Å from each center to its third nearest neighbour."""
    points = table[["x_angstrom", "y_angstrom", "z_angstrom"]].to_numpy()
    return np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)[:, 3]


def near_face(table, shape):
    """Å from each center to the nearest face of the volume."""
    centers = table[["z_vox", "y_vox", "x_vox"]].to_numpy()
    return ((np.minimum(centers + 0.5, np.array(shape) - 0.5 - centers)) * VOXEL_SIZE).min(axis=1)


def test_a_tomogram_of_a_dataset_keeps_its_own_voxel_size_and_contrast(setting, command, tmp_path):
    folder, options = setting
    volume, _ = read_tomogram(folder / "tomogram_0.mrc")
    write_mrc(tmp_path / "unsized.mrc", -volume, 1.0)  # 1 Å is what a header without a size says
    item = {"image": "unsized.mrc", "label": "unsized.mrc", "voxel_size": VOXEL_SIZE, "contrast": "bright"}
    (tmp_path / "dataset.json").write_text(json.dumps({"test": [item]}))
    code, _, error = command(tmp_path)
    assert code == 0 and "looks inverted" not in error
    assert "done before, skipped" in command(tmp_path)[1]
    record = json.loads((tmp_path / "2024_01" / "unsized" / "unsized.json").read_text())
    assert record["tomogram"]["voxel_size_zyx_angstrom"] == [VOXEL_SIZE] * 3
    assert record["inputs"]["tomogram"]["contrast"] == "bright"
    settings = {key: value for key, value in options.items() if key not in ("device", "progress")}
    settings |= {"center_threshold": 0.5, "report": False}
    run_config(
        "inference.json", "inference", dataset_dir=str(tmp_path), output_dir=str(tmp_path / "bundle"), **settings
    )
    other = json.loads((tmp_path / "bundle" / "unsized" / "unsized.json").read_text())
    assert other["inputs"]["tomogram"] == record["inputs"]["tomogram"]


def test_wrong_options_and_missing_things_are_clear_errors(setting, command, tmp_path):
    folder, options = setting
    assert "found nothing there" in command("nowhere/*.mrc")[2]
    with pytest.raises(ValueError, match="'mask_treshold' is not an id of configs/inference.json"):
        Detector({"mask_treshold": 0.5})
    with pytest.raises(Exception) as error:
        Detector({**options, "weights": str(tmp_path / "none.pt")})
    assert "Train the networks" in user_message(error.value)


def test_a_tile_that_shrank_for_one_tomogram_is_whole_again_for_the_next(setting, tmp_path):
    folder, options = setting
    detector = Detector({**options, "output_dir": str(tmp_path)})
    detector.inferer.roi_size, detector.inferer.batch = (16, 16, 16), 7
    assert detector.plan(tmp_path / "a.tif") is None
    assert (detector.inferer.roi_size, detector.inferer.batch) == ((32, 32, 32), 1)


@pytest.mark.parametrize("name", ["a.tif", "a.nii.gz", "a.em", "a.zarr/0"])
def test_what_cannot_be_streamed_or_kept_within_a_memory_is_told_before_any_work(setting, tmp_path, name):
    _, options = setting
    for stream in (None, False):
        detector = Detector({**options, "output_dir": str(tmp_path)}, memory=2, stream=stream)
        with pytest.warns(UserWarning, match=f"{name}: --memory 2 is not kept: a file that is not MRC is read whole"):
            assert detector.plan(tmp_path / name) is None
    detector.stream = True
    with pytest.raises(
        ValueError, match=f"{name}: expected an MRC file, the one format .* Convert it to MRC, or leave"
    ):
        detector.plan(tmp_path / name)
    assert detector.plan(tmp_path / "no header.mrc") is None


def test_a_gpu_that_is_not_there_is_an_error():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="--device cuda:0: 0 GPUs are visible"):
        check_device("cuda:0")
    with pytest.raises(ValueError, match="device: expected cpu, cuda"):
        check_device("gpu")


def test_a_flag_that_is_not_given_leaves_the_config_alone(monkeypatch, tmp_path, capsys):
    class Stop(Exception):
        pass

    def stop(overrides, **_):
        raise Stop(sorted(name for name, value in overrides.items() if isinstance(value, bool)))

    monkeypatch.setattr("scripts.detection.detect.Detector", stop)
    monkeypatch.setattr("scripts.detection.detect.find_tomograms", lambda tomograms: [])
    with pytest.raises(Stop, match=r"^\[\]$"):
        detect("a.mrc", output_dir=str(tmp_path))
    with pytest.raises(Stop, match=r"^\['report', 'require_seed'\]$"):
        detect("a.mrc", output_dir=str(tmp_path), require_seed=True, report=False)
    for words, given in (([], "[]"), (["--overwrite"], "['overwrite']"), (["--overwrite", "false"], "['overwrite']")):
        assert main(["detect", *words, "a.mrc"]) == 1
        assert f"Stop: {given} " in capsys.readouterr().err


def test_a_tomogram_that_another_process_detects_comes_last_when_that_is_gone(setting, command, tmp_path, monkeypatch):
    folder, _ = setting
    taken = tmp_path / "2024_01" / "tomogram_0"
    taken.mkdir(parents=True)
    with open(taken / CLAIM, "w") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        left = SimpleNamespace(sleep=lambda seconds: fcntl.flock(claim, fcntl.LOCK_UN))
        monkeypatch.setattr("scripts.detection.batch.time", left)
        code, out, err = command(folder / "tomogram_0.mrc", folder / "tomogram_1.mrc", "--report", "false")
    assert code == 0 and f"tomogram_0.mrc: waits, for {taken}: another process writes here now" in err
    assert out.index("tomogram_1") < out.index("tomogram_0")
    assert (taken / "tomogram_0.json").is_file() and not (taken / CLAIM).exists()
