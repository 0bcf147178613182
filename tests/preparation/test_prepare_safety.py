"""prepare: what it must never do to the user's files, and what it says about options that cannot be."""

import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from custom_transforms.io import LoadTomogramd, read_tomogram, write_mrc
from custom_transforms.volumes import read
from scripts.datalist import load_datalist
from scripts.evaluation.evaluate import evaluate
from scripts.preparation.labels import labels_as_given
from scripts.preparation.prepare import prepare
from scripts.preparation.volume import measure_labels, number_components, number_ids
from tests.conftest import ROOT

GOLDEN = ROOT / "tests" / "golden" / "lists"

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


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("through_a_link", [False, True])
def test_an_input_is_never_replaced(overwrite, through_a_link, data, tmp_path):
    folder = data
    if through_a_link:
        folder = tmp_path / "link"
        folder.symlink_to(data, target_is_directory=True)
    for index in range(2):
        (data / f"TS_{index}_given.mrc").rename(data / f"TS_{index}_labels.mrc")
    before = contents(data)
    options = {"output_dir": str(data), "overwrite": overwrite}
    with pytest.raises(ValueError, match=r"TS_0_labels.mrc: expected a free name to write, got a file that this call"):
        as_given(folder, labels=str(folder / "{name}_labels.mrc"), **options)
    with pytest.raises(ValueError, match=r"TS_0.mrc: expected .* is never replaced, not even with --overwrite"):
        painted(folder, voxel_size=20.0, **options)
    (data / "TS_0_labels.mrc").rename(data / "TS_0_other.mrc")
    (data / "TS_0_particles.csv").write_bytes((data / "picks.csv").read_bytes())
    with pytest.raises(ValueError, match="TS_0_particles.csv: expected a free name .* a file that this call"):
        painted(folder, particles=str(folder / "TS_0_particles.csv"), **options)
    (data / "TS_0_particles.csv").unlink()
    (data / "TS_0_other.mrc").rename(data / "TS_0_labels.mrc")
    assert contents(data) == before and not list(data.glob(".prepare*"))


@pytest.mark.parametrize("name", ["TS_0_labels.mrc", "TS_1.png", "dataset.json", "prepare.json", "TS_0_classes.mrc"])
def test_a_file_that_prepare_did_not_write_is_never_replaced(name, data):
    (data / name).write_text('{"mine": []}')
    before = contents(data)
    with pytest.raises(ValueError, match=f"{name}: expected a free name to write, got a file that no earlier prepare"):
        painted(data, output_dir=str(data), overwrite=True)
    assert contents(data) == before


def test_in_the_datas_folder_prepare_replaces_its_own_files_only_and_only_with_overwrite(data):
    before = contents(data)
    painted(data, output_dir=str(data))
    first = contents(data)
    assert {name: first[name] for name in before} == before
    written = json.loads(first["prepare.json"])["files"]
    assert sorted(written) == sorted(set(first) - set(before))
    (data / "dataset.json").unlink()  # as after a call that was cut off
    with pytest.raises(ValueError, match="got a file of an earlier prepare. Give another --output_dir, or --overwrite"):
        painted(data, output_dir=str(data), radius=40.0)
    one = {"tomograms": tomograms_of(data)[:1], "validation_fraction": 0.5}
    painted(data, output_dir=str(data), overwrite=True, **one)
    second = contents(data)
    assert {name: second[name] for name in before} == before
    assert "TS_0_training_labels.mrc" in second and second["TS_1_labels.mrc"] == first["TS_1_labels.mrc"]
    painted(data, output_dir=str(data), overwrite=True)  # what the first call wrote is still known
    assert contents(data)["TS_1_labels.mrc"] == first["TS_1_labels.mrc"]


def test_two_tomograms_that_would_share_a_file_are_refused(data):
    volume = np.random.default_rng(5).normal(size=SIZE).astype(np.float32)
    write_mrc(data / "TS_0_labels.mrc", volume, 10.0)
    with pytest.raises(ValueError, match="TS_0_labels.mrc: two tomograms would write this file"):
        painted(data, tomograms=[str(data / "TS_0.mrc"), str(data / "TS_0_labels.mrc")], voxel_size=20.0)


def test_another_voxel_size_of_the_tomogram_stands_in_the_datalist_and_its_voxels_are_not_written_again(data):
    painted(data, tomogram_voxel_size=12.5)
    (entry,) = json.loads((data / "out" / "dataset.json").read_text())["training"]
    assert entry["image"] == "../TS_0.mrc" and entry["voxel_size"] == 12.5
    assert not (data / "out" / "TS_0.mrc").exists()
    item = load_datalist(data / "out", "training")[0]
    loaded = LoadTomogramd(keys="image", label_keys="label")(item)
    assert loaded["image"].meta["voxel_size_zyx"].tolist() == [12.5] * 3
    painted(data, tomogram_voxel_size=12.5, voxel_size=25.0, output_dir=str(data / "other"))
    volume, metadata = read_tomogram(data / "other" / "TS_0.mrc")
    assert volume.shape == (6, 10, 14) and metadata["voxel_size_zyx"].tolist() == [25.0] * 3


