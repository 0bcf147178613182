"""Classes in an evaluation: who was taken for whom, and the score of the CZII challenge, written once more."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import KDTree

from scripts.evaluation.evaluate import evaluate
from scripts.records import model
from scripts.records.detection import Counts, DetectionRecord, Inputs

RADII = {"ribosome": 150.0, "beta-amylase": 65.0, "thyroglobulin": 130.0, "virus-like-particle": 135.0}
WEIGHTS = {"ribosome": 1, "beta-amylase": 0, "thyroglobulin": 2, "virus-like-particle": 1}


def score_of_the_challenge(truth, predicted, beta=4):
    """By its published definition: trees of points within half a radius, counts over experiments, weighted F-beta."""
    total = 0.0
    for name, radius in RADII.items():
        tp = fp = fn = 0
        for experiment in truth:
            reference, candidates = truth[experiment].get(name, []), predicted[experiment].get(name, [])
            if len(reference) == 0:
                fp += len(candidates)
            elif len(candidates) == 0:
                fn += len(reference)
            else:
                near = KDTree(candidates).query_ball_tree(KDTree(reference), r=radius * 0.5)
                hits = len({one for found in near for one in found})
                tp, fp, fn = tp + hits, fp + len(candidates) - hits, fn + len(reference) - hits
        precision, recall = tp / (tp + fp) if tp + fp else 0, tp / (tp + fn) if tp + fn else 0
        both = beta**2 * precision + recall
        total += WEIGHTS[name] * ((1 + beta**2) * precision * recall / both if both > 0 else 0.0)
    return total / sum(WEIGHTS.values())


def write_lists(folder, lists):
    folder.mkdir()
    for experiment, points in lists.items():
        rows = [(name, *xyz, 2 * RADII[name]) for name, found in points.items() for xyz in found]
        table = pd.DataFrame(rows, columns=["class", "x_angstrom", "y_angstrom", "z_angstrom", "diameter_angstrom"])
        table.to_csv(folder / f"{experiment}.csv", index=False)
    return folder


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6))
def test_the_score_is_that_of_the_challenges_own_rule(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("czii")
    truth, predicted = {}, {}
    for experiment in ("TS_1", "TS_2"):
        truth[experiment] = {name: rng.uniform(0, 1500, (rng.integers(1, 12), 3)) for name in RADII}
        predicted[experiment] = {
            name: np.concatenate(
                [points + rng.normal(0, 0.3 * RADII[name], points.shape), rng.uniform(0, 1500, (2, 3))]
            )
            for name, points in truth[experiment].items()
            if rng.random() < 0.9
        }
        predicted[experiment].setdefault("ribosome", np.full((1, 3), 5000.0))
    sides = write_lists(folder / "found", predicted), write_lists(folder / "truth", truth)
    found = evaluate(*sides, metric="czii", bootstrap=0)["czii"]
    assert found["score"] == pytest.approx(score_of_the_challenge(truth, predicted), abs=1e-12)
    assert {name: one["weight"] for name, one in found["classes"].items()} == WEIGHTS
    radii = {name: 2 * radius for name, radius in RADII.items()}
    again = evaluate(*sides, metric="czii", bootstrap=0, particle_diameter=radii, class_weights="ribosome=3")["czii"]
    assert again["classes"]["ribosome"]["weight"] == 3 and again["classes"]["beta-amylase"]["weight"] == 1


def test_the_confusion_matrix_says_who_was_taken_for_whom_and_every_particle_is_in_it(tmp_path):
    at = np.arange(12.0)[:, None] * [400, 0, 0]
    truth = {"TS_1": {"ribosome": at[:4], "thyroglobulin": at[4:7]}}
    predicted = {"TS_1": {"ribosome": at[[0, 1, 4]] + 10, "thyroglobulin": at[[2, 5, 6, 9]] - 10}}
    sides = write_lists(tmp_path / "found", predicted), write_lists(tmp_path / "truth", truth)
    result = evaluate(*sides, output_dir=tmp_path / "out", bootstrap=0)
    expected = {
        "(none)": {"thyroglobulin": 1},
        "ribosome": {"(none)": 1, "ribosome": 2, "thyroglobulin": 1},
        "thyroglobulin": {"ribosome": 1, "thyroglobulin": 2},
    }
    assert result["confusion"] == result["tomograms"]["TS_1"]["confusion"] == expected
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["confusion"] == expected
    ribosome = result["classes"]["ribosome"]["points"]  # by class a particle of another is no match
    assert (ribosome["tp"], ribosome["fp"], ribosome["fn"]) == (2, 1, 2)
    for options, message in (
        ({"metric": "f1"}, "--metric: expected czii, got 'f1'."),
        ({"metric": "czii", "class_weights": "vlp=1"}, "expected classes of the truth (ribosome, thyroglobulin), got"),
        ({"class_weights": "vlp"}, "--class_weights: expected NAME=WEIGHT with commas between, got 'vlp'."),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(message)):
            evaluate(*sides, bootstrap=0, **options)


def test_true_classes_that_the_training_merged_are_those_that_the_detection_names(tmp_path):
    at = np.arange(9.0)[:, None] * [400, 0, 0]
    original = {"4v4r": at[:2], "6qzp": at[2:4], "vlp": at[4:6]}
    truth = pd.concat([pd.DataFrame(xyz, columns=list("xyz")).assign(name=name) for name, xyz in original.items()])
    truth = truth.set_axis(["x_angstrom", "y_angstrom", "z_angstrom", "class"], axis=1).assign(diameter_angstrom=200.0)
    truth.to_csv(tmp_path / "truth.csv", index=False)
    run = tmp_path / "TS_1"
    run.mkdir()
    merged = truth.replace({"class": {"4v4r": "ribosome", "6qzp": "ribosome"}})
    merged.to_csv(run / "TS_1_particles.csv", index=False)
    record = DetectionRecord(
        inputs=Inputs(), tomogram={"shape_zyx": [9, 9, 400], "voxel_size_zyx_angstrom": [10.0] * 3}, particles=Counts(),
        files={}, class_of={"4v4r": "ribosome", "6qzp": "ribosome"},
    )  # fmt: skip

    def scores() -> dict[str, float]:
        found = evaluate(run / "TS_1_particles.csv", tmp_path / "truth.csv", bootstrap=0)["classes"]
        return {name: row["points"]["tp"] for name, row in found.items()}

    assert scores() == {"4v4r": 0, "6qzp": 0, "ribosome": 0, "vlp": 2}
    model.write(record, run / "TS_1.json")
    assert scores() == {"ribosome": 4, "vlp": 2}
