"""The top of the page: what was found and how sure it is, in plain sentences, and what deserves a second look."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from scripts.report.inputs import NO_CLASS_COLOUR, RunData

__all__ = ["cards", "checks", "class_rows", "dropped_rows", "sentences", "split_kept"]


_REASONS = {
    "size": "smaller than the minimum size",
    "neighbors": "with too few neighbours",
    "exclude": "in an excluded place",
    "edge": "near a face of the tomogram",
    "membrane": "by the distance from the membrane",
    "no_mask": "centers without a mask around them: is mask_threshold too high, or MaskNet not trained on such?",
}


def split_kept(particles: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the kept particles and the ones a filter dropped."""
    kept = (particles["dropped_by"] == "").to_numpy()
    return particles[kept], particles[~kept]


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _voxel_text(run: RunData) -> str:
    sizes = run.voxel_size_zyx
    if np.ptp(sizes) <= 0.01 * sizes.min():
        return f"{sizes.mean():.4g} Å per voxel"
    return " × ".join(f"{s:.4g}" for s in sizes[::-1]) + " Å per voxel (x × y × z)"


def sentences(run: RunData) -> list[str]:
    """Say how many particles there are, how sure they are and what was dropped; one sentence each."""
    kept, dropped = split_kept(run.particles)
    shape = run.shape_zyx
    where = f"{shape[2]} × {shape[1]} × {shape[0]} voxels (x × y × z), "
    lines = [f"{_count(len(kept), 'particle')} found in {run.name}: {where}{_voxel_text(run)}."]
    if len(kept):
        scores = kept["score"]
        median = scores.median()
        level = "high" if median >= 0.6 else "medium" if median >= 0.35 else "low"
        lines.append(
            f"The scores are {level}: the median is {median:.2f} on a scale from 0 (a guess) to 1 (certain); "
            f"{100 * np.mean(scores >= 0.5):.0f} % of the particles score 0.5 or more. "
            "Scores say nothing about particles that were missed."
        )
    classes = kept["class"].replace("", "no class").value_counts()
    if not run.classes and set(classes.index) - {"no class"}:  # several have a table
        lines.append(f"By class: {', '.join(f'{n:,} {name}' for name, n in classes.items())}.")
    if len(dropped):
        reasons = dropped["dropped_by"].value_counts()
        listed = ", ".join(f"{n:,} {_REASONS.get(str(reason), reason)}" for reason, n in reasons.head(6).items())
        lines.append(f"{_count(len(dropped), 'candidate')} did not pass the filters: {listed}.")
    return lines


def cards(run: RunData, neighbor_distance_angstrom: np.ndarray) -> list[dict[str, str]]:
    """Return the few big numbers: ``label``, ``value`` and an explaining ``hint`` each."""
    kept, dropped = split_kept(run.particles)
    found = [{"label": "particles", "value": f"{len(kept):,}", "hint": "kept after all filters"}]
    if len(kept):
        median = kept["score"].median()
        found.append({"label": "median score", "value": f"{median:.2f}", "hint": "0 a guess, 1 certain"})
        diameter = (6 * kept["volume_angstrom3"].median() / np.pi) ** (1 / 3)
        hint = "of a ball with the median volume"
        found.append({"label": "diameter", "value": f"{diameter:.0f} Å", "hint": hint})
    finite = neighbor_distance_angstrom[np.isfinite(neighbor_distance_angstrom)]
    if finite.size:
        hint = "median, center to center"
        found.append({"label": "nearest neighbour", "value": f"{np.median(finite):.0f} Å", "hint": hint})
    if len(kept):
        hint = "cut off by the edge of the volume"
        found.append({"label": "at the border", "value": f"{100 * kept['touches_border'].mean():.0f} %", "hint": hint})
    found.append({"label": "dropped", "value": f"{len(dropped):,}", "hint": "candidates that a filter removed"})
    return found


def checks(run: RunData) -> list[dict[str, str]]:
    """Return what deserves a second look: ``title`` and ``text`` each, empty when all is well."""
    kept, _ = split_kept(run.particles)
    found = [
        *_nothing_found(run, kept),
        *_voxel_size(run),
        *_contrast(run),
        *_border(kept),
        *_dropped(run, kept),
        *_gold(kept),
        *_low_scores(kept),
    ]
    return found + [_check("Noted while it ran", text) for text in run.record.warnings]


def _check(title: str, text: str) -> dict[str, str]:
    return {"title": title, "text": text}


def _nothing_found(run: RunData, kept: pd.DataFrame) -> list[dict[str, str]]:
    if len(kept):
        return []
    candidates = len(run.particles)
    if candidates:
        text = f"All {candidates:,} candidates were dropped by the filters below. Loosen those filters and run again."
        return [_check("Every candidate was dropped", text)]
    text = (
        "The result is empty but valid. Check the contrast (is protein dark in this tomogram?), the voxel size and the "
        "particle diameter; then lower center_threshold or mask_threshold."
    )
    return [_check("Nothing was found", text)]


