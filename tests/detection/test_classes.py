"""Which particle is it: classes from the center maps to the files."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from custom_transforms.instances import (
    AssignInstancesd,
    FilterParticlesd,
    FindSeedsd,
    MaskFromProbabilityd,
    MeasureParticlesd,
    SplitPredictiond,
)
from custom_transforms.io import read_tomogram, write_mrc
from custom_transforms.labelling.blocks import Blocks
from custom_transforms.labelling.classes import ClassRules, SeedClasses, ball_offsets, score_classes
from custom_transforms.measuring.instance_centers import instance_centers
from custom_transforms.units import ParticleSizes
from custom_transforms.volumes.lazy import StoredVolume
from scripts.command_line.parser import main
from scripts.console import user_message
from scripts.detection.detector import Detector
from scripts.detection.plan import make_plan
from scripts.particles.particle_list import ParticleList
from scripts.records.weights import read_record
from scripts.settings import check_classes, check_setting, checked_settings
from scripts.sources.copick_project import read_picks
from scripts.sources.copick_write import write_picks
from tests.conftest import SMALL_NETWORK, SMALL_TRAINING, VOXEL_SIZE, balls, run_config
from tests.detection.test_streaming import assert_same, detect_both
from tests.volumes.test_zarr import save_zarr

SHAPE = (14, 18, 23)
NAMES = ["shell", "barrel", "hexamer", "ribosome", "dimer", "virus"]
DIAMETERS = dict(zip(NAMES, (60.0, 45.0, 80.0, 70.0, 30.0, 90.0), strict=True))
THRESHOLDS = dict(zip(NAMES, (0.2, 0.3, 0.5, 0.2, 0.4, 0.25), strict=True))


def class_prediction(seed, classes=6, levels=0, half=True):
    """Mask logit and center maps of random blobs, (1 + classes, Z, Y, X), as networks give them: also beyond 0..1."""
    rng = np.random.default_rng(seed)
    maps = np.stack([gaussian_filter(rng.normal(size=SHAPE), 1.3) for _ in range(1 + classes)])
    maps[1:] *= 1.1 / maps[1:].max()
    if levels:
        maps[1:] = np.round(maps[1:] * levels) / levels
    maps[0] = 40 * (maps[0] - np.quantile(maps[0], 0.5))
    return maps.astype(np.float16 if half else np.float64).astype(np.float32)


def steps(diameter, threshold, names=NAMES, method="watershed"):
    sizes = {"particle_diameter": diameter}
    return (
        SplitPredictiond(in_place=True),
        MaskFromProbabilityd(threshold=0.5, **sizes),
        FindSeedsd(threshold=threshold, classes=names, **sizes),
        AssignInstancesd(method=method, **sizes),
        MeasureParticlesd(**sizes),
        FilterParticlesd(in_place=True, **sizes),
    )


def in_memory(prediction, voxel, *settings):
    meta = {"voxel_size_zyx": voxel}
    data = {"pred": MetaTensor(torch.from_numpy(prediction.copy()), meta=meta)}
    for step in steps(*settings):
        data = step(data)
    return data["instances"].numpy()[0], data["particles"]


def in_blocks(prediction, voxel, block, *settings, **blocks):
    image = StoredVolume(prediction[0]).with_meta({"voxel_size_zyx": voxel})
    clipped = prediction[1:].clip(0, 1)
    maps = [prediction[0], clipped.max(axis=0), *clipped] if len(clipped) > 1 else [prediction[0], *clipped]
    data = {"image": image, "pred": [], "blocks": Blocks(SHAPE, block, **blocks)}
    for number, values in enumerate(maps):
        data["pred"].append(data["blocks"].volume(f"map_{number}", np.float16))
        data["pred"][-1][:] = values
    for step in steps(*settings):
        data = getattr(step, "streamed", step)(data)
    return data["instances"][:, :, :], data["particles"]


@settings(max_examples=8, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(5, 14), st.integers(7, 18), st.integers(9, 23)),
    st.sampled_from([0, 5]),
    st.sampled_from([1.0, 1.3]),
    st.booleans(),
)
def test_blocks_of_any_size_give_the_classes_of_the_whole(seed, block, levels, stretch, by_class):
    voxel = np.array([10.0 * stretch, 10.0, 10.0])
    rules = (DIAMETERS, THRESHOLDS) if by_class else (60.0, 0.3)
    prediction = class_prediction(seed, levels=levels)
    whole = in_memory(prediction, voxel, *rules)
    assert len(whole[1]) > 5 and whole[1]["class"].isin(["", *NAMES]).all()
    assert_same(in_blocks(prediction, voxel, block, *rules), whole)


@pytest.mark.parametrize("seed", range(4))
def test_seeds_are_those_of_a_plain_reading_of_the_rules(seed):
    """From the highest peak down; high enough for its class, and no nearer to another than both classes ask for."""
    voxel = np.array([13.0, 10.1, 9.0])  # no distance is exactly a limit, and no two voxels are alike
    prediction = class_prediction(seed, half=False) * 0.9
    maps = prediction[1:].clip(0, 1)
    highest = maps.max(axis=0)
    found = in_memory(prediction, voxel, DIAMETERS, THRESHOLDS)[1]
    sizes = [ParticleSizes.from_diameter(DIAMETERS[name]) for name in NAMES]
    ball = min(one.refine_radius for one in sizes) / 2
    grid = np.stack(np.indices(SHAPE), axis=-1).reshape(-1, 3)
    taken = []
    for at in sorted(grid.tolist(), key=lambda zyx: (-highest[tuple(zyx)], zyx)):
        around = tuple(slice(max(i - 1, 0), i + 2) for i in at)
        if highest[tuple(at)] < min(THRESHOLDS.values()) or highest[around].max() > highest[tuple(at)]:
            continue
        near = grid[(((grid - at) * voxel) ** 2).sum(axis=1) <= ball**2]
        means = [float(one[tuple(near.T)].astype(np.float64).mean()) for one in maps]
        kind = int(np.argmax(means))
        apart = [np.linalg.norm((np.array(at) - other) * voxel) for other, _, _ in taken]
        limits = [min(sizes[kind].min_distance, sizes[k].min_distance) for _, k, _ in taken]
        if highest[tuple(at)] >= np.float32(THRESHOLDS[NAMES[kind]]) and all(np.greater_equal(apart, limits)):
            taken.append((at, kind, means))
    taken.sort()
    seeds = found[found["class"] != ""]
    assert seeds["class"].tolist() == [NAMES[kind] for _, kind, _ in taken] and len(taken) > 8
    best = np.sort([means for _, _, means in taken], axis=1)[:, ::-1]
    np.testing.assert_allclose(seeds[["class_score", "runner_up_score"]], best[:, :2], atol=1e-12)
    assert (seeds["runner_up"] != seeds["class"]).all()
    assert len({NAMES[kind] for _, kind, _ in taken}) > 3


def test_one_named_class_finds_what_no_class_finds_and_names_it():
    prediction, voxel = class_prediction(3, classes=1), np.full(3, 10.0)
    labels, table = in_memory(prediction, voxel, 60.0, 0.3, None)
    named, with_class = in_memory(prediction, voxel, 60.0, 0.3, ["vlp"])
    assert np.array_equal(labels, named) and "class_score" not in table
    columns = [name for name in table if name != "class"]
    pd.testing.assert_frame_equal(with_class[columns], table[columns])
    seeds = with_class["class"] == "vlp"
    assert seeds.sum() > 3 and with_class["class_score"].notna().equals(seeds)
    assert with_class["runner_up_score"].isna().all() and set(with_class["class"]) <= {"vlp", ""}


def test_a_particle_must_be_as_large_as_its_class_asks_for():
    prediction, voxel = class_prediction(5), np.full(3, 10.0)
    table = in_memory(prediction, voxel, DIAMETERS, 0.3)[1]
    smallest = table["class"].map({name: (DIAMETERS[name] / 6) ** 3 for name in NAMES})
    small = table["volume_angstrom3"] < smallest
    assert small.any() and (table.loc[small, "dropped_by"] != "").all()
    assert (table.loc[~small & (table["volume_vox"] > 0), "dropped_by"] == "").all()


def test_class_maps_that_are_not_the_classes_are_refused():
    for names, wanted in ((["a", "b"], "each of 2 classes (a, b), got 6"), (None, "each of 1 classes, got 6")):
        with pytest.raises(ValueError, match=re.escape(wanted)):
            in_memory(class_prediction(0), np.full(3, 10.0), 60.0, 0.3, names)


def test_the_ball_holds_what_is_within_its_radius_and_ties_go_to_the_first_class():
    assert len(ball_offsets(0.1, 10.0)) == 1 and len(ball_offsets(10.0, (10.0, 10.0, 20.0))) == 5
    found = score_classes(np.full((2, 3, 4, 5), 0.5), ["a", "b"], np.array([[0, 0, 0]]), 10.0, 10.0)
    assert found.scores.tolist() == [[0.5, 0.5]] and found.index.tolist() == [0]
    assert len(SeedClasses(("a", "b"), np.zeros((0, 2))).index) == 0
    assert ClassRules.of(["a"], 0.5, 90.0, min_distance=7.0).min_distances.tolist() == [7.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": ["a", "a"]}, 'classes: expected a list of different names of letters, digits and . + - _'),
        ({"classes": ["a", "$b"]}, "classes: expected a list of different names"),
        ({"classes": "a"}, "classes: expected a list of different names"),
        ({"min_size": {"a": -1}, "classes": ["a"]}, "class a: min_size: expected a number of at least 0 (cubic Å), or"),
        ({"center_threshold": {"b": 0.5}, "classes": ["a"]}, "expected a value for each of the classes (a), got b."),
        ({"center_threshold": {"a": 0.5}, "classes": ["a", "b"]}, "each of the classes (a, b), got a."),
        ({"particle_diameter": {"a": 90.0}}, "particle_diameter: expected one value without classes, got a."),
        ({"center_threshold": {}}, "center_threshold: expected one value without classes, got none."),
    ],
)  # fmt: skip
def test_wrong_classes_say_what_was_expected(values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        checked_settings(**values)


def test_lengths_by_class_are_together_the_smallest_distances_and_the_largest_reaches():
    both = ParticleSizes.from_diameter({"a": 120.0, "b": 60.0}, min_size={"a": 10.0, "b": 20.0})
    assert (both.min_distance, both.refine_radius, both.min_size) == (20.0, 15.0, 10.0)
    assert (both.radius_max, both.neighbor_distance) == (180.0, 240.0)
    check_classes({"classes": ["a", "b"], "min_size": {"b": 1, "a": 2}})
    check_setting("min_size", {"a": 5})


MEMBERS = {"ribosome": ["4v4r", "6qzp"], "proteasome": ["proteasome"], "vlp": ["vlp"]}  # of the data set, merged


class ThreeKinds(torch.nn.Module):
    """Stands for trained networks: finds blobs, whose class is chance."""

    def forward(self, image):
        smooth = image
        for _ in range(3):
            smooth = torch.nn.functional.avg_pool3d(smooth, 3, 1, 1, count_include_pad=False)
        chance = 0.5 * smooth * (image - smooth)
        return torch.cat([12 * (smooth - 0.6), smooth / 2, smooth / 2 + chance, smooth / 2 - chance], dim=1)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A tomogram of balls, padding at one side, and options for a tiny network of three classes."""
    folder = tmp_path_factory.mktemp("classes")
    labels = balls((24, 44, 36), seed=0)
    volume = (np.random.default_rng(0).normal(0, 0.2, labels.shape) - (labels > 0)).astype(np.float32)
    volume[:, 40:] = 0
    volume[:2] = 0
    write_mrc(folder / "scene.mrc", volume, VOXEL_SIZE)
    networks = {"_target_": "scripts.networks.MaskAndCenterNet", "mask_network": SMALL_NETWORK}
    networks |= {"center_network": {**SMALL_NETWORK, "out_channels": 3}}
    torch.save(ConfigParser({"n": networks}).get_parsed_content("n").state_dict(), folder / "model.pt")
    names = ["ribosome", "proteasome", "vlp"]
    record = {"settings": {"classes": names, "voxel_size_model": 10.0}, "training": {"class_members": MEMBERS}}
    (folder / "model.json").write_text(json.dumps(record))
    options = {
        "network_def": networks, "weights": str(folder / "model.pt"), "tile": [16, 32, 32], "device": "cpu",
        "particle_diameter": dict(zip(names, (120.0, 110.0, 90.0), strict=True)), "mask_threshold": 0.45,
        "center_threshold": 0.2, "min_size": 1.0, "progress": False, "report": False,
    }  # fmt: skip
    return folder, options


