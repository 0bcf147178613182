"""The command line: one verb, its words checked against the verb's signature before anything heavy is imported.

fire (`fire.Fire`) makes the call. By itself it runs a job before it notices a misspelt option, turns ``--output_dir
2024_01`` into the number 202401 and lets a bare flag swallow the file name after it; so it is handed values that are
checked and parsed already (`arguments`).
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.command_line.arguments import Call, UsageError, parse_arguments
from scripts.command_line.help import EXIT_CODES, GLOBAL_FLAGS, help_text, overview_text
from scripts.command_line.next_steps import next_step
from scripts.command_line.signatures import read_signature
from scripts.console import ClosedPipe, close_quietly, command_output, user_message

__all__ = ["EXIT_CODES", "VERBS", "main", "verb_named"]

# verb: where its function is, and what it does in a line
VERBS = {
    "simulate": ("scripts.command_line.verbs:simulate", "make tomograms with known particles, to train and test on"),
    "prepare": ("scripts.preparation.prepare:prepare", "turn tomograms and a particle list into training data"),
    "join": ("scripts.weights.join:join", "join the weights of two training runs into the file that detection uses"),
    "calibrate": ("scripts.command_line.verbs:calibrate", "choose the thresholds of detection on validation data"),
    "detect": ("scripts.detection.detect:detect", "find and separate the particles of tomograms"),
    "teach": ("scripts.teach.teach:teach", "choose the particles that are like a few examples"),
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
RESUMING = ("simulate", "detect")  # what is finished is not done again
HELP = ("-h", "--help")

Verbs = Mapping[str, tuple[str, str]]


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


def main(words: Sequence[str] | None = None, verbs: Verbs = VERBS, program: str = "python -m scripts") -> int:
    """Run one verb; return the exit code, one of `EXIT_CODES`."""
    try:
        code = _main(list(sys.argv[1:] if words is None else words), verbs, program)
        sys.stdout.flush()
    except (BrokenPipeError, ClosedPipe):
        close_quietly()
        return ClosedPipe.code
    return code


def _main(words: list[str], verbs: Verbs, program: str) -> int:
    options = _options(words)
    flags = {name: f"--{name}" in options for name in GLOBAL_FLAGS}
    plain = [word for word in options if word.removeprefix("--") not in GLOBAL_FLAGS]
    if plain[:1] == ["help"] and len(plain) > 1:  # help detect
        words = plain = options = [plain[1], "--help"]
    if not plain or plain[0] in (*HELP, "help"):
        print(overview_text(verbs, program))
        return 0
    if plain[0] == "--version":
        print(bundle_version())
        return 0
    verb = plain[0].replace("-", "_")
    words.remove(plain[0])
    if verb in verbs and set(options) & set(HELP):
        print(help_text(f"{program} {verb}", read_signature(verbs[verb][0])))
        return 0
    with sigterm_raises(), command_output(flags["json"], flags["quiet"]) as said:
        values: dict[str, Any] = {}
        code, error = _run(verb, words, verbs, flags["debug"], values)
        following = next_step(verb, values, said.written) if error is None else None
        for title, text in (("error", error), ("next", following)):
            if text:
                print(f"{title}: {text}", file=sys.stderr)
    if flags["json"]:
        print(said.as_json(verb, code, error, following))
    return code


def _run(verb: str, words: list[str], verbs: Verbs, debug: bool, values: dict[str, Any]) -> tuple[int, str | None]:
    """Run a verb, noting the values it is called with; return the exit code and the message of its error."""
    try:
        signature = read_signature(verb_named(verb, verbs))
        call = parse_arguments(verb, signature, _without_flags(words, signature.options))
        values.update({name: option.default for name, option in signature.options.items()} | call.named)
        _call(verb, verbs[verb][0], call)
    except KeyboardInterrupt:
        anew = {"--overwrite", "--overwrite=true", "--overwrite=True"} & set(words)
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


def _call(verb: str, target: str, call: Call) -> None:
    """Import the function behind a verb and call it."""
    import fire  # not needed for help

    module, name = target.split(":")
    function: Callable = getattr(importlib.import_module(module), name)

    def bound() -> None:  # what a function returns is for Python; fire would print it
        function(*call.positional, **call.named)

    fire.Fire(bound, command=[], name=verb)


def verb_named(verb: str, verbs: Verbs = VERBS) -> str:
    """Where the function of a verb is, as ``module:function``.

    Raises
    ------
    UsageError
        If there is no such verb; lists those that are, and the one that may have been meant.
    """
    if verb not in verbs:
        close = difflib.get_close_matches(verb, verbs, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UsageError(f"unknown command {verb!r}: expected one of {', '.join(verbs)}.{hint}")
    return verbs[verb][0]


def _options(words: Sequence[str]) -> list[str]:
    """The words before a bare ``--``, after which all are names."""
    return list(words[: words.index("--")] if "--" in words else words)


def _without_flags(words: Sequence[str], own: Collection[str]) -> list[str]:
    """Take out the flags that every verb has; one that a verb has itself is passed on."""
    flags = [f"--{name}" for name in GLOBAL_FLAGS if name not in own]
    options = _options(words)
    return [word for word in options if word not in flags] + list(words)[len(options) :]


def bundle_version() -> str:
    """Read the version from ``configs/metadata.json``."""
    import json

    return json.loads((Path(__file__).parents[2] / "configs" / "metadata.json").read_text())["version"]
