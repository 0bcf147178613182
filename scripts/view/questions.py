"""Questions in a viewer: a ring around the candidate that is asked about, and a key for each answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from scripts.teach.examples import OTHER
from scripts.teach.questions import Questions

__all__ = ["bind_questions"]

SHOWN = 8  # particle diameters across the view
PIXELS = 600  # of a usual window


def bind_questions(viewer: Any, questions: Questions) -> Any:
    """Show the candidate that is asked about, and connect Y, N, U, B and, for several classes, their numbers.

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
    camera = getattr(viewer, "scene", viewer).camera  # napari 0.9 moved it
    several = len(questions.classes) > 1
    keys = "Y yes, N no, U unsure, B back"
    if several:
        keys += "".join(f", {number} {name}" for number, name in enumerate(questions.classes[:9], 1))

    def show() -> None:
        layer.data = np.zeros((0, 3))
        if questions.row is None:
            viewer.title = viewer.status = "every candidate is answered (B back)"
            return
        row = candidates.table.iloc[questions.row]
        center = row[["z_vox", "y_vox", "x_vox"]].to_numpy(float)
        asked = f"{questions.name}? {questions.scores[questions.row]:.2f}"
        size = {"size": 14, "color": "yellow", "translation": (0, -diameter / scale[1], 0)}
        layer.text = {"string": {"constant": asked}, **size}
        layer.add([center])
        layer.selected_data = set()
        viewer.dims.set_point(range(3), center * scale)
        camera.center = tuple(center * scale)
        viewer.title = f"{asked}: {keys}; {questions.answered} answered; {candidates.name}"

    def bind(key: str, action: Callable[[], None]) -> None:
        for holder in (viewer, *viewer.layers):  # the selected layer's own keys (1, 2, Y) come before the viewer's

            @holder.bind_key(key, overwrite=True)
            def _act(_: Any) -> None:
                action()
                show()

    bind("y", lambda: questions.answer(questions.name))
    bind("n", lambda: questions.answer(OTHER))
    bind("u", lambda: questions.answer(None))
    bind("b", questions.back)
    for number, name in enumerate(questions.classes[:9] if several else [], 1):
        bind(str(number), partial(questions.answer, name))
    camera.zoom = PIXELS / (SHOWN * diameter)
    show()
    return layer
