"""A small bundle, built once for all tests of its zip; conftest.py imports the fixtures."""

import shutil
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
NAME = "cryoet_particle_detection"


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """A copy of the repository's parts without git, with networks and tiles small enough for a test."""
    root = tmp_path_factory.mktemp("tree")
    for name in ("configs", "scripts", "custom_transforms", "bundle"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, root / name)
    for name, old, new in (
        ("inference.json", "[16, 32, 64, 128, 128, 16]", "[4, 4, 4, 4, 4, 4]"),
        ("metadata.json", '"spatial_shape": [96, 96, 96]', '"spatial_shape": [32, 48, 32]'),
    ):
        text = (root / "configs" / name).read_text()
        assert text.count(old) == 2
        (root / "configs" / name).write_text(text.replace(old, new))
    return root


@pytest.fixture(scope="session")
def weights(tree, tmp_path_factory):
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(tree / "configs" / "inference.json"))
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return path


@pytest.fixture(scope="session")
def archive(tree, weights, tmp_path_factory):
    from bundle.build import build_bundle

    return build_bundle(tree, weights, tmp_path_factory.mktemp("dist"))


@pytest.fixture
def case(archive, tmp_path):
    """An unpacked bundle to damage, as the checks see it."""
    from bundle.checks.common import Case
    from scripts.records.bundle_zip import extract

    (tmp_path / "elsewhere").mkdir()
    return Case(archive, extract(archive, tmp_path / "unpacked"), tmp_path / "elsewhere")


def read_zip(path, name):
    with zipfile.ZipFile(path) as file:
        return file.read(f"{NAME}/{name}").decode()
