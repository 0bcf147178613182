"""Unpack a bundle's zip safely, once."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

__all__ = ["ROOT", "extract", "unpacked"]

ROOT = Path(__file__).parents[2]  # of the bundle that this code belongs to

NEEDED = ("configs/metadata.json", "configs/inference.json", "models/model.pt")
LONGEST = 255  # bytes of a name, which file systems hold
LARGEST = 4 * 1024**3  # bytes unpacked: far above any bundle, far below a disk


def unpacked(bundle: str | os.PathLike, cache: str | os.PathLike | None = None) -> Path:
    """Give the folder of a bundle, which may still be a zip.

    A zip is unpacked into a folder named after its content, so the same zip is unpacked once and a changed one anew.

    Parameters
    ----------
    bundle : path
        A zip as ``python -m bundle build`` makes it, or a bundle's folder.
    cache : path, optional
        Where unpacked bundles are kept; by default ``cryoet_particle_detection/bundles`` in the user's cache folder
        (``$XDG_CACHE_HOME`` or ``~/.cache``).

    Returns
    -------
    Path
        The bundle's root: it has ``configs`` and ``models``.

    Raises
    ------
    FileNotFoundError
        If there is nothing at that path.
    ValueError
        If it is no zip, damaged, unsafe to unpack (names that lead elsewhere, links), or no bundle.
    """
    path = Path(bundle).expanduser()
    if path.is_dir():
        _check_bundle(path, path)
        return path.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a bundle (a zip or a folder), found nothing there.")
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    store = Path(cache).expanduser() if cache is not None else _user_cache()
    target = store / content
    if not target.is_dir():
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store, prefix=".unpacking_") as temporary:
            whole = Path(temporary) / content
            root = extract(path, whole)
            _check_bundle(root, path)
            try:
                os.rename(whole, target)
            except OSError:
                if not target.is_dir():  # otherwise another process unpacked the same zip meanwhile
                    raise
    return next(one for one in target.iterdir() if one.is_dir()).resolve()


def extract(archive: str | os.PathLike, folder: str | os.PathLike) -> Path:
    """Unpack a zip with one top folder; nothing can land outside ``folder``.

    Parameters
    ----------
    archive : path
    folder : path
        Made if missing.

    Returns
    -------
    Path
        The top folder.

    Raises
    ------
    ValueError
        If it is no zip, damaged or encrypted, has an unsafe name, a link, a name twice, or not exactly one top folder.
    OSError
        If the folder cannot be written to.
    """
    path, folder = Path(archive), Path(folder)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: expected a zip, as `python -m bundle build` makes it; it is none, or is cut short.")
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            _check_names(path, members)
            for member in members:
                file.extract(member, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{path}: the zip cannot be unpacked ({error}). Copy or download it again.") from error
    except OSError as error:
        raise OSError(
            f"{path}: the zip cannot be unpacked into {folder} ({error.strerror}). Make room there, and allow writing."
        ) from error
    return folder / PurePosixPath(members[0].filename).parts[0]


def _check_names(path: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        name = member.orig_filename
        parts = PurePosixPath(name).parts
        if name.startswith("/") or "\\" in name or "\0" in name or ":" in name or ".." in parts or not parts:
            raise ValueError(f"{path}: {name!r} would be written outside the bundle's folder. Do not use this zip.")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"{path}: {name!r} is a link, which a bundle never holds. Do not use this zip.")
        length = max(len(part.encode()) for part in parts)
        if length > LONGEST:
            raise ValueError(f"{path}: holds a name of {length} bytes, expected at most {LONGEST}. Build it again.")
    names = [PurePosixPath(member.filename.casefold()) for member in members]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: holds a name twice. Build the bundle again.")
    folders = {folder for name in names for folder in name.parents}
    files = [member.filename for name, member in zip(names, members, strict=True) if not member.is_dir()]
    both = [name for name in files if PurePosixPath(name.casefold()) in folders]
    if both:
        raise ValueError(f"{path}: {both[0]} is a file and a folder in it. Build the bundle again.")
    size = sum(member.file_size for member in members)
    if size > LARGEST:
        raise ValueError(f"{path}: would unpack to {size / 1024**3:.1f} GiB, expected at most {LARGEST >> 30} GiB.")
    tops = {PurePosixPath(member.filename).parts[0] for member in members}
    if len(tops) != 1 or not any(len(PurePosixPath(member.filename).parts) > 1 for member in members):
        raise ValueError(f"{path}: expected one folder at the top, got {', '.join(sorted(tops)) or 'nothing'}.")


def _check_bundle(root: Path, source: Path) -> None:
    missing = [name for name in NEEDED if not (root / name).is_file()]
    if missing:
        raise ValueError(f"{source}: expected a bundle of this project, but it has no {', '.join(missing)}.")


def _user_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cryoet_particle_detection" / "bundles"
