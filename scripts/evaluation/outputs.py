"""The files of an evaluation: JSON, tables, coloured volumes and slice pictures, each whole or not there."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from custom_transforms.files.json_object import to_json
from custom_transforms.files.whole_files import atomic_path
from custom_transforms.volumes.mrc_write import write_mrc
from scripts.console import user_message
from scripts.evaluation.pair import PairResult
from scripts.evaluation.picture import color_volume, write_picture
from scripts.evaluation.tables import matches_table, metrics_table
from scripts.particles.csv_table import table_text

__all__ = ["write_coloured", "write_tables"]


def write_tables(output_dir: Path, summary: dict[str, Any], results: Sequence[PairResult]) -> list[Path]:
    """Write metrics.json, metrics.csv and matches.csv; returns their paths."""
    texts = {
        "metrics.json": json.dumps(to_json(summary), indent=2, allow_nan=False) + "\n",
        "metrics.csv": table_text(metrics_table(summary)),
        "matches.csv": table_text(matches_table(results), float_format="%.6g"),
    }
    for name, text in texts.items():
        with atomic_path(output_dir / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [output_dir / name for name in texts]


def write_coloured(
    output_dir: Path, result: PairResult, predicted: np.ndarray, true: np.ndarray, labels: Path | None = None
) -> list[Path]:
    """Write ``<tomogram>_evaluation.mrc`` and the picture of one of its slices; see `write_picture` for ``labels``.

    What cannot be written is a warning: the numbers are whole without it.
    """
    painted = color_volume(result, predicted, true)
    volume_path, picture_path = (output_dir / f"{result.name}_evaluation{ending}" for ending in (".mrc", ".png"))
    size = np.ones(3) if result.voxel_size_zyx is None else result.voxel_size_zyx
    try:
        write_mrc(volume_path, painted, size)
        write_picture(picture_path, result, predicted, true, labels)
    except Exception as error:
        warnings.warn(f"{result.name}: not shown in colour: {user_message(error)}", UserWarning, stacklevel=2)
    return [path for path in (volume_path, picture_path) if path.is_file()]
