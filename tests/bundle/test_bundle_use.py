"""Use of a built zip elsewhere: other folders, MONAI's own functions, detection and training from it."""

import ast
import functools
import hashlib
import http.server
import json
import os
import re
import shlex
import threading

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, download

from bundle.build import build_bundle
from custom_transforms.io import write_instances
from scripts.command_line.arguments import parse_arguments
from scripts.command_line.parser import main, verb_named
from scripts.command_line.signatures import read_signature
from scripts.detection.detector import Detector
from scripts.networks import load_pretrained
from scripts.records.bundle_zip import extract, unpacked
from scripts.records.trust import trusted_root
from scripts.records.weights import read_record
from scripts.weights.export_onnx import export_onnx
from tests.bundle.bundle_zip import NAME, read_zip
from tests.conftest import ROOT, SMALL_NETWORK
from tests.forked_python import run_python

CARD = (ROOT / "bundle" / "docs" / "README.md").read_text()


def test_detection_uses_a_bundle_as_it_comes(tree, weights, archive, case, tmp_path, monkeypatch, capsys):
    """Config, thresholds and weights are the zip's; this repository's differ in all three."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    overlay = {"particle_diameter": 90.0, "mask_threshold": 0.35, "center_threshold": 0.02, "tile": [32, 48, 32]}
    (tmp_path / "thresholds.json").write_text(json.dumps(overlay))
    made = build_bundle(tree, weights, tmp_path / "dist", None, voxel_size=10.0)
    settings = json.loads(read_zip(made, "models/model.json"))["settings"]
    assert settings == {"voxel_size_model": 10.0, "largest_tile_side": 96}
    made = build_bundle(tree, weights, tmp_path / "dist", tmp_path / "thresholds.json", voxel_size=10.0)
    command = ["detect", str(case.dataset / "noise.mrc"), "--bundle", str(made), "--output_dir", str(tmp_path / "out")]
    assert main([*command, "--trust", "--device", "cpu", "--report", "false"]) == 0
    record = json.loads((tmp_path / "out" / "noise" / "noise.json").read_text())
    used = record["inputs"]["settings"]
    assert {key: used[key] for key in overlay} == overlay and used["voxel_size_model"] == 10.0
    assert record["inputs"]["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert str(tmp_path / "cache") in record["weights"]
    assert main([*command, "--weights", str(weights)]) == 1
    assert "give --weights or --bundle" in capsys.readouterr().err
    command[3] = str(tmp_path / "thresholds.json")
    assert main(command) == 1
    assert "expected a zip, as `python -m bundle build` makes it" in capsys.readouterr().err


def test_a_foreign_bundle_runs_once_it_is_trusted_and_a_changed_one_is_foreign_again(case, tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    config, ran = case.root / "configs" / "inference.json", tmp_path / "ran"
    ours, listed = (
        ROOT / "configs" / "inference.json",
        tmp_path / "XDG_CONFIG_HOME/cryoet_particle_detection/trusted.txt",
    )
    config.write_text(ours.read_text().replace("{", f'{{"imports": "$open({str(ran)!r}, \'w\')",', 1))
    for use in (Detector, export_onnx):
        with pytest.raises(ValueError) as error:
            use(bundle=str(case.root))
        assert hashlib.sha256(config.read_bytes()).hexdigest() in str(error.value) and "--trust" in str(error.value)
    assert not ran.exists() and not listed.exists()
    assert trusted_root(case.root, trust=True) == trusted_root(case.root) == case.root
    config.write_text(config.read_text() + " ")
    with pytest.raises(ValueError, match="expected a bundle that you trust, got one that was never used here"):
        trusted_root(case.root)
    config.write_bytes(ours.read_bytes())  # nothing foreign in it
    assert trusted_root(case.root) == case.root and trusted_root(None) == ROOT


def test_training_goes_on_from_a_bundle(archive, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    joint = torch.load(weights, weights_only=True)
    network = ConfigParser({"n": SMALL_NETWORK}).get_parsed_content("n")
    for source in (archive, unpacked(archive)):
        made = load_pretrained(network, source, "center_network").state_dict()
        assert all(torch.equal(made[name], joint[f"center_network.{name}"]) for name in made)


def test_monai_downloads_the_zip_from_a_file_and_from_a_server(archive, tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=archive.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        urls = [archive.as_uri(), f"http://127.0.0.1:{server.server_address[1]}/{archive.name}"]
        for index, url in enumerate(urls):
            download(name=NAME, url=url, bundle_dir=tmp_path / str(index), progress=False)
        server.shutdown()
    for index in range(2):
        assert json.loads((tmp_path / str(index) / NAME / "docs/provenance.json").read_text())["name"] == NAME


@pytest.mark.slow
def test_the_model_cards_python_runs_elsewhere_and_gives_the_networks(archive, tmp_path):
    extract(archive, tmp_path / "bundles")
    block = re.search(r"```python\n(.*?)```", CARD, re.DOTALL).group(1)
    program = block + "\nimport os, scripts\nprint(type(network).__name__, os.path.realpath(scripts.__file__))\n"
    result = run_python("-c", program, cwd=tmp_path, check=True)
    module = (tmp_path / "bundles" / NAME / "scripts" / "__init__.py").resolve()
    assert result.stdout.splitlines()[-1] == f"MaskAndCenterNet {module}"


EVERY_CALL = """
import sys
from monai.bundle import ConfigWorkflow, create_workflow, load
name, folder, data = sys.argv[1:]
assert type(load(name, bundle_dir=folder, workflow_type="inference", device="cpu")).__name__ == "MaskAndCenterNet"
for kind, config in (("infer", "inference"), ("train", "train"), ("train", "train_mask"), ("train", "train_center")):
    options = dict(workflow_type=kind, dataset_dir=data, device="cpu")
    file = f"{folder}/{name}/configs/{config}.json"
    assert create_workflow(config_file=file, **options).check_properties() == []
    workflow = ConfigWorkflow(file, **options)
    workflow.initialize()
    assert workflow.check_properties() == [] and workflow.bundle_root == f"{folder}/{name}"
