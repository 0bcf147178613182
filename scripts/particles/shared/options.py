"""The context of a particle list from the options that a user gives."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.relion_tomograms import read_tomograms_star

__all__ = ["context_of"]


def context_of(context: TomogramContext | None = None, **options: Any) -> TomogramContext:
    """A context from keywords; None means not given.

    ``voxel_size`` is short for ``voxel_size_zyx``; ``tomograms_star`` is a RELION file with sizes,
    pixel sizes and binnings.
    """
    if options.get("tomograms_star") is not None:
        options["tomograms"] = read_tomograms_star(options["tomograms_star"])
    options.pop("tomograms_star", None)
    if "voxel_size" in options:
        options["voxel_size_zyx"] = options.pop("voxel_size")
    known = {item.name for item in fields(TomogramContext)}
    for name in options:
        if name not in known:
            raise ValueError(f"{name}: not an option of particle lists; expected one of {', '.join(sorted(known))}")
    given = {name: value for name, value in options.items() if value is not None}
    return replace(context or TomogramContext(), **given)
