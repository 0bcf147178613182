"""What the code imports is what requirements.txt installs."""

import ast
import re
import sys

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


def test_every_package_imported_by_the_project_is_a_requirement():
    text = (ROOT / "requirements.txt").read_text()
    required = {re.match(r"[\w.-]+", line).group() for line in text.splitlines() if line and not line.startswith("#")}
    own = {"bundle", "custom_transforms", "scripts"} | set(sys.stdlib_module_names)
    own |= {path.stem for path in (ROOT / "bundle" / "checks").glob("*.py")}  # run in a folder of their own
    for folder in ("bundle", "custom_transforms", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in set(imported_at_module_level(path)) - own:
                assert PACKAGES.get(name, name) in required, f"{path.relative_to(ROOT)} imports {name}"
