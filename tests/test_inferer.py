"""Inference over a whole tomogram: tiles, flips, what is skipped, memory, and other voxel sizes."""

import logging
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer

from custom_transforms.io import write_mrc
from custom_transforms.volumes.rescale import model_shape, rescale_volume, rescaled_slabs
from scripts.detection.plan import Plan, check_disk, make_plan
from scripts.inferer import FLIPS, TomogramInferer
from scripts.tiling.choice import LARGEST_SIDE, OVERLAP, choose_tile, computed_share, starts_along
from scripts.tiling.forward_memory import forward_bytes
from scripts.tiling.tiles import TileGrid
from scripts.tiling.windows import reflect_to_length


class Blur(torch.nn.Module):
    """Two outputs of a reach of 2 voxels, symmetric under all flips; counts the tiles it sees."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, image):
        self.seen += len(image)
        smooth = torch.nn.functional.avg_pool3d(image, 5, 1, 2, count_include_pad=False)
        return torch.cat([2 * smooth, smooth.abs()], dim=1)


@pytest.fixture
def image():
    return torch.randn(1, 1, 20, 44, 36, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode,overlap", [("gaussian", 0.25), ("constant", 0.5), ("gaussian", 0.6), ("gaussian", 0)])
def test_tiles_are_blended_as_monai_blends_them(image, mode, overlap):
    depth = 16 if overlap else 8  # without overlap, one layer of tiles begins where the one before ends
    options = {"roi_size": (depth, 24, 20), "overlap": overlap, "mode": mode}
    theirs = SlidingWindowInferer(sw_batch_size=3, **options)(image, Blur())
    ours = TomogramInferer(sw_batch_size=3, amp=False, **options)(image, Blur())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_one_tile_equals_many_tiles_away_from_their_borders(image):
    """Farther from the tiles' borders than the network reaches, only rounding differs; near them 5 % on average."""
    whole = TomogramInferer((20, 44, 36), amp=False)(image, Blur())
    tiled = TomogramInferer((20, 24, 20), overlap=0.5, amp=False)(image, Blur())
    assert (whole - tiled).abs().mean() < 0.06 * whole.abs().mean()
    grid = TileGrid((20, 44, 36), (20, 24, 20), 0.5)
    inner = torch.ones(44, 36, dtype=torch.bool)  # not within 2 voxels of an inner border of any tile
    for axis, (starts, tile) in enumerate(zip(grid.starts[1:], grid.tile[1:], strict=True)):
        for edge in {s for s in starts if s} | {s + tile for s in starts[:-1]}:
            index = [slice(None)] * 2
            index[axis] = slice(edge - 2, edge + 2)
            inner[tuple(index)] = False
    assert inner.float().mean() > 0.2
    torch.testing.assert_close(whole[..., inner], tiled[..., inner], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "shape,most",
    [
        ((464, 928, 928), 1.9),
        ((128, 256, 256), 1.6),
        ((300, 960, 928), 1.95),
        ((200, 400, 500), 1.85),
        ((50, 700, 700), 2.0),  # 50 planes take 64
    ],
)
def test_chosen_tiles_compute_few_voxels_twice_and_overlap_everywhere(shape, most):
    tile = choose_tile(shape)
    assert computed_share(shape, tile, OVERLAP) <= most < computed_share(shape, (96, 96, 96), 0.25)
    assert all(side % 16 == 0 and side <= LARGEST_SIDE for side in tile)
    for size, side in zip(shape, tile, strict=True):
        starts = starts_along(max(size, side), side, OVERLAP)
        assert starts[0] == 0 and starts[-1] == max(size - side, 0)
        assert all(0 < b - a <= side - OVERLAP for a, b in zip(starts[:-1], starts[1:], strict=True))
        assert all(start % 16 == 0 for start in starts[:-1]), "tiles lie on the grid of the networks' poolings"


@pytest.mark.parametrize(("shape", "most"), [((464, 928, 928), 1.35), ((128, 256, 256), 1.25), ((232, 464, 464), 1.25)])
def test_tiles_of_networks_that_take_longer_sides_compute_hardly_a_voxel_twice(shape, most):
    tile = choose_tile(shape, largest_side=256)
    assert computed_share(shape, tile, OVERLAP) <= most and 96 < max(tile) <= 256
    network = torch.nn.Conv3d(1, 2, 3, padding=1)
    assert make_plan(shape, network, memory=60, largest_side=256).tile == tile


