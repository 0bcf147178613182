"""The calls of a notebook: arrays and tables in and out, the same results as the commands."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import scripts
from custom_transforms.class_targets import classes_in_table
from custom_transforms.io import read_tomogram, write_instances
from scripts import detect, match, read_particles, train
from scripts.detection.detect import Detector
from scripts.metrics import InstanceMetrics
from tests.conftest import DIAMETER, ROOT, SMALL_TRAINING, VOXEL_SIZE, balls

SHAPE = (20, 40, 36)


def test_importing_scripts_imports_nothing_else():
    code = "import sys, scripts; assert dir(scripts); sys.exit('numpy' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    assert set(scripts.__all__) <= set(dir(scripts))
    with pytest.raises(AttributeError, match="'detekt'; it has detect, match, read_particles, train"):
        scripts.detekt  # noqa: B018


def test_detect_gives_what_the_command_writes_from_a_file_and_from_its_array(setting, tmp_path):
    folder, options = setting
    path = folder / "tomogram_0.mrc"
    Detector({**options, "output_dir": str(tmp_path / "command")})(path)
    found = detect(path, **options)
    labels, _ = read_tomogram(tmp_path / "command/tomogram_0/tomogram_0_instances.mrc", check="labels")
    np.testing.assert_array_equal(found.labels, labels)
    assert found.labels.dtype == np.int32 and found.voxel_size_zyx.tolist() == [VOXEL_SIZE] * 3
    assert sorted(found.particles["label"]) == list(range(1, len(found) + 1)) and found.folder is None
    assert found.record["inputs"]["settings"]["particle_diameter"] == DIAMETER
    volume, _ = read_tomogram(path)
    for array in (np.asarray(volume, np.float64), torch.as_tensor(np.array(volume))[None]):
        again = detect(array, voxel_size=VOXEL_SIZE, **options)
        np.testing.assert_array_equal(again.labels, found.labels)
        pd.testing.assert_frame_equal(again.particles, found.particles)
    assert repr(found) == f"<Detection: {len(found)} particles in 24 x 48 x 56 voxels of 10 Å>"


def test_detect_keeps_its_files_where_asked_and_reads_them_the_second_time(setting, tmp_path):
    folder, options = setting
    first = detect(folder / "tomogram_0.mrc", output_dir=tmp_path, **options, report=False)
    assert first.folder == tmp_path / "tomogram_0" and (first.folder / "tomogram_0_particles.star").is_file()
    time = (first.folder / "tomogram_0.json").stat().st_mtime_ns
    again = detect(folder / "tomogram_0.mrc", output_dir=tmp_path, **options, report=False)
    assert (first.folder / "tomogram_0.json").stat().st_mtime_ns == time
    np.testing.assert_array_equal(first.labels, again.labels)


def test_detect_says_what_is_wrong_with_its_arguments(setting, tmp_path):
    folder, options = setting
    with pytest.raises(ValueError, match=r"tomogram: an array does not say .* Give voxel_size \(Å\)"):
        detect(np.zeros(SHAPE), **options)
    with pytest.raises(ValueError, match=r"tomogram: expected a volume \(Z, Y, X\), got an array of shape \(4, 5\)"):
        detect(np.zeros((4, 5)), voxel_size=10, **options)
    with pytest.raises(ValueError, match="'particle_diametre' is not an id of configs/inference.json"):
        detect(folder / "tomogram_0.mrc", particle_diametre=3)
    with pytest.raises(ValueError, match="expected one tomogram, got 2. Call detect for each of them"):
        detect(folder, **options)


def test_match_of_labels_agrees_with_a_plain_reference_at_any_threshold():
    true, predicted = balls(SHAPE, 0), np.roll(balls(SHAPE, 0), (1, -1, 2), axis=(0, 1, 2))
    predicted[balls(SHAPE, 1) == 3] = 200
    for found in match(true, predicted, threshold=[0.2, 0.5, 0.8, 1.0]):
        iou = {
            (t, p): ((true == t) & (predicted == p)).sum() / ((true == t) | (predicted == p)).sum()
            for t in np.unique(true[true > 0])
            for p in np.unique(predicted[predicted > 0])
        }
        assert all(
            iou[pair] == pytest.approx(score) for pair, score in zip(map(tuple, found.pairs), found.scores, strict=True)
        )
        assert (found.scores >= found.threshold).all()
        assert found.tp + found.fn == found.n_true == len(np.unique(true)) - 1
        assert found.tp + found.fp == found.n_predicted == len(np.unique(predicted)) - 1
        if found.threshold >= 0.5:  # then nobody has two partners
            assert found.tp == sum(value >= found.threshold for value in iou.values())
    quality = InstanceMetrics(metric_name="panoptic_quality")
    quality(torch.as_tensor(predicted)[None, None], torch.as_tensor(true)[None, None])
    assert match(true, predicted).panoptic_quality == pytest.approx(float(quality.aggregate()))


def test_match_ignores_what_the_truth_ignores_and_counts_merged_and_split():
    true = np.zeros((6, 8, 12), int)
    true[1:3, 1:3, 1:3], true[1:3, 1:3, 4:6], true[1:5, 4:7, 1:5], true[:, :, 9:] = 1, 2, 3, -1
    predicted = np.zeros_like(true)
    predicted[1:3, 1:3, 1:6], predicted[1:5, 4:7, 1:3], predicted[1:5, 4:7, 3:5], predicted[1:4, 1:4, 10:] = 1, 2, 3, 4
    found = match(true, predicted)
    assert (found.n_true, found.n_predicted, found.merged, found.split) == (3, 3, 2, 1)
    assert found.tp == 1 and found.pairs.tolist() == [[3, 2]] and found.mean_score == 0.5


def test_match_of_centers_takes_tables_lists_and_arrays(tmp_path):
    (tmp_path / "picks.csv").write_text("x_angstrom,y_angstrom,z_angstrom,score\n0,0,0,1\n50,0,0,0.5\n90,0,0,0.2\n")
    picks = read_particles(tmp_path / "picks.csv")
    table = pd.DataFrame([[48, 0, 0], [3, 4, 0]], columns=["x_angstrom", "y_angstrom", "z_angstrom"])
    for predicted in (picks, picks.to_dataframe(), picks.centers_xyz_angstrom):
        found = match(table, predicted, threshold=5)
        assert (found.tp, found.fp, found.fn) == (2, 1, 0) and found.pairs.tolist() == [[0, 1], [1, 0]]
        assert found.scores.tolist() == [2.0, 5.0] and np.isnan(found.panoptic_quality)
    assert match(table, np.zeros((0, 3)), 5).recall == 0 and np.isnan(match([], [], 5).f1)


def test_match_says_what_cannot_be_compared():
    labels, centers = np.ones(SHAPE, int), np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"got true labels \(Z, Y, X\) and predicted centers"):
        match(labels, centers)
    with pytest.raises(ValueError, match="centers need a threshold"):
        match(centers, centers)
    with pytest.raises(ValueError, match="threshold: expected an IoU above 0 and at most 1, got 50"):
        match(labels, labels, 50)
    with pytest.raises(ValueError, match="expected the columns x_angstrom, .* in both tables, got a; x, y, z"):
        match(pd.DataFrame({"a": [1]}), pd.DataFrame(centers, columns=["x", "y", "z"]), 5)
    with pytest.raises(ValueError, match=r"over the same voxels"):
        match(labels, labels[1:])


def test_train_from_arrays_ends_in_weights_that_detect_takes(tmp_path):
    volumes = [
        (np.random.default_rng(n).normal(0, 0.5, SHAPE) - (balls(SHAPE, n) > 0), balls(SHAPE, n)) for n in (0, 1)
    ]
    small = {**SMALL_TRAINING, "epochs": 1, "device": "cpu", "progress": False}
    made = train(*([one] for one in volumes[0]), *([one] for one in volumes[1]), output_dir=tmp_path, voxel_size=10,
                 particle_diameter=DIAMETER, **small)  # fmt: skip
    assert made.weights == tmp_path / "model.pt" and set(made.runs) == {"mask", "center"}
    assert made.metrics[["network", "epoch"]].to_numpy().tolist() == [["mask", 1], ["center", 1]]
    assert made.metrics["val_center_f1"].notna().tolist() == [False, True]
    networks = {f"network_def#{name}_network": SMALL_TRAINING["network_def"] for name in made.runs}
    found = detect(volumes[1][0], voxel_size=10, weights=made.weights, tile=[32, 32, 32], progress=False, **networks)
    assert found.labels.shape == SHAPE and not torch.are_deterministic_algorithms_enabled()


def test_train_from_files_of_one_network_and_its_errors(tmp_path):
    with pytest.raises(ValueError, match="expected one label volume for each training image, got 1 images and 0"):
        train(["a.mrc"], [], output_dir=tmp_path)
    with pytest.raises(ValueError, match="expected lists of training images and labels, got one volume"):
        train("a.mrc", "b.mrc", output_dir=tmp_path)
    with pytest.raises(ValueError, match="epoch: expected ids of configs/train_mask.json"):
        train([], [], output_dir=tmp_path, networks="mask", epoch=3)
    assert not list(tmp_path.iterdir())
    write_instances(tmp_path / "labels.mrc", balls(SHAPE, 0), VOXEL_SIZE)
    with pytest.raises(ValueError, match="^.*names a file that is not there: .*gone.mrc"):
        train([tmp_path / "gone.mrc"], [tmp_path / "labels.mrc"], output_dir=tmp_path / "out", networks=["mask"])


def test_train_knows_the_classes_of_labels(tmp_path, monkeypatch):
    """The runs themselves are those of the configs, whose tests train on classes."""

    def run(name, values):
        raise InterruptedError(values["classes"])

    monkeypatch.setattr("scripts.api.train._run", run)
    files = [tmp_path / name for name in ("a.mrc", "b.mrc")]
    (tmp_path / "b.csv").write_text("label,class\n1,6qzp\n")
    named, groups = [{1: "4v4r", 3: "vlp"}, tmp_path / "b.csv"], {"ribosome": ["4v4r", "6qzp"], "vlp": ["vlp"]}
    with pytest.raises(InterruptedError) as asked:
        train(files, files, classes_of=named, classes=groups, output_dir=tmp_path / "out", networks="center")
    assert asked.value.args == (groups,)
    datalist = json.loads((tmp_path / "out" / "data" / "dataset.json").read_text())
    tables = [classes_in_table(item["particles"]).to_dict() for item in datalist["training"]]
    assert tables == [{1: "4v4r", 3: "vlp"}, {1: "6qzp"}] and datalist["validation"] == []
    with pytest.raises(ValueError, match="expected the classes of each of 2 training label volumes, got 1"):
        train(files, files, classes_of=named[:1], output_dir=tmp_path / "out")


def test_readers_of_particle_lists_give_tables_with_everything(tmp_path):
    (tmp_path / "a.csv").write_text("x_angstrom,y_angstrom,z_angstrom,class,volume\n1,2,3,ribosome,7\n")
    table = read_particles(tmp_path / "a.csv").to_dataframe()
    assert SimpleNamespace(**table.iloc[0]).volume == "7" and table["class"].tolist() == ["ribosome"]
