"""Plots as plain Plotly figures (``data`` and ``layout``), which the page hands to plotly.js."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

__all__ = [
    "class_figures",
    "histogram_figure",
    "nearest_neighbor_angstrom",
    "precision_recall",
    "run_figures",
    "truth_figures",
]

Figure = dict[str, Any]
BLUE, ORANGE, INK = "#2563a8", "#b3530a", "#1c2733"


def nearest_neighbor_angstrom(centers_zyx_vox: np.ndarray, voxel_size_zyx: np.ndarray) -> np.ndarray:
    """Return each particle's distance to the nearest other center in Å; NaN if there is no other.

    Examples
    --------
    >>> nearest_neighbor_angstrom(np.array([[0., 0., 0.], [0., 0., 3.]]), np.array([10., 10., 10.]))
    array([30., 30.])
    """
    if len(centers_zyx_vox) < 2:
        return np.full(len(centers_zyx_vox), np.nan)
    centers = np.asarray(centers_zyx_vox, float) * voxel_size_zyx
    distances: np.ndarray = cKDTree(centers).query(centers, k=2)[0][:, 1]
    return distances


def _layout(x_title: str, y_title: str) -> Figure:
    axis = {"gridcolor": "#e3e8ee", "linecolor": "#7b8794", "zeroline": False, "ticks": "outside"}
    return {
        "xaxis": {**axis, "title": {"text": x_title}},
        "yaxis": {**axis, "title": {"text": y_title}, "rangemode": "tozero"},
        "margin": {"l": 60, "r": 16, "t": 16, "b": 50},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "plot_bgcolor": "#ffffff",
        "paper_bgcolor": "#ffffff",
        "legend": {"orientation": "h", "y": 1.15},
        "bargap": 0.06,
    }


def _edges(values: np.ndarray, span: tuple[float, float] | None) -> np.ndarray:
    if span is not None:
        return np.linspace(*span, 41)
    low, high = np.percentile(values, (0, 99.5))  # a few giants must not squeeze everything else into one bar
    if high <= low:
        high = low + max(abs(low) * 0.1, 1.0)
    return np.linspace(low, high, min(40, max(8, int(np.sqrt(len(values))))) + 1)


def histogram_figure(
    groups: dict[str, np.ndarray],
    x_title: str,
    span: tuple[float, float] | None = None,
    colours: tuple[str, ...] = (BLUE, ORANGE, "#6b7280"),
) -> Figure | None:
    """Stack histograms of several groups; counted here, so that 20,000 values become 40 bars.

    Parameters
    ----------
    groups : dict
        Name of the group -> its values; what is not finite is left out.
    x_title : str
    span : tuple, optional
        First and last edge; by default the range up to the 99.5 percentile, with the rest in the last bar.
    colours : tuple of str
        Of the groups, in their order.

    Returns
    -------
    dict or None
        None if there is no value at all.
    """
    finite = {name: np.asarray(v, float)[np.isfinite(np.asarray(v, float))] for name, v in groups.items()}
    finite = {name: v for name, v in finite.items() if v.size}
    if not finite:
        return None
    edges = _edges(np.concatenate(list(finite.values())), span)
    middles, width = (edges[1:] + edges[:-1]) / 2, float(edges[1] - edges[0])
    data = []
    for (name, values), color in zip(finite.items(), colours, strict=False):
        counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
        data.append(
            {
                "type": "bar",
                "name": name,
                "x": _rounded(middles),
                "y": counts.tolist(),
                "width": width,
                "marker": {"color": color},
                "hovertemplate": "%{x:.4~g}: %{y:,} " + name + "<extra></extra>",
            }
        )
    layout = {**_layout(x_title, "particles"), "barmode": "stack", "showlegend": len(data) > 1}
    return {"data": data, "layout": layout}


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{v:.6g}") for v in values]


def precision_recall(hits: np.ndarray, scores: np.ndarray, n_truth: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return recall, precision and average precision while the score threshold falls.

    Parameters
    ----------
    hits : ndarray, shape (n,), bool
        Whether each predicted particle is right.
    scores : ndarray, shape (n,)
        Higher is surer; particles of one score enter together.
    n_truth : int
        True particles; with 0 the recall is 0.

    Examples
    --------
    >>> recall, precision, average = precision_recall(np.array([True, False, True]), np.array([.9, .8, .7]), 2)
    >>> recall.tolist(), [round(float(p), 2) for p in precision], round(average, 3)
    ([0.5, 0.5, 1.0], [1.0, 0.5, 0.67], 0.833)
    """
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(hits[order])
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)) if len(scores) else np.zeros(0, int)
    recall = right[ends] / max(n_truth, 1)
    precision = right[ends] / (ends + 1)
    average = float(np.sum(np.diff(np.append(0.0, recall)) * precision))
    return recall, precision, average


def run_figures(particles: pd.DataFrame, distances: np.ndarray) -> dict[str, Figure]:
    """Draw the histograms of one run: ``score``, ``volume`` and ``neighbor``, as far as there is something to draw.

    Parameters
    ----------
    particles : DataFrame
        The particle table.
    distances : ndarray
        Å to the nearest neighbour of each kept particle.
    """
    kept = (particles["dropped_by"] == "").to_numpy()

    def groups(column: str, unit: float = 1.0) -> dict[str, np.ndarray]:
        values = particles[column].to_numpy(float) * unit
        return {"kept": values[kept], "dropped": values[~kept]}

    found = {
        "score": histogram_figure(groups("score"), "score", (0.0, 1.0)),
        "volume": histogram_figure(groups("volume_angstrom3", 1e-3), "volume (nm³)"),
        "neighbor": histogram_figure({"kept": distances}, "distance (Å)"),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def class_figures(particles: pd.DataFrame, colours: Mapping[str, str]) -> dict[str, Figure]:
    """Draw the scores of the kept particles of each class in its colour, as far as it has any."""
    kept = particles[particles["dropped_by"] == ""]
    found = {
        name: histogram_figure({"kept": kept["score"][kept["class"] == name]}, "score", (0.0, 1.0), (colour,))
        for name, colour in colours.items()
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def truth_figures(scored: pd.DataFrame, n_truth: int) -> dict[str, Figure]:
    """Draw ``recall`` (precision against recall) from predicted particles with columns ``score`` and ``outcome``."""
    scored = scored[scored["score"].notna()]
    if scored.empty or n_truth == 0:
        return {}
    recall, precision, average = precision_recall(
        (scored["outcome"] == "TP").to_numpy(), scored["score"].to_numpy(float), n_truth
    )
    keep = np.unique(np.linspace(0, len(recall) - 1, 400).astype(int))
    layout = _layout("recall", "precision")
    layout["xaxis"]["range"] = layout["yaxis"]["range"] = [0, 1.02]
    layout["title"] = {"text": f"average precision {average:.3f}", "font": {"size": 14}}
    layout["margin"]["t"] = 40
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": _rounded(recall[keep]),
        "y": _rounded(precision[keep]),
        "line": {"color": BLUE, "width": 2.5, "shape": "hv"},
        "hovertemplate": "recall %{x:.2f}, precision %{y:.2f}<extra></extra>",
    }
    return {"recall": {"data": [line], "layout": layout}}