def test_a_tile_chosen_within_bounds_is_no_larger():
    for bound in (10**5, 10**6, 10**7):
        assert np.prod(choose_tile((464, 928, 928), OVERLAP, bound)) <= bound
    assert choose_tile((5, 20, 90)) == (32, 32, 96)
    assert TomogramInferer(amp=False)(torch.zeros(1, 1, 5, 20, 40), Blur()).shape == (1, 2, 5, 20, 40)


def test_thin_overlaps_hide_what_the_faces_of_tiles_spoil():
    """Within 2 voxels of its faces a tile is wrong; where corners meet, gaussian weights let that in, ramps do not."""
    image = torch.randn(1, 1, 20, 120, 108, generator=torch.Generator().manual_seed(3))
    whole = TomogramInferer((20, 120, 108), amp=False)(image, Blur())
    worst = {}
    for mode in ("ramp", "gaussian"):
        tiled = TomogramInferer((20, 64, 64), overlap=8, amp=False, mode=mode)(image, Blur())
        worst[mode] = float((tiled - whole).abs().max() / whole.std())
    assert worst["ramp"] < 0.15 and worst["gaussian"] > 2 * worst["ramp"], worst


@pytest.mark.parametrize("as_on_a_gpu", [False, True])
def test_weights_sum_to_one_wherever_a_tile_is_wanted(as_on_a_gpu):
    grid = TileGrid((20, 30, 26), (12, 12, 12), 0.4)
    if as_on_a_gpu:  # where the weights are computed as tensors
        grid._importance = torch.from_numpy(grid._importance)
    grid.wanted[0, 1, :] = False
    grid.wanted[1, 0, 1:] = False
    total, uncovered = torch.zeros(20, 30, 26), torch.zeros(20, 30, 26, dtype=torch.bool)
    for k in range(grid.wanted.shape[0]):
        for wanted in (True, False):
            for index in grid.layer(k, wanted):
                box = tuple(slice(s, s + 12) for s in grid.start(index))
                if wanted:
                    total[box] += grid.weights(index)
                else:
                    uncovered[box] |= grid.uncovered(index)
    torch.testing.assert_close(total, 1.0 - uncovered.float())
    assert uncovered.any()


@pytest.mark.parametrize("tta", [2, 4, 8])
def test_flips_change_nothing_for_a_symmetric_network_and_are_undone_for_another(image, tta):
    options = {"roi_size": (16, 24, 20), "amp": False}
    symmetric = Blur()
    plain = TomogramInferer(**options)(image, symmetric)
    tiles, symmetric.seen = symmetric.seen, 0
    torch.testing.assert_close(TomogramInferer(tta=tta, **options)(image, symmetric), plain, rtol=1e-5, atol=1e-6)
    assert symmetric.seen == tta * tiles and len(set(FLIPS[tta])) == tta
    shift = lambda tile: torch.roll(tile, 1, dims=4)  # noqa: E731
    moved = TomogramInferer((20, 44, 36), amp=False, tta=tta)(image, shift)
    expected = (torch.roll(image, 1, dims=4) + torch.roll(image, -1, dims=4)) / 2
    torch.testing.assert_close(moved, expected, msg="x is flipped in half of the passes, and flipped back")


def test_skipping_constant_tiles_changes_nothing_outside_them(image):
    image[..., 20:] = 0.5
    options = {"roi_size": (10, 12, 8), "amp": False}
    all_tiles, some = Blur(), Blur()
    full = TomogramInferer(**options)(image, all_tiles)
    skipped = TomogramInferer(background=[-20.0, 0.0], **options)(image, some)
    assert some.seen < 0.8 * all_tiles.seen
    torch.testing.assert_close(skipped[..., :20], full[..., :20])
    assert (skipped[:, 0, ..., 30:] == -20).all() and (skipped[:, 1, ..., 30:] == 0).all()
    nothing = TomogramInferer(background=[-20.0, 0.0], **options)(torch.ones(1, 1, 20, 44, 36), some)
    assert (nothing[:, 0] == -20).all() and nothing.shape == full.shape


