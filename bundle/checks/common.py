"""What several checks share: the bundle, its configs, and a tiny labelled dataset."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Case"]

SHAPE_ZYX = (24, 40, 56)
VOXEL_SIZE = 10.0
DIAMETER = 120.0


@dataclass
class Case:
    """One bundle to check.

    Parameters
    ----------
    archive : Path
        The zip.
    root : Path
        The unpacked bundle.
    work : Path
        An empty folder, for what checks write.
    schema : Path, optional
        The official JSON schema of metadata, where somebody has it.
    """

    archive: Path
    root: Path
    work: Path
    schema: Path | None = None

    def path(self, name: str) -> str:
        """A file of the bundle, as text, for MONAI."""
        return str(self.root / name)

    def read(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the bundle."""
        path = self.root / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{name}: line {error.lineno} is not JSON: {error.msg}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{name}: expected a JSON object, got a {type(content).__name__}")
        return content

    @property
    def metadata(self) -> dict[str, Any]:
        return self.read("configs/metadata.json")

    @cached_property
    def dataset(self) -> Path:
        """A folder with one tomogram of balls, its labels and a datalist."""
        import mrcfile

        folder = self.work / "dataset"
        folder.mkdir()
        rng = np.random.default_rng(0)
        labels = np.zeros(SHAPE_ZYX, np.int16)
        grid = np.moveaxis(np.indices(SHAPE_ZYX), 0, -1)
        for _ in range(30):
            ball = ((grid - rng.uniform(6, np.array(SHAPE_ZYX) - 6)) ** 2).sum(axis=-1) < 36
            if not labels[ball].any():
                labels[ball] = labels.max() + 1
        image = (rng.normal(0, 0.5, SHAPE_ZYX) - (labels > 0)).astype(np.float32)
        for name, volume in (("noise.mrc", image), ("labels.mrc", labels)):
            with mrcfile.new(folder / name, volume) as file:
                file.voxel_size = VOXEL_SIZE
                file.header.ispg = 1
        items = [{"image": "noise.mrc", "label": "labels.mrc"}]
        (folder / "dataset.json").write_text(json.dumps({"training": items, "validation": items, "test": items}))
        return folder
