"""Checks of the bundle's code: what it imports is in the bundle, or among the packages that metadata names."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from .common import Case

__all__ = ["check_packages"]

OWN = ("scripts", "custom_transforms")
NAMED_BY_THEIR_OWN_KEY = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}


def check_packages(case: Case) -> str:
    """The zoo installs what metadata names: every package the code imports is there, with one version."""
    metadata = case.metadata
    packages = dict(metadata["required_packages_version"])
    packages.update({name: metadata[key] for name, key in NAMED_BY_THEIR_OWN_KEY.items()})
    loose = [f"{name} {version}" for name, version in packages.items() if not re.fullmatch(r"[\d.]+(\w+)?", version)]
    if loose:
        raise ValueError(f"expected one exact version each, got {', '.join(loose)}")
    for package in OWN:
        __import__(package)
        source = Path(sys.modules[package].__file__ or "")
        if not source.is_relative_to(case.root):
            raise ValueError(f"{package} came from {source.parent}, not from the bundle")
    known = {_plain(name) for name in packages}
    distributions = importlib.metadata.packages_distributions()
    missing: dict[str, str] = {}
    for path in sorted(path for package in OWN for path in (case.root / package).rglob("*.py")):
        for name in imported_at_module_level(path):
            if name in sys.stdlib_module_names or name in OWN:
                continue
            names = distributions.get(name, [name])
            if not known & {_plain(one) for one in names}:
                missing.setdefault(names[0], str(path.relative_to(case.root)))
    if missing:
        listed = ", ".join(f"{name} ({path})" for name, path in sorted(missing.items()))
        raise ValueError(f"imported, but not in metadata's required_packages_version: {listed}")
    other = [name for name, version in packages.items() if _installed(name) != version]
    return f"{len(packages)} named" + (f"; other versions here of {', '.join(sorted(other))}" if other else "")


def imported_at_module_level(path: Path) -> Iterator[str]:
    """Top-level packages a file imports when it is imported; imports inside functions are optional extras."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name).split("+")[0]  # 2.13.0+cpu is 2.13.0
    except importlib.metadata.PackageNotFoundError:
        return None


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
