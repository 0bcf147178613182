"""Put everything a report shows into the template; images get what the size limit leaves over."""

from __future__ import annotations

import base64
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from scripts.particles.csv_table import table_text
from scripts.records.detection import DetectionRecord
from scripts.report import gallery, plots, summary
from scripts.report.images import LabelCode, SliceStack, fit_labels, fit_slices
from scripts.report.inputs import NO_CLASS_COLOUR, RunData
from scripts.report.truth import OUTCOMES, Comparison, flat_metrics

__all__ = ["MAX_ROWS", "render_page"]

MAX_ROWS = 100_000
PAGE = Path(__file__).parent / "page"
_SCRIPTS = ("base.js", "layers.js", "viewer.js", "browse.js", "table.js", "charts.js", "classes.js", "report.js")


def page_template(name: str) -> jinja2.Template:
    """A template of the folder ``page``: values are escaped, and a missing one is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    ).get_template(name)


def render_page(run: RunData, comparison: Comparison | None, title: str, max_bytes: int) -> str:
    """Render the page.

    Parameters
    ----------
    run : RunData
    comparison : Comparison or None
        What is right, wrong and missed, where truth is known.
    title : str
    max_bytes : int
        Limit of the page; the volumes are binned until it holds.

    Returns
    -------
    str
        HTML that loads nothing from anywhere.
    """
    kept, _ = summary.split_kept(run.particles)
    distances = plots.nearest_neighbor_angstrom(kept[["z_vox", "y_vox", "x_vox"]].to_numpy(float), run.voxel_size_zyx)
    figures = plots.run_figures(run.particles, distances)
    by_class = plots.class_figures(run.particles, run.classes)
    figures |= {f"class-{k}": figure for k, figure in enumerate(by_class.values())}
    if comparison is not None:
        figures |= plots.truth_figures(comparison.scored, comparison.n_truth)
    table = _table(run, comparison)
    blobs = {"csv": _packed(table_text(table, float_format="%.7g"))}
    if len(table) or figures:
        blobs["plotly"] = _plotly()
    context: dict[str, Any] = {
        "title": title,
        "run": run,
        "made_on": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "sentences": summary.sentences(run),
        "cards": summary.cards(run, distances),
        "class_rows": summary.class_rows(run),
        "class_plots": list(by_class),
        "checks": summary.checks(run),
        "dropped": summary.dropped_rows(run),
        "made_by": _made_by(run.record),
        "info_json": run.record.text(),
        "comparison": comparison,
        "outcomes": OUTCOMES,
        "metrics": flat_metrics({k: v for k, v in comparison.metrics.items() if k not in ("classes", "confusion")})
        if comparison is not None
        else [],
        "figures": figures,
        "galleries": gallery.galleries(run, comparison),
        "notes": run.notes,
        "binning": "",
        "has_volume": False,
        "css": (PAGE / "report.css").read_text("utf-8"),
        "scripts": "\n".join(
            (PAGE / name).read_text("utf-8") for name in _SCRIPTS if run.classes or name != "classes.js"
        ),
        "page": _page_data(run, comparison, figures) | _class_colours(run, table),
        "blobs": blobs,
    }
    template = page_template("report.html.j2")
    used = len(template.render(context).encode("utf-8"))
    _add_volumes(context, run, max(max_bytes - used - 10_000, 0))
    return template.render(context)


def _page_data(run: RunData, comparison: Comparison | None, figures: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": run.name,
        "shape": run.shape_zyx,
        "voxelSize": run.voxel_size_zyx.tolist(),
        "misses": comparison.misses_zyx_vox.round(2).tolist() if comparison is not None else [],
        "figures": figures,
        "image": None,
        "labels": None,
        "center": None,
    }


def _class_colours(run: RunData, table: pd.DataFrame) -> dict[str, list[str]]:
    """The colours of the classes in the order in which the page counts them, the most particles first."""
    counted = Counter(table["class"]).most_common() if run.classes else []
    return {"classColours": [run.classes.get(name, NO_CLASS_COLOUR) for name, _ in counted]} if run.classes else {}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _packed(text: str) -> str:
    return _base64(zlib.compress(text.encode("utf-8"), 9))


@lru_cache(maxsize=1)
def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # takes a moment to import, and an empty page does without

    return _packed(get_plotlyjs())


def _table(run: RunData, comparison: Comparison | None) -> pd.DataFrame:
    """Return the table as the page shows it: the best rows if there are too many for a browser."""
    table = run.particles
    if comparison is not None:
        table = table.assign(outcome=comparison.outcome, reason=comparison.reason)
    if len(table) > MAX_ROWS:
        table = table.sort_values("score", ascending=False).head(MAX_ROWS).sort_index()
        run.notes.append(
            f"The page holds the {MAX_ROWS:,} best of {len(run.particles):,} table rows; "
            f"{run.name}_particles.csv beside it has all of them."
        )
    return table


def _add_volumes(context: dict[str, Any], run: RunData, budget: int) -> None:
    """Code the three volumes: a small share for the center map, a third for the labels, the rest for the image."""
    blobs, page = context["blobs"], context["page"]
    image = labels = center = None
    if run.center_map is not None:
        values, kept = run.center_map.values, run.center_map.binning_zyx
        center = fit_slices(values, run.voxel_size_zyx * kept, budget // 8, limits=(0.0, 255.0))
    if center is not None:
        z, y, x = (b * more for b, more in zip(kept, center.binning_zyx, strict=True))
        center = replace(center, binning_zyx=(z, y, x))
        budget -= center.size
        blobs["center"] = "\n".join(map(_base64, center.jpegs))
    if run.instances is not None:
        labels = fit_labels(run.instances, run.voxel_size_zyx, budget // (3 if run.tomogram is not None else 1))
    if labels is not None:
        budget -= labels.size
        blobs["labels"] = _base64(labels.symbols) + "\n" + _base64(labels.values)
    if run.tomogram is not None:
        image = fit_slices(run.tomogram, run.voxel_size_zyx, budget)
    if image is not None:
        blobs["slices"] = "\n".join(map(_base64, image.jpegs))
    for name, volume, code in (("tomogram", run.tomogram, image), ("label volume", run.instances, labels)):
        if volume is not None and code is None:
            context["notes"].append(f"The {name} does not fit into the page's size limit and is not shown.")
    page |= {"image": _layer(image), "labels": _layer(labels), "center": _layer(center)}
    context["has_volume"] = image is not None or labels is not None
    context["binning"] = _binning_text(image, labels)


def _layer(code: SliceStack | LabelCode | None) -> dict[str, Any] | None:
    if code is None:
        return None
    described: dict[str, Any] = {"shape": code.shape_zyx, "binning": code.binning_zyx}
    if isinstance(code, LabelCode):
        described["maxLabel"] = code.max_label
    return described


def _binning_text(image: SliceStack | None, labels: LabelCode | None) -> str:
    """Say how coarse the pictures are."""
    by_binning: dict[tuple[int, int, int], list[str]] = {}
    for name, code in (("slices", image), ("outlines", labels)):
        if code is not None:
            by_binning.setdefault(code.binning_zyx, []).append(name)
    texts = []
    for (z, y, x), names in by_binning.items():
        subject = " and ".join(names).capitalize()
        if (z, y, x) == (1, 1, 1):
            texts.append(f"{subject} are shown at full resolution.")
        else:
            texts.append(f"{subject} are shown binned by {x} × {y} × {z} (x × y × z), so that the page can be mailed.")
    return " ".join(texts)


def _made_by(record: DetectionRecord) -> list[tuple[str, str]]:
    """Return the lines of "How it was made" that most people look for; the rest is in the JSON below them."""
    wanted = {
        "Input": record.inputs.tomogram.path,
        "Command": record.command,
        "Bundle": record.bundle,
        "Bundle version": record.bundle_version,
        "Versions": record.made_with,
        "Weights": record.weights,
        "Weights' SHA-256": record.inputs.weights_sha256,
        "Settings": record.inputs.settings,
        "Seconds": record.timings_seconds,
    }
    return [(title, _line(value)) for title, value in wanted.items() if value]


def _line(value: str | Mapping[str, Any]) -> str:
    if isinstance(value, str):
        return value
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items())
