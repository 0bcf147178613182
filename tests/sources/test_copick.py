"""copick projects: what copick wrote is read, what we write copick reads, to 0.01 Å."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser
from scipy.spatial.transform import Rotation

from custom_transforms.io import LoadTomogramd, read_tomogram
from scripts.command_line.parser import main
from scripts.datalist import load_datalist
from scripts.evaluation.evaluate import evaluate
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import tomogram_base_name
from scripts.preparation.copick import project_radii
from scripts.preparation.prepare import prepare
from scripts.sources import tomograms
from scripts.sources.copick_project import find_tomograms, list_tomograms, open_project, read_picks, read_picks_by_uri
from scripts.sources.copick_write import write_picks, write_segmentation
from tests.conftest import DIAMETER, SMALL_NETWORK, SMALL_TRAINING, VOXEL_SIZE, balls, python_with, run_config
from tests.detection.detect_scene import Blobs
from tests.volumes.test_zarr import save_zarr

pytest.importorskip("zarr")

HERE = Path(__file__).parent
SHAPE = (12, 20, 28)
COPICK_PYTHON = python_with("copick")
needs_copick = pytest.mark.skipif(
    not COPICK_PYTHON, reason="COPICK_PYTHON names no Python with copick (it cannot be installed beside zarr 3)"
)


@pytest.fixture
def project(tmp_path):
    """The golden project with its static folder, and an empty overlay."""
    with tarfile.open(HERE.parent / "golden" / "copick" / "project.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    config = json.loads((tmp_path / "project.json").read_text())
    config.update(static_root=f"local://{tmp_path}/static", overlay_root=f"{tmp_path}/overlay")
    (tmp_path / "project.json").write_text(json.dumps(config))
    return tmp_path / "project.json"


def read_by_copick(project):
    done = subprocess.run(
        [COPICK_PYTHON, str(HERE / "copick_with_its_own_library.py"), "read", str(project.parent)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def some_particles(run="TS_001", name="ribosome", count=5, seed=3):
    rng = np.random.default_rng(seed)
    centers = rng.uniform(0, 1, (count, 3)) * (np.array(SHAPE[::-1]) - 1) * 10.012
    return ParticleList(centers, run, name, rng.uniform(0, 1, count), Rotation.random(count, random_state=seed))


def test_tomograms_of_every_run_are_found_and_read_with_their_voxel_size(project):
    found = find_tomograms(f"copick:{project}/wbp@10.012")
    assert [(one.run, one.tomo_type, one.voxel_spacing) for one in found] == [
        ("TS_001", "wbp", 10.012),
        ("TS_002", "wbp", 10.012),
    ]
    assert find_tomograms(f"copick:{project}") == found and [tomogram_base_name(one.path) for one in found] == [
        "TS_001",
        "TS_002",
    ]
    for index, one in enumerate(found):
        volume, meta = read_tomogram(one.path)
        assert np.array_equal(volume, np.random.default_rng(index).normal(size=SHAPE).astype(np.float32))
        np.testing.assert_allclose(meta["voxel_size_zyx"], 10.012)
    assert list_tomograms(project, runs=["TS_002"]) == found[1:] and list_tomograms(project, voxel_spacing=5) == []
    with pytest.raises(ValueError, match=r"has none of these. Name one that it has: wbp@10.012"):
        find_tomograms(f"copick:{project}/wbp@5")


def test_picks_are_read_with_run_object_orientation_and_radius(project):
    every = read_picks(project)
    assert list(every.tomogram) == ["TS_001"] * 3 and list(every.class_name) == ["proteasome", "ribosome", "ribosome"]
    np.testing.assert_allclose(
        every.centers_xyz_angstrom, [[200, 60, 40], [10.0, 20.25, 30.5], [111.11, 70.7, 50.05]], atol=1e-9
    )
    np.testing.assert_allclose(every.rotation.as_euler("zyx", degrees=True), [[30, 0, 0]] * 3, atol=1e-9)
    assert list(every.radius_angstrom) == [80.0, 120.0, 120.0]
    some = read_picks_by_uri(f"copick:{project}/ribosome:alice/1")
    assert np.array_equal(some.centers_xyz_angstrom, every.centers_xyz_angstrom[1:])
    assert len(read_picks(project, "proteasome")) == 1
    with pytest.raises(ValueError, match=r"no picks ribosome:bob/\*; the project has proteasome:alice/1, ribosome:al"):
        read_picks_by_uri(f"copick:{project}/ribosome:bob")


@needs_copick
def test_what_is_written_copick_reads_with_positions_to_a_hundredth_of_an_angstrom(project):
    one, two = some_particles(), some_particles("TS_002", "proteasome", seed=4)
    bare = ParticleList(one.centers_xyz_angstrom, "TS_002", "ribosome")
    write_picks(ParticleList.concat([one]), project, user="detection", session="1", voxel_spacing=10.012)
    write_picks(two, project, "*", "detection", "2")
    write_picks(bare, project, "ribosome", "detection", "3")
    labels = np.random.default_rng(0).integers(-1, 400, SHAPE).astype(np.int16)
    write_segmentation(labels, 10.012, project, "TS_001", "ribosome")
    write_segmentation(labels, 10.012, project, "TS_002", "ribosome", session="2", kind="binary")
    found = read_by_copick(project)
    for key, known in (("TS_001 ribosome:detection/1", one), ("TS_002 proteasome:detection/2", two)):
        picks = found["picks"][key]
        np.testing.assert_allclose(picks["points"], known.centers_xyz_angstrom, atol=0.01)
        np.testing.assert_allclose(np.array(picks["transforms"])[:, :3, :3], known.rotation.as_matrix(), atol=1e-9)
        np.testing.assert_allclose(picks["scores"], known.score)
        assert picks["trust"] is True
    assert found["picks"]["TS_002 ribosome:detection/3"]["trust"] is False
    assert "TS_001 ribosome:alice/1" in found["picks"] and len(found["tomograms"]) == 2
    instances = np.array(found["segmentations"]["TS_001 instance ribosome:detection/1@10.012"])
    assert np.array_equal(instances, np.maximum(labels, 0))
    binary = np.array(found["segmentations"]["TS_002 binary ribosome:detection/2@10.012"])
    assert np.array_equal(binary, labels > 0)


@needs_copick
def test_the_golden_project_is_what_copick_writes(project, tmp_path):
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    subprocess.run(
        [COPICK_PYTHON, str(HERE / "copick_with_its_own_library.py"), "make", str(fresh)], check=True, timeout=120
    )
    golden, made = read_picks(project), read_picks(fresh / "project.json")
    np.testing.assert_allclose(made.centers_xyz_angstrom, golden.centers_xyz_angstrom)
    pairs = zip(list_tomograms(project), list_tomograms(fresh / "project.json"), strict=True)
    assert all(np.array_equal(read_tomogram(a.path)[0], read_tomogram(b.path)[0]) for a, b in pairs)


def test_written_picks_and_segmentations_come_back_by_our_own_reader(project):
    known = some_particles()
    (path,) = write_picks(known, project, "ribosome", "detection", "7")
    assert path.name == "detection_7_ribosome.json" and "overlay" in path.parts
    found = read_picks(project, "ribosome", "detection", "7")
    np.testing.assert_allclose(found.centers_xyz_angstrom, known.centers_xyz_angstrom, atol=1e-5)
    np.testing.assert_allclose((found.rotation * known.rotation.inv()).magnitude(), 0, atol=1e-7)
    with pytest.raises(ValueError, match=r"TS_001 has ribosome picked as ribosome:alice/1 and as ribosome:detection/7"):
        read_picks(project)
    labels = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int32) - 1
    target = write_segmentation(labels, 10.012, project, "TS_001", "ribosome")
    assert np.array_equal(read_tomogram(target, check="labels")[0], np.maximum(labels, 0))


def test_nothing_is_overwritten_or_written_in_part(project):
    known = some_particles()
    write_picks(known, project)
    with pytest.raises(ValueError, match="these picks are there already. Choose another session, or --overwrite"):
        write_picks(known, project)
    assert len(write_picks(known, project, overwrite=True)) == 1
    mixed = ParticleList.concat([known, some_particles(name="virus")])
    with pytest.raises(ValueError, match="no object 'virus'; it has ribosome, proteasome"):
        write_picks(mixed, project, session="9")
    assert not list(project.parent.glob("overlay/**/*_9_*"))
    write_segmentation(np.ones(SHAPE, int), 10.0, project, "TS_001", "ribosome")
    with pytest.raises(ValueError, match="segmentation is there already"):
        write_segmentation(np.ones(SHAPE, int), 10.0, project, "TS_001", "ribosome")
    assert write_picks(ParticleList(np.zeros((0, 3))), project) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"run": "TS_009"}, "no run 'TS_009'; it has TS_001, TS_002"),
        ({"user": "my_name"}, "copick user: expected a name without spaces, _ and other signs, got 'my_name'"),
        ({"session": ""}, "copick session: expected a name"),
        ({"user": ".."}, "copick user: expected a name for files, got '..', which begins with a dot"),
        ({"user": ".me"}, "copick user: expected a name for files, got '.me', which begins with a dot"),
        ({"session": "../1"}, "copick session: expected a name without spaces, _ and other signs, got '../1'"),
        ({"session": "$HOME"}, "copick session: expected a name without spaces, _ and other signs, got '.HOME'"),
    ],
)
def test_a_target_that_copick_could_not_find_is_refused(project, options, message):
    particles = some_particles(options.pop("run", "TS_001"))
    before = sorted(project.parent.parent.rglob("*"))
    with pytest.raises(ValueError, match=message):
        write_picks(particles, project, **options)
    assert sorted(project.parent.parent.rglob("*")) == before


def test_a_project_without_tomograms_and_particles_without_a_run_are_told(project, tmp_path):
    config = {"config_type": "filesystem", "pickable_objects": [], "overlay_root": "local:///nowhere/overlay"}
    (tmp_path / "empty.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"no tomograms. Expected /nowhere/overlay to hold ExperimentRuns/RUN/Voxel"):
        find_tomograms(f"copick:{tmp_path / 'empty.json'}")
    with pytest.raises(ValueError, match=r"name no tomogram, .* Give --tomogram RUN; the project has TS_001, TS_002"):
        write_picks(some_particles(run=""), project, "ribosome")


def test_configs_that_cannot_be_used_are_told(tmp_path):
    path = tmp_path / "p.json"
    with pytest.raises(FileNotFoundError, match="no such copick config"):
        open_project(path)
    for text, message in (
        ("{", "expected JSON, but line 1 is not"),
        ("[]", "expected a copick config with pickable_objects"),
        ('{"pickable_objects": [], "config_type": "cryoet_data_portal"}', "copy the project to a local one|Copy the"),
        ('{"pickable_objects": [], "overlay_root": "s3://bucket/x"}', "its root is s3://bucket/x"),
        ('{"pickable_objects": [3], "overlay_root": "x"}', "expected pickable_objects with a name each"),
        ('{"pickable_objects": 3, "overlay_root": "x"}', "expected a list as pickable_objects, got '3'"),
        (
            '{"pickable_objects": [], "overlay_root": "x", "static_root": 3}',
            "expected a folder as static_root, got '3'",
        ),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            open_project(path)
    for uri in ("copick:p.txt", "copick:"):
        with pytest.raises(ValueError, match="expected copick:CONFIG.json"):
            find_tomograms(uri)


def segment(project, run="TS_001", user="alice", session="1"):
    """An instance segmentation of three balls, whose centers are the same picks' of that user and session."""
    labels = np.zeros(SHAPE, np.int32)
    centers = np.array([[4, 5, 6], [6, 12, 20], [8, 14, 8]])
    for number, center in enumerate(centers, 1):
        labels[((np.indices(SHAPE) - center.reshape(3, 1, 1, 1)) ** 2).sum(axis=0) <= 9] = number
    write_segmentation(labels, 10.012, project, run, "ribosome", user, session)
    return labels, centers[:, ::-1] * 10.012


