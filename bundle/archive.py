"""Write a zip whose bytes depend on its content alone."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from custom_transforms.files.whole_files import atomic_path

__all__ = ["write_zip"]

EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first time a zip can hold


def write_zip(path: str | Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a zip: sorted, dated 1980, readable by all, uncompressed.

    Uncompressed because compressed bytes depend on the version of zlib, and weights hardly shrink.

    Parameters
    ----------
    path : path
        Replaced if it exists, when the new one is whole.
    files : mapping of str to bytes
        Names inside the zip, with ``/`` between folders, and contents.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.create_system = 3  # Unix, wherever this runs
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return Path(path)