def test_class_names_that_are_large_numbers_get_small_ones(data):
    names = ["40205", "80S ribosome", "7", "20240101"]
    for index in range(2):
        rows = [f"{x},{8 + index},5,{names[2 * index + k]}" for k, x in enumerate((5, 20))]
        (data / f"TS_{index}.csv").write_text("x,y,z,class\n" + "\n".join(rows) + "\n")
    painted(data, particles=str(data / "{name}.csv"))
    numbers = {
        name: int(n) for n, name in json.loads((data / "out" / "dataset.json").read_text())["class_names"].items()
    }
    assert numbers == {"40205": 1, "80S ribosome": 2, "20240101": 3, "7": 7}
    for index in range(2):  # the number in a volume is the one in the datalist, also with a list per tomogram
        table = pd.read_csv(data / "out" / f"TS_{index}_particles.csv", dtype={"class": str})
        lookup = np.array([0, *(numbers[name] for name in table.sort_values("label")["class"])])
        labels, classes = (labels_in(data / "out" / f"TS_{index}_{word}.mrc") for word in ("labels", "classes"))
        np.testing.assert_array_equal(classes, lookup[labels])


def test_the_table_of_a_part_is_of_what_is_in_the_part(data):
    (data / "cut.csv").write_text("x,y,z\n12,10,6\n17,10,6\n5,4,3\n")  # the cut is at x = 14
    painted(data, tomograms=tomograms_of(data)[:1], particles=str(data / "cut.csv"), validation_fraction=0.5)
    reached = []
    for section, face in (("training", 13), ("validation", 0)):
        labels = labels_in(data / "out" / f"TS_0_{section}_labels.mrc")
        table = pd.read_csv(data / "out" / f"TS_0_{section}_particles.csv").sort_values("label")
        assert table["volume_vox"].tolist() == np.bincount(labels[labels > 0])[1:].tolist()
        np.testing.assert_allclose(table["volume_angstrom3"], table["volume_vox"] * 1000.0)
        at_the_cut = [bool((labels[:, :, face] == label).any()) for label in table["label"]]
        assert table["touches_border"].tolist() == at_the_cut
        reached += at_the_cut
    assert sorted(reached) == [False, False, True] or sorted(reached) == [False, True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 1.0}, "--validation_fraction: expected a part .* at least 0 and below 1, got 1.0"),
        ({"validation_fraction": -0.1}, "--validation_fraction: expected a part .* got -0.1"),
        ({"test_fraction": float("nan")}, "--test_fraction: expected a part .* got nan"),
        ({"validation_fraction": 0.6, "test_fraction": 0.4}, "expected a sum below 1, got 0.6 [+] 0.4"),
        ({"ignore_shell": -5.0}, "--ignore_shell: expected a length in Å, at least 0, got -5.0"),
        ({"recenter": float("inf")}, "--recenter: expected a length in Å, at least 0, got inf"),
        ({"recenter_on": "{name}.csv"}, "--recenter_on: expected --particles, which move, and --recenter"),
        ({"recenter_on": str(GOLDEN / "csv_plain.csv"), "recenter": 30}, "expected a list for each of the 2 tomograms"),
        ({"ignore_shell": "thick"}, "--ignore_shell: expected a length in Å, at least 0, got 'thick'"),
        ({"radius": 0.0}, "--radius: expected a length in Å, above 0, got 0.0"),
        ({"radius": -30.0}, "--radius: expected a length in Å, above 0, got -30.0"),
    ],
)
def test_a_fraction_or_a_length_that_cannot_be_is_refused_before_any_work(options, message, data):
    with pytest.raises(ValueError, match=message):
        painted(data, **options)
    assert not (data / "out").exists()


def test_what_memory_cannot_hold_together_is_refused_before_a_folder_is_made(data, monkeypatch):
    voxels = np.prod(SIZE)
    for options, bytes_per_voxel in (({}, 4 + 1), ({"ignore_shell": 20.0}, 4 + 8 + 1), ({"voxel_size": 5.0}, 97)):
        monkeypatch.setattr(read, "available_memory", lambda least=bytes_per_voxel: least * voxels - 1)
        with pytest.raises(ValueError, match=r"^prepare: TS_0: expected 0.00 GiB of memory \(0.00 for copies\), found"):
            painted(data, **options)
        assert not (data / "out").exists()
    monkeypatch.setattr(read, "available_memory", lambda: 97 * voxels)
    painted(data, voxel_size=5.0)
    monkeypatch.setattr(read, "available_memory", lambda: 0)
    with pytest.raises(ValueError, match=r"^evaluate: TS_0_given: expected .* free. Close other programs, bin"):
        evaluate(data / "TS_0_given.mrc", data / "TS_1_given.mrc")
