"""evaluate: overlaps, point matching, files; every fast path beside plain lines."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from PIL import Image

from custom_transforms.io import read_tomogram, write_mrc
from custom_transforms.measuring.instance_centers import instance_centers
from custom_transforms.volumes.zarr_write import write_labels_zarr
from scripts.command_line.verbs import evaluate as run_evaluate
from scripts.evaluation.evaluate import EvaluationWarning, evaluate
from scripts.evaluation.pair import Rules
from scripts.evaluation.picture import recorded_slice
from scripts.evaluation.sides import Side, points_of, read_side
from scripts.matching.centers import filled_centers
from scripts.matching.overlap import overlap_table
from scripts.matching.points import match_points
from scripts.matching.volumes import judge_volumes, volume_counts, volume_scores
from scripts.particles.particle_list import ParticleList
from scripts.records.detection import DetectionRecord
from scripts.sources.labels_and_lists import find_sides
from tests.evaluation.in_memory import evaluate_sides

SHAPE = (12, 20, 28)
VOXEL = np.array([10.0, 10.0, 10.0])


def four_particles() -> np.ndarray:
    labels = np.zeros(SHAPE, np.int32)
    labels[2:6, 2:6, 2:6] = 1
    labels[2:6, 2:6, 8:12] = 2
    labels[6:10, 12:16, 4:8] = 3
    labels[6:10, 12:16, 20:24] = 7
    return labels


def scores_of(true: np.ndarray, predicted: np.ndarray, rule: str = "main", border: str = "count") -> dict[str, float]:
    found = judge_volumes(overlap_table(true, predicted), rule, border)
    counts = volume_counts(found.true_status, found.predicted_status, found.matched_iou)
    return {**counts, **volume_scores(counts)}


# volumes


@pytest.mark.parametrize("rule", ["main", "original"])
def test_perfect_prediction_of_four_particles_scores_one_everywhere(rule):
    """Defect 1 of the original: it counted the background and gave recall 0.8."""
    labels = four_particles()
    side = Side(labels, voxel_size_zyx=VOXEL)
    pooled = evaluate_sides([("t", side, side)], Rules(rule=rule), bootstrap=50)["pooled"]
    for name in ("precision", "recall", "f1", "panoptic_quality", "segmentation_quality", "recognition_quality"):
        assert pooled["volume"][name] == 1.0
    for name in ("precision", "recall", "f1", "f_beta"):
        assert pooled["points"][name] == 1.0
    assert pooled["volume"]["n_true"] == pooled["volume"]["n_predicted"] == 4
    assert pooled["volume"]["merged_rate"] == pooled["volume"]["split_rate"] == 0.0
    assert pooled["points"]["mean_center_error_angstrom"] == 0.0
    assert pooled["points"]["intervals"]["particles"]["recall"] == [1.0, 1.0]


@pytest.mark.parametrize("rule", ["main", "original"])
def test_one_blob_over_two_particles_makes_both_merged(rule):
    true, predicted = four_particles(), four_particles()
    predicted[2:6, 2:6, 2:12] = 1  # covers particles 1 and 2 and the gap
    scores = scores_of(true, predicted, rule)
    assert (scores["tp"], scores["merged"], scores["merged_predicted"], scores["fp"], scores["fn"]) == (2, 2, 1, 0, 0)
    assert (scores["precision"], scores["recall"], scores["merged_rate"]) == (2 / 3, 0.5, 0.5)
    assert scores["f1"] == 4 / 7


def test_one_particle_in_two_pieces_is_split():
    true, predicted = four_particles(), four_particles()
    predicted[2:6, 2:6, 4:6] = 9
    scores = scores_of(true, predicted)
    assert (scores["tp"], scores["split"], scores["split_predicted"], scores["fp"], scores["fn"]) == (3, 1, 2, 0, 0)
    assert (scores["precision"], scores["recall"], scores["split_rate"]) == (3 / 5, 3 / 4, 1 / 4)


def test_a_mere_touch_counts_nothing_because_background_competes():
    true, predicted = np.zeros((2, *SHAPE), np.int32)
    true[2:6, 2:6, 2:6] = 1
    predicted[5:9, 5:9, 5:9] = 1  # one voxel in common
    scores = scores_of(true, predicted)
    assert (scores["tp"], scores["fn"], scores["fp"], scores["panoptic_quality"]) == (0, 1, 1, 0.0)


def test_shift_by_one_voxel_is_found_with_the_iou_worked_out():
    true, predicted = np.zeros((2, *SHAPE), np.int32)
    true[2:6, 2:6, 2:6] = 1
    predicted[2:6, 2:6, 3:7] = 4  # 48 voxels in common, 80 in all
    result = evaluate_sides([("t", Side(predicted, None, VOXEL), Side(true, None, VOXEL))], bootstrap=0)["pooled"]
    assert result["volume"]["panoptic_quality"] == pytest.approx(48 / 80)
    assert result["points"]["mean_center_error_angstrom"] == pytest.approx(10.0)


def test_empty_prediction_empty_truth_and_both():
    full, empty = four_particles(), np.zeros(SHAPE, np.int32)
    nothing_found = scores_of(full, empty)
    assert (nothing_found["recall"], nothing_found["f1"], nothing_found["panoptic_quality"]) == (0, 0, 0)
    assert math.isnan(nothing_found["precision"])
    nothing_there = scores_of(empty, full)
    assert (nothing_there["precision"], nothing_there["f1"]) == (0, 0)
    assert math.isnan(nothing_there["recall"]) and math.isnan(nothing_there["merged_rate"])
    assert math.isnan(scores_of(empty, empty)["f1"])
    for predicted, true in ((full, empty), (empty, full), (empty, empty)):
        sides = Side(predicted, None, VOXEL), Side(true, None, VOXEL)
        points = evaluate_sides([("t", *sides)], bootstrap=20)["pooled"]["points"]
        assert points["tp"] == 0 and math.isnan(points["mean_center_error_angstrom"])


def test_ignored_voxels_belong_to_nobody():
    true, predicted = four_particles(), four_particles()
    true[0:12, 0:20, 24:28] = -1
    predicted[2:6, 2:6, 25:28] = 11  # inside the ignored region: left out
    predicted[6:10, 12:16, 20:28] = 7  # its ignored half must not lower the IoU
    scores = scores_of(true, predicted)
    assert (scores["n_predicted"], scores["fp"], scores["panoptic_quality"]) == (4, 0, 1.0)
    sides = Side(predicted, None, VOXEL), Side(true, None, VOXEL)
    assert evaluate_sides([("t", *sides)], bootstrap=0)["pooled"]["points"]["fp"] == 0


def test_border_rule_leaves_out_what_touches_a_face():
    true = four_particles()
    true[0:3, 17:20, 0:3] = 4  # touches three faces, missed
    predicted = four_particles()
    predicted[9:12, 0:3, 25:28] = 8  # touches, false
    counted, left_out = scores_of(true, predicted), scores_of(true, predicted, border="ignore")
    assert (counted["fn"], counted["fp"]) == (1, 1)
    assert (left_out["fn"], left_out["fp"], left_out["f1"]) == (0, 0, 1.0)
    sides = Side(predicted, None, VOXEL), Side(true, None, VOXEL)
    assert evaluate_sides([("t", *sides)], Rules(border="ignore"), bootstrap=0)["pooled"]["points"]["f1"] == 1.0


def plain_overlaps(true: np.ndarray, predicted: np.ndarray) -> dict[tuple[int, int], int]:
    counts: dict[tuple[int, int], int] = {}
    for t, p in zip(true.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if t >= 0:
            counts[t, p] = counts.get((t, p), 0) + 1
    return counts


def random_labels(seed: int, shape=(5, 7, 9), n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(-1, n, size=(2, *(s // 2 + 1 for s in shape)))
    fine = coarse.repeat(2, 1).repeat(2, 2).repeat(2, 3)[:, : shape[0], : shape[1], : shape[2]]
    noisy = np.where(rng.random((2, *shape)) < 0.2, rng.integers(0, n, (2, *shape)), fine)
    return noisy[0], np.maximum(np.where(rng.random(shape) < 0.6, noisy[0], noisy[1]), 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from([np.int16, np.int32, np.int64, np.float32]))
def test_overlap_table_equals_plain_counting(seed, threads, dtype):
    true, predicted = random_labels(seed)
    table = overlap_table(true.astype(dtype), predicted, threads)
    found = zip(table.true.tolist(), table.predicted.tolist(), table.voxels.tolist(), strict=True)
    assert {(t, p): n for t, p, n in found} == plain_overlaps(true, predicted)
    particles = table.predicted_particles
    for i, label in enumerate(particles.ids):
        at = np.argwhere(predicted == label)
        assert particles.voxels[i] == len(at)
        assert particles.ignored[i] == np.count_nonzero(true[predicted == label] < 0)
        np.testing.assert_allclose(particles.centers_zyx_vox[i], at.mean(axis=0))
        assert particles.touches_border[i] == ((at == 0) | (at == np.array(true.shape) - 1)).any()


def plain_panoptic(true: np.ndarray, predicted: np.ndarray) -> float:
    """Kirillov et al. 2019, eq. 1, voxel sets of Python."""
    truths = {i: {tuple(v) for v in np.argwhere(true == i)} for i in np.unique(true) if i > 0}
    predictions = {i: {tuple(v) for v in np.argwhere(predicted == i)} for i in np.unique(predicted) if i > 0}
    ious = [len(a & b) / len(a | b) for a in truths.values() for b in predictions.values()]
    matched = [iou for iou in ious if iou > 0.5]
    return sum(matched) / ((len(truths) + len(predictions)) / 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_panoptic_quality_equals_the_published_formula_on_voxel_sets(seed):
    true, predicted = random_labels(seed)
    true = np.maximum(true, 0)
    assert scores_of(true, predicted)["panoptic_quality"] == pytest.approx(plain_panoptic(true, predicted))


def test_panoptic_quality_equals_monai():
    import torch
    from monai.metrics.panoptic_quality import compute_panoptic_quality

    true, predicted = (np.maximum(a, 0).astype(np.int32) for a in random_labels(5))
    torch_pair = torch.from_numpy(predicted), torch.from_numpy(true)
    expected = compute_panoptic_quality(*torch_pair, metric_name="pq", remap=True, match_iou_threshold=0.5)
    assert scores_of(true, predicted)["panoptic_quality"] == pytest.approx(float(expected), rel=1e-4)


def plain_statuses(true: np.ndarray, predicted: np.ndarray) -> tuple[dict, dict]:
    """The rule of DESIGN in words; only for cases without ties."""
    pairs = plain_overlaps(true, predicted)
    truths, predictions = ({i for i in np.unique(a).tolist() if i > 0} for a in (true, predicted))
    main_of_true = {t: max((n, p) for (a, p), n in pairs.items() if a == t)[1] for t in truths}
    main_of_predicted = {p: max((n, t) for (t, b), n in pairs.items() if b == p)[1] for p in predictions}
    true_status, predicted_status = {}, {}
    for t, p in main_of_true.items():
        served = [u for u in truths if p and main_of_true[u] == p]
        pieces = [q for q in predictions if main_of_predicted[q] == t]
        found = p and main_of_predicted[p] == t
        true_status[t] = "merged" if len(served) > 1 else "split" if len(pieces) > 1 else "TP" if found else "FN"
    for p, t in main_of_predicted.items():
        served = [u for u in truths if main_of_true[u] == p]
        pieces = [q for q in predictions if t and main_of_predicted[q] == t]
        found = t and main_of_true[t] == p
        predicted_status[p] = "merged" if len(served) > 1 else "split" if len(pieces) > 1 else "TP" if found else "FP"
    return true_status, predicted_status


def has_ties(pairs: dict[tuple[int, int], int]) -> bool:
    """Whether some particle has two main overlaps."""
    for side, i in {(side, key[side]) for key in pairs for side in (0, 1) if key[side]}:
        counts = sorted(n for key, n in pairs.items() if key[side] == i)
        if counts[-2:-1] == counts[-1:]:
            return True
    return False


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000))
def test_verdicts_follow_the_rule_in_words_and_ids_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    true, predicted = (np.maximum(a, 0) for a in random_labels(seed))
    found = judge_volumes(overlap_table(true, predicted))
    renamed = [np.concatenate([[0], rng.permutation(5_000)[:8] + 1])[a] for a in (true, predicted)]
    counts = volume_counts(found.true_status, found.predicted_status, found.matched_iou)
    again = judge_volumes(overlap_table(*renamed))
    assert counts == pytest.approx(volume_counts(again.true_status, again.predicted_status, again.matched_iou))
    pairs = plain_overlaps(true, predicted)
    event(f"ties: {has_ties(pairs)}")
    if not has_ties(pairs):
        table = overlap_table(true, predicted)
        expected = plain_statuses(true, predicted)
        assert dict(zip(table.true_particles.ids.tolist(), found.true_status.tolist(), strict=True)) == expected[0]
        assert (
            dict(zip(table.predicted_particles.ids.tolist(), found.predicted_status.tolist(), strict=True))
            == expected[1]
        )


def test_an_id_used_far_apart_is_not_filled_box_by_box():
    labels = np.zeros((40, 60, 80), np.int32)
    labels[0, 0, 0] = labels[0, 0, 2] = labels[39, 59, 79] = 3
    found = filled_centers(labels, VOXEL)
    np.testing.assert_allclose(found.centers_zyx_vox, [[13, 59 / 3, 27]])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([4.0, 10.0]))
def test_filled_centers_equal_those_of_the_targets(seed, voxel_size):
    labels = random_labels(seed, shape=(7, 9, 11), n=4)[0].astype(np.int16)
    labels[1:6, 2:7, 3:8] = 9
    labels[3, 4, 4:6] = 0  # a hole
    size = np.array([voxel_size, voxel_size, 2 * voxel_size])
    fast, plain = filled_centers(labels, size), instance_centers(labels, size)
    for ours, theirs in zip(fast, plain, strict=True):
        np.testing.assert_allclose(ours, theirs)


# files


def colour_in(picture, colour) -> list[float]:
    """Where a colour is, as a fraction of the picture's height and width, the legend left out; [] if nowhere."""
    pixels = np.asarray(Image.open(picture).convert("RGB"), int)
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    found = np.argwhere((np.abs(pixels - [red, green, blue]) < 3).all(-1))
    found = found[found[:, 0] < 0.85 * len(pixels)]
    return (found.mean(axis=0) / pixels.shape[:2]).tolist() if len(found) else []


