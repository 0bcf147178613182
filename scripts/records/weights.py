"""The record beside a weights file, ``model.json``: what it was trained on, and the settings it detects with."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator

from custom_transforms.units import is_length_text
from scripts.records import model
from scripts.records.model import Record

__all__ = ["WeightsRecord", "file_digest", "read_record", "write_record"]


def _voxel_size(value: Any) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and 0 < value < math.inf):
        raise ValueError("Å per voxel above 0, or null")
    return value


def _voxel_sizes(value: Any) -> Any:
    for one in value if isinstance(value, list) else [value]:
        _voxel_size(one)
    return value


def _plain(value: Any) -> Any:
    """Settings go into a config, where text may be code and an object may call anything: a record is data."""
    if isinstance(value, dict) and all(isinstance(one, (int, float)) for one in value.values()):
        return value  # by class
    for one in value if isinstance(value, list) else [value]:
        is_code = isinstance(one, str) and one.lstrip()[:1] in ("$", "@", "%") and not is_length_text(one)
        if is_code or not isinstance(one, (str, bool, int, float, type(None))):
            raise ValueError("a number, a word, null, or a length such as $@particle_diameter / 3")
    return value


class Settings(Record):
    """Ids of ``configs/inference.json`` and the values that belong to the weights."""

    __pydantic_extra__: dict[str, Annotated[Any, PlainValidator(_plain)]] = Field(init=False)
    voxel_size_model: Annotated[Any, PlainValidator(_voxel_size)] = None


class Training(Record):
    """What a run was trained on, as `scripts.training_record.describe_training` gives it."""

    dataset: Any = None
    voxel_size: Annotated[Any, PlainValidator(_voxel_sizes)] = None  # a list: tomograms differ
    contrast: Any = None
    pretrained: Any = None
    classes: Annotated[list[str], AfterValidator(_plain)] = []
    class_members: dict[str, list[str]] = {}  # the data set's names that each class stands for


class WeightsRecord(Record):
    """What is known of weights; of a single run, or of two runs that were joined. Nothing is, where there is no file.

    The entries stand in the order in which a file has them.
    """

    epoch: int | None = None
    score: float | None = None
    metric: str | None = None
    seed: int | None = None
    training: Training = Training()
    settings: Settings = Settings()
    mask: Part | None = None
    center: Part | None = None
    thresholds: Any = None
    metrics: dict[str, Any] | None = None
    sha256: str | None = None

    def detection_settings(self) -> dict[str, Any]:
        """Ids of ``configs/inference.json`` and their values that belong to the weights: voxel size, thresholds.

        Examples
        --------
        >>> WeightsRecord(settings={"voxel_size_model": 10.0, "mask_threshold": 0.4}).detection_settings()
        {'voxel_size_model': 10.0, 'mask_threshold': 0.4}
        >>> WeightsRecord(metric="val_center_f1", training={"voxel_size": 8.0}).detection_settings()  # one run
        {'voxel_size_model': 8.0}
        """
        size = self.training.voxel_size
        trained: dict[str, Any] = {"voxel_size_model": float(size)} if isinstance(size, (int, float)) else {}
        trained |= {"classes": list(self.training.classes)} if self.training.classes else {}
        return trained | {key: value for key, value in self.settings.content().items() if not key.startswith("_")}

    def class_of(self) -> dict[str, str]:
        """The class that each name of a data set stands for; empty where the weights know no classes.

        Examples
        --------
        >>> WeightsRecord(training={"class_members": {"ribosome": ["4v4r", "6qzp"], "vlp": ["vlp"]}}).class_of()
        {'4v4r': 'ribosome', '6qzp': 'ribosome', 'vlp': 'vlp'}
        """
        run = self.center.run if self.center else None
        members = self.training.class_members or (run.training.class_members if run else {})
        return {one: name for name, group in members.items() for one in group}

    @property
    def voxel_size(self) -> float | None:
        """Å per voxel that the weights were trained at; None if it is not said, or tomograms differed."""
        value = self.detection_settings().get("voxel_size_model")
        return None if value is None else float(value)


class Part(Record):
    """One network of joined weights: the file of its run, and that run's record."""

    sha256: str | None = None
    run: WeightsRecord | None = None


def read_record(weights: str | Path, digest: str | None = None) -> WeightsRecord:
    """Read the ``.json`` beside a weights file; an empty record if there is none.

    Parameters
    ----------
    weights : path
        The ``.pt`` file.
    digest : str, optional
        sha256 of the weights, where it is known already.

    Raises
    ------
    ValueError
        If it is not a JSON object, names the sha256 of other weights, or holds what no training and no join writes.
    """
    weights = Path(weights).expanduser()
    path = weights.with_suffix(".json")
    if not path.is_file():
        return WeightsRecord()
    record = model.read(WeightsRecord, path, "the record of weights", "Correct it there, or remove the file.")
    if record.sha256 is not None:
        found = digest or file_digest(weights)
        if record.sha256 != found:
            raise ValueError(
                f"{weights}: expected the weights that {path} belongs to (sha256 {record.sha256[:8]}...), got others "
                f"({found[:8]}...): damaged, exchanged, or of a training that was stopped meanwhile. Copy both files "
                "again, resume that training, or remove the record."
            )
    return record


def write_record(weights: Path, record: WeightsRecord) -> None:
    """Write the ``.json`` beside a weights file, with the file's sha256."""
    model.write(record.changed(sha256=file_digest(weights)), weights.with_suffix(".json"))


def file_digest(path: str | Path) -> str:
    """The sha256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
