"""Build the bundle's zip, in the form of the MONAI model zoo."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from bundle.archive import write_zip
from bundle.provenance import eval_metrics, provenance
from custom_transforms.files.json_object import read_object
from scripts.console import tell
from scripts.networks import UNSAID, load_weights, read_state_dict
from scripts.records.weights import WeightsRecord, read_record

__all__ = ["build", "build_bundle", "bundle_files", "settings_of", "with_settings"]

ROOT = Path(__file__).parents[1]
# folder or file of the repository: where it goes in the bundle
PARTS = {
    "LICENSE": "LICENSE",
    "configs": "configs",
    "custom_transforms": "custom_transforms",
    "scripts": "scripts",
    "bundle/docs": "docs",
    "requirements.txt": "docs/requirements.txt",
}

SUFFIXES = ("", ".conf", ".css", ".j2", ".js", ".json", ".md", ".png", ".py", ".txt")
THRESHOLDS = "thresholds (JSON, from `python -m scripts calibrate`)"
NEEDED = {"LICENSE", "configs/inference.json", "configs/metadata.json", "docs/README.md"}


def build(
    weights: str = "models/model.pt",
    output: str = "dist",
    thresholds: str | None = None,
    voxel_size: float | None = None,
) -> None:
    """Build the zip that others download: code, configs, documentation and weights.

    The same files give the same bytes: those that git tracks, and the weights.

    example: python -m bundle build --weights runs/model.pt --thresholds runs/thresholds.json

    Parameters
    ----------
    weights : str
        Weights of both networks, as `python -m scripts join` makes them.
    output : str
        Folder for the zip.
    thresholds : str
        Settings that calibrate chose (JSON); they become the bundle's defaults.
    voxel_size : float
        Å per voxel the networks were trained at, where the record beside the weights does not say it; tomograms that
        differ are rescaled for them.
    """
    made = build_bundle(ROOT, weights, output, thresholds, voxel_size)
    size = made.stat().st_size
    tell(f"{made}: {size / 1e6:.1f} MB. Check it: python -m bundle verify {made}", written=[made], bytes=size)


def build_bundle(
    root: str | Path,
    weights: str | Path,
    output: str | Path,
    thresholds: str | Path | None = None,
    voxel_size: float | None = None,
) -> Path:
    """Build the zip of a repository.

    Parameters
    ----------
    root : path
        The repository.
    weights, output, thresholds, voxel_size
        See `build`.

    Returns
    -------
    Path
        ``<output>/<name>_v<version>.zip``. An older one is replaced when the new one is whole.

    Raises
    ------
    FileNotFoundError, ValueError
        If there are no weights or thresholds, or they do not fit the configs.
    """
    root, weights = Path(root), Path(weights).expanduser()
    state = read_state_dict(weights)
    files = bundle_files(root)
    record = read_record(weights)
    overlay = None if thresholds is None else read_object(thresholds, THRESHOLDS)
    settings = settings_of(root, weights, record, overlay or {}, voxel_size)
    text = with_settings(files["configs/inference.json"].decode(), settings, str(thresholds or weights))
    files["configs/inference.json"] = text.encode()
    metadata, config = json.loads(files["configs/metadata.json"]), json.loads(text)
    files["configs/train.json"] = _json(training_config(root, config["network_def"], config["classes"]))
    if metadata.get("eval_metrics") != eval_metrics(record):  # the repository's are those of its own weights
        metadata["eval_metrics"] = eval_metrics(record)
        files["configs/metadata.json"] = _json(metadata)
    if config["classes"]:
        name_channels(metadata, config["classes"])
        files["configs/metadata.json"] = _json(metadata)
    check_fit(config, weights)
    content = weights.read_bytes()
    record = record.changed(settings=settings, sha256=hashlib.sha256(content).hexdigest())
    files["docs/provenance.json"] = _json(provenance(metadata, config, weights, state, overlay, files))
    files["models/model.pt"], files["models/model.json"] = content, _json(record.content())
    name = metadata["name"]
    target = Path(output).expanduser() / f"{name}_v{metadata['version']}.zip"
    return write_zip(target, {f"{name}/{path}": content for path, content in files.items()})


def settings_of(
    root: Path, weights: Path, record: WeightsRecord, overlay: Mapping[str, Any], voxel_size: float | None = None
) -> dict[str, Any]:
    """Ids of ``configs/inference.json`` whose values weights bring along.

    Parameters
    ----------
    root : Path
        The repository. Its config's voxel size is that of its own weights: for others it is unknown (null), as it is
        for ``detect --weights``, unless the record or ``voxel_size`` says it.
    weights : Path
    record : WeightsRecord
        Of the weights.
    overlay : mapping
        Settings laid over the record's; comments, whose names begin with ``_``, are left out.
    voxel_size : float, optional
        Å, where the record does not say it.
    """
    known = record.voxel_size
    if voxel_size is not None and not voxel_size > 0:
        raise ValueError(f"--voxel_size: expected Å per voxel above 0, got {voxel_size}.")
    if voxel_size is not None and known not in (None, voxel_size):
        raise ValueError(f"--voxel_size: {weights.with_suffix('.json')} says {known:g} Å, got {voxel_size:g}.")
    settings = record.detection_settings() | {key: overlay[key] for key in overlay if not key.startswith("_")}
    if voxel_size is not None:
        settings["voxel_size_model"] = voxel_size
    if weights.resolve() != (root / "models" / "model.pt").resolve():
        settings = {**UNSAID, **settings}
    return settings


def name_channels(metadata: dict[str, Any], classes: Sequence[str]) -> None:
    """Let the metadata of a bundle name a center map for each class."""
    maps = {str(number): f"center map of {name}" for number, name in enumerate(classes, start=1)}
    output = metadata["network_data_format"]["outputs"]["pred"]
    output["num_channels"], output["channel_def"] = 1 + len(classes), {"0": output["channel_def"]["0"], **maps}
    metadata["pred_classes"] = "channel 0: mask logit, " + ", ".join(f"channel {k}: {what}" for k, what in maps.items())


def training_config(root: Path, network_def: Mapping[str, Any], classes: Sequence[str] | None = None) -> dict[str, Any]:
    """The config that MONAI looks for, ``train.json``: both networks of ``inference.json`` trained in one run.

    ``monai.bundle.load`` takes the network from it unless another workflow is named, and loads the bundle's weights.
    """
    paths = [str(root / "configs" / f"train_{name}.json") for name in ("center", "joint")]
    config = ConfigParser.load_config_files(paths)
    return {
        **config,
        "_desc_": "Train MaskNet and CenterNet in one run; its weights are those of both, for inference.json. Made by "
        "`python -m bundle build` from train_center.json, train_joint.json and the network of inference.json. "
        "python -m monai.bundle run training --config_file configs/train.json --dataset_dir DIR",
        "network_def": network_def,
        "classes": classes,
        "initial_network": {**config["initial_network"], "part": None},
    }


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=4, ensure_ascii=False) + "\n").encode()


def bundle_files(root: Path) -> dict[str, bytes]:
    """Read what goes into the bundle from a repository.

    Parameters
    ----------
    root : Path
        A git checkout: the files that git tracks, as they are on disk. A copy without git (a source archive) gives
        all files of known kinds (`SUFFIXES`).

    Returns
    -------
    dict of str to bytes
        Names inside the bundle and contents, weights and provenance aside.

    Raises
    ------
    ValueError
        If a tracked file, or one that a bundle needs, is not there.
    """
    files = {}
    for name in _tracked(root) or _known(root):
        path = root / name
        if not path.is_file():
            raise ValueError(f"{path}: git tracks it, but it is not there. Restore it, or `git rm` it.")
        part = next(one for one in PARTS if name == one or name.startswith(one + "/"))
        files[PARTS[part] + name[len(part) :]] = path.read_bytes()
    missing = NEEDED - files.keys()
    if missing:
        raise ValueError(f"{root.resolve()}: a bundle needs {', '.join(sorted(missing))}, which the repository lacks.")
    return files


def _tracked(root: Path) -> list[str]:
    """Names of tracked files; none where there is no git or no checkout."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--", *PARTS]
    try:
        listed = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        return []
    return [name for name in listed.stdout.decode().split("\0") if name] if listed.returncode == 0 else []