def test_prepare_takes_tomograms_picks_and_radii_from_a_project(project, tmp_path):
    config = json.loads(project.read_text())
    config["pickable_objects"][0]["radius"] = 25.0  # 120 Å would fill this tomogram
    project.write_text(json.dumps(config))
    uri = f"copick:{project}"
    call = ["--particles", f"{uri}/ribosome:alice/1", "--output_dir", str(tmp_path / "data"), "--quiet"]
    assert main(["prepare", f"{uri}/wbp@10.012", *call]) == 0
    dataset = json.loads((tmp_path / "data" / "dataset.json").read_text())
    (item,) = dataset["training"]
    assert tomogram_base_name((tmp_path / "data" / item["image"]).resolve()) == "TS_001"
    labels, _ = read_tomogram(tmp_path / "data" / item["label"], check="labels")
    picks = read_picks(project, "ribosome", "alice", "1").centers_xyz_angstrom
    assert [labels[tuple(np.rint(center[::-1] / 10.012).astype(int))] > 0 for center in picks] == [True] * 2
    radius = project_radii(uri)["ribosome"]
    inside = radius >= np.linalg.norm(np.indices(SHAPE).T[..., ::-1] * 10.012 - picks[0], axis=-1).T
    assert (labels[inside] > 0).all()
    assert load_datalist(tmp_path / "data", "training")[0]["voxel_size"] == pytest.approx(10.012)


