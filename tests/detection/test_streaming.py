"""Larger than memory: block by block and through files the result is the one in memory."""

import errno
import json
import os
import re
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from scipy.ndimage import gaussian_filter

from custom_transforms.instances import (
    METHODS,
    AssignInstancesd,
    FilterParticlesd,
    FindSeedsd,
    MaskFromProbabilityd,
    MeasureParticlesd,
    detect_instances,
)
from custom_transforms.io import read_tomogram, write_mrc
from custom_transforms.labelling.blocks import Blocks
from custom_transforms.labelling.blockwise import peaks_of_block
from custom_transforms.volumes.lazy import PlaneCache, RegionVolume, StoredVolume, open_tomogram, read_region_mask
from scripts.detection.detect import Detector
from scripts.detection.plan import make_plan
from scripts.detection.scratch import LOCK, scratch_folder
from scripts.preparation.volume import read_region
from tests.conftest import DIAMETER, SMALL_NETWORK, VOXEL_SIZE, balls, run_config
from tests.volumes.volume_files import save

SHAPE = (20, 28, 36)
VOXEL = np.array([10.0, 10.0, 10.0])


def maps(seed, foreground, levels=0):
    """A random mask and center map: blobs with peaks inside and outside the mask, and plateaus if in few levels."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=SHAPE), 1.5)
    probability = np.clip(0.5 + 2 * (noise - np.quantile(noise, 1 - foreground)), 0, 1)
    center = gaussian_filter(rng.normal(size=SHAPE), 1.2)
    center = np.clip(center / center.max(), 0, 1)
    if levels:
        center = np.round(center * levels) / levels
    return probability.astype(np.float32), center.astype(np.float32)


def blockwise(
    probability, center, block, voxel_size_zyx, particle_diameter, mask_threshold, center_threshold, method="watershed",
    require_seed=False, min_size=None, neighbor_number=0, neighbor_distance=None,
):  # fmt: skip
    """What the transforms of the config make of two maps in their streamed form."""
    sizes, distance = {"particle_diameter": particle_diameter}, {"neighbor_distance": neighbor_distance}
    meta = {"voxel_size_zyx": voxel_size_zyx}
    data = {
        "probability": StoredVolume(probability).with_meta(meta),
        "center_map": StoredVolume(center).with_meta(meta),
    }
    data["blocks"] = Blocks(probability.shape, block)
    for step in (
        MaskFromProbabilityd(threshold=mask_threshold, min_size=min_size, **sizes),
        FindSeedsd(threshold=center_threshold, **sizes),
        AssignInstancesd(method=method, require_seed=require_seed, min_size=min_size, **sizes),
        MeasureParticlesd(**sizes, **distance),
        FilterParticlesd(min_size=min_size, neighbor_number=neighbor_number, in_place=True, **sizes, **distance),
    ):
        data = getattr(step, "streamed", step)(data)
    return data["instances"][:, :, :], data["particles"]


def assert_same(streamed, whole):
    """Labels and whole numbers exactly; centers and scores to the rounding of a shift of the origin."""
    np.testing.assert_array_equal(streamed[0], whole[0])
    pd.testing.assert_frame_equal(streamed[1], whole[1], check_exact=False, rtol=1e-7, atol=1e-9)
    for column in ("particle_id", "label", "volume_vox", "neighbors", "dropped_by", "touches_border"):
        assert (streamed[1][column] == whole[1][column]).all(), column


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(3, 20), st.integers(4, 28), st.integers(5, 36)),
    st.sampled_from(METHODS),
    st.sampled_from([0.05, 0.2, 0.5, 0.9]),
    st.sampled_from([0, 6]),
    st.booleans(),
    st.sampled_from([1.0, 1.3]),
)
def test_blocks_of_any_size_give_what_the_whole_gives(seed, block, method, foreground, levels, require_seed, stretch):
    """From scattered specks to a mask that percolates through everything."""
    options = {
        "voxel_size_zyx": VOXEL * [stretch, 1, 1], "particle_diameter": 60.0, "mask_threshold": 0.5,
        "center_threshold": 0.2, "method": method, "require_seed": require_seed, "min_size": 3000.0,
        "neighbor_number": seed % 3, "neighbor_distance": 90.0,
    }  # fmt: skip
    probability, center = maps(seed, foreground, levels)
    assert_same(blockwise(probability, center, block, **options), detect_instances(probability, center, **options))


@pytest.mark.parametrize("method", METHODS)
def test_a_full_mask_and_an_empty_one_are_no_exceptions(method):
    options = {"voxel_size_zyx": VOXEL, "particle_diameter": 80.0, "mask_threshold": 0.5, "center_threshold": 0.2}
    _, center = maps(3, 0.5)
    for probability in (np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)):
        for values in (center, np.zeros_like(center)):
            streamed = blockwise(probability, values, (7, 9, 11), method=method, **options)
            assert_same(streamed, detect_instances(probability, values, method=method, **options))


def test_a_plateau_across_blocks_is_one_peak():
    center = np.zeros(SHAPE, np.float32)
    center[8:12, 10:18, 10:26] = 1.0
    probability = np.where(center > 0, 0.9, 0.1).astype(np.float32)
    options = {"voxel_size_zyx": VOXEL, "particle_diameter": 200.0, "mask_threshold": 0.5, "center_threshold": 0.2}
    streamed = blockwise(probability, center, (5, 5, 5), **options)
    assert len(streamed[1]) == 1 and streamed[1]["volume_vox"][0] == 4 * 8 * 16
    assert_same(streamed, detect_instances(probability, center, **options))


def test_wide_plateaus_are_carried_along_as_runs_and_only_where_they_cross_a_face():
    """A center map that is clipped at 1 must cost time, not memory."""
    blocks = Blocks(SHAPE, (20, 28, 18))
    clipped = np.clip(3 * maps(5, 0.5)[1], 0, 1)
    for center, fewer in ((clipped, 4), (np.ones(SHAPE, np.float32), 18)):
        peaks_of = partial(peaks_of_block, center, limit=np.float32(0.5), weights=np.ones(3), blocks=blocks)
        listed = sum(len(found) for _, _, found in blocks.map(peaks_of))
        assert (center == 1).sum() >= fewer * listed > 0
        options = {"voxel_size_zyx": VOXEL, "particle_diameter": 60.0, "mask_threshold": 0.5, "center_threshold": 0.2}
        assert_same(blockwise(center, center, (7, 9, 11), **options), detect_instances(center, center, **options))


class Blobs(torch.nn.Module):
    """Stands for trained networks: finds bright blobs of one size by smoothing."""

    def forward(self, image):
        smooth = image
        for _ in range(3):
            smooth = torch.nn.functional.avg_pool3d(smooth, 3, 1, 1, count_include_pad=False)
        return torch.cat([12 * (smooth - 0.6), smooth / 2], dim=1)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A noisy tomogram with balls, padding at one side and a few NaN; weights; options for a tiny network."""
    folder = tmp_path_factory.mktemp("streaming")
    labels = balls((24, 70, 56), seed=0)
    volume = (np.random.default_rng(0).normal(0, 0.2, labels.shape) - (labels > 0)).astype(np.float32)
    volume[:, 60:] = 0
    write_mrc(folder / "scene.mrc", volume, VOXEL_SIZE, origin_xyz=(10.0, 20.0, 30.0), nstart_xyz=(1, 2, 3))
    volume[3, 4, 5:9] = np.nan
    write_mrc(folder / "nan.mrc", volume, VOXEL_SIZE)
    region = np.zeros(labels.shape, np.int8)
    region[:, 5:50, :40] = 1
    write_mrc(folder / "region.mrc", region, VOXEL_SIZE)
    torch.manual_seed(0)
    networks = {"_target_": "scripts.networks.MaskAndCenterNet"}
    networks |= {"mask_network": SMALL_NETWORK, "center_network": SMALL_NETWORK}
    torch.save(ConfigParser({"n": networks}).get_parsed_content("n").state_dict(), folder / "model.pt")
    options = {
        "network_def": networks, "weights": str(folder / "model.pt"), "tile": [16, 32, 32], "device": "cpu",
        "particle_diameter": DIAMETER, "mask_threshold": 0.45, "center_threshold": 0.2, "min_size": 1.0,
        "progress": False, "report": False,
    }  # fmt: skip
    return folder, options