def test_only_the_region_is_looked_at(image, tmp_path):
    region = np.zeros((20, 44, 36), np.int8)
    region[2:9, 5:30, 3:11] = 1
    write_mrc(tmp_path / "region.mrc", region, 10.0)
    options = {"roi_size": (10, 12, 10), "amp": False}
    all_tiles, some = Blur(), Blur()
    full = TomogramInferer(**options)(image, all_tiles)
    inside = TomogramInferer(background=[-20.0, 0.0], region=tmp_path / "region.mrc", **options)(image, some)
    assert some.seen < 0.6 * all_tiles.seen
    torch.testing.assert_close(inside[0, 1][region > 0], full[0, 1][region > 0])
    assert (inside[0, 0][region == 0] == -20).all()
    with pytest.raises(ValueError, match=r"expected a region of the tomogram's shape .*\(20, 44, 35\)"):
        TomogramInferer(background=[-20.0, 0.0], region=tmp_path / "region.mrc", **options)(image[..., :35], some)


def test_a_region_of_other_voxels_is_read_to_its_last_plane_and_no_farther(tmp_path):
    """39 planes for the networks and 25 of the region: 39 * (25 / 39) is 25.000000000000004."""
    region = np.zeros((25, 28, 36), np.int8)
    region[2:8, 10:20, 10:30] = 1
    write_mrc(tmp_path / "region.mrc", region, 15.6)
    image = torch.randn(1, 1, *region.shape, generator=torch.Generator().manual_seed(0))
    options = {"roi_size": (16, 24, 24), "amp": False, "voxel_size_model": 10.0, "background": [-20.0, 0.0]}
    all_tiles, some = Blur(), Blur()
    with pytest.warns(UserWarning, match="rescaled to 39 x 44 x 56"):
        full, inside = (
            TomogramInferer(region=path, **options)(MetaTensor(image, meta={"voxel_size_zyx": np.full(3, 15.6)}), blur)
            for path, blur in ((None, all_tiles), (tmp_path / "region.mrc", some))
        )
    assert some.seen < all_tiles.seen
    torch.testing.assert_close(inside[0, 1][region > 0], full[0, 1][region > 0])


@pytest.mark.parametrize("shape", [(3, 44, 36), (20, 5, 36), (1, 2, 3), (20, 44, 4)])
def test_thin_tomograms_are_seen_in_their_reflections(shape):
    image = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(1))
    result = TomogramInferer((16, 16, 16), amp=False, overlap=0.5)(image, Blur())
    padded = image
    for axis in (2, 3, 4):
        padded, _ = reflect_to_length(padded, axis, 16)
    before = [(long - side) // 2 for long, side in zip(padded.shape[2:], shape, strict=True)]
    whole = TomogramInferer((16, 16, 16), amp=False, overlap=0.5)(padded, Blur())
    window = tuple(slice(b, b + side) for b, side in zip(before, shape, strict=True))
    torch.testing.assert_close(result, whole[(slice(None), slice(None), *window)])


def test_out_of_memory_halves_the_batch_and_goes_on(image, monkeypatch):
    said = []  # not caplog: configs run by other tests set the loggers up anew
    monkeypatch.setattr(logging.getLogger("scripts.inferer"), "warning", lambda text, *more: said.append(text % more))

    class Small(Blur):
        def forward(self, image):
            if len(image) > 2:
                raise torch.OutOfMemoryError("no memory")
            return super().forward(image)

    options = {"roi_size": (16, 24, 20), "amp": False}
    inferer = TomogramInferer(sw_batch_size=8, **options)
    torch.testing.assert_close(inferer(image, Small()), TomogramInferer(**options)(image, Blur()))
    assert inferer.batch == 2 and list(dict.fromkeys(said)) == [
        f"cpu: out of memory; going on with {tiles} tiles at once" for tiles in (4, 2)
    ]

    def never(tile):
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(ValueError, match="out of memory for one tile of 16 x 24 x 20 voxels. Give smaller tiles"):
        inferer(image, never)


def test_the_number_of_threads_changes_nothing(image):
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 2, 3, 1, 1))
    inferer = TomogramInferer((16, 24, 20), amp=False)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(inferer(image, network))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("map_dtype", ["float16", "float32"])
