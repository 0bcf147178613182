"""Targets by class: which particles of a label volume are of which of the classes that a network is to tell apart.

A data set's particle tables name a class for every label. The classes of a training are some of these names, or groups
of them; a particle of another class is still particle for MaskNet.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from custom_transforms.measuring.instance_centers import as_label_volume

__all__ = ["ClassLabelsd", "class_members", "class_numbers", "classes_in_table"]

OTHERS = ("background", "ignore")
Classes = Sequence[str] | Mapping[str, Sequence[str] | str]


def class_members(classes: Classes) -> dict[str, list[str]]:
    """The names in the data set that each class stands for, from a list of names or an object of groups.

    Raises
    ------
    ValueError
        If a name belongs to two classes, or a class to none.

    Examples
    --------
    >>> class_members(["vlp"]), class_members({"ribosome": ["4v4r", "6qzp"]})
    ({'vlp': ['vlp']}, {'ribosome': ['4v4r', '6qzp']})
    """
    if isinstance(classes, str):
        raise ValueError(f"classes: expected a list of names, or an object of lists, got {classes!r}.")
    groups = classes.items() if isinstance(classes, Mapping) else [(name, name) for name in classes]
    members = [(name, [group] if isinstance(group, str) else list(group)) for name, group in groups]
    named = [one for _, group in members for one in group]
    doubled = [one for one in named if named.count(one) > 1]
    if doubled or not all(group for _, group in members):
        got = f"{doubled[0]!r} twice" if doubled else "a class without a name of the data set"
        raise ValueError(f"classes: expected each name in one class, got {got}.")
    return dict(members)


def classes_in_table(path: str | Path) -> pd.Series:
    """The class of every label of a particle table (CSV with the columns label and class), without dropped rows."""
    table = pd.read_csv(path, comment="#", dtype={"class": str}, keep_default_na=False)
    if not {"label", "class"} <= set(table.columns):
        raise ValueError(f"{path}: expected a particle table with the columns label and class. Make it with prepare.")
    label = pd.to_numeric(table["label"]).astype(int)
    return table["class"][label > 0].set_axis(label[label > 0])


def class_numbers(labels: np.ndarray, of_label: pd.Series, classes: Classes, other: str = "background") -> np.ndarray:
    """Number the class of every voxel.

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X), int
        Instances; -1 is ignored.
    of_label : Series of str
        Class by label, as `classes_in_table` gives it.
    classes : sequence of str, or mapping of str to sequence of str
        See `class_members`.
    other : {"background", "ignore"}
        Particles of none of the classes get a number after the last class, or -1.

    Returns
    -------
    ndarray, like ``labels``, int16
        0 background, 1 to n the classes in their order, n + 1 others, -1 ignored.

    Examples
    --------
    >>> class_numbers(np.array([0, 1, 2, 3, -1]), pd.Series({1: "a", 2: "b", 3: "c"}), {"x": ["b"], "y": ["a"]})
    array([ 0,  2,  1,  3, -1], dtype=int16)
    """
    if other not in OTHERS:
        raise ValueError(f"other: expected {' or '.join(OTHERS)}, got {other!r}.")
    members = class_members(classes)
    number = {one: k + 1 for k, group in enumerate(members.values()) for one in group}
    rest = len(members) + 1 if other == "background" else -1
    lookup = np.full(max(int(labels.max(initial=0)), 0) + 2, rest, dtype=np.int16)
    lookup[0], lookup[-1] = 0, -1  # index -1: ignored voxels
    known = of_label[of_label.index < len(lookup) - 1]
    lookup[known.index.to_numpy(dtype=int)] = [number.get(name, rest) for name in known]
    return lookup[np.maximum(labels, -1)]


class ClassLabelsd(MapTransform):
    """Write the class of every voxel beside instance labels; without classes the mask: 1 particle, 0 background, -1.

    Parameters
    ----------
    keys : str
        Instance labels (1, Z, Y, X).
    target_key : str
        Where the numbers of `class_numbers` go.
    classes, other
        See `class_numbers`; None is one class without a name.
    particles_key : str
        The path of the particle table in the item of the datalist.
    """

    def __init__(
        self, keys: KeysCollection = "label", target_key: str = "class", classes: Classes | None = None,
        other: str = "background", particles_key: str = "particles", allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        if other not in OTHERS:
            raise ValueError(f"other: expected {' or '.join(OTHERS)}, got {other!r}.")
        self.classes = classes or None
        self.target_key, self.other, self.particles_key = target_key, other, particles_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            labels = as_label_volume(d[key])
            if self.classes is None:
                numbers = np.sign(labels).astype(np.int8)
            elif self.particles_key not in d:
                name = getattr(d[key], "meta", {}).get("filename_or_obj", key)
                raise ValueError(
                    f"{name}: expected a particle table that names the class of each label ('particles' in the "
                    "datalist), got none. `python -m scripts prepare` and `simulate` write it."
                )
            else:
                numbers = class_numbers(labels, classes_in_table(d[self.particles_key]), self.classes, self.other)
            target = torch.from_numpy(numbers.reshape(d[key].shape))
            d[self.target_key] = (
                MetaTensor(target, meta=dict(d[key].meta)) if isinstance(d[key], MetaTensor) else target
            )
        return d
