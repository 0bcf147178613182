"""Write the tables of the pages that the code decides: ``python docs/tables.py``. A test holds pages and code equal.

The errors are those that the program gives: each file is made, read, and refused.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "pages"
sys.path.insert(0, str(ROOT))

from custom_transforms.volumes.read import read_tomogram  # noqa: E402
from scripts.command_line.arguments import parse_arguments  # noqa: E402
from scripts.command_line.parser import verb_named  # noqa: E402
from scripts.command_line.signatures import read_signature  # noqa: E402
from scripts.particles.registry import FORMATS, read_particles  # noqa: E402

SHAPE_ZYX = (12, 20, 28)
LONGEST = 200  # characters of a message


def write_mrc(path: Path, volume: np.ndarray, voxel_size: float = 10.0) -> None:
    with mrcfile.new(path, data=volume) as file:
        file.voxel_size = voxel_size


def noise(dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, SHAPE_ZYX).astype(dtype)


def truncated(folder: Path) -> Path:
    path = folder / "a.mrc"
    write_mrc(path, noise())
    path.write_bytes(path.read_bytes()[: 1024 + noise().nbytes // 2])
    return path


def with_volume(name: str, volume: np.ndarray, voxel_size: float = 10.0) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_mrc(folder / name, volume, voxel_size)
        return folder / name

    return make


def with_text(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return make


def with_nan() -> np.ndarray:
    volume = noise()
    volume[0, 0, :3] = np.nan
    return volume


TOMOGRAMS = {
    "truncated MRC": truncated,
    "tilt series": with_volume("a.st", noise()),
    "NaN": with_volume("a.mrc", with_nan()),
    "the same value everywhere": with_volume("a.mrc", np.zeros(SHAPE_ZYX, np.float32)),
    "voxel size 0": with_volume("a.mrc", noise(), 0.0),
    "voxel size 1.0, which programs write that do not know it": with_volume("a.mrc", noise(), 1.0),
    "2D image": with_volume("a.mrc", noise()[:1]),
    "complex numbers": with_volume("a.mrc", noise(np.complex64)),
    "text named .mrc": with_text("a.mrc", "<html><body>404 not found</body></html>"),
}
LISTS = {
    "a list without positions": with_text("a.csv", "name,score\nA,0.5\n"),
    "RELION's optics, without particles": with_text("a.star", "\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n1\n"),
    "a file of another kind": with_text("a.pdf", "%PDF-1.4\n"),
}
COMMANDS = {
    "python -m scripts detect a.mrc --weigths b.pt": "detect",
    "python -m scripts detect a.mrc --center_threshold high": "detect",
    "python -m scripts export a.csv": "export",
}


def errors_table(makers: dict[str, Callable[[Path], Path]], read: Callable[[Path], object]) -> str:
    """A row per bad file: what it is, and the words after the file's name."""
    rows = ["| input | message, after the file's name |", "|---|---|"]
    for title, make in makers.items():
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = make(Path(folder))
            rows.append(f"| {title} | {code(message_of(functools.partial(read, path)).replace(f'{path}: ', '', 1))} |")
    return "\n".join(rows)


def commands_table() -> str:
    """A row per command line that is not understood."""
    rows = ["| command | message |", "|---|---|"]
    for command, verb in COMMANDS.items():
        call = functools.partial(parse_arguments, verb, read_signature(verb_named(verb)), command.split()[4:])
        rows.append(f"| `{command}` | {code(message_of(call))} |")
    return "\n".join(rows)


def message_of(call: Callable[[], object]) -> str:
    """The words of the error that a call gives; none is an error itself."""
    try:
        call()
    except Exception as error:
        return str(error)
    raise AssertionError("expected an error, got none: is this input taken now? Then take its row out.")


def code(text: str) -> str:
    """Text as code in a cell of a table; what is long, as the names of all formats, is cut."""
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    text = text.replace("\n", " ").replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def formats_table() -> str:
    """A row per particle-list format: where it counts from, what it keeps."""
    rows = ["| format | what it is | keeps | read, write |", "|---|---|---|---|"]
    for name, one in FORMATS.items():
        kept = [word for word in ("class", "orientation", "score", "tomogram", "radius") if word in one.keeps]
        ways = ", ".join(word for word, way in (("read", one.read), ("write", one.write)) if way)
        binned = "; `--binning`" if one.counts == "unbinned" else ""
        rows.append(f"| `{name}` | {one.description}{binned} | {', '.join(kept) or '–'} | {ways} |")
    return "\n".join(rows)


def tested_table() -> str:
    """A row per particle-list format: what the tests hold about it."""
    from tests.golden.make_golden import INDEX
    from tests.particles.test_particle_readers import CHECKED
    from tests.particles.test_particles import WRITABLE as ROUND_TRIPS

    golden = [entry for file, entry in json.loads(INDEX.read_text()).items() if not file.startswith("real_")]
    rows = ["| format | round trip | golden file written by | ours read by |", "|---|---|---|---|"]
    for name in FORMATS:
        writers = sorted({entry["written_by"].split()[0] for entry in golden if entry["format"] == name})
        cells = ["binning 1–4" if name in ROUND_TRIPS else "–", ", ".join(writers).replace("plain", "as documented")]
        rows.append(f"| `{name}` | {' | '.join(cells)} | {', '.join(CHECKED.get(name, ())) or '–'} |")
    return "\n".join(rows)


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "errors.md": {
        "tomograms": lambda: errors_table(TOMOGRAMS, read_tomogram),
        "lists": lambda: errors_table(LISTS, read_particles),
        "commands": commands_table,
    },
    "formats.md": {"formats": formats_table, "tested": tested_table},
}


def written(page: str) -> str:
    """A page's text with its tables as the code has them now: between ``<!-- table NAME -->`` and ``<!-- end -->``."""
    text = (PAGES / page).read_text(encoding="utf-8")
    for name, table in TABLES[page].items():
        pattern = rf"(<!-- table {name} -->\n).*?(<!-- end -->)"
        rows = table().replace("\\", r"\\")
        text, count = re.subn(pattern, rf"\1\n{rows}\n\n\2", text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"docs/pages/{page}: expected one place for the table {name!r}, found {count}.")
    return text


if __name__ == "__main__":
    for page in TABLES:
        (PAGES / page).write_text(written(page), encoding="utf-8")
        print(f"docs/pages/{page}")
