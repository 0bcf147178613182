"""The signature of a verb, read from its source: importing its module would take seconds, for a help text alone."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.settings import SETTINGS, described_settings

__all__ = ["Option", "Signature", "read_signature"]

ROOT = Path(__file__).parents[2]
NUMBERS = {"int": "whole number", "float": "number"}


@dataclass(frozen=True)
class Option:
    """One argument of a verb.

    ``kind`` is what its text on the command line stands for: text, texts (with commas between), flag, true or false,
    number, number by class (one number or an object of them), whole number, numbers, whole numbers. A flag is false if
    left out; an option of true or false may also be left to something else. A ``setting`` is one of `scripts.settings`,
    which knows what it may be.
    """

    name: str
    kind: str
    default: Any = None
    help: str = ""
    setting: bool = False


@dataclass(frozen=True)
class Signature:
    """What a verb takes, and how it explains itself.

    Attributes
    ----------
    required : tuple of Option
        Arguments without a default, in order.
    options : mapping of str to Option
        Arguments with a default.
    variable : Option or None
        The argument that takes any number of names.
    text : str
        What the verb does: its docstring up to the first section.
    examples : str
        The section Examples.
    """

    required: tuple[Option, ...]
    options: dict[str, Option]
    variable: Option | None
    text: str
    examples: str

    @property
    def named(self) -> dict[str, Option]:
        """All that can be given by name."""
        return {**{option.name: option for option in self.required}, **self.options}


def read_signature(target: str) -> Signature:
    """Read the signature of ``package.module:function`` without importing it.

    Defaults must be literals, as help shows them. An option that the docstring does not explain is the setting of its
    name, as ``**settings`` are all of them; ``**options : package.module:function`` are the options of that function.
    """
    module, name = target.split(":")
    path = ROOT / f"{module.replace('.', '/')}.py"
    body = ast.parse(path.read_text(encoding="utf-8")).body
    function = next(node for node in body if isinstance(node, ast.FunctionDef) and node.name == name)
    documentation = ast.get_docstring(function) or ""
    described = _described(documentation)

    def option(argument: ast.arg, default: ast.expr | None = None) -> Option:
        name, value = argument.arg, None if default is None else ast.literal_eval(default)
        if name not in described and name in settings:
            return settings[name]
        annotation = "" if argument.annotation is None else ast.unparse(argument.annotation)
        return Option(name, _kind(annotation), value, described.get(name, ""))

    spec = function.args
    settings = _settings()
    others = re.search(r"^\*\*\w+ : (\S+:\w+)$", documentation, re.M)
    further = read_signature(others[1]).options if others else settings
    plain, defaults = spec.args, spec.defaults
    first = len(plain) - len(defaults)
    optional = [*zip(plain[first:], defaults, strict=True), *zip(spec.kwonlyargs, spec.kw_defaults, strict=True)]
    options = {argument.arg: option(argument, default) for argument, default in optional}
    return Signature(
        required=tuple(option(argument) for argument in plain[:first]),
        options=options if spec.kwarg is None else {**further, **options},
        variable=None if spec.vararg is None else option(spec.vararg),
        text=re.split(r"^\S.*\n-{3,}$", documentation, maxsplit=1, flags=re.M)[0].strip(),
        examples=_section(documentation, "Examples"),
    )


def _settings() -> dict[str, Option]:
    """Every setting of detection as an option."""
    return {
        name: Option(name, SETTINGS[name].typed, default, help_text, setting=True)
        for name, (default, help_text) in described_settings().items()
    }


def _kind(annotation: str) -> str:
    """Name what an annotation takes; ``X | None`` counts as X.

    >>> [_kind(one) for one in ("str | None", "bool | None", "float | tuple[float, ...] | None", "int")]
    ['text', 'true or false', 'numbers', 'whole number']
    """
    words = [word.strip() for word in annotation.split("|")]
    if words[:2] == ["float", "Mapping[str, float]"]:
        return "number by class"
    element = re.search(r"tuple\[(int|float)\b", annotation)
    if element:
        return f"{NUMBERS[element[1]]}s"
    if words[0] == "bool":
        return "true or false" if "None" in words else "flag"
    return NUMBERS.get(words[0], "text")


def _described(documentation: str) -> dict[str, str]:
    """Each parameter's description: whatever is indented under its name."""
    described: dict[str, list[str]] = {}
    names: list[str] = []
    for line in _section(documentation, "Parameters").splitlines():
        if line.startswith(" "):
            for name in names:
                described[name].append(line.strip())
        elif line:
            names = [name.strip().lstrip("*") for name in line.partition(":")[0].split(",")]  # one line may name two
            described.update({name: [] for name in names})
    return {name: " ".join(lines) for name, lines in described.items()}


def _section(documentation: str, title: str) -> str:
    found = re.search(rf"^{title}\n-+\n(.*?)(?=\n\S+\n-+\n|\Z)", documentation, re.DOTALL | re.M)
    return found[1].strip() if found else ""
