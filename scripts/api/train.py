"""Train, for notebooks: volumes and labels in, weights and metrics out; by the configs that the command runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai.utils
import pandas as pd
from monai.bundle import ConfigParser, ConfigWorkflow

from custom_transforms.files.whole_files import atomic_path
from scripts.api.volumes import as_file, is_path
from scripts.console import user_message
from scripts.records.bundle_zip import ROOT
from scripts.weights.join import join

__all__ = ["Training", "train"]

NETWORKS = ("mask", "center")


@dataclass(frozen=True)
class Training:
    """What a training leaves.

    Attributes
    ----------
    weights : Path
        For ``detect(..., weights=...)``; of a single network, its own.
    metrics : DataFrame
        A row per network and epoch: ``network``, ``epoch``, ``train_loss``, ``val_...``, ``seconds``.
    runs : dict of str to Path
        The folder of each network's run: weights, last state, record, log.
    """

    weights: Path
    metrics: pd.DataFrame
    runs: dict[str, Path]


def train(
    images: Sequence[Any],
    labels: Sequence[Any],
    validation_images: Sequence[Any] = (),
    validation_labels: Sequence[Any] = (),
    *,
    classes_of: Sequence[Any] = (),
    validation_classes_of: Sequence[Any] = (),
    output_dir: str | os.PathLike = "runs",
    voxel_size: float | Sequence[float] | None = None,
    networks: Sequence[str] = NETWORKS,
    **settings: Any,
) -> Training:
    """Train the networks on tomograms whose particles are labelled.

    Parameters
    ----------
    images, labels : sequences of paths or arrays, shape (Z, Y, X)
        Tomograms, and their instance labels: 0 background, 1..n particles, -1 where nobody looked.
    validation_images, validation_labels : sequences, likewise
        What the best epoch is chosen on; without them the training tomograms are, which flatters the scores.
    classes_of, validation_classes_of : sequences of mappings of int to str, or of paths
        The class of each label, for every label volume; with them ``classes=[...]`` names those to tell apart. A path
        is that of a particle table (CSV with the columns label and class).
    output_dir : path
        Gets ``data`` (arrays as files, and the datalist), ``mask`` and ``center`` (the runs), and ``model.pt``. Runs
        that are there are moved aside.
    voxel_size : float or sequence of 3 floats (Z, Y, X), optional
        Å. Arrays need it; of files it replaces the headers'.
    networks : sequence of {"mask", "center"}
        Which to train.
    **settings
        Any id of ``configs/train_mask.json`` or ``configs/train_center.json``; each network takes those it knows:
        ``epochs``, ``particle_diameter``, ``pretrained``, ``contrast``, ``device``, ``batch_size`` ...

    Returns
    -------
    Training

    Raises
    ------
    FileNotFoundError, ValueError
        If images and labels do not belong together, or a setting is unknown; names it.

    Examples
    --------
    >>> trained = train([tomogram], [labels], voxel_size=10, pretrained="models/model.pt")  # doctest: +SKIP
    >>> detect("TS_02.mrc", weights=trained.weights)  # doctest: +SKIP
    """
    folder = Path(output_dir).expanduser().absolute()
    chosen = [networks] if isinstance(networks, str) else list(networks)
    if not chosen or not set(chosen) <= set(NETWORKS):
        raise ValueError(f"networks: expected one or both of {', '.join(NETWORKS)}, got {networks!r}.")
    values = {name: _plain(value) for name, value in settings.items() if value is not None}
    if voxel_size is not None:
        values["voxel_size"] = voxel_size
    own = {name: _known(values, name) for name in chosen}
    unknown = [key for key in values if not any(key in known for known in own.values())]
    if unknown:
        files = " or ".join(f"configs/train_{name}.json" for name in chosen)
        raise ValueError(f"train: {', '.join(unknown)}: expected ids of {files}. Nothing was trained.")
    sections: dict[str, tuple[Sequence[Any], ...]] = {
        "training": (images, labels, classes_of),
        "validation": (validation_images, validation_labels, validation_classes_of),
    }
    data = _write_datalist(folder / "data", sections, voxel_size)
    runs = {name: folder / name for name in chosen}
    for name, run in runs.items():
        _run(name, {**own[name], "dataset_dir": str(data), "output_dir": str(run)})
    weights = runs[chosen[0]] / "model.pt"
    if len(chosen) > 1:
        weights = folder / "model.pt"
        mask, center = (str(runs[name] / "model.pt") for name in NETWORKS)
        join(mask, center, output=str(weights))
    logs = [pd.read_csv(run / "metrics.csv").assign(network=name) for name, run in runs.items()]
    metrics = pd.concat(logs, ignore_index=True)
    return Training(weights, metrics[["network", *metrics.columns.drop("network")]], runs)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, os.PathLike) else value


def _config(name: str) -> str:
    return str(ROOT / "configs" / f"train_{name}.json")


def _known(values: dict[str, Any], name: str) -> dict[str, Any]:
    """The values whose ids a network's config has."""
    ids = ConfigParser.load_config_files(_config(name))
    return {key: value for key, value in values.items() if key.split("::")[0].split("#")[0] in ids}


def _write_datalist(folder: Path, sections: dict[str, tuple[Sequence[Any], ...]], voxel_size: Any) -> Path:
    """Write arrays, classes by label and the dataset.json; returns the folder."""
    for section, (images, labels, classes) in sections.items():
        if any(is_path(one) or getattr(one, "ndim", 4) == 3 for one in (images, labels)):
            raise ValueError(f"train: expected lists of {section} images and labels, got one volume. Put it into [ ].")
        if len(images) != len(labels):
            raise ValueError(
                f"train: expected one label volume for each {section} image, got {len(images)} images and "
                f"{len(labels)} label volumes."
            )
        if classes and len(classes) != len(labels):
            raise ValueError(
                f"train: expected the classes of each of {len(labels)} {section} label volumes, got {len(classes)}."
            )
    datalist = {
        section: [
            {
                "image": str(as_file(image, folder / f"{section}_{n}.mrc", f"{section} image {n}", voxel_size)),
                "label": str(
                    as_file(label, folder / f"{section}_{n}_labels.mrc", f"{section} labels {n}", voxel_size, True)
                ),
                **({"particles": str(_class_table(classes[n], folder / f"{section}_{n}.csv"))} if classes else {}),
            }
            for n, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
        for section, (images, labels, classes) in sections.items()
    }
    with atomic_path(folder / "dataset.json") as temporary:
        temporary.write_text(json.dumps(datalist, indent=2) + "\n", encoding="utf-8")
    return folder


def _class_table(classes: Any, path: Path) -> Path:
    """Where the class of each label can be read: its path, or ``path``, which a mapping is written to."""
    if is_path(classes):
        return Path(classes).expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.Series(dict(classes), name="class").rename_axis("label").to_csv(path)
    return path


def _run(name: str, overrides: dict[str, Any]) -> None:
    """Run a training config in this process, as ``python -m monai.bundle run training`` does."""
    workflow = ConfigWorkflow(
        config_file=_config(name),
        meta_file=str(ROOT / "configs" / "metadata.json"),
        logging_file=False,
        run_id="training",
        workflow_type="train",
        bundle_root=str(ROOT),
        **overrides,
    )
    try:
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    except Exception as error:
        message = user_message(error)
        if message == " ".join(str(error).split()):
            raise
        raise ValueError(message) from error  # MONAI wraps it in what a notebook's user cannot read
    finally:
        monai.utils.set_determinism(None)  # the notebook's other code keeps its speed
