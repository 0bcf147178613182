"""A folder of detections -> one page and one table that tell which tomograms to look at first."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from custom_transforms.files.whole_files import atomic_path
from scripts.particles.csv_table import table_text
from scripts.records.detection import read_detection, records_in
from scripts.report.render import PAGE, page_template

__all__ = ["FILES", "overview", "overview_table"]

FILES = ("overview.html", "overview.csv")
_CLASS = "particles_"
_FEWEST = 5  # tomograms; among less nothing is unusual
_LIMIT = 3.0  # robust deviations from the median


def overview(folder: str | Path) -> tuple[Path, Path]:
    """Write ``overview.html``, with a link to each tomogram's report, and ``overview.csv`` into a folder of detections.

    Parameters
    ----------
    folder : path
        The output folder of `detect`.

    Returns
    -------
    page, table : Path

    Raises
    ------
    ValueError
        If no finished detection is in the folder.
    """
    folder = Path(folder)
    table = overview_table(folder)
    page, listed = (folder / name for name in FILES)
    rows = table.sort_values(["unusual", "particles"], ascending=[False, True], kind="stable").to_dict("records")
    html = page_template("overview.html.j2").render(
        title=f"{len(rows)} tomograms in {folder.resolve().name}",
        css=(PAGE / "report.css").read_text("utf-8"),
        rows=rows,
        classes={name.removeprefix(_CLASS): name for name in table if name.startswith(_CLASS)},
        totals=table.filter(regex=f"^{_CLASS}").sum().to_dict(),
        total=int(table["particles"].sum()),
        most=max(int(table["particles"].max()), 1),
    )
    with atomic_path(listed) as temporary:
        temporary.write_text(table_text(table, float_format="%.4g"), "utf-8")
    with atomic_path(page) as temporary:
        temporary.write_text(html, "utf-8")
    return page, listed


def overview_table(folder: Path) -> pd.DataFrame:
    """One row for each finished tomogram, by name.

    Returns
    -------
    DataFrame
        ``tomogram``, ``particles``, ``dropped``, ``median_score``, ``median_diameter_angstrom`` (of balls of the
        particles' volumes), ``unusual`` (few or many particles, low scores, beside the others), ``warnings``,
        ``report`` (the page's path from ``folder``; "" where there is none). With several classes also
        ``particles_CLASS`` for each, missing where a tomogram's networks do not know the class.
    """
    rows = []
    for record in records_in(folder):
        run = record.parent
        try:
            made = read_detection(record)
            found = pd.read_csv(run / f"{run.name}_particles.csv")
        except (OSError, ValueError) as error:  # damaged, or detected anew at this moment: the others count
            warnings.warn(f"left out of the overview: {error}", UserWarning, stacklevel=2)
            continue
        kept = found[found["label"] > 0]
        page = run / f"{run.name}_report.html"
        rows.append(
            {
                "tomogram": run.name,
                "particles": len(kept),
                "dropped": len(found) - len(kept),
                "median_score": float(kept["score"].median()),
                "median_diameter_angstrom": float(np.cbrt(6 / np.pi * kept["volume_angstrom3"].median())),
                "unusual": "",
                "warnings": " ".join(made.warnings),
                "report": page.relative_to(folder).as_posix() if page.is_file() else "",
                **{_CLASS + name: n for name, n in made.particles.by_class.items() if len(made.classes) > 1},
            }
        )
    if not rows:
        raise ValueError(f"{folder}: expected the output folder of detect, found no finished detection in it.")
    table = pd.DataFrame(rows)
    table = table.astype({name: "Int64" for name in table if name.startswith(_CLASS)})
    counts, scores = (_deviations(table[column].to_numpy(float)) for column in ("particles", "median_score"))
    unusual = {"few particles": counts < -_LIMIT, "many particles": counts > _LIMIT, "low scores": scores < -_LIMIT}
    table["unusual"] = [", ".join(word for word, found in unusual.items() if found[i]) for i in range(len(table))]
    return table


def _deviations(values: np.ndarray) -> np.ndarray:
    """How far values lie from their median, in robust standard deviations; 0 where that says nothing."""
    known = values[np.isfinite(values)]
    if len(known) < _FEWEST:
        return np.zeros(len(values))
    middle = np.median(known)
    spread = max(1.4826 * np.median(np.abs(known - middle)), 0.05 * abs(middle), 1e-9)  # equal counts are no scale
    return np.nan_to_num((values - middle) / spread)
