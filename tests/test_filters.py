"""filters: particles go, stay or are flagged by where they are, and table and labels go on telling the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy.ndimage import gaussian_filter, label

from custom_transforms.filters import (
    ExcludeParticlesd,
    FilterByDistanced,
    FlagGoldd,
    distances_to_segmentation,
)
from custom_transforms.instances import PARTICLE_COLUMNS
from custom_transforms.io import write_instances, write_mrc
from custom_transforms.measuring.gold import GOLD_FLATNESS, gold_beads
from custom_transforms.measuring.particle_table import measure_particles

SHAPE, VOXEL = (24, 40, 56), np.array([10.0, 10.0, 10.0])
DIAMETER = 60.0
CENTERS = np.array([[4, 10, 10], [12, 20, 12], [12, 20, 30], [18, 33, 48], [2, 20, 50]], float)


def ball(center, radius):
    return ((np.indices(SHAPE) - np.reshape(center, (3, 1, 1, 1))) ** 2).sum(axis=0) <= radius**2


def detection(centers=CENTERS, radius=2.0, image=None):
    """Data as it leaves FilterParticlesd: labels, table, image."""
    labels = np.zeros(SHAPE, np.int32)
    for number, center in enumerate(centers, start=1):
        labels[ball(center, radius)] = number
    table = measure_particles(
        labels, (labels > 0).astype(np.float32), np.arange(1, len(centers) + 1), np.reshape(centers, (-1, 3)),
        np.ones(len(centers)), voxel_size_zyx=VOXEL, center_threshold=0.5, neighbor_distance=150.0,
    )  # fmt: skip
    meta = {"voxel_size_zyx": VOXEL, "filename_or_obj": "/data/TS_01.mrc.gz"}
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32) if image is None else image
    return {
        "instances": MetaTensor(torch.from_numpy(labels[None]), meta=dict(meta)),
        "image": MetaTensor(torch.from_numpy(image[None]), meta=dict(meta)),
        "particles": table,
    }


def check_agree(before, after):
    """Labels 1..n in the volume are the rows with them, with the voxels they had; the rest is unchanged."""
    table, labels = after["particles"], np.asarray(after["instances"])[0]
    old = np.asarray(before["instances"])[0]
    kept = table[table["label"] > 0]
    assert sorted(kept["label"]) == list(range(1, len(kept) + 1)) and labels.max(initial=0) == len(kept)
    for new, was in zip(kept["label"], before["particles"].loc[kept.index, "label"], strict=True):
        assert np.array_equal(labels == new, old == was)
    assert list(table.columns[: len(PARTICLE_COLUMNS)]) == list(PARTICLE_COLUMNS)
    assert list(table["particle_id"]) == list(before["particles"]["particle_id"])
    assert ((table["dropped_by"] == "") == (table["label"] > 0)).all()
    assert old.max() == len(before["particles"]) and set(before["particles"]["dropped_by"]) <= {""}  # input untouched


@pytest.fixture
def membrane(tmp_path):
    """A sheet of one voxel at x = 20; particles are 10, 8, 10, 28 and 30 voxels away."""
    mask = np.zeros(SHAPE, np.int8)
    mask[:, :, 20] = 1
    write_mrc(tmp_path / "TS_01.mrc", mask, 10.0)
    return str(tmp_path / "{name}.mrc")


def test_distances_are_those_to_the_nearest_voxel():
    mask = np.zeros((6, 8, 10), bool)
    mask[2, 3, 4] = mask[5, 7, 9] = True
    voxel = np.array([20.0, 10.0, 5.0])
    points = np.argwhere(np.ones_like(mask)).astype(float)
    expected = np.min(np.linalg.norm((points[:, None] - np.argwhere(mask)) * voxel, axis=2), axis=1)
    np.testing.assert_allclose(distances_to_segmentation(points, mask, voxel), expected, rtol=1e-5)
    between = distances_to_segmentation(np.array([[2.0, 3.0, 5.5]]), mask, voxel)
    np.testing.assert_allclose(between, [7.5], rtol=1e-5)
    assert np.isinf(distances_to_segmentation(points, mask & False, voxel)).all()
    assert distances_to_segmentation(np.zeros((0, 3)), mask, voxel).shape == (0,)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"max_distance": 100, "action": "keep"}, [1, 2, 3]),
        ({"max_distance": 100, "action": "drop"}, [4, 5]),
        ({"min_distance": 90, "max_distance": 290, "action": "keep"}, [1, 3, 4]),
        ({"min_distance": 300, "action": "drop"}, [1, 2, 3, 4]),
    ],
)
def test_particles_are_kept_or_dropped_by_their_distance_to_a_membrane(membrane, options, kept):
    before = detection()
    after = FilterByDistanced(particle_diameter=DIAMETER, segmentation=membrane, **options)(before)
    check_agree(before, after)
    table = after["particles"]
    assert list(table.loc[table["label"] > 0, "particle_id"]) == kept
    assert set(table.loc[table["label"] == 0, "dropped_by"]) == {"membrane"}
    assert table["membrane_distance_angstrom"].tolist() == [100, 80, 100, 280, 300]


def test_flagging_keeps_every_particle_and_adds_to_earlier_flags(membrane):
    before = detection()
    near = FilterByDistanced(particle_diameter=DIAMETER, segmentation=membrane, max_distance=90, action="flag")
    far = FilterByDistanced(
        particle_diameter=DIAMETER, segmentation=membrane, max_distance=120, action="flag", name="close"
    )
    after = Compose([near, far])(before)
    check_agree(before, after)
    assert after["particles"]["flags"].tolist() == ["close", "membrane,close", "close", "", ""]
    assert after["instances"] is before["instances"]


def test_excluded_places_and_edges_lose_their_particles(tmp_path):
    mask = np.zeros(SHAPE, np.int8)
    mask[12, 20, 12] = 1  # the center of the second
    mask[ball(CENTERS[2], 2)] = 1  # all of the third but its center
    mask[12, 20, 30] = 0
    mask[18, 33, 49] = 1  # a corner of the fourth
    write_mrc(tmp_path / "ice.mrc", mask, 10.0)
    before = detection()
    after = ExcludeParticlesd(particle_diameter=DIAMETER, mask=str(tmp_path / "ice.mrc"), edge_margin=40.0)(before)
    check_agree(before, after)
    assert after["particles"]["dropped_by"].tolist() == ["", "exclude", "exclude", "", "edge"]
    assert ExcludeParticlesd(particle_diameter=DIAMETER)(before)["instances"] is before["instances"]
    deep = ExcludeParticlesd(particle_diameter=DIAMETER, edge_margin=25.0)(before)
    assert (deep["particles"]["dropped_by"] == "").all()  # 25 Å is where the fifth is: 2.5 voxels from the face
    assert (
        ExcludeParticlesd(particle_diameter=DIAMETER, edge_margin=25.1)(before)["particles"]["label"] == 0
    ).sum() == 1


def test_gold_is_flagged_and_protein_is_not():
    rng = np.random.default_rng(1)
    image = rng.normal(0, 1, SHAPE)
    image[ball(CENTERS[0], 4)] += 3  # protein
    image[ball(CENTERS[1], 3)] += 40  # a bead of 60 Å
    image[ball(CENTERS[2], 9)] += 40  # 180 Å, larger than allowed here
    image[tuple(CENTERS[3].astype(int))] += 40  # a hot voxel
    before = detection(image=image.astype(np.float32))
    after = FlagGoldd(diameters=(30, 150))(before)
    check_agree(before, after)
    assert after["particles"]["flags"].tolist() == ["", "gold", "", "", ""]
    assert "flags" not in FlagGoldd(active=False)(before)["particles"]
    by_slices = [Sliced(np.asarray(before[key])[0]) for key in ("image", "instances")]
    flagged = FlagGoldd(diameters=(30, 150)).flagged(before["particles"], *by_slices, VOXEL)
    pd.testing.assert_frame_equal(flagged, after["particles"])


@pytest.mark.parametrize("seed", range(4))
def test_gold_in_a_growing_window_is_gold_in_a_whole_one(seed):
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.normal(0, 1, SHAPE), 1.5) * 4
    for center, radius in zip(rng.uniform(0, SHAPE, (14, 3)), rng.uniform(0.5, 8, 14), strict=True):
        image[ball(center, radius)] += 12
    labels, count = label(image > 5)
    table = pd.DataFrame({"label": np.arange(1, count + 1)})
    diameters, deviations, reach = (30.0, 120.0), 6.0, 12

    def plain(number):
        peak = np.array(np.unravel_index(np.argmax(np.where(labels == number, image, -np.inf)), SHAPE))
        first = np.maximum(peak - reach, 0)
        window = image[tuple(slice(a, b + reach + 1) for a, b in zip(first, peak, strict=True))] - middle
        parts, _ = label(window > window[tuple(peak - first)] / 2)
        bead = parts == parts[tuple(peak - first)]
        mean, diameter = window[bead].mean(), np.cbrt(bead.sum() * 1000 * 6 / np.pi)
        flat = mean >= GOLD_FLATNESS * window[tuple(peak - first)]
        return 30 <= diameter <= 120 and mean >= deviations * spread and flat

    middle = np.median(image)
    spread = 1.4826 * np.median(np.abs(image - middle))
    expected = np.array([plain(number) for number in table["label"]])
    assert expected.any() and not expected.all()
    np.testing.assert_array_equal(gold_beads(image, labels, table, VOXEL, diameters, deviations), expected)


class Sliced:
    """A volume that is only ever sliced, as one larger than memory."""

    def __init__(self, volume):
        self.volume, self.shape = volume, volume.shape

    def __getitem__(self, index):
        return self.volume[index]


@pytest.mark.parametrize(
    "file",
    [
        "TS_001_10.00Apx.mrc",
        "rec_TS_001.mrc",
        "p/ExperimentRuns/TS_001/VoxelSpacing10.000/wbp.zarr",
        "TS_001/tomogram.mrc",
    ],
)
def test_a_mask_is_found_by_the_name_of_the_tomogram_however_a_program_spells_it(tmp_path, file):
    write_mrc(tmp_path / "TS_001_mask.mrc", np.ones(SHAPE, np.int8), 10.0)
    step = ExcludeParticlesd(particle_diameter=DIAMETER, mask=str(tmp_path / "{name}_mask.mrc"))
    assert step.mask_file(file) == tmp_path / "TS_001_mask.mrc"
    before = detection()
    before["instances"].meta["filename_or_obj"] = file
    assert (step(before)["particles"]["dropped_by"] == "exclude").all()
    with pytest.raises(FileNotFoundError, match="TS_002_mask.mrc: no such file. Check the path; {name} in it stands"):
        step.mask_file("TS_002.mrc")


def test_zero_particles_pass_every_filter(membrane):
    before = detection(centers=np.zeros((0, 3)))
    chain = Compose(
        [
            FilterByDistanced(particle_diameter=DIAMETER, segmentation=membrane, max_distance=50),
            ExcludeParticlesd(particle_diameter=DIAMETER, mask=membrane, edge_margin=30),
            FlagGoldd(),
        ]
    )
    after = chain(before)
    assert len(after["particles"]) == 0 and int(after["instances"].max()) == 0
    assert pd.api.types.is_object_dtype(after["particles"]["flags"])


def test_masks_that_do_not_fit_are_told(tmp_path):
    before = detection()
    write_instances(tmp_path / "small.mrc", np.ones((4, 5, 6), np.int16), 10.0)
    with pytest.raises(ValueError, match=r"expected a mask of the tomogram's shape \(Z, Y, X\) \(24, 40, 56\), got"):
        ExcludeParticlesd(particle_diameter=DIAMETER, mask=str(tmp_path / "small.mrc"))(before)
    with pytest.raises(FileNotFoundError, match="no such file"):
        FilterByDistanced(particle_diameter=DIAMETER, segmentation=str(tmp_path / "no.mrc"), max_distance=1)(before)
    with pytest.raises(ValueError, match="action: expected one of keep, drop, flag, got 'remove'"):
        FilterByDistanced(particle_diameter=DIAMETER, action="remove")
    with pytest.raises(ValueError, match="got a segmentation without a distance. Give --membrane and"):
        FilterByDistanced(particle_diameter=DIAMETER, segmentation="m.mrc")
    with pytest.raises(ValueError, match="got a distance without a segmentation. Give --membrane and"):
        FilterByDistanced(particle_diameter=DIAMETER, max_distance=50)
    for limits in ({"min_distance": 50.0, "max_distance": 10.0}, {"max_distance": -5.0}):
        with pytest.raises(ValueError, match="membrane: expected a smallest distance below the largest, got"):
            FilterByDistanced(particle_diameter=DIAMETER, segmentation="m.mrc", **limits)
    with pytest.raises(ValueError, match="edge_margin: expected 0 Å"):
        ExcludeParticlesd(particle_diameter=DIAMETER, edge_margin=-1)


def test_volumes_without_a_voxel_size_are_refused_in_words():
    data = detection()
    plain = {**data, "instances": data["instances"].as_tensor()}
    with pytest.raises(ValueError, match="instances: expected voxel_size_zyx .* found none"):
        ExcludeParticlesd(particle_diameter=DIAMETER, edge_margin=1.0)(plain)
    with pytest.raises(ValueError, match="image: expected voxel_size_zyx .* found none"):
        FlagGoldd()({**data, "image": data["image"].as_tensor()})
