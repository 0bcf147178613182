"""What the filters of particles share: choosing rows of the table, flagging or dropping them, and the user's masks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monai.transforms import MapTransform

from custom_transforms.files.names import tomogram_base_name, tomogram_stem
from custom_transforms.measuring.particle_table import filter_particles
from custom_transforms.units import ParticleSizes
from custom_transforms.volumes.lazy import Streams
from custom_transforms.volumes.metatensors import volume_like, volume_of, voxel_size_of
from custom_transforms.volumes.read import read_tomogram

__all__ = ["ACTIONS", "ParticleFilter", "check_action", "flag", "mask_path"]

ACTIONS = ("keep", "drop", "flag")


class ParticleFilter(MapTransform):
    """What the filters share: particles are chosen, and flagged, dropped, or kept while all others are dropped.

    A filter says which with `choose`, which volume of the user's it reads in ``mask``, and with ``active`` whether it
    does anything at all. One that only looks at the table says ``streams = ParticleFilter.streams`` and works on
    tomograms larger than memory, too.
    """

    streams = Streams("particles", "particles", {"keys": ("instances",), "mask": None})

    action: str = "drop"
    active: bool = True
    mask: str | None = None

    def __init__(
        self, keys: str, particle_diameter: float, neighbor_distance: float | None, allow_missing_keys: bool
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        sizes = ParticleSizes.from_diameter(particle_diameter, neighbor_distance=neighbor_distance)
        self.neighbor_distance = sizes.neighbor_distance

    def choose(
        self, table: pd.DataFrame, labels: np.ndarray, meta: Mapping[str, Any]
    ) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Give the table, perhaps with further columns, and the chosen rows by the word that is written for them."""
        raise NotImplementedError

    def mask_file(self, tomogram: str | Path) -> Path | None:
        """The volume that the filter reads for a tomogram, None if it reads none; FileNotFoundError if it is gone."""
        return mask_path(self.mask, tomogram) if self.active and self.mask is not None else None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d) if self.active else ():
            labels = volume_of(d, key)
            voxel_size_of(d, key)  # an entry without metadata is refused here, in words
            table = self.marked(d["particles"], labels, d[key].meta)
            if not table["dropped_by"].equals(d["particles"]["dropped_by"]):
                table, labels = filter_particles(table, labels, neighbor_distance=self.neighbor_distance)
                d[key] = volume_like(labels, d[key])
            d["particles"] = table
        return d

    def marked(self, table: pd.DataFrame, labels: Any, meta: Mapping[str, Any]) -> pd.DataFrame:
        """The table with flags and reasons; labels are not yet renumbered, and without a ``mask`` only sliced."""
        table, chosen = self.choose(table, labels, meta)
        for word, rows in chosen.items():
            table = self._mark(table, rows, word)
        return table

    def _mark(self, table: pd.DataFrame, rows: np.ndarray, word: str) -> pd.DataFrame:
        present = (table["dropped_by"] == "").to_numpy()
        if self.action == "flag":
            return flag(table, rows & present, word)
        marked = table.copy()
        marked.loc[present & (rows if self.action == "drop" else ~rows), "dropped_by"] = word
        return marked

    def _read_mask(self, meta: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
        path = mask_path(str(self.mask), str(meta.get("filename_or_obj", "")))
        mask, _ = read_tomogram(path, voxel_size=np.asarray(meta["voxel_size_zyx"]), check="labels")
        if mask.shape != tuple(shape):
            raise ValueError(
                f"{path}: expected a mask of the tomogram's shape (Z, Y, X) {tuple(shape)}, got {mask.shape}. "
                "Give one made on this tomogram, at the same binning."
            )
        return mask


def flag(table: pd.DataFrame, rows: np.ndarray, word: str) -> pd.DataFrame:
    """Add a word to the column ``flags`` of some rows of a copy of the table; the column is made if it is not there.

    Examples
    --------
    >>> flag(pd.DataFrame({"label": [1, 2]}), np.array([False, True]), "gold")["flags"].tolist()
    ['', 'gold']
    """
    flagged = table.copy()
    words = table["flags"].astype(str).tolist() if "flags" in table else [""] * len(table)
    flagged["flags"] = pd.Series(
        [",".join(filter(None, [old, word])) if new else old for old, new in zip(words, rows, strict=True)],
        index=table.index,
        dtype=object,
    )
    return flagged


def mask_path(pattern: str, tomogram: str | Path) -> Path:
    """Where the volume that belongs to a tomogram is: ``{name}`` is its file's name, or the one all programs share."""
    names = dict.fromkeys((tomogram_stem(tomogram), tomogram_base_name(tomogram)))
    paths = list(dict.fromkeys(Path(pattern.replace("{name}", name)) for name in names))
    for path in paths:
        if path.exists():
            return path
    looked = " or ".join(map(str, paths))
    raise FileNotFoundError(f"{looked}: no such file. Check the path; {{name}} in it stands for the tomogram's name.")


def check_action(action: str) -> None:
    """Raise ValueError unless an action is one of `ACTIONS`."""
    if action not in ACTIONS:
        raise ValueError(f"action: expected one of {', '.join(ACTIONS)}, got {action!r}.")
