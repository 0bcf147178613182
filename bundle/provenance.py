"""What a bundle says about itself: ``docs/provenance.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scripts.records.weights import WeightsRecord, read_record

__all__ = ["eval_metrics", "provenance"]

# what decides which particles are found, beside the weights
DETECTION = (
    "particle_diameter",
    "mask_threshold",
    "center_threshold",
    "min_distance",
    "min_size",
    "radius_max",
    "method",
    "require_seed",
)


def provenance(
    metadata: Mapping[str, Any],
    config: Mapping[str, Any],
    weights: Path,
    state: Mapping[str, torch.Tensor],
    thresholds: Mapping[str, Any] | None,
    files: Mapping[str, bytes],
) -> dict[str, Any]:
    """Gather where a bundle comes from and how it detects.

    Parameters
    ----------
    metadata, config : mapping
        ``configs/metadata.json`` and ``configs/inference.json`` as they go into the bundle.
    weights : Path
        The weights file; a ``model.json`` of the same name beside it is taken along.
    state : mapping of str to tensor
        What the weights file holds.
    thresholds : mapping or None
        The overlay of ``calibrate`` that was laid over ``config``.
    files : mapping of str to bytes
        Everything else in the bundle, for ``files_sha256``.

    Returns
    -------
    dict
        Ready for JSON; the same for the same input.
    """
    content = weights.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    training = read_record(weights, digest)
    calibrated = training.settings.content() if thresholds is None else dict(thresholds)
    return {
        "name": metadata["name"],
        "version": metadata["version"],
        "weights": {
            "file": "models/model.pt",
            "sha256": digest,
            "bytes": len(content),
            "parameters": sum(value.numel() for value in state.values()),
        },
        "training": training.content() or None,
        "voxel_size_angstrom": config.get("voxel_size_model"),
        "contrast": {"tomograms": config["contrast"], "networks": "protein bright"},
        "detection": {name: config[name] for name in DETECTION if name in config},
        "thresholds": calibrated or None,
        "metrics": training.metrics or {},
        "files_sha256": _hash(files),
    }


def eval_metrics(record: WeightsRecord) -> dict[str, float]:
    """What metadata says of weights: the F1 of the centers in each scene that ``tests.benchmarks.general.score`` saw.

    Examples
    --------
    >>> eval_metrics(WeightsRecord(metrics={"scenes": [{"scene": "membranes unseen", "center F1": 0.55312}]}))
    {'center_f1_membranes_unseen': 0.553}
    >>> eval_metrics(WeightsRecord(metrics={"f1": 0.9}))  # measured otherwise: provenance has it all
    {}
    """
    scenes = (record.metrics or {}).get("scenes")
    rows = [one for one in scenes if {"scene", "center F1"} <= one.keys()] if isinstance(scenes, list) else []
    return {f"center_f1_{one['scene'].replace(' ', '_')}": round(one["center F1"], 3) for one in rows}


def _hash(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()
