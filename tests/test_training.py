"""Training: runs as written, can be killed and resumed, and says what is wrong with the data."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from custom_transforms.io import read_tomogram, write_instances
from scripts.console import user_message
from scripts.records.weights import file_digest
from tests.conftest import ROOT, SMALL_TRAINING, VOXEL_SIZE, run_config, write_dataset
from tests.forked_python import run_python


def train(name, dataset_dir, folder, **overrides):
    values = {**SMALL_TRAINING, **({"particle_diameter": 120} if "center" in name else {}), **overrides}
    return run_config(name, "training", dataset_dir=str(dataset_dir), output_dir=str(folder), **values)


def annotate(data, *regions):
    """Leave the labels of a dataset only where somebody looked; the rest becomes -1, as `prepare --region` does."""
    for name in ("labels_0.mrc", "labels_1.mrc"):
        labels = np.asarray(read_tomogram(data / name, check="labels")[0])
        seen = np.full(labels.shape, -1)
        for region in regions:
            seen[region] = labels[region]
        write_instances(data / name, seen, VOXEL_SIZE)


@pytest.mark.parametrize("name,metric", [("train_mask.json", "val_mask_dice"), ("train_center.json", "val_center_f1")])
def test_a_run_writes_weights_last_state_and_a_row_per_epoch(name, metric, dataset_dir, tmp_path):
    train(name, dataset_dir, tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"train_loss", metric, "val_loss", "learning_rate"} <= set(rows[0])
    record = json.loads((tmp_path / "run" / "model.json").read_text())
    best = max(rows, key=lambda row: float(row[metric]))
    assert record["metric"] == metric and record["epoch"] == int(best["epoch"])
    assert record["score"] == pytest.approx(float(best[metric]), abs=1e-6)  # the table is rounded
    assert record["training"]["voxel_size"] == VOXEL_SIZE and record["training"]["dataset"]["tomograms"] == 1
    assert record["sha256"] == file_digest(tmp_path / "run" / "model.pt")
    weights = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) and value.device.type == "cpu" for value in weights.values())


@pytest.mark.parametrize("device,said", [("meta", "expected cpu, cuda"), ("xpu", 'got "xpu"'), ("cuda:99", "GPUs are")])
def test_a_device_that_is_not_there_is_one_sentence_before_any_work(device, said, tmp_path):
    with pytest.raises(Exception) as error:
        train("train_mask.json", tmp_path / "nowhere", tmp_path / "run", device=device)
    assert "device" in user_message(error.value) and said in user_message(error.value)
    assert not (tmp_path / "run").exists()


def test_a_second_run_moves_the_first_aside_instead_of_overwriting_it(dataset_dir, tmp_path):
    for _ in range(2):
        train("train_mask.json", dataset_dir, tmp_path / "run", epochs=1)
    assert len(list(tmp_path.glob("run_*/model.pt"))) == 1
    assert (tmp_path / "run" / "model.pt").is_file()


def test_resuming_ends_with_the_weights_of_a_run_that_was_not_stopped(dataset_dir, tmp_path, monkeypatch):
    whole = train("train_center.json", dataset_dir, tmp_path / "whole", epochs=3)
    calls = []

    def die(path, content):
        calls.append(path)
        original(path, content)
        if path.name == "last.pt" and len([one for one in calls if one.name == "last.pt"]) == 2:
            raise KeyboardInterrupt

    from scripts import training

    original = training.save_tensors
    monkeypatch.setattr(training, "save_tensors", die)
    with pytest.raises(BaseException):  # noqa: B017  MONAI wraps the interrupt
        train("train_center.json", dataset_dir, tmp_path / "stopped", epochs=3)
    monkeypatch.setattr(training, "save_tensors", original)
    resumed = train("train_center.json", dataset_dir, tmp_path / "stopped", epochs=3, resume="true")
    for one, other in ((whole, resumed),):
        first = one.parser.get_parsed_content("network").state_dict()
        second = other.parser.get_parsed_content("network").state_dict()
        assert all(torch.equal(first[key], second[key]) for key in first)
    states = [torch.load(tmp_path / run / "last.pt", weights_only=True) for run in ("whole", "stopped")]
    assert states[0]["epoch"] == states[1]["epoch"] == 3
    assert all(torch.equal(states[0]["average"][key], states[1]["average"][key]) for key in states[0]["average"])
    assert states[0]["best"] == states[1]["best"]


def test_resuming_a_finished_run_trains_nothing(dataset_dir, tmp_path, caplog):
    train("train_mask.json", dataset_dir, tmp_path / "run", epochs=1)
    before = (tmp_path / "run" / "last.pt").stat().st_mtime_ns
    train("train_mask.json", dataset_dir, tmp_path / "run", epochs=1, resume="true")
    assert (tmp_path / "run" / "last.pt").stat().st_mtime_ns == before


def test_the_last_epoch_is_validated_whatever_the_interval(dataset_dir, tmp_path):
    train("train_mask.json", dataset_dir, tmp_path / "run", epochs=1, val_interval=2)
    assert (tmp_path / "run" / "model.pt").is_file()


@pytest.mark.parametrize("balance", [None, 1.0])
def test_validation_of_centers_keeps_more_ids_than_half_precision_holds(balance, tmp_path):
    data = write_dataset(tmp_path / "data", shape=(16, 40, 36))
    labels, _ = read_tomogram(data / "labels_1.mrc", check="labels")
    write_instances(data / "labels_1.mrc", np.where(labels > 0, labels.astype(int) + 5000, 0), VOXEL_SIZE)
    workflow = train("train_center.json", data, tmp_path / "run", epochs=1, center_balance=balance)
    label = next(iter(workflow.parser.get_parsed_content("validate#dataloader")))["label"]
    assert label.shape[1] == (2 if balance is None else 3)  # the last channel holds the instances
    np.testing.assert_array_equal(np.unique(label[0, -1])[1:], np.unique(labels)[1:].astype(int) + 5000)


def test_early_stopping_ends_a_run_that_no_longer_improves(dataset_dir, tmp_path):
    train(
        "train_mask.json", dataset_dir, tmp_path / "run", epochs=30, learning_rate=0.0, patience=2, crops_per_tomogram=2
    )
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert len(rows) < 30


@pytest.mark.parametrize("name", ["train_mask.json", "train_center.json"])
def test_a_tomogram_annotated_in_one_corner_is_validated_there(name, tmp_path):
    data = write_dataset(tmp_path / "data", shape=(24, 64, 72))
    annotate(data, np.s_[:, :22, :24])
    workflow = train(name, data, tmp_path / "run", epochs=1, val_region=[24, 24, 24])
    label = next(iter(workflow.parser.get_parsed_content("validate#dataloader")))["label"]
    assert label.shape[2:] == (24, 24, 24) and (label[0, -1, :, :22] >= 0).all() and (label[0, -1, :, 22:] == -1).all()
    assert json.loads((tmp_path / "run" / "model.json").read_text())["score"] is not None


@pytest.mark.parametrize("name,metric", [("train_mask.json", "val_mask_dice"), ("train_center.json", "val_center_f1")])
def test_without_a_label_to_validate_on_the_latest_weights_are_kept(name, metric, tmp_path, monkeypatch):
    said = []  # not caplog: configs run by other tests set the loggers up anew
    monkeypatch.setattr("scripts.training.logger.warning", lambda text, *values: said.append(text % values))
    data = write_dataset(tmp_path / "data")
    annotate(data, np.s_[:, :18, :20], np.s_[:, 30:, 36:])  # the middle of both is not labelled
    train(name, data, tmp_path / "run", epochs=3, patience=1, val_region=[8, 8, 8])
    text = (tmp_path / "run" / "model.json").read_text()
    record = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert (record["epoch"], record["score"], record["metric"]) == (3, None, metric)
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["average"]
    weights = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    assert all(torch.equal(value, state[f"module.{key}"]) for key, value in weights.items())
    assert len(said) == 1 and f"{metric} cannot be computed" in said[0] and "no labelled voxel" in said[0]


def test_a_score_replaces_none_and_nan_replaces_no_score(dataset_dir, tmp_path):
    workflow = train("train_mask.json", dataset_dir, tmp_path / "run", epochs=1)
    run = workflow.parser.get_parsed_content("training_run")
    run.best = {"epoch": 0, "score": None, "metric": None}
    for epoch, (score, kept) in enumerate([(np.nan, 1), (np.nan, 2), (0.0, 3), (np.nan, 3), (0.5, 5), (0.4, 5)], 1):
        run._keep(epoch, score, "val_mask_dice")
        assert run.best["epoch"] == kept == json.loads((tmp_path / "run" / "model.json").read_text())["epoch"]


@pytest.mark.parametrize("name", ["train_mask.json", "train_center.json"])
def test_a_tomogram_thinner_than_the_patch_trains_by_reflection(name, tmp_path):
    data = write_dataset(tmp_path / "data", shape=(11, 50, 52))
    train(name, data, tmp_path / "run", epochs=1, patch_size=[48, 48, 48])
    assert (tmp_path / "run" / "model.pt").is_file()


def test_a_volume_without_particles_is_an_error_that_names_it(tmp_path):
    data = write_dataset(tmp_path / "data", shape=(16, 40, 36))
    write_instances(data / "labels_0.mrc", torch.zeros(16, 40, 36, dtype=torch.int16).numpy(), VOXEL_SIZE)
    with pytest.raises(Exception) as error:
        train("train_mask.json", data, tmp_path / "run", epochs=1)
    message = user_message(error.value)
    assert "labels_0.mrc" in message and "expected at least 1" in message


def test_a_missing_datalist_is_an_error_that_says_how_to_make_one(tmp_path):
    with pytest.raises(Exception) as error:
        train("train_mask.json", tmp_path, tmp_path / "run")
    assert "expected a datalist, found none. Make one with `python -m scripts prepare`" in user_message(error.value)


COMMAND = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file"]


def small_options(folder, **values):
    network = ROOT / "tests" / "small_network.json"
    options = {
        "dataset_dir": folder / "data",
        "output_dir": folder / "run",
        "patch_size": "[32,32,32]",
        "device": "cpu",
        "network_def": f"%{network}#network_def",
        "crops_per_tomogram": 4,
        **values,
    }
    return [text for key, value in options.items() for text in (f"--{key}", str(value))]


@pytest.mark.slow
def test_the_exact_command_works_from_the_root_and_with_bundle_root_from_elsewhere(tmp_path):
    write_dataset(tmp_path / "data")
    command = [*COMMAND[1:], "configs/train_center.json", *small_options(tmp_path, epochs=1)]
    run_python(*command, cwd=ROOT, check=True)
    assert (tmp_path / "run" / "model.pt").is_file()
    options = small_options(tmp_path, epochs=1, bundle_root=ROOT, output_dir=tmp_path / "elsewhere")
    run_python(*COMMAND[1:], ROOT / "configs" / "train_center.json", *options, cwd=tmp_path, check=True)
    assert (tmp_path / "elsewhere" / "model.pt").is_file()


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_weights_of_one_that_was_not_killed(tmp_path):
    write_dataset(tmp_path / "data")
    whole = [*COMMAND, "configs/train_mask.json", *small_options(tmp_path, epochs=8, output_dir=tmp_path / "whole")]
    run_python(*whole[1:], cwd=ROOT, check=True)
    command = [*COMMAND, "configs/train_mask.json", *small_options(tmp_path, epochs=8)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = tmp_path / "run" / "metrics.csv"
    deadline = time.time() + 120
    while (
        process.poll() is None
        and time.time() < deadline
        and not (log.is_file() and len(log.read_text().splitlines()) > 3)
    ):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    run_python(*command[1:], "--resume", "true", cwd=ROOT, check=True)
    states = [torch.load(tmp_path / run / "last.pt", weights_only=True) for run in ("whole", "run")]
    for part in ("network", "average"):
        assert all(torch.equal(states[0][part][key], states[1][part][key]) for key in states[0][part]), part


@pytest.mark.slow
def test_two_processes_train_together_to_the_end(tmp_path):
    """Every combination of epochs, val_interval and patience that ends differently, each resumed for two epochs."""
    write_dataset(tmp_path / "data", training=2)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    result = subprocess.run(
        [*launcher, "-m", "tests.two_processes", tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-3000:]
    for run in sorted(tmp_path.glob("epochs*")):
        rows = list(csv.DictReader((run / "metrics.csv").open()))
        last = int(re.match(r"epochs(\d)", run.name)[1]) + 2
        assert [int(row["epoch"]) for row in rows][: len(rows)] == list(range(1, len(rows) + 1)), run.name
        assert len(rows) == last or "patience1" in run.name, run.name
        assert rows[-1]["val_mask_dice"] != "", run.name


def test_training_runs_straight_on_what_prepare_wrote_and_sees_its_ignored_voxels(tmp_path):
    from scripts.preparation.prepare import prepare

    data = write_dataset(tmp_path / "raw", shape=(24, 40, 48), training=1)
    rows = ["tomogram,x_vox,y_vox,z_vox"]
    for index in range(2):
        rows += [f"tomogram_{index},{x},{y},12" for x in (9, 22, 35) for y in (10, 28)]
    (data / "picks.csv").write_text("\n".join(rows) + "\n")
    tomograms = [str(data / f"tomogram_{index}.mrc") for index in range(2)]
    prepare(
        *tomograms,
        particles=str(data / "picks.csv"),
        radius=60.0,
        ignore_shell=20.0,
        region="0:24,0:40,0:44",
        output_dir=str(tmp_path / "prepared"),
        quiet=True,
    )
    items = json.loads((tmp_path / "prepared" / "dataset.json").read_text())
    assert len(items["training"]) == len(items["validation"]) == 1
    labels, _ = read_tomogram(tmp_path / "prepared" / items["training"][0]["label"], check="labels")
    assert (labels == -1).any() and labels.max() == 6 and (labels[:, :, 44:] == -1).all()
    for name in ("train_mask.json", "train_center.json"):
        workflow = train(name, tmp_path / "prepared", tmp_path / name, epochs=1)
        batch = next(iter(workflow.parser.get_parsed_content("train#dataloader")))
        assert (batch["label"] == -1).any() and batch["label"].max() > 0.5
        assert (tmp_path / name / "model.pt").is_file()