def test_the_picture_has_row_0_at_the_top_the_colours_of_the_report_and_the_tomogram_beneath(tmp_path):
    """A slice of the middle half, though most voxels of particles are at a face."""
    shape = (16, 40, 40)
    true, predicted = np.zeros(shape, np.int16), np.zeros(shape, np.int16)
    true[0, :, :] = predicted[0, :, :] = 9  # most voxels
    true[6:9, 2:8, 2:8] = 1  # missed, at the top left
    predicted[6:9, 30:36, 2:8] = 4  # false, at the bottom left
    true[7:10, 2:8, 30:36] = predicted[7:10, 2:8, 30:36] = 2
    folder = tmp_path / "a"
    folder.mkdir()
    for path, volume in ((folder / "a_instances.mrc", predicted), (tmp_path / "a_labels.mrc", true)):
        write_mrc(path, volume, 10.0)
    result = evaluate(folder / "a_instances.mrc", tmp_path / "a_labels.mrc", tmp_path / "out", bootstrap=0)
    (picture,) = [path for path in result["files"] if path.endswith(".png")]
    missed, false, right = (colour_in(picture, colour) for colour in ("#55c8ff", "#ff5a6e", "#5fe08a"))
    assert missed[0] < 0.4 < 0.6 < false[0] and abs(missed[1] - false[1]) < 0.02 and right[1] > 0.6
    assert right[0] == pytest.approx(missed[0], abs=0.02)
    tomogram = np.zeros(shape, np.float32)
    tomogram[7] = np.linspace(0, 1, 40)  # slice 7 is the middle one of 7 and 8
    write_mrc(tmp_path / "a.mrc", tomogram, 10.0)
    known = {"shape_zyx": list(shape), "voxel_size_zyx_angstrom": [10.0] * 3}
    inputs = {"tomogram": {"path": str(tmp_path / "a.mrc")}}
    record = DetectionRecord(inputs=inputs, tomogram=known, particles={}, files={})
    (folder / "a.json").write_text(record.text())
    np.testing.assert_array_equal(recorded_slice(folder / "a_instances.mrc", shape, 7), tomogram[7])
    assert recorded_slice(folder / "a_instances.mrc", (16, 40, 41), 7) is None
    assert recorded_slice(tmp_path / "a_labels.mrc", shape, 7) is None and recorded_slice(None, shape, 7) is None
    before = Path(picture).read_bytes()
    evaluate(folder, tmp_path / "a_labels.mrc", tmp_path / "out", bootstrap=0)
    assert Path(picture).read_bytes() != before
    (folder / "a.json").write_text("{")
    with pytest.warns(UserWarning, match=r"drawn without the tomogram: .*a\.json: expected JSON"):
        assert recorded_slice(folder / "a_instances.mrc", shape, 7) is None


