"""prepare: what it must never do to the user's files, and what it says about options that cannot be."""

import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from custom_transforms.io import read_tomogram, write_mrc
from scripts.prepare import prepare
from scripts.prepare_labels import labels_as_given
from scripts.prepare_volume import measure_labels, number_components, number_ids

SIZE = (12, 20, 28)


@pytest.fixture
def data(tmp_path):
    """A folder with two tomograms at 10 Å, their label volumes (ids 7 and 3), and a list."""
    folder = tmp_path / "data"
    folder.mkdir()
    labels = np.zeros(SIZE, np.int16)
    labels[2:5, 2:5, 2:5], labels[6:9, 12:16, 20:24] = 7, 3
    for index in range(2):
        volume = np.random.default_rng(index).normal(size=SIZE).astype(np.float32)
        write_mrc(folder / f"TS_{index}.mrc", volume, 10.0)
        write_mrc(folder / f"TS_{index}_given.mrc", labels, 10.0)
    rows = ["tomogram,class,x,y,z"] + [f"TS_{i},{c},{x},8,5" for i in range(2) for c, x in (("a", 5), ("b", 20))]
    (folder / "picks.csv").write_text("\n".join(rows) + "\n")
    return folder


def tomograms_of(folder):
    return [str(folder / f"TS_{index}.mrc") for index in range(2)]


def painted(folder, **options):
    options = {"particles": str(folder / "picks.csv"), "radius": 25.0, "output_dir": str(folder / "out"), **options}
    prepare(*options.pop("tomograms", tomograms_of(folder)), quiet=True, **options)


def as_given(folder, **options):
    options = {"labels": str(folder / "{name}_given.mrc"), "output_dir": str(folder / "out"), **options}
    prepare(*options.pop("tomograms", tomograms_of(folder)), quiet=True, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def labels_in(path):
    return np.asarray(read_tomogram(path, check="labels")[0])


def write_zarr(path, volume):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", shape=volume.shape, dtype=volume.dtype)[:] = volume
    axes = [{"name": name, "type": "space", "unit": "angstrom"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [10.0, 10.0, 10.0]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": levels}]


def test_a_zarr_tomogram_and_zarr_labels_are_files_like_others(data):
    write_zarr(data / "z" / "TS_1.zarr", np.random.default_rng(0).normal(size=SIZE).astype(np.float32))
    write_zarr(data / "TS_1_given.zarr", labels_in(data / "TS_1_given.mrc"))
    for given, out in ((data / "z" / "TS_1.zarr", "one"), (data / "z", "folder")):
        options = {"labels": str(data / "{name}_given.zarr"), "output_dir": str(data / out)}
        as_given(data, tomograms=[str(given)], validation_fraction=0.0, **options)
        np.testing.assert_array_equal(
            labels_in(data / out / "TS_1_labels.mrc") > 0, labels_in(data / "TS_1_given.mrc") > 0
        )
        (entry,) = json.loads((data / out / "dataset.json").read_text())["training"]
        assert entry["image"] == "../z/TS_1.zarr"


@pytest.mark.parametrize("mode", ["labels", "particles"])
def test_with_a_region_particles_with_their_center_outside_are_ignored_and_the_rest_renumbered(mode, data):
    region = np.zeros(SIZE, bool)
    region[:, :, 14:] = True
    if mode == "labels":
        as_given(data, region=":,:,14:")
    else:
        painted(data, region=":,:,14:")
    labels, table = labels_in(data / "out" / "TS_0_labels.mrc"), pd.read_csv(data / "out" / "TS_0_particles.csv")
    by_x = table.sort_values("x_vox").reset_index(drop=True)
    assert by_x["dropped_by"].fillna("").tolist() == ["outside_region", ""]
    assert by_x["label"].tolist() == [0, 1] and by_x["volume_vox"].tolist() == [0, int((labels == 1).sum())]
    assert set(np.unique(labels[~region])) <= {-1, 1} and set(np.unique(labels[region])) == {0, 1}
    summary = json.loads((data / "out" / "prepare.json").read_text())["tomograms"]["TS_0"]
    assert summary["outside_region"] == 1 and summary["particles"] == 1


@pytest.mark.parametrize("dtype", [np.int8, np.int16, ">i2", np.uint16, np.int32, np.int64, np.float32, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_ids_of_any_type_become_their_rank_and_are_measured_as_plain_loops_do(dtype, order):
    rng = np.random.default_rng(1)
    signed = np.dtype(dtype).kind != "u"
    ids = {1: (9, 90, 120), 2: (9, 300, 30_000)}.get(np.dtype(dtype).itemsize, (9, 300, 2**24))
    given = np.asarray(rng.choice([-1 * signed, 0, 0, 0, *ids], SIZE), dtype=dtype, order=order)
    before = given.copy()
    labels, count = number_ids(given)
    expected = np.zeros(SIZE, int) - (given < 0)
    for number, value in enumerate(ids, start=1):
        expected[given == value] = number
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(given, before)
    assert labels.dtype == np.int16 and count == 3
    labels[labels == 2] = 0
    labels[2:5, 3:7, 6:9] = 4
    volumes, centers, touches = measure_labels(labels, 4)
    assert volumes.tolist() == [int((labels == i).sum()) for i in range(1, 5)]
    for label in (1, 3, 4):
        np.testing.assert_allclose(centers[label - 1], np.argwhere(labels == label).mean(0))
    assert np.isnan(centers[1]).all() and touches.tolist() == [True, False, True, False]


def test_components_of_a_mask_are_numbered_and_its_ignored_voxels_stay():
    given = np.zeros(SIZE, np.float32)
    given[1:3, 1:3, 1:3], given[3:5, 3:5, 3:5], given[8:10, 8:10, 8:10], given[11] = 5, 5, 5, -1
    labels, count = number_components(given)
    assert count == 2 and labels.dtype in (np.int16, np.int32)  # the first two blocks meet at a corner
    assert labels[1, 1, 1] == labels[4, 4, 4] != labels[8, 8, 8] and (labels[11] == -1).all()
    np.testing.assert_array_equal(labels > 0, given > 0)


@pytest.mark.parametrize("one_id", [False, True])
def test_existing_labels_need_at_most_six_bytes_of_memory_per_voxel(one_id):
    given = np.zeros((64, 160, 200), np.int16)
    grid = np.meshgrid(*(np.arange(3, n - 10, 16) for n in given.shape), indexing="ij")
    for number, (z, y, x) in enumerate(np.stack(grid, -1).reshape(-1, 3), start=1):
        given[z : z + 8, y : y + 8, x : x + 8] = 1 if one_id else number * 50
    labels_as_given(given[:4], np.full(3, 10.0), None, 0.0)
    tracemalloc.start()
    try:
        prepared = labels_as_given(given, np.full(3, 10.0), None, 0.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(prepared.table) == grid[0].size and peak / given.size <= 6
