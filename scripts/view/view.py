"""View: a detection in napari, to look, correct, and save the corrected picks for `prepare`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scripts.console import note, tell
from scripts.particles.csv_table import particles_from_table, table_text
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.plausible import check_positions
from scripts.report.inputs import NO_CLASS_COLOUR, RunData, load_run
from scripts.sources.detections import one_detection
from scripts.view.files import particle_diameters, write_view_files
from scripts.view.picks import (
    curated_table,
    new_points_are_unknown,
    read_picks,
    reclassify_particle,
    save_picks,
    toggle_particle,
)

__all__ = ["add_layers", "bind", "view"]

PARTICLES = "particles"


def view(
    run_dir: str,
    tomogram: str | None = None,
    output: str | None = None,
    files: bool = False,
    restart: bool = False,
    teach: str | None = None,
) -> None:
    """Look at a detection in napari, correct its centers, and save them as a list that prepare takes.

    Double-click a center to delete it, double-click elsewhere to add one; W (or closing the window after a change)
    saves the picks. In the 3D view nothing is changed. Picks that were saved before are shown again. Several classes
    have a layer each: a new center is of the layer that is selected, and C gives that class to the center under the
    pointer.

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
    teach : str
        List of examples: asks about the candidates that are least sure to be of their class. Y yes, N no, U next,
        B back; each answer is saved at once in RUN_DIR/TOMOGRAM_examples.csv or _counter_examples.csv, for teach.
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
    if teach is not None:
        _view_questions(napari, run.prefix, tomogram, teach, restart)
        return
    viewer = napari.Viewer(title=f"{run.name}: double-click adds or deletes a center, W saves")
    picks = read_picks(target) if target.exists() and not restart else None
    if picks is not None:
        placed = particles_from_table(picks, TomogramContext(voxel_size_zyx=run.voxel_size_zyx), target)
        check_positions(placed, str(target), run.voxel_size_zyx, run.shape_zyx)
    layers = add_layers(viewer, run, picks)
    before, content = curated_table(layers, run), _content(target)
    bind(viewer, layers, run, target)
    napari.run()
    after = curated_table(layers, run)
    changed = not after.equals(before) or _content(target) != content  # W saved what may have been taken back since
    if changed and _content(target) != table_text(after):
        save_picks(after, target)
    saved = [target] if target.exists() else []
    tell(str(target) if saved else f"{run.name}: nothing was changed", written=saved)


def _view_questions(napari: Any, run: Path, tomogram: str | None, teach: str, restart: bool) -> None:
    from scripts.teach.candidates import open_candidates  # seconds to import, because of MONAI
    from scripts.teach.questions import open_questions
    from scripts.view.questions import bind_questions

    questions = open_questions(open_candidates(run, tomogram), teach, restart)
    viewer = napari.Viewer()
    for layer in add_layers(viewer, questions.candidates.run):
        layer.visible = False
    bind_questions(viewer, questions)
    napari.run()
    saved = [path for path in questions.files.values() if questions.answered and path.is_file()]
    tell(f"{questions.candidates.name}: {questions.answered} answered", written=saved)


def add_layers(viewer: Any, run: RunData, picks: pd.DataFrame | None = None) -> list[Any]:
    """Add tomogram, labels, dropped and kept particles to a napari viewer, all in Å from the first voxel.

    Parameters
    ----------
    viewer : napari Viewer or ViewerModel
    run : RunData
    picks : DataFrame, optional
        Takes the place of the run's kept particles.

    Returns
    -------
    list of napari Points layers
        The kept particles, sized by their volume: one layer, coloured by their score, or one for each class.
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
    kept = table[~gone] if picks is None else picks
    layers = [_particle_layer(viewer, run, kept, name) for name in _classes(run, kept)]
    opened = {i: name for layer in layers for i, name in layer.features[["particle_id", "class"]].to_numpy()}
    for layer in layers:
        layer.metadata["opened"] = opened  # the class of each particle before anything was corrected
    if run.tomogram is not None or run.instances is not None:
        viewer.dims.set_point(range(3), np.array(run.shape_zyx) // 2 * np.array(scale))
    return layers


def _classes(run: RunData, kept: pd.DataFrame) -> Sequence[str | None]:
    """The classes that have a layer each; without several, None for the layer of all."""
    there = set(kept["class"].fillna("").astype(str)) if "class" in kept else set()
    return [*run.classes, *sorted(there - set(run.classes))] if run.classes else [None]


def _particle_layer(viewer: Any, run: RunData, kept: pd.DataFrame, name: str | None) -> Any:
    """Add the layer of a class, or of all particles (None)."""
    own = kept if name is None else kept[kept["class"].fillna("").astype(str) == name]
    shown = _points(own, run)
    colours: dict[str, Any] = {"border_color": "score", "border_colormap": "plasma"} if len(own) else {}
    if name is not None:
        colours = {"border_color": run.classes.get(name, NO_CLASS_COLOUR)}
    layer = viewer.add_points(
        **shown,
        name=PARTICLES if name is None else name or "no class",
        scale=tuple(map(float, run.voxel_size_zyx)),
        face_color="transparent",
        border_width=0.1,
        metadata={"class": name},
        **colours,
    )
    _show_cross_sections(viewer, layer)
    new_points_are_unknown(layer)
    return layer


def bind(viewer: Any, layers: Sequence[Any], run: RunData, target: Path) -> None:
    """Connect double-clicks and the keys W and C of a viewer to the particles' layers."""
    viewer.mouse_double_click_callbacks.clear()  # napari zooms on a double-click

    @viewer.mouse_double_click_callbacks.append
    def _toggle(viewer: Any, event: Any) -> None:
        if viewer.dims.ndisplay == 2:
            toggle_particle(layers, event.position, viewer.layers.selection.active)

    @viewer.bind_key("w", overwrite=True)
    def _save(viewer: Any) -> None:
        save_picks(curated_table(layers, run), target)
        viewer.status = f"saved {target}"

    @viewer.bind_key("c", overwrite=True)
    def _reclassify(viewer: Any) -> None:
        chosen = viewer.layers.selection.active
        if viewer.dims.ndisplay == 2 and any(chosen is layer for layer in layers):
            reclassify_particle(layers, viewer.cursor.position, chosen)


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
    reach = np.maximum(reach, viewer.dims.margin_left)  # of the layers before
    viewer.dims.margin_left = viewer.dims.margin_right = tuple(map(float, reach))


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
