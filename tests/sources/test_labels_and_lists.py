"""What a user names leads to the same labels, lists and detections whatever the verb."""

import json

import numpy as np
import pandas as pd
import pytest

from custom_transforms.io import write_mrc
from scripts.evaluation.evaluate import evaluate
from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import write_particles
from scripts.sources.detections import find_detections, one_detection
from scripts.sources.labels_and_lists import SideFiles, TomogramFile, files_by_tomogram, find_sides
from scripts.sources.particle_lists import read_particles

NAMES = ("TS_01", "TS_02")
CENTERS = {"TS_01": np.array([[20.0, 60, 30], [150, 90, 70]]), "TS_02": np.array([[200.0, 40, 90], [90, 100, 50]])}


@pytest.fixture
def folder(tmp_path):
    """Labels, a list for each tomogram and one of all, as three programs may leave them."""
    for name in NAMES:
        write_mrc(tmp_path / "labels" / f"{name}_labels.mrc", np.zeros((12, 20, 28), np.int8), 10.0)
        (tmp_path / "lists" / name).mkdir(parents=True)
        particles = ParticleList(CENTERS[name], name)
        write_particles(particles, tmp_path / "lists" / name / f"{name}_picked.tbl", "dynamo", voxel_size=10.0)
        write_particles(particles, tmp_path / "lists" / f"{name}_particles.csv", "csv", voxel_size=10.0)
    both = ParticleList.concat([ParticleList(CENTERS[name], name) for name in NAMES])
    write_particles(both, tmp_path / "all.star", "relion4", voxel_size=10.0, binning=1)
    return tmp_path


def test_a_folder_a_pattern_a_path_with_name_and_a_datalist_lead_to_the_same_files(folder, monkeypatch):
    labels = {name: SideFiles(name, volume=folder / "labels" / f"{name}_labels.mrc") for name in NAMES}
    items = [{"image": f"gone/{name}.mrc", "label": f"labels/{name}_labels.mrc"} for name in NAMES]
    (folder / "dataset_0.json").write_text(json.dumps({"training": items[:1], "test": items[1:]}))
    monkeypatch.setenv("HOME", str(folder))
    for named in ("labels", "labels/*", "labels/{name}_labels.mrc", "dataset_0.json", "~/labels/TS_0?_labels.mrc"):
        assert find_sides(named if named[0] == "~" else folder / named, "true") == labels, named
        files = files_by_tomogram(str(folder / named) if named[0] != "~" else named, NAMES, "volume")
        assert files == {name: TomogramFile(side.volume) for name, side in labels.items()}
    tables = {name: SideFiles(name, particles=folder / "lists" / name / f"{name}_picked.tbl") for name in NAMES}
    assert find_sides(folder / "lists" / "{name}" / "{name}_picked.tbl") == tables
    assert find_sides(folder / "lists" / "*" / "{name}_pick??.tbl") == tables
    with pytest.raises(FileNotFoundError, match="TS_01/gone.tbl: expected the particle list of TS_01, found nothing"):
        files_by_tomogram(f"{folder}/lists/{{name}}/gone.tbl", NAMES, "particles")
    with pytest.raises(ValueError, match="expected the label volume of TS_0, got 2 files: .*TS_01_labels.mrc, "):
        files_by_tomogram(f"{folder}/labels/{{name}}*", ["TS_0"], "volume")


def test_one_list_of_all_is_shared_and_in_a_folder_each_tomogram_knows_its_rows(folder):
    shared = files_by_tomogram(str(folder / "all.star"), NAMES, "particles")
    assert shared == dict.fromkeys(NAMES, TomogramFile(folder / "all.star", shared=True))
    (folder / "one").mkdir()
    (folder / "all.star").rename(folder / "one" / "all.star")
    for name, file in files_by_tomogram(str(folder / "one"), NAMES, "particles").items():
        assert (file.member, file.shared) == (name, False)
        rows = read_particles(file.path, member=file.member, voxel_size=10.0, binning=1)
        np.testing.assert_allclose(rows.centers_xyz_angstrom, CENTERS[name], atol=1e-3)


def test_a_tomogram_without_a_list_is_named_with_those_there_are(folder):
    with pytest.raises(FileNotFoundError, match="expected a label volume of every tomogram, found none of TS_03; t"):
        files_by_tomogram(str(folder / "labels"), [*NAMES, "TS_03"], "volume")
    with pytest.raises(FileNotFoundError, match="gone: expected true particles: label volumes, .* found nothing there"):
        find_sides(folder / "gone", "true")
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: expected true label volumes .* found none in it"):
        find_sides(folder / "empty", "true")


def test_evaluate_reads_lists_in_the_format_that_is_named(folder):
    """Three columns of Å, which no ending and no content tells from voxels."""
    for name in NAMES:
        (folder / f"{name}.dat").write_text("\n".join(" ".join(map(str, row)) for row in CENTERS[name] / 10.0))
    options = {"particle_diameter": 40.0, "bootstrap": 0, "voxel_size": 10.0}
    for found, formats in ((f"{folder}/{{name}}.dat", "coords,csv"), (f"{folder}/lists/*.csv", "csv")):
        result = evaluate(found, folder / "lists", from_format=formats, **options)
        assert result["pooled"]["points"]["tp"] == 4 and sorted(result["tomograms"]) == list(NAMES)
    one = evaluate(folder / "TS_01.dat", folder / "TS_01.dat", from_format="coords", **options)
    assert one["pooled"]["points"]["f1"] == 1.0
    with pytest.raises(ValueError, match="TS_01.dat: expected predicted particles .* or give the format of a list"):
        evaluate(folder / "TS_01.dat", folder / "lists", **options)
    with pytest.raises(ValueError, match="'relionn' is not a particle-list format"):
        evaluate(folder / "lists", folder / "lists", from_format="csv,relionn", **options)


def test_a_tomogram_that_a_list_calls_by_a_hidden_name_is_refused(folder):
    table = pd.read_csv(folder / "lists" / "TS_01_particles.csv").assign(tomogram=["..", ".b"])
    table.to_csv(folder / "picks.csv", index=False)
    with pytest.raises(ValueError, match=r"picks.csv \(\.\.\): the tomogram: expected a name for files, got '\.\.', "):
        find_sides(folder / "picks.csv", "true")


def test_a_detection_is_found_by_its_folder_a_file_a_pattern_and_under_another_name(tmp_path, capsys):
    for name in ("TS_01", "TS_02"):
        (tmp_path / "out" / name).mkdir(parents=True)
        for end in ("_particles.csv", ".json", "_instances.mrc"):
            (tmp_path / "out" / name / f"{name}{end}").touch()
    out = tmp_path / "out"
    both = [out / name / name for name in ("TS_01", "TS_02")]
    assert find_detections(out) == find_detections(f"{out}/TS_0?") == find_detections(f"{out}/*/*.json") == both
    for named in (out / "TS_01", out / "TS_01" / "TS_01.json", out / "TS_01" / "TS_01_instances.mrc"):
        assert one_detection(named) == both[0]
    assert find_detections(f"{out}/TS_01/*") == both[:1]
    assert "named twice, taken once" in capsys.readouterr().err
    with pytest.raises(ValueError, match="out: expected one detection, got 2: .*TS_01, .*TS_02. Give one of them"):
        one_detection(out)
    (out / "TS_01").rename(out / "better")
    assert one_detection(out / "better") == out / "better" / "TS_01"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: expected a folder that detect wrote \(.*no detection is in it. Run"):
        find_detections(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="gone: expected a folder that detect wrote .*, found nothing there"):
        find_detections(tmp_path / "gone")
