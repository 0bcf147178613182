"""teach --minutes: CenterNet learns what is known of examples; moved networks are kept only if they are better."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from scripts.detection.detector import Detector
from scripts.detection.single import detect_one
from scripts.networks import MaskAndCenterNet
from scripts.particles.particle_list import ParticleList
from scripts.records.weights import file_digest
from scripts.teach import lessons, move
from scripts.teach.alike import alike
from scripts.teach.examples import Examples
from scripts.teach.teach import teach
from tests.conftest import ROOT
from tests.detection.detect_scene import setting  # noqa: F401


def test_targets_are_known_around_examples_and_what_is_unlike_them_and_nowhere_else():
    centers, spacing = np.array([[3.0, 8.5, 9.0], [3.0, 8.5, 13.0]]), np.array([20.0, 10.0, 10.0])
    unlike = np.array([[3.0, 9.0, 15.0], [1.0, 1.0, 22.0]])  # the first overlaps an example, which counts
    target = lessons.painted(np.full((7, 18, 24), -1.0), centers, unlike, spacing, 50.0)
    places = np.stack(np.indices(target.shape), -1)
    distance, other = (
        np.min([np.linalg.norm((places - one) * spacing, axis=-1) for one in some], axis=0)
        for some in (centers, unlike)
    )
    center, empty = distance <= lessons.REACH * 50, other <= lessons.EMPTY * 50
    assert np.array_equal(target >= 0, center | empty) and (center & empty).any()
    np.testing.assert_allclose(target[center], np.exp(-0.5 * (distance[center] / 12.5) ** 2))
    assert (target[empty & ~center] == 0).all() and (empty & ~center).any()


def test_guesses_are_the_candidates_most_and_least_like_any_class_and_never_what_the_user_said():
    random = np.random.default_rng(0)
    kind = np.repeat([0, 1, 2], [40, 40, 120])  # two classes, and the rest
    values = random.normal(0, 1, (200, 6)) + 4 * np.eye(3, 6)[kind]
    known = np.full(200, "", dtype=object)
    known[[*range(6)]], known[[*range(40, 46)]], known[[160, 161]] = "a", "b", "other"
    places, cut = random.uniform(0, 1000, (200, 3)), 150  # two tomograms, the second without examples
    tomograms = [
        SimpleNamespace(table=places[rows], descriptors=values[rows], centers_xyz_angstrom=places[rows])
        for rows in (slice(None, cut), slice(cut, None))
    ]
    more, unlike = alike(tomograms, Examples([known[:cut], known[cut:]]))
    rows = {tuple(place): number for number, place in enumerate(places)}
    chosen = [[rows[tuple(place)] for one in some for place in one] for some in (more, unlike)]
    assert all(tuple(place) in map(tuple, places[:cut]) for place in more[0])
    assert len(chosen[0]) == 24 and not set(chosen[0]) & set(chosen[1])
    assert (known[chosen[0]] == "").all() and (kind[chosen[0]] < 2).mean() > 0.9
    assert {160, 161} < set(chosen[1]) and (kind[chosen[1]] == 2).mean() > 0.9 and len(chosen[1]) > 30
    one_sided = alike(tomograms, Examples([known[:cut], np.full(200 - cut, "")]))
    assert all(len(some[0]) and not len(some[1]) for some in one_sided)
    nothing = alike(tomograms, Examples([np.full(cut, ""), np.full(200 - cut, "")]))
    assert [len(one) for some in nothing for one in some] == [0, 0, 0, 0]


class Center(torch.nn.Module):
    """A network so small that it learns in a few steps; with a norm, which is to be held."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.BatchNorm3d(4), None
        self.last = torch.nn.Conv3d(4, 1, 1)

    def forward(self, image):
        return self.last(torch.relu(self.norm(self.first(image))))


def test_training_learns_the_examples_holds_norms_and_leaves_the_general_network(monkeypatch):
    for name, value in {"STEPS": 15, "CROP": 16, "RATE": 0.05, "SHIFT": 2}.items():
        monkeypatch.setattr(lessons, name, value)
    center = np.array([[14.0, 15.0, 16.0]])
    target = lessons.painted(np.zeros((24, 30, 32)), center, center[:0], np.full(3, 10.0), 80.0).astype(np.float32)
    image = torch.from_numpy(target + np.random.default_rng(0).normal(0, 0.1, target.shape).astype(np.float32))[None]
    lesson = lessons.Lesson(image, torch.from_numpy(target)[None], center)
    general = Center()
    before = {name: value.clone() for name, value in general.state_dict().items()}
    detector = SimpleNamespace(root=ROOT, network=SimpleNamespace(center_network=general))
    moved, steps = lessons.trained(detector, [lesson], 10.0)
    again, _ = lessons.trained(detector, [lesson], 10.0)
    monkeypatch.setattr(lessons, "MOVED", 1.0)
    whole, _ = lessons.trained(detector, [lesson], 10.0)
    assert steps == 15
    for name, value in moved.named_parameters():
        torch.testing.assert_close(value, before[name] + 0.75 * (whole.state_dict()[name] - before[name]))
    assert all(torch.equal(value, before[name]) for name, value in general.state_dict().items())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in moved.state_dict().items())
    assert torch.equal(moved.norm.running_mean, general.norm.running_mean)
    with torch.no_grad():
        errors = [((one(image[None])[0] - lesson.target) ** 2).mean() for one in (general.eval(), moved)]
    assert errors[1] < errors[0] / 2


