"""The command line: fire, behind one wrapper that makes options safe.

fire alone runs a job before it notices a misspelt option, turns ``--output_dir 2024_01`` into the number 202401 and
lets a bare flag swallow the file name after it. The wrapper reads the verb's signature first: unknown options are
rejected before any work, text stays text, and booleans are flags.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import re
import signal
import sys
import threading
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fire

from scripts.console import command_output, user_message

__all__ = ["EXIT_CODES", "VERBS", "help_text", "main", "safe_arguments"]

# verb: where its function is, and what it does in a line (importing all of them for an overview takes seconds)
VERBS = {
    "simulate": ("scripts.command_line.verbs:simulate", "make tomograms with known particles, to train and test on"),
    "prepare": ("scripts.preparation.prepare:prepare", "turn tomograms and a particle list into training data"),
    "join": ("scripts.weights.join:join", "join the weights of two training runs into the file that detection uses"),
    "calibrate": ("scripts.command_line.verbs:calibrate", "choose the thresholds of detection on validation data"),
    "detect": ("scripts.detection.detect:detect", "find and separate the particles of tomograms"),
    "evaluate": ("scripts.command_line.verbs:evaluate", "compare detected with true particles"),
    "report": ("scripts.command_line.verbs:report", "make the HTML report of a detection"),
    "view": ("scripts.view.view:view", "look at a detection in napari and correct its centers"),
    "export": ("scripts.command_line.export:export", "convert a particle list between formats"),
    "export_onnx": (
        "scripts.weights.export_onnx:export_onnx",
        "convert the networks to ONNX, for programs without PyTorch",
    ),
    "demo": ("scripts.demo.demo:demo", "simulate a crowded tomogram and find its particles with the shipped weights"),
    "demo_real": (
        "scripts.demo.demo_real:demo_real",
        "train on simulated virus-like particles, find those of a real tomogram",
    ),
}

EXIT_CODES = {
    0: "done (also if nothing was found)",
    1: "an error in the input or while running; one line on stderr says which",
    2: "the command line was not understood; nothing was done",
    130: "stopped by Ctrl-C",
    143: "ended from outside (SIGTERM, as a batch system does at the time limit); nothing temporary is left",
}
RESUMING = ("simulate", "detect")  # what is finished is not done again
GLOBAL_FLAGS = {  # taken by every verb
    "quiet": "No progress and no notes on stderr; warnings and errors stay.",
    "json": "Print one JSON object instead of text: results, files written, counts, warnings, and the error if any.",
    "debug": "Show where an error arose.",
}


TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")
SWITCH = "true or false"  # an option that may be left out, which is neither


class Terminated(SystemExit):
    """SIGTERM came. No `Exception`, so that a batch does not go on with its next tomogram."""

    code: int = 143  # 128 + SIGTERM, as a shell has it

    def __init__(self) -> None:
        super().__init__(self.code)


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise `Terminated`, so that temporary files are removed; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


class UsageError(ValueError):
    """A command line that cannot be understood; nothing has been done yet."""


def main(
    arguments: Sequence[str] | None = None,
    verbs: Mapping[str, tuple[str, str]] = VERBS,
    program: str = "python -m scripts",
) -> int:
    """Run one verb; return the exit code, one of `EXIT_CODES`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    flags = {name: f"--{name}" in _options(arguments) for name in GLOBAL_FLAGS}
    words = [one for one in _options(arguments) if one.removeprefix("--") not in GLOBAL_FLAGS]
    if words[:1] == ["help"] and len(words) > 1:  # help detect
        arguments = words = [words[1], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview(verbs, program))
        return 0
    if words[0] == "--version":
        print(bundle_version())
        return 0
    verb = words[0]
    arguments.remove(verb)
    if verb in verbs and any(argument in ("-h", "--help") for argument in _options(arguments)):
        print(help_text(f"{program} {verb}", find_verb(verb, verbs)))
        return 0
    with sigterm_raises(), command_output(flags["json"], flags["quiet"]) as said:
        code, error = _run(verb, arguments, verbs, flags["debug"])
        if error:
            print(f"error: {error}", file=sys.stderr)
    if flags["json"]:
        print(said.as_json(verb, code, error))
    return code


def _run(verb: str, arguments: list[str], verbs: Mapping[str, tuple[str, str]], debug: bool) -> tuple[int, str | None]:
    """Run a verb; return the exit code and the message of its error."""
    try:
        function = find_verb(verb, verbs)
        own = inspect.signature(function).parameters
        fire.Fire(function, command=safe_arguments(verb, function, _without_flags(arguments, own)), name=verb)
    except KeyboardInterrupt:
        anew = {"--overwrite", "--overwrite=true", "--overwrite=True"} & set(arguments)
        resumes = verb in RESUMING and not anew
        return 130, "stopped; the same command goes on with what is left" if resumes else "stopped"
    except Terminated as stop:
        return stop.code, "ended by SIGTERM"
    except UsageError as error:
        return 2, str(error)
    except Exception as error:
        if debug:
            traceback.print_exc()
        return 1, user_message(error)
    return 0, None


