"""copick projects: what copick wrote is read, what we write copick reads, to 0.01 Å."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from scipy.spatial.transform import Rotation

from custom_transforms.io import read_tomogram
from scripts.copick_project import find_tomograms, list_tomograms, open_project, read_picks, read_picks_by_uri
from scripts.copick_write import write_picks, write_segmentation
from scripts.datalist import find_tomograms as find_items
from scripts.detect import Detector
from scripts.particles.context import tomogram_base_name
from scripts.particles.particle_list import ParticleList
from tests.conftest import DIAMETER, SMALL_NETWORK, SMALL_TRAINING, VOXEL_SIZE, balls, run_config
from tests.test_detect import Blobs
from tests.test_zarr import save_zarr

pytest.importorskip("zarr")

HERE = Path(__file__).parent
SHAPE = (12, 20, 28)
COPICK_PYTHON = os.environ.get("COPICK_PYTHON") or (sys.executable if find_spec("copick") else "")
needs_copick = pytest.mark.skipif(
    not COPICK_PYTHON, reason="COPICK_PYTHON names no Python with copick (it cannot be installed beside zarr 3)"
)


@pytest.fixture
def project(tmp_path):
    """The golden project with its static folder, and an empty overlay."""
    with tarfile.open(HERE / "golden" / "copick" / "project.tar.xz") as archive:
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
    with pytest.raises(ValueError, match=r"got 0. Name one of those in the project: wbp@10.012"):
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
    ],
)
def test_a_target_that_copick_could_not_find_is_refused(project, options, message):
    particles = some_particles(options.pop("run", "TS_001"))
    with pytest.raises(ValueError, match=message):
        write_picks(particles, project, **options)


def test_configs_that_cannot_be_used_are_told(tmp_path):
    path = tmp_path / "p.json"
    with pytest.raises(FileNotFoundError, match="no such copick config"):
        open_project(path)
    for text, message in (
        ("{", "not readable as JSON"),
        ("[]", "expected a copick config with pickable_objects"),
        ('{"pickable_objects": [], "config_type": "cryoet_data_portal"}', "copy the project to a local one|Copy the"),
        ('{"pickable_objects": [], "overlay_root": "s3://bucket/x"}', "its root is s3://bucket/x"),
        ('{"pickable_objects": [3], "overlay_root": "x"}', "expected pickable_objects with a name each"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            open_project(path)
    for uri in ("copick:p.txt", "copick:"):
        with pytest.raises(ValueError, match="expected copick:CONFIG.json"):
            find_tomograms(uri)


@pytest.mark.slow
def test_a_project_is_trained_on_detected_and_gets_its_picks_back(tmp_path):
    """Straight from the project: its tomogram and instance segmentation train, its tomogram is detected."""
    folder, labels = tmp_path / "p", balls((24, 48, 56), seed=0)
    run = folder / "ExperimentRuns" / "TS_001" / "VoxelSpacing10.000"
    run.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.2, labels.shape)
    save_zarr(run / "wbp.zarr", (noise - (labels > 0)).astype(np.float32), VOXEL_SIZE)
    objects = [{"name": "ribosome", "is_particle": True, "label": 1, "radius": DIAMETER / 2}]
    config = {"name": "t", "description": "", "version": "1.31.0", "pickable_objects": objects}
    project = folder / "project.json"
    project.write_text(json.dumps({**config, "config_type": "filesystem", "overlay_root": str(folder)}))
    truth = write_segmentation(labels, VOXEL_SIZE, project, "TS_001", "ribosome", "alice", "1")
    (item,) = find_items(f"copick:{project}/wbp@10")
    dataset = {"training": [{**item, "label": str(truth)}], "validation": [{**item, "label": str(truth)}]}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    options = {**SMALL_TRAINING, "epochs": 1, "dataset_dir": str(tmp_path), "particle_diameter": DIAMETER}
    run_config("train_center.json", "training", **options, output_dir=str(tmp_path / "run"))

    networks = {
        "_target_": "scripts.networks.MaskAndCenterNet",
        "mask_network": SMALL_NETWORK,
        "center_network": SMALL_NETWORK,
    }
    torch.save(ConfigParser({"n": networks}).get_parsed_content("n").state_dict(), tmp_path / "model.pt")
    detector = Detector(
        {
            "network_def": networks, "weights": str(tmp_path / "model.pt"), "tile": [32, 32, 32],
            "particle_diameter": DIAMETER, "mask_threshold": 0.45, "center_threshold": 0.01, "min_size": 1.0,
            "device": "cpu", "progress": False, "report": False, "output_dir": str(tmp_path / "out"),
            "write#copick": f"copick:{project}/ribosome:detection/1",
        }
    )  # fmt: skip
    detector.network = Blobs()
    table = detector(item["image"])["particles"]
    kept = table[table["label"] > 0]
    assert len(kept) > 3 and (tmp_path / "out" / "TS_001" / "TS_001.json").is_file()
    centers = kept[["x_angstrom", "y_angstrom", "z_angstrom"]].to_numpy()
    picks = read_picks(project, "ribosome", "detection", "1")
    np.testing.assert_allclose(picks.centers_xyz_angstrom, centers, atol=0.01)
    np.testing.assert_allclose(picks.score, kept["score"])
    if COPICK_PYTHON:
        found = read_by_copick(project)
        np.testing.assert_allclose(found["picks"]["TS_001 ribosome:detection/1"]["points"], centers, atol=0.01)
        assert np.max(found["segmentations"]["TS_001 instance ribosome:detection/1@10.0"]) == len(kept)