@pytest.fixture(scope="module")
def general(setting, tmp_path_factory):  # noqa: F811
    """A detection by tiny networks, and examples in it."""
    folder, options = setting
    place = tmp_path_factory.mktemp("move")
    options = {**options, "report": False, "tile": None, "min_distance": 1.5 * options["particle_diameter"]}
    detect_one(Detector({**options, "output_dir": str(place / "general")}), folder / "tomogram_0.mrc")
    table = pd.read_csv(place / "general" / "tomogram_0" / "tomogram_0_particles.csv", keep_default_na=False)
    return place, options, table[table["label"] > 0].assign(tomogram="tomogram_0", **{"class": "ball"})


@pytest.fixture
def found(general, tmp_path, monkeypatch):
    """A call of teach that moves the networks two steps; what was found before and after is as the test says."""
    place, options, table = general
    monkeypatch.setattr(lessons, "STEPS", 2)
    monkeypatch.setattr(lessons, "CROP", 32)

    def call(scores=((1, 40), (2, 40)), count=8, **more):
        table[:count].to_csv(tmp_path / "examples.csv", index=False)
        numbers = iter(scores)
        monkeypatch.setattr(move, "_found", lambda *_: next(numbers))
        teach(
            str(place / "general"), particles=str(tmp_path / "examples.csv"), output_dir=str(tmp_path / "taught"),
            report=False, **{"minutes": 5, **more},
        )  # fmt: skip
        return json.loads((tmp_path / "taught" / "taught.json").read_text())

    return SimpleNamespace(place=place, options=options, path=tmp_path, call=call)


def test_better_networks_are_kept_and_detect_takes_them_with_the_file(found, capsys):
    content = found.call(scores=((20, 40), (18, 40)))
    moved = found.path / "taught" / "moved.pt"
    assert "18 have a center within half the radius, 20 before" in capsys.readouterr().err
    assert content["networks"] == "moved.pt" and content["weights_sha256"] == file_digest(moved)
    options = {name: value for name, value in found.options.items() if name != "weights"}
    options |= {"teach": str(found.path / "taught" / "taught.json"), "output_dir": str(found.path / "again")}
    detector = Detector(options)
    assert isinstance(detector.network, MaskAndCenterNet)
    general = torch.load(found.options["weights"], weights_only=True)
    same = {
        name: torch.allclose(value, general[name], atol=1e-3) for name, value in detector.network.state_dict().items()
    }
    assert all(same[name] for name in same if name.startswith("mask_network"))
    assert Path(detector.parser.get_parsed_content("weights")) == moved
    with pytest.warns(UserWarning, match="taught on what other weights found"):
        Detector({**options, "weights": found.options["weights"]})
    moved.unlink()
    with pytest.raises(FileNotFoundError, match="moved.pt: expected the networks that teach moved, beside"):
        Detector(options)


def test_where_the_list_is_complete_what_the_moved_networks_found_is_a_counter_example(found, monkeypatch, capsys):
    asked = []

    def rest_of(candidates, lists, complete):
        asked.append(candidates)
        return [ParticleList(np.zeros((0, 3)))] * len(lists)

    monkeypatch.setattr("scripts.teach.teach.rest_of", rest_of)
    found.call(complete=":,:,:")
    assert len(asked) == 2 and found.path / "taught" / "moved" in asked[1][0].run.prefix.parents
    assert capsys.readouterr().err.count("0 candidates where the list is complete are counter-examples") == 2


@pytest.mark.parametrize(
    "before, after", [(4, (5, 41)), (20, (17, 20)), (0, (0, 20))]
)  # more candidates; fewer found; none
def test_networks_that_are_no_better_leave_no_trace(before, after, found, monkeypatch, capsys):
    monkeypatch.setattr(move, "trained", lambda detector, *_: (detector.network.center_network, 0))
    content = found.call(scores=((before, 40), after))
    assert "Not better: the networks stay as they are" in capsys.readouterr().err
    assert content["networks"] is None
    assert not list((found.path / "taught").glob("moved*"))


def test_what_networks_cannot_be_moved_with_is_refused_by_name(found):
    with pytest.raises(ValueError, match="--minutes: expected at least 8 examples to move the networks, got 7"):
        found.call(count=7)
    with pytest.raises(ValueError, match="--minutes: expected minutes to move the networks, 0 or more, got -1"):
        found.call(minutes=-1)
    record = found.place / "general" / "tomogram_0" / "tomogram_0.json"
    text = record.read_text()
    record.write_text(text.replace("model.pt", "gone.pt"))
    with pytest.raises(FileNotFoundError, match="gone.pt: expected the networks that found tomogram_0, they are gone"):
        found.call()
    record.write_text(text)
