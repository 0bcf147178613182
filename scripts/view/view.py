"""View: a detection in napari, to look, correct, and save the corrected picks for `prepare`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scripts.console import note, tell
from scripts.particles.csv_table import particles_from_table, plain_text, table_text
from scripts.particles.shared.context import TomogramContext, tomogram_base_name
from scripts.particles.shared.format import write_text
from scripts.particles.shared.plausible import check_positions
from scripts.report.inputs import RunData, load_run
from scripts.sources.detections import one_detection
from scripts.view.files import particle_diameters, write_view_files

__all__ = ["add_layers", "curated_table", "save_picks", "toggle_particle", "view"]

PARTICLES = "particles"


def view(
    run_dir: str, tomogram: str | None = None, output: str | None = None, files: bool = False, restart: bool = False
) -> None:
    """Look at a detection in napari, correct its centers, and save them as a list that prepare takes.

    Double-click a center to delete it, double-click elsewhere to add one; W (or closing the window after a change)
    saves the picks. In the 3D view nothing is changed. Picks that were saved before are shown again.

    example: python -m scripts view detections/TS_01

    Parameters
    ----------
    run_dir : str
        The folder of one tomogram that detect wrote.
    tomogram : str
        The tomogram, if it is not any more where detect read it.
    output : str
        Where the picks are saved; by default RUN_DIR/TOMOGRAM_curated.csv.
    files : bool
        Open nothing; write scripts for ChimeraX and ArtiaX and an IMOD model beside the other files.
    restart : bool
        Begin with the detected centers, although corrected ones were saved before.
    """
    run = load_run(one_detection(run_dir), tomogram=tomogram)
    target = Path(os.path.expanduser(output)) if output else run.prefix.with_name(f"{run.name}_curated.csv")
    if files:
        source = tomogram or run.record.inputs.tomogram.path
        for path in write_view_files(run.prefix, run.particles, run.voxel_size_zyx, run.shape_zyx, source):
            tell(str(path), written=[path])
        return
    napari = _import_napari()
    for text in run.notes:
        note(text)
    viewer = napari.Viewer(title=f"{run.name}: double-click adds or deletes a center, W saves")
    picks = read_picks(target) if target.exists() and not restart else None
    if picks is not None:
        placed = particles_from_table(picks, TomogramContext(voxel_size_zyx=run.voxel_size_zyx), target)
        check_positions(placed, str(target), run.voxel_size_zyx, run.shape_zyx)
    layer = add_layers(viewer, run, picks)
    before, content = curated_table(layer, run), _content(target)
    bind(viewer, layer, run, target)
    napari.run()
    after = curated_table(layer, run)
    changed = not after.equals(before) or _content(target) != content  # W saved what may have been taken back since
    if changed and _content(target) != table_text(after):
        save_picks(after, target)
    saved = [target] if target.exists() else []
    tell(str(target) if saved else f"{run.name}: nothing was changed", written=saved)


def add_layers(viewer: Any, run: RunData, picks: pd.DataFrame | None = None) -> Any:
    """Add tomogram, labels, dropped and kept particles to a napari viewer, all in Å from the first voxel.

    Parameters
    ----------
    viewer : napari Viewer or ViewerModel
    run : RunData
    picks : DataFrame, optional
        Takes the place of the run's kept particles.

    Returns
    -------
    napari Points layer
        The kept particles: sized by their volume, coloured by their score.
    """
    scale = tuple(map(float, run.voxel_size_zyx))
    if run.tomogram is not None:
        low, high = _contrast(run.tomogram)
        layer = viewer.add_image(run.tomogram, name=run.name, scale=scale, colormap="gray", contrast_limits=(low, high))
        layer.projection_mode = "none"  # one slice, not the mean of those that a particle reaches
    if run.instances is not None:
        labels = run.instances if run.instances.dtype.kind in "iu" else run.instances.astype(np.int32)
        viewer.add_labels(labels, name="instances", scale=scale, opacity=0.4)
    table = run.particles
    gone = (table["dropped_by"] != "").to_numpy()
    if gone.any():
        shown = _points(table[gone], run, extra=("dropped_by",))
        viewer.add_points(**shown, name="dropped", scale=scale, visible=False, face_color="transparent")
    shown = _points(table[~gone] if picks is None else picks, run)
    colours = {"border_color": "score", "border_colormap": "plasma"} if len(shown["data"]) else {}
    rings = {"face_color": "transparent", "border_width": 0.1}
    layer = viewer.add_points(**shown, name=PARTICLES, scale=scale, **rings, **colours)
    _show_cross_sections(viewer, layer)
    _new_points_are_unknown(layer)
    if run.tomogram is not None or run.instances is not None:
        viewer.dims.set_point(range(3), np.array(run.shape_zyx) // 2 * np.array(scale))
    return layer


def bind(viewer: Any, layer: Any, run: RunData, target: Path) -> None:
    """Connect double-clicks and the key W of a viewer to the particles' layer."""
    viewer.mouse_double_click_callbacks.clear()  # napari zooms on a double-click

    @viewer.mouse_double_click_callbacks.append
    def _toggle(viewer: Any, event: Any) -> None:
        if viewer.dims.ndisplay == 2:
            toggle_particle(layer, event.position)

    @viewer.bind_key("w", overwrite=True)
    def _save(viewer: Any) -> None:
        save_picks(curated_table(layer, run), target)
        viewer.status = f"saved {target}"


