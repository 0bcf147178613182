"""What the command line says of itself: the overview of the verbs, and the help of one."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from scripts.command_line.signatures import Option, Signature

__all__ = ["EXIT_CODES", "GLOBAL_FLAGS", "help_text", "overview_text"]

EXIT_CODES = {
    0: "done (also if nothing was found)",
    1: "an error in the input or while running; one line on stderr says which",
    2: "the command line was not understood; nothing was done",
    130: "stopped by Ctrl-C",
    141: "stopped because nobody reads the output any more, as after `| head`",
    143: "ended from outside (SIGTERM, as a batch system does at the time limit); nothing temporary is left",
}
GLOBAL_FLAGS = {  # taken by every verb
    "quiet": "No progress and no notes on stderr; warnings and errors stay.",
    "json": "Print one JSON object instead of text: results, files written, counts, warnings, and the error if any.",
    "debug": "Show where an error arose.",
}
WIDTH = 110


def overview_text(verbs: Mapping[str, tuple[str, str]], program: str) -> str:
    """List the verbs, each with a line on what it does."""
    lines = ["Find every particle in cryo-electron tomograms.", "", f"usage: {program} COMMAND ...", ""]
    lines += [f"  {verb:<11} {summary}" for verb, (_, summary) in verbs.items()]
    lines += ["", "With every command:", *(f"  --{name:<8} {text}" for name, text in GLOBAL_FLAGS.items())]
    lines += ["", "Results go to stdout, everything else to stderr. Exit codes:"]
    lines += [f"  {code:<8} {text}" for code, text in EXIT_CODES.items()]
    return "\n".join([*lines, "", f"`{program} COMMAND --help` tells more; `{program} --version` the version."])


def help_text(command: str, signature: Signature) -> str:
    """Write a verb's help: what it does, its arguments with defaults, and examples."""
    summary, _, more = signature.text.partition("\n\n")
    names = [option.name.upper() for option in signature.required]
    names += [] if signature.variable is None else [f"{signature.variable.name.upper()} ..."]
    text = [summary, "", f"usage: {' '.join([command, *names])} [options]", ""]
    text += [more, ""] if more else []
    plain = [*signature.required, *([] if signature.variable is None else [signature.variable])]
    text += [f"  {option.name.upper()}\n{_wrapped(option.help)}" for option in plain]
    settings = [option for option in signature.options.values() if option.setting]
    text += [_explained(option) for option in signature.options.values() if not option.setting]
    text += [f"  --{name}\n      {what}" for name, what in GLOBAL_FLAGS.items() if name not in signature.options]
    if settings:
        text += [
            "",
            "settings; the defaults are those of configs/inference.json, unless --config, --bundle or the record of",
        ]
        text += ["the weights brings others:", *map(_explained, settings)]
    if signature.examples:
        text += ["", "examples:", *(f"  {line}" for line in signature.examples.splitlines())]
    return "\n".join(text)


def _explained(option: Option) -> str:
    """An option as it is typed, with its default, and what it does."""
    value = {"flag": "", "true or false": " [true|false]"}.get(option.kind, " VALUE")
    default = "" if option.default is None or option.kind == "flag" else f" (default: {_as_typed(option.default)})"
    return f"  --{option.name}{value}{default}\n{_wrapped(option.help)}"


def _wrapped(text: str) -> str:
    """A description below its title, in lines that a terminal has room for."""
    return textwrap.fill(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)


def _as_typed(value: object) -> str:
    """A value as one types it: ``96,96,96``, ``true``."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
