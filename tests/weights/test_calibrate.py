"""calibrate: the chosen thresholds are the best ones, found without running post-processing for each."""

from __future__ import annotations

import json

import numpy as np
import pytest
from monai.bundle import ConfigParser

from custom_transforms.labelling.refine import refine_seeds
from custom_transforms.labelling.seeds import find_seeds
from custom_transforms.measuring.instance_centers import instance_centers
from custom_transforms.targets import center_target
from custom_transforms.units import ParticleSizes
from scripts.matching.points import match_points, match_radius
from scripts.matching.scores import f_beta
from scripts.weights.calibrate import calibrate
from scripts.weights.center_thresholds import CalibrationSample, choose_center_threshold
from scripts.weights.thresholds import choose_thresholds

DIAMETER, VOXEL = 70.0, np.array([10.0, 10.0, 10.0])


def sample(seed: int = 0):
    """Balls under noisy maps: true peaks 0.6 to 1, false ones up to 0.4, a mask that is right at about 0.5."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((24, 40, 56), np.int32)
    grid = np.stack(np.meshgrid(*map(np.arange, labels.shape), indexing="ij"), -1)
    for i, center in enumerate(np.argwhere(np.ones((2, 3, 5))) * (12, 12, 11) + 6, start=1):
        labels[((grid - center) ** 2).sum(-1) <= 3.3**2] = i
    centers = center_target(labels, VOXEL) * rng.choice([0.6, 0.8, 1.0], labels.max() + 1)[labels]
    for place in rng.integers(0, labels.shape, (25, 3)):
        if labels[tuple(place)] == 0:
            centers[tuple(place)] = rng.uniform(0.1, 0.4)
    probability = np.clip((labels > 0) * 0.5 + 0.25 + rng.normal(0, 0.06, labels.shape), 0, 1)
    return probability.astype(np.float32), centers.astype(np.float32), labels, VOXEL


def test_thresholds_separate_what_the_maps_separate():
    chosen = choose_thresholds([sample(0), sample(1)], DIAMETER)
    assert 0.4 < chosen["center_threshold"] < 0.62
    assert 0.3 <= chosen["mask_threshold"] <= 0.7
    assert 0 < chosen["min_size"] < np.pi / 6 * DIAMETER**3 / 2
    assert chosen["scores"]["centers"]["f_beta"] == chosen["scores"]["instances"]["f_beta"] == 1.0
    assert (chosen["n_tomograms"], chosen["n_particles"]) == (2, 60)


def test_the_center_curve_equals_finding_and_matching_anew_at_each_threshold():
    samples = [sample(2), sample(3)]
    sizes = ParticleSizes.from_diameter(DIAMETER)
    grid = (0.15, 0.3, 0.5, 0.7, 0.9)
    _, curve = choose_center_threshold([CalibrationSample(*s) for s in samples], sizes, beta=2.0, grid=grid)
    for row in curve:
        tp = n = n_true = 0
        for _, center_map, labels, voxel in samples:
            peaks, _ = find_seeds(center_map, row["center_threshold"], sizes.min_distance, voxel)
            found, _ = refine_seeds(center_map, peaks, DIAMETER / 4, voxel)
            _, true, diameters = instance_centers(labels, voxel)
            tp += len(match_points(found * 10, true * 10, match_radius(diameters / 2, voxel)).true)
            n, n_true = n + len(found), n_true + len(true)
        assert row["f_beta"] == pytest.approx(float(f_beta(tp, n - tp, n_true - tp, 2.0)))


def test_overlay_holds_the_three_values_and_where_they_come_from(tmp_path):
    chosen = calibrate(
        lambda: [sample(0)],
        tmp_path / "new" / "thresholds.json",
        DIAMETER,
        source="set A",
        method="nearest",
        radius_max=60.0,
        networks={"voxel_size_model": 10.0, "largest_tile_side": 96},
    )
    overlay = json.loads((tmp_path / "new" / "thresholds.json").read_text(encoding="utf-8"))
    assert set(overlay) == {
        *("_desc_", "particle_diameter", "mask_threshold", "center_threshold", "min_size", "method", "radius_max"),
        *("voxel_size_model", "largest_tile_side"),
    }
    assert (overlay["method"], overlay["voxel_size_model"]) == ("nearest", 10.0)
    for diameter in (DIAMETER, 2 * DIAMETER):  # lengths of another diameter follow
        parser = ConfigParser({**overlay, "particle_diameter": diameter})
        scale = diameter / DIAMETER
        assert parser.get_parsed_content("radius_max") == pytest.approx(60.0 * scale)
        assert parser.get_parsed_content("min_size") == pytest.approx(chosen["min_size"] * scale**3)
    assert overlay["center_threshold"] == pytest.approx(chosen["center_threshold"])
    assert "on set A: 1 tomograms, 30 particles of 70 Å" in overlay["_desc_"]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["thresholds.json"]


def test_errors_say_what_is_missing():
    probability, centers, labels, voxel = sample(0)
    with pytest.raises(ValueError, match="expected validation tomograms, got none"):
        choose_thresholds([], DIAMETER)
    with pytest.raises(ValueError, match="expected particles in the validation labels, got none"):
        choose_thresholds([(probability, centers, labels * 0, voxel)], DIAMETER)
    with pytest.raises(ValueError, match="no peak of the center maps reaches 0.05"):
        choose_thresholds([(probability, centers * 0, labels, voxel)], DIAMETER)
    with pytest.raises(ValueError, match="three volumes of one shape"):
        choose_thresholds([(probability[1:], centers, labels, voxel)], DIAMETER)


def test_each_class_has_the_threshold_that_its_own_peaks_ask_for():
    """Peaks of one class are three quarters as high as those of the other; so are its false ones."""
    probability, center_map, labels, voxel = sample(5)
    of_label = {int(label): "high" if label % 2 else "low" for label in np.unique(labels[labels > 0])}
    is_low = np.array([of_label.get(label, "high") == "low" for label in range(labels.max() + 1)])[labels]
    low = center_target(np.where(is_low, labels, 0), voxel) * 0.35
    high = np.where((labels > 0) & is_low, 0, center_map)
    maps = [np.maximum(high, 0).astype(np.float32), low.astype(np.float32)]
    highest = np.maximum(*maps)
    calibration = CalibrationSample(probability, highest, labels, voxel, maps, of_label)
    chosen = choose_thresholds([calibration], DIAMETER, beta=4.0, classes=["high", "low"])
    assert 0.4 < chosen["center_threshold"]["high"] < 0.62 and chosen["center_threshold"]["low"] <= 0.35
    assert all(row["f_beta"] > 0.99 for row in chosen["scores"]["centers"].values())
    assert set(chosen["curves"]["center"]) == {"high", "low"}
    sizes = choose_thresholds(
        [calibration], {"high": DIAMETER, "low": DIAMETER / 2}, beta=4.0, classes=["high", "low"], size_grid=[0.2]
    )["min_size"]
    assert sizes == pytest.approx({"high": 0.2 * np.pi / 6 * DIAMETER**3, "low": 0.2 * np.pi / 6 * DIAMETER**3 / 8})
    single = choose_thresholds([calibration], DIAMETER, beta=4.0)
    assert single["scores"]["centers"]["f_beta"] < 0.999  # one threshold for both takes false peaks, or misses
    with pytest.raises(ValueError, match="expected particles and peaks of a, b in the validation tomograms, got none"):
        choose_thresholds([calibration], DIAMETER, classes=["a", "b"])


def test_few_particles_leave_the_shipped_threshold_and_many_leave_it_behind():
    rng = np.random.default_rng(0)

    def heights(n):
        """Peaks of n particles and as many false ones, best told apart at 0.45; F1 at 0.6 is lower."""
        centers = np.zeros((8, 8, 8 * 2 * n), np.float32)
        labels = np.zeros(centers.shape, np.int32)
        for number in range(2 * n):
            place = (4, 4, 8 * number + 4)
            true = number % 2 == 0
            centers[place] = np.clip(rng.normal(0.65 if true else 0.25, 0.1), 0.06, 1)
            if true:
                labels[3:6, 3:6, 8 * number + 3 : 8 * number + 6] = number + 1
        return CalibrationSample((labels > 0).astype(np.float32) * 0.8, centers, labels, VOXEL)

    shipped = {"center_threshold": 0.6, "mask_threshold": 0.4}
    options = {"particle_diameter": 30.0, "shipped": shipped}
    few, many = (choose_thresholds([heights(n)], **options) for n in (3, 150))
    low, high = few["intervals"]["center_threshold"]
    assert low <= few["center_threshold"] <= high and high - low > 0.1
    assert abs(few["center_threshold"] - 0.6) < abs(many["center_threshold"] - 0.6)
    assert many["center_threshold"] == many["intervals"]["center_threshold"][1] < 0.55
    assert few["mask_threshold"] == many["mask_threshold"] == 0.4
