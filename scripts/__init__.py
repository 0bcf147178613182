"""Find every particle in cryo-electron tomograms; in a notebook four calls do it.

>>> from scripts import detect, match, read_particles, train

`detect` finds the particles of a file or array, `match` compares labels or centers with the truth, `train` trains the
networks on volumes with labels, and `read_particles` reads a particle list of any format. They are imported when they
are first used, so that ``import scripts`` costs nothing.
"""

import importlib
from typing import Any

_API = {
    "detect": "scripts.api.detect",
    "match": "scripts.api.match",
    "read_particles": "scripts.sources.particle_lists",
    "train": "scripts.api.train",
}
__all__ = list(_API)


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_API)}")
    return getattr(importlib.import_module(_API[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_API])
