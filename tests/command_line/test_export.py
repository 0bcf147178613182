"""Export of a whole folder of detections: one list of all tomograms."""

import json

import numpy as np
import pandas as pd
import pytest
import starfile

from scripts.command_line.export import export
from scripts.particles.registry import read_particles
from scripts.particles.shared.context import ParticleListWarning, TomogramContext, tomogram_base_name

SHAPES = {"TS_01": (40, 60, 80), "rec_TS_02_10.00Apx": (30, 50, 70)}  # the second as IMOD and Warp name it
ANGSTROM = ["x_angstrom", "y_angstrom", "z_angstrom"]


def detections(folder, shapes=SHAPES, voxel_sizes=(10.0, 10.0)):
    """Finished tomograms, as detect leaves them, and one that is not finished."""
    rng = np.random.default_rng(0)
    for (name, shape), size in zip(shapes.items(), voxel_sizes, strict=True):
        (folder / name).mkdir(parents=True)
        table = pd.DataFrame(rng.uniform(0, shape, (4, 3))[:, ::-1] * size, columns=ANGSTROM)
        table["label"], table["score"], table["dropped_by"] = [1, 2, 3, 0], 0.5, ["", "", "", "size"]
        table.to_csv(folder / name / f"{name}_particles.csv", index=False)
        known = {"shape_zyx": shape, "voxel_size_zyx_angstrom": [size] * 3}
        record = {"inputs": {}, "tomogram": known, "particles": {}, "files": {}}
        (folder / name / f"{name}.json").write_text(json.dumps(record))
    (folder / "TS_03").mkdir()
    (folder / "TS_03" / "TS_03_particles.csv").write_text("half a table")
    return folder


def read_and_expected(folder, target, format_name, context):
    """Places by tomogram in the list, and those of the particles that were kept."""
    found = read_particles(target, format_name, context)
    names = np.array([tomogram_base_name(name) for name in found.tomogram])
    tables = [pd.read_csv(folder / name / f"{name}_particles.csv").iloc[:3] for name in SHAPES]
    read = {name: found.centers_xyz_angstrom[names == name] for name in sorted(set(names))}
    return read, {tomogram_base_name(name): table[ANGSTROM] for name, table in zip(SHAPES, tables, strict=True)}


@pytest.mark.parametrize("format_name", ["relion5", "relion4", "warp", "csv"])
def test_a_folder_of_detections_becomes_one_list(tmp_path, format_name):
    """Each tomogram counts from its own middle; dropped rows stay behind."""
    folder, target = detections(tmp_path / "detections"), tmp_path / "all.list"
    export(str(folder), str(target), to_format=format_name, binning=4)
    sizes = {tomogram_base_name(name): shape for name, shape in SHAPES.items()}
    context = TomogramContext(voxel_size_zyx=10.0, binning=4, sizes=sizes)
    read, expected = read_and_expected(folder, target, format_name, context)
    assert list(read) == list(expected) == ["TS_01", "TS_02"]
    assert all(np.allclose(read[name], expected[name], atol=1e-3) for name in expected)


def test_some_of_the_detections_are_named_by_a_pattern_or_one_by_its_folder(tmp_path):
    folder = detections(tmp_path / "detections")
    for named, count in ((folder / "*TS_0*", 6), (folder / "TS_01", 3)):
        export(str(named), str(tmp_path / "all.csv"), overwrite=True)
        assert len(read_particles(tmp_path / "all.csv", voxel_size=10.0)) == count
    with pytest.raises(ValueError, match="expected one particle list, got 2: .*TS_01_particles.csv, .*Apx_part"):
        export(f"{folder}/*TS_0[12]*/*.csv", str(tmp_path / "other.csv"))


def test_an_unbinned_size_that_is_given_holds_for_all_and_a_guessed_one_is_told(tmp_path):
    folder, given = detections(tmp_path / "detections"), (170, 250, 330)
    export(str(folder), str(tmp_path / "given.star"), to_format="relion5", binning=4, unbinned_size=given)
    context = TomogramContext(voxel_size_zyx=10.0, binning=4, unbinned_size_zyx=given)
    read, expected = read_and_expected(folder, tmp_path / "given.star", "relion5", context)
    assert list(read) == list(expected) and all(np.allclose(read[k], expected[k], atol=1e-3) for k in expected)
    with pytest.warns(ParticleListWarning, match="is taken as size x binning"):
        export(str(folder), str(tmp_path / "guessed.star"), to_format="relion5", binning=4)


def test_folders_that_make_no_list_are_refused(tmp_path):
    target = str(tmp_path / "all.star")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: expected a folder that detect wrote .* no detection is in it"):
        export(str(tmp_path / "empty"), target)
    mixed = detections(tmp_path / "mixed", voxel_sizes=(10.0, 8.0))
    told = "one voxel size, got TS_01 10 Å, rec_TS_02_10.00Apx 8 Å. Export them apart"
    with pytest.raises(ValueError, match=told):
        export(str(mixed), target, to_format="relion5")
    with pytest.raises(ValueError, match="detections say this themselves; leave --voxel_size out"):
        export(str(mixed), target, to_format="relion5", voxel_size=10.0)
    twins = detections(tmp_path / "twins", {"TS_01": (4, 5, 6), "rec_TS_01": (4, 5, 6)})
    with pytest.raises(ValueError, match="rec_TS_01: another tomogram is called TS_01, too. Export the two apart"):
        export(str(twins), target, to_format="relion5")
    assert not (tmp_path / "all.star").exists()


def test_a_list_is_split_by_class_and_an_independent_reader_finds_each_place_once(tmp_path, capsys):
    centers = np.random.default_rng(1).uniform(0, 300, (6, 3))
    names = ["ribosome", "a b/c", "ribosome", "", "ribosome", "a b/c"]
    table = pd.DataFrame(centers, columns=ANGSTROM).assign(**{"class": names, "label": range(1, 7)})
    table.to_csv(tmp_path / "all.csv", index=False)
    size, target = (40, 60, 80), str(tmp_path / "p.star")
    options = {"tomogram": "TS_01", "voxel_size": 10.0, "size": size, "binning": 1.0, "to_format": "relion5"}
    export(str(tmp_path / "all.csv"), target, split_by_class=True, **options)
    assert {one.name for one in tmp_path.glob("*.star")} == {"p_ribosome.star", "p_a_b_c.star", "p_unnamed.star"}
    for word, name in (("ribosome", "ribosome"), ("a_b_c", "a b/c"), ("unnamed", "")):
        read = starfile.read(tmp_path / f"p_{word}.star")
        read = read["particles"] if isinstance(read, dict) else read
        found = read[[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]].to_numpy()
        middle = np.array(size[::-1]) * 10.0 / 2
        np.testing.assert_allclose(found + middle, centers[np.array(names) == name], atol=1e-3)
    with pytest.raises(ValueError, match="p_unnamed.star: exists already"):
        export(str(tmp_path / "all.csv"), target, split_by_class=True, **options)