def _known(root: Path) -> list[str]:
    """Names of all files of known kinds."""
    paths = [path for part in PARTS for path in [root / part, *(root / part).rglob("*")] if path.is_file()]
    names = [path.relative_to(root) for path in paths if path.suffix in SUFFIXES]
    return sorted(name.as_posix() for name in names if not any(part[0] in "._" for part in name.parts[:-1]))


def with_settings(text: str, settings: Mapping[str, Any], source: str = "settings") -> str:
    """Change top-level values in the text of a config, leaving every other line as it is.

    Parameters
    ----------
    text : str
        A JSON object, each changed value on a line of its own.
    settings : mapping
        New values of ids that exist.
    source : str
        Where they come from, for messages.

    Returns
    -------
    str
        The config's text with the new values.

    Examples
    --------
    >>> print(with_settings('{\\n    "min_size": null,\\n    "tta": 1\\n}', {"min_size": 500.0}))
    {
        "min_size": 500.0,
        "tta": 1
    }
    """
    wanted = json.loads(text)
    for key, value in settings.items():
        if key not in wanted:
            raise ValueError(f"{source}: {key!r} is not an id of configs/inference.json. Nothing was built.")
        wanted[key] = value
        line = json.dumps(value, ensure_ascii=False)
        pattern = rf"^(    {re.escape(json.dumps(key))}: ).*?(,?)$"
        text = re.sub(pattern, lambda found, line=line: found[1] + line + found[2], text, flags=re.MULTILINE)  # type: ignore[misc]
    try:
        done = json.loads(text) == wanted
    except json.JSONDecodeError:
        done = False
    if not done:
        raise ValueError(
            f"{source}: expected plain settings such as calibrate writes, got {', '.join(settings)}. "
            "Edit configs/inference.json for anything else."
        )
    return text


def check_fit(config: Mapping[str, Any], weights: Path) -> None:
    """Refuse weights that do not fit the config's network."""
    network = ConfigParser(dict(config)).get_parsed_content("network_def")
    if not isinstance(network, torch.nn.Module):
        raise ValueError(f"network_def: expected a network, got a {type(network).__name__}.")
    load_weights(network, weights, classes=config["classes"])
