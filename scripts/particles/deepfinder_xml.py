"""DeepFinder XML: `<objlist><object tomo_idx class_label x y z phi psi the/></objlist>`, voxels from the corner."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import quoteattr

import numpy as np
import pandas as pd
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from custom_transforms.files.text import check_size
from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.format import (
    Format,
    class_numbers,
    number_names,
    optional_angles,
    to_numbers,
    whole_number_text,
    write_text,
)
from scripts.particles.shared.orientations import deepfinder_angles, rotation_from_deepfinder

__all__ = ["DEEPFINDER", "read", "write"]

_NEEDED = ("x", "y", "z")
_ANGLES = ("phi", "psi", "the")
_MOST, _LONGEST = 100, 10_000  # attributes of an object and letters of one; no list comes near
_KNOWN = (*_NEEDED, *_ANGLES, "tomo_idx", "tomo_name", "class_label", "class_name")


def read(path: Path, context: TomogramContext) -> ParticleList:
    """Read; needs the voxel size. Document types and entities are refused: no list needs them."""
    table = pd.DataFrame(_objects(path))
    if len(table) == 0:
        return ParticleList(np.zeros((0, 3)))
    for column in _NEEDED:
        if column not in table.columns or table[column].isna().any():
            row = int(table[column].isna().to_numpy().argmax()) + 1 if column in table.columns else 1
            raise ValueError(
                f"{path}: deepfinder object {row} lacks the attribute {column}. Add it: x, y, z in voxels."
            )
    voxels = np.stack([to_numbers(table[c], c, "deepfinder", path) for c in _NEEDED], axis=1)
    labels = _texts(table, "class_name", "class_label", "")
    return ParticleList(
        voxels * context.voxel_size_xyz("deepfinder"),
        tomogram=_texts(table, "tomo_name", "tomo_idx", context.name),
        class_name=[context.class_names.get(label, label) for label in map(whole_number_text, labels)],
        rotation=_rotation(table, path),
        extra=table.drop(columns=[c for c in _KNOWN if c in table.columns]),
    )


def write(particles: ParticleList, path: Path, context: TomogramContext) -> None:
    """Write voxels, class and tomogram numbers (names beside them where they are no numbers), and known angles."""
    voxels = particles.centers_xyz_angstrom
    if len(particles):
        voxels = voxels / context.voxel_size_xyz("deepfinder")
    names = [str(name) or context.name for name in particles.tomogram]
    labels = [str(name) for name in particles.class_name]
    named_tomograms = not all(name.isdecimal() for name in names if name)
    numbers = class_numbers(particles, context)
    indices = number_names([name or "0" for name in names])
    angles = None if particles.rotation is None else deepfinder_angles(particles.rotation)
    lines = ["<objlist>"]
    for row, (x, y, z) in enumerate(voxels):
        words = [f'tomo_idx="{indices[row]}" class_label="{numbers[row]}"']
        words.append(f'x="{_number(x)}" y="{_number(y)}" z="{_number(z)}"')
        if angles is not None:
            words.append(" ".join(f'{n}="{_number(v)}"' for n, v in zip(_ANGLES, angles[row], strict=True)))
        if named_tomograms:
            words.append(f"tomo_name={quoteattr(names[row])}")
        if labels[row] and not labels[row].isdecimal():
            words.append(f"class_name={quoteattr(labels[row])}")
        lines.append(f"  <object {' '.join(words)}/>")
    write_text(path, "\n".join([*lines, "</objlist>"]) + "\n")


class _InMegabytes(io.FileIO):
    """A file that comes in large pieces: the parser looks at a word that is not at its end again with each."""

    def read(self, _: int | None = -1) -> bytes:
        return super().read(2**20)


def _objects(path: Path) -> list[dict[str, str]]:
    """Attributes of every object, without building a tree (lists can have a million)."""
    check_size(path, "a deepfinder list")
    rows: list[dict[str, str]] = []
    root = None
    try:
        with _InMegabytes(path) as source:
            for event, element in iterparse(source, events=("start", "end"), forbid_dtd=True):
                if root is None:
                    root = element
                    if root.tag != "objlist":
                        raise ValueError(f"{path}: deepfinder needs the root <objlist>, got <{root.tag}>.")
                if len(element.attrib) > _MOST or any(len(text) > _LONGEST for text in element.attrib.values()):
                    raise ValueError(
                        f"{path}: deepfinder object {len(rows) + 1}: expected at most {_MOST} attributes of "
                        f"{_LONGEST:,} letters, got {len(element.attrib)}. Is it a particle list?"
                    )
                if event == "end" and element.tag == "object":
                    rows.append(dict(element.attrib))
                    root.clear()
    except DefusedXmlException:
        raise ValueError(
            f"{path}: deepfinder lists may not hold a document type or entities; this one does. "
            "Remove the <!DOCTYPE ...> part if you trust the file."
        ) from None
    except ParseError as error:
        raise ValueError(f"{path}: not readable as XML ({error}). Is the file complete?") from error
    return rows


def _rotation(table: pd.DataFrame, path: Path):
    present = [c for c in _ANGLES if c in table.columns]
    if not present:
        return None
    missing = [c for c in _ANGLES if c not in table.columns or table[c].isna().any()]
    if missing:
        raise ValueError(
            f"{path}: deepfinder objects have {', '.join(present)}, but {missing[0]} is missing for some. "
            "Give phi, psi and the for every object, or for none."
        )
    angles = optional_angles(table, _ANGLES, "deepfinder", path)
    return None if angles is None else rotation_from_deepfinder(angles)


def _texts(table: pd.DataFrame, first: str, second: str, default: str) -> list[str]:
    texts = pd.Series(np.nan, index=table.index, dtype=object)
    for column in (first, second):
        if column in table.columns:
            texts = texts.where(texts.notna(), table[column])
    return [
        default if value is None or value != value or not str(value).strip() else str(value).strip() for value in texts
    ]


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


DEEPFINDER = Format(
    name="deepfinder",
    description="DeepFinder XML: voxels from the corner, phi psi the in degrees",
    suffixes=(".xml",),
    keeps=frozenset({"class", "orientation", "subvoxel", "tomogram"}),
    read=read,
    write=write,
    sniff=lambda head: b"<objlist" in head,
)
