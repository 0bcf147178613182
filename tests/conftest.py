"""What several tests share: a tiny labelled dataset, and running a config in this process."""

from __future__ import annotations

import json
import logging
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.bundle.bundle_zip import archive, case, tree, weights  # noqa: F401  fixtures

os.environ.setdefault("MONAI_FAIL_ON_DUPLICATE_CONFIG", "1")

ROOT = Path(__file__).parents[1]
VOXEL_SIZE = 10.0
DIAMETER = 120.0


def python_with(program: str) -> str:
    """The Python that has another program's library, of the variable PROGRAM_PYTHON or this one; "" if none has."""
    try:
        version(program)  # not find_spec: a folder of that name among the tests is a package to it
    except PackageNotFoundError:
        return os.environ.get(f"{program.upper()}_PYTHON", "")
    return os.environ.get(f"{program.upper()}_PYTHON") or sys.executable


def balls(shape: tuple[int, int, int], seed: int, radius: float = 6.0) -> np.ndarray:
    """Instance labels of balls that do not overlap, some touching, in a (Z, Y, X) volume."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    grid = np.stack(np.mgrid[: shape[0], : shape[1], : shape[2]], axis=-1)
    for _ in range(60):
        inside = ((grid - rng.uniform(5, np.array(shape) - 5)) ** 2).sum(axis=-1) < radius**2
        if not labels[inside].any():
            labels[inside] = labels.max() + 1
    return labels


def write_dataset(folder: Path, shape: tuple[int, int, int] = (24, 48, 56), training: int = 1) -> Path:
    """Write noisy protein-dark tomograms of balls and their datalist; the last one is for validation."""
    from custom_transforms.io import write_instances, write_mrc

    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for index in range(training + 1):
        labels = balls(shape, seed=index)
        noise = np.random.default_rng(100 + index).normal(0, 0.5, shape)
        write_mrc(folder / f"tomogram_{index}.mrc", (noise - (labels > 0)).astype(np.float32), VOXEL_SIZE)
        write_instances(folder / f"labels_{index}.mrc", labels, VOXEL_SIZE)
        items.append({"image": f"tomogram_{index}.mrc", "label": f"labels_{index}.mrc"})
    (folder / "dataset.json").write_text(json.dumps({"training": items[:-1], "validation": items[-1:]}))
    return folder


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


def run_config(name: str, run_id: str, **overrides: Any) -> Any:
    """Run a config of the bundle in this process, as ``monai.bundle run`` does; returns the workflow.

    Several names with commas between are laid over each other.
    """
    from monai.bundle import ConfigWorkflow

    level = logging.getLogger().level
    workflow = ConfigWorkflow(
        config_file=[str(ROOT / "configs" / one) for one in name.split(",")],
        meta_file=str(ROOT / "configs" / "metadata.json"),
        logging_file=False,
        run_id=run_id,
        workflow_type="train" if name.startswith("train") else "inference",
        bundle_root=str(ROOT),
        **{"device": "cpu", "progress": False, **overrides},
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    logging.getLogger().setLevel(level)
    return workflow


SMALL_NETWORK = {
    "_target_": "BasicUNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 1,
    "features": [4, 4, 4, 4, 4, 4],
    "norm": ["batch", {"affine": True}],
}
SMALL_TRAINING = {
    "epochs": 2,
    "crops_per_tomogram": 4,
    "patch_size": [32, 32, 32],
    "val_tile": [32, 48, 64],
    "wedge_probability": 0.5,
    "amplitude_probability": 0.5,
    "network_def": SMALL_NETWORK,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: two processes that take file after file end at the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Two processes run the tests; threads of both on two cores wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def auto_runs_the_networks_in_pytorch(monkeypatch):
    """Tests give the same with and without openvino, and convert nothing; see test_openvino.py."""
    monkeypatch.setattr("scripts.tiling.openvino_network._worth_trying", lambda *_: False)


from tests.detection.detect_scene import command, setting  # noqa: E402, F401  fixtures, which need what is above
