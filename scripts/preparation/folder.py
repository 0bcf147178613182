"""The folder that a data set goes to: all its files or none, and nothing of the user's replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from custom_transforms.files.json_object import read_json
from custom_transforms.files.whole_files import sweep, temporary_tag

__all__ = ["Stage", "staged_folder"]

SUMMARY, DATALIST = "prepare.json", "dataset.json"


@dataclass(frozen=True)
class Stage:
    """A data set on its way into a folder.

    Parameters
    ----------
    path : Path
        Where its files are written first.
    output_dir : Path
        Where they go.
    inputs : frozenset of (device, inode)
        Files that this call reads; by identity, so that a link does not hide one.
    earlier : frozenset of str
        Names of files in ``output_dir`` that an earlier call wrote, by its prepare.json.
    overwrite : bool
        Whether those may be replaced.
    """

    path: Path
    output_dir: Path
    inputs: frozenset[tuple[int, int]]
    earlier: frozenset[str]
    overwrite: bool

    def check(self) -> None:
        """Raise ValueError if a file of the data set so far would replace an input, or a file not from prepare."""
        for name in sorted({path.name for path in self.path.iterdir()} | {SUMMARY, DATALIST}):
            target = self.output_dir / name
            if not os.path.lexists(target):
                continue
            if target.exists() and _identity(target) in self.inputs:
                raise ValueError(
                    f"{target}: expected a free name to write, got a file that this call reads; it is never replaced, "
                    "not even with --overwrite. Give another --output_dir."
                )
            if name not in self.earlier:
                raise ValueError(
                    f"{target}: expected a free name to write, got a file that no earlier prepare wrote ({SUMMARY} "
                    "there does not list it); it is not replaced, not even with --overwrite. Give another "
                    "--output_dir, or move the file away."
                )
            if not self.overwrite:
                raise ValueError(
                    f"{target}: expected a free name to write, got a file of an earlier prepare. Give another "
                    "--output_dir, or --overwrite to replace it."
                )

    def files(self) -> list[str]:
        """Names of all files in ``output_dir`` that are from prepare once the data set is there."""
        old = {name for name in self.earlier if (self.output_dir / name).is_file()}
        return sorted({path.name for path in self.path.iterdir()} | old | {SUMMARY, DATALIST})


@contextmanager
def staged_folder(output_dir: Path, inputs: Iterable[Path] = (), overwrite: bool = False) -> Iterator[Stage]:
    """Open a `Stage` whose files move to ``output_dir`` when the block ends well, and are removed otherwise.

    prepare.json, which lists them, moves first and dataset.json last: a call that is cut off in between can be
    repeated with --overwrite, and leaves no datalist of missing files.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    known = frozenset(_identity(path) for path in inputs)
    sweep(output_dir)
    path = output_dir / f".prepare_{temporary_tag()}"
    path.mkdir()
    stage = Stage(path, output_dir, known, _written_earlier(output_dir), overwrite)
    try:
        stage.check()
        yield stage
        stage.check()
        for file in sorted(path.iterdir(), key=lambda p: (p.name == DATALIST, p.name != SUMMARY, p.name)):
            os.replace(file, output_dir / file.name)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _written_earlier(output_dir: Path) -> frozenset[str]:
    """The files that prepare.json lists; none if it is not there or not ours, so that nothing may be replaced."""
    path = output_dir / SUMMARY
    if not path.is_file():
        return frozenset()
    try:
        content = read_json(path)
    except ValueError:
        return frozenset()
    files = content.get("files") if isinstance(content, dict) else None
    return frozenset(map(str, files)) if isinstance(files, list) else frozenset()
