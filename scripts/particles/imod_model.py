"""IMOD model (.mod): scattered points, one object a class; a pixel's center is at +0.5 in x and y."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from custom_transforms.files.text import check_size
from custom_transforms.files.whole_files import atomic_path
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.binning import listed_voxel_to_angstrom_xyz
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.declared import Says, usable_pixel
from scripts.particles.shared.format import Format

__all__ = ["IMOD", "read", "says", "write"]

_HALF_PIXEL_XYZ = np.array([0.5, 0.5, 0.0])  # IMOD's z counts slices by their middle
_NAME_BYTES = 64
_HEADER_BYTES, _SIZE_AT, _PIXEL_AT = 240, 136, 216  # of the model; see imodModel's file format
_OBJECT_BYTES, _MESH_BYTES = 176, 16
_ANGSTROM = {
    3: 1e13,
    1: 1e10,
    -2: 1e8,
    -3: 1e7,
    -6: 1e4,
    -9: 10.0,
    -10: 1.0,
}  # units: km, m, cm, mm, µm, nm, Å; 0 is pixels


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read every point of every contour; needs the voxel size."""
    data = _model(path)
    names: list[str] = []
    points: list[np.ndarray] = []
    name = ""
    for word, start, end in _chunks(path, data):
        if word == b"OBJT":
            name = data[start : start + _NAME_BYTES].split(b"\0", 1)[0].decode("utf-8", "replace").strip()
        elif word == b"CONT":
            contour = np.frombuffer(data[start + 16 : end], dtype=">f4").reshape(-1, 3).astype(float)
            points.append(contour)
            names += [name] * len(contour)
    if not names:
        return ParticleList(np.zeros((0, 3)))
    voxels = np.concatenate(points) - _HALF_PIXEL_XYZ
    return ParticleList(listed_voxel_to_angstrom_xyz(voxels, context, "imod"), tomogram=context.name, class_name=names)


def says(path: Path, context: TomogramContext) -> Says:
    """Pixel and size of the volume that the model was drawn on; of its MINX chunk rather than of its header."""
    data = _model(path)
    x, y, z = struct.unpack_from(">3i", data, _SIZE_AT)
    pixel, units = struct.unpack_from(">fi", data, _PIXEL_AT)
    angstrom = usable_pixel(round(pixel * _ANGSTROM[units], 5)) if units in _ANGSTROM else None
    word = "the pixel size of its header"
    for kind, start, end in _chunks(path, data):
        if kind == b"MINX" and end - start >= 52:
            scale = struct.unpack_from(">f", data, start + 40)[0]  # of the image at that time, Å per pixel
            if usable_pixel(scale) is not None:
                angstrom, word = usable_pixel(round(scale, 5)), "the image scale of its MINX record"
    size = (z, y, x) if min(x, y, z) > 0 else None
    return Says(angstrom, word, size_zyx=size)


def _model(path: Path) -> bytes:
    check_size(path, "an IMOD model")
    data = path.read_bytes()
    if not data.startswith(b"IMODV1.") or len(data) < _HEADER_BYTES:
        raise ValueError(
            f"{path}: not readable as an IMOD model (expected IMODV1.2 and a header). Is the file complete?"
        )
    return data


def _chunks(path: Path, data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Word, begin and end of each part of a model. A length is compared with the file before anything is taken."""
    at = _HEADER_BYTES
    while at + 4 <= len(data):
        word, at = data[at : at + 4], at + 4
        if word == b"IEOF":
            return
        if word == b"OBJT":
            length = _OBJECT_BYTES
        elif word == b"CONT":
            length = 16 + 12 * _count(path, data, at)
        elif word == b"MESH":
            length = _MESH_BYTES + 12 * _count(path, data, at) + 4 * _count(path, data, at + 4)
        else:
            length = 4 + _count(path, data, at)
            if not word.isalnum():
                raise ValueError(f"{path}: not readable as an IMOD model (the part {word!r}). Is the file complete?")
        if at + length > len(data):
            raise ValueError(
                f"{path}: not readable as an IMOD model: its part {word.decode()} announces {length:,} bytes, but "
                f"{len(data) - at:,} are left. Is the file complete?"
            )
        yield word, at, at + length
        at += length
    raise ValueError(f"{path}: not readable as an IMOD model (it has no end, IEOF). Is the file complete?")


def _count(path: Path, data: bytes, at: int) -> int:
    if at + 4 > len(data) or (count := struct.unpack_from(">i", data, at)[0]) < 0:
        raise ValueError(f"{path}: not readable as an IMOD model (a damaged length). Is the file complete?")
    return count


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write one object of scattered points a class, named after it; needs the voxel size, takes the size if known."""
    try:
        from imodmodel.models import Contour, ImodModel, Object
    except ImportError as error:
        raise ImportError(
            "To write IMOD models needs the optional package imodmodel: pip install 'imodmodel>=0.1,<0.2'."
        ) from error
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


IMOD = Format(
    name="imod",
    description="IMOD model: voxels from the corner, x and y of a pixel's center at +0.5",
    suffixes=(".mod",),
    keeps=frozenset({"class", "subvoxel"}),
    read=read,
    write=write,
    sniff=lambda head: head.startswith(b"IMOD"),
    says=says,
)
