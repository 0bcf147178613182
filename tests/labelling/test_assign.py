"""assign_instances against floods by Dijkstra, one seed at a time."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from custom_transforms.labelling.assign import assign_instances
from custom_transforms.labelling.components import find_components
from custom_transforms.labelling.flood import Ball, flood_all, nearest_all, seed_rounds, touched_components
from custom_transforms.labelling.seeds import find_seeds
from tests.labelling.plain_instances import plain_labels, plain_nearest, plain_watershed

SHAPE = (12, 20, 28)
VOXEL = np.array([10.0, 10.0, 10.0])


def random_maps(seed, shape=(7, 11, 14), fill=0.5, rough=False):
    """A mask with holes and islands, and a center map whose peaks lie inside and outside it."""
    rng = np.random.default_rng(seed)
    center_map = ndimage.gaussian_filter(rng.normal(size=shape), 1.3)
    center_map = np.clip(center_map / center_map.max(), 0, 1).astype(np.float32)
    if rough:
        center_map = np.round(center_map * 4).astype(np.float32) / 4  # ties everywhere
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 0.8)
    return noise > np.quantile(noise, 1 - fill), center_map


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    fill=st.sampled_from([0.1, 0.4, 0.7, 1.0]),
    rough=st.booleans(),
    radius_max=st.sampled_from([15.0, 30.0, 47.0, 200.0]),
    voxel=st.sampled_from([(10.0, 10.0, 10.0), (20.0, 10.0, 10.0), (7.0, 13.0, 11.0)]),
    method=st.sampled_from(["watershed", "watershed", "nearest", "split"]),
)
def test_labels_equal_the_plain_reference(seed, fill, rough, radius_max, voxel, method):
    mask, center_map = random_maps(seed, fill=fill, rough=rough)
    seeds = [tuple(p) for p in find_seeds(center_map, 0.2, 15.0, np.array(voxel))[0].tolist()]
    if method == "watershed":
        owner = plain_watershed(mask, center_map, seeds, radius_max, voxel)
    else:
        owner = plain_nearest(mask, center_map, seeds, radius_max, voxel, split=method == "split")
    expected, expected_seeds = plain_labels(mask, owner, len(seeds))
    before = mask.copy(), center_map.copy()
    labels, seed_labels = assign_instances(
        mask, center_map, np.array(seeds), method=method, radius_max=radius_max, voxel_size_zyx=np.array(voxel)
    )
    assert labels.dtype == np.int32
    assert np.array_equal(labels, expected)
    assert seed_labels.tolist() == expected_seeds
    assert np.array_equal(mask, before[0]) and np.array_equal(center_map, before[1])


@pytest.mark.parametrize("method", ["watershed", "nearest", "split"])
def test_threads_and_the_order_of_seeds_change_nothing(method):
    mask, center_map = random_maps(5, shape=(20, 24, 60), fill=0.6)
    seeds, _ = find_seeds(center_map, 0.2, 15.0, VOXEL)
    settings_: dict[str, Any] = {"method": method, "radius_max": 40.0, "voxel_size_zyx": VOXEL}
    torch.set_num_threads(3)
    many = assign_instances(mask, center_map, seeds, **settings_)
    torch.set_num_threads(1)
    one = assign_instances(mask, center_map, seeds[::-1], **settings_)
    assert np.array_equal(many[0], one[0])
    assert np.array_equal(many[1], one[1][::-1])


def test_seeds_flooded_at_one_time_never_share_a_voxel():
    peaks = np.argwhere(np.ones((3, 4, 50)))
    ball = Ball(3.0, np.ones(3), (3, 4, 50))
    rounds = seed_rounds(peaks, ball, (3, 4, 50))
    assert sorted(np.concatenate([g for groups in rounds for g in groups])) == list(range(len(peaks)))
    for groups in rounds:
        spans = sorted((peaks[g, 2].min() - 3, peaks[g, 2].max() + 3) for g in groups)
        assert all(a[1] < b[0] for a, b in zip(spans, spans[1:], strict=False))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 12)),
    radius=st.floats(0.3, 14.0),
    weights=st.sampled_from([(1.0, 1.0, 1.0), (4.0, 1.0, 1.0), (1.0, 3.4, 2.5)]),
)
def test_a_ball_that_is_cut_to_the_volume_gives_what_the_whole_ball_gives(seed, shape, radius, weights):
    whole, cut = (Ball(radius, np.array(weights), limit) for limit in ((99, 99, 99), shape))
    grid = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in whole.reach), indexing="ij"), axis=-1)
    inside = (grid**2 * np.array(weights)).sum(axis=-1) <= radius**2
    assert np.array_equal(whole.rows, (inside.sum(axis=2) + 1) // 2 - 1)
    rng = np.random.default_rng(seed)
    mask, center_map = rng.random(shape) < 0.7, rng.random(shape, dtype=np.float32)
    peaks = np.argwhere(rng.random(shape) < 0.1).reshape(-1, 3)
    runs = find_components(mask)
    for one, other in zip(
        flood_all(mask, center_map, peaks, whole), flood_all(mask, center_map, peaks, cut), strict=True
    ):
        assert np.array_equal(one, other)
    allowed = [[touched_components(mask, center_map, runs, peak, ball) for peak in peaks] for ball in (whole, cut)]
    assert all(np.array_equal(*pair) for pair in zip(*allowed, strict=True))
    owners = [nearest_all(runs, shape, peaks, allowed[0], ball) for ball in (whole, cut)]
    assert np.array_equal(*owners)


def test_a_radius_beyond_the_volume_takes_the_memory_of_the_volume():
    ball = Ball(1e9, np.ones(3), (3, 40, 50))
    assert ball.reach.tolist() == [2, 39, 49] and (ball.rows == 49).all()
    with pytest.raises(
        ValueError, match="at most 2,147,483,647 voxels, got one of 1001 x 2001 x 2001. Give the largest"
    ):
        Ball(1e9, np.ones(3), (500, 1000, 1000))


def test_the_result_is_local():
    """Cut a block with a halo out of the volume: labels inside are the same particles."""
    mask, center_map = random_maps(9, shape=(16, 18, 70), fill=0.6)
    seeds, _ = find_seeds(center_map, 0.2, 15.0, VOXEL)
    whole, of_seed = assign_instances(mask, center_map, seeds, radius_max=40.0, voxel_size_zyx=VOXEL, require_seed=True)
    first, last, halo = 25, 45, 8  # a seed within R_max (4) of the block, and its ball (4)
    near = (seeds[:, 2] >= first - 4) & (seeds[:, 2] < last + 4)
    cut = np.s_[:, :, first - halo : last + halo]
    part, of_part = assign_instances(
        mask[cut], center_map[cut], seeds[near] - [0, 0, first - halo],
        radius_max=40.0, voxel_size_zyx=VOXEL, require_seed=True,
    )  # fmt: skip
    to_seed = np.zeros(whole.max() + 1, int)
    to_seed[of_seed] = np.arange(1, len(seeds) + 1)
    part_to_seed = np.zeros(part.max() + 1, int)
    part_to_seed[of_part] = np.flatnonzero(near) + 1
    to_seed[0] = part_to_seed[0] = 0
    inner = np.s_[:, :, halo : halo + last - first]
    assert near.sum() > 4
    assert np.array_equal(part_to_seed[part[inner]], to_seed[whole[:, :, first:last]])


def test_a_map_stored_in_8_bits_floods_like_the_one_it_came_from():
    mask, center_map = random_maps(11)
    seeds, _ = find_seeds(center_map, 0.2, 15.0, VOXEL)
    levels = (np.clip(center_map, 0, 1).astype(np.float32) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    stored = levels / np.float32(255)
    assert np.array_equal(
        assign_instances(mask, center_map, seeds, radius_max=40.0, voxel_size_zyx=VOXEL)[0],
        assign_instances(mask, stored, seeds, radius_max=40.0, voxel_size_zyx=VOXEL)[0],
    )


def shells(centers, outer, inner, shape=SHAPE):
    """Mask of hollow particles, and their Gaussian center map."""
    grid = np.indices(shape)
    distance = np.min([np.sqrt(sum((grid[k] - c[k]) ** 2 for k in range(3))) for c in centers], axis=0)
    return (distance <= outer) & (distance > inner), np.exp(-2 * (distance / outer) ** 2).astype(np.float32)


def test_two_touching_hollow_shells_are_separated():
    centers = [(6, 9, 8), (6, 9, 17)]
    mask, center_map = shells(centers, 5.0, 3.0)
    assert ndimage.label(mask)[1] == 1 and not mask[6, 9, 8]
    labels, seed_labels = assign_instances(
        mask, center_map, np.array(centers), radius_max=75.0, voxel_size_zyx=VOXEL, require_seed=True
    )
    assert seed_labels.tolist() == [1, 2]
    x = np.nonzero(mask)[2]
    assert np.array_equal(labels[mask], np.where(x <= 12, 1, 2))  # x = 12 lies half-way less one half voxel
    assert not labels[~mask].any()


def test_a_seed_in_a_hollow_does_not_leak_into_other_components():
    mask, center_map = shells([(6, 9, 8)], 5.0, 3.0)
    mask[4:9, 7:12, 15:18] = True  # a neighbour without a seed, within R_max
    labels, _ = assign_instances(mask, center_map, np.array([[6, 9, 8]]), radius_max=90.0, voxel_size_zyx=VOXEL)
    assert labels[6, 9, 16] == 2 and (labels[4:9, 7:12, 15:18] == 2).all()


def test_a_broken_shell_and_what_it_holds_stay_one_particle():
    mask, center_map = shells([(6, 9, 13)], 5.0, 3.0)
    mask[:, :, 13] = False  # the shell falls into two halves, as a missing wedge does it
    mask[6, 9, 15] = True  # something small inside
    for method in ("watershed", "nearest", "split"):
        labels, _ = assign_instances(
            mask, center_map, np.array([[6, 9, 13]]), method=method, radius_max=75.0, voxel_size_zyx=VOXEL
        )
        assert np.array_equal(labels, mask.astype(int)), method


def test_voxels_beyond_every_ball_form_their_own_particle():
    mask = np.zeros(SHAPE, bool)
    mask[6, 9, :] = True
    center_map = np.zeros(SHAPE, np.float32)
    center_map[6, 9, 4] = 1.0
    settings_: dict[str, Any] = {"radius_max": 60.0, "voxel_size_zyx": VOXEL}
    labels, _ = assign_instances(mask, center_map, np.array([[6, 9, 4]]), **settings_)
    assert labels[6, 9].tolist() == [1] * 11 + [2] * 17
    assert assign_instances(mask, center_map, np.array([[6, 9, 4]]), require_seed=True, **settings_)[0].max() == 1
    assert assign_instances(mask, center_map, np.array([[6, 9, 4]]), min_size_voxels=18, **settings_)[0].max() == 1
    split, _ = assign_instances(mask, center_map, np.array([[6, 9, 4]]), method="split", **settings_)
    assert split[6, 9].tolist() == [1] * 28  # one seed: the component is not split


def test_a_seed_without_mask_has_label_zero_and_leaves_no_gap():
    mask = np.zeros(SHAPE, bool)
    mask[6, 9, 10:20] = True
    center_map = np.zeros(SHAPE, np.float32)
    center_map[1, 1, 1] = center_map[6, 9, 12] = 1.0
    labels, seed_labels = assign_instances(
        mask, center_map, np.array([[1, 1, 1], [6, 9, 12]]), radius_max=90.0, voxel_size_zyx=VOXEL
    )
    assert seed_labels.tolist() == [0, 1] and labels.max() == 1


@pytest.mark.parametrize("method", ["watershed", "nearest", "split"])
def test_no_seeds_and_no_mask_work(method):
    settings_: dict[str, Any] = {"method": method, "radius_max": 90.0, "voxel_size_zyx": VOXEL}
    mask = np.zeros(SHAPE, bool)
    labels, seed_labels = assign_instances(mask, np.zeros(SHAPE), np.zeros((0, 3)), **settings_)
    assert not labels.any() and seed_labels.shape == (0,)
    mask[2:5, 2:5, 2:5] = mask[8:, 15:, 20:] = True
    assert assign_instances(mask, np.zeros(SHAPE), np.zeros((0, 3)), **settings_)[0].max() == 2


def test_flipped_maps_give_flipped_labels():
    mask, center_map = random_maps(21, shape=SHAPE, fill=0.5)
    seeds, _ = find_seeds(center_map, 0.2, 25.0, VOXEL)
    voxel = np.array([11.0, 10.0, 9.3])
    labels, of_seed = assign_instances(mask, center_map, seeds, radius_max=70.0, voxel_size_zyx=voxel)
    distances = np.sort(cdist(np.argwhere(mask) * voxel, seeds * voxel), axis=1)
    tied = np.zeros(SHAPE, bool)  # as near to two seeds: those go by z, y, x, which a flip turns round
    tied[mask] = ((np.diff(distances, axis=1) < 1e-6) & (distances[:, 1:] <= 70.0)).any(axis=1)
    seeded = np.isin(labels, of_seed[of_seed > 0]) & ~tied
    assert seeded.sum() > 2000
    for axis in range(3):
        flipped = seeds.copy()
        flipped[:, axis] = SHAPE[axis] - 1 - flipped[:, axis]
        other, of_other = assign_instances(
            np.flip(mask, axis), np.flip(center_map, axis), flipped, radius_max=70.0, voxel_size_zyx=voxel
        )
        to_other = np.zeros(labels.max() + 1, int)
        to_other[of_seed] = of_other
        back = np.flip(other, axis)
        assert np.array_equal(back[seeded], to_other[labels[seeded]])
        assert np.array_equal(back > 0, labels > 0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "flood"}, "method: expected one of watershed, nearest, split, got 'flood'"),
        ({"radius_max": 0.0}, "radius_max: expected a number above 0 in Å, got 0.0"),
        ({"mask": np.zeros((2, 3, 4), bool)}, r"mask and center_map: expected one shape, got \(2, 3, 4\)"),
        ({"peaks_zyx": np.array([[0, 0, 28]])}, r"seeds: expected indices \(z, y, x\) inside the volume"),
    ],
)
def test_wrong_settings_say_what_was_expected(changed, message):
    arguments = {"mask": np.zeros(SHAPE, bool), "center_map": np.zeros(SHAPE), "peaks_zyx": np.zeros((0, 3))}
    with pytest.raises(ValueError, match=message):
        assign_instances(**{**arguments, "radius_max": 9.0, "voxel_size_zyx": VOXEL, **changed})
