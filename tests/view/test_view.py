"""View: layers lie on the tomogram to the voxel, corrections come back as picks, scripts for other programs hold Å."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from custom_transforms.io import read_tomogram, write_instances, write_mrc
from custom_transforms.measuring.particle_table import measure_particles
from scripts.particles.registry import read_particles
from scripts.preparation.prepare import prepare
from scripts.records import model
from scripts.records.detection import DetectionRecord
from scripts.report.inputs import load_run
from scripts.view.files import write_view_files
from scripts.view.picks import curated_table, read_picks, reclassify_particle, save_picks, toggle_particle
from scripts.view.view import _show_cross_sections, add_layers, bind, view

ROOT = Path(__file__).parents[2]
SHAPE, VOXEL = (24, 40, 56), np.array([12.0, 10.0, 8.0])
CENTERS = np.array([[6, 10, 12], [12, 20, 30], [17, 31, 44]], float)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def run_dir(tmp_path):
    """A detection of three particles, the third dropped, in a tomogram with an origin."""
    grid = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.int32)
    for number, center in enumerate(CENTERS, start=1):
        labels[((grid - center.reshape(3, 1, 1, 1)) ** 2).sum(axis=0) <= 16] = number
    table = measure_particles(
        labels, (labels > 0).astype(np.float32), np.arange(1, 4), CENTERS, np.array([0.9, 0.5, 0.7]),
        voxel_size_zyx=VOXEL, center_threshold=0.3, neighbor_distance=150.0,
    )  # fmt: skip
    table.loc[2, ["label", "dropped_by"]] = [0, "size"]
    folder = tmp_path / "TS_01"
    folder.mkdir()
    noise = np.random.default_rng(0).normal(0, 0.3, SHAPE) - (labels > 0)
    write_mrc(tmp_path / "TS_01.mrc", noise.astype(np.float32), VOXEL, origin_xyz=(100, 200, 300))
    labels[labels == 3] = 0
    write_instances(folder / "TS_01_instances.mrc", labels, VOXEL, origin_xyz=(100, 200, 300))
    table.to_csv(folder / "TS_01_particles.csv", index=False)
    known = {"shape_zyx": list(SHAPE), "voxel_size_zyx_angstrom": VOXEL.tolist()}
    record = DetectionRecord(inputs={}, tomogram=known, particles={}, files={})
    model.write(record, folder / "TS_01.json")
    return folder


@pytest.fixture
def opened(run_dir):
    """A viewer without a window, the run in it, and the layer of its particles."""
    model = pytest.importorskip("napari.components", reason="napari is not installed").ViewerModel()
    run = load_run(run_dir, tomogram=run_dir.parent / "TS_01.mrc")
    (layer,) = add_layers(model, run)
    return model, run, layer


def test_layers_lie_on_the_tomogram_to_the_voxel(opened):
    viewer, run, layer = opened
    image, labels = viewer.layers["TS_01"], viewer.layers["instances"]
    assert image.data.shape == labels.data.shape == SHAPE
    for index in [(0, 0, 0), (5, 7, 9), tuple(np.array(SHAPE) - 1)]:
        places = [one.data_to_world(index) for one in (image, labels, layer)]
        np.testing.assert_allclose(places, [np.array(index) * VOXEL] * 3)
    np.testing.assert_allclose(layer.data, CENTERS[:2])
    for number, center in enumerate(layer.data, start=1):
        voxel = np.rint(labels.world_to_data(layer.data_to_world(center))).astype(int)
        assert labels.data[tuple(voxel)] == number
    np.testing.assert_allclose(layer.size * np.mean(VOXEL), layer.features["diameter_angstrom"], rtol=1e-2)
    assert layer.features["score"].tolist() == [0.9, 0.5]
    assert viewer.layers["dropped"].features["dropped_by"].tolist() == ["size"] and not viewer.layers["dropped"].visible


def test_a_double_click_deletes_a_center_or_adds_one(opened):
    viewer, run, layer = opened
    assert curated_table([layer], run)["origin"].tolist() == ["detected", "detected"]
    assert toggle_particle([layer], CENTERS[0] * VOXEL + [9, -6, 7]) is False
    np.testing.assert_allclose(layer.data, CENTERS[1:2])
    place = np.array([3.25, 30.5, 7.75])
    layer.selected_data = {0}  # napari would copy the features of a selected one
    assert toggle_particle([layer], place * VOXEL) is True
    layer.data = np.array([CENTERS[1] + [0, 1, 0], place])
    table = curated_table([layer], run)
    assert table["particle_id"].tolist() == [2, 4] and table["origin"].tolist() == ["moved", "added"]
    assert table["score"].tolist()[0] == 0.5 and np.isnan(table["score"].tolist()[1])
    np.testing.assert_allclose(table.loc[1, ["z_vox", "y_vox", "x_vox"]].astype(float), place)
    for _ in range(2):
        toggle_particle([layer], layer.data[0] * VOXEL)
    assert len(curated_table([layer], run)) == 0
    assert toggle_particle([layer], place * VOXEL) and len(curated_table([layer], run)) == 1


def test_points_added_by_napari_itself_are_told_from_the_selected_ones(opened):
    _, run, layer = opened
    layer.selected_data = {1}
    layer.add([[1.0, 2.0, 3.0]])
    assert curated_table([layer], run)["particle_id"].tolist() == [1, 2, 4]


def test_saved_picks_are_a_list_that_every_reader_takes_and_view_goes_on_with(opened, tmp_path):
    viewer, run, layer = opened
    bind(viewer, [layer], run, tmp_path / "picks.csv")

    class Click:
        position = np.array([20.0, 21.0, 22.0]) * VOXEL

    viewer.mouse_double_click_callbacks[-1](viewer, Click())
    viewer.dims.ndisplay = 3
    viewer.mouse_double_click_callbacks[-1](viewer, Click())  # nothing in 3D
    table = curated_table([layer], run)
    save_picks(table, tmp_path / "picks.csv")
    found = read_particles(tmp_path / "picks.csv")
    expected = np.array([*CENTERS[:2], [20, 21, 22]]) * VOXEL
    np.testing.assert_allclose(found.centers_xyz_angstrom, expected[:, ::-1])
    assert list(found.tomogram) == ["TS_01"] * 3 and found.score[0] == 0.9 and np.isnan(found.score[2])
    model = type(viewer)()
    (again,) = add_layers(model, run, read_picks(tmp_path / "picks.csv"))
    pd.testing.assert_frame_equal(curated_table([again], run), table)
    (tmp_path / "bad.csv").write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match="the column particle_id is missing"):
        read_picks(tmp_path / "bad.csv")


@pytest.fixture
def classed(opened, run_dir):
    """The same run with two classes and a third that nothing is of: a viewer, the run and its layers."""
    viewer, run, _ = opened
    kinds = {"1": "vlp", "2": "ribosome", "3": "tubulin"}
    run = replace(run, record=run.record.changed(classes=kinds))
    run.particles["class"] = ["vlp", "ribosome", "vlp"]
    viewer = type(viewer)()
    return viewer, run, add_layers(viewer, run)


def classes_of(layers, run) -> dict[int, tuple[str, str]]:
    table = curated_table(layers, run)
    return {row["particle_id"]: (row["class"], row["origin"]) for row in table.to_dict("records")}


def test_classes_have_a_layer_each_and_a_center_goes_from_one_to_another(classed, tmp_path):
    viewer, run, layers = classed
    assert [layer.name for layer in layers] == ["vlp", "ribosome", "tubulin"]
    vlp, ribosome, tubulin = layers
    np.testing.assert_allclose([vlp.data, ribosome.data], CENTERS[:2, None])
    assert len({tuple(layer.current_border_color) for layer in layers} | {tuple(vlp.border_color[0])}) >= 3
    bind(viewer, layers, run, tmp_path / "picks.csv")
    viewer.layers.selection.active = tubulin
    viewer.cursor.position = CENTERS[1] * VOXEL + [9, -6, 7]
    next(action for key, action in viewer.keymap.items() if str(key) == "C")(viewer)
    assert classes_of(layers, run) == {1: ("vlp", "detected"), 2: ("tubulin", "reclassified")}
    np.testing.assert_allclose(tubulin.data, CENTERS[1:2])
    assert tubulin.features["score"].tolist() == [0.5] and tubulin.size[0] == vlp.size[0]
    assert not reclassify_particle(layers, CENTERS[1] * VOXEL, tubulin)  # it is there already
    assert toggle_particle(layers, np.array([20, 21, 22]) * VOXEL, tubulin)
    assert classes_of(layers, run)[4] == ("tubulin", "added")
    again = add_layers(type(viewer)(), run, read_picks(save_picks(curated_table(layers, run), tmp_path / "picks.csv")))
    assert classes_of(again, run) == classes_of(layers, run)
    assert list(read_particles(tmp_path / "picks.csv").class_name) == ["vlp", "tubulin", "tubulin"]
    vlp.visible = False
    assert toggle_particle(layers, CENTERS[0] * VOXEL) and len(vlp.data) == 2  # what is hidden is not deleted


def test_the_rings_of_large_particles_stay_beside_a_layer_of_small_ones():
    viewer = SimpleNamespace(dims=SimpleNamespace(margin_left=(0.0, 0.0, 0.0)))
    for size in (20.0, 10.0):
        _show_cross_sections(viewer, SimpleNamespace(size=np.full(3, size), current_size=5.0, scale=VOXEL))
    assert viewer.dims.margin_left == viewer.dims.margin_right == tuple(10 * VOXEL)


def test_a_center_pasted_into_a_layer_or_edited_in_its_table_is_of_that_class(classed):
    _, run, (vlp, ribosome, tubulin) = classed
    tubulin.feature_defaults = vlp.features.iloc[0].to_dict()  # as cut and paste do
    tubulin.add(vlp.data[:1])
    vlp.data = np.zeros((0, 3))
    edited = ribosome.features.assign(**{"class": "vlp"})
    ribosome.features = edited
    found = classes_of([vlp, ribosome, tubulin], run)
    assert found == {1: ("tubulin", "reclassified"), 2: ("vlp", "reclassified")}


def test_picks_of_a_class_that_the_networks_do_not_know_have_a_layer(classed):
    viewer, run, layers = classed
    table = curated_table(layers, run).assign(**{"class": ["", "other"]})
    names = [layer.name for layer in add_layers(type(viewer)(), run, table)]
    assert names == ["vlp", "ribosome", "tubulin", "no class", "other"]


def test_curated_picks_are_what_prepare_makes_labels_of(opened, tmp_path):
    """Correction becomes training data: one center deleted, one added, and prepare paints exactly those left."""
    _, run, layer = opened
    place = np.array([10.0, 30.0, 10.0])
    assert not toggle_particle([layer], CENTERS[0] * VOXEL) and toggle_particle([layer], place * VOXEL)
    picks = save_picks(curated_table([layer], run), tmp_path / "TS_01_curated.csv")
    prepare(
        str(tmp_path / "TS_01.mrc"), particles=str(picks), radius=30.0, output_dir=str(tmp_path / "data"), quiet=True,
        validation_fraction=0.0,
    )  # fmt: skip
    item = json.loads((tmp_path / "data" / "dataset.json").read_text())["training"][0]
    labels, _ = read_tomogram(tmp_path / "data" / item["label"], check="labels")
    assert labels.max() == 2
    for center in (CENTERS[1], place):
        label = labels[tuple(center.astype(int))]
        assert label > 0
        np.testing.assert_allclose(np.argwhere(labels == label).mean(axis=0), center, atol=0.3)
    assert labels[tuple(CENTERS[0].astype(int))] == 0


def test_a_detection_of_nothing_opens(opened, run_dir):
    viewer, run, _ = opened
    run.particles = run.particles.iloc[:0]
    (layer,) = add_layers(type(viewer)(), run)
    assert len(curated_table([layer], run)) == 0 and toggle_particle([layer], [50, 60, 70])
    assert curated_table([layer], run)["particle_id"].tolist() == [1]


def test_without_napari_the_message_names_it_and_the_way_without(run_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(ImportError, match=r"pip install 'napari\[pyqt6\]'. Without it, --files writes scripts"):
        view(str(run_dir))


@pytest.mark.parametrize("saved", [False, True])
def test_closing_saves_what_is_shown_even_if_it_is_what_was_opened(run_dir, monkeypatch, capsys, saved):
    """A change that was saved with W and then taken back must not stay in the file."""
    tables = iter([pd.DataFrame({"x": [1.0]}), pd.DataFrame({"x": [1.0]})])
    target = run_dir / "TS_01_curated.csv"

    class Napari:
        Viewer = staticmethod(lambda title: None)

        @staticmethod
        def run():
            if saved:
                save_picks(pd.DataFrame({"x": [2.0]}), target)

    monkeypatch.setattr("scripts.view.view._import_napari", lambda: Napari)
    monkeypatch.setattr("scripts.view.view.add_layers", lambda *_: None)
    monkeypatch.setattr("scripts.view.view.bind", lambda *_: None)
    monkeypatch.setattr("scripts.view.view.curated_table", lambda *_: next(tables))
    view(str(run_dir))
    assert target.exists() == saved and (not saved or target.read_text() == "x\n1.0\n")


def test_scripts_of_other_programs_hold_the_kept_particles(run_dir, capsys):
    view(str(run_dir), tomogram=str(run_dir.parent / "TS_01.mrc"), files=True)
    assert "TS_01_chimerax.cxc" in capsys.readouterr().out
    expected = CENTERS[:2] * VOXEL
    markers = ElementTree.parse(run_dir / "TS_01_markers.cmm").getroot()
    found = [[float(one.get(axis)) for axis in "zyx"] for one in markers]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(np.loadtxt(run_dir / "TS_01_artiax.coords")[:, ::-1], CENTERS[:2], atol=1e-4)
    script = (run_dir / "TS_01_chimerax.cxc").read_text().splitlines()
    opened = [line.split('"')[1] for line in script if line.startswith("open ")]
    assert opened == [str(run_dir.parent / "TS_01.mrc"), "TS_01_instances.mrc", "TS_01_markers.cmm"]
    assert all((run_dir / name).exists() for name in opened)  # ChimeraX works in the script's folder
    assert script.count("volume #101 originIndex 0,0,0") == script.count("volume #102 originIndex 0,0,0") == 1
    assert f"volume #101 style image planes z,{SHAPE[0] // 2}" in script
    artiax = (run_dir / "TS_01_artiax.cxc").read_text()
    assert "artiax particles originScaleFactor 8 " in artiax and "TS_01_artiax.coords" in artiax
    pytest.importorskip("imodmodel")
    from imodmodel import read as read_model

    points = read_model(run_dir / "TS_01.mod")[["z", "y", "x"]].to_numpy()
    np.testing.assert_allclose(points - [0.0, 0.5, 0.5], CENTERS[:2], atol=1e-4)
    model = read_particles(run_dir / "TS_01.mod", voxel_size=VOXEL)
    np.testing.assert_allclose(model.centers_xyz_angstrom[:, ::-1], expected, atol=1e-3)


@pytest.mark.parametrize("name", ['a" ; exit ; "', "a;b", "a\nexit", "a\\", "a'"])
def test_no_path_becomes_a_command_of_another_program(run_dir, name):
    table = load_run(str(run_dir)).particles
    with pytest.warns(UserWarning, match="holds a character that ChimeraX would take for a command"):
        files = write_view_files(run_dir / "TS_01", table, VOXEL, SHAPE, run_dir / f"{name}.mrc")
    scripts = [path.read_text() for path in files if path.suffix == ".cxc"]
    assert len(scripts) == 2 and not any("exit" in text or "id 101" in text or "open tomo" in text for text in scripts)
    with pytest.raises(ValueError, match="expected a name without quotes, semicolons"):
        write_view_files(run_dir / name, table, VOXEL, SHAPE)


KNOWN_COMMANDS = {  # of ChimeraX (user/commands) and ArtiaX (user/commands/artiax_*), with the keywords they take
    "open": {"id", "format"},
    "volume": {"originIndex", "style", "planes", "region", "step", "level", "color", "transparency"},
    "view": {"orient"},
    "artiax": {"start", "open", "tomo", "particles", "originScaleFactor", "radius", "view", "xy"},
}
VALUES = {"image", "surface", "all", "coords"}


def test_scripts_hold_only_commands_and_keywords_that_chimerax_and_artiax_document(run_dir):
    view(str(run_dir), tomogram=str(run_dir.parent / "TS_01.mrc"), files=True)
    for name in ("TS_01_chimerax.cxc", "TS_01_artiax.cxc"):
        for line in (run_dir / name).read_text().splitlines():
            words = shlex.split(line, comments=line.startswith("#"))
            if words:
                plain = [one for one in words[1:] if one.isalpha() and one not in VALUES]
                assert set(plain) <= KNOWN_COMMANDS[words[0]], line


@pytest.mark.slow
def test_a_window_draws_the_particles_where_they_are(run_dir, tmp_path):
    pytest.importorskip("napari", reason="napari is not installed")
    code = f"""
