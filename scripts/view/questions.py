"""Questions in a viewer: a ring around the candidate that is asked about, and a key for each answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from scripts.teach.examples import OTHER
from scripts.teach.questions import Questions

__all__ = ["bind_questions"]

SHOWN = 8  # particle diameters across the view
PIXELS = 600  # of a usual window


def bind_questions(viewer: Any, questions: Questions) -> Any:
    """Show the candidate that is asked about, and connect Y, N, U and, for several classes, their numbers.

    Returns
    -------
    napari Points layer
        It holds that candidate, or nothing when all are answered.
    """
    candidates = questions.candidates
    diameter = float(candidates.settings["particle_diameter"])
    scale = np.asarray(candidates.run.voxel_size_zyx, float)
    layer = viewer.add_points(
        np.zeros((0, 3)), ndim=3, name="question", scale=tuple(scale), size=1.5 * diameter / scale.mean(),
        face_color="transparent", border_color="yellow", border_width=0.05,
    )  # fmt: skip

    def show() -> None:
        layer.data = np.zeros((0, 3))
        if questions.row is None:
            viewer.title = viewer.status = "every candidate is answered"
            return
        row = candidates.table.iloc[questions.row]
        center = row[["z_vox", "y_vox", "x_vox"]].to_numpy(float)
        layer.add([center])
        layer.selected_data = set()
        viewer.dims.set_point(range(3), center * scale)
        viewer.camera.center = tuple(center * scale)
        several = ", ".join(f"{number} {name}" for number, name in enumerate(questions.classes, 1))
        viewer.title = (
            f"{candidates.name}: is it {questions.name} ({questions.scores[questions.row]:.2f})? Y yes, N no, U unsure"
            + (f", {several}" if len(questions.classes) > 1 else "")
            + f"; {questions.answered} answered"
        )

    def bind(key: str, name: str | None, yes: bool = False) -> None:
        @viewer.bind_key(key, overwrite=True)
        def _answer(viewer: Any) -> None:
            questions.answer(questions.name if yes else name)
            show()

    bind("y", None, yes=True)
    bind("n", OTHER)
    bind("u", None)
    if len(questions.classes) > 1:
        for number, name in enumerate(questions.classes[:9], 1):
            bind(str(number), name)
    viewer.camera.zoom = PIXELS / (SHOWN * diameter)
    show()
    return layer
