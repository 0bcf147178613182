"""prepare: what it must never do to the user's files, and what it says about options that cannot be."""

import json

import numpy as np
import pytest

from custom_transforms.io import read_tomogram, write_mrc
from scripts.prepare import prepare

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
