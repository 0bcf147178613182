"""Whose bundles may run: a bundle's config is code, so a foreign one is asked about before its first use."""

from __future__ import annotations

import os
from pathlib import Path

from scripts.records.bundle_zip import ROOT, unpacked
from scripts.records.weights import file_digest

__all__ = ["trusted_root"]

CONFIG = Path("configs", "inference.json")


def trusted_root(bundle: str | os.PathLike | None, trust: bool = False) -> Path:
    """Give the folder of a bundle whose config may run; None is the bundle that this code belongs to.

    Parameters
    ----------
    bundle : path or None
        A zip, known by its sha256, or a folder, known by that of its configs/inference.json. One with this bundle's
        own config needs no trust.
    trust : bool
        Trust it from now on: its sha256 is kept in ``cryoet_particle_detection/trusted.txt`` of the user's config
        folder (``$XDG_CONFIG_HOME`` or ``~/.config``).

    Raises
    ------
    FileNotFoundError
        If there is nothing at that path.
    ValueError
        If it is not trusted, or no bundle.
    OSError
        If the list of trusted ones cannot be written.
    """
    if bundle is None:
        return ROOT
    path, root = Path(bundle).expanduser(), unpacked(bundle)
    if (root / CONFIG).read_bytes() == (ROOT / CONFIG).read_bytes():
        return root
    known = path / CONFIG if path.is_dir() else path
    digest, listed = file_digest(known), _list_of_trusted()
    trusted = listed.read_text(encoding="utf-8").split() if listed.is_file() else []
    if digest in trusted:
        return root
    if not trust:
        raise ValueError(
            f"{path}: expected a bundle that you trust, got one that was never used here: its config is code, which "
            f"can do all that you can. If you know who made it, and {known.name} has sha256 {digest} there, too, "
            "give --trust once."
        )
    listed.parent.mkdir(parents=True, exist_ok=True)
    with listed.open("a", encoding="utf-8") as file:
        file.write(f"{digest}\n")
    return root


def _list_of_trusted() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "cryoet_particle_detection" / "trusted.txt"
