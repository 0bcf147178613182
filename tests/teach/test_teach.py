"""teach: a few examples choose among what was found; what is learnt is data; new lists without the networks."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import MetaTensor

from custom_transforms.io import write_mrc
from custom_transforms.measuring.descriptors import DESCRIPTORS, describe_particles
from custom_transforms.measuring.particle_table import measure_particles
from custom_transforms.measuring.taught import Taught, TaughtClass, read_taught, write_taught
from custom_transforms.normalize import NormalizedVolume
from custom_transforms.teach import KeepTaughtd
from custom_transforms.volumes.lazy import LabelVolume
from scripts.command_line.parser import main
from scripts.outputs import SaveDetectiond
from scripts.teach.ask import most_useful, unsure
from scripts.teach.classes import learn_classes

SHAPE, VOXEL, DIAMETER = (32, 96, 112), np.full(3, 10.0), 60.0
COUNT = len(DESCRIPTORS)


def scene():
    """Balls and twice as many rods on a lattice: tomogram (dark), labels, centers, and which are balls."""
    z, y, x = np.indices(SHAPE)
    labels, centers = np.zeros(SHAPE, np.int32), []
    for number, center in enumerate(np.ndindex(2, 6, 7), start=1):
        cz, cy, cx = np.array(center) * 16 + 8
        ball = (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= 9
        rod = ((z - cz) ** 2 + (y - cy) ** 2 <= 2) & (abs(x - cx) <= 6)
        labels[ball if number % 3 == 0 else rod] = number
        centers.append((cz, cy, cx))
    noise = np.random.default_rng(0).normal(0, 0.5, SHAPE)
    image = (noise - (labels > 0)).astype(np.float32)
    return image, labels, np.array(centers, float), np.arange(1, len(centers) + 1) % 3 == 0


def table_of(labels, centers):
    return measure_particles(
        labels, (labels > 0).astype(np.float32), np.arange(1, len(centers) + 1), centers, np.full(len(centers), 0.8),
        voxel_size_zyx=VOXEL, center_threshold=0.5, neighbor_distance=150.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def detection(tmp_path_factory):
    """A finished detection of the scene, as detect leaves it, and the ids of the balls."""
    folder = tmp_path_factory.mktemp("teach")
    image, labels, centers, balls = scene()
    write_mrc(folder / "TS_01.mrc", image, VOXEL)
    (folder / "model.pt").write_bytes(b"weights")
    meta = {"voxel_size_zyx": VOXEL, "filename_or_obj": str(folder / "TS_01.mrc")}
    settings = {"particle_diameter": DIAMETER, "center_threshold": 0.3, "contrast": "dark"}
    SaveDetectiond(folder / "detections", folder / "model.pt", settings, report=False)({
        "image": MetaTensor(torch.from_numpy(image[None]), meta=meta),
        "instances": MetaTensor(torch.from_numpy(labels[None]), meta=meta),
        "particles": table_of(labels, centers),
    })  # fmt: skip
    return folder, centers, balls


def examples_file(path, centers, names="ball", unit="angstrom"):
    factor = 10.0 if unit == "angstrom" else 1.0
    table = pd.DataFrame(centers[:, ::-1] * factor, columns=[f"{axis}_{unit}" for axis in "xyz"])
    table.assign(**{"class": names, "tomogram": "TS_01"}).to_csv(path, index=False)
    return path


def run(folder, examples, target, *more, capsys):
    words = [str(folder / "detections"), "--particles", str(examples), "--output_dir", str(target)]
    code = main(["teach", *words, "--report=False", *map(str, more)])
    said = capsys.readouterr()
    return code, said.out + said.err


def taught(**changed):
    one = TaughtClass("ball", np.ones(COUNT), 0.5, 0.4, 20)
    return Taught(**{
        "particle_diameter": DIAMETER, "mean": np.zeros(COUNT), "scale": np.ones(COUNT), "classes": (one,),
        "settings": {"center_threshold": 0.3}, **changed,
    })  # fmt: skip


def test_a_threshold_among_the_lowest_probabilities_still_chooses():
    """The examples look like nothing else: all probabilities are tiny, and so is the threshold."""
    weights, values = np.zeros(COUNT), np.zeros((2, COUNT))
    weights[0], values[:, 0] = 10.0, (-3.2, -3.4)
    one = TaughtClass("ball", weights, 0.0, float(np.exp(-33.0)), 20)
    chosen = taught(mean=np.zeros(COUNT), scale=np.ones(COUNT), classes=(one,)).classify(values)
    assert chosen[0].tolist() == ["ball", ""]
    np.testing.assert_allclose(chosen[1], np.exp((-32.0, -34.0)))


def test_what_is_surest_is_far_from_a_decision_and_never_divided_by():
    one = TaughtClass("ball", np.zeros(COUNT), 0.0, 1.0, 20)
    other = TaughtClass("rod", np.zeros(COUNT), 0.0, 0.5, 20)
    with np.errstate(all="raise"):
        margins, nearest = unsure(taught(classes=(one, other)), np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.6]]))
    assert np.isfinite(margins).all() and nearest.tolist() == [1, 0, 1]
    np.testing.assert_allclose(margins, [36.0, 0.0, np.log(1.5)])


def test_where_the_list_is_complete_all_else_is_a_counter_example(detection, tmp_path, capsys):
    folder, centers, balls = detection
    here = centers[:, 2] < 60
    file = examples_file(tmp_path / "balls.csv", centers[balls & here])
    code, text = run(folder, file, tmp_path / "out", "--complete", ":,:,:60", capsys=capsys)
    rest = int((~balls & here).sum())
    assert code == 0 and f"{rest} candidates where the list is complete are counter-examples" in text
    assert f"{int((balls & here).sum())} ball, {rest} other, among 84 candidates" in text
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, :, :60] = 1
    write_mrc(tmp_path / "TS_01_mask.mrc", mask, VOXEL)
    again = run(folder, file, tmp_path / "masked", "--complete", tmp_path / "{name}_mask.mrc", capsys=capsys)
    assert again[0] == 0 and f"{rest} other" in again[1]
    kept = [pd.read_csv(tmp_path / one / "TS_01" / "TS_01_particles.csv")["label"] for one in ("out", "masked")]
    assert kept[0].equals(kept[1]) and ((kept[0] > 0) == balls).mean() > 0.95
    code, text = run(folder, file, tmp_path / "none", "--complete", "5:5,:,:", capsys=capsys)
    assert code == 1 and "--complete 5:5,:,: holds no voxel of TS_01; its size is (32, 96, 112) (Z, Y, X)." in text
    code, text = run(folder, file, tmp_path / "none", "--complete", tmp_path / "gone.mrc", capsys=capsys)
    assert code == 1 and "gone.mrc" in text


def test_descriptors_know_no_turn_about_the_beam_no_mirror_and_no_place():
    image, labels, centers, _ = scene()
    before = describe_particles(-image, labels, table_of(labels, centers), VOXEL, DIAMETER)
    turned = [np.ascontiguousarray(np.rot90(one, axes=(1, 2))[::-1]) for one in (-image, labels)]
    moved = np.column_stack([31 - centers[:, 0], 111 - centers[:, 2], centers[:, 1]])
    after = describe_particles(*turned, table_of(turned[1], moved), VOXEL, DIAMETER)
    scale = before.std(axis=0) + 1e-3
    assert np.isfinite(before).all() and before.shape == (84, COUNT)
    np.testing.assert_allclose(after / scale, before / scale, atol=0.1)  # the contrast is measured at other places


def test_descriptors_at_another_voxel_size_are_nearly_the_same():
    image, labels, centers, balls = scene()
    fine = [np.repeat(np.repeat(np.repeat(one, 2, 0), 2, 1), 2, 2) for one in (-image, labels)]
    coarse = describe_particles(-image, labels, table_of(labels, centers), VOXEL, DIAMETER)
    table = table_of(labels, centers).assign(
        **{f"{axis}_vox": centers[:, 2 - n] * 2 + 0.5 for n, axis in enumerate("xyz")}
    )
    halved = describe_particles(fine[0], fine[1], table, VOXEL / 2, DIAMETER)
    apart = np.abs(coarse[balls].mean(axis=0) - coarse[~balls].mean(axis=0)) / (coarse.std(axis=0) + 1e-9)
    telling = apart > 1.5
    assert telling.sum() > 20
    scale = coarse.std(axis=0)[telling]
    assert np.median(np.abs(halved[:, telling] - coarse[:, telling]) / scale) < 0.25


def test_a_particle_on_a_corner_and_no_particle_have_descriptors():
    image, labels, _, _ = scene()
    corner = table_of(labels, np.array([[0.0, 95.0, 111.0]])).assign(label=0)[:1]
    assert np.isfinite(describe_particles(image, labels, corner, VOXEL, DIAMETER)).all()
    assert describe_particles(image, labels, corner[:0], VOXEL, DIAMETER).shape == (0, COUNT)


def test_what_was_taught_is_read_as_it_was_written(tmp_path):
    write_taught(tmp_path / "a.json", taught())
    read = read_taught(tmp_path / "a.json")
    values = np.random.default_rng(0).normal(size=(5, COUNT))
    assert np.array_equal(read.probabilities(values), taught().probabilities(values))
    assert read.classes[0].name == "ball" and read.settings == {"center_threshold": 0.3}


@pytest.mark.parametrize(
    "change, text",
    [
        ({"taught": 2}, "of another version"),
        ({"descriptors": ["a"]}, "of another version"),
        ({"mean": [0.0]}, f"mean: {COUNT} finite numbers"),
        ({"scale": [0.0] * COUNT}, "scale: numbers above 0"),
        ({"mean": [None] * COUNT}, f"mean: {COUNT} finite numbers"),
        ({"classes": []}, "classes: at least one"),
        ({"classes": [{"name": "ball"}]}, f"weights: {COUNT} finite numbers"),
        ({"particle_diameter": "$print(1)"}, "particle_diameter: a number"),
        ({"settings": []}, "settings: a JSON dict"),
    ],
)
def test_a_file_that_is_not_what_was_taught_is_refused_by_name(tmp_path, change, text):
    write_taught(tmp_path / "a.json", taught())
    (tmp_path / "a.json").write_text(json.dumps({**json.loads((tmp_path / "a.json").read_text()), **change}))
    with pytest.raises(ValueError, match=text) as error:
        read_taught(tmp_path / "a.json")
    assert str(tmp_path) in str(error.value) and "each anew" in str(error.value)


def test_particles_of_no_class_are_dropped_in_memory_as_in_slices(tmp_path):
    image, labels, centers, balls = scene()
    write_taught(tmp_path / "a.json", _told_by("volume", centers, labels))
    keep, meta = KeepTaughtd(file=tmp_path / "a.json", particle_diameter=DIAMETER), {"voxel_size_zyx": VOXEL}
    table = table_of(labels, centers)
    table.loc[0, ["label", "dropped_by"]] = 0, "edge"
    in_memory = keep({
        "image": MetaTensor(torch.from_numpy(-image[None]), meta=meta),
        "instances": MetaTensor(torch.from_numpy(labels[None]), meta=meta), "particles": table,
    })  # fmt: skip
    numbers = LabelVolume(labels, np.arange(len(centers) + 1, dtype=np.int32)).with_meta(meta)
    lazy = _Sliced(-image, meta)
    streamed = keep({"image": lazy, "instances": numbers, "particles": table})
    pd.testing.assert_frame_equal(in_memory["particles"], streamed["particles"])
    assert np.array_equal(in_memory["instances"][0], streamed["instances"][:])
    found = in_memory["particles"]
    assert np.array_equal(found["label"] > 0, balls & (table["dropped_by"] == ""))
    assert found["dropped_by"].value_counts().to_dict() == {"class": 55, "": 28, "edge": 1}
    assert np.isnan(found["class_score"][0]) and set(found["class"]) == {"ball", ""}
    assert "class_score" not in table and table["label"].max() == 84
    with pytest.warns(UserWarning, match="taught on particles found at center_threshold 0.3, these are of 0.6"):
        keep({"image": lazy, "instances": numbers, "particles": table, "seeds": SimpleNamespace(threshold=0.6)})


class _Sliced(NormalizedVolume):
    """An array that is only sliced."""

    def __init__(self, array, meta):
        self.array, self.shape, self.dtype, self.meta = array, array.shape, array.dtype, meta

    def __getitem__(self, index):
        return self.array[index].copy()


def _told_by(name, centers, labels):
    """What tells balls, which are larger, by one descriptor alone."""
    values = describe_particles(np.zeros(SHAPE, np.float32), labels, table_of(labels, centers), VOXEL, DIAMETER)
    column = DESCRIPTORS.index(name)
    weights = np.zeros(COUNT)
    weights[column] = 50.0
    middle = (values[:, column].min() + values[:, column].max()) / 2
    mean = np.zeros(COUNT)
    mean[column] = middle
    return taught(mean=mean, classes=(TaughtClass("ball", weights, 0.0, 0.5),))


def blobs(seed, *counts, apart=2.5, width=30):
    """Candidates of several kinds, normally distributed in ``width`` numbers, and the kind of each."""
    random = np.random.default_rng(seed)
    middles = random.normal(0, apart / np.sqrt(width) * 2, (len(counts), width))
    kinds = np.repeat(np.arange(len(counts)), counts)
    return middles[kinds] + random.normal(size=(len(kinds), width)), kinds


def f1(kept, true):
    return 2 * (kept & true).sum() / (kept.sum() + true.sum())


def learn(values, kinds, seed, **examples):
    """Learn kinds by so many random examples; gives `Learnt` and the kept of the first."""
    random, known = np.random.default_rng(seed), np.full(len(values), "", dtype=object)
    for name, (kind, count) in examples.items():
        free = np.flatnonzero((kinds == kind) & (known == ""))
        known[random.choice(free, count, replace=False)] = name
    learnt = learn_classes(values, known, sorted(set(known) - {"", "other"}))
    first = learnt.classes[0]
    probability = 1 / (1 + np.exp(-(values @ first.weights + first.bias)))
    return learnt, probability >= first.threshold


def test_more_examples_are_better_and_few_are_never_worse_than_keeping_all():
    scores = []
    for count in (3, 10, 40):
        every = []
        for seed in range(4):
            values, kinds = blobs(seed, 60, 140, 100)
            every.append(f1(learn(values, kinds, seed, mine=(0, count))[1], kinds == 0))
        scores.append(np.mean(every))
        assert min(every) >= 2 * 60 / 360 - 1e-9  # as all kept
    assert scores[0] < scores[1] < scores[2] and scores[2] > 0.8


def test_examples_that_nothing_tells_from_the_rest_keep_nearly_all():
    values, kinds = blobs(0, 40, 160, apart=0)
    _, kept = learn(values, kinds, 0, mine=(0, 5))
    assert kept.mean() > 0.9 and f1(kept, kinds == 0) > 0.95 * 2 * 40 / 240


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_examples_keep_all_and_it_is_said(count):
    values, kinds = blobs(1, 80, 160, apart=6)
    learnt, kept = learn(values, kinds, 1, mine=(0, count))
    assert kept.all() and f"mine: {count} examples are too few to choose" in learnt.warnings[0]
    assert learnt.classes[0].text.startswith(f"mine: {count} examples; keeps all candidates")


def test_two_classes_that_are_the_same_are_said_to_be():
    values, kinds = blobs(1, 80, 160)
    learnt, _ = learn(values, kinds, 1, a=(0, 15), b=(0, 15))
    assert any("a and b can hardly be told apart" in text for text in learnt.warnings)
    learnt, _ = learn(values, kinds, 1, a=(0, 15), b=(1, 15))
    assert not any("told apart" in text for text in learnt.warnings)


def test_of_three_examples_one_wrong_does_no_harm_and_is_noticed():
    noticed = 0
    for seed in range(5):
        values, kinds = blobs(seed, 60, 240, apart=4)
        random, known = np.random.default_rng(seed), np.full(300, "", dtype=object)
        known[random.choice(60, 2, replace=False)] = "mine"
        known[60 + random.integers(240)] = "mine"
        learnt = learn_classes(values, known, ["mine"])
        one = learnt.classes[0]
        kept = 1 / (1 + np.exp(-(values @ one.weights + one.bias))) >= one.threshold
        assert f1(kept, kinds == 0) >= 2 * 60 / 360 - 1e-9
        noticed += any("Is any of them wrong?" in text for text in learnt.warnings)
    assert noticed >= 3


def test_recall_is_promised_as_it_is_and_of_precision_nothing():
    for seed in range(4):
        values, kinds = blobs(seed, 60, 240, apart=2, width=10)
        learnt, kept = learn(values, kinds, seed, mine=(0, 20))
        one = learnt.classes[0]
        low, high = one.facts["recall_low"], one.facts["recall_high"]
        assert 0.3 < low < high and low - 0.05 <= (kept & (kinds == 0)).sum() / 60 <= high + 0.05
        assert f"{low:.0%} to {high:.0%} of the class's candidates" in one.text and "precision" not in one.text


def test_questions_are_unsure_and_unlike():
    margins, values = np.array([0.0, 0.1, 0.1, 5.0]), np.array([[0.0], [0.1], [3.0], [9.0]])
    free = np.array([True, True, True, True])
    assert most_useful(margins, values, free, 1).tolist() == [0]
    assert most_useful(margins, values, free & [True, True, True, False], 2).tolist() == [0, 2]
    assert most_useful(margins, values, ~free, 2).tolist() == []


def test_a_few_examples_choose_their_kind_and_new_lists_are_written(detection, tmp_path, capsys):
    folder, centers, balls = detection
    chosen = np.flatnonzero(balls)[:8]
    examples = examples_file(tmp_path / "mine.csv", np.vstack([centers[chosen], [[8.0, 16.0, 16.0]]]))
    before = {path: path.read_bytes() for path in (folder / "detections").rglob("*") if path.is_file()}
    code, said = run(folder, examples, tmp_path / "out", "--ask", 5, capsys=capsys)
    assert code == 0 and "8 ball, among 84 candidates" in said
    assert "1 of 9 examples are left out, as no candidate is near: TS_01 (160, 160, 80)" in said
    table = pd.read_csv(tmp_path / "out" / "TS_01" / "TS_01_particles.csv", keep_default_na=False)
    assert np.array_equal(table["label"] > 0, balls) and set(table["class"]) == {"ball", ""}
    assert before == {path: path.read_bytes() for path in (folder / "detections").rglob("*") if path.is_file()}
    record = json.loads((tmp_path / "out" / "TS_01" / "TS_01.json").read_text())
    assert record["particles"] == {"kept": 28, "dropped": {"class": 56}}
    assert record["inputs"]["settings"]["teach"] == str(tmp_path / "out" / "taught.json")
    asked = pd.read_csv(tmp_path / "out" / "asked.csv")
    assert (asked["class"] == "?").sum() == 5 and (asked["class"] == "ball").sum() == 8
    assert (tmp_path / "out" / "asked.html").read_text().count("<figure>") == 5
    asked.loc[asked["class"] == "?", "class"] = "other"
    asked.to_csv(tmp_path / "answers.csv", index=False)
    code, said = run(folder, tmp_path / "answers.csv", tmp_path / "out", capsys=capsys)  # over its own results
    assert code == 0 and "8 ball, 5 other, among 84 candidates" in said


def test_what_cannot_be_taught_is_told_and_leaves_everything(detection, tmp_path, capsys):
    folder, centers, balls = detection
    examples = examples_file(tmp_path / "mine.csv", centers[balls][:4], unit="vox")
    code, said = run(folder, examples, folder / "detections", capsys=capsys)
    assert code == 1 and "a detection that was not taught is there. Choose another --output_dir." in said
    assert run(folder, examples, tmp_path / "out", capsys=capsys)[0] == 0
    shutil.copytree(tmp_path / "out", tmp_path / "detections")
    code, said = run(tmp_path, examples, tmp_path / "more", capsys=capsys)
    assert code == 1 and "got particles that were taught already" in said
    far = examples_file(tmp_path / "far.csv", centers[:3] * 0 + 16.0)
    code, said = run(folder, far, tmp_path / "none", capsys=capsys)
    assert code == 1 and "none of its 3 examples is near a particle that was found" in said
    assert not (tmp_path / "none" / "taught.json").exists()
