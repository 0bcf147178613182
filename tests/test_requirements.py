"""What the code imports is what requirements.txt installs."""

import ast
import json
import re
import sys

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PACKAGES = {
    "PIL": "pillow",
    "cc3d": "connected-components-3d",
    "ignite": "pytorch-ignite",
    "skimage": "scikit-image",
    "torch_ctf": "torch-ctf",
    "torch_fourier_filter": "torch-fourier-filter",
}


def imported_at_module_level(path):
    """Top-level packages that importing a file imports; imports inside functions are optional extras."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_metadata_names_every_requirement_with_the_version_that_the_tests_ran_with():
    """The zoo installs what metadata names, and nothing else."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = [Requirement(line.split("#")[0]) for line in lines if line.split("#")[0].strip()]
    locked = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split())
    locked = {canonicalize_name(name): version for name, version in locked.items()}
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text())
    own = {"torch": "pytorch_version", "monai": "monai_version", "numpy": "numpy_version"}
    named = {**metadata["required_packages_version"], **{name: metadata[key] for name, key in own.items()}}
    assert named.keys() == {one.name for one in required}
    for one in required:
        assert named[one.name] == locked[canonicalize_name(one.name)].split("+")[0], one.name
        assert one.specifier.contains(named[one.name]), one.name


def test_every_package_imported_by_the_project_is_a_requirement():
    text = (ROOT / "requirements.txt").read_text()
    required = {re.match(r"[\w.-]+", line).group() for line in text.splitlines() if line and not line.startswith("#")}
    own = {"bundle", "custom_transforms", "scripts"} | set(sys.stdlib_module_names)
    own |= {path.stem for path in (ROOT / "bundle" / "checks").glob("*.py")}  # run in a folder of their own
    for folder in ("bundle", "custom_transforms", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in set(imported_at_module_level(path)) - own:
                assert PACKAGES.get(name, name) in required, f"{path.relative_to(ROOT)} imports {name}"
