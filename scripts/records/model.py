"""What all records are: JSON objects of known types, which may hold more than we know."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from custom_transforms.files.json_object import read_object
from custom_transforms.files.whole_files import atomic_path

__all__ = ["Record", "read", "write"]


class Record(BaseModel):
    """A JSON object whose known entries have types; what a later version added is kept as it is."""

    ascii: ClassVar[bool] = False  # whether other letters are written as escapes
    model_config = ConfigDict(extra="allow", frozen=True, strict=True, protected_namespaces=())

    def content(self) -> dict[str, Any]:
        """Its entries as plain values, without those that nobody set."""
        return self.model_dump(exclude_unset=True)

    def changed(self, **entries: Any) -> Self:
        """The same record with other entries; it is checked again."""
        return type(self)(**{**self.content(), **entries})

    def text(self) -> str:
        """The text of its file."""
        return json.dumps(self.content(), indent=2, ensure_ascii=self.ascii, allow_nan=False) + "\n"


Kind = TypeVar("Kind", bound=Record)
OBJECT = ("model_type", "dict_type")  # errors of pydantic, which speaks of its classes


def read(kind: type[Kind], path: str | Path, what: str, advice: str) -> Kind:
    """Read a record.

    Parameters
    ----------
    kind : type of Record
    path : path
    what : str
        What it should be, and ``advice`` what to do otherwise: for the message.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    ValueError
        If it is not JSON, or an entry is missing or of another type; names the entry, what was expected, what came.
    """
    try:
        content = read_object(path, what)
    except ValueError as error:
        raise ValueError(f"{error} {advice}") from error
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(one) for one in first["loc"] if one != "[key]")
        if first["type"] == "missing":
            raise ValueError(f"{path}: expected {what}, but {where} is missing. {advice}") from error
        wanted = (
            "an object" if first["type"] in OBJECT else re.sub("^(Input should be|Value error,) ", "", first["msg"])
        )
        got = json.dumps(first["input"], default=str)
        got = got if len(got) < 80 else got[:77] + "..."
        raise ValueError(f"{path}: {where}: expected {wanted}, got {got}. {advice}") from error


def write(record: Record, path: str | Path) -> None:
    """Write a record; its file is whole or not there."""
    with atomic_path(path) as temporary:
        Path(temporary).write_text(record.text(), encoding="utf-8")