def test_prepare_moves_particles_to_the_detections_of_their_own_run(project, tmp_path):
    uri = f"copick:{project}"
    picks = read_picks(project, "ribosome", "alice", "1")
    for run in ("TS_001", "TS_002"):
        nearby = picks.centers_xyz_angstrom + (8.0 if run == "TS_002" else -16.0)
        write_picks(ParticleList(nearby, run, "ribosome", np.ones(len(picks))), project, user="detection")
    tomograms = [str(one.path) for one in find_tomograms(f"{uri}/wbp@10.012")]
    prepare(
        *tomograms, particles=f"{uri}/ribosome:alice/1", radius=25.0, recenter=40.0, validation_fraction=0.0,
        recenter_on=f"{uri}/ribosome:detection/1", output_dir=str(tmp_path / "data"), quiet=True,
    )  # fmt: skip
    moved = json.loads((tmp_path / "data" / "prepare.json").read_text())["tomograms"]["TS_001"]["recentered"]
    assert moved["mean_angstrom"] == pytest.approx(16.0 * 3**0.5, abs=0.05)


def test_prepare_takes_labels_from_a_project_and_training_takes_them_without_it(project, tmp_path):
    known = {run: segment(project, run)[0] for run in ("TS_001", "TS_002")}
    uri = f"copick:{project}"
    prepare(f"{uri}/wbp@10.012", labels=f"{uri}/ribosome:alice/1@10.012", output_dir=str(tmp_path / "data"), quiet=True)
    for section in ("training", "validation"):
        (made,) = load_datalist(tmp_path / "data", section)
        (item,) = load_datalist(f"{uri}/wbp@10.012/ribosome:alice/1", section)
        data = LoadTomogramd(["image"], ["label"])(item)
        run = tomogram_base_name(item["image"])
        assert np.array_equal(np.asarray(data["label"])[0], known[run])
        assert np.array_equal(read_tomogram(made["label"], check="labels")[0], known[run])
    with pytest.raises(
        ValueError, match=r"no instance segmentation ribosome:bob/1@10.012; the project has ribosome:al"
    ):
        load_datalist(f"{uri}/wbp@10.012/ribosome:bob/1", "training")
    with pytest.raises(
        ValueError, match=r"expected copick:CONFIG.json/TYPE@SPACING/OBJECT:USER/SESSION, tomograms and"
    ):
        load_datalist(f"{uri}/wbp@10.012", "training")


