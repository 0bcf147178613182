"""The name of a tilt series behind the file names that programs give its tomograms."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.particles.context import tomogram_base_name

__all__ = ["tomogram_id"]

_COPICK = re.compile(r"/ExperimentRuns/([^/]+)/VoxelSpacing[^/]+/[^/]+\.zarr(/[^/]*)?$")
_ENDINGS = re.compile(r"(\.(ome|zarr|mrc|rec|map|gz|bz2|st|ali|tiff?|nii|em|tomostar))+$", re.IGNORECASE)
_IMOD = re.compile(r"_(rec|full_rec|full|SIRT)$")  # IMOD: TS_001_rec.mrc, TS_001_full_rec.mrc


def tomogram_id(path: str | Path, program: str = "") -> str:
    """Name the tilt series that a tomogram belongs to, as particle lists call it.

    Understood are Warp (``TS_001_10.00Apx.mrc``), RELION 5 (``rec_TS_001.mrc``), IMOD (``TS_001_rec.mrc``,
    ``TS_001.rec``), OME-Zarr and its levels, and a copick project (the run).

    Parameters
    ----------
    path : path
        Of a tomogram, or just its name.
    program : {"", "warp"}
        ``warp`` adds the ending of its tilt series, ``.tomostar``.

    Examples
    --------
    >>> [tomogram_id(one) for one in ("a/TS_001_10.00Apx.mrc", "rec_TS_001.mrc", "TS_001_rec.mrc", "TS_001.rec")]
    ['TS_001', 'TS_001', 'TS_001', 'TS_001']
    >>> tomogram_id("p/ExperimentRuns/TS_001/VoxelSpacing10.000/wbp.zarr"), tomogram_id("TS_001.ome.zarr/0")
    ('TS_001', 'TS_001')
    >>> tomogram_id("TS_001_10.00Apx.mrc", program="warp")
    'TS_001.tomostar'
    """
    if program not in ("", "warp"):
        raise ValueError(f"program: expected '' or 'warp', got {program!r}.")
    text = str(path).replace("\\", "/").rstrip("/")
    run = _COPICK.search(text if text.startswith("/") else f"/{text}")
    if run:
        name = run.group(1)
    else:
        # a level inside an OME-Zarr is named by a number, the Zarr by the tomogram
        parts = text.split("/")
        inside = [number for number, part in enumerate(parts) if part.lower().endswith(".zarr")]
        name = _ENDINGS.sub("", parts[inside[-1]] if inside else parts[-1])
        base = tomogram_base_name(name)
        name = _IMOD.sub("", base) or base
    return f"{name}.tomostar" if program == "warp" else name