def test_streamed_files_with_classes_are_those_of_the_path_in_memory(scene, tmp_path):
    folder, options = scene
    options = {**options, "voxel_size_model": 13.0}  # so that the maps are rescaled, too
    (whole, record, table), (files, streamed, _) = detect_both(folder / "scene.mrc", options, tmp_path, ThreeKinds())
    assert files == whole and streamed == record and "scene_classes.mrc" in files
    kept = table[table["label"] > 0]
    counts = kept["class"].value_counts()
    assert len(counts) > 1 and counts.sum() == len(kept)
    assert record["classes"] == {"1": "ribosome", "2": "proteasome", "3": "vlp"}
    assert record["particles"]["by_class"] == {name: int(counts.get(name, 0)) for name in record["classes"].values()}
    assert record["inputs"]["settings"]["particle_diameter"]["vlp"] == 90.0
    assert record["class_of"] == {"4v4r": "ribosome", "6qzp": "ribosome", "proteasome": "proteasome", "vlp": "vlp"}
    run = tmp_path / "True" / "scene"
    labels, classes = (read_tomogram(run / f"scene_{one}.mrc", check="labels")[0] for one in ("instances", "classes"))
    number = {name: int(key) for key, name in record["classes"].items()}
    expected = np.zeros(len(kept) + 1, int)
    expected[kept["label"]] = kept["class"].map(number)
    assert np.array_equal(classes, expected[labels])
    written = pd.read_csv(run / "scene_particles.csv")
    assert {"class", "class_score", "runner_up", "runner_up_score"} <= set(written.columns)
    assert "rlnParticleName" in (run / "scene_particles.star").read_text()