def detect_both(path, options, tmp_path, network=None):
    """Files and record of a tomogram detected in memory, and streamed in blocks of an odd size."""
    found = []
    for stream in (False, True):
        detector = Detector({**options, "output_dir": str(tmp_path / str(stream))}, stream=stream)
        detector.network = network or Blobs()
        plan = detector.plan(path)
        assert plan.path == ("streamed" if stream else "memory")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = detector(path, replace(plan, block=29))
        files = {one.name: one.read_bytes() for one in sorted(data["output_files"]["csv"].parent.iterdir())}
        record = json.loads(files.pop(f"{path.stem}.json"))
        del record["timings_seconds"]
        assert record.pop("computed") == {"path": plan.path, "tile": options["tile"], "batch": 1, "runtime": "torch"}
        found.append((files, record, data["particles"]))
    return found


@pytest.mark.parametrize(
    "name,more",
    [
        ("scene", {}),
        ("scene", {"tta": 2, "overlap": 0.5, "method": "nearest", "neighbor_number": 1}),
        ("scene", {"tile": [48, 48, 48], "map_dtype": "float32", "method": "split"}),
        ("scene", {"region": "region.mrc", "contrast": "dark", "edge_margin": 60.0}),
        ("scene", {"voxel_size_model": 13.0, "region": "region.mrc"}),
        ("scene", {"voxel_size_model": 8.0, "particle_diameter": 100.0}),
        ("nan", {"fill_nonfinite": True}),
    ],
)
def test_streamed_files_are_those_of_the_path_in_memory_byte_by_byte(scene, tmp_path, name, more):
    folder, options = scene
    if "region" in more:
        more = {**more, "region": str(folder / more["region"])}
    (whole, record, table), (files, streamed_record, _) = detect_both(
        folder / f"{name}.mrc", {**options, **more}, tmp_path
    )
    assert (table["label"] > 0).sum() > 3
    assert files == whole and streamed_record == record