def test_evaluate_compares_picks_and_segmentations_of_a_project(project, tmp_path):
    uri = f"copick:{project}"
    _, centers = segment(project, session="2")
    found = ParticleList(centers[:2] + 5.0, "TS_001", "ribosome", [0.9, 0.8])
    write_picks(found, project, user="detection")
    scores = evaluate(f"{uri}/ribosome:detection/1", f"{uri}/ribosome:alice/2@10.012", bootstrap=0)
    points = scores["pooled"]["points"]
    assert (points["precision"], points["recall"]) == (1.0, pytest.approx(2 / 3))
    picks = evaluate(f"{uri}/ribosome:detection/1", f"{uri}/ribosome:alice/1", bootstrap=0)["pooled"]["points"]
    assert picks["recall"] < 1 and list(scores["tomograms"]) == ["TS_001"]
    both = evaluate(f"{uri}/ribosome:alice/2@10.012", f"{uri}/ribosome:alice/2@10.012", bootstrap=0)["pooled"]
    assert both["volume"]["f1"] == 1.0 and both["points"]["f1"] == 1.0
    with pytest.raises(ValueError, match=r"no picks virus:\*/\*; the project has proteasome:alice/1"):
        evaluate(f"{uri}/virus", f"{uri}/ribosome:alice/1")


