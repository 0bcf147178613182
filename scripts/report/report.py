"""One run -> one self-contained HTML page, for who made the run and for the colleague it is mailed to."""

from __future__ import annotations

from pathlib import Path

from custom_transforms.files.whole_files import atomic_path
from scripts.records.detection import DetectionRecord
from scripts.report.inputs import load_run
from scripts.report.remembered import remember_evaluation, remembered_evaluation
from scripts.report.render import render_page
from scripts.report.truth import Evaluation, compare

__all__ = ["MAX_BYTES", "make_report", "report"]

MAX_BYTES = 15_000_000  # what most mail servers still accept


def report(
    run_dir: str | Path,
    tomogram: str | Path | None = None,
    evaluation: str | Path | None = None,
    output: str | Path | None = None,
    title: str | None = None,
) -> Path:
    """Make the report of one detection from its files: ``python -m scripts report RUN_DIR``.

    Parameters
    ----------
    run_dir : path
        ``<output_dir>/<tomogram>``, the folder `detect` wrote.
    tomogram : path, optional
        The tomogram, if it is not any more where the run read it.
    evaluation : path, optional
        The folder `evaluate` wrote; adds what is right, wrong and missed.
    output : path, optional
        By default ``<run_dir>/<tomogram>_report.html``.
    title : str, optional

    Returns
    -------
    Path
        The page.
    """
    return make_report(run_dir, tomogram=tomogram, evaluation=evaluation, output=output, title=title)


def make_report(
    run_dir_or_prefix: str | Path,
    tomogram: str | Path | None = None,
    record: DetectionRecord | None = None,
    evaluation: Evaluation = None,
    output: str | Path | None = None,
    title: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Make the report of one detection from its files.

    Parameters
    ----------
    run_dir_or_prefix : path
        The run's folder ``<output_dir>/<tomogram>``, or the prefix ``<folder>/<tomogram>`` of its files.
    tomogram : path, optional
        Read in slabs and never copied as a whole. By default the one in the record; the page goes without where it is
        gone.
    record : DetectionRecord, optional
        By default ``<tomogram>.json``.
    evaluation : dict or path, optional
        See `scripts.report.truth.compare`. A folder is noted in the run's record and used again by the next report.
    output : path, optional
        By default ``<prefix>_report.html``.
    title : str, optional
    max_bytes : int
        The page's size limit; volumes are binned until it holds.

    Returns
    -------
    Path
        The page, which is there only when it is whole.

    Raises
    ------
    FileNotFoundError, ValueError
        If files are missing, or volumes and table do not fit together; the message says what to do.
    """
    run = load_run(run_dir_or_prefix, tomogram, record)
    comparison = compare(remembered_evaluation(run) if evaluation is None else evaluation, run)
    path = Path(output) if output is not None else run.prefix.with_name(run.name + "_report.html")
    html = render_page(run, comparison, title or f"Particles in {run.name}", max_bytes)
    with atomic_path(path) as temporary:
        temporary.write_text(html, "utf-8")
    if isinstance(evaluation, (str, Path)):
        remember_evaluation(run, Path(evaluation))
    return path
