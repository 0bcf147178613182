"""Text files from users: read by one function, within limits that no real list or record comes near."""

from __future__ import annotations

import os
from pathlib import Path

from custom_transforms.files.limits import GIB, available_memory

__all__ = ["check_size", "read_text"]

MOST_BYTES = 2 * GIB  # a list of ten million particles
MOST_LINES = 20_000_000
LONGEST_LINE = 100_000  # letters
COST = 16  # bytes of memory for each of the file while it is read: a word of eight letters is an object of 57


def check_size(path: str | Path, what: str) -> None:
    """Refuse a file that is larger than any of its kind, or than memory can take apart; nothing of it is read.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or with its size and the limit.
    """
    path = Path(path)
    if not os.path.isfile(path):  # False for a name that is too long, too
        raise FileNotFoundError(f"{path}: expected {what}, found no such file. Check the path.")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(
            f"{path}: expected {what} of at most {MOST_BYTES / GIB:g} GiB, got {size / GIB:,.1f} GiB. "
            "Is it another file?"
        )
    if COST * size > 2**20 and COST * size > (free := available_memory()):
        raise ValueError(
            f"{path}: expected {what} that memory can hold; reading it takes {COST * size / GIB:,.2f} GiB, and "
            f"{free / GIB:,.2f} GiB are free. Split it, or close other programs."
        )


def read_text(path: str | Path, what: str, lines: bool = True) -> str:
    r"""The text of a file, with lines that end in ``\n``, without a byte order mark.

    Parameters
    ----------
    path : path
    what : str
        What it should be, for the messages: "a csv list".
    lines : bool
        Whether it is made of lines, which have limits, too. JSON is not: a whole file may be a line.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing, is not UTF-8, or beyond a limit.
    """
    check_size(path, what)
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected {what}, which is text in UTF-8, but byte {error.start} is not. Save it as UTF-8, or "
            "name the right file."
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if lines:
        _check_lines(text, path, what)
    return text


def _check_lines(text: str, path: str | Path, what: str) -> None:
    count = text.count("\n") + 1
    if count > MOST_LINES:
        raise ValueError(f"{path}: expected {what} of at most {MOST_LINES:,} lines, got {count:,}. Split it.")
    lengths = list(map(len, text.split("\n")))
    if (longest := max(lengths)) > LONGEST_LINE:
        raise ValueError(
            f"{path}: expected rows of {what}, got a line of {longest:,} letters (line "
            f"{lengths.index(longest) + 1}). Is it another file?"
        )