def test_export_reads_and_writes_the_picks_of_a_project(project, tmp_path, capsys):
    uri = f"copick:{project}"
    star = tmp_path / "picks.star"
    call = ["export", f"{uri}/ribosome:alice/1", str(star), "--to_format", "relion5"]
    assert main([*call, "--tomogram", f"{uri}/wbp@10.012", "--only_tomogram", "TS_001"]) == 0
    assert (
        main(["export", str(star), f"{uri}/ribosome:me/3", "--tomogram", f"{uri}/wbp", "--only_tomogram", "TS_001"])
        == 0
    )
    back, known = read_picks(project, "ribosome", "me", "3"), read_picks(project, "ribosome", "alice", "1")
    np.testing.assert_allclose(back.centers_xyz_angstrom, known.centers_xyz_angstrom, atol=0.01)
    np.testing.assert_allclose((back.rotation * known.rotation.inv()).magnitude(), 0, atol=1e-4)
    again = ["export", str(star), f"{uri}/ribosome:me/3", "--tomogram", f"{uri}/wbp", "--only_tomogram", "TS_001"]
    assert main(again) == 1 and "these picks are there already" in capsys.readouterr().err
    assert main([*again, "--overwrite"]) == 0
    assert (
        main(["export", str(star), f"{uri}/ribosome"]) == 1
        and "with the user and the session" in capsys.readouterr().err
    )
    assert main([*call, "--overwrite", "--tomogram", f"{uri}/wbp"]) == 1
    assert "expected one run, with --only_tomogram; it has TS_001, TS_002" in capsys.readouterr().err


def test_a_link_in_a_project_keeps_the_name_of_its_run(project):
    run = project.parent / "overlay" / "ExperimentRuns" / "TS_003" / "VoxelSpacing10.012"
    run.mkdir(parents=True)
    (run / "wbp.zarr").symlink_to(find_tomograms(f"copick:{project}")[0].path)
    items = tomograms.find_tomograms([f"copick:{project}/wbp@10.012"])
    assert [tomogram_base_name(one["image"]) for one in items] == ["TS_001", "TS_002", "TS_003"]
    assert {one["voxel_size"] for one in items} == {10.012}


def test_a_detection_of_nothing_replaces_earlier_picks_and_programs_names_lead_to_the_run(project):
    write_picks(some_particles("rec_TS_001.mrc"), project)
    assert len(read_picks(project, "ribosome", "detection")) == 5
    nothing = ParticleList(np.zeros((0, 3)))
    write_picks(nothing, project, "ribosome", overwrite=True, run="TS_001")
    assert len(read_picks(project, "ribosome", "detection")) == 0
    if COPICK_PYTHON:
        assert read_by_copick(project)["picks"]["TS_001 ribosome:detection/1"]["points"] == []


