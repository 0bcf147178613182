"""JSON files: read with errors that name the file and the line; what JSON can say of numbers and arrays."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from custom_transforms.files.text import read_text

__all__ = ["parse_json", "read_json", "read_object", "to_json"]

DEEPEST = 64  # brackets in brackets
MOST_DIGITS = 20  # of a whole number: 64 bits


def read_json(path: str | Path, what: str = "a JSON file") -> Any:
    """Read a JSON file; ``what`` it should be is for the messages."""
    return parse_json(read_text(path, what, lines=False), path)


def parse_json(text: str, where: str | Path) -> Any:
    """What a JSON text says; the errors begin with ``where`` it is from.

    Raises
    ------
    ValueError
        If it is no JSON, nested more than 64 deep, or holds a whole number of more than 20 digits.
    """
    try:
        content = json.loads(text, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}: expected JSON, but line {error.lineno} is not: {error.msg}. Is the file complete?"
        ) from error
    except RecursionError as error:
        raise _too_deep(where) from error
    except ValueError as error:
        raise ValueError(f"{where}: expected JSON, got {error}. It is damaged: copy it again.") from error
    level: list[Any] = [[content]]
    for _ in range(DEEPEST + 1):
        inner = (item.values() if isinstance(item, dict) else item for item in level)
        level = [child for children in inner for child in children if isinstance(child, (dict, list))]
    if level:
        raise _too_deep(where)
    return content


def _too_deep(where: str | Path) -> ValueError:
    return ValueError(
        f"{where}: expected JSON of at most {DEEPEST} brackets in each other, got more. It is damaged: copy it again."
    )


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits):,} digits")
    return int(digits)


def read_object(path: str | Path, what: str) -> dict[str, Any]:
    """Read a JSON object from a file; ``what`` it should be is for the message."""
    path = Path(path).expanduser()
    if not os.path.isfile(path):  # False for a name that is too long, too
        raise FileNotFoundError(f"{path}: expected {what}, found none.")
    content = read_json(path, what)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected {what}, a JSON object, got a {type(content).__name__}.")
    return content


def to_json(value: Any) -> Any:
    """The same with plain numbers and lists; nan and infinity become null, which JSON can say.

    Examples
    --------
    >>> import numpy as np
    >>> to_json({"f1": np.float64(0.5), "precision": float("nan"), "n": np.int64(3)})
    {'f1': 0.5, 'precision': None, 'n': 3}
    """
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if hasattr(value, "tolist"):  # arrays, tensors, and their numbers
        return to_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
