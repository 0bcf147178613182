"""Weights: their record follows them into detection, and training goes on from them exactly or not at all."""

import json
import logging

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from bundle.adopt import adopt_weights
from bundle.build import build_bundle, settings_of
from custom_transforms.io import read_tomogram, write_mrc
from custom_transforms.units import ParticleSizes
from scripts.command_line.parser import main
from scripts.console import user_message
from scripts.detection.detector import Detector
from scripts.networks import join_state_dicts, load_pretrained, load_weights, read_state_dict
from scripts.records.weights import WeightsRecord, file_digest, read_record
from scripts.settings import RECORDED
from scripts.training_record import describe_training
from scripts.weights.join import compact, join
from tests.conftest import DIAMETER, ROOT, SMALL_NETWORK, balls
from tests.detection.detect_scene import NETWORKS, Blobs


def small_network(seed=0):
    torch.manual_seed(seed)
    return ConfigParser({"n": SMALL_NETWORK}).get_parsed_content("n")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights of both networks joined, and of each alone, with records."""
    folder = tmp_path_factory.mktemp("weights")
    for seed, name in enumerate(("mask", "center")):
        (folder / name).mkdir()
        torch.save(small_network(seed).state_dict(), folder / name / "model.pt")
        training = {"voxel_size": 8.0, "dataset": {"name": "balls"}}
        (folder / name / "model.json").write_text(json.dumps({"epoch": 7, "metric": name, "training": training}))
    join(str(folder / "mask" / "model.pt"), str(folder / "center" / "model.pt"), str(folder / "model.pt"))
    return folder


OPTIONS = {"network_def": NETWORKS, "device": "cpu", "progress": False, "tile": [32, 32, 32], "report": False}


# records


def test_join_records_the_voxel_size_of_the_runs_and_refuses_two(files, tmp_path):
    record = read_record(files / "model.pt")
    assert record.detection_settings() == {"voxel_size_model": 8.0} and record.voxel_size == 8.0
    assert record.mask.run.training.dataset == {"name": "balls"}
    other = tmp_path / "model.pt"
    torch.save(small_network(3).state_dict(), other)
    other.with_suffix(".json").write_text(json.dumps({"training": {"voxel_size": 10.0}}))
    with pytest.raises(ValueError, match="two networks of one voxel size, got mask 8 Å, center 10 Å"):
        join(str(files / "mask" / "model.pt"), str(other), str(tmp_path / "joint.pt"))
    assert not (tmp_path / "joint.pt").exists()


def test_join_takes_a_network_of_joined_weights_with_the_record_of_its_run(files, tmp_path):
    torch.save(small_network(3).state_dict(), tmp_path / "center.pt")
    (tmp_path / "center.json").write_text(json.dumps({"training": {"voxel_size": 8.0, "classes": ["vlp", "ribosome"]}}))
    join(str(files / "model.pt"), str(tmp_path / "center.pt"), str(tmp_path / "model.pt"))
    before, after = (read_state_dict(folder / "model.pt") for folder in (files, tmp_path))
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("mask"))
    assert not any(
        torch.equal(after[name], value)
        for name, value in before.items()
        if name.startswith("center") and "conv.weight" in name
    )
    record = read_record(tmp_path / "model.pt")
    assert record.mask == read_record(files / "model.pt").mask
    assert record.detection_settings() == {"voxel_size_model": 8.0, "classes": ["vlp", "ribosome"]}


def test_join_refuses_swapped_and_doubled_files(files, tmp_path):
    for number, (name, metric) in enumerate((("mask", "val_mask_dice"), ("center", "val_center_f1"))):
        torch.save(small_network(number).state_dict(), tmp_path / f"{name}.pt")
        (tmp_path / f"{name}.json").write_text(json.dumps({"metric": metric}))
    mask, center, copy = (str(tmp_path / f"{name}.pt") for name in ("mask", "center", "copy"))
    (tmp_path / "copy.pt").write_bytes((tmp_path / "mask.pt").read_bytes())  # without its record
    for first, second, message in (
        (center, mask, r"center\.pt: expected the weights of MaskNet, but the record .* says val_center_f1"),
        (mask, copy, r"copy\.pt: expected the weights of CenterNet, got the same as MaskNet's"),
        (copy, mask, "got the same as MaskNet's"),
        (mask, mask, "got the same as MaskNet's"),
    ):
        with pytest.raises(ValueError, match=message):
            join(first, second, str(tmp_path / "new" / "model.pt"))
    assert not (tmp_path / "new").exists()


def test_weights_of_one_run_bring_its_voxel_size(files, tmp_path, monkeypatch):
    """As configs/train_joint.json makes them: one network, and a record without settings."""
    weights = tmp_path / "joint.pt"
    torch.save(torch.load(files / "model.pt", weights_only=True), weights)
    weights.with_suffix(".json").write_text(json.dumps({"epoch": 3, "training": {"voxel_size": 8}}))
    assert Detector({**OPTIONS, "weights": str(weights)}).parser["voxel_size_model"] == 8.0
    assert Detector({**OPTIONS, "weights": str(weights), "voxel_size_model": 9}).parser["voxel_size_model"] == 9
    small_tiles = {"largest_tile_side": 96}  # who knows how large its crops were
    assert settings_of(tmp_path, weights, read_record(weights), {}) == {"voxel_size_model": 8.0, **small_tiles}
    said = {}
    monkeypatch.setattr("scripts.weights.export_onnx.write_onnx", lambda *given: said.update(given[3]) or 0.0)
    (tmp_path / "config.json").write_text(json.dumps({"network_def": NETWORKS}))
    assert main(["export_onnx", "--weights", str(weights), "--config", str(tmp_path / "config.json")]) == 0
    assert said["voxel_size_angstrom"] == 8.0
    several = WeightsRecord(training={"voxel_size": [8.0, 10.0]})  # tomograms that differ: nobody knows which to take
    unknown = {"voxel_size_model": None, **small_tiles}
    assert several.voxel_size is None and settings_of(tmp_path, weights, several, {}) == unknown


def test_a_record_of_other_weights_is_an_error(files, tmp_path):
    torch.save(small_network().state_dict(), tmp_path / "model.pt")
    (tmp_path / "model.json").write_text((files / "model.json").read_text())
    with pytest.raises(
        ValueError, match=r"model\.pt: expected the weights that .*model\.json belongs to .*Copy both files again"
    ):
        Detector({**OPTIONS, "weights": str(tmp_path / "model.pt")})


def test_settings_and_records_that_are_no_json_name_the_file(files, tmp_path):
    for content, message in ((b"PK\x93\x04", "in UTF-8, but byte 2"), (b"[]", "a JSON object, got a list")):
        (tmp_path / "settings.json").write_bytes(content)
        with pytest.raises(ValueError, match=rf"settings\.json: expected .*{message}"):
            Detector({**OPTIONS, "weights": str(files / "model.pt")}, config=[tmp_path / "settings.json"])
    (tmp_path / "model.json").write_text("{,")
    with pytest.raises(ValueError, match=r"model\.json: expected JSON, but line 1 is not"):
        read_record(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "text,message",
    [
        ('{"settings": null}', "settings: expected an object, got null"),
        ('{"settings": []}', r"settings: expected an object, got \[\]"),
        ('{"training": null}', "training: expected an object, got null"),
        ('{"training": {"voxel_size": "8"}}', 'training.voxel_size: expected Å per voxel above 0, or null, got "8"'),
        ('{"training": {"voxel_size": [8, 0]}}', r"training.voxel_size: expected .* above 0, or null, got \[8, 0\]"),
        ('{"settings": {"voxel_size_model": "ten"}}', 'settings.voxel_size_model: expected .*, got "ten"'),
        ('{"settings": {"voxel_size_model": -3}}', "settings.voxel_size_model: expected .*, got -3"),
        ('{"settings": {"voxel_size_model": true}}', "settings.voxel_size_model: expected .*, got true"),
        ('{"settings": {"voxel_size_model": NaN}}', "settings.voxel_size_model: expected .*, got NaN"),
        (
            '{"settings": {"method": "$__import__(\'os\')"}}',
            r"settings.method: expected .*, got \"\$__import__\('os'\)\"",
        ),
        ('{"settings": {"min_size": "@tile"}}', 'settings.min_size: expected .* or a length such as .*, got "@tile"'),
        ('{"settings": {"tile": {"_target_": "os.remove"}}}', "settings.tile: expected a number, a word, null, or a"),
        ('{"training": {"classes": ["$print(1)"]}}', "training.classes: expected a number, a word, null, or a length"),
        ('{"sha256": 3}', "sha256: expected a valid string, got 3"),
        ("[]", "expected the record of weights, a JSON object, got a list"),
    ],
)
def test_a_damaged_record_is_an_error_that_says_what_is_wrong(text, message, tmp_path):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match=rf"model\.json: {message}"):
        read_record(tmp_path / "model.pt")


def test_the_record_beside_weights_in_the_home_folder_is_found(files, monkeypatch):
    monkeypatch.setenv("HOME", str(files))
    assert read_record("~/model.pt").voxel_size == 8.0


def test_other_weights_bring_their_settings_and_options_win(files, tmp_path):
    record = json.loads((files / "model.json").read_text())
    record["settings"] |= {"particle_diameter": 80.0, "mask_threshold": 0.3, "min_size": 9000.0}
    weights = tmp_path / "model.pt"
    weights.write_bytes((files / "model.pt").read_bytes())
    weights.with_suffix(".json").write_text(json.dumps(record))
    (tmp_path / "overlay.json").write_text(json.dumps({"_desc_": "by hand", "mask_threshold": 0.6}))
    given = {**OPTIONS, "weights": str(weights)}
    names = ("voxel_size_model", "particle_diameter", "mask_threshold", "min_size")

    def settings(options, config=()):
        parser = Detector({**given, **options}, config).parser
        return [parser[name] for name in names]

    assert settings({}) == pytest.approx([8.0, 80.0, 0.3, 9000.0])
    assert settings({"mask_threshold": 0.7}, [tmp_path / "overlay.json"])[2] == 0.7
    assert settings({}, [tmp_path / "overlay.json"])[2] == 0.6
    assert settings({"particle_diameter": 200.0, "min_size": 5.0}) == [8.0, 200.0, 0.3, 5.0]
    assert settings({"particle_diameter": 160.0}) == pytest.approx([8.0, 160.0, 0.3, 72000.0])  # lengths follow
    record["settings"]["min_size"] = "$0.005 * @particle_diameter**3"
    weights.with_suffix(".json").write_text(json.dumps(record))
    assert settings({"particle_diameter": 200.0}) == [8.0, 200.0, 0.3, 40000.0]
    record["settings"] = {"mask_treshold": 0.3}
    weights.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="'mask_treshold' is not an id of configs/inference.json"):
        settings({})


@pytest.mark.parametrize("diameter", [120.0, 250.0, 940.0])
def test_lengths_follow_the_diameter_alike_in_detect_and_in_the_monai_command(files, diameter):
    parser = ConfigParser()
    parser.read_config(str(ROOT / "configs" / "inference.json"))
    parser["particle_diameter"] = diameter
    detector = Detector({**OPTIONS, "weights": str(files / "model.pt"), "particle_diameter": diameter})
    assert parser.get_parsed_content("sizes") == detector.sizes == ParticleSizes.from_diameter(diameter)
    lengths = ("min_distance", "min_size", "radius_max")
    recorded = parser.get_parsed_content("write#settings")
    assert [recorded[name] for name in lengths] == [detector.parser[name] for name in lengths]
    assert [recorded[name] for name in lengths] == [diameter / 3, (diameter / 6) ** 3, 1.5 * diameter]


def test_lengths_of_a_bundle_of_version_0_1_are_read_as_they_were(files, tmp_path, monkeypatch):
    """Numbers were chosen for their diameter; null meant other factors than it does today."""
    config = json.loads((ROOT / "configs" / "inference.json").read_text())
    del config["sizes"], config["settings"], config["initialize"]  # which it did not have
    config["write"]["settings"] = {name: f"@{name}" for name in RECORDED}
    config |= {"particle_diameter": 120.0, "min_distance": 40, "min_size": None, "radius_max": 90}
    root = tmp_path / "bundle"
    for folder in ("configs", "models"):
        (root / folder).mkdir(parents=True)
    (root / "configs" / "metadata.json").write_bytes((ROOT / "configs" / "metadata.json").read_bytes())
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    (root / "models" / "model.pt").write_bytes((files / "model.pt").read_bytes())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    found = Detector({**OPTIONS, "particle_diameter": 240.0}, bundle=root, trust=True)
    recorded = found.save.settings
    assert [recorded["min_distance"], recorded["radius_max"]] == [80, 180]
    assert recorded["min_size"] == found.sizes.min_size == pytest.approx(0.1 * np.pi / 6 * 240**3)


def test_the_monai_command_warns_of_weights_of_another_voxel_size(files):
    network = ConfigParser({"n": NETWORKS}).get_parsed_content("n")
    with pytest.warns(UserWarning, match="was trained at 8 Å per voxel, and voxel_size_model is 10: .* Set it to 8,"):
        load_weights(network, files / "model.pt", 10.0)


def test_a_tomogram_of_8_angstrom_is_seen_at_the_10_angstrom_of_the_config(files, tmp_path):
    """The configs' own value: blobs come back in the tomogram's voxels, where they were."""
    assert json.loads((ROOT / "configs" / "inference.json").read_text())["voxel_size_model"] == 10.0
    labels = balls((30, 50, 60), seed=3, radius=7.0)
    noise = np.random.default_rng(0).normal(0, 0.2, labels.shape)
    write_mrc(tmp_path / "fine.mrc", (noise - (labels > 0)).astype(np.float32), 8.0)
    torch.save(torch.load(files / "model.pt", weights_only=True), tmp_path / "bare.pt")
    given = {"weights": str(tmp_path / "bare.pt"), "tile": [24, 40, 48], "min_size": 1.0, "center_threshold": 0.1}
    given["voxel_size_model"] = 10.0  # these weights have no record, and would be left to the tomogram's voxels
    assert Detector({**OPTIONS, "weights": given["weights"]}).parser["voxel_size_model"] is None
    detector = Detector({**OPTIONS, **given, "particle_diameter": DIAMETER, "output_dir": str(tmp_path / "out")})
    seen = []
    detector.network = Blobs()
    detector.network.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[2:])))
    detector.network.to("cpu")
    plan = detector.plan(tmp_path / "fine.mrc")
    assert plan.shape_zyx == (24, 40, 48)
    found = detector(tmp_path / "fine.mrc", plan)
    assert set(seen) == {(24, 40, 48)}
    made, meta = read_tomogram(found["output_files"]["instances"], check="labels")
    assert made.shape == labels.shape and np.allclose(meta["voxel_size_zyx"], 8.0)
    kept = found["particles"][found["particles"]["label"] > 0]
    np.testing.assert_allclose(kept["x_angstrom"], 8 * kept["x_vox"])
    true = np.array([np.argwhere(labels == one).mean(axis=0) for one in range(1, labels.max() + 1)])
    distances = np.linalg.norm(kept[["z_vox", "y_vox", "x_vox"]].to_numpy()[:, None] - true, axis=2).min(axis=1)
    assert len(kept) >= 5 and np.median(distances) < 1.5


# adopt


def test_adopted_weights_and_thresholds_become_the_defaults(files, tmp_path):
    (tmp_path / "configs").mkdir()
    text = (ROOT / "configs" / "inference.json").read_text().replace("[16, 32, 64, 128, 128, 16]", "[4, 4, 4, 4, 4, 4]")
    (tmp_path / "configs" / "inference.json").write_text(text)
    overlay = {"_desc_": "chosen on 2 tomograms", "particle_diameter": 180.0, "center_threshold": 0.35}
    (tmp_path / "thresholds.json").write_text(json.dumps(overlay))
    (tmp_path / "metrics.json").write_text(json.dumps({"easy": 0.985}))
    args = (files / "model.pt", tmp_path / "thresholds.json", tmp_path / "metrics.json")
    assert adopt_weights(tmp_path, *args) == {
        "voxel_size_model": 8.0,
        "largest_tile_side": 96,
        "particle_diameter": 180.0,
        "center_threshold": 0.35,
    }
    config = json.loads((tmp_path / "configs" / "inference.json").read_text())
    record = read_record(tmp_path / "models" / "model.pt")
    assert config["center_threshold"] == 0.35 and config["voxel_size_model"] == 8.0
    assert record.metrics == {"easy": 0.985} and record.thresholds == "chosen on 2 tomograms"
    assert record.mask.run.metric == "mask"
    small, full = (read_state_dict(path) for path in (tmp_path / "models" / "model.pt", files / "model.pt"))
    assert {value.dtype for value in small.values() if value.ndim > 1} == {torch.float16}
    assert all(torch.allclose(value.float(), full[name].float(), rtol=5e-4, atol=1e-7) for name, value in small.items())
    assert adopt_weights(tmp_path, tmp_path / "models" / "model.pt") == {}  # again: nothing changes
    assert read_record(tmp_path / "models" / "model.pt") == record
    torch.save({"mask_network.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="do not fit the network of the config"):
        adopt_weights(tmp_path, tmp_path / "other.pt")
    assert read_record(tmp_path / "models" / "model.pt") == record


def test_nobody_knows_the_voxel_size_of_other_weights_without_a_record(tmp_path):
    own, other = tmp_path / "models" / "model.pt", tmp_path / "other.pt"
    assert settings_of(tmp_path, own, WeightsRecord(), {"min_size": 9.0}) == {"min_size": 9.0}  # the config's holds
    assert settings_of(tmp_path, other, WeightsRecord(), {}) == {"voxel_size_model": None, "largest_tile_side": 96}
    said = {"voxel_size_model": 8.0, "largest_tile_side": 128}
    for size in (8.0, None):
        assert settings_of(tmp_path, other, WeightsRecord(settings=said), {}, size) == said
    record = WeightsRecord(settings={"voxel_size_model": 8.0})
    with pytest.raises(ValueError, match=r"--voxel_size: .*other\.json says 8 Å, got 10"):
        settings_of(tmp_path, other, record, {}, 10.0)


def test_calibrate_never_writes_over_the_record_of_the_weights(tmp_path, capsys):
    (tmp_path / "vlp.json").write_text("{}")
    call = ["calibrate", str(tmp_path), "--weights", str(tmp_path / "vlp.pt"), "--output", str(tmp_path / "vlp.json")]
    assert main(call) == 1 and "the name of the record of the weights" in capsys.readouterr().err
    assert main(["calibrate", str(tmp_path), "--output", str(ROOT / "models" / "model.json")]) == 1
    assert "the name of the record of the weights" in capsys.readouterr().err


def test_the_shipped_thresholds_are_those_of_the_record_beside_the_weights():
    record = read_record(ROOT / "models" / "model.pt")
    if not record.content():
        pytest.skip("models/model.pt is not there yet")
    plain, recorded = ConfigParser(), ConfigParser()
    for parser in (plain, recorded):
        parser.read_config(str(ROOT / "configs" / "inference.json"))
    recorded.update(record.detection_settings())
    for key in ("sizes", "write#settings"):
        assert recorded.get_parsed_content(key) == plain.get_parsed_content(key)


# going on from weights


def stored(network):
    """The state dict of a network as a joint file keeps it: kernels went through float16."""
    return {name: value.to(network.state_dict()[name].dtype) for name, value in compact(network.state_dict()).items()}


@pytest.mark.parametrize("part,number", [("mask_network", 0), ("center_network", 1)])
def test_training_starts_from_a_joint_file_or_a_single_networks(files, part, number):
    single, joint = small_network(number).state_dict(), stored(small_network(number))
    for path, wanted in ((files / "model.pt", joint), (files / ("mask", "center")[number] / "model.pt", single)):
        network = load_pretrained(small_network(5), path, part)
        assert all(torch.equal(value, wanted[name]) for name, value in network.state_dict().items())
    untouched = small_network(5).state_dict()
    network = load_pretrained(small_network(5), None, part)
    assert all(torch.equal(value, untouched[name]) for name, value in network.state_dict().items())


def test_every_class_starts_from_the_one_center_map(files):
    three = ConfigParser({"n": {**SMALL_NETWORK, "out_channels": 3}}).get_parsed_content("n").eval()
    load_pretrained(three, files / "model.pt", "center_network")
    alone = load_pretrained(small_network(5), files / "model.pt", "center_network").eval()
    image = torch.randn(1, 1, 16, 32, 16)
    torch.testing.assert_close(three(image), alone(image).repeat(1, 3, 1, 1, 1))


def test_pretrained_weights_that_do_not_fit_are_an_error(files, tmp_path):
    wider = ConfigParser({"n": {**SMALL_NETWORK, "features": [8] * 6}}).get_parsed_content("n")
    with pytest.raises(ValueError, match=r"do not fit the network of the config: 0 names missing .* of another shape"):
        load_pretrained(wider, files / "model.pt", "mask_network")
    half = join_state_dicts(small_network().state_dict(), {})
    torch.save(half, tmp_path / "half.pt")
    with pytest.raises(ValueError, match="expected weights of center_network, but the file holds only the other"):
        load_pretrained(small_network(), tmp_path / "half.pt", "center_network")
    with pytest.raises(FileNotFoundError, match="expected a weights file"):
        load_pretrained(small_network(), tmp_path / "no.pt", "mask_network")
    with pytest.raises(ValueError, match="expected a bundle of this project, but it has no configs/metadata.json"):
        load_pretrained(small_network(), tmp_path, "mask_network")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_all_who_read_them(value, files, tmp_path):
    state = torch.load(files / "model.pt", weights_only=True)
    state["mask_network.final_conv.bias"][0] = value
    torch.save(state, tmp_path / "model.pt")
    message = r"model\.pt: expected finite weights, got NaN .* in 1 of \d+ tensors \(mask_network\.final_conv\.bias\)"
    for read in (
        lambda path: read_state_dict(path),
        lambda path: load_weights(ConfigParser({"n": NETWORKS}).get_parsed_content("n"), path),
        lambda path: load_pretrained(small_network(), path, "mask_network"),
        lambda path: build_bundle(ROOT, path, tmp_path / "dist"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "model.pt")
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize("recorded", [True, False])
def test_a_flipped_byte_in_weights_is_found_or_changes_nothing(recorded, files, tmp_path):
    whole, state = (files / "model.pt").read_bytes(), read_state_dict(files / "model.pt")
    if recorded:
        (tmp_path / "model.json").write_text(json.dumps({"sha256": file_digest(files / "model.pt")}))
    places, found = np.random.default_rng(0).integers(len(whole), size=60), 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        (tmp_path / "model.pt").write_bytes(damaged)
        try:  # without a hash a byte that pads the file may differ
            got = read_state_dict(tmp_path / "model.pt")
            assert got.keys() == state.keys() and all(torch.equal(got[name], state[name]) for name in state)
        except ValueError as error:
            assert str(error).startswith(f"{tmp_path}/model.pt: expected ")
            found += 1
    assert found == 60 if recorded else found > 10


@pytest.mark.parametrize("name", ["mask", "center"])
def test_a_run_that_goes_on_begins_where_the_weights_ended(name, files, dataset_dir, tmp_path, monkeypatch):
    said = []  # not caplog: configs run by other tests set the loggers up anew
    logger = logging.getLogger("scripts.training_record")
    monkeypatch.setattr(logger, "warning", lambda text, *values: said.append(text % values))
    workflow = ConfigWorkflow(
        config_file=str(ROOT / "configs" / f"train_{name}.json"),
        meta_file=str(ROOT / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        dataset_dir=str(dataset_dir),
        output_dir=str(tmp_path / "run"),
        device="cpu",
        network_def=SMALL_NETWORK,
        pretrained=str(files / "model.pt"),
    )
    workflow.initialize()
    wanted = stored(small_network(("mask", "center").index(name)))
    for made in (workflow.parser.get_parsed_content(one) for one in ("average", "network")):
        state = getattr(made, "module", made).state_dict()
        assert all(torch.equal(state[key], value) for key, value in wanted.items())
    record = workflow.parser.get_parsed_content("record")
    assert record["pretrained"] == str(files / "model.pt") and record["voxel_size"] == 10.0
    assert record["contrast"] == "dark" and record["epochs"] == 100 and record["dataset"]["tomograms"] == 1
    assert ("center_target" in record) == (name == "center")
    assert "was trained at 8 Å per voxel, these tomograms have 10 Å" in "".join(said)


def test_the_record_of_a_dataset_says_where_its_tomograms_differ(dataset_dir, tmp_path):
    made = describe_training(dataset_dir, voxel_size=13.5, contrast="bright", epochs=3)
    assert made["voxel_size"] == 13.5 and made["contrast"] == "bright" and made["epochs"] == 3
    assert len(made["dataset"]["sha256"]) == 64
    items = []
    for index, size in enumerate((8.0, 10.0)):
        write_mrc(tmp_path / f"{index}.mrc", np.zeros((4, 5, 6), np.float32), size)
        items.append({"image": f"{index}.mrc", "contrast": ("dark", "bright")[index]})
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "two", "training": items}))
    made = describe_training(tmp_path)
    assert made["voxel_size"] == [8.0, 10.0] and made["contrast"] == ["bright", "dark"]
    assert made["dataset"]["name"] == "two"


# the demo, ONNX


def test_without_weights_the_demo_and_detect_say_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("scripts.demo.demo.ROOT", tmp_path)
    assert main(["demo", "--output_dir", str(tmp_path / "out")]) == 1
    assert "expected the shipped weights, found none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(Exception) as error:
        Detector({**OPTIONS, "weights": str(tmp_path / "no.pt")})
    assert "expected a weights file (.pt), found none" in user_message(error.value)


@pytest.mark.slow
def test_the_demo_writes_all_outputs_and_scores_them(files, tmp_path):
    from scripts.demo.demo import run_demo

    settings = {**OPTIONS, "voxel_size_model": 10.0, "center_threshold": 0.01, "mask_threshold": 0.3, "report": True}
    made = run_demo(tmp_path, shape=(48, 96, 112), weights=files / "model.pt", **settings)
    assert made["report"].stat().st_size > 10_000 and "Compared with the truth" in made["report"].read_text()
    assert made["scores"]["points"]["n_true"] > 5
    assert "No center map" not in made["report"].read_text() and len(list(made["folder"].iterdir())) == 7


@pytest.mark.slow
def test_the_shipped_weights_find_the_particles_of_the_demo(tmp_path):
    from scripts.demo.demo import run_demo

    if not (ROOT / "models" / "model.pt").is_file():
        pytest.skip("models/model.pt is not there yet")
    made = run_demo(tmp_path, shape=(96, 128, 160), device="cpu", progress=False)
    assert made["scores"]["points"]["f1"] > 0.8


def test_onnx_gives_the_output_of_pytorch(files, tmp_path):
    onnx, _, _ = (pytest.importorskip(name) for name in ("onnx", "onnxruntime", "onnxscript"))
    from scripts.weights.export_onnx import TOLERANCE, largest_difference, write_onnx

    network = load_weights(ConfigParser({"n": NETWORKS}).get_parsed_content("n"), files / "model.pt").eval()
    path = tmp_path / "model.onnx"
    assert write_onnx(network, path, [32, 48, 32], {"voxel_size_angstrom": 8.0}) <= TOLERANCE
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
    made = onnx.load(str(path))
    assert {one.key: one.value for one in made.metadata_props}["voxel_size_angstrom"] == "8.0"
    assert made.graph.input[0].name == "image" and made.graph.output[0].name == "pred"
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_param  # the batch is free
    with torch.no_grad():
        next(network.parameters()).add_(0.1)
    assert largest_difference(network, path, [32, 48, 32]) > TOLERANCE


def test_without_onnx_the_export_names_what_to_install(files, tmp_path, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    (tmp_path / "config.json").write_text(json.dumps({"network_def": NETWORKS}))
    command = ["export-onnx", "--output", str(tmp_path / "a.onnx"), "--weights", str(files / "model.pt")]
    assert main([*command, "--config", str(tmp_path / "config.json"), "--tile", "32,32,32"]) == 1
    assert "pip install onnx onnxruntime onnxscript" in capsys.readouterr().err
    assert not (tmp_path / "a.onnx").exists()
