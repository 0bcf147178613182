"""The candidates whose answer would teach most: a list to fill in, and a page with their pictures."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit

from custom_transforms.measuring.taught import Taught
from scripts.particles.csv_table import table_text
from scripts.particles.shared.format import write_text
from scripts.report.gallery import crop_picture, crop_size
from scripts.report.images import grey_range
from scripts.teach.candidates import Candidates
from scripts.teach.examples import UNANSWERED, Examples

__all__ = ["COLUMNS", "most_useful", "unsure", "write_questions"]

POOL = 5  # times as many as are asked for are unsure; of these the most different are taken
FAR = 36.0  # decision value beyond which a probability is 1 in double precision
COLUMNS = ["tomogram", "class", "x_angstrom", "y_angstrom", "z_angstrom", "class_score"]


def unsure(taught: Taught, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each candidate is from the decision of the class that is nearest (n,), and which that is (n,).

    ``probability`` (n, classes) is what `Taught.probabilities` gives.
    """
    thresholds = np.array([one.threshold or 0.5 for one in taught.classes])
    found, decision = (np.clip(logit(some), -FAR, FAR) for some in (probability, thresholds))
    margins = np.abs(found - decision)
    return margins.min(axis=1), margins.argmin(axis=1)


def most_useful(margins: np.ndarray, values: np.ndarray, free: np.ndarray, count: int) -> np.ndarray:
    """Choose candidates (row numbers) to ask about: of those nearest to the decision the most different ones.

    Parameters
    ----------
    margins : ndarray, shape (n,)
        How far each is from the decision.
    values : ndarray, shape (n, descriptors)
        Standardised.
    free : ndarray, shape (n,), bool
        Whether nobody has answered yet.
    count : int

    Examples
    --------
    >>> most_useful(np.array([0.1, 0.2, 0.3, 9.0]), np.array([[0.0], [0.1], [5.0], [9.0]]), np.ones(4, bool), 2)
    array([0, 3])
    """
    pool = np.flatnonzero(free)
    pool = pool[np.argsort(margins[pool], kind="stable")][: POOL * count]
    if len(pool) == 0:
        return pool
    chosen, distance = [0], np.linalg.norm(values[pool] - values[pool[0]], axis=1)
    while len(chosen) < min(count, len(pool)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(values[pool] - values[pool[chosen[-1]]], axis=1))
    return pool[chosen]


def write_questions(
    candidates: Sequence[Candidates], examples: Examples, asked: np.ndarray, score: np.ndarray, output_dir: Path
) -> list[Path]:
    """Write ``asked.csv``, the examples so far and the questions (class "?"), and ``asked.html`` with pictures.

    ``asked`` and ``score`` count the candidates of all tomograms in their order.
    """
    tables = []
    for candidate, known in zip(candidates, examples.known, strict=True):
        tables.append(candidate.table.assign(tomogram=candidate.name, **{"class": known}))
    table = pd.concat(tables, ignore_index=True).assign(class_score=score)
    table.loc[asked, "class"] = UNANSWERED
    rows = pd.concat([table.loc[asked], table[~table["class"].isin(["", UNANSWERED])]])
    paths = [output_dir / "asked.csv", output_dir / "asked.html"]
    write_text(paths[0], table_text(rows[COLUMNS], float_format="%.6g"))
    write_text(paths[1], _page(candidates, rows.iloc[: len(asked)], paths[0].name))
    return paths


def _page(candidates: Sequence[Candidates], rows: pd.DataFrame, name: str) -> str:
    runs = {one.name: one for one in candidates}
    figures = []
    for number, row in enumerate(rows.to_dict("records"), 2):  # as a spreadsheet counts the lines of the list
        one = runs[row["tomogram"]]
        run = one.run
        side = crop_size(run, float(one.settings["particle_diameter"]))
        limits = grey_range(np.asarray(run.tomogram), (2 * (side // 16) + 1, 1, 1))
        center = np.array([row["z_vox"], row["y_vox"], row["x_vox"]], float)
        caption = f"line {number}: {row['tomogram']}, {row['class_score']:.2f}"
        picture = crop_picture(run, center, side, int(row["label"]), str(number), caption, limits)
        outline = f'<svg viewBox="0 0 {side} {side}"><path d="{picture.outline}"/></svg>'
        figures.append(
            f'<figure><div><img src="{picture.image}" alt="">{outline}</div>'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return PAGE.format(name=name, figures="\n".join(figures))


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Which are yours?</title>
<style>
body {{ font: 16px sans-serif; margin: 1.5rem }} main {{ display: flex; flex-wrap: wrap; gap: 1rem }}
figure {{ margin: 0; width: 160px }} figure div {{ position: relative }} img, svg {{ width: 160px; display: block }}
svg {{ position: absolute; inset: 0 }} path {{ fill: none; stroke: #e69f00; stroke-width: .5 }}
</style>
<h1>Which are yours?</h1>
<p>In {name}, write the name of the class instead of each ?, or other. Then teach again with --particles {name}.</p>
<main>
{figures}
</main></html>
"""
