"""Small verbs, to try the command line itself on."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings

from tqdm.auto import tqdm

from custom_transforms.files.whole_files import atomic_path
from scripts.command_line.parser import main
from scripts.console import tell
from scripts.particles.shared.context import ParticleListWarning

__all__ = ["CALLS", "VERBS", "main"]

CALLS: list[tuple] = []


def record(
    *tomograms: str,
    output_dir: str = "out",
    overwrite: bool = False,
    report: bool | None = None,
    diameter: float = 1.0,
    tile: tuple[int, ...] = (96,),
) -> None:
    """Note how it was called."""
    CALLS.append((tomograms, output_dir, overwrite, report, diameter, tile))


def copy(source: str, target: str, count: int = 1) -> None:
    """Note how it was called."""
    CALLS.append((source, target, count))


def work(source: str = "a", fail: bool = False) -> None:
    """Do what verbs do: progress, notes, warnings, results."""
    print("[1/1] a.mrc", file=sys.stderr)
    for _ in tqdm(range(3), desc="tiles"):
        pass
    warnings.warn("csv does not keep radii.", ParticleListWarning, stacklevel=1)
    print("warning: a.mrc: y is thinner than z", file=sys.stderr)
    print("a line of text")
    tell(f"{source}: 2 particles", written=["a.csv"], particles=2, score=float("nan"))
    if fail:
        raise ValueError("a.mrc: broken")


def wrapped() -> None:
    """Fail as a transform does, below what MONAI says."""
    try:
        raise ValueError("the file\nis bad")
    except ValueError as error:
        raise RuntimeError("applying transform ...") from error


def talk(tomograms: int = 3) -> None:
    """Tell of many tomograms, one of which would be reported if it failed."""
    for number in range(tomograms):
        try:
            tell(f"tomogram {number}: {'x' * 4000}")
        except Exception as error:
            print(f"error: {error}", file=sys.stderr)


def end(folder: str) -> None:
    """Be ended from outside while a file is half written."""
    with atomic_path(f"{folder}/a.csv") as temporary:
        temporary.write_text("half")
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except Exception as error:
            raise AssertionError("a batch would go on with its next tomogram") from error


def stopped(overwrite: bool = False) -> None:
    """Be stopped by Ctrl-C."""
    raise KeyboardInterrupt


VERBS = {name: (f"tests.command_line.toy_verbs:{name}", "") for name in
         ("record", "copy", "work", "wrapped", "talk", "end", "stopped")}  # fmt: skip
