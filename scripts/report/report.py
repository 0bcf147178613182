"""One run -> one self-contained HTML page, for who made the run and for the colleague it is mailed to."""

from __future__ import annotations

import base64
import json
import os
import zlib
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from scripts.report import gallery, plots, summary
from scripts.report.images import LabelCode, SliceStack, fit_labels, fit_slices, grey_range
from scripts.report.inputs import RunData, VolumeLike, find_key, load_run
from scripts.report.truth import Comparison, Evaluation, compare, flat_metrics

__all__ = ["MAX_BYTES", "make_report", "report"]

MAX_BYTES = 15_000_000  # what most mail servers still accept
MAX_ROWS = 100_000
_PAGE = Path(__file__).parent / "page"
_SCRIPTS = ("base.js", "layers.js", "viewer.js", "browse.js", "table.js", "charts.js", "report.js")


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
    tomogram: VolumeLike = None,
    instances: VolumeLike = None,
    center_map: VolumeLike = None,
    particles: pd.DataFrame | None = None,
    info: dict[str, Any] | None = None,
    evaluation: Evaluation = None,
    output: str | Path | None = None,
    title: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Make the report of one detection from files, from arrays in memory, or from both.

    Parameters
    ----------
    run_dir_or_prefix : path
        The run's folder ``<output_dir>/<tomogram>``, or the prefix ``<folder>/<tomogram>`` of its files.
    tomogram, instances, center_map : array (Z, Y, X) or path, optional
        Read in slabs and never copied as a whole. By default the tomogram recorded in the run's JSON, and the run's
        ``_instances.mrc`` and ``_center_map.mrc``; each may be absent.
    particles : DataFrame, optional
        The particle table; by default ``_particles.csv``. Zero rows are fine.
    info : dict, optional
        What made the run; by default ``<tomogram>.json``, or nothing.
    evaluation : dict or path, optional
        See `scripts.report.truth.compare`.
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
    run = load_run(run_dir_or_prefix, tomogram, instances, center_map, particles, info)
    comparison = compare(evaluation, run)
    path = Path(output) if output is not None else run.prefix.with_name(run.name + "_report.html")
    html = _render(run, comparison, title or f"Particles in {run.name}", max_bytes)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(html, "utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _packed(text: str) -> str:
    return _base64(zlib.compress(text.encode("utf-8"), 9))


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # a second to import, and an empty page does without

    return _packed(get_plotlyjs())


def _table(run: RunData, comparison: Comparison | None) -> pd.DataFrame:
    """Return the table as the page shows it: the best rows if there are too many for a browser."""
    table = run.particles
    if comparison is not None:
        table = table.assign(outcome=comparison.outcome)
    if len(table) > MAX_ROWS:
        best = table.sort_values("score", ascending=False) if "score" in table.columns else table
        table = best.head(MAX_ROWS).sort_index()
        run.notes.append(
            f"The page holds the {MAX_ROWS:,} best of {len(run.particles):,} table rows; "
            f"{run.name}_particles.csv beside it has all of them."
        )
    return table


def _volumes(run: RunData, budget: int) -> tuple[SliceStack | None, LabelCode | None, SliceStack | None]:
    """Code the three volumes: a small share for the center map, a third for the labels, the rest for the image."""
    voxel_size = run.voxel_size_zyx
    center = labels = image = None
    if run.center_map is not None:
        center = fit_slices(run.center_map, voxel_size, budget // 8, max_voxels=8_000_000, limits=(0.0, 1.0))
        budget -= center.size if center else 0
    if run.instances is not None:
        labels = fit_labels(run.instances, voxel_size, budget // (3 if run.tomogram is not None else 1))
        budget -= labels.size if labels else 0
    if run.tomogram is not None:
        image = fit_slices(run.tomogram, voxel_size, budget)
    return image, labels, center


def _layer(code: SliceStack | LabelCode | None) -> dict[str, Any] | None:
    if code is None:
        return None
    described: dict[str, Any] = {"shape": code.shape_zyx, "binning": code.binning_zyx}
    if isinstance(code, LabelCode):
        described["maxLabel"] = code.max_label
    return described


def _binning_text(run: RunData, image: SliceStack | None, labels: LabelCode | None) -> str:
    """Say how coarse the pictures are."""
    texts = []
    for name, code in (("Slices", image), ("Outlines", labels)):
        if code is None:
            continue
        z, y, x = code.binning_zyx
        if (z, y, x) == (1, 1, 1):
            texts.append(f"{name} are shown at full resolution.")
        else:
            texts.append(f"{name} are shown binned by {x} × {y} × {z} (x × y × z) so that the page can be mailed.")
    if run.tomogram is not None and image is None:
        texts.append("The tomogram does not fit into the page's size limit and is not shown.")
    return " ".join(texts)


def _figures(run: RunData, distances: np.ndarray, comparison: Comparison | None) -> dict[str, Any]:
    kept, dropped = summary.split_kept(run.particles)
    found: dict[str, Any] = {}

    def values(rows: pd.DataFrame, column: str) -> np.ndarray:
        return pd.to_numeric(rows[column], errors="coerce").to_numpy(float) if column in rows.columns else np.zeros(0)

    if len(run.particles):
        both = {"kept": kept, "dropped": dropped}
        found["score"] = plots.histogram_figure(
            {name: values(rows, "score") for name, rows in both.items()}, "score", (0.0, 1.0), _threshold(run)
        )
        volumes = {name: values(rows, "volume_angstrom3") / 1000.0 for name, rows in both.items()}
        found["volume"] = plots.histogram_figure(volumes, "volume (nm³)")
        found["neighbor"] = plots.histogram_figure({"kept": distances}, "distance to the nearest neighbour (Å)")
    if comparison is not None:
        found["recall"] = plots.precision_recall_figure(comparison.scored, comparison.n_truth)
    return {name: figure for name, figure in found.items() if figure is not None}


def _threshold(run: RunData) -> float | None:
    value = find_key(run.info, "score_threshold", "min_score")
    return float(value) if isinstance(value, (int, float)) else None


def _galleries(run: RunData, comparison: Comparison | None, image: SliceStack | None) -> list[dict[str, Any]]:
    kept, _ = summary.split_kept(run.particles)
    limits = image.grey_range if image is not None else (0.0, 1.0)
    if run.tomogram is not None:
        limits = grey_range(run.tomogram, (1, 1, 1))
    diameter = None
    if "volume_angstrom3" in kept.columns and len(kept):
        diameter = (6 * float(np.nanmedian(kept["volume_angstrom3"].to_numpy(float))) / np.pi) ** (1 / 3)
    side = gallery.crop_size(run, diameter)

    def pictures(rows: pd.DataFrame) -> list[dict[str, Any]]:
        made = []
        for row in rows.to_dict("records"):
            center = np.array([row["z_vox"], row["y_vox"], row["x_vox"]], float)
            caption = f"{row['score']:.2f}" if np.isfinite(row.get("score", np.nan)) else ""
            caption += f" dropped by {row['dropped_by']}" if row["dropped_by"] else ""
            made.append(
                gallery.crop_picture(run, center, side, row["label"], str(row["particle_id"]), caption.strip(), limits)
            )
        return [asdict(p) for p in made]

    found = [
        {"title": title, "pictures": pictures(rows)}
        for title, rows in gallery.choose(run.particles, _threshold(run)).items()
    ]
    if comparison is not None:
        wrong = run.particles[np.isin(comparison.outcome, ["FP"])]
        if "score" in wrong.columns:
            wrong = wrong.sort_values("score", ascending=False)
        found.append({"title": "False: found, but not in the truth", "pictures": pictures(wrong.head(12))})
        picked = np.unique(np.linspace(0, len(comparison.misses_zyx_vox) - 1, 24).astype(int))
        missed = [
            gallery.crop_picture(run, comparison.misses_zyx_vox[i], side, 0, "", f"missed {i + 1}", limits)
            for i in (picked if len(comparison.misses_zyx_vox) else [])
        ]
        found.append({"title": "Missed: in the truth, but not found", "pictures": [asdict(p) for p in missed]})
    return [group for group in found if group["pictures"]]


def _made_by(run: RunData) -> list[tuple[str, str]]:
    """Return the lines of "How it was made" that most people look for; the rest is in the JSON below them."""
    wanted = {
        "Command": ("command", "command_line", "argv"),
        "Input": ("input_path", "tomogram", "input", "filename_or_obj"),
        "Bundle version": ("bundle_version", "version"),
        "Versions": ("versions", "packages"),
        "Weights (SHA-256)": ("weights_sha256", "sha256"),
        "Thresholds": ("thresholds", "postprocessing"),
        "Timings": ("timings", "timings_s", "seconds"),
        "Made": ("created", "date", "time", "finished"),
    }
    lines = []
    for title, keys in wanted.items():
        value = find_key(run.info, *keys)
        if value is None:
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items())
        elif isinstance(value, (list, tuple)):
            value = " ".join(map(str, value))
        lines.append((title, str(value)))
    return lines


def _render(run: RunData, comparison: Comparison | None, title: str, max_bytes: int) -> str:
    table = _table(run, comparison)
    kept, _ = summary.split_kept(run.particles)
    distances = plots.nearest_neighbor_angstrom(kept[["z_vox", "y_vox", "x_vox"]].to_numpy(float), run.voxel_size_zyx)
    figures = _figures(run, distances, comparison)
    blobs = {"csv": _packed(table.to_csv(index=False, float_format="%.7g", lineterminator="\n"))}
    if len(table) or figures:
        blobs["plotly"] = _plotly()
    context = {
        "title": title,
        "run": run,
        "made_on": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "sentences": summary.sentences(run),
        "cards": summary.cards(run, distances),
        "dropped": summary.dropped_rows(run),
        "made_by": _made_by(run),
        "info_json": json.dumps(run.info, indent=2, default=str, ensure_ascii=False),
        "comparison": comparison,
        "metrics": flat_metrics(comparison.metrics) if comparison is not None else [],
        "figures": figures,
        "css": (_PAGE / "report.css").read_text("utf-8"),
        "scripts": "\n".join((_PAGE / name).read_text("utf-8") for name in _SCRIPTS),
    }
    groups = _galleries(run, comparison, None)
    used = sum(len(text) for text in blobs.values()) + len(json.dumps(groups, default=str)) + 400_000
    image, labels, center = _volumes(run, max(max_bytes - used, 0))
    if image is not None:
        blobs["slices"] = "\n".join(map(_base64, image.jpegs))
    if center is not None:
        blobs["center"] = "\n".join(map(_base64, center.jpegs))
    if labels is not None:
        blobs["labels"] = _base64(labels.symbols) + "\n" + _base64(labels.values)
    page = {
        "name": run.name,
        "shape": run.shape_zyx,
        "voxelSize": run.voxel_size_zyx.tolist(),
        "image": _layer(image),
        "labels": _layer(labels),
        "center": _layer(center),
        "misses": np.round(comparison.misses_zyx_vox, 2).tolist() if comparison is not None else [],
        "figures": figures,
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        **context,
        galleries=groups,
        checks=summary.checks(run),
        notes=run.notes,
        binning=_binning_text(run, image, labels),
        has_volume=image is not None or labels is not None,
        page=page,
        blobs=blobs,
    )
