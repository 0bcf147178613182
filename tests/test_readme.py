"""What README, site and model card tell people to type works: every command is understood, and the tour runs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from monai.bundle import ConfigParser

from bundle.__main__ import VERBS as BUNDLE_VERBS
from scripts.command_line.arguments import parse_arguments
from scripts.command_line.parser import VERBS, verb_named
from scripts.command_line.signatures import read_signature
from tests.conftest import ROOT
from tests.forked_python import run_python

PAGES = ROOT / "docs" / "pages"
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", ROOT / "bundle" / "docs" / "README.md", *sorted(PAGES.rglob("*.md")))
}
# Pages whose commands run as they stand, in this order.
TOUR = ("docs/pages/tutorials/own_training.md", "docs/pages/howto/share.md")
# What makes a command of the tour quick; nothing else about it is changed.
QUICK = {
    "run training": "--epochs 1 --crops_per_tomogram 16 --patch_size [32,32,32] --device cpu",
    "run inference": "--min_size 1.0",
}
SCENE = '"shape": [64, 160, 160]'
SMALL_SCENE = '"shape": [32, 64, 64]'
FEATURES, FEW_FEATURES = "[16, 32, 64, 128, 128, 16]", "[8, 8, 8, 8, 8, 8]"


def commands_in(text: str, languages: str = "bash|") -> list[str]:
    """The lines of the blocks of code that begin as commands of ours do."""
    blocks = re.findall(rf"^```(?:{languages})\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if re.match(r"(python -m (scripts|bundle|monai)|torchrun|make) ?", line)]


COMMANDS = sorted({command for text in DOCUMENTS.values() for command in commands_in(text)})
EVERY_COMMAND = pytest.mark.parametrize("command", COMMANDS)


def script(name: str) -> ModuleType:
    """A module of docs/, which is no package."""
    specification = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@EVERY_COMMAND
def test_every_command_is_understood(command):
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}\b.*:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif "monai.bundle" in words:
        check_monai_command(words[words.index("monai.bundle") + 1 :])
    elif "scripts" in words or "bundle" in words:
        verbs = VERBS if "scripts" in words else BUNDLE_VERBS
        verb, *arguments = words[3:]
        assert parse_arguments(verb, read_signature(verb_named(verb, verbs)), arguments)


def check_monai_command(words: list[str]) -> None:
    """The config files are there, but for those that an earlier command writes, and the options are their ids."""
    verb, *words = words
    options = dict(zip(words[verb == "run" :: 2], words[(verb == "run") + 1 :: 2], strict=True))
    files = re.findall(r"[\w./]+\.json", options.pop("--config_file"))
    parser = ConfigParser()
    parser.read_config([str(ROOT / file.removeprefix("BUNDLE/")) for file in files if not file.startswith("runs/")])
    known = {"--net_id", "--bundle_root"} | {f"--{name}" for name in parser.get()}
    assert (verb == "ckpt_export" or words[0] in parser.get()) and set(options) <= known, set(options) - known


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name):
    text = re.sub(r"^```.*?^```", "", DOCUMENTS[name], flags=re.DOTALL | re.MULTILINE)
    for path in re.findall(r"`((?:configs|scripts|custom_transforms|bundle|tests|docs)/[\w./]*\w\.?\w*/?)`", text):
        if path not in ("docs/provenance.json", "docs/data_license.txt", "docs/requirements.txt"):  # of the zip
            assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(((?!https?:)[^)#]+)(?:#[^)]*)?\)", text):
        there = (ROOT / name).parent / path
        generated = ("commands.md", "settings.md", "notebook.md")  # when the site is built
        assert there.exists() or there.name in generated, path


def test_the_readme_is_short_and_no_line_is_long():
    lines = DOCUMENTS["README.md"].splitlines()
    assert len(lines) <= 130 and max(map(len, lines)) <= 120


def test_every_verb_has_its_place_in_the_overview():
    for verb in VERBS:
        assert (
            f"`{verb}" in DOCUMENTS["docs/pages/which_command.md"]
            or f", {verb}`" in (DOCUMENTS["docs/pages/which_command.md"])
        ), verb


@pytest.mark.parametrize("page", ["errors.md", "formats.md"])
def test_the_tables_of_the_pages_are_what_the_code_says(page):
    assert (PAGES / page).read_text() == script("tables").written(page), "run: python docs/tables.py"


def test_the_filter_that_developers_are_shown_drops_what_it_says():
    block = re.search(r"```python\n(import numpy.*?)```", DOCUMENTS["docs/pages/developers/extend.md"], re.DOTALL)
    names: dict = {}
    exec(block[1], names)
    table = pd.DataFrame({"score": [0.2, 0.8]})
    _, chosen = names["DropFaintd"]().choose(table, np.zeros((2, 3, 4)), {})
    assert {word: rows.tolist() for word, rows in chosen.items()} == {"faint": [True, False]}


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    notebook = json.loads((PAGES / "tutorials" / "notebook.ipynb").read_text())
    made = script("notebook").run_notebook(notebook)
    assert sum(bool(cell.get("outputs")) for cell in made["cells"]) >= 5


@pytest.mark.slow
def test_the_tour_runs_from_a_fresh_copy(tmp_path):
    copy = tmp_path / "copy"
    for folder in ("bundle", "configs", "custom_transforms", "scripts"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md", "CHANGELOG.md", "requirements.txt"):
        shutil.copy(ROOT / name, copy / name)
    scene = copy / "configs" / "scene_vlp.json"
    assert SCENE in scene.read_text()
    scene.write_text(scene.read_text().replace(SCENE, SMALL_SCENE).replace('"count": [12, 26]', '"count": [4, 5]'))
    for config in (copy / "configs").glob("*.json"):
        config.write_text(config.read_text().replace(FEATURES, FEW_FEATURES))
    tour = [command for page in TOUR for command in commands_in(DOCUMENTS[page], "bash")]
    assert len(tour) > 12
    for command in tour:
        if command != "python -m bundle verify":  # minutes, and tests/bundle/test_bundle.py lets it pass every check
            run(command, copy)
    assert (copy / "detections" / "vlp_007" / "vlp_007_instances.mrc").is_file()
    assert (copy / "detections" / "vlp_007" / "vlp_007_report.html").stat().st_size > 10_000
    assert (copy / "evaluation" / "metrics.json").is_file() and (copy / "evaluation_bundle" / "metrics.json").is_file()


def run(command: str, folder: Path) -> None:
    extra = next((text for part, text in QUICK.items() if part in command), "")
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "home")}
    run_python(*shlex.split(command)[1:], *extra.split(), cwd=folder, env=environment, check=True)
