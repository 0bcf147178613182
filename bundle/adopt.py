"""Make weights and their thresholds the ones that detection uses unless told otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from bundle.build import ROOT, THRESHOLDS, check_fit, settings_of, with_settings
from custom_transforms.files.json_object import read_object
from custom_transforms.files.whole_files import atomic_path
from scripts.console import tell
from scripts.records.weights import read_record, write_record

__all__ = ["adopt", "adopt_weights"]


def adopt(weights: str, thresholds: str | None = None, metrics: str | None = None) -> None:
    """Make weights the shipped ones: models/model.pt, its record, and the thresholds of configs/inference.json.

    example: python -m bundle adopt runs/model.pt --thresholds runs/thresholds.json --metrics runs/metrics.json

    Parameters
    ----------
    weights : str
        Weights of both networks, as join makes them.
    thresholds : str
        Settings that calibrate chose (JSON).
    metrics : str
        Measured figures (a JSON object), for the record.
    """
    changed = adopt_weights(ROOT, weights, thresholds, metrics)
    tell(
        f"models/model.pt: now {weights}; in configs/inference.json: {', '.join(changed) or 'nothing changed'}",
        written=[ROOT / "models" / "model.pt", ROOT / "models" / "model.json", ROOT / "configs" / "inference.json"],
        changed=changed,
    )


def adopt_weights(
    root: Path, weights: str | Path, thresholds: str | Path | None = None, metrics: str | Path | None = None
) -> dict[str, Any]:
    """`adopt` for any repository; returns the settings that are new in ``configs/inference.json``.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, or the weights do not fit the config. Then nothing was written.
    """
    source, target = Path(weights).expanduser(), root / "models" / "model.pt"
    record = read_record(source)
    overlay = {} if thresholds is None else read_object(thresholds, THRESHOLDS)
    if metrics is not None:
        record = record.changed(metrics=read_object(metrics, "measured figures (JSON)"))
    if "_desc_" in overlay:
        record = record.changed(thresholds=overlay["_desc_"])
    settings = settings_of(root, source, record, overlay)
    config = root / "configs" / "inference.json"
    before = json.loads(config.read_text(encoding="utf-8"))
    text = with_settings(config.read_text(encoding="utf-8"), settings, str(thresholds or source))
    check_fit(json.loads(text), source)
    target.parent.mkdir(exist_ok=True)
    if source.resolve() != target.resolve():
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
    write_record(target, record.changed(settings=settings))
    with atomic_path(config) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return {key: value for key, value in settings.items() if before[key] != value}
