"""The settings of detection: one list, described in the config, checked before anything is built, never run."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from custom_transforms.io import write_mrc
from custom_transforms.labelling.assign import METHODS
from custom_transforms.measuring.particle_filter import ACTIONS
from custom_transforms.normalize import CONTRASTS
from scripts.command_line import parser as cli
from scripts.console import user_message
from scripts.detection.detector import Detector
from scripts.inferer import FLIPS
from scripts.settings import RECORDED, SETTINGS, check_setting, checked_settings, described_settings
from tests.conftest import ROOT, run_config
from tests.detection.detect_scene import setting  # noqa: F401

CONFIG = json.loads((ROOT / "configs" / "inference.json").read_text())
WRONG = [
    ("center_threshold", 5, "a number above 0 and at most 1", "5"),
    ("center_threshold", "0.5", "a number above 0 and at most 1", '"0.5"'),
    ("mask_threshold", True, "a number between 0 and 1 (a probability)", "true"),
    ("particle_diameter", [120], "a number above 0 (Å)", "[120]"),
    ("particle_diameter", None, "a number above 0 (Å)", "null"),
    ("min_distance", float("nan"), "a number above 0 (Å), or null", "NaN"),
    ("voxel_size", [10, 10], "one or three (Z, Y, X) numbers above 0 (Å), or null", "[10, 10]"),
    ("tile", 96.5, "one or three (Z, Y, X) whole numbers from 16 to 4096, or null", "96.5"),
    ("tile", 10**9, "one or three (Z, Y, X) whole numbers from 16 to 4096, or null", "1000000000"),
    ("batch_size", 10**9, "a whole number from 1 to 4096", "1000000000"),
    ("device", "meta", "cpu, cuda, cuda:1 ...", '"meta"'),
    ("device", "xpu:0", "cpu, cuda, cuda:1 ...", '"xpu:0"'),
    ("device", "mps", "cpu, cuda, cuda:1 ...", '"mps"'),
    ("tile", [8, 96, 96], "one or three (Z, Y, X) whole numbers from 16 to 4096, or null", "[8, 96, 96]"),
    ("require_seed", "no", "true or false", '"no"'),
    ("method", "watersched", "watershed or nearest or split", '"watersched"'),
    ("tta", 3, "1, 2, 4 or 8", "3"),
    ("formats", "csv", "a list of formats", '"csv"'),
    ("exclude", 3, "a path, or null", "3"),
    ("device", 0, "cpu, cuda, cuda:1 ...", "0"),
]


def test_the_config_names_explains_and_checks_every_setting():
    checked = {name: value for name, value in CONFIG["settings"].items() if not name.startswith("_")}
    assert checked.keys() == SETTINGS.keys() == described_settings().keys()
    assert all(help_text.endswith(".") for _, help_text in described_settings().values())
    assert list(checked)[: len(RECORDED)] == list(RECORDED)


def test_the_defaults_are_values_that_settings_can_have():
    parser = ConfigParser(CONFIG)
    for name in SETTINGS:
        check_setting(name, parser.get_parsed_content(name))
    for name, value in {"voxel_size_model": np.float32(8), "tile": (64, 96, 96), "device": torch.device("cpu")}.items():
        check_setting(name, value)


def test_words_are_those_that_the_transforms_take():
    words = {"method": METHODS, "membrane_action": ACTIONS, "contrast": CONTRASTS, "tta": FLIPS}
    for name, known in words.items():
        assert all(SETTINGS[name].takes(word) for word in known), name
        assert len(known) == SETTINGS[name].expected.replace(",", " or").count(" or ") + 1, name


@pytest.mark.parametrize(("name", "value", "expected", "got"), WRONG)
def test_a_wrong_value_names_the_file_the_setting_what_was_expected_and_what_came(name, value, expected, got, tmp_path):
    overlay = tmp_path / "mine.json"
    overlay.write_text(json.dumps({name: value}))
    message = f"{name}: expected {expected}, got {got}. Nothing was done."
    options = {"weights": str(tmp_path / "never_read.pt")}
    with pytest.raises(ValueError) as error:
        Detector(options, [overlay])
    assert str(error.value) == f"{overlay}: {message}"
    with pytest.raises(ValueError) as error:
        Detector({**options, name: value})
    assert str(error.value) == message


def test_the_settings_of_a_record_are_checked_as_the_file_they_are(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"never read")
    (tmp_path / "model.json").write_text('{"settings": {"center_threshold": 5}}')
    with pytest.raises(ValueError) as error:
        Detector({"weights": str(tmp_path / "model.pt")})
    assert str(error.value).startswith(f"{tmp_path}/model.json: center_threshold: expected a number above 0 and at")


def test_monais_run_refuses_before_the_networks_and_names_the_option_or_file(monkeypatch, tmp_path):
    write_mrc(tmp_path / "a.mrc", np.zeros((16, 20, 24), np.float32), 10.0)
    overlay = tmp_path / "mine.json"
    overlay.write_text('{"center_threshold": 5}')
    options = {"dataset_dir": str(tmp_path), "weights": str(tmp_path / "never_read.pt")}
    files = f"['configs/inference.json','{overlay}']"
    for words, source in (
        (["--center_threshold", "5"], "options: "),
        (["--config_file", files], f"{overlay}: "),
        ([f"--config_file={files}"], f"{overlay}: "),
        ([], ""),
    ):
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "inference", *words])
        with pytest.raises(Exception) as error:
            run_config("inference.json", "inference", **options, center_threshold=5)
        assert user_message(error.value).startswith(f"{source}center_threshold: expected a number above 0 and at")


def test_a_wrong_value_is_refused_in_a_program_without_a_command_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["notebook"])
    with pytest.raises(ValueError, match="^method: expected .* got .soft"):
        checked_settings(method="soft")


def test_the_command_line_refuses_what_a_setting_cannot_be_and_nothing_is_imported_for_it(capsys):
    assert cli.main(["detect", "a.mrc", "--center_threshold", "5"]) == 2
    message = "--center_threshold: expected a number above 0 and at most 1, got '5'. Nothing was done."
    assert capsys.readouterr().err == f"error: {message}\n"
    for words in (["--method", "watersched"], ["--tile", "8"], ["--voxel_size", "10,10"], ["--neighbor_number", "-1"]):
        assert cli.main(["detect", "a.mrc", *words]) == 2
        assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", ["exclude", "region", "membrane", "weights", "copick", "device", "formats", "config"]
)
@pytest.mark.parametrize("text", ["$open('made', 'w').close()", "%made.json#a"])
def test_an_option_that_looks_like_code_is_text(option, text, setting, tmp_path, monkeypatch, capsys):  # noqa: F811
    folder, options = setting
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.json").write_text(json.dumps({"network_def": options["network_def"]}))
    words = {"weights": options["weights"], "config": "small.json", "device": "cpu", option: text}
    words |= {"membrane_max": "9"} if option == "membrane" else {}
    given = [f"--{name}={value}" for name, value in words.items()]
    assert cli.main(["detect", str(folder / "tomogram_0.mrc"), *given]) == (2 if option == "device" else 1)
    assert text.partition("(")[0].partition("#")[0] in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_a_path_keeps_its_signs(setting, tmp_path, monkeypatch):  # noqa: F811
    """MONAI turns # into :: in every text of a config."""
    folder, options = setting
    monkeypatch.chdir(tmp_path)
    write_mrc(tmp_path / "@a#b.mrc", np.ones((24, 48, 56), np.int8), 10.0)
    detector = Detector({**options, "region": "@a#b.mrc", "output_dir": "$out#1"})
    detector(folder / "tomogram_0.mrc")
    record = json.loads((tmp_path / "$out#1" / "tomogram_0" / "tomogram_0.json").read_text())
    assert record["inputs"]["settings"]["region"] == "@a#b.mrc"


def test_a_misspelt_id_names_the_one_that_was_meant(tmp_path):
    (tmp_path / "a.json").write_text('{"mask_treshold": 0.3}')
    with pytest.raises(ValueError, match=r"a\.json: 'mask_treshold' is not an id of .* Did you mean mask_threshold\?"):
        Detector({}, [tmp_path / "a.json"])
