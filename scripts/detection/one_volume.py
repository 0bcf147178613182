"""One volume over many workers: they run the networks on its tiles, this process blends these; they label its blocks.

What a worker computes goes to files on the disk that all share: a tile to one that is read and removed when its turn
comes, a block to chunks of a volume that no other block writes. So the result is that of one process, bit by bit.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from custom_transforms.files.whole_files import temporary_tag
from scripts.cluster.spread import in_order
from scripts.cluster.workers import Workers
from scripts.detection.detector import Detector
from scripts.detection.scratch import scratch_folder

__all__ = ["NetworkElsewhere", "detector_of"]

Index = tuple[int, int, int]


@lru_cache(maxsize=1)
def _detector(options: str) -> Detector:
    return Detector(**json.loads(options))


def detector_of(options: Mapping[str, Any]) -> Detector:
    """The detector of a worker, whose networks are built once."""
    return _detector(json.dumps(dict(options), sort_keys=True, default=str))


@dataclass(frozen=True)
class _Tiles:
    """Run the networks on some tiles of a volume, write what they give, and return the files, and what ran them."""

    options: Mapping[str, Any]
    volume: Any
    tile: tuple[int, int, int]
    batch: int
    folder: Path

    def __call__(self, indices: Sequence[Index], second: bool) -> tuple[list[Path], str]:
        detector, files = detector_of(self.options), []
        detector.inferer.roi_size, detector.inferer.batch = self.tile, self.batch
        for index, output in detector.inferer.predict_tiles(self.volume, detector.network, indices):
            name = "_".join(map(str, index))
            files.append(self.folder / f"{name}_{temporary_tag()}.npy")  # a second start has files of its own
            np.save(files[-1], output.cpu().numpy())
        return files, detector.inferer.ran


@lru_cache(maxsize=1)
def _unpickled(file: Path) -> Callable[[Any], Any]:
    return pickle.loads(file.read_bytes())


@dataclass(frozen=True)
class _Block:
    """Call a function of a block that is in a file, with tables of the whole volume: each worker reads it once."""

    file: Path

    def __call__(self, box: Any, second: bool) -> Any:
        result = _unpickled(self.file)(box)
        if not self.file.exists():  # nobody waits any more, and a late write made the folder anew
            shutil.rmtree(self.file.parent, ignore_errors=True)
        return result


@dataclass
class NetworkElsewhere:
    """Stands for the networks of a `TomogramInferer`; workers run them, and label the blocks.

    Parameters
    ----------
    workers : Workers
    options : mapping
        What `Detector` takes.
    scratch_dir, name
        Where the folder for the tiles is made, and the tomogram's name for it.

    Attributes
    ----------
    ran : str
        What ran the networks on the last tiles.
    """

    workers: Workers
    options: Mapping[str, Any]
    scratch_dir: str | Path
    name: str
    ran: str = field(default="torch", init=False)

    def outputs(
        self, volume: Any, tile: tuple[int, int, int], batch: int, wanted: list[Index]
    ) -> Iterator[tuple[Index, torch.Tensor]]:
        """The networks' outputs (C, Z, Y, X) of tiles of a volume that can be pickled, in their order."""
        most = max(len(wanted) // (4 * self.workers.most), 1)
        rows = [list(row) for _, row in groupby(wanted, lambda index: index[:2])]  # whose voxels are read together
        tasks = [row[first : first + most] for row in rows for first in range(0, len(row), most)]
        with scratch_folder(self.scratch_dir, f"{self.name}_tiles") as folder:
            run = _Tiles(self.options, volume, tile, batch, folder.absolute())
            with closing(self.workers.each(run, tasks)) as outcomes:
                for indices, (files, self.ran) in zip(tasks, in_order(outcomes), strict=True):
                    for index, file in zip(indices, files, strict=True):
                        yield index, torch.from_numpy(np.load(file))
                        file.unlink()

    def map_blocks(self, folder: Path, function: Callable[[Any], Any], boxes: list[Any]) -> Iterator[Any]:
        """What a function that can be pickled gives for every box, in their order; see `Blocks`."""
        file = folder.absolute() / f"function_{temporary_tag()}.pickle"
        file.write_bytes(pickle.dumps(function))
        with closing(self.workers.each(_Block(file), boxes)) as outcomes:
            yield from in_order(outcomes)
