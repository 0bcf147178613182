"""IMOD model (.mod): scattered points, one object a class; a pixel's center is at +0.5 in x and y."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from custom_transforms.files.whole_files import atomic_path
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.format import Format

__all__ = ["IMOD", "read", "write"]

_HALF_PIXEL_XYZ = np.array([0.5, 0.5, 0.0])  # IMOD's z counts slices by their middle
_NAME_BYTES = 64


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read every point of every contour; needs the voxel size."""
    _imodmodel()
    from imodmodel.parsers import parse_model

    try:
        model = parse_model(_WholeFile(path.read_bytes()))
    except Exception as error:  # the library raises struct, validation and unicode errors on damaged files
        raise ValueError(f"{path}: not readable as an IMOD model ({error}). Is the file complete?") from error
    points = [(c.points, _name(o.header.name)) for o in model.objects for c in o.contours if len(c.points)]
    if not points:
        return ParticleList(np.zeros((0, 3)))
    voxels = np.concatenate([np.asarray(p, dtype=float) for p, _ in points]) - _HALF_PIXEL_XYZ
    names = [name for p, name in points for _ in range(len(p))]
    return ParticleList(voxels * context.voxel_size_xyz("imod"), tomogram=context.name, class_name=names)


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write one object of scattered points a class, named after it; needs the voxel size, takes the size if known."""
    _imodmodel()
    from imodmodel.models import Contour, ImodModel, Object

    voxel = context.voxel_size_xyz("imod")
    model = ImodModel()
    for name in sorted(set(map(str, particles.class_name))):
        points = particles.centers_xyz_angstrom[np.asarray(particles.class_name) == name] / voxel + _HALF_PIXEL_XYZ
        item = Object(contours=[Contour(points=points)])
        item.header.name = name.encode()[: _NAME_BYTES - 1].decode(errors="ignore")
        item.header.flags.scattered = True
        item.update_sizes()
        model.objects.append(item)
    model.update_sizes()
    if context.size_zyx is not None:
        model.header.zmax, model.header.ymax, model.header.xmax = context.size_zyx
    model.header.pixelsize, model.header.units = float(voxel[0]) / 10, -9  # nm
    with atomic_path(path) as temporary:
        model.to_file(temporary)


class _WholeFile(io.BytesIO):
    """Bytes that raise at their end: the library would read nothing, forever, from a damaged file."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size is not None and size > len(data):
            raise ValueError(f"it ends {size - len(data)} bytes early")
        return data


def _imodmodel() -> None:
    try:
        import imodmodel  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "IMOD models need the optional package imodmodel: pip install 'imodmodel>=0.1,<0.2'."
        ) from error


def _name(raw: str) -> str:
    return raw.split("\0", 1)[0].strip()


IMOD = Format(
    name="imod",
    description="IMOD model: voxels from the corner, x and y of a pixel's center at +0.5",
    suffixes=(".mod",),
    keeps=frozenset({"class", "subvoxel"}),
    read=read,
    write=write,
    sniff=lambda head: head.startswith(b"IMOD"),
)
