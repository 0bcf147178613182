"""What is corrected in the layers of a viewer: centers, and their classes; and the list of what is left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scripts.particles.csv_table import plain_text, table_text
from scripts.particles.shared.context import tomogram_base_name
from scripts.particles.shared.format import write_text
from scripts.report.inputs import RunData

__all__ = [
    "curated_table",
    "new_points_are_unknown",
    "read_picks",
    "reclassify_particle",
    "save_picks",
    "toggle_particle",
]


def _particle_at(layers: Sequence[Any], position_angstrom: Sequence[float]) -> tuple[Any, int] | None:
    """The particle whose sphere holds a position (Å; Z, Y, X), the nearest of several: its layer, and which it is."""
    position = np.asarray(position_angstrom, dtype=float)[-3:]
    found: list[tuple[float, Any, int]] = []
    for layer in layers:
        scale = np.asarray(layer.scale)[-3:]
        distances = np.linalg.norm(np.asarray(layer.data).reshape(-1, 3) * scale - position, axis=1)
        radii = np.asarray(layer.size, dtype=float).reshape(-1) / 2 * scale.max()
        if layer.visible:
            found += [(distances[i], layer, int(i)) for i in np.flatnonzero(distances <= radii)]
    return min(found, key=lambda one: one[0])[1:] if found else None


def toggle_particle(layers: Sequence[Any], position_angstrom: Sequence[float], chosen: Any = None) -> bool:
    """Delete the particle whose sphere holds a position (Å; Z, Y, X), the nearest of several; or add one there.

    A new one goes into the chosen layer, or into the first if that is none of them.

    Returns
    -------
    bool
        True if a particle was added.
    """
    hit = _particle_at(layers, position_angstrom)
    if hit is not None:
        _remove(*hit)
        return False
    layer = next((layer for layer in layers if layer is chosen), layers[0])
    layer.selected_data = set()
    new_points_are_unknown(layer)
    _add(layer, np.asarray(position_angstrom, dtype=float)[-3:] / np.asarray(layer.scale)[-3:])
    return True


def reclassify_particle(layers: Sequence[Any], position_angstrom: Sequence[float], chosen: Any) -> bool:
    """Move the particle whose sphere holds a position (Å; Z, Y, X) into the layer of another class.

    Returns
    -------
    bool
        True if there was one that was not in that layer.
    """
    hit = _particle_at(layers, position_angstrom)
    if hit is None or hit[0] is chosen:
        return False
    layer, index = hit
    center, size = np.array(layer.data[index]), float(np.ravel(layer.size)[index])
    features = layer.features.iloc[index].to_dict() | {"class": chosen.metadata["class"]}
    _remove(layer, index)
    chosen.selected_data = set()
    chosen.feature_defaults, chosen.current_size = features, size
    _add(chosen, center)
    return True


def _remove(layer: Any, index: int) -> None:
    layer.selected_data = {index}
    layer.remove_selected()
    new_points_are_unknown(layer)


def _add(layer: Any, center_zyx_vox: np.ndarray) -> None:
    layer.add([center_zyx_vox])
    layer.selected_data = set()
    new_points_are_unknown(layer)


def curated_table(layers: Sequence[Any], run: RunData) -> pd.DataFrame:
    """The particles as they are in the layers now, as a table that every reader here takes.

    The class is that of the layer, or, where somebody edited it there, what the features of the point say. ``origin``
    says where each comes from: detected, moved, reclassified or added; deleted ones are not there.
    """
    data = np.concatenate([np.asarray(layer.data, dtype=float).reshape(-1, 3) for layer in layers])
    features = pd.concat([_features(layer) for layer in layers], ignore_index=True)
    ids = features["particle_id"].to_numpy(int)
    ids = np.where(features["particle_id"].duplicated(), 0, ids)  # napari gives a new point the features of another
    known = run.particles.set_index("particle_id")
    table = pd.DataFrame({"particle_id": ids})
    new = ids == 0
    highest = max([0, *ids, *known.index])
    table.loc[new, "particle_id"] = np.arange(1, new.sum() + 1) + highest
    table["class"] = np.where(new, features["layer"], features["class"])
    for axis, name in enumerate("xyz"):
        table[f"{name}_vox"] = data[:, 2 - axis].round(4)
        table[f"{name}_angstrom"] = (data[:, 2 - axis] * run.voxel_size_zyx[2 - axis]).round(4)
    table["score"] = np.where(new, np.nan, features["score"])
    table["tomogram"] = tomogram_base_name(run.name)
    table["origin"] = "added"
    old = table["particle_id"].isin(known.index).to_numpy() & ~new
    before = known.loc[table.loc[old, "particle_id"]]
    moved = (np.abs(before[["z_vox", "y_vox", "x_vox"]].to_numpy(float) - data[old]) > 1e-3).any(axis=1)
    other = before["class"].to_numpy() != table.loc[old, "class"].to_numpy()
    table.loc[old, "origin"] = np.select([moved, other], ["moved", "reclassified"], "detected")
    return table


def _features(layer: Any) -> pd.DataFrame:
    """Id (0 unknown), score and class of each point, and the class that a new one in this layer has."""
    features = layer.features.reset_index(drop=True)
    numbers = {name: pd.to_numeric(features[name], errors="coerce") for name in ("particle_id", "score")}
    ids, name = numbers["particle_id"].fillna(0).astype(int), layer.metadata["class"]
    said = features["class"].astype(str)
    if name is not None:  # a point that was pasted from another layer says the class of before
        said = said.where(said != ids.map(layer.metadata["opened"]), name)
    return pd.DataFrame({"particle_id": ids, "score": numbers["score"], "class": said, "layer": name or ""})


def save_picks(table: pd.DataFrame, path: str | Path) -> Path:
    """Write curated picks as CSV, whole or not at all."""
    write_text(path, table_text(table))
    return Path(path)


def read_picks(path: str | Path) -> pd.DataFrame:
    """Read what `save_picks` wrote."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such picks. Check the path.")
    table = pd.read_csv(path, dtype={"class": str})
    missing = [name for name in ("particle_id", "z_vox", "y_vox", "x_vox") if name not in table]
    if missing:
        raise ValueError(f"{path}: expected picks as view saves them, the column {missing[0]} is missing.")
    return table.map(plain_text)


def new_points_are_unknown(layer: Any) -> None:
    """napari gives a new point the features and size of the last or selected one: say that it has none."""
    sizes = np.asarray(layer.size).ravel()
    layer.feature_defaults = {"particle_id": 0, "score": np.nan, "class": "", "diameter_angstrom": np.nan}
    if sizes.size:
        layer.current_size = float(np.median(sizes))