import numpy as np, napari
from scripts.report.inputs import load_run
from scripts.view.files import write_view_files
from scripts.view.view import add_layers
viewer = napari.Viewer(show=True)
run = load_run({str(run_dir)!r}, tomogram={str(run_dir.parent / "TS_01.mrc")!r})
add_layers(viewer, run)
viewer.dims.set_point(0, 12 * 12.0)
viewer.reset_view()
napari.qt.get_qapp().processEvents()
np.save({str(tmp_path / "shot.npy")!r}, viewer.screenshot(canvas_only=True, flash=False))
viewer.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, env={**os.environ}
    )
    if done.returncode:
        pytest.skip(f"no OpenGL here: {done.stderr.strip().splitlines()[-1][:100] if done.stderr else 'no message'}")
    shot = np.load(tmp_path / "shot.npy")[..., :3].astype(int)
    coloured = np.argwhere(np.ptp(shot, axis=2) > 40)  # the tomogram is grey
    assert len(coloured) > 50
    shown = np.argwhere(np.ptp(shot, axis=2) + shot.sum(axis=2) > 0)
    middle = (coloured.mean(axis=0) - shown.min(axis=0)) / np.ptp(shown, axis=0)
    expected = (CENTERS[1, 1:] + 0.5) / np.array(SHAPE[1:])
    np.testing.assert_allclose(middle, expected, atol=0.03)