def test_coloured_volume_paints_verdicts_whatever_the_ids(tmp_path):
    """Defect 2 of the original: it painted 1, 2, 3 over ids 1, 2, 3, so a merged blob could come out as TP."""
    true = four_particles()
    predicted = np.zeros(SHAPE, np.int32)
    predicted[2:6, 2:6, 2:12] = 3  # merges 1 and 2 under an id that is also a colour
    predicted[6:10, 12:16, 4:8] = 2  # finds 3
    predicted[0:2, 0:2, 26:28] = 1  # false
    for name, volume in (("a_instances.mrc", predicted), ("a_labels.mrc", true)):
        write_mrc(tmp_path / name, volume, 10.0)
    result = evaluate(tmp_path / "a_instances.mrc", tmp_path / "a_labels.mrc", tmp_path / "out")
    painted, _ = read_tomogram(tmp_path / "out" / "a_evaluation.mrc", check="labels")
    expected = np.zeros(SHAPE, int)
    expected[2:6, 2:6, 2:12] = 2
    expected[6:10, 12:16, 4:8] = 1
    expected[6:10, 12:16, 20:24] = 3
    expected[0:2, 0:2, 26:28] = 3
    np.testing.assert_array_equal(painted, expected)
    assert (tmp_path / "out" / "a_evaluation.png").read_bytes()[:4] == b"\x89PNG"
    assert not any(colour_in(tmp_path / "out" / "a_evaluation.png", "#c9a0ff"))  # nothing is split
    matches = pd.read_csv(tmp_path / "out" / "matches.csv")
    by_side = {
        side: dict(zip(rows[f"{side}_label"], rows["outcome"], strict=True)) for side, rows in matches.groupby("side")
    }
    assert by_side["true"] == {1: "merged", 2: "merged", 3: "TP", 7: "FN"}
    assert by_side["predicted"] == {3: "merged", 2: "TP", 1: "FP"}
    assert "background covers most of it" in matches["reason"].tolist()
    stored = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert stored["pooled"]["volume"]["f1"] == result["pooled"]["volume"]["f1"] == 2 * 1 / 7
    metrics = pd.read_csv(tmp_path / "out" / "metrics.csv")
    assert metrics[["tomogram", "class"]].values.tolist() == [["a", "all"], ["all", "all"]]