def _voxel_size(run: RunData) -> list[dict[str, str]]:
    sizes, found = run.voxel_size_zyx, []
    if np.allclose(sizes, 1.0) or sizes.min() < 1.5 or sizes.max() > 50:
        text = f"{_voxel_text(run)} is unusual for a tomogram (commonly 4 to 20 Å). Check the header or --voxel_size."
        found.append(_check("Odd voxel size", text))
    if np.ptp(sizes) > 0.01 * sizes.min():
        text = f"{_voxel_text(run)}. This is handled, but unusual: check the header."
        found.append(_check("Voxels are not cubes", text))
    return found


def _contrast(run: RunData) -> list[dict[str, str]]:
    """Compare the grey values inside and outside the particles on a coarse grid of voxels."""
    if run.tomogram is None or run.instances is None:
        return []
    step = max(1, round((run.tomogram.size / 2_000_000) ** (1 / 3)))
    inside = np.asarray(run.instances[::step, ::step, ::step]) > 0
    values = np.asarray(run.tomogram[::step, ::step, ::step], dtype=np.float32)
    if inside.sum() < 50 or (~inside).sum() < 50:
        return []
    spread = float(values.std())
    difference = float(values[inside].mean() - values[~inside].mean()) / spread if spread > 0 else 0.0
    dark = run.record.contrast != "bright"
    if (difference > 0.1) != dark or abs(difference) < 0.1:
        return []
    seen, told = ("brighter", "dark") if dark else ("darker", "bright")
    text = (
        f"Found particles are {seen} than their surroundings, although the run was told that protein is {told}. "
        f"Run again with --contrast {'bright' if dark else 'dark'} and compare."
    )
    return [_check("The contrast looks inverted", text)]


def _border(kept: pd.DataFrame) -> list[dict[str, str]]:
    if len(kept) < 10 or (share := kept["touches_border"].mean()) < 0.2:
        return []
    text = (
        f"{100 * share:.0f} % of the particles touch the border of the volume and are cut off: their centers and "
        "volumes are less exact."
    )
    return [_check("Many particles touch the border", text)]


def _dropped(run: RunData, kept: pd.DataFrame) -> list[dict[str, str]]:
    rows = [row for row in dropped_rows(run) if row["reason"] != "class"]  # a choice, and no filter
    count, candidates = sum(row["count"] for row in rows), len(run.particles)
    if candidates < 10 or kept.empty or count <= 0.1 * candidates:
        return []
    listed = ", ".join(
        f"{row['reason']} {row['count']:,}" + (f" ({row['meaning']})" if row["meaning"] else "") for row in rows[:6]
    )
    text = (
        f"{count:,} of {candidates:,} candidates ({100 * count / candidates:.0f} %): {listed}. Show them in the slices "
        "(dropped candidates); if they are particles, loosen that filter and run again."
    )
    return [_check("Many candidates were dropped", text)]


def _gold(kept: pd.DataFrame) -> list[dict[str, str]]:
    if "flags" not in kept.columns:
        return []
    beads = int(kept["flags"].map(lambda flags: "gold" in str(flags).split(",")).sum())
    if not beads:
        return []
    verb = "holds" if beads == 1 else "hold"
    text = (
        f"{beads:,} of {_count(len(kept), 'particle')} {verb} what looks like a gold bead; search the table for gold."
    )
    return [_check("Gold beads among the particles", text)]


def _low_scores(kept: pd.DataFrame) -> list[dict[str, str]]:
    if len(kept) < 10 or (median := kept["score"].median()) >= 0.3:
        return []
    text = f"The median score is only {median:.2f}. Check some particles by eye before using the list."
    return [_check("Low scores", text)]


def class_rows(run: RunData) -> list[dict[str, Any]]:
    """Return one row per class, in their order, then of those without: counts, median scores, the usual runner-up.

    Without classes, or of one alone, there is none.
    """
    kept, dropped = split_kept(run.particles)
    rows = []
    for name, colour in ({**run.classes, "": NO_CLASS_COLOUR} if run.classes else {}).items():
        own, gone = kept[kept["class"] == name], int((dropped["class"] == name).sum())
        row = {"name": name, "colour": colour, "kept": len(own), "dropped": gone, "score": own["score"].median()}
        row["class_score"] = own["class_score"].median() if "class_score" in own else np.nan
        seconds = own["runner_up"].mode() if "runner_up" in own else []
        rows.append(row | {"runner_up": seconds[0] if len(seconds) else ""})
    return [row for row in rows if row["name"] or row["kept"] or row["dropped"]]


def dropped_rows(run: RunData) -> list[dict[str, Any]]:
    """Return one row per reason in ``dropped_by``: meaning, count, median score and median volume."""
    _, dropped = split_kept(run.particles)
    rows = []
    for reason, group in dropped.groupby("dropped_by", sort=False):
        row: dict[str, Any] = {"reason": reason, "meaning": _REASONS.get(str(reason), ""), "count": len(group)}
        rows.append(row | {column: float(group[column].median()) for column in ("score", "volume_angstrom3")})
    return sorted(rows, key=lambda row: -row["count"])
