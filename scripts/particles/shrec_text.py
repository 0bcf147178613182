"""SHREC txt (read only): ``PDB number number number ...`` in whole voxels; the order of the axes is not in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from custom_transforms.files.text import read_text
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.format import Format

__all__ = ["SHREC", "read"]

_ORDERS = ("xyz", "zyx", "zxy")  # SHREC'21; SHREC'19, where z comes first


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read class and position; the order is ``context.axis_order``, or the only one that fits the tomogram's size.

    Angles are left out: their convention is not in the file.
    """
    names, rows = [], []
    for number, line in enumerate(read_text(path, "a shrec list").split("\n"), start=1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        try:
            row = [float(word) for word in words[1:]]
        except ValueError:
            row = []
        if len(row) not in (3, 6) or not np.isfinite(row).all():
            raise ValueError(
                f"{path}: shrec line {number}: expected a class, three numbers, and three angles or none, got "
                f"{line.strip()[:60]!r}."
            )
        names.append(words[0])
        rows.append(row[:3])
    if not rows:
        return ParticleList(np.zeros((0, 3)))
    numbers = np.array(rows)
    order = context.axis_order or _fitting_order(numbers, context, path)
    voxels = numbers[:, [order.index(axis) for axis in "xyz"]]
    classes = [context.class_names.get(name, name) for name in names]
    return ParticleList(voxels * context.voxel_size_xyz("shrec"), tomogram=context.name, class_name=classes)


def _fitting_order(numbers: np.ndarray, context: TomogramContext, path: Path) -> str:
    highest = numbers.max(axis=0)
    size = context.size_zyx
    fitting = [
        order
        for order in _ORDERS
        if size is not None and all(highest[order.index(a)] <= n for a, n in zip("zyx", size, strict=True))
    ]
    if len(fitting) == 1:
        return fitting[0]
    why = "the tomogram's size is not given" if size is None else f"{len(fitting)} orders fit the size {size} (Z, Y, X)"
    raise ValueError(
        f"{path}: shrec leaves the order of the numbers open (highest {highest.astype(int).tolist()}), and {why}. "
        "Give --axis_order xyz (SHREC'21), zyx or zxy (SHREC'19), or --size."
    )


def _sniff(head: bytes) -> bool:
    words = head.split(b"\n", 1)[0].split()
    return len(words) in (4, 7) and len(words[0]) == 4 and words[0][:1].isdigit() and not words[0].isdigit()


SHREC = Format(
    name="shrec",
    description="SHREC txt (read only): class and whole voxels, order of the axes not in the file",
    suffixes=(".txt",),
    keeps=frozenset(),
    read=read,
    write=None,
    sniff=_sniff,
)