def toggle_particle(layer: Any, position_angstrom: Sequence[float]) -> bool:
    """Delete the particle whose sphere holds a position (Å; Z, Y, X), the nearest of several; or add one there.

    Returns
    -------
    bool
        True if a particle was added.
    """
    position = np.asarray(position_angstrom, dtype=float)[-3:]
    scale = np.asarray(layer.scale)[-3:]
    centers = np.asarray(layer.data).reshape(-1, 3) * scale
    distances = np.linalg.norm(centers - position, axis=1)
    radii = np.asarray(layer.size, dtype=float).reshape(-1) / 2 * scale.max()
    hit = np.flatnonzero(distances <= radii)
    if hit.size:
        layer.selected_data = {int(hit[np.argmin(distances[hit])])}
        layer.remove_selected()
        _new_points_are_unknown(layer)
        return False
    layer.selected_data = set()
    _new_points_are_unknown(layer)
    layer.add([position / scale])
    layer.selected_data = set()
    return True


def curated_table(layer: Any, run: RunData) -> pd.DataFrame:
    """The particles as they are in the layer now, as a table that every reader here takes.

    ``origin`` says where each comes from: detected, moved or added; deleted ones are not there.
    """
    data = np.asarray(layer.data, dtype=float).reshape(-1, 3)
    features = layer.features.reset_index(drop=True)
    ids = pd.to_numeric(features["particle_id"], errors="coerce").fillna(0).astype(int).to_numpy()
    ids = np.where(pd.Series(ids).duplicated(), 0, ids)  # napari gives a new point the features of a selected one
    known = run.particles.set_index("particle_id")
    table = pd.DataFrame({"particle_id": ids})
    new = ids == 0
    highest = max([0, *ids, *known.index])
    table.loc[new, "particle_id"] = np.arange(1, new.sum() + 1) + highest
    table["class"] = np.where(new, "", features["class"].astype(str))
    for axis, name in enumerate("xyz"):
        table[f"{name}_vox"] = data[:, 2 - axis].round(4)
        table[f"{name}_angstrom"] = (data[:, 2 - axis] * run.voxel_size_zyx[2 - axis]).round(4)
    table["score"] = np.where(new, np.nan, pd.to_numeric(features["score"], errors="coerce"))
    table["tomogram"] = tomogram_base_name(run.name)
    table["origin"] = "added"
    old = table["particle_id"].isin(known.index).to_numpy() & ~new
    before = known.loc[table.loc[old, "particle_id"], ["z_vox", "y_vox", "x_vox"]].to_numpy(float)
    moved = (np.abs(before - data[old]) > 1e-3).any(axis=1)
    table.loc[old, "origin"] = np.where(moved, "moved", "detected")
    return table


def save_picks(table: pd.DataFrame, path: str | Path) -> Path:
    """Write curated picks as CSV, whole or not at all."""
    write_text(path, table_text(table))
    return Path(path)


def read_picks(path: str | Path) -> pd.DataFrame:
    """Read what `save_picks` wrote."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such picks. Check the path.")
    table = pd.read_csv(path, dtype={"class": str})
    missing = [name for name in ("particle_id", "z_vox", "y_vox", "x_vox") if name not in table]
    if missing:
        raise ValueError(f"{path}: expected picks as view saves them, the column {missing[0]} is missing.")
    return table.map(plain_text)


def _points(table: pd.DataFrame, run: RunData, extra: Sequence[str] = ()) -> dict[str, Any]:
    """What napari's add_points takes, in voxels (the layer's scale makes Å of them)."""
    default = float(np.median(particle_diameters(run.particles, 0.0))) if len(run.particles) else 0.0
    diameters = particle_diameters(table, default or 10 * float(run.voxel_size_zyx.mean()))
    features = pd.DataFrame(
        {
            "particle_id": table["particle_id"].to_numpy(int),
            "score": pd.to_numeric(table["score"], errors="coerce").to_numpy(float) if "score" in table else np.nan,
            "class": table["class"].fillna("").astype(str).to_numpy() if "class" in table else "",
            "diameter_angstrom": diameters.round(1),
            **{name: table[name].to_numpy() for name in extra},
        },
        index=range(len(table)),
    )
    voxel = float(np.mean(run.voxel_size_zyx))
    size = diameters / voxel if len(table) else default / voxel or 10.0
    return {"data": table[["z_vox", "y_vox", "x_vox"]].to_numpy(float), "features": features, "size": size, "ndim": 3}


def _show_cross_sections(viewer: Any, layer: Any) -> None:
    """Draw each particle as the circle that its sphere leaves in the slice shown."""
    try:
        layer.projection_mode = "rescale_spherical"
    except ValueError:  # napari before 0.7
        layer.out_of_slice_display = True
        return
    reach = np.max(layer.size, initial=layer.current_size) / 2 * np.asarray(layer.scale)
    viewer.dims.margin_left = viewer.dims.margin_right = tuple(map(float, reach))


def _new_points_are_unknown(layer: Any) -> None:
    """napari gives a new point the features and size of the last or selected one: say that it has none."""
    sizes = np.asarray(layer.size).ravel()
    layer.feature_defaults = {"particle_id": 0, "score": np.nan, "class": "", "diameter_angstrom": np.nan}
    if sizes.size:
        layer.current_size = float(np.median(sizes))


def _contrast(volume: np.ndarray) -> tuple[float, float]:
    step = tuple(slice(None, None, max(1, side // 64)) for side in volume.shape)
    low, high = np.percentile(np.asarray(volume[step], dtype=np.float32), (0.5, 99.5))
    return float(low), float(max(high, low + 1e-6))


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _import_napari() -> Any:
    try:
        import napari
    except ImportError as error:
        raise ImportError(
            "view needs the optional package napari: pip install 'napari[pyqt6]'. Without it, --files writes scripts "
            "for ChimeraX and IMOD."
        ) from error
    return napari
