"""Checks of files: which are there, how large they are, whether they are what the provenance says."""

from __future__ import annotations

import hashlib

from .common import Case

__all__ = ["check_name", "check_provenance", "check_required_files", "check_sizes"]

# the zoo's necessary and preferred files, and what its contribution guide asks for
REQUIRED = (
    "LICENSE",
    "configs/metadata.json",
    "configs/inference.json",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
    "models/model.pt",
    "scripts/__init__.py",
    "custom_transforms/__init__.py",
)
LARGEST = 25 * 1024**2  # bytes: the zoo's limit for a file that is not downloaded from elsewhere
UNWANTED = ("__pycache__", ".git", ".DS_Store", ".ipynb_checkpoints")


def check_name(case: Case) -> str:
    """The zip is <name>_v<version>.zip, and its one folder is <name>: so MONAI finds it."""
    name, version = case.metadata.get("name"), case.metadata.get("version")
    if case.archive.name != f"{name}_v{version}.zip":
        raise ValueError(f"expected {name}_v{version}.zip, as metadata says, got {case.archive.name}")
    if case.root.name != name:
        raise ValueError(f"the top folder is {case.root.name}, but metadata's name is {name}")
    return case.archive.name


def check_required_files(case: Case) -> str:
    """All files the zoo wants, under the bundle's name, and no leftovers."""
    missing = [name for name in REQUIRED if not (case.root / name).is_file()]
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}")
    empty = [name for name in REQUIRED if not name.endswith("__init__.py") and not (case.root / name).stat().st_size]
    if empty:
        raise ValueError(f"empty: {', '.join(empty)}")
    everything = [path.relative_to(case.root) for path in case.root.rglob("*")]
    leftovers = [str(path) for path in everything if path.name in UNWANTED]
    if leftovers:
        raise ValueError(f"leftovers: {', '.join(sorted(leftovers)[:3])}")
    return f"{sum((case.root / path).is_file() for path in everything)} files"


def check_sizes(case: Case) -> str:
    """No file above the zoo's 25 MB."""
    sizes = {str(path.relative_to(case.root)): path.stat().st_size for path in case.root.rglob("*") if path.is_file()}
    large = [f"{name} ({size / 1024**2:.0f} MB)" for name, size in sorted(sizes.items()) if size > LARGEST]
    if large:
        raise ValueError(f"expected at most 25 MB a file, got {', '.join(large)}")
    name = max(sizes, key=lambda one: sizes[one])
    return f"largest: {name}, {sizes[name] / 1024**2:.1f} MB"


def check_provenance(case: Case) -> str:
    """docs/provenance.json names this version and these weights, and the config detects with its thresholds."""
    record, config = case.read("docs/provenance.json"), case.read("configs/inference.json")
    if (record.get("name"), record.get("version")) != (case.metadata["name"], case.metadata["version"]):
        raise ValueError(f"it is of {record.get('name')} {record.get('version')}, another bundle than metadata's")
    digest = hashlib.sha256((case.root / "models/model.pt").read_bytes()).hexdigest()
    stated = record.get("weights", {}).get("sha256")
    if stated != digest:
        raise ValueError(f"models/model.pt has sha256 {digest[:12]}..., but provenance says {str(stated)[:12]}...")
    stated_settings = {**record.get("detection", {}), **(record.get("thresholds") or {})}
    for key, value in stated_settings.items():
        if not key.startswith("_") and config.get(key) != value:
            raise ValueError(f"{key} is {config.get(key)} in configs/inference.json, but {value} in provenance")
    measured = case.read("models/model.json").get("metrics")
    if measured and record.get("metrics") != measured:
        raise ValueError("metrics of provenance are not those of models/model.json. Build the zip again")
    return f"weights {digest[:12]}, thresholds {'calibrated' if record.get('thresholds') else 'default'}"
