"""The picture of an evaluation: one slice, coloured as the report colours it, over the tomogram where it is known."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from custom_transforms.files.whole_files import atomic_path
from scripts.evaluation.pair import PairResult
from scripts.matching.overlap import paint
from scripts.records.detection import read_detection
from scripts.report.inputs import open_volume

__all__ = ["COLORS", "choose_slice", "color_volume", "recorded_slice", "write_picture"]

COLORS = {"TP": 1, "merged": 2, "split": 2, "FP": 3, "FN": 3}  # 0: background and what was left out

# as in scripts/report/page/base.js
_OUTCOMES = {
    "TP": ("right", "#5fe08a"),
    "merged": ("merged", "#ffb43d"),
    "split": ("split", "#c9a0ff"),
    "FP": ("false", "#ff5a6e"),
    "FN": ("missed", "#55c8ff"),
}
_CODES = {outcome: code for code, outcome in enumerate(_OUTCOMES, start=1)}


def color_volume(
    result: PairResult, predicted: np.ndarray, true: np.ndarray, colors: Mapping[str, int] = COLORS
) -> np.ndarray:
    """Colour two label volumes by their verdicts: 1 TP, 2 merged or split, 3 FP or FN, 0 the rest; int8."""
    if result.volumes is None or result.table is None:
        raise ValueError(f"{result.name}: expected two label volumes to colour, got a list")
    found, table = result.volumes, result.table
    true_colors, predicted_colors = (
        {int(label): colors.get(str(one), 0) for label, one in zip(particles.ids, status, strict=True)}
        for particles, status in (
            (table.true_particles, found.true_status),
            (table.predicted_particles, found.predicted_status),
        )
    )
    return paint(true, predicted, true_colors, predicted_colors)


def choose_slice(result: PairResult, depth: int) -> int:
    """Find the slice of the middle half that cuts most particles; of several the one nearest to the middle.

    At the faces of a volume lie the particles that are cut off, and the worst of the tomogram.
    """
    middle = (depth - 1) / 2
    slices = np.arange(depth // 4, depth - depth // 4)
    cut = np.zeros(len(slices), dtype=int)
    if result.table is not None:
        for particles in (result.table.true_particles, result.table.predicted_particles):
            radius = np.cbrt(3 * particles.voxels / (4 * np.pi))
            for z, reach in zip(particles.centers_zyx_vox[:, 0], radius, strict=True):
                cut += np.abs(slices - z) <= reach
    return int(slices[np.lexsort((slices, np.abs(slices - middle), -cut))[0]])


def recorded_slice(labels: Path | None, shape_zyx: tuple[int, ...], z: int) -> np.ndarray | None:
    """Read a slice of the tomogram that the record beside a detection's labels names; None where there is none.

    Only what can be read slice by slice, an MRC file of the labels' shape, is read.
    """
    record = None if labels is None else labels.with_name(labels.name.replace("_instances.mrc", ".json"))
    if record is None or record.suffix != ".json" or not record.is_file():
        return None
    try:
        tomogram = read_detection(record).inputs.tomogram.path
        if tomogram is None or not tomogram.endswith((".mrc", ".rec", ".map")) or not Path(tomogram).is_file():
            return None
        volume = open_volume(Path(tomogram))
    except (OSError, ValueError) as error:  # an evaluation does not need it
        warnings.warn(f"the picture is drawn without the tomogram: {error}", UserWarning, stacklevel=2)
        return None
    return None if volume.shape != shape_zyx else np.array(volume[z], dtype=np.float32)


def write_picture(
    path: Path, result: PairResult, predicted: np.ndarray, true: np.ndarray, labels: Path | None = None
) -> None:
    """Draw the slice of `choose_slice`, row 0 at the top as in the report.

    Parameters
    ----------
    path : path
        PNG.
    result : PairResult
        Of two label volumes.
    predicted, true : ndarray, shape (Z, Y, X)
        The labels.
    labels : path, optional
        The file of the predicted ones, beside which a detection's record names the tomogram.
    """
    z = choose_slice(result, len(true))
    section = color_volume(result, predicted[z : z + 1], true[z : z + 1], _CODES)[0]
    title = f"{result.name}, z = {z} of 0–{len(true) - 1}, row 0 at the top"
    _draw(path, section, recorded_slice(labels, true.shape, z), title)


def _draw(path: Path, section: np.ndarray, density: np.ndarray | None, title: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    height, width = section.shape
    grey = np.zeros(section.shape) if density is None else density
    finite = grey[np.isfinite(grey)]
    low, high = (0.0, 1.0) if density is None or not finite.size else np.percentile(finite, (0.3, 99.7))
    colors = np.array([(0, 0, 0), *(to_rgb(color) for _, color in _OUTCOMES.values())])
    overlay = np.dstack([colors[section], (section > 0) * (1.0 if density is None else 0.45)])
    figure = Figure(figsize=(8, max(2.0, 8 * height / width + 0.8)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(grey, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin="upper")
    axes.imshow(overlay, interpolation="nearest", origin="upper")
    axes.set(title=title, xlabel="x (voxels)", ylabel="y (voxels)")
    handles = [Patch(color=color, label=word) for word, color in _OUTCOMES.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
