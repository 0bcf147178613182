"""Checks of the configs: the keys the zoo's contribution guide names, and MONAI's properties of each workflow."""

from __future__ import annotations

import logging
from typing import Any

from .common import DIAMETER, Case

__all__ = [
    "check_inference_properties",
    "check_keys",
    "check_train_center_properties",
    "check_train_mask_properties",
]

INFERENCE_KEYS = ("bundle_root", "device", "network_def", "inferer", "output_dir")
TRAIN_KEYS = (
    *("bundle_root", "device", "dataset_dir", "output_dir"),
    *("train#trainer", "train#trainer#max_epochs", "train#dataset", "train#dataset#data", "train#handlers"),
    *("train#inferer", "validate#evaluator", "validate#handlers", "validate#dataset", "validate#dataset#data"),
    *("validate#inferer", "validate#key_metric", "val_interval"),
)


def check_keys(case: Case) -> str:
    """The ids that other programs look for exist."""
    wanted = {"inference": INFERENCE_KEYS, "train_mask": TRAIN_KEYS, "train_center": TRAIN_KEYS}
    for name, keys in wanted.items():
        config = case.read(f"configs/{name}.json")
        missing = [key for key in keys if not _has(config, key)]
        if missing:
            raise ValueError(f"configs/{name}.json has no {', '.join(missing)}")
    return f"{sum(map(len, wanted.values()))} ids"


def check_inference_properties(case: Case) -> str:
    """MONAI's properties of an inference workflow, each built."""
    return _check_properties(case, "inference", "infer")


def check_train_mask_properties(case: Case) -> str:
    """MONAI's properties of a training workflow, each built."""
    return _check_properties(case, "train_mask", "train")


def check_train_center_properties(case: Case) -> str:
    """MONAI's properties of a training workflow, each built."""
    return _check_properties(case, "train_center", "train", particle_diameter=DIAMETER)


def _check_properties(case: Case, name: str, kind: str, **overrides: Any) -> str:
    from monai.bundle import create_workflow

    logging.disable(logging.CRITICAL)
    workflow = create_workflow(
        config_file=case.path(f"configs/{name}.json"),
        meta_file=case.path("configs/metadata.json"),
        logging_file=case.path("configs/logging.conf"),
        workflow_type=kind,
        bundle_root=str(case.root),
        dataset_dir=str(case.dataset),
        device="cpu",
        **overrides,
    )
    wrong = workflow.check_properties()
    if wrong:
        raise ValueError(f"properties missing or unused: {', '.join(wrong)}")
    return f"{len(workflow.properties)} properties"


def _has(config: Any, key: str) -> bool:
    for part in key.split("#"):
        if not isinstance(config, dict) or part not in config:
            return False
        config = config[part]
    return True
