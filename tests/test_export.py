"""Export of a whole folder of detections: one list of all tomograms."""

import json

import numpy as np
import pandas as pd
import pytest

from scripts.export import export
from scripts.particles.context import TomogramContext
from scripts.particles.registry import read_particles

SHAPES = {"TS_01": (40, 60, 80), "TS_02": (30, 50, 70)}


def detections(folder, voxel_sizes=(10.0, 10.0)):
    """Two finished tomograms of other shapes, as detect leaves them, and one that is not finished."""
    rng = np.random.default_rng(0)
    for (name, shape), size in zip(SHAPES.items(), voxel_sizes, strict=True):
        (folder / name).mkdir(parents=True)
        centers = rng.uniform(0, shape, (4, 3)) * size
        table = pd.DataFrame(centers, columns=["z_angstrom", "y_angstrom", "x_angstrom"])
        table["label"], table["score"], table["dropped_by"] = [1, 2, 3, 0], 0.5, ["", "", "", "size"]
        table.to_csv(folder / name / f"{name}_particles.csv", index=False)
        record = {"tomogram": {"shape_zyx": shape, "voxel_size_zyx_angstrom": [size] * 3}}
        (folder / name / f"{name}.json").write_text(json.dumps(record))
    (folder / "TS_03").mkdir()
    (folder / "TS_03" / "TS_03_particles.csv").write_text("half a table")
    return folder


@pytest.mark.parametrize("format_name", ["relion5", "relion4", "warp"])
def test_a_folder_of_detections_becomes_one_list(tmp_path, format_name):
    """Each tomogram counts from its own middle; dropped rows stay behind."""
    folder, target = detections(tmp_path / "detections"), tmp_path / "all.star"
    export(str(folder), str(target), to_format=format_name, binning=4)
    sizes = {name: tuple(4 * side for side in shape) for name, shape in SHAPES.items()}
    context = TomogramContext(voxel_size_zyx=10.0, binning=4, unbinned_sizes=sizes)
    found = read_particles(target, format_name, context)
    assert [name.split(".")[0] for name in found.tomogram] == ["TS_01"] * 3 + ["TS_02"] * 3
    for name in SHAPES:
        table = pd.read_csv(folder / name / f"{name}_particles.csv").iloc[:3]
        mine = found.centers_xyz_angstrom[[one.startswith(name) for one in found.tomogram]]
        assert np.allclose(mine, table[["x_angstrom", "y_angstrom", "z_angstrom"]], atol=1e-3)


def test_folders_that_make_no_list_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: expected a particle list, or the output folder of detect; no detect"):
        export(str(tmp_path / "empty"), str(tmp_path / "all.star"))
    folder = detections(tmp_path / "mixed", (10.0, 8.0))
    with pytest.raises(ValueError, match="one voxel size, got TS_01 10x10x10 Å, TS_02 8x8x8 Å. Export them apart"):
        export(str(folder), str(tmp_path / "all.star"), to_format="relion5")
    assert not (tmp_path / "all.star").exists()