def test_tiles_blended_on_a_gpu_equal_those_blended_on_the_cpu(image, map_dtype, monkeypatch):
    """Bit by bit where the GPU ran the network; the hand-over of one layer during the next loses nothing."""
    image[..., :3, :3, :] = 0.5
    options = {"roi_size": (8, 24, 20), "amp": False, "background": (-20, 0), "map_dtype": map_dtype, "device": "cpu"}
    on_gpu = TomogramInferer(sw_batch_size=3, sw_device="cuda", **options)(image, Blur())
    monkeypatch.setattr("scripts.inferer.blends_on", lambda *_: False)
    torch.testing.assert_close(
        TomogramInferer(sw_batch_size=3, sw_device="cuda", **options)(image, Blur()), on_gpu, rtol=0, atol=0
    )
    torch.testing.assert_close(TomogramInferer(sw_device="cpu", sw_batch_size=3, **options)(image, Blur()), on_gpu)


@pytest.mark.parametrize("tile", [(8, 24, 20), (24, 24, 20)])
@pytest.mark.parametrize("map_dtype", ["float16", "float32"])
def test_handing_over_a_layer_during_the_next_loses_nothing(image, tile, map_dtype, monkeypatch):
    """The order of events as on a GPU, on the CPU: layers leave as copies, the deeper last one in parts."""
    options = {"roi_size": tile, "amp": False, "map_dtype": map_dtype}
    plain = TomogramInferer(**options)(image, Blur())
    depths = []

    def copied(maps, dtype):
        depths.append(maps.shape[1])
        return maps.to(dtype, copy=True), SimpleNamespace(synchronize=lambda: None)

    monkeypatch.setattr("scripts.inferer.blends_on", lambda *_: True)
    monkeypatch.setattr("scripts.inferer.to_host", copied)
    torch.testing.assert_close(TomogramInferer(**options)(image, Blur()), plain, rtol=0, atol=0)
    assert sum(depths) == image.shape[2] and max(depths) == depths[0]


def test_maps_rounded_to_half_precision_differ_by_its_rounding_alone(image):
    exact = TomogramInferer((16, 24, 20), amp=False)(image, Blur())
    rounded = TomogramInferer((16, 24, 20), amp=False, map_dtype="float16")(image, Blur())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact.half().float(), rtol=0, atol=0)


def test_wrong_options_are_errors():
    with pytest.raises(ValueError, match="tta: expected one of 1, 2, 4, 8"):
        TomogramInferer((16, 16, 16), tta=3)
    with pytest.raises(ValueError, match="overlap: expected whole voxels, or a fraction of the tile .* got -1"):
        TomogramInferer((4, 4, 4), overlap=-1)(torch.zeros(1, 1, 4, 4, 4), Blur())
    with pytest.raises(ValueError, match="mode: expected ramp, gaussian or constant, got 'flat'"):
        TomogramInferer((4, 4, 4), mode="flat")(torch.zeros(1, 1, 4, 4, 4), Blur())
    with pytest.raises(ValueError, match=r"expected tomograms \(B, 1, Z, Y, X\), got \(1, 2, 4, 4, 4\)"):
        TomogramInferer((4, 4, 4))(torch.zeros(1, 2, 4, 4, 4), Blur())


def test_the_plan_counts_the_tiles_and_shrinks_them_to_the_memory(image):
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 8, 3, padding=1), torch.nn.Conv3d(8, 2, 3, padding=1))
    options = {"tile": (96, 96, 96), "overlap": 0.25}
    plan = make_plan((100, 200, 300), network, memory=8, **options)
    assert (plan.path, plan.tiles, plan.tile) == ("memory", 2 * 3 * 4, (96, 96, 96))
    assert "100 x 200 x 300 voxels, 24 tiles of 96 x 96 x 96; in memory; about " in plan.text()
    assert " 1 tile of " in make_plan((96, 96, 96), network, memory=8, **options).text()
    large = [make_plan((1024, 2048, 2048), network, memory=8, at_once=number, **options) for number in (1, 4)]
    assert [plan.path for plan in large] == ["streamed"] * 2 and large[0].block > 1.5 * large[1].block
    # the tile, the activations of 8 channels, and the output
    assert forward_bytes(network, (32, 32, 32)) == (1 + 8 + 2) * 4 * 32**3
    wide = torch.nn.Sequential(torch.nn.Conv3d(1, 400, 3, padding=1), torch.nn.Conv3d(400, 2, 3, padding=1))
    assert make_plan((32, 200, 300), wide, memory=1.1, **options).tile == (32, 32, 32)
    with pytest.raises(ValueError, match=r"memory: expected at least .* GiB for a tomogram of 100 x 200 x 300 voxels"):
        make_plan((100, 200, 300), network, memory=0.1, **options)


