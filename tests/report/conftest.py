"""A detection that `detect` wrote, shared by the tests of its report; each edits a copy."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from custom_transforms.volumes.mrc_write import write_instances, write_mrc
from scripts.particles.csv_table import table_text
from scripts.records import model
from scripts.records.detection import DetectionRecord, read_detection

SHAPE = (12, 20, 28)
CENTERS_ZYX = np.array([[3.0, 5.0, 6.0], [8.0, 14.0, 20.0], [5.0, 10.0, 13.0], [10.0, 4.0, 24.0]])


@dataclass
class Run:
    """A copy of the detection; what is set changes its files."""

    folder: Path

    def path(self, ending: str) -> Path:
        return self.folder / f"{self.folder.name}{ending}"

    @property
    def record(self) -> DetectionRecord:
        return read_detection(self.path(".json"))

    def note(self, **entries: Any) -> None:
        model.write(self.record.changed(**entries), self.path(".json"))

    @property
    def table(self) -> pd.DataFrame:
        return pd.read_csv(self.path("_particles.csv"), dtype={"class": str, "dropped_by": str}).fillna("")

    @table.setter
    def table(self, table: pd.DataFrame) -> None:
        self.path("_particles.csv").write_text(table_text(table))

    def relabel(self, labels: np.ndarray, **tomogram: Any) -> None:
        """Put other labels, of another shape or voxel size, in place of the detected ones; without a center map."""
        known = {**self.record.tomogram.content(), "shape_zyx": list(labels.shape), **tomogram}
        write_instances(self.path("_instances.mrc"), labels, np.array(known["voxel_size_zyx_angstrom"]), overwrite=True)
        self.path("_center_map.npz").unlink()
        self.note(tomogram=known)


def detect_balls(folder: Path, **settings: Any) -> Run:
    """Detect four dark balls of radius 3 voxels; the last lies at a face, for which a filter drops it."""
    from monai.networks.nets import BasicUNet

    from scripts.detection.detector import Detector
    from scripts.networks import MaskAndCenterNet
    from tests.conftest import SMALL_NETWORK
    from tests.detection.detect_scene import NETWORKS, Blobs

    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32) * 0.1
    for center, depth in zip(CENTERS_ZYX, (1.0, 0.9, 0.8, 1.0), strict=True):
        image[((grid - center) ** 2).sum(-1) <= 9] -= depth
    write_mrc(folder / "TS_01.mrc", image, 10.0)
    arguments = {key: value for key, value in SMALL_NETWORK.items() if key != "_target_"}
    network = MaskAndCenterNet(BasicUNet(**arguments), BasicUNet(**arguments))
    torch.save(network.state_dict(), folder / "model.pt")
    options = {"network_def": NETWORKS, "weights": str(folder / "model.pt"), "device": "cpu", "progress": False}
    fixed = {
        "particle_diameter": 60.0,
        "edge_margin": 25.0,
        "center_threshold": 0.3,
        "tile": [16, 32, 32],
        "flag_gold": False,
    }
    detector = Detector({**options, **fixed, "output_dir": str(folder / "detections"), **settings})
    detector.network = Blobs()
    return Run(detector(folder / "TS_01.mrc")["output_files"]["record"].parent)


@pytest.fixture(scope="session")
def detected(tmp_path_factory) -> Run:
    return detect_balls(tmp_path_factory.mktemp("report"))


@pytest.fixture
def run(detected, tmp_path) -> Run:
    return Run(Path(shutil.copytree(detected.folder, tmp_path / "TS_01")))