def write_table(path, centers_zyx_vox, voxel_size, **columns):
    z, y, x = np.asarray(centers_zyx_vox, float).T
    table = {f"{a}_vox": v for a, v in zip("xyz", (x, y, z), strict=True)}
    table |= {f"{a}_angstrom": v * voxel_size for a, v in zip("xyz", (x, y, z), strict=True)}
    pd.DataFrame({"label": np.arange(1, len(z) + 1), **table, **columns}).to_csv(path, index=False)


def test_folders_are_matched_by_name_and_lists_compared_in_angstrom(tmp_path):
    """The predicted list is binned by two: its voxels differ, its Å agree."""
    centers = np.argwhere(np.ones((2, 2, 2))) * 20.0 + 10.0
    for name in ("TS_1", "TS_2", "TS_3"):
        (tmp_path / "found" / name).mkdir(parents=True)
        write_table(tmp_path / "found" / name / f"{name}_particles.csv", centers / 2, 20.0, score=0.5)
        (tmp_path / "truth" / name).mkdir(parents=True)
        write_table(tmp_path / "truth" / name / "particles.csv", centers, 10.0)
    (tmp_path / "truth" / "TS_3" / "particles.csv").unlink()
    with pytest.warns(UserWarning, match="no truth for TS_3"):
        result = evaluate(tmp_path / "found", tmp_path / "truth", particle_diameter=100, bootstrap=0)
    assert sorted(result["tomograms"]) == ["TS_1", "TS_2"]
    assert result["pooled"]["points"]["tp"] == 16 and result["pooled"]["points"]["f1"] == 1.0
    assert result["unmatched"] == {"only_predicted": ["TS_3"], "only_true": []}