def test_a_plan_measures_no_more_tiles_than_it_needs(monkeypatch):
    measured = []
    monkeypatch.setattr(
        "scripts.detection.plan.forward_bytes", lambda _, tile: measured.append(tile) or 500 * int(np.prod(tile))
    )
    plan = make_plan((128, 240, 256), torch.nn.Identity(), memory=40, largest_side=256)
    assert set(measured) == {plan.tile} == {(128, 240, 256)}


def test_a_plan_without_a_tile_takes_one_that_fits_and_keeps_volumes_in_memory_if_it_can():
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 90, 3, padding=1), torch.nn.Conv3d(90, 2, 3, padding=1))
    shape = (128, 256, 256)
    plans = [make_plan(shape, network, memory=memory) for memory in (16, 1.2, 1.1)]
    assert [plan.path for plan in plans] == ["memory"] * 3
    assert plans[0].tile == choose_tile(shape) == (80, 96, 96) and plans[0].tiles == 18
    sizes = [np.prod(plan.tile) for plan in plans]
    assert sizes[0] > sizes[1] > sizes[2] and all(plan.memory <= plan.limit for plan in plans)
    assert make_plan(shape, network, memory=0.8).path == "streamed"


def test_too_little_disk_is_an_error_before_any_work(tmp_path):
    plan = replace(make_plan((32, 64, 64), Blur(), tile=(32, 32, 32), overlap=0.25), disk=10**18)
    with pytest.raises(ValueError, match="GiB of free disk for this tomogram, found"):
        check_disk(plan, tmp_path / "not" / "yet")


@pytest.mark.parametrize(
    "one_disk,results,scratch,short",
    [
        (False, 5, 9, None),
        (False, 11, 1, "t: expected 11.0 GiB of free disk for this tomogram, found 10.0 GiB"),
        (False, 1, 11, "fast: expected 11.0 GiB"),
        (True, 5, 6, "fast: expected 11.0 GiB"),
        (True, 5, 5, None),
    ],
)
def test_results_and_scratch_need_room_each_and_on_one_disk_together(
    tmp_path, monkeypatch, one_disk, results, scratch, short
):
    (tmp_path / "fast").mkdir()
    monkeypatch.setattr("scripts.detection.plan.shutil.disk_usage", lambda folder: SimpleNamespace(free=10 * 2**30))
    monkeypatch.setattr("scripts.detection.plan._device", lambda folder: "one" if one_disk else folder.name)
    plan = Plan("streamed", (1, 1, 1), (1, 1, 1), 1, 1, 1, (results + scratch) * 2**30, 1, results * 2**30)
    with nullcontext() if short is None else pytest.raises(ValueError, match=short):
        check_disk(plan, tmp_path / "out" / "t", tmp_path / "fast")


def gaussian(shape, center, sigma):
    grid = np.stack(np.mgrid[: shape[0], : shape[1], : shape[2]], axis=-1)
    return np.exp(-((grid - center) ** 2).sum(axis=-1) / (2 * sigma**2)).astype(np.float32)


def centroid(volume):
    weights = np.clip(np.asarray(volume) - 0.2 * float(volume.max()), 0, None)
    return np.array([(weights * index).sum() / weights.sum() for index in np.indices(weights.shape)])


@pytest.mark.parametrize("voxel_size,model", [(10.0, 13.5), (10.0, 7.3), (14.0, 10.0)])
def test_a_rescaled_blob_comes_back_to_its_own_voxels(voxel_size, model):
    """Networks of other voxels see a blob of the right size, and its center returns within 0.1 voxel."""
    center = np.array([14.3, 20.8, 31.6])
    blob = torch.from_numpy(gaussian((33, 42, 59), center, 4.0))[None, None]
    seen = []

    def network(tiles):
        seen.append(tiles.shape)
        return torch.cat([tiles, tiles], dim=1)

    meta = {"voxel_size_zyx": np.full(3, voxel_size), "filename_or_obj": "blob.mrc"}
    options = {"roi_size": (96, 96, 96), "amp": False, "voxel_size_model": model}
    with pytest.warns(UserWarning, match="results are in its own. --keep_voxel_size switches this off"):
        result = TomogramInferer(**options)(MetaTensor(blob, meta=meta), network)
    assert result.shape == (1, 2, 33, 42, 59) and "rescaled to" in result.meta["warnings"]
    np.testing.assert_allclose(centroid(result[0, 0].numpy() - result.min().item()), center, atol=0.1)
    with pytest.warns(UserWarning, match="nothing was rescaled"):
        kept = TomogramInferer(**options, keep_voxel_size=True)(MetaTensor(blob, meta=meta), network)
    np.testing.assert_array_equal(kept[0, 0], blob[0, 0])