def _options(arguments: Sequence[str]) -> list[str]:
    """The arguments before a bare ``--``, after which all are names."""
    arguments = list(arguments)
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _without_flags(arguments: Sequence[str], own: Iterable[str]) -> list[str]:
    """Take out the flags that every verb has; one that a verb has itself is passed on."""
    flags = [f"--{name}" for name in GLOBAL_FLAGS if name not in own]
    options = _options(arguments)
    return [one for one in options if one not in flags] + list(arguments)[len(options) :]


def bundle_version() -> str:
    """Read the version from ``configs/metadata.json``."""
    import json

    return json.loads((Path(__file__).parents[2] / "configs" / "metadata.json").read_text())["version"]


def find_verb(verb: str, verbs: Mapping[str, tuple[str, str]] = VERBS) -> Callable:
    """Import the function behind a verb."""
    verb = verb.replace("-", "_")
    if verb not in verbs:
        close = difflib.get_close_matches(verb, verbs, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UsageError(f"unknown command {verb!r}: expected one of {', '.join(verbs)}.{hint}")
    module, name = verbs[verb][0].split(":")
    return getattr(importlib.import_module(module), name)


def safe_arguments(verb: str, function: Callable, arguments: Sequence[str]) -> list[str]:
    """Check a verb's arguments against its signature and quote them so that fire changes nothing.

    Parameters
    ----------
    verb : str
        For the messages.
    function : callable
        Its annotations decide: ``bool`` is a bare flag, ``bool | None`` a flag that takes true or false if it
        follows, ``int``, ``float`` and tuples of them are parsed, everything else is text.
    arguments : sequence of str
        As typed, without the verb.

    Returns
    -------
    list of str
        Arguments for fire.

    Raises
    ------
    UsageError
        For an unknown option, a missing or surplus value, or a value of the wrong type.

    Examples
    --------
    >>> def detect(tomogram: str, output_dir: str = "out", overwrite: bool = False): ...
    >>> safe_arguments("detect", detect, ["--overwrite", "1e3", "--output_dir", "2024_01"])
    ["'1e3'", '--overwrite=True', "--output_dir='2024_01'"]
    """
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters
    options = [name for name, one in parameters.items() if one.kind is not one.VAR_POSITIONAL]
    positional: list[str] = []
    named: dict[str, str] = {}
    queue = list(arguments)
    while queue:
        token = queue.pop(0)
        if token == "--":
            positional.extend(queue)
            break
        if not token.startswith("--"):
            if token.startswith("-") and len(token) > 1 and not token[1].isdigit():
                close = [f"--{name}" for name in options if name.startswith(token[1:].replace("-", "_"))]
                hint = f" Did you mean {' or '.join(close)}?" if close else " See `--help`."
                raise UsageError(f"{token}: options have two dashes.{hint} Nothing was done.")
            positional.append(token)
            continue
        name, equals, value = token[2:].partition("=")
        name = name.replace("-", "_")
        if name not in options:
            close = difflib.get_close_matches(name, options, 1)
            hint = f" Did you mean --{close[0]}?" if close else " See `--help`."
            raise UsageError(f"{verb} has no option --{name}.{hint} Nothing was done.")
        if name in named:
            raise UsageError(f"--{name} is given twice. Nothing was done.")
        kind = _kind(hints.get(name))
        if not equals and (kind is bool or (kind == SWITCH and not (queue and queue[0].lower() in TRUE + FALSE))):
            value = "true"
        elif not equals:
            if not queue or queue[0].startswith("--"):
                raise UsageError(f"--{name} needs a value. Nothing was done.")
            value = queue.pop(0)
        named[name] = repr(_convert(name, kind, value))
    _check_positional(verb, parameters, positional, named)
    return [repr(value) for value in positional] + [f"--{name}={value}" for name, value in named.items()]


def _check_positional(verb: str, parameters: Any, positional: list[str], named: dict[str, str]) -> None:
    plain = [one for one in parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
    variable = any(one.kind is one.VAR_POSITIONAL for one in parameters.values())
    required = [one.name for one in plain if one.default is one.empty and one.name not in named]
    optional = {one.name for one in plain} - set(required)
    if len(positional) < len(required):
        raise UsageError(f"{verb} needs {required[len(positional)].upper()}. See `--help`.")
    if not variable and len(positional) > len(required):
        extra = positional[len(required)]
        hint = f" (options are given by name: --{sorted(optional)[0]} ...)" if optional else ""
        raise UsageError(f"{verb} does not know what to do with {extra!r}{hint}. Nothing was done.")


def _kind(hint: Any) -> Any:
    """Reduce an annotation to bool, int, float, (tuple, element) or str; ``X | None`` counts as X.

    ``bool | None`` has a third state, not given, in which something else decides: it is a `SWITCH`.
    """
    if hint == bool | None:
        return SWITCH
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hints = [one for one in typing.get_args(hint) if one is not type(None)]
        hint = next((one for one in hints if typing.get_origin(one) is tuple), hints[0])
    if typing.get_origin(hint) is tuple:
        return (tuple, typing.get_args(hint)[0])
    return hint if hint in (bool, int, float) else str


def _convert(name: str, kind: Any, value: str) -> Any:
    if isinstance(kind, tuple):
        parts = [part for part in value.strip("[]()").replace(",", " ").split() if part]
        numbers = [_convert(name, kind[1], part) for part in parts]
        return numbers[0] if len(numbers) == 1 else tuple(numbers)
    if kind in (bool, SWITCH):
        if value.lower() in TRUE:
            return True
        if value.lower() in FALSE:
            return False
        raise UsageError(f"--{name}: expected true or false, got {value!r}. Nothing was done.")
    if kind in (int, float):
        try:
            number = kind(value)
            int(number)  # refuses nan and inf: no settings, and their names would be text to fire
        except (ValueError, OverflowError) as error:
            wanted = "a whole number" if kind is int else "a number"
            raise UsageError(f"--{name}: expected {wanted}, got {value!r}. Nothing was done.") from error
        return number
    return value


def overview(verbs: Mapping[str, tuple[str, str]] = VERBS, program: str = "python -m scripts") -> str:
    """List the verbs, each with a line on what it does."""
    lines = ["Find every particle in cryo-electron tomograms.", "", f"usage: {program} COMMAND ...", ""]
    lines += [f"  {verb:<11} {summary}" for verb, (_, summary) in verbs.items()]
    lines += ["", "With every command:", *(f"  --{name:<8} {text}" for name, text in GLOBAL_FLAGS.items())]
    lines += ["", "Results go to stdout, everything else to stderr. Exit codes:"]
    lines += [f"  {code:<8} {text}" for code, text in EXIT_CODES.items()]
    return "\n".join([*lines, "", f"`{program} COMMAND --help` tells more; `{program} --version` the version."])


def help_text(command: str, function: Callable) -> str:
    """Write a verb's help from its docstring: what it does, its arguments with defaults, and examples."""
    what_it_does, described = _described(function)
    parameters = inspect.signature(function).parameters
    usage, lines = [command], []
    hints = typing.get_type_hints(function)
    for name, one in parameters.items():
        if one.kind is one.VAR_POSITIONAL:
            usage.append(f"{name.upper()} ...")
            title = name.upper()
        elif one.default is one.empty:
            usage.append(name.upper())
            title = name.upper()
        else:
            kind = _kind(hints.get(name))
            shown = "" if one.default is None else f" (default: {one.default})"
            title = f"--{name}" + {bool: "", SWITCH: " [true|false]"}.get(kind, f" VALUE{shown}")
        lines.append(f"  {title}\n      {described.get(name, '')}")
    summary, _, more = what_it_does.partition("\n\n")
    text = [summary, "", "usage: " + " ".join(usage) + " [options]", ""]
    if more:
        text += [more, ""]
    lines += [f"  --{name}\n      {what}" for name, what in GLOBAL_FLAGS.items() if name not in parameters]
    return "\n".join(text + lines + _examples(function))


def _described(function: Callable) -> tuple[str, dict[str, str]]:
    """The text before the first section of a docstring, and each parameter's description.

    What is indented under a parameter is its description, whatever it holds: fire's own parser takes a line with a
    colon for another parameter.
    """
    documentation = inspect.getdoc(function) or ""
    described: dict[str, list[str]] = {}
    names: list[str] = []
    for line in _section(documentation, "Parameters").splitlines():
        if line.startswith(" "):
            for name in names:
                described[name].append(line.strip())
        elif line:
            names = [name.strip().lstrip("*") for name in line.partition(":")[0].split(",")]  # one line may name two
            described.update({name: [] for name in names})
    before = re.split(r"^\S.*\n-{3,}$", documentation, maxsplit=1, flags=re.M)[0]
    return before.strip(), {name: " ".join(lines) for name, lines in described.items()}


def _section(documentation: str, title: str) -> str:
    found = re.search(rf"^{title}\n-+\n(.*?)(?=\n\S+\n-+\n|\Z)", documentation, re.DOTALL | re.M)
    return found[1].strip() if found else ""


def _examples(function: Callable) -> list[str]:
    """The commands under ``Examples`` in a docstring."""
    section = _section(inspect.getdoc(function) or "", "Examples")
    return ["", "examples:", *(f"  {line}" for line in section.splitlines())] if section else []
