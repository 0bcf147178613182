"""STAR files as text: tables of words in, words out; nothing is guessed or changed.

Words are separated by blanks; one in quotes may hold blanks, begin like a keyword or be empty, and a quote inside a
word is a letter. ``data_`` and ``loop_`` may be in capitals. A row with a word too few or too many is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

__all__ = ["parse_star", "star_text"]

_TOKEN = re.compile(r"\"((?:[^\"]|\"(?=\S))*)\"(?=\s|$)|'((?:[^']|'(?=\S))*)'(?=\s|$)|(#.*)|(\S+)")
MOST_COLUMNS = 1000  # no list comes near
_KEYWORDS = ("data_", "loop_", "save_", "stop_", "global_")


def parse_star(text: str, path: Path) -> dict[str, pd.DataFrame]:
    """Tables of text by block name; a block without a loop is a table of one row.

    Raises
    ------
    ValueError
        For a row that does not fit its columns, and for words outside a block; names the line.
    """
    tables: dict[str, pd.DataFrame] = {}
    block: str | None = None
    columns: list[str] = []
    rows: list[list[str]] = []
    in_loop = False

    def finish() -> None:
        if block is not None and columns:
            name = block if block not in tables else f"{block}#{len(tables)}"
            tables[name] = pd.DataFrame(rows, columns=columns, dtype=object)

    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split() if not any(letter in line for letter in "#\"'") else _words(line)
        if not words:
            continue
        keyword = words[0].lower() if len(words) == 1 and not line.lstrip().startswith(("'", '"')) else ""
        if keyword.startswith("data_") or keyword == "loop_":
            finish()
            block = words[0][5:] if keyword != "loop_" else block
            columns, rows, in_loop = [], [], keyword == "loop_"
        elif block is None:
            raise ValueError(
                f"{path}: line {number} of the STAR file: expected data_ first, got {line.strip()[:40]!r}."
            )
        elif words[0].startswith("_") and not (in_loop and rows) and not line.lstrip().startswith(("'", '"')):
            name = words[0][1:]
            if name in columns:
                raise ValueError(f"{path}: line {number} of the STAR file: the column {name} is there twice.")
            columns.append(name)
            if len(columns) > MOST_COLUMNS:
                raise ValueError(f"{path}: expected at most {MOST_COLUMNS:,} columns, got more. Is it another file?")
            if not in_loop:
                rows = [[*(rows[0] if rows else []), " ".join(words[1:])]]
        elif in_loop and len(words) == len(columns):
            rows.append(words)
        else:
            raise ValueError(
                f"{path}: line {number} of the STAR file: expected {len(columns)} values, one a column, got "
                f"{len(words)}: {line.strip()[:60]!r}. Is the file complete?"
            )
    finish()
    return tables


def star_text(columns: Mapping[str, Sequence], block: str = "particles") -> str:
    """One STAR block; numbers that are not whole have six decimals. An empty table keeps its header.

    Raises
    ------
    ValueError
        For a text that STAR cannot hold: one with a line break, or with both kinds of quotes.
    """
    header = "".join(f"_{name} #{number}\n" for number, name in enumerate(columns, start=1))
    cells = [[_cell(value) for value in values] for values in columns.values()]
    widths = [max(map(len, column), default=0) for column in cells]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + "\n"
        for row in zip(*cells, strict=True)
    ]
    return f"\ndata_{block}\n\nloop_\n{header}{''.join(lines)}\n\n"


def _words(line: str) -> list[str]:
    words = []
    for match in _TOKEN.finditer(line):
        double, single, comment, plain = match.groups()
        if comment is not None:
            break
        words.append(next(word for word in (double, single, plain) if word is not None))
    return words


def _cell(value: object) -> str:
    if isinstance(value, (float, np.floating)):
        return f"{value:.6f}"
    text = str(value)
    if "\n" in text or "\r" in text or ('"' in text and "'" in text):
        raise ValueError(f"STAR cannot hold the name {text!r}. Rename it: no line breaks, and one kind of quotes.")
    if re.search(r"\s", text) or text[:1] in ("", "_", "#", "'", '"', "$", "[", "]", ";") or _is_keyword(text):
        return f"'{text}'" if '"' in text else f'"{text}"'
    return text


def _is_keyword(text: str) -> bool:
    return text.lower().startswith(_KEYWORDS)
