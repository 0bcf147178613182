"""Configs: every part exists, MONAI's required ids exist, nothing is dead, repeated parts are equal."""

import json
import re
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.config_item import ComponentLocator
from monai.utils import optional_import

from tests.conftest import ROOT

STANDALONE = ["train_mask.json", "train_center.json", "inference.json"]
OVERLAYS = {
    "multi_gpu_train.json": "train_center.json",
    "train_joint.json": "train_center.json",
    "evaluate.json": "inference.json",
}


def read(name):
    return json.loads((ROOT / "configs" / name).read_text())


def walk(config, path=""):
    """Every (id, value) of a config, containers and leaves."""
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else []
    for key, value in items:
        yield f"{path}::{key}" if path else str(key), value
        yield from walk(value, f"{path}::{key}" if path else str(key))


@pytest.mark.parametrize("name", [*STANDALONE, *OVERLAYS])
def test_every_target_imports(name):
    locator = ComponentLocator()
    for path, value in walk(read(name)):
        if path.endswith("_target_"):
            if "." in value:
                module, _, attribute = value.rpartition(".")
                found = optional_import(module, name=attribute)[1]
            else:
                found = locator.get_component_module_name(value)
            assert found, f"{name}: {path} names {value}, which does not exist"


@pytest.mark.parametrize("name", STANDALONE)
def test_the_ids_monai_requires_exist(name, dataset_dir, tmp_path):
    workflow = ConfigWorkflow(
        config_file=str(ROOT / "configs" / name),
        meta_file=str(ROOT / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train" if name.startswith("train") else "infer",
        dataset_dir=str(dataset_dir),
        bundle_root=str(ROOT),
        device="cpu",
    )
    workflow.initialize()
    if name == "inference.json":
        torch.save(workflow.parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
        workflow.parser["weights"] = str(tmp_path / "model.pt")
    assert not workflow.check_properties()


@pytest.mark.parametrize("name", STANDALONE)
def test_no_key_is_dead(name):
    """Every top-level key is referred to by another, or is one of the ids that MONAI reads itself."""
    read_by_monai = {
        "imports",
        "initialize",
        "finalize",
        "run",
        "training",
        "inference",
        "handlers",
        "dataset",
        "evaluator",
    }
    config = read(name)
    text = json.dumps(config)
    for key in config:
        if not key.startswith("_desc_") and key not in read_by_monai:
            assert re.search(rf"[@%]{key}\b", text), f"{name}: nothing uses {key}"


@pytest.mark.parametrize("name", [*STANDALONE, *OVERLAYS])
def test_expressions_are_one_line_without_statements_and_import_no_project_code(name):
    for path, value in walk(read(name)):
        if isinstance(value, str) and value.startswith("$"):
            assert "\n" not in value and len(value) < 120, f"{name}: {path}"
            assert not re.match(r"\$import (scripts|custom_transforms)", value), f"{name}: {path} fails elsewhere"


@pytest.mark.parametrize("name", [*STANDALONE, "multi_gpu_train.json"])
def test_every_config_finds_the_code_first(name):
    assert read(name)["initialize"][:2] == [
        "$sys.path.insert(0, os.path.abspath(@bundle_root))",
        {"_target_": "scripts.console.errors_in_words"},
    ]


def test_repeated_parts_of_the_configs_are_equal():
    mask, center, inference = (read(name) for name in STANDALONE)
    assert inference["network_def"]["center_network"] == center["network_def"]
    center["network_def"]["out_channels"] = 1  # of one class
    for key in ("network_def", "optimizer", "lr_scheduler", "average", "training_run", "seed", "patch_size"):
        assert mask[key] == center[key], key
    assert inference["network_def"]["mask_network"] == mask["network_def"]
    assert mask["train"]["trainer"] == center["train"]["trainer"]
    assert mask["validate"]["evaluator"] == center["validate"]["evaluator"]
    center["train"]["random_transforms"][0] |= {"num_classes": 2, "ratios": [1, 2]}
    assert center["train"]["random_transforms"][0].pop("warn") == "$not @classes"
    mask_random, center_random = (
        re.sub('"(center|class)', '"mask', json.dumps(one["train"]["random_transforms"])) for one in (mask, center)
    )
    assert mask_random == center_random
    for one in (mask, center):
        assert one["load"][2] == inference["preprocessing"]["transforms"][1], "normalised alike"


@pytest.mark.parametrize("name", ["train_mask.json", "train_center.json"])
def test_augmentation_leaves_the_missing_wedge_in_place(name):
    """Defect 7 of the original: its 90-degree rotations in the (Z, X) plane moved the wedge. Flips never do."""
    targets = [one["_target_"] for one in read(name)["train"]["random_transforms"]]
    assert targets.count("RandFlipd") == 3
    assert not [one for one in targets if "Rot" in one or "Affine" in one or "Zoom" in one or "Elastic" in one]


@pytest.mark.parametrize("overlay,base", OVERLAYS.items())
def test_overlays_replace_only_what_exists_or_what_they_use(overlay, base):
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / base), str(ROOT / "configs" / overlay)])
    known, text = set(read(base)), json.dumps(parser.get())
    for key in read(overlay):
        top = key.lstrip("+").replace("#", "::").split("::")[0]
        assert key.startswith("_desc_") or top in known | {"finalize"} or re.search(rf"[@%]{top}\b", text), (
            f"{overlay}: {key}"
        )


def test_metadata_names_the_version_in_its_changelog_and_pins_what_the_tests_run_with():
    metadata = read("metadata.json")
    assert metadata["version"] in metadata["changelog"]
    assert f"## {metadata['version']}" in Path(ROOT / "CHANGELOG.md").read_text()
