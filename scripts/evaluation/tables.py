"""`metrics.csv` and `matches.csv`: one row per tomogram and class, one row per particle with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scripts.evaluation.pair import PairResult

__all__ = ["matches_table", "metrics_table"]

_POINT_COLUMNS = ("precision", "recall", "f1", "f_beta", "average_precision", "mean_center_error_angstrom")
_VOLUME_COLUMNS = ("precision", "recall", "f1", "merged_rate", "split_rate", "panoptic_quality")
_POINT_COUNTS = ("tp", "fp", "fn", "n_true", "n_predicted")
_VOLUME_COUNTS = ("tp", "merged", "split", "fp", "fn", "n_true", "n_predicted")


def metrics_table(summary: dict[str, Any]) -> pd.DataFrame:
    """Flatten a summary (`scripts.evaluation.summary.summarise`): a row per tomogram and class, "all" for both.

    Columns: tomogram, class, points_*, and volume_* where volumes were compared.
    """
    rows = []
    blocks = {**summary["tomograms"], "all": {**summary["pooled"], "classes": summary["classes"]}}
    for tomogram, block in blocks.items():
        for class_name, scores in (("all", block), *block["classes"].items()):
            row = {"tomogram": tomogram, "class": class_name}
            row.update({f"points_{name}": scores["points"][name] for name in (*_POINT_COLUMNS, *_POINT_COUNTS)})
            if "volume" in scores:
                row.update({f"volume_{name}": scores["volume"][name] for name in (*_VOLUME_COLUMNS, *_VOLUME_COUNTS)})
            rows.append(row)
    return pd.DataFrame(rows)


def matches_table(results: Sequence[PairResult]) -> pd.DataFrame:
    """What became of every particle, true ones first.

    ``outcome`` and ``reason`` are those of the volumes where volumes were compared, else of the centers; ``true_label``
    and ``predicted_label`` are the particle and what it matched (0: nothing). ``point_outcome``, ``point_partner`` and
    ``distance_angstrom`` always speak of the centers.
    """
    tables = [side for r in results for side in (_rows(r, "true"), _rows(r, "predicted"))]
    return pd.concat(tables, ignore_index=True)


def _rows(result: PairResult, side: str) -> pd.DataFrame:
    true_side = side == "true"
    own, other = (result.true, result.predicted) if true_side else (result.predicted, result.true)
    verdicts = result.points
    status = verdicts.true_status if true_side else verdicts.predicted_status
    partner = verdicts.true_partner if true_side else verdicts.predicted_partner
    matched = partner >= 0
    distance = np.full(len(own), np.nan)
    distance[matched] = verdicts.distance[partner[matched]] if true_side else verdicts.distance[matched]
    partner_label = np.zeros(len(own), np.int64)
    partner_label[matched] = other.label[partner[matched]]
    table = pd.DataFrame(
        {"tomogram": result.name, "side": side, "true_label": 0, "predicted_label": 0}, index=range(len(own))
    )
    mine, theirs = ("true_label", "predicted_label") if true_side else ("predicted_label", "true_label")
    table[mine], table[theirs] = own.label, partner_label
    table["class"] = own.class_name
    table["outcome"] = status
    table["reason"] = [_point_reason(s, side) for s in status]
    table["iou"] = np.nan
    table[["x_angstrom", "y_angstrom", "z_angstrom"]] = own.centers_xyz_angstrom
    table["score"] = own.score
    table["diameter_angstrom"] = own.diameter_angstrom
    table["touches_border"] = own.touches_border
    table["point_outcome"], table["point_partner"], table["distance_angstrom"] = status, partner_label, distance
    return table if result.volumes is None else _with_volumes(table, result, side, mine, theirs)


def _with_volumes(table: pd.DataFrame, result: PairResult, side: str, mine: str, theirs: str) -> pd.DataFrame:
    """Put the volume verdict into every row whose label is in the volume; add rows for labels no list names."""
    found, overlaps = result.volumes, result.table
    if found is None or overlaps is None:
        return table
    true_side = side == "true"
    particles = overlaps.true_particles if true_side else overlaps.predicted_particles
    verdict = pd.DataFrame(
        {
            mine: particles.ids,
            "outcome": found.true_status if true_side else found.predicted_status,
            theirs: found.true_match if true_side else found.predicted_match,
            "iou": found.true_iou if true_side else found.predicted_iou,
            "volume_vox": particles.voxels,
        }
    )
    verdict["reason"] = [_volume_reason(o, side, m) for o, m in zip(verdict["outcome"], verdict[theirs], strict=True)]
    rest = table.drop(columns=["outcome", "reason", "iou", theirs])
    merged = rest.merge(verdict, on=mine, how="outer")
    merged = merged.assign(tomogram=result.name, side=side)
    unlabelled = merged["outcome"].isna()  # in the list, but without a voxel in the volume
    merged.loc[unlabelled, "outcome"] = merged.loc[unlabelled, "point_outcome"]
    merged.loc[unlabelled, theirs] = merged.loc[unlabelled, "point_partner"]
    merged.loc[unlabelled, "reason"] = "no voxel in the volume; judged by its center"
    merged[theirs] = merged[theirs].astype(np.int64)
    columns = [*table.columns, "volume_vox"]
    return merged.reindex(columns=columns)


def _point_reason(status: str, side: str) -> str:
    if status == "TP":
        return "centers matched"
    if status == "ignored":
        return "in an ignored region or at the border"
    return "no free predicted center near enough" if side == "true" else "no free true center near enough"


def _volume_reason(status: str, side: str, match: int) -> str:
    other = "predicted" if side == "true" else "true"
    if status == "TP":
        return f"each other's main overlap with {other} {match}"
    if status == "merged":
        return (
            f"shares predicted {match} with other true particles"
            if side == "true"
            else "covers two or more true particles"
        )
    if status == "split":
        return (
            "divided between two or more predicted particles"
            if side == "true"
            else f"one of several pieces of true {match}"
        )
    if status == "ignored":
        return "in an ignored region or at the border"
    return (
        "background covers most of it" if match == 0 else f"{other} {match} covers most of it, but belongs to another"
    )
