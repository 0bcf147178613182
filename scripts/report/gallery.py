"""Small pictures of single particles: the central slices at full resolution, with their outline as SVG."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from skimage.measure import find_contours

from scripts.report.images import grey_range, jpeg, to_grey
from scripts.report.inputs import RunData
from scripts.report.truth import Comparison

__all__ = ["Picture", "choose", "crop_picture", "crop_size", "galleries"]

_SHOWN = 12


@dataclass(frozen=True)
class Picture:
    """One picture: ``image`` is a data URI or "" without tomogram, ``outline`` an SVG path in crop pixels.

    ``at`` is the center in voxels, "z,y,x"; ``colour`` that of the outline, "" for the usual one.
    """

    particle_id: str
    caption: str
    image: str
    outline: str
    side: int
    at: str
    colour: str = ""


def choose(particles: pd.DataFrame, shown: int = _SHOWN) -> dict[str, pd.DataFrame]:
    """Choose the kept particles to show: best, typical, worst; no particle twice.

    Parameters
    ----------
    particles : DataFrame
        Columns ``score`` and ``dropped_by``.

    Returns
    -------
    dict
        Heading -> rows, best score first.
    """
    kept = particles[particles["dropped_by"] == ""].sort_values("score", ascending=False, kind="stable")
    if len(kept) <= shown:
        return {"All particles, the highest scores first": kept} if len(kept) else {}
    rest = kept.iloc[shown:]
    middle = rest.iloc[: max(len(rest) - shown, 0)]
    start = max((len(middle) - shown) // 2, 0)
    groups = {
        "Best: the highest scores": kept.head(shown),
        "Typical: around the median score": middle.iloc[start : start + shown],
        "Worst: the lowest scores that were kept": rest.tail(shown),
    }
    return {title: rows for title, rows in groups.items() if len(rows)}


def choose_by_class(particles: pd.DataFrame, classes: Iterable[str], shown: int = _SHOWN) -> dict[str, pd.DataFrame]:
    """Choose kept particles of each class, as far as it has any, at even steps from its highest score to its lowest."""
    kept = particles[particles["dropped_by"] == ""].sort_values("score", ascending=False, kind="stable")
    found = {}
    for name in classes:
        own = kept[kept["class"] == name]
        steps = np.linspace(0, len(own) - 1, min(shown, len(own))).round().astype(int)
        which = "all" if len(own) <= shown else f"{shown} of {len(own):,}"
        found[f"{name or 'No class'}: {which}, from the highest score to the lowest"] = own.iloc[steps]
    return found


def choose_taught(particles: pd.DataFrame, shown: int = _SHOWN) -> dict[str, pd.DataFrame]:
    """Choose by class score: of the kept particles the highest and the lowest, and the highest of those left out."""
    ranked = particles.sort_values("class_score", ascending=False, kind="stable")
    kept, left_out = ranked[ranked["dropped_by"] == ""], ranked[ranked["dropped_by"] == "class"]
    return {
        "Most like your examples: the highest class scores": kept.head(shown),
        "Just above the threshold: the lowest class scores that were kept": kept.iloc[shown:].tail(shown),
        "Just below the threshold: the highest class scores that were left out": left_out.head(shown),
    }


def crop_size(run: RunData, diameter_angstrom: float | None) -> int:
    """Return the side of a crop in voxels: two particle diameters, 24 to 96."""
    if diameter_angstrom is None:
        return 48
    voxels = 2 * diameter_angstrom / float(run.voxel_size_zyx[1:].mean())
    return int(np.clip(2 * round(voxels / 2), 24, 96))


def _window(center: float, side: int, length: int) -> tuple[slice, tuple[int, int]]:
    """Return the part of an axis inside the volume, and how much is missing before and after."""
    start = round(center) - side // 2
    inside = slice(min(max(start, 0), length), max(min(start + side, length), 0))
    return inside, (inside.start - start, side - (inside.start - start) - (inside.stop - inside.start))


def crop_picture(
    run: RunData,
    center_zyx_vox: np.ndarray,
    side: int,
    label: int,
    particle_id: str,
    caption: str,
    limits: tuple[float, float],
) -> Picture:
    """Cut the central slices of a particle (an average over an eighth of the crop) and its outline.

    What lies outside the volume is shown in mid grey. A center outside the volume gives an empty picture.
    """
    at = ",".join(f"{float(v):.2f}" for v in center_zyx_vox)
    volume = run.tomogram if run.tomogram is not None else run.instances
    if volume is None:
        return Picture(particle_id, caption, "", "", side, at)
    z = int(np.clip(round(float(center_zyx_vox[0])), 0, volume.shape[0] - 1))
    rows, pad_y = _window(float(center_zyx_vox[1]), side, volume.shape[1])
    columns, pad_x = _window(float(center_zyx_vox[2]), side, volume.shape[2])
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return Picture(particle_id, caption, "", "", side, at)
    image = ""
    if run.tomogram is not None:
        half = side // 16
        slab = run.tomogram[max(z - half, 0) : z + half + 1, rows, columns]
        grey = to_grey(np.asarray(slab, np.float32).mean(axis=0), limits)
        grey = np.pad(grey, (pad_y, pad_x), constant_values=128)
        image = "data:image/jpeg;base64," + base64.b64encode(jpeg(grey, 75)).decode("ascii")
    outline = ""
    if run.instances is not None and label > 0:
        mask = np.pad(np.asarray(run.instances[z, rows, columns]) == label, (pad_y, pad_x))
        outline = _svg_path(mask)
    return Picture(particle_id, caption, image, outline, side, at)


def _svg_path(mask: np.ndarray) -> str:
    """Trace a mask; pixel ``i`` has its middle at ``i + 0.5`` of the picture."""
    paths = []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        points = " ".join(f"{x - 0.5:.4g},{y - 0.5:.4g}" for y, x in contour)
        paths.append(f"M{points}Z")
    return "".join(paths)


def galleries(run: RunData, comparison: Comparison | None) -> list[dict[str, Any]]:
    """Return the picture groups of a run: ``title`` and ``pictures``; false and missed ones where truth is known."""
    if run.tomogram is None and run.instances is None:
        return []
    side = crop_size(run, _diameter_angstrom(run.particles))
    slab = (2 * (side // 16) + 1, 1, 1)
    limits = grey_range(run.tomogram, slab) if run.tomogram is not None else (0.0, 1.0)
    taught = run.record.inputs.settings.get("teach") is not None and "class_score" in run.particles
    by_class_score = choose_taught(run.particles) if taught else {}
    if run.classes:
        chosen = by_class_score | choose_by_class(run.particles, [*run.classes, ""])
    else:
        chosen = dict(by_class_score) or choose(run.particles)
    if comparison is not None:
        wrong = run.particles[comparison.outcome == "FP"].sort_values("score", ascending=False)
        chosen["False: found, but not in the truth"] = wrong.head(_SHOWN)
    found: list[dict[str, Any]] = []
    for title, rows in chosen.items():
        score = "class_score" if title in by_class_score else "score"
        pictures = [_row_picture(run, row, side, limits, score) for row in rows.to_dict("records")]
        colours = {picture["colour"] for picture in pictures}
        found.append({"title": title, "colour": colours.pop() if len(colours) == 1 else "", "pictures": pictures})
    if comparison is not None and run.tomogram is not None:
        misses = comparison.misses_zyx_vox
        picked = np.unique(np.linspace(0, max(len(misses) - 1, 0), 2 * _SHOWN).astype(int))[: len(misses)]
        missed = [asdict(crop_picture(run, misses[i], side, 0, "", f"missed {i + 1}", limits)) for i in picked]
        found.append({"title": "Missed: in the truth, but not found", "colour": "", "pictures": missed})
    return [group for group in found if group["pictures"]]


def _diameter_angstrom(particles: pd.DataFrame) -> float | None:
    volumes = particles["volume_angstrom3"].to_numpy(float)
    volumes = volumes[volumes > 0]
    return float((6 * np.median(volumes) / np.pi) ** (1 / 3)) if volumes.size else None


def _row_picture(
    run: RunData, row: dict[str, Any], side: int, limits: tuple[float, float], score: str
) -> dict[str, Any]:
    center = np.array([row["z_vox"], row["y_vox"], row["x_vox"]], float)
    caption = f"{row[score]:.2f}" + (f" dropped by {row['dropped_by']}" if row["dropped_by"] else "")
    picture = crop_picture(run, center, side, int(row["label"]), str(row["particle_id"]), caption, limits)
    return asdict(replace(picture, colour=run.classes.get(row["class"], "")))