def test_the_report_of_a_streamed_tomogram_shows_the_same_volumes(scene, tmp_path):
    folder, options = scene
    (whole, _, _), (files, record, _) = detect_both(folder / "scene.mrc", {**options, "report": True}, tmp_path)
    pages = [one["scene_report.html"].decode() for one in (whole, files)]
    blobs = [re.findall(r'<script type="text/plain" id="([^"]+)">(.*?)</script>', page, re.DOTALL) for page in pages]
    assert len(blobs[0]) >= 3 and blobs[0] == blobs[1] and record["warnings"] == []


def test_nothing_found_and_failures_leave_no_scratch_behind(scene, tmp_path):
    folder, options = scene
    nowhere = tmp_path / "nowhere.mrc"
    write_mrc(nowhere, np.zeros((24, 70, 56), np.int8), VOXEL_SIZE)
    (_, _, table), _ = detect_both(folder / "scene.mrc", {**options, "region": str(nowhere)}, tmp_path)
    assert len(table) == 0

    class Broken(Blobs):
        def forward(self, image):
            raise RuntimeError("broken")

    detector = Detector({**options, "output_dir": str(tmp_path / "broken")}, stream=True)
    plan = detector.plan(folder / "scene.mrc")
    detector.network = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        detector(folder / "scene.mrc", plan)
    assert list((tmp_path / "broken" / "scene").iterdir()) == []


def test_scratch_of_a_killed_run_goes_when_the_tomogram_is_begun_again_and_that_of_a_living_one_stays(tmp_path):
    killed, other, foreign = (tmp_path / f".scratch_{name}" for name in ("a [1]_x", "b_x", "a [1]_y"))
    for folder in (killed, other, foreign):
        folder.mkdir()
        (folder / "logits").write_text("large")
    for folder in (killed, other):
        (folder / LOCK).touch()
    with scratch_folder(tmp_path, "a [1]") as living, scratch_folder(tmp_path, "a [1]") as second:
        assert not killed.exists() and living.is_dir() and second.is_dir() and living != second
    assert {one.name for one in tmp_path.iterdir()} == {other.name, foreign.name}  # no lock in it: perhaps not ours


def test_a_scratch_dir_is_made_and_one_that_is_a_file_or_full_is_told(scene, tmp_path):
    folder, options = scene
    path = folder / "scene.mrc"
    (tmp_path / "file").write_text("no folder")
    wrong = Detector({**options, "output_dir": str(tmp_path / "a")}, stream=True, scratch_dir=tmp_path / "file")
    plan = wrong.plan(path)
    wrong.network = None  # never asked
    with pytest.raises(
        OSError, match="file: expected a folder to write to, but a file is in its place. Choose another"
    ):
        wrong(path, plan)
    new = tmp_path / "new" / "scratch"
    detector = Detector({**options, "output_dir": str(tmp_path / "b")}, stream=True, scratch_dir=new)

    class Full(Blobs):
        def forward(self, image):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    detector.network = Full()
    with pytest.raises(OSError, match=rf"^{new}/.scratch_scene_\w+: expected room to write it, got 'No space"):
        detector(path, plan)
    assert list(new.iterdir()) == []


