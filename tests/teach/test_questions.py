"""Questions in a viewer: answers are saved at once, decide what is asked next, and are taken by teach and prepare."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scripts.command_line.parser import main
from scripts.preparation.prepare import prepare
from scripts.teach.candidates import open_candidates
from scripts.teach.questions import open_questions
from scripts.view.questions import bind_questions
from tests.teach.test_teach import detection, examples_file, run  # noqa: F401


class Keys:
    """What is used of napari's keys: the selected layer's come before the viewer's."""

    def __init__(self):
        self.keys = {}

    def bind_key(self, key, overwrite):
        return lambda action: self.keys.__setitem__(key, action)


class Layer(Keys):
    """What is used of napari's points."""

    def __init__(self, data, **options):
        super().__init__()
        self.data, self.options, self.selected_data = data, options, set()

    def add(self, places):
        self.data = np.vstack([self.data, places])


class Viewer(Keys):
    """What is used of napari's viewer, without a window."""

    def __init__(self):
        super().__init__()
        self.layers, self.title, self.status = [Layer(None)], "", ""
        self.dims = self.camera = self

    def set_point(self, axes, place):
        self.point = place

    def add_points(self, data, **options):
        self.layers.append(Layer(data, **options))
        return self.layers[-1]

    def press(self, key):
        next(action for name, action in self.keys.items() if str(name).lower() == key)(self)


@pytest.fixture(params=["plain", "napari"])
def viewer(request):
    """A viewer without a window: one of a few lines, and napari's where it is installed."""
    if request.param == "plain":
        return Viewer()
    model = pytest.importorskip("napari.components", reason="napari is not installed").ViewerModel()
    object.__setattr__(
        model, "press", lambda key: next(a for k, a in model.keymap.items() if str(k).lower() == key)(model)
    )
    return model


def test_twenty_answers_are_asked_saved_ranked_anew_and_taken(detection, viewer, tmp_path, capsys):  # noqa: F811
    folder, centers, balls = detection
    place = folder / "detections" / "TS_01"
    examples = examples_file(tmp_path / "mine.csv", centers[balls][:3])
    questions = open_questions(open_candidates(place / "TS_01"), str(examples), restart=True)
    layer = bind_questions(viewer, questions)
    first = questions.row
    viewer.press("u")
    assert questions.row != first and not questions.files[False].exists()  # nothing was said
    said = {}
    for number in range(20):
        row, before = questions.row, questions.scores
        assert row not in said and questions.known[row] == ""
        np.testing.assert_allclose(layer.data, centers[row][None])
        assert viewer.title.startswith(f"ball? {before[row]:.2f}: Y yes, N no, U unsure, B back; {number} answered")
        viewer.press("y" if balls[row] else "n")
        said[row] = balls[row]
        saved = sum(len(pd.read_csv(path)) for path in questions.files.values() if path.is_file())
        assert saved == 3 + len(said)
    assert not np.array_equal(before, questions.scores)
    then, scores = questions.row, questions.scores
    viewer.press("u")
    for _ in range(3):  # what is taken back is asked again, and in no list
        viewer.press("b")
    assert questions.answered == 18 and (questions.known != "").sum() == 3 + 18
    assert sum(len(pd.read_csv(path)) for path in questions.files.values() if path.is_file()) == 3 + 18
    for _ in range(2):
        viewer.press("y" if balls[questions.row] else "n")
    assert questions.row == then and np.array_equal(scores, questions.scores)
    assert (questions.known[balls] == "ball").sum() == 3 + sum(said.values())
    again = open_questions(open_candidates(place / "TS_01"), "not read", restart=False)
    assert np.array_equal(again.known, questions.known)
    yes, no = questions.files.values()
    code, text = run(folder, yes, tmp_path / "out", "--counter_examples", no, capsys=capsys)
    assert code == 0 and f"{3 + sum(said.values())} ball, {20 - sum(said.values())} other" in text
    prepare(
        str(folder / "TS_01.mrc"), particles=str(yes), radius=30.0, output_dir=str(tmp_path / "data"), quiet=True,
        validation_fraction=0.0,
    )  # fmt: skip
    assert (tmp_path / "data" / "dataset.json").is_file()
    for path in (yes, no):
        path.unlink()


def test_of_several_classes_a_number_names_one_and_the_end_is_said(detection, tmp_path):  # noqa: F811
    folder, centers, balls = detection
    chosen = np.concatenate([np.flatnonzero(balls)[:4], np.flatnonzero(~balls)[:4]])
    examples = examples_file(tmp_path / "mine.csv", centers[chosen], names=["ball"] * 4 + ["rod"] * 4)
    questions = open_questions(open_candidates(folder / "detections/TS_01/TS_01"), str(examples), restart=True)
    viewer = Viewer()
    layer = bind_questions(viewer, questions)
    assert "U unsure, B back, 1 ball, 2 rod; 0 answered" in viewer.title
    assert all(set("ynub12") <= set(holder.keys) for holder in [viewer, *viewer.layers])  # napari's points have a 2
    row = questions.row
    viewer.press("n")
    assert questions.files[True].is_file()
    viewer.press("b")
    assert not questions.files[True].exists() and questions.row == row and questions.answered == 0
    viewer.press("2")
    assert questions.known[row] == "rod"
    questions.known[questions.known == ""] = "rod"
    for _ in range(2):
        viewer.press("y")  # the last, and nothing
    assert viewer.status == "every candidate is answered (B back)" and len(layer.data) == 0 and questions.answered == 2
    questions.files[False].unlink()


def test_view_asks_and_names_the_command_that_comes_next(detection, tmp_path, monkeypatch, capsys):  # noqa: F811
    folder, centers, balls = detection
    examples, window = examples_file(tmp_path / "mine.csv", centers[balls][:3]), Viewer()

    class Napari:
        Viewer = staticmethod(lambda: window)
        run = staticmethod(lambda: window.press("n"))

    monkeypatch.setattr("scripts.view.view._import_napari", lambda: Napari)
    monkeypatch.setattr("scripts.view.view.add_layers", lambda *_: [])
    assert main(["view", str(folder / "detections" / "TS_01"), "--teach", str(examples)]) == 0
    told = capsys.readouterr()
    assert "TS_01: 1 answered" in told.out
    assert "teach" in told.err and "--counter_examples" in told.err
    for name in ("examples", "counter_examples"):
        (folder / "detections" / "TS_01" / f"TS_01_{name}.csv").unlink()


def test_examples_where_nothing_was_found_are_refused(detection, tmp_path):  # noqa: F811
    folder, centers, _ = detection
    far = examples_file(tmp_path / "far.csv", centers[:3] * 0 + 16.0)
    with pytest.raises(ValueError, match="--teach: expected a list of examples, none in .*far.csv is near a particle"):
        open_questions(open_candidates(folder / "detections/TS_01/TS_01"), str(far), restart=True)
