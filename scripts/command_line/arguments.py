"""The words of a command line -> the values a verb is called with: checked before any work, and parsed once."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from scripts.command_line.signatures import Option, Signature
from scripts.settings import SETTINGS

__all__ = ["Call", "UsageError", "parse_arguments"]

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")
NUMBERS = {"number": float, "whole number": int}


class UsageError(ValueError):
    """A command line that cannot be understood; nothing has been done yet."""


@dataclass
class Call:
    """The values a verb is called with; ``positional`` are the names for an argument that takes any number."""

    positional: list[str] = field(default_factory=list)
    named: dict[str, Any] = field(default_factory=dict)


def parse_arguments(verb: str, signature: Signature, words: Sequence[str]) -> Call:
    """Check the words after a verb against its signature, and parse each value once.

    Text stays text, whatever it looks like; a flag takes no word after it.

    Parameters
    ----------
    verb : str
        For the messages.
    signature : Signature
    words : sequence of str
        As typed, without the verb. After a bare ``--`` all are names.

    Raises
    ------
    UsageError
        For an unknown option, a missing or surplus value, or a value of the wrong type.
    """
    call, queue, known = Call(), list(words), signature.named
    while queue:
        word = queue.pop(0)
        if word == "--":
            call.positional += queue
            break
        if not word.startswith("--"):
            if word.startswith("-") and len(word) > 1 and not word[1].isdigit():
                _refuse_one_dash(word, known)
            call.positional.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean --{close[0]}?" if close else " See `--help`."
            raise UsageError(f"{verb} has no option --{name}.{hint} Nothing was done.")
        if name in call.named:
            raise UsageError(f"--{name} is given twice. Nothing was done.")
        if not equals:
            value = _next_value(known[name], queue)
        call.named[name] = _convert(name, known[name].kind, value)
        if known[name].setting and not all(map(SETTINGS[name].takes, _each(call.named[name]))):
            raise UsageError(f"--{name}: expected {SETTINGS[name].expected}, got {value!r}. Nothing was done.")
    _place_positional(verb, signature, call)
    return call


def _refuse_one_dash(word: str, known: dict[str, Option]) -> NoReturn:
    close = [f"--{name}" for name in known if name.startswith(word[1:].replace("-", "_"))]
    hint = f" Did you mean {' or '.join(close)}?" if close else " See `--help`."
    raise UsageError(f"{word}: options have two dashes.{hint} Nothing was done.")


def _next_value(option: Option, queue: list[str]) -> str:
    """The value of an option that came without ``=``, taken from the words that follow."""
    if option.kind == "flag" or (option.kind == "true or false" and not (queue and queue[0].lower() in TRUE + FALSE)):
        return "true"
    if not queue or queue[0].startswith("--"):
        raise UsageError(f"--{option.name} needs a value. Nothing was done.")
    return queue.pop(0)


def _place_positional(verb: str, signature: Signature, call: Call) -> None:
    missing = [option.name for option in signature.required if option.name not in call.named]
    if len(call.positional) < len(missing):
        raise UsageError(f"{verb} needs {missing[len(call.positional)].upper()}. See `--help`.")
    if signature.variable is None and len(call.positional) > len(missing):
        extra = call.positional[len(missing)]
        hint = f" (options are given by name: --{sorted(signature.options)[0]} ...)" if signature.options else ""
        raise UsageError(f"{verb} does not know what to do with {extra!r}{hint}. Nothing was done.")
    call.named.update(zip(missing, call.positional, strict=False))
    del call.positional[: len(missing)]


def _each(value: Any) -> list[Any]:
    """The values of an object by class, or the value itself."""
    return list(value.values()) if isinstance(value, dict) else [value]


def _convert(name: str, kind: str, value: str) -> Any:
    if kind == "number by class":
        if not value.lstrip().startswith("{"):
            return _convert(name, "number", value)
        pairs = [pair.rpartition(":") for pair in value.strip().strip("{}").split(",")]
        classes = {text.strip(" \"'"): number.strip() for text, _, number in pairs}
        if "" in classes or len(classes) < len(pairs):
            raise UsageError(f"--{name}: expected {{CLASS: NUMBER, ...}}, got {value!r}. Nothing was done.")
        return {text: _convert(name, "number", number) for text, number in classes.items()}
    if kind in ("numbers", "whole numbers"):
        parts = value.strip("[]()").replace(",", " ").split() or [value]
        numbers = [_convert(name, kind.removesuffix("s"), part) for part in parts]
        return numbers[0] if len(numbers) == 1 else tuple(numbers)
    if kind == "texts":
        return [word.strip() for word in value.split(",") if word.strip()]
    if kind in ("flag", "true or false"):
        if value.lower() not in TRUE + FALSE:
            raise UsageError(f"--{name}: expected true or false, got {value!r}. Nothing was done.")
        return value.lower() in TRUE
    if kind in NUMBERS:
        try:
            number = NUMBERS[kind](value)
            int(number)  # refuses nan and inf, which are no settings
        except (ValueError, OverflowError) as error:
            raise UsageError(f"--{name}: expected a {kind}, got {value!r}. Nothing was done.") from error
        return number
    return value
