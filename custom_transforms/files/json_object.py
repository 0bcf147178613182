"""JSON files: read with errors that name the file and the line; what JSON can say of numbers and arrays."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

__all__ = ["read_json", "read_object", "to_json"]


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON, but line {error.lineno} is not: {error.msg}.") from error
    except RecursionError as error:
        raise ValueError(
            f"{path}: expected JSON, got brackets thousands deep. It is damaged: copy it again."
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected JSON in UTF-8, but byte {error.start} is not. Save it as UTF-8.") from error
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, got a number of thousands of digits. It is damaged.") from error


def read_object(path: str | Path, what: str) -> dict[str, Any]:
    """Read a JSON object from a file; ``what`` it should be is for the message."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected {what}, found none.")
    content = read_json(path)
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
