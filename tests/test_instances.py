"""The chain of post-processing transforms, and what the original got wrong in it."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from custom_transforms.instances import (
    PARTICLE_COLUMNS,
    AssignInstancesd,
    FilterParticlesd,
    FindSeedsd,
    MaskFromProbabilityd,
    MeasureParticlesd,
    SplitPredictiond,
    detect_instances,
)

SHAPE = (24, 30, 40)
VOXEL = np.array([10.0, 10.0, 10.0])
DIAMETER = 100.0
CENTERS = np.array([(8.0, 8.5, 8.0), (8.0, 8.5, 17.6), (15.0, 20.5, 11.0), (13.5, 19.0, 30.0)])


def perfect_maps(voxel=VOXEL, centers=CENTERS, hollow=(2,)):
    """Probability, center map and truth of four particles: two that touch, a hollow one, a lone one."""
    grid = np.indices(SHAPE).reshape(3, -1).T * voxel
    distance = np.linalg.norm(grid[:, None] - np.asarray(centers) * voxel, axis=2)
    nearest = distance.argmin(axis=1)
    nearest_distance = distance.min(axis=1)
    truth = np.where(nearest_distance <= DIAMETER / 2, nearest + 1, 0)
    for k in hollow:
        truth[(nearest == k) & (nearest_distance <= 0.6 * DIAMETER / 2)] = 0
    probability = np.where(truth > 0, 0.98, 0.02).reshape(SHAPE).astype(np.float32)
    center_map = np.exp(-8 * (nearest_distance / DIAMETER) ** 2).reshape(SHAPE).astype(np.float32)
    return probability, center_map, truth.reshape(SHAPE)


def prediction(probability, center_map, voxel=VOXEL):
    logit = np.log(probability / (1 - probability))
    return MetaTensor(
        torch.from_numpy(np.stack([logit, center_map]).astype(np.float32)),
        meta={"voxel_size_zyx": voxel, "filename_or_obj": "tomo.mrc"},
    )


def chain(method="watershed", split_options=None, **filters):
    common: dict[str, Any] = {"particle_diameter": DIAMETER}
    return Compose(
        [
            SplitPredictiond(keys="pred", **(split_options or {})),
            MaskFromProbabilityd(keys="probability", threshold=0.5, **common),
            FindSeedsd(keys="center_map", threshold=0.3, **common),
            AssignInstancesd(keys="center_map", method=method, **common),
            MeasureParticlesd(keys="instances", **common),
            FilterParticlesd(keys="instances", **{**common, **filters}),
        ]
    )


@pytest.mark.parametrize("method", ["watershed", "nearest", "split"])
@pytest.mark.parametrize("voxel", [(10.0, 10.0, 10.0), (12.0, 10.0, 9.0)])
def test_perfect_maps_of_four_particles_give_four_labels_and_four_rows(method, voxel):
    voxel = np.array(voxel)
    centers = CENTERS * VOXEL / voxel
    probability, center_map, truth = perfect_maps(voxel, centers)
    labels, table = detect_instances(probability, center_map, voxel, DIAMETER, 0.5, 0.3, method)
    assert labels.shape == SHAPE and labels.dtype == np.int32
    assert sorted(np.unique(labels)) == [0, 1, 2, 3, 4]
    assert table["label"].tolist() == [1, 2, 3, 4] and table["dropped_by"].tolist() == [""] * 4
    order = np.lexsort(np.round(centers).T[::-1])  # ids follow the seeds' z, y, x
    expected = np.zeros(5, int)
    expected[order + 1] = [1, 2, 3, 4]
    agreement = labels == expected[truth]
    assert agreement.mean() > 0.999 and np.array_equal(labels > 0, truth > 0)
    found = table[["z_vox", "y_vox", "x_vox"]].to_numpy()
    assert np.abs(found - centers[order]).max() < 0.1  # sub-voxel, not cut to integers
    assert (table["score"] > 0.9).all() and (table["volume_vox"] == np.bincount(labels.ravel())[1:]).all()


@pytest.mark.parametrize("method", ["watershed", "nearest", "split"])
def test_the_first_center_is_not_lost_and_background_is_no_particle(method):
    """Defect 3 of the original: its first center got label 0."""
    probability, center_map, _ = perfect_maps()
    labels, table = detect_instances(probability, center_map, VOXEL, DIAMETER, 0.5, 0.3, method)
    assert labels[8, 8, 8] == 1  # the original gave label 0 to its first center
    assert len(table) == 4 and table["volume_vox"].sum() == (labels > 0).sum() < labels.size / 2


def test_the_chain_of_transforms_equals_the_function_and_keeps_metadata():
    probability, center_map, _ = perfect_maps()
    data = {"pred": prediction(probability, center_map), "image": "kept"}
    before = data["pred"].clone()
    result = chain()(data)
    labels, table = detect_instances(
        result["probability"].numpy()[0], result["center_map"].numpy()[0], VOXEL, DIAMETER, 0.5, 0.3
    )
    assert np.array_equal(result["instances"].numpy()[0], labels)
    pd.testing.assert_frame_equal(result["particles"], table)
    assert set(data) == {"pred", "image"} and torch.equal(data["pred"], before)  # the input is untouched
    assert "pred" not in result and result["image"] == "kept"
    for key in ("probability", "center_map", "foreground", "instances"):
        assert isinstance(result[key], MetaTensor) and result[key].shape == (1, *SHAPE)
        assert result[key].meta["filename_or_obj"] == "tomo.mrc"
    assert result["instances"].dtype == torch.int32 and result["foreground"].dtype == torch.bool
    assert result["seeds"].labels.tolist() == [1, 2, 3, 4]


def test_half_precision_maps_and_reused_memory_give_the_same_particles():
    probability, center_map, _ = perfect_maps()
    expected = chain()({"pred": prediction(probability, center_map)})
    half = chain(split_options={"dtype": "float16"})({"pred": prediction(probability, center_map)})
    reused = chain(split_options={"in_place": True}, in_place=True)({"pred": prediction(probability, center_map)})
    assert half["center_map"].dtype == torch.float16
    assert (half["instances"] == expected["instances"]).float().mean() > 0.999
    assert torch.equal(reused["instances"], expected["instances"])
    pd.testing.assert_frame_equal(reused["particles"], expected["particles"])


def test_center_map_is_clipped_and_probability_is_a_sigmoid():
    raw = MetaTensor(torch.tensor([[0.0, 2.0], [-0.3, 1.4]]).reshape(2, 1, 1, 2), meta={"voxel_size_zyx": VOXEL})
    split = SplitPredictiond()({"pred": raw})
    assert split["center_map"].flatten().tolist() == [0.0, 1.0]
    np.testing.assert_allclose(split["probability"].flatten(), [0.5, 1 / (1 + np.exp(-2))], rtol=1e-6)


def test_filtered_particles_are_listed_not_deleted():
    """Defect 8 of the original: nothing told what its filter had deleted."""
    probability, center_map, _ = perfect_maps()
    result = chain(neighbor_number=1, neighbor_distance=120.0)({"pred": prediction(probability, center_map)})
    particles = result["particles"]
    assert particles["particle_id"].tolist() == [1, 2, 3, 4]
    assert particles["dropped_by"].tolist() == ["", "", "neighbors", "neighbors"]
    assert particles["label"].tolist() == [1, 2, 0, 0]
    assert sorted(result["instances"].unique().tolist()) == [0, 1, 2]
    small = chain(min_size=4.5e5)({"pred": prediction(probability, center_map)})["particles"]
    assert small["dropped_by"].tolist().count("size") == 1  # the hollow one


def test_a_component_without_a_seed_stays_one_particle_unless_a_seed_is_required():
    probability, center_map, truth = perfect_maps()
    center_map[truth == 4] = 0
    labels, table = detect_instances(probability, center_map, VOXEL, DIAMETER, 0.5, 0.3)
    assert len(table) == 4 and table["label"].iloc[-1] == 4
    assert np.array_equal(labels == 4, truth == 4)
    np.testing.assert_allclose(table[["z_vox", "y_vox", "x_vox"]].iloc[-1], CENTERS[3], atol=0.05)
    assert table["score"].iloc[-1] == pytest.approx(0.98 * 0.3, abs=1e-6)
    assert len(detect_instances(probability, center_map, VOXEL, DIAMETER, 0.5, 0.3, require_seed=True)[1]) == 3


def test_a_seed_without_mask_is_listed_as_such():
    probability, center_map, truth = perfect_maps()
    probability[truth == 4] = 0.02
    labels, table = detect_instances(probability, center_map, VOXEL, DIAMETER, 0.5, 0.3)
    dropped = table[table["dropped_by"] == "no_mask"]
    assert len(table) == 4 and len(dropped) == 1 and labels.max() == 3
    assert dropped[["label", "volume_vox", "score"]].to_numpy().tolist() == [[0, 0, 0]]


def test_empty_maps_give_zero_particles_with_all_columns():
    maps = np.full((2, *SHAPE), 0.02, np.float32)
    result = chain()({"pred": prediction(*maps)})
    assert len(result["particles"]) == 0 and list(result["particles"].columns) == list(PARTICLE_COLUMNS)
    assert result["instances"].shape == (1, *SHAPE) and not result["instances"].any()


def test_flipping_the_input_flips_the_labels():
    rng = np.random.default_rng(0)
    probability, center_map, _ = perfect_maps()
    center_map = np.clip(center_map + 0.02 * rng.random(SHAPE), 0, 1).astype(np.float32)
    labels, table = detect_instances(probability, center_map, VOXEL, DIAMETER, 0.5, 0.3)
    for axis in range(3):
        other, other_table = detect_instances(
            np.flip(probability, axis), np.flip(center_map, axis), VOXEL, DIAMETER, 0.5, 0.3
        )
        back = np.flip(other, axis)
        pairs = np.unique(np.stack([labels.ravel(), back.ravel()]), axis=1, return_counts=True)
        assert np.sort(pairs[1])[::-1][:5].sum() > 0.999 * labels.size  # one to one, but for ties between seeds
        assert np.array_equal(back > 0, labels > 0)
        assert sorted(other_table["score"].round(6)) == sorted(table["score"].round(6))


def test_volumes_without_a_channel_axis_work_too():
    probability, center_map, _ = perfect_maps()
    data: dict[Hashable, Any] = {
        "probability": MetaTensor(torch.from_numpy(probability), meta={"voxel_size_zyx": VOXEL})
    }
    mask = MaskFromProbabilityd(threshold=0.5, particle_diameter=DIAMETER)(data)["foreground"]
    assert mask.shape == SHAPE


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: SplitPredictiond()({"pred": torch.zeros(1, 3, 4, 5)}), r"pred: expected \(2, Z, Y, X\).*got \(1, 3"),
        (lambda: SplitPredictiond(dtype="int8"), "dtype: expected float32 or float16, got 'int8'"),
        (lambda: AssignInstancesd(method="x", particle_diameter=1.0), "method: expected one of watershed"),
        (
            lambda: FindSeedsd(threshold=0.3, particle_diameter=9.0)({"center_map": torch.zeros(1, 3, 4, 5)}),
            "center_map: expected voxel_size_zyx .* in its metadata, found none",
        ),
        (
            lambda: FindSeedsd(threshold=0.3, particle_diameter=9.0)({
                "center_map": MetaTensor(torch.zeros(2, 3, 4, 5), meta={"voxel_size_zyx": VOXEL})
            }),
            r"center_map: expected \(1, Z, Y, X\) or \(Z, Y, X\), got \(2, 3, 4, 5\)",
        ),
    ],
)  # fmt: skip
def test_wrong_use_says_what_was_expected(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_measuring_before_assigning_says_what_is_missing():
    probability, center_map, _ = perfect_maps()
    data = SplitPredictiond()({"pred": prediction(probability, center_map)})
    data = FindSeedsd(threshold=0.3, particle_diameter=DIAMETER)(data)
    data["instances"] = data["center_map"]
    with pytest.raises(ValueError, match="Put AssignInstancesd before this transform"):
        MeasureParticlesd(particle_diameter=DIAMETER)(data)