def test_a_list_without_labels_is_joined_to_its_volume_by_position(tmp_path):
    labels = np.zeros((30, 40, 56), np.int32)
    z, y, x = np.ogrid[:30, :40, :56]
    labels[(z - 12) ** 2 + (y - 12) ** 2 + (x - 12) ** 2 <= 16] = 1
    labels[(z - 15) ** 2 + (y - 22) ** 2 + (x - 38) ** 2 <= 144] = 2  # reaches 60 Å: half its radius
    write_mrc(tmp_path / "t" / "T_labels.mrc", labels, 10.0)
    write_table(tmp_path / "p_particles.csv", [[12, 12, 12], [15, 27.5, 38]], 10.0)
    for order in (["12 12 12 small", "38 22 15 big"], ["38 22 15 big", "12 12 12 small"]):
        rows = [row.split() for row in order]
        table = pd.DataFrame(rows, columns=["x_vox", "y_vox", "z_vox", "class"])
        table.to_csv(tmp_path / "t" / "T_particles.csv", index=False)
        found = evaluate(tmp_path / "p_particles.csv", tmp_path / "t" / "T_labels.mrc", bootstrap=0)
        assert found["pooled"]["points"]["tp"] == 2
    sides = find_sides(tmp_path / "t", "true")["T"]
    points = points_of(read_side(sides), VOXEL)
    assert dict(zip(points.class_name, points.label, strict=True)) == {"small": 1, "big": 2}


