"""What one does next: after each verb, the command that makes sense, with the names of this run in it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["next_step"]

Values = Mapping[str, Any]


def next_step(verb: str, values: Values, written: Sequence[str] = ()) -> str | None:
    """Name what follows a verb that is done; None where the way ends.

    Parameters
    ----------
    verb : str
    values : mapping
        What the verb was called with, defaults included. Words in capitals of a step are for the user to fill in.
    written : sequence of str
        The files that it wrote.

    Examples
    --------
    >>> next_step("calibrate", {"output": "vlp.json", "weights": None})
    'python -m scripts detect TOMOGRAMS --config vlp.json'
    """
    return STEPS[verb](values, written) if verb in STEPS else None


def _train(values: Values, written: Sequence[str]) -> str:
    command = "python -m monai.bundle run training --config_file configs/train_mask.json"
    data = shlex.quote(str(values["output_dir"]))
    return f"{command} --dataset_dir {data}; then the same with configs/train_center.json, and python -m scripts join"


def _calibrate(values: Values, written: Sequence[str]) -> str:
    weights = shlex.quote(str(values["output"]))
    return f"python -m scripts calibrate DATASET_DIR --weights {weights} --particle_diameter ANGSTROM"


def _detect(values: Values, written: Sequence[str]) -> str:
    weights = "" if values["weights"] is None else f" --weights {shlex.quote(str(values['weights']))}"
    return f"python -m scripts detect TOMOGRAMS --config {shlex.quote(str(values['output']))}{weights}"


def _look_and_export(values: Values, written: Sequence[str]) -> str | None:
    folder = shlex.quote(str(values["output_dir"]))
    export = f"python -m scripts export {folder} particles.star --to_format relion5"
    return _open(written, f"{export} (or .tbl, .em, .xml ...)")


def _apply(values: Values, written: Sequence[str]) -> str | None:
    file = next((name for name in written if name.endswith("taught.json")), None)
    apply = None if file is None else f"python -m scripts detect TOMOGRAMS --teach {shlex.quote(file)}"
    return _open([name for name in written if name.endswith("asked.html")] or written, apply)


def _report(values: Values, written: Sequence[str]) -> str | None:
    predicted, evaluation = Path(str(values["predicted"])), shlex.quote(str(values["output_dir"]))
    if not predicted.is_dir() or _page(written):
        return _open(written)
    return f"python -m scripts report {shlex.quote(str(predicted))} --evaluation {evaluation}"


def _correct(values: Values, written: Sequence[str]) -> str | None:
    view = f"python -m scripts view {shlex.quote(str(values['run_dir']))}"
    return _open(written, f"{view} to correct the centers")


def _prepare(values: Values, written: Sequence[str]) -> str | None:
    picks = next((name for name in written if name.endswith(".csv")), None)
    if picks is None:
        return None
    if values.get("teach") is not None:
        others = "".join(f" --counter_examples {shlex.quote(name)}" for name in written if "_counter_examples" in name)
        return f"python -m scripts teach {shlex.quote(str(values['run_dir']))} --particles {shlex.quote(picks)}{others}"
    return f"python -m scripts prepare TOMOGRAM --particles {shlex.quote(picks)} --radius ANGSTROM --output_dir dataset"


def _own(values: Values, written: Sequence[str]) -> str | None:
    return _open(written, "python -m scripts detect YOUR_TOMOGRAM.mrc")


def _verify(values: Values, written: Sequence[str]) -> str | None:
    return f"python -m bundle verify {shlex.quote(written[0])}" if written else None


STEPS: dict[str, Callable[[Values, Sequence[str]], str | None]] = {
    "simulate": _train,
    "prepare": _train,
    "join": _calibrate,
    "calibrate": _detect,
    "detect": _look_and_export,
    "teach": _apply,
    "evaluate": _report,
    "report": _correct,
    "view": _prepare,
    "demo": _own,
    "demo_real": _own,
    "adopt": lambda values, written: "python -m bundle build",
    "build": _verify,
}


def _page(written: Sequence[str]) -> str | None:
    """The page to look at first: the overview of several tomograms, or the report of one."""
    pages = [name for name in written if name.endswith(".html")]
    return next((name for name in pages if name.endswith("overview.html")), pages[0] if pages else None)


def _open(written: Sequence[str], then: str | None = None) -> str | None:
    page = _page(written)
    steps = [] if page is None else [f"open {shlex.quote(page)} in a browser"]
    return "; ".join([*steps, *([] if then is None else [then])]) or None
