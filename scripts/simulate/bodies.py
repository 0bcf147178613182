"""Any entry of a scene to a body: built-in phantom, density map or atomic model."""

from __future__ import annotations

import zlib

import numpy as np

from scripts.simulate.density import load_body
from scripts.simulate.phantoms import Body, draw_phantom

__all__ = ["draw_body"]


def draw_body(entry: dict, scene: dict, rng: np.random.Generator) -> Body:
    """Make one particle of an entry.

    Parameters
    ----------
    entry : dict
        A validated entry of ``particles`` or ``clutter``.
    scene : dict
        Gives the voxel size and the folders of the maps.
    rng : numpy Generator

    Returns
    -------
    Body
        Maps, models and "complex" phantoms of one class all have the same form, over tomograms and seeds.
    """
    if entry["kind"] in ("map", "model"):
        return load_body(entry, scene["folders"], scene["voxel_size"])
    shape_rng = np.random.default_rng([zlib.crc32(entry["name"].encode()), entry.get("form", 0)])
    return draw_phantom(entry, rng, shape_rng)