def test_weights_of_other_classes_are_refused_before_the_networks_run(scene):
    _, options = scene
    two = {**options["network_def"], "center_network": SMALL_NETWORK}
    for more, message in (
        (
            {"classes": ["vlp", "a", "b"], "particle_diameter": 90.0},
            "trained for the classes ribosome, proteasome, vlp, in this order, but classes",
        ),
        ({"particle_diameter": {"vlp": 90.0}}, "each of the classes (ribosome, proteasome, vlp), got vlp"),
        ({"network_def": two}, "network_def: expected 4 channels, the mask and a center map for each of the classes"),
    ):
        with pytest.raises(Exception) as error:
            Detector({**options, **more})
        assert message in user_message(error.value)


def test_the_plan_counts_the_maps():
    network = torch.nn.Conv3d(1, 7, 3, padding=1)
    plans = [make_plan((64, 80, 96), network, classes=n, memory=8.0, stream=s) for n in (1, 6) for s in (False, True)]
    voxels = 64 * 80 * 96
    assert plans[2].memory - plans[0].memory >= 6 * 4 * voxels  # five more maps, and the highest of them
    assert plans[3].disk - plans[1].disk == (6 * 2 + 2) * voxels  # on disk in half precision, and the classes


def test_a_copick_project_of_three_objects_is_prepared_trained_on_detected_and_scored_by_class(
    scene, tmp_path, monkeypatch, capsys
):
    """By the commands of a user; after a step of training real networks find nothing, so others stand for them."""
    folder, options = scene
    names = ["ribosome", "proteasome", "vlp"]
    objects = [{"name": name, "is_particle": True, "label": k, "radius": 60.0} for k, name in enumerate(names, start=1)]
    config = {"pickable_objects": objects, "config_type": "filesystem", "overlay_root": str(tmp_path)}
    project, place = tmp_path / "project.json", tmp_path / "ExperimentRuns" / "TS_1" / "VoxelSpacing10.000"
    project.write_text(json.dumps(config))
    place.mkdir(parents=True)
    volume, _ = read_tomogram(folder / "scene.mrc")
    save_zarr(place / "wbp.zarr", np.asarray(volume), VOXEL_SIZE)
    centers = instance_centers(balls(volume.shape, seed=0), VOXEL_SIZE).centers_zyx_vox[:, ::-1] * VOXEL_SIZE
    for k, name in enumerate(names):
        write_picks(ParticleList(centers[k::3], tomogram="TS_1", class_name=name), project, name, "alice", "1")
    uri, data = f"copick:{project}", str(tmp_path / "data")
    assert main(["prepare", f"{uri}/wbp@10", "--particles", f"{uri}/*:alice/1", "--output_dir", data]) == 0
    training = {**SMALL_TRAINING, "epochs": 1, "crops_per_tomogram": 2}
    training |= {"network_def": options["network_def"]["center_network"], "classes": names}
    training |= {"particle_diameter": 120.0, "output_dir": str(tmp_path / "run")}
    run_config("train_center.json", "training", dataset_dir=data, **training)
    assert read_record(tmp_path / "run" / "model.pt").detection_settings()["classes"] == names

    (tmp_path / "settings.json").write_text(json.dumps({**options, "classes": names}))
    monkeypatch.setattr("scripts.networks.load_weights", lambda network, path, **_: ThreeKinds())
    call = ["detect", f"{uri}/wbp@10", "--config", str(tmp_path / "settings.json")]
    assert main([*call, "--output_dir", str(tmp_path / "out"), "--copick", f"{uri}/*:detection/1"]) == 0
    table = pd.read_csv(tmp_path / "out" / "TS_1" / "TS_1_particles.csv")
    for name in names:
        own = table[(table["label"] > 0) & (table["class"] == name)]
        picks = read_picks(project, name, "detection", "1", ["TS_1"])
        np.testing.assert_allclose(picks.centers_xyz_angstrom, own[[f"{axis}_angstrom" for axis in "xyz"]], atol=0.01)
    scores = ["--metric", "czii", "--output_dir", str(tmp_path / "scores"), "--bootstrap", "0"]
    assert main(["evaluate", f"{uri}/*:detection/1", f"{uri}/*:alice/1", *scores]) == 0
    found = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert found["pooled"]["points"]["recall"] > 0.5 and set(found["classes"]) == set(names)
    assert sum(sum(row.values()) for name, row in found["confusion"].items() if name in names) == len(centers)
    assert "class vlp: " in capsys.readouterr().out and 0 <= found["czii"]["score"] <= 1
