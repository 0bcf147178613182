"""The simulator end to end, on tiny scenes."""

import json

import mrcfile
import numpy as np
import pandas as pd
import pytest

from scripts.simulate.scene import load_scene
from scripts.simulate.simulate import simulate, simulate_one

SCENE = {
    "name": "tiny",
    "shape": [20, 28, 36],
    "voxel_size": 40,
    "particles": [
        {"kind": "vlp", "name": "vlp", "count": 2, "radius": [180, 220]},
        {"kind": "ring", "name": "ring", "count": 2, "radius": 120, "thickness": 90, "height": 120},
    ],
    "clutter": [{"kind": "ball", "name": "blob", "count": 3, "radius": 70}],
    "imaging": {"tilt_step": 10, "snr": 1},
}


def test_a_call_writes_everything_training_needs(tmp_path):
    datalist = json.loads(simulate(SCENE, tmp_path, n=3, seed=1, validation=1, test=1).read_text())
    assert [len(datalist[part]) for part in ("training", "validation", "test")] == [1, 1, 1]
    for item in datalist["training"] + datalist["validation"] + datalist["test"]:
        with mrcfile.open(tmp_path / item["image"]) as image, mrcfile.open(tmp_path / item["label"]) as labels:
            assert image.data.shape == labels.data.shape == (20, 28, 36)
            assert image.data.dtype == np.float32 and labels.data.dtype == np.int16
            assert image.voxel_size.x == labels.voxel_size.z == 40
            table = pd.read_csv(tmp_path / item["particles"])
            assert sorted(np.unique(labels.data)) == [0, *table["label"]]
        assert item["contrast"] == "dark"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_volume(tmp_path):
    for folder, seed in (("a", 5), ("b", 5), ("c", 6)):
        simulate(SCENE, tmp_path / folder, seed=seed)
    for name in ("tomogram.mrc", "labels.mrc", "classes.mrc", "particles.csv", "scene.json"):
        first, second, other = ((tmp_path / folder / "tiny_000" / name).read_bytes() for folder in "abc")
        assert first == second
        assert first != other


def test_a_tomogram_does_not_depend_on_how_many_are_made():
    scene = load_scene(SCENE)
    np.testing.assert_array_equal(simulate_one(scene, 3, 1)["tomogram"], simulate_one(scene, 3, 1)["tomogram"])


def test_a_second_run_keeps_what_is_finished_and_refuses_another_scene(tmp_path):
    simulate(SCENE, tmp_path, seed=1)
    before = (tmp_path / "tiny_000" / "tomogram.mrc").stat().st_mtime_ns
    simulate(SCENE, tmp_path, n=2, seed=1)
    assert (tmp_path / "tiny_000" / "tomogram.mrc").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="another scene or seed. Give another --output_dir, or --overwrite"):
        simulate(SCENE, tmp_path, seed=2)


def test_centers_in_the_table_are_the_centroids_of_the_labels():
    made = simulate_one(load_scene(SCENE), 2)
    for row in made["particles"].itertuples():
        centroid = np.argwhere(made["labels"] == row.label).mean(0)
        np.testing.assert_allclose([row.z_vox, row.y_vox, row.x_vox], centroid, atol=1e-9)
        np.testing.assert_allclose([row.z_angstrom, row.y_angstrom, row.x_angstrom], centroid * 40, atol=1e-6)