@pytest.fixture
def project(tmp_path):
    """A copick project with the run that is called as the tomogram is."""
    (tmp_path / "ExperimentRuns" / "scene").mkdir(parents=True)
    objects = [{"name": "ball", "is_particle": True, "label": 1, "radius": 60.0}]
    config = {"pickable_objects": objects, "config_type": "filesystem", "overlay_root": str(tmp_path)}
    (tmp_path / "project.json").write_text(json.dumps(config))
    return f"copick:{tmp_path}/project.json/ball:detection/1", tmp_path / "ExperimentRuns" / "scene"


def test_a_streamed_tomogram_gives_a_copick_project_picks_alone_and_says_so(scene, project, tmp_path):
    folder, options = scene
    uri, run = project
    told = "copick project gets its picks alone, no instance segmentation"
    for stream, made in ((True, ["Picks"]), (False, ["InstanceSegmentations", "Picks"])):
        settings = {**options, "output_dir": str(tmp_path / "out"), "copick": uri, "overwrite": True}
        detector = Detector(settings, stream=stream)
        detector.network = Blobs()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = detector(folder / "scene.mrc", detector.plan(folder / "scene.mrc"))
        record = json.loads(found["output_files"]["record"].read_text())
        for texts in ([str(one.message) for one in caught], record["warnings"]):
            assert any(told in text for text in texts) == stream
        assert sorted(one.name for one in run.iterdir()) == made


@pytest.mark.parametrize(
    "more,message", [({}, "segmentation is there already"), ({"voxel_size": [10.0, 10.0, 12.0]}, "expected cubic")]
)
def test_a_segmentation_that_copick_cannot_take_is_an_error_before_any_work(scene, project, tmp_path, more, message):
    folder, options = scene
    uri, run = project
    (run / "InstanceSegmentations" / "10.000_detection_1_ball.zarr").mkdir(parents=True)
    detector = Detector({**options, **more, "output_dir": str(tmp_path / "out"), "copick": uri})
    detector.network = None  # never asked
    with pytest.raises(ValueError, match=message):
        detector(folder / "scene.mrc")
    assert not (tmp_path / "out").exists()


def test_slices_with_a_step_are_the_volume_s_own():
    volume = np.arange(40 * 2 * 3, dtype=np.float32).reshape(40, 2, 3)
    for index in (np.s_[3:9:2], np.s_[0:40:7, :, 1], np.s_[4:8], np.s_[30:34], np.s_[5:5]):
        np.testing.assert_array_equal(PlaneCache(volume)[index], volume[index])


def test_what_cannot_be_streamed_is_an_error_before_any_work(scene, tmp_path):
    folder, options = scene
    volume, _ = read_tomogram(folder / "scene.mrc")
    write_mrc(tmp_path / "packed.mrc.gz", volume, VOXEL_SIZE)
    save(tmp_path / "big.mrc", np.asarray(volume).astype(">f4"), VOXEL_SIZE)
    detector = Detector({**options, "output_dir": str(tmp_path)}, stream=True)
    for name in ("packed.mrc.gz", "big.mrc"):
        with pytest.raises(ValueError, match=f"{name}: expected a file that can be read by parts, as it is larger"):
            detector(tmp_path / name, detector.plan(tmp_path / name))
    with pytest.raises(ValueError, match="big.mrc: expected a file that can be read by parts"):
        RegionVolume(tmp_path / "big.mrc", volume.shape)
    filtered = Detector({**options, "output_dir": str(tmp_path), "exclude": "region.mrc"}, stream=True)
    told = r"larger than memory, and ExcludeParticlesd \(its mask is region.mrc\) needs all of it. Leave it out"
    with pytest.raises(ValueError, match=told):
        filtered.plan(folder / "scene.mrc")
    with pytest.raises(ValueError, match="NaN or Inf"):
        detector(folder / "nan.mrc", plan_of(detector))
    write_mrc(tmp_path / "flat.mrc", np.ones((8, 9, 10), np.float32), VOXEL_SIZE)
    with pytest.raises(ValueError, match="got a constant volume"):
        detector(tmp_path / "flat.mrc", plan_of(detector))