def test_a_label_that_two_rows_claim_or_none_is_unknown():
    labels = four_particles()
    centers = np.array([[3, 3, 3], [4, 4, 4], [5, 13, 7], [27, 0, 0], [900, 0, 0]]) * 10.0
    side = Side(labels, ParticleList(centers), VOXEL)
    assert points_of(side, VOXEL).label.tolist() == [0, 0, 3, 0, 0]
    written = Side(labels, ParticleList(centers, extra=pd.DataFrame({"label": ["1", "", "", "7", ""]})), VOXEL)
    assert points_of(written, VOXEL).label.tolist() == [1, 0, 3, 7, 0]


def test_names_of_all_programs_meet(tmp_path):
    pytest.importorskip("zarr")
    made = {
        "found/TS_001_rec/TS_001_rec_instances.mrc": "true/TS_001.rec",
        "found/TS_002_10.00Apx/TS_002_10.00Apx_instances.mrc": "true/rec_TS_002_labels.mrc",
        "found/vlp_006/vlp_006_instances.mrc": "true/vlp_006/labels.mrc",
    }
    for one in (name for pair in made.items() for name in pair if "TS_001.rec" not in name):
        write_mrc(tmp_path / one, four_particles(), 10.0)
    write_labels_zarr(tmp_path / "true" / "TS_001_labels.ome.zarr", four_particles(), 10.0)
    result = evaluate(tmp_path / "found", tmp_path / "true", bootstrap=0)
    assert sorted(result["tomograms"]) == ["TS_001", "TS_002", "vlp_006"] and not any(result["unmatched"].values())
    assert result["pooled"]["volume"]["f1"] == 1.0
    for one in ("TS_001_labels.ome.zarr", "TS_001_labels.ome.zarr/0"):
        assert list(find_sides(tmp_path / "true" / one, "true")) == ["TS_001"]


def test_two_tomograms_of_one_name_are_refused_with_both_files(tmp_path):
    items = []
    for folder in ("a", "b"):
        write_mrc(tmp_path / folder / "TS_01_labels.mrc", four_particles(), 10.0)
        items.append({"image": f"{folder}/TS_01.mrc", "label": f"{folder}/TS_01_labels.mrc"})
    (tmp_path / "dataset.json").write_text(json.dumps({"test": items}))
    with pytest.raises(
        ValueError, match=r"a/TS_01_labels.mrc and .*b/TS_01_labels.mrc are both of the tomogram 'TS_01'"
    ):
        find_sides(tmp_path, "true")
    items[1]["image"], items[0]["image"] = "b/tomogram.mrc", "a/tomogram.mrc"
    (tmp_path / "dataset.json").write_text(json.dumps({"test": items, "validation": items[:1]}))
    assert sorted(find_sides(tmp_path, "true")) == ["a", "b"]