@pytest.mark.slow
def test_a_project_is_trained_on_detected_and_gets_its_picks_back(tmp_path, monkeypatch, capsys):
    """By the commands of a user, straight from the project: a step of training, detection, evaluation."""
    folder = tmp_path / "p"
    objects = [{"name": "ribosome", "is_particle": True, "label": 1, "radius": DIAMETER / 2}]
    config = {"name": "t", "description": "", "version": "1.31.0", "pickable_objects": objects}
    folder.mkdir()
    project = folder / "project.json"
    project.write_text(json.dumps({**config, "config_type": "filesystem", "overlay_root": str(folder)}))
    for number, run in enumerate(("TS_001", "TS_002")):
        labels = balls((24, 48, 56), seed=number)
        place = folder / "ExperimentRuns" / run / "VoxelSpacing10.000"
        place.mkdir(parents=True)
        noise = np.random.default_rng(number).normal(0, 0.2, labels.shape)
        save_zarr(place / "wbp.zarr", (noise - (labels > 0)).astype(np.float32), VOXEL_SIZE)
        write_segmentation(labels, VOXEL_SIZE, project, run, "ribosome", "alice", "1")
    uri = f"copick:{project}"
    options = {**SMALL_TRAINING, "epochs": 1, "crops_per_tomogram": 2, "particle_diameter": DIAMETER}
    run_config(
        "train_center.json", "training", **options, dataset_dir=f"{uri}/wbp@10/ribosome:alice/1",
        output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    assert (tmp_path / "run" / "model.pt").is_file()

    networks = {
        "_target_": "scripts.networks.MaskAndCenterNet",
        "mask_network": SMALL_NETWORK,
        "center_network": SMALL_NETWORK,
    }
    torch.save(ConfigParser({"n": networks}).get_parsed_content("n").state_dict(), tmp_path / "model.pt")
    # after one step real networks find nothing yet
    monkeypatch.setattr("scripts.networks.load_weights", lambda network, path, **_: Blobs())
    settings = {"tile": [32, 32, 32], "mask_threshold": 0.45, "center_threshold": 0.01, "min_size": 1.0}
    (tmp_path / "settings.json").write_text(json.dumps({**settings, "network_def": networks, "report": False}))
    call = ["detect", f"{uri}/wbp@10", "--config", str(tmp_path / "settings.json"), "--device", "cpu"]
    call += ["--weights", str(tmp_path / "model.pt"), "--particle_diameter", str(DIAMETER)]
    call += ["--output_dir", str(tmp_path / "out")]
    assert main(call) == 0  # without picks in the project
    assert main([*call, "--copick", f"{uri}/ribosome:detection/1"]) == 1
    assert "detected before with other copick" in capsys.readouterr().err
    assert main([*call, "--copick", f"{uri}/ribosome:detection/1", "--overwrite"]) == 0
    assert main([*call, "--copick", f"{uri}/ribosome:alice/1", "--output_dir", str(tmp_path / "o")][:-2]) == 1
    found = read_by_copick(project) if COPICK_PYTHON else None
    for run in ("TS_001", "TS_002"):
        table = pd.read_csv(tmp_path / "out" / run / f"{run}_particles.csv")
        kept = table[table["label"] > 0]
        assert len(kept) > 3
        centers = kept[["x_angstrom", "y_angstrom", "z_angstrom"]].to_numpy()
        picks = read_picks(project, "ribosome", "detection", "1", [run])
        np.testing.assert_allclose(picks.centers_xyz_angstrom, centers, atol=0.01)
        np.testing.assert_allclose(picks.score, kept["score"], rtol=1e-5)
        if found:
            np.testing.assert_allclose(found["picks"][f"{run} ribosome:detection/1"]["points"], centers, atol=0.01)
            instances = found["segmentations"][f"{run} instance ribosome:detection/1@10.0"]
            labels, _ = read_tomogram(tmp_path / "out" / run / f"{run}_instances.mrc", check="labels")
            assert np.array_equal(instances, labels)
    assert main(["evaluate", f"{uri}/ribosome:detection/1@10", f"{uri}/ribosome:alice/1@10",
                 "--output_dir", str(tmp_path / "scores"), "--bootstrap", "0"]) == 0  # fmt: skip
    scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert scores["pooled"]["points"]["recall"] > 0.5
