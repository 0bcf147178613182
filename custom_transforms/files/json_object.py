"""Read JSON files, with errors that name the file and the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["read_json", "read_object"]


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    ValueError
        If it is not JSON in UTF-8; says where.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON, but line {error.lineno} is not: {error.msg}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected JSON in UTF-8, but byte {error.start} is not. Save it as UTF-8.") from error


def read_object(path: str | Path, what: str) -> dict[str, Any]:
    """Read a JSON object from a file; ``what`` it should be is for the message.

    Raises
    ------
    FileNotFoundError, ValueError
        If it is missing, or not a JSON object.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected {what}, found none.")
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected {what}, a JSON object, got a {type(content).__name__}.")
    return content
