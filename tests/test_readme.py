"""What the README tells people to type works: every command is understood, and the whole tour runs in its order."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from scripts.command_line.arguments import parse_arguments
from scripts.command_line.parser import VERBS, verb_named
from scripts.command_line.signatures import read_signature
from tests.conftest import ROOT

TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line.strip()
    for block in re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
# What makes a command of the tour quick; nothing else about it is changed.
QUICK = {
    "run training": "--epochs 1 --crops_per_tomogram 16 --patch_size [32,32,32] --device cpu",
    "run inference": "--min_size 1.0",
    "scripts simulate": "",
    "scripts calibrate": "",
}
SCENE = '"shape": [64, 160, 160]'
SMALL_SCENE = '"shape": [32, 64, 64]'


def test_the_readme_has_commands_and_names_only_files_that_exist():
    assert len(COMMANDS) > 8
    for path in re.findall(r"`((?:configs|scripts|custom_transforms|bundle|tests)/[\w./]*\w\.?\w*/?)`", TEXT):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(((?!https?:)[^)#]+)\)", TEXT):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.startswith("python -m scripts")])
def test_every_command_of_ours_is_understood(command):
    verb, *arguments = shlex.split(command)[3:]
    assert parse_arguments(verb, read_signature(verb_named(verb)), arguments)


def test_make_targets_exist():
    targets = (ROOT / "Makefile").read_text()
    for command in COMMANDS:
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}\b.*:", targets, flags=re.MULTILINE), command


def test_every_verb_is_in_the_readme():
    for verb in VERBS:
        assert re.search(rf"scripts {verb}\b|make {verb.replace('_', '-')}\b|`{verb}`", TEXT), verb


@pytest.mark.slow
def test_the_tour_of_the_readme_runs_from_a_fresh_copy(tmp_path):
    copy = tmp_path / "copy"
    for folder in ("bundle", "configs", "custom_transforms", "scripts"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md", "CHANGELOG.md", "requirements.txt"):
        shutil.copy(ROOT / name, copy / name)
    scene = copy / "configs" / "scene_vlp.json"
    assert SCENE in scene.read_text()
    scene.write_text(scene.read_text().replace(SCENE, SMALL_SCENE).replace('"count": [12, 26]', '"count": [4, 5]'))
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    for command in COMMANDS:
        if command.startswith("make "):
            continue
        extra = next((text for part, text in QUICK.items() if part in command), "")
        arguments = [sys.executable, *shlex.split(command)[1:], *extra.split()]
        result = subprocess.run(arguments, cwd=copy, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    assert (copy / "detections" / "vlp_007" / "vlp_007_instances.mrc").is_file()
    assert (copy / "detections" / "vlp_007" / "vlp_007_report.html").stat().st_size > 10_000
    assert (copy / "evaluation" / "metrics.json").is_file() and (copy / "evaluation_bundle" / "metrics.json").is_file()