def test_the_command_line_prints_each_warning_once(tmp_path, capsys, recwarn):
    write_mrc(tmp_path / "a_instances.mrc", four_particles(), 1.0)
    write_mrc(tmp_path / "a_labels.mrc", four_particles(), 1.0)
    run_evaluate(str(tmp_path / "a_instances.mrc"), str(tmp_path / "a_labels.mrc"), str(tmp_path / "o"), bootstrap=0)
    printed = capsys.readouterr().err
    assert printed.count("the voxel size is unknown") == 1 and not recwarn.list
    with pytest.warns(EvaluationWarning, match="the voxel size is unknown"):
        result = evaluate(tmp_path / "a_instances.mrc", tmp_path / "a_labels.mrc", bootstrap=0)
    assert printed.splitlines() == [f"warning: {one}" for one in result["warnings"]]


def test_a_picture_that_cannot_be_written_costs_no_numbers(tmp_path, monkeypatch):
    write_mrc(tmp_path / "a_instances.mrc", four_particles(), 10.0)
    monkeypatch.setattr("scripts.evaluation.outputs.write_picture", lambda *_: (tmp_path / "none" / "a").write_text(""))
    with pytest.warns(UserWarning, match="a: not shown in colour: .*No such file"):
        result = evaluate(tmp_path / "a_instances.mrc", tmp_path / "a_instances.mrc", tmp_path / "out", bootstrap=0)
    assert [Path(file).name for file in result["files"]][-1] == "a_evaluation.mrc"
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_errors_say_what_was_expected_and_what_came(tmp_path):
    write_mrc(tmp_path / "a_instances.mrc", four_particles(), 10.0)
    write_mrc(tmp_path / "b_labels.mrc", four_particles()[:-1], 10.0)
    write_mrc(tmp_path / "c_labels.mrc", four_particles(), 13.0)
    write_table(tmp_path / "points.csv", [[5, 5, 5]], 10.0)
    with pytest.raises(ValueError, match=r"over the same voxels .*\(12, 20, 28\) and \(11, 20, 28\)"):
        evaluate(tmp_path / "a_instances.mrc", tmp_path / "b_labels.mrc")
    with pytest.raises(ValueError, match="one voxel size .* 10 x 10 x 10 .* and 13 x 13 x 13"):
        evaluate(tmp_path / "a_instances.mrc", tmp_path / "c_labels.mrc")
    with pytest.raises(ValueError, match="1 of 1 true particles have no radius .* --particle_diameter"):
        evaluate(tmp_path / "a_instances.mrc", tmp_path / "points.csv")
    with pytest.raises(FileNotFoundError, match="nowhere: expected true particles: .* found nothing there"):
        evaluate(tmp_path / "a_instances.mrc", tmp_path / "nowhere")
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        write_mrc(tmp_path / name / f"{name}_labels.mrc", four_particles(), 10.0)
    with pytest.raises(ValueError, match="same tomogram names .* predicted has left, truth has right"):
        evaluate(tmp_path / "left", tmp_path / "right")
    with pytest.raises(ValueError, match="rule: expected one of main, original, got 'other'"):
        evaluate(tmp_path / "a_instances.mrc", tmp_path / "a_instances.mrc", rule="other")


def test_65536_particles_keep_their_ids():
    true = np.zeros((32, 128, 66), np.int32)
    places = np.argwhere(np.ones((16, 64, 66)))[:65_536] * (2, 2, 1)
    true[tuple(places.T)] = np.arange(1, 65_537)
    predicted = np.where(true > 0, 65_537 - true, 0)
    scores = scores_of(true, predicted)
    assert (scores["tp"], scores["n_true"], scores["f1"], scores["panoptic_quality"]) == (65_536, 65_536, 1.0, 1.0)
    found = match_points(places * 10.0, places[::-1] * 10.0, 4.0)
    assert len(found.true) == 65_536 and found.distances.max() == 0