def test_rescaling_averages_where_voxels_grow_and_does_not_depend_on_slabs():
    volume = torch.randn(40, 30, 50, generator=torch.Generator().manual_seed(2))
    small = rescale_volume(volume, (20, 15, 25))
    assert small.std() < 0.5, "noise averages out: nothing is aliased"
    stripes = torch.from_numpy(np.indices((40, 30, 50)).sum(axis=0) % 2 * 2.0 - 1)
    for kind in ("image", "map"):
        assert rescale_volume(stripes, (20, 15, 25), kind).abs().max() < 0.2
    ramp = torch.arange(40.0)[:, None, None].expand(40, 30, 50)
    there_and_back = rescale_volume(rescale_volume(ramp, (52, 30, 61)), (40, 30, 50), "map")
    torch.testing.assert_close(there_and_back[3:-3], ramp[3:-3], atol=0.06, rtol=0)
    cut = [planes for _, _, planes in rescaled_slabs(volume.numpy(), (57, 15, 60))]
    assert torch.equal(torch.cat(cut), rescale_volume(volume, (57, 15, 60)))


@pytest.mark.parametrize("shape", [(41, 51, 61), (27, 34, 41)])
def test_the_peaks_of_a_map_keep_their_height_on_other_voxels(shape):
    """Peaks of the smallest particles, 1.5 voxels wide: a threshold chosen on the networks' voxels holds on others."""
    centers = np.random.default_rng(3).uniform(8, np.array([33, 41, 49]) - 8, (20, 3))
    ratio = np.array((33, 41, 49)) / shape
    for center in centers:
        moved = rescale_volume(torch.from_numpy(gaussian((33, 41, 49), center, 1.5)), shape, "map").numpy()
        axes = np.ogrid[tuple(slice(0, side) for side in shape)]
        exact = sum((((i + 0.5) * r - 0.5 - c) / 1.5) ** 2 for i, r, c in zip(axes, ratio, center, strict=True))
        assert abs(moved.max() - np.exp(-exact / 2).max()) < 0.03


def test_voxel_sizes_within_five_percent_are_left_alone():
    assert model_shape((20, 30, 40), np.full(3, 10.4), 10.0) == (20, 30, 40)
    assert model_shape((20, 30, 40), np.array([10.6, 10.0, 10.0]), 10.0) == (21, 30, 40)
    assert model_shape((20, 30, 40), np.full(3, 30.0), None) == (20, 30, 40)


@pytest.mark.parametrize(
    ("voxel_size", "sizes", "seen"),
    [
        (2000.0, "10 Å, got 2000 Å", "4000 x 6000 x 8000"),
        ((0.4, 10.0, 10.0), "10 Å, got 0.4 x 10 x 10 Å", "1 x 30 x 40"),
        (0.6, "10 Å, got 0.6 Å", "1 x 2 x 2"),
    ],
)
def test_a_voxel_size_that_cannot_be_true_is_refused_unless_it_is_kept(voxel_size, sizes, seen):
    size_zyx = np.broadcast_to(voxel_size, 3)
    told = f"expected one near the networks' {sizes}: 20 x 30 x 40 voxels would be rescaled to {seen}. Give the true"
    with pytest.raises(ValueError, match=told):
        model_shape((20, 30, 40), size_zyx, 10.0)
    options = {"roi_size": (16, 16, 16), "voxel_size_model": 10.0}
    with pytest.raises(ValueError, match=told):
        TomogramInferer(**options).seen_shape((20, 30, 40), {"voxel_size_zyx": size_zyx})
    with pytest.warns(UserWarning, match="nothing was rescaled"):
        kept = TomogramInferer(**options, keep_voxel_size=True).seen_shape((20, 30, 40), {"voxel_size_zyx": size_zyx})
    assert kept == (20, 30, 40)
    assert model_shape((4, 30, 40), np.full(3, 5.0), 10.0) == (2, 15, 20)
    assert model_shape((20, 30, 40), np.full(3, 200.0), 10.0) == (400, 600, 800)
