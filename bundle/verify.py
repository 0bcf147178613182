"""Check a bundle's zip as the model zoo does, in an empty folder and without the network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.console import tell
from scripts.records.bundle_zip import extract

__all__ = ["newest_zip", "verify", "verify_zip"]

ROOT = Path(__file__).parents[1]


def verify(*zip: str, schema: str | None = None) -> None:
    """Check the zip of a bundle as the MONAI model zoo does, and more; a numbered line for each check.

    The zip is unpacked into an empty temporary folder, and its own code is used. Nothing is downloaded.

    example: python -m bundle verify dist/cryoet_particle_detection_v0.2.0.zip

    Parameters
    ----------
    zip : str
        The zip, as build makes it; by default the newest one in dist.
    schema : str
        The zoo's JSON schema of metadata (meta_schema_20240725.json) where you have it; needs jsonschema. Without it
        the same rules are checked by this program.
    """
    for path in [Path(one).expanduser() for one in zip] or [newest_zip(ROOT / "dist")]:
        failed = verify_zip(path, schema)
        if failed:
            raise ValueError(f"{path}: {failed} of the checks above failed.")
        tell(f"{path}: all checks passed")


def newest_zip(folder: Path) -> Path:
    """The zip of a folder that was made last."""
    found = sorted(folder.glob("*.zip"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise FileNotFoundError(f"{folder}: expected the zip of a bundle, found none. Make it: python -m bundle build")
    return found[-1]


def verify_zip(path: str | Path, schema: str | Path | None = None) -> int:
    """Unpack a zip into an empty folder and check it there, in a process that sees nothing of this repository.

    Parameters
    ----------
    path : path
        The zip.
    schema : path, optional
        See `verify`.

    Returns
    -------
    int
        How many checks failed; each is printed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the zip of a bundle, found none. Make it: python -m bundle build")
    if schema is not None and not Path(schema).is_file():
        raise FileNotFoundError(f"{schema}: expected the zoo's JSON schema, found none.")
    with tempfile.TemporaryDirectory(prefix="bundle_") as temporary:
        folder = Path(temporary).resolve()
        root = extract(path, folder / "unpacked")
        (folder / "elsewhere").mkdir()
        shutil.copytree(Path(__file__).parent / "checks", folder / "kit" / "checks")
        arguments = [path.resolve(), root, folder / "elsewhere", folder / "failed"]
        arguments += [Path(schema).resolve()] if schema is not None else []
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "kit"), str(root)])}
        command = [sys.executable, "-m", "checks", *map(str, arguments)]
        with subprocess.Popen(
            command, cwd=folder / "elsewhere", env=environment, stdout=subprocess.PIPE, text=True
        ) as done:
            for line in done.stdout or ():  # by way of this process, which may have another use for its stdout
                print(line, end="", flush=True)
        if not (folder / "failed").is_file():
            raise ValueError(f"{path}: the checks stopped with exit code {done.returncode}; see above.")
        return int((folder / "failed").read_text())
