"""The rooms of the house: who may import whom. A new folder gets a place in `LEVELS`; see docs/developers.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

PACKAGES = ("custom_transforms", "scripts", "bundle")
# Lowest first; a module imports its own room and lower ones. "custom_transforms" and "scripts" by themselves are the
# modules at their top: what a config may name.
LEVELS = (
    ("custom_transforms.units", "custom_transforms.files"),
    ("custom_transforms.volumes",),
    ("custom_transforms.measuring",),
    ("custom_transforms.labelling",),
    ("custom_transforms",),
    ("scripts.console", "scripts.records", "scripts.tiling", "scripts.particles"),
    ("scripts.cluster", "scripts.sources", "scripts.matching"),
    ("scripts.report", "scripts.simulate"),
    ("scripts",),
    ("scripts.preparation", "scripts.evaluation", "scripts.detection", "scripts.weights"),
    ("scripts.teach",),
    ("scripts.view",),
    ("scripts.command_line", "scripts.api"),
    ("scripts.demo",),
    ("bundle", "scripts.__main__"),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def room_of(module: str) -> str:
    """The room of a dotted module, ``scripts.report.render`` -> ``scripts.report``."""
    two = ".".join(module.split(".")[:2])
    return two if two in LEVEL else module.split(".")[0]


def imports() -> Iterator[tuple[str, str]]:
    """Every import of our own modules, also those inside functions: (importing module, imported module)."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
                    for name in node.names:  # a name may be a module of the package
                        inner = f"{node.module}.{name.name}"
                        is_module = (ROOT / inner.replace(".", "/")).with_suffix(".py").is_file()
                        yield module, inner if is_module else node.module


def test_rooms_import_only_lower_rooms():
    upward = [
        f"{module} imports {imported}"
        for module, imported in imports()
        if room_of(module) != room_of(imported) and LEVEL[room_of(imported)] >= LEVEL[room_of(module)]
    ]
    assert upward == []


def test_every_folder_has_a_level():
    folders = {f"{package}.{path.name}" for package in PACKAGES[:2] for path in (ROOT / package).iterdir()}
    folders = {one for one in folders if (ROOT / one.replace(".", "/") / "__init__.py").is_file()}
    assert folders == {room for room in LEVEL if (ROOT / room.replace(".", "/")).is_dir()} - set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES[:2])
def test_modules_do_not_import_each_other_in_a_circle(package):
    arrows: dict[str, set[str]] = {}
    for module, imported in imports():
        if imported.startswith(f"{package}.") and imported != module:
            arrows.setdefault(module, set()).add(imported)
    while arrows:  # take away, round by round, whoever imports nobody that is left
        free = [module for module, targets in arrows.items() if not targets & set(arrows)]
        assert free, f"in a circle, or above one: {sorted(arrows)}"
        for module in free:
            del arrows[module]