"""


def elsewhere(folder, *arguments):
    """Run Python in an empty folder, where nothing leads to the bundle's code."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    (folder / "empty").mkdir()
    return run_python(*arguments, cwd=folder / "empty", env=environment)


@pytest.mark.slow
def test_monais_calls_find_the_bundles_code_and_weights_from_an_empty_folder(case, tmp_path):
    result = elsewhere(tmp_path, "-c", EVERY_CALL, case.root.name, case.root.parent, case.dataset)
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("data", ["none", "a wrong path", "no labelled particle"])
def test_a_training_that_cannot_start_ends_in_one_sentence(data, case, tmp_path):
    options, expected = [], f"error: {case.root}/data/dataset.json: expected a datalist"
    if data == "a wrong path":
        options, expected = (
            ["--dataset_dir", tmp_path / "TS"],
            f"error: {tmp_path}/TS/dataset.json: expected a datalist",
        )
    if data == "no labelled particle":
        write_instances(case.dataset / "labels.mrc", np.zeros((24, 40, 56), int), 10.0)
        options = ["--dataset_dir", case.dataset]
        expected = f"error: {case.dataset}/labels.mrc: expected at least 1 labelled particle(s) to train on, got 0"
    config = case.root / "configs" / "train.json"
    result = elsewhere(
        tmp_path, "-m", "monai.bundle", "run", "training", "--config_file", config, "--device", "cpu", *options
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith(expected)


def test_both_networks_train_in_one_run_of_the_bundles_train_json(case, weights, tmp_path):
    small = {"epochs": 1, "crops_per_tomogram": 2, "patch_size": [32, 32, 32], "val_tile": [32, 48, 64]}
    workflow = ConfigWorkflow(
        str(case.root / "configs" / "train.json"), logging_file=False, run_id="training", dataset_dir=str(case.dataset),
        output_dir=str(tmp_path), pretrained=str(weights), learning_rate=0.0, device="cpu", progress=False, **small,
    )  # fmt: skip
    workflow.initialize()
    workflow.run()
    before, after = (torch.load(path, weights_only=True) for path in (weights, tmp_path / "model.pt"))
    assert before.keys() == after.keys() and all(
        torch.equal(after[name], before[name]) for name in after if name.endswith("weight")
    )


@pytest.mark.slow
def test_the_command_line_works_from_the_unpacked_zip(archive, case, tmp_path):
    tomogram = case.dataset / "noise.mrc"
    command = ["-m", "scripts", "detect", tomogram, "--output_dir", tmp_path / "out"]
    run_python(*command, "--device", "cpu", "--tile", "32,48,64", cwd=case.root, check=True)
    assert (tmp_path / "out" / "noise" / "noise_instances.mrc").is_file()


@pytest.mark.slow
def test_training_from_the_unpacked_zip_ends_in_one_weights_file(weights, case, tmp_path):
    joint = torch.load(weights, weights_only=True)
    for name in ("mask", "center"):
        part = {key.removeprefix(f"{name}_network."): value for key, value in joint.items() if key.startswith(name)}
        torch.save(part, tmp_path / f"{name}.pt")
    command = ["-m", "scripts", "join", tmp_path / "mask.pt", tmp_path / "center.pt"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run_python(*command, cwd=case.root, env=environment, check=True)
    assert torch.load(case.root / "runs" / "model.pt", weights_only=True).keys() == joint.keys()


@pytest.mark.parametrize("folder", ["scripts", "custom_transforms"])
def test_nothing_in_the_zip_imports_what_only_the_repository_has(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):  # inside functions, too
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"bundle", "tests"}, path.relative_to(ROOT)


def test_the_model_cards_commands_are_understood():
    commands = re.findall(r"python -m scripts \w+ [^`\n)]+", CARD)
    assert len(commands) >= 2
    for command in commands:
        verb, *arguments = shlex.split(command)[3:]
        assert parse_arguments(verb, read_signature(verb_named(verb)), arguments)


def test_the_licence_of_the_data_names_every_density_map_that_the_shipped_weights_saw():
    record = read_record(ROOT / "models" / "model.pt")
    names = {name for part in (record.mask, record.center) for name in part.run.training.dataset["scenes"]}
    scenes = [ROOT / "tests" / "benchmarks" / "general" / "scenes" / f"{name}.json" for name in names]
    maps = {name for scene in scenes for name in re.findall(r'"path": "(?:\w+/)?(\w{4})\.mrc"', scene.read_text())}
    text = (ROOT / "bundle" / "docs" / "data_license.txt").read_text()
    assert set(re.findall(r"\b\d[a-z0-9]{3}\b", text)) == maps and len(maps) == 57
    assert "https://github.com/anmartinezs/polnet" in text and "Apache License 2.0" in text and "CC0" in text


def test_the_model_card_says_what_a_user_must_know():
    assert "trained on simulated tomograms at 10 Å per voxel" in CARD
    for path in re.findall(r"`((?:configs|scripts|custom_transforms)/[\w./]*)`", CARD):
        assert (ROOT / path).exists(), path
