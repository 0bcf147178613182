"""The evaluation that a run's report showed last, so that making the page again does not lose it."""

from __future__ import annotations

import warnings
from pathlib import Path

from scripts.records import model
from scripts.records.detection import Evaluation
from scripts.records.weights import file_digest
from scripts.report.inputs import RunData

__all__ = ["remember_evaluation", "remembered_evaluation"]


def remember_evaluation(run: RunData, folder: Path) -> None:
    """Note the folder of an evaluation in the record of a run.

    A new detection writes a new record, so it never shows the evaluation of the one before.
    """
    noted = Evaluation(folder=str(folder.resolve()), matches_sha256=file_digest(folder / "matches.csv"))
    if run.record.evaluation != noted:
        model.write(run.record.changed(evaluation=noted), run.prefix.with_name(run.name + ".json"))


def remembered_evaluation(run: RunData) -> Path | None:
    """Return the folder that `remember_evaluation` noted; None, with a warning, if it holds that evaluation no more."""
    noted = run.record.evaluation
    if noted is None:
        return None
    folder = Path(noted.folder)
    if not all((folder / name).is_file() for name in ("metrics.json", "matches.csv")):
        what = "is not there any more"
    elif file_digest(folder / "matches.csv") != noted.matches_sha256:
        what = "has been written anew since"
    else:
        return folder
    warnings.warn(
        f"{run.name}: the evaluation in {folder}, which the report showed last, {what}; the page is made without it. "
        "Give --evaluation FOLDER to show one.",
        stacklevel=2,
    )
    return None
