"""Files of one simulated tomogram and of the whole set; each appears whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import center_of_mass

from custom_transforms.files.whole_files import atomic_path
from custom_transforms.units import as_voxel_size_zyx, voxel_zyx_to_angstrom_xyz
from scripts.particles.csv_table import table_text
from scripts.particles.shared.format import write_text
from scripts.simulate.placement import Placed

__all__ = ["particle_table", "split_datalist", "write_json", "write_table"]


def particle_table(labels: np.ndarray, placed: list[Placed], voxel_size: float) -> pd.DataFrame:
    """List the labelled particles, one row each.

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X), int
        Labels 1..n.
    placed : list of Placed
        The same n particles, by label.
    voxel_size : float
        Å per voxel.

    Returns
    -------
    DataFrame
        particle_id, label, class, center (``x_vox`` ... ``z_angstrom``: centroid of the voxels that carry the label;
        Å = index x voxel size), volume, touches_border, diameter_angstrom (of the ball of equal volume),
        ``ref_x_vox`` ... (the body's reference point, which a rotation turns about) and the rotation as a
        quaternion ``qx qy qz qw`` (active, body frame to tomogram frame, on (x, y, z) vectors).
    """
    ids = [particle.label for particle in placed]
    centers = np.array(center_of_mass(labels > 0, labels, ids), dtype=float).reshape(-1, 3) if ids else np.empty((0, 3))
    volumes = np.bincount(labels.ravel(), minlength=len(ids) + 1)[ids] if ids else np.empty(0, int)
    references = np.array([p.reference_zyx_vox for p in placed], dtype=float).reshape(-1, 3)
    turns = np.array([p.rotation.as_quat() for p in placed], dtype=float).reshape(-1, 4)
    angstrom = voxel_zyx_to_angstrom_xyz(centers, as_voxel_size_zyx(voxel_size))
    border = set(np.unique(np.concatenate([labels[side].ravel() for side in _FACES])).tolist())
    table = pd.DataFrame({"particle_id": ids, "label": ids, "class": [p.name for p in placed]})
    for number, axis in enumerate("xyz"):
        table[f"{axis}_vox"] = centers[:, 2 - number]
    for number, axis in enumerate("xyz"):
        table[f"{axis}_angstrom"] = angstrom[:, number]
    table["volume_vox"] = volumes
    table["volume_angstrom3"] = volumes * voxel_size**3
    table["touches_border"] = [label in border for label in ids]
    table["diameter_angstrom"] = (6 / np.pi * volumes) ** (1 / 3) * voxel_size
    for number, axis in enumerate("xyz"):
        table[f"ref_{axis}_vox"] = references[:, 2 - number]
    for number, part in enumerate(("qx", "qy", "qz", "qw")):
        table[part] = turns[:, number]
    return table


_FACES = (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1])


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file, indented."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV table without its index."""
    write_text(path, table_text(table, float_format="%.5f"))


def split_datalist(items: list[dict], validation: int, test: int) -> dict[str, list[dict]]:
    """Split items into training, validation and test; the last ones are the test's.

    Parameters
    ----------
    items : list of dict
    validation, test : int
        How many go there.

    Raises
    ------
    ValueError
        If nothing would be left for training.

    Examples
    --------
    >>> {key: len(part) for key, part in split_datalist([{}, {}, {}], 1, 0).items()}
    {'training': 2, 'validation': 1, 'test': 0}
    """
    training = len(items) - validation - test
    if training < 1:
        raise ValueError(
            f"split: expected at least one tomogram for training, got {len(items)} of which {validation} would go to "
            f"validation and {test} to test. Simulate more (--n), or set --validation and --test."
        )
    return {
        "training": items[:training],
        "validation": items[training : training + validation],
        "test": items[training + validation :],
    }