@pytest.mark.parametrize("fill_nonfinite", [False, True])
@pytest.mark.parametrize("bad", ["some", "all", "no"])
def test_a_tomogram_read_by_slices_is_checked_and_filled_as_one_read_whole(tmp_path, bad, fill_nonfinite):
    volume = np.random.default_rng(0).normal(size=(11, 10, 9)).astype(np.float32)  # y is thinner than z
    volume[{"some": np.s_[3, 4, 5:7], "all": np.s_[:], "no": np.s_[:0]}[bad]] = np.nan
    save(tmp_path / "a.mrc", volume, VOXEL_SIZE)
    outcomes = []
    for read in (read_tomogram, open_tomogram):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                values, meta = read(tmp_path / "a.mrc", fill_nonfinite=fill_nonfinite)
                outcomes.append((values[:].tobytes(), meta["warnings"]))
            except ValueError as error:
                outcomes.append((str(error), [str(one.message) for one in caught]))
    assert outcomes[0] == outcomes[1] and "y is thinner than z (10 < 11 voxels)" in str(outcomes[0][1])


def test_a_region_means_the_same_in_memory_and_streamed(tmp_path):
    """IMOD's shifted bytes are 0 and 1; what are no labels is refused by both, in the same words."""
    inside = np.zeros((8, 9, 10), bool)
    inside[2:5, 3:, :4] = True
    write_mrc(tmp_path / "imod.mrc", np.where(inside, -127, -128).astype(np.int8), VOXEL_SIZE)
    write_mrc(tmp_path / "half.mrc", np.where(inside, 0.5, 0).astype(np.float32), VOXEL_SIZE)
    write_mrc(tmp_path / "ones.mrc", inside.astype(np.int8), VOXEL_SIZE)
    with pytest.warns(UserWarning, match="128 was added to every label"):
        np.testing.assert_array_equal(RegionVolume(tmp_path / "imod.mrc", inside.shape)[:], inside)
    for read in (read_region_mask, RegionVolume, lambda path, shape: read_region(str(path), "t", shape)):
        with pytest.raises(ValueError, match=r"expected labels .* got 72 voxels that are not whole numbers"):
            read(tmp_path / "half.mrc", inside.shape)
        with pytest.raises(ValueError, match=r"the tomogram's shape \(Z, Y, X\) \(8, 9, 11\), got \(8, 9, 10\). Draw"):
            read(tmp_path / "ones.mrc", (8, 9, 11))


def plan_of(detector):
    return make_plan((24, 70, 56), detector.network, tile=(16, 32, 32), overlap=0.25, stream=True)


def test_rounding_the_maps_to_half_precision_is_harmless(scene, tmp_path):
    """No particle comes or goes, and centers move by less than a hundredth of a voxel."""
    folder, options = scene
    tables = []
    for dtype in ("float16", "float32"):
        detector = Detector({**options, "output_dir": str(tmp_path / dtype), "map_dtype": dtype})
        detector.network = Blobs()
        tables.append(detector(folder / "scene.mrc")["particles"])
    half, full = tables
    assert len(half) == len(full) > 3
    np.testing.assert_allclose(half[["z_vox", "y_vox", "x_vox"]], full[["z_vox", "y_vox", "x_vox"]], atol=0.01)
    np.testing.assert_allclose(half["volume_vox"], full["volume_vox"], rtol=0.01)
    np.testing.assert_allclose(half["score"], full["score"], atol=1e-3)


@pytest.mark.slow
def test_monai_bundle_run_rescales_as_detect_does(scene, tmp_path):
    folder, options = scene
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "scene.mrc").symlink_to(folder / "scene.mrc")
    options = {**options, "voxel_size_model": 13.0, "min_size": 1.0, "center_threshold": 0.01}
    with pytest.warns(UserWarning, match="rescaled to 18 x 54 x 43 voxels"):
        Detector({**options, "output_dir": str(tmp_path / "detect")})(folder / "scene.mrc")
    overrides = {key: value for key, value in options.items() if key not in ("device", "progress")}
    with pytest.warns(UserWarning, match="rescaled to 18 x 54 x 43 voxels"):
        run_config("inference.json", "inference", dataset_dir=str(tmp_path / "data"),
                   output_dir=str(tmp_path / "bundle"), **overrides)  # fmt: skip
    ours, theirs = (
        {one.name: one.read_bytes() for one in (tmp_path / way / "scene").iterdir() if one.suffix != ".json"}
        for way in ("detect", "bundle")
    )
    assert ours == theirs
