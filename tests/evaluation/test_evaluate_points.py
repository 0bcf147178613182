"""evaluate: one-to-one matching of centers, threshold sweep, classes and intervals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from scripts.evaluation.evaluate import evaluate
from scripts.evaluation.pair import Rules
from scripts.evaluation.sides import Side
from scripts.matching import points as points_module
from scripts.matching.points import candidate_pairs, hits_by_threshold, match_points
from scripts.matching.scores import f_beta
from scripts.particles.particle_list import ParticleList
from tests.evaluation.in_memory import evaluate_sides
from tests.evaluation.test_evaluate import SHAPE, VOXEL, four_particles


def listed(centers, score=np.nan, class_name="", radius=50.0) -> Side:
    centers = np.asarray(centers, float).reshape(-1, 3)
    return Side(particles=ParticleList(centers, score=score, class_name=class_name, radius_angstrom=radius))


def of_points(predicted: Side, true: Side, **rules) -> dict:
    return evaluate_sides([("t", predicted, true)], Rules(**rules), bootstrap=0)


def brute_force(predicted: np.ndarray, true: np.ndarray, reach: float) -> tuple[int, float]:
    """Try every assignment: the most pairs, then the least total distance."""
    distance = np.linalg.norm(predicted[:, None] - true[None], axis=2)
    best = (0, 0.0)
    small, large = sorted((len(predicted), len(true)))
    for chosen in itertools.permutations(range(large), small):
        pairs = [(i, j) if len(predicted) == small else (j, i) for i, j in enumerate(chosen)]
        near = [distance[pair] for pair in pairs if distance[pair] <= reach]
        best = min(best, (-len(near), sum(near)))
    return -best[0], best[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 5), st.integers(0, 6), st.booleans())
def test_matching_equals_brute_force(seed, n, m, sparse):
    rng = np.random.default_rng(seed)
    predicted, true = rng.integers(0, 6, (n, 3)).astype(float), rng.integers(0, 6, (m, 3)).astype(float)
    with pytest.MonkeyPatch.context() as patch:
        if sparse:  # the solver for huge groups
            patch.setattr(points_module, "_DENSE_GROUP", 0)
        found = match_points(predicted, true, 3.0)
    assert len(set(found.predicted)) == len(set(found.true)) == len(found.distances)
    count, total = brute_force(predicted, true, 3.0)
    assert len(found.distances) == count
    assert found.distances.sum() == pytest.approx(total)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_threshold_sweep_equals_matching_anew_at_every_threshold(seed):
    rng = np.random.default_rng(seed)
    predicted, true, score = rng.random((14, 3)), rng.random((9, 3)), rng.integers(0, 6, 14) / 5
    pairs = candidate_pairs(predicted, true, 0.4)
    thresholds, hits, kept = hits_by_threshold(pairs[0], pairs[1], score)
    assert thresholds.tolist() == sorted(set(score.tolist()), reverse=True)
    near = np.linalg.norm(predicted[:, None] - true[None], axis=2) <= 0.4
    for threshold, hit, n in zip(thresholds, hits, kept, strict=True):
        rows = score >= threshold
        expected = maximum_bipartite_matching(csr_array(near[rows].astype(np.int8)), perm_type="column")
        assert (hit, n) == (np.count_nonzero(expected >= 0), rows.sum())


def test_a_duplicated_center_is_a_false_positive():
    result = of_points(listed([[0, 0, 0], [5, 0, 0], [300, 0, 0]]), listed([[0, 0, 0], [300, 0, 0]]))["pooled"][
        "points"
    ]
    assert (result["tp"], result["fp"], result["fn"]) == (2, 1, 0)
    assert (result["precision"], result["recall"], result["f1"]) == (2 / 3, 1.0, 0.8)
    assert result["mean_center_error_angstrom"] == 0.0


def test_a_center_may_lie_half_a_radius_away_and_no_farther():
    for x, hits in ((25.0, 1), (25.1, 0)):
        assert of_points(listed([[x, 0, 0]]), listed([[0, 0, 0]]))["pooled"]["points"]["tp"] == hits


def test_two_voxels_are_the_least_reach():
    true, predicted = np.zeros((2, *SHAPE), np.int32)
    true[5, 5, 5], predicted[5, 5, 7] = 1, 1  # radius 0.62 voxels
    sides = Side(predicted, None, VOXEL), Side(true, None, VOXEL)
    assert evaluate_sides([("t", *sides)], bootstrap=0)["pooled"]["points"]["tp"] == 1


def test_czii_f_beta_by_class_on_a_hand_made_case():
    """F4 = 17 TP / (17 TP + 16 FN + FP) for each class; the score is the mean over classes."""
    true = listed([[0, 0, 0], [200, 0, 0], [400, 0, 0], [600, 0, 0]], class_name=["a", "a", "a", "b"])
    predicted = listed([[1, 0, 0], [201, 0, 0], [900, 0, 0], [400, 0, 0]], class_name=["a", "a", "a", "b"])
    result = of_points(predicted, true)
    a, b = result["classes"]["a"]["points"], result["classes"]["b"]["points"]
    assert (a["tp"], a["fp"], a["fn"], a["f_beta"]) == (2, 1, 1, pytest.approx(34 / (34 + 16 + 1)))
    assert (b["tp"], b["fp"], b["fn"], b["f_beta"]) == (0, 1, 1, 0.0)
    assert result["macro"]["points"]["f_beta"] == pytest.approx(34 / 51 / 2)
    assert result["pooled"]["points"]["tp"] == 3  # localisation: whatever the class


def test_shrec_rule_asks_whether_the_point_lies_inside_the_true_volume():
    true = Side(four_particles(), None, VOXEL)
    inside, duplicate, outside = [20, 20, 20], [50, 50, 50], [70, 20, 20]  # x, y, z in Å
    result = of_points(listed([inside, duplicate, outside]), true, point_rule="inside")["pooled"]["points"]
    assert (result["tp"], result["fp"], result["fn"]) == (1, 2, 3)


def test_average_precision_worked_out_by_hand():
    predicted = listed([[0, 0, 0], [900, 0, 0], [300, 0, 0]], score=[0.9, 0.8, 0.7])
    result = of_points(predicted, listed([[0, 0, 0], [300, 0, 0], [600, 0, 0]]))["pooled"]["points"]
    assert result["average_precision"] == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    assert [(row["threshold"], row["true_positives"], row["predicted"]) for row in result["sweep"]] == [
        (0.9, 1, 1),
        (0.8, 1, 2),
        (0.7, 2, 3),
    ]


def test_f_beta_of_one_is_f1_and_of_four_prefers_recall():
    assert f_beta(2, 0, 2, 1.0) == pytest.approx(2 / 3)
    assert f_beta(2, 0, 2, 4.0) < f_beta(2, 2, 0, 4.0)


def test_intervals_are_seeded_and_resampling_tomograms_widens_them():
    good = listed(np.arange(60).reshape(20, 3) * 100.0, score=0.5)
    half = listed((np.arange(60).reshape(20, 3) * 100.0)[:10], score=0.5)
    pairs = [("good", good, good), ("bad", half, good)]
    first, second = (evaluate_sides(pairs, bootstrap=200, seed=3)["pooled"]["points"] for _ in range(2))
    assert first == second
    low, high = first["intervals"]["particles"]["recall"]
    assert low < first["recall"] == 0.75 < high
    wide = first["intervals"]["tomograms"]["recall"]
    assert wide[1] - wide[0] > high - low


def test_recall_by_class_needs_no_classes_of_the_predictions():
    true = listed([[0, 0, 0], [200, 0, 0], [400, 0, 0]], class_name=["a", "a", "b"])
    result = of_points(listed([[0, 0, 0], [400, 0, 0], [900, 0, 0]]), true)["classes"]
    assert (result["a"]["points"]["recall"], result["b"]["points"]["recall"]) == (0.5, 1.0)
    assert np.isnan(result["a"]["points"]["precision"])


def test_each_class_may_have_its_own_diameter():
    true = listed([[0, 0, 0], [500, 0, 0]], class_name=["small", "large"], radius=np.nan)
    predicted = listed([[40, 0, 0], [540, 0, 0]])
    result = of_points(predicted, true, particle_diameter={"small": 100.0, "large": 200.0})
    assert [result["classes"][name]["points"]["recall"] for name in ("small", "large")] == [0.0, 1.0]


@pytest.mark.parametrize(
    "options,told",
    [
        ({"bootstrap": 10**9}, "--bootstrap: expected a whole number from 0 to 100,000, got 1,000,000,000"),
        ({"bootstrap": -1}, "--bootstrap: expected a whole number from 0 to 100,000, got -1"),
        ({"seed": -1}, "--seed: expected a whole number from 0"),
        ({"match_fraction": float("inf")}, "match_fraction: expected a number above 0, got inf"),
        ({"beta": float("nan")}, "beta: expected a number above 0, got nan"),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_a_file_is_read(options, told):
    with pytest.raises(ValueError, match=told):
        evaluate("no.csv", "none.csv", **options)
