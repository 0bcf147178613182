"""Folders as Warp, RELION 5 and IMOD leave them: tomograms are found, named and matched with their particle lists."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile

from custom_transforms.files.names import tomogram_name
from custom_transforms.io import write_mrc
from scripts.command_line import parser as cli
from scripts.particles.registry import read_particles
from scripts.particles.shared.context import tomogram_base_name
from scripts.preparation.prepare import prepare
from scripts.sources.tomograms import find_tomograms

SHAPE, VOXEL = (12, 20, 28), 10.0
FOLDERS = {
    "warp": ("TS_001_10.00Apx.mrc", "TS_002_10.00Apx.mrc"),
    "relion5": ("rec_TS_001.mrc", "rec_TS_002.mrc"),
    "imod": ("TS_001.rec", "TS_002_full.rec"),
    "imod newer": ("TS_001_rec.mrc", "TS_002_full_rec.mrc"),
}


def write_folder(folder, names):
    folder.mkdir()
    for seed, name in enumerate(names):
        write_mrc(folder / name, np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32), VOXEL)
    return folder


def write_list(path, program):
    """Two particles, the first at voxel 14, 10, 6 (x, y, z) of TS_001, as the program itself lists them."""
    names, pixels = ["TS_001", "TS_002"], np.array([[14.0, 10, 6], [9, 8, 7]]) * 4 + 1.5
    if program == "relion5":
        centered = (pixels - np.array(SHAPE[::-1]) * 2) * VOXEL / 4
        table = {f"rlnCenteredCoordinate{a}Angst": c for a, c in zip("XYZ", centered.T, strict=True)}
        table["rlnTomoName"] = names
    else:
        table = {f"rlnCoordinate{a}": c for a, c in zip("XYZ", pixels.T, strict=True)}
        table["rlnMicrographName" if program == "warp" else "rlnTomoName"] = [
            f"{name}.tomostar" if program == "warp" else name for name in names
        ]
    starfile.write({"particles": pd.DataFrame(table)}, path)


@pytest.mark.parametrize("program", FOLDERS)
def test_tomograms_of_a_folder_keep_their_files_names_and_share_the_series_name(program, tmp_path):
    folder = write_folder(tmp_path / "tomograms", FOLDERS[program])
    (folder / "TS_001.tomostar").write_text("data_\n\nloop_\n_wrpMovieName\na.mrc\n")
    found = find_tomograms([str(folder)])
    found = [Path(item["image"]).name for item in found]
    assert found == sorted(FOLDERS[program])
    assert [tomogram_base_name(name) for name in found] == ["TS_001", "TS_002"]
    assert len({tomogram_name(name) for name in found}) == 2


@pytest.mark.parametrize("program", FOLDERS)
def test_prepare_matches_the_particles_of_each_program_with_its_tomograms(program, tmp_path):
    folder = write_folder(tmp_path / "tomograms", FOLDERS[program])
    write_list(tmp_path / "particles.star", program)
    options = {"particles": str(tmp_path / "particles.star"), "binning": 4.0, "radius": 30.0, "quiet": True}
    if program == "relion5":
        sizes = {f"rlnTomoSize{a}": [n * 4] * 2 for a, n in zip("XYZ", SHAPE[::-1], strict=True)}
        starfile.write({"global": pd.DataFrame({"rlnTomoName": ["TS_001", "TS_002"], **sizes})}, tmp_path / "t.star")
        options["tomograms_star"] = str(tmp_path / "t.star")
    prepare(str(folder), output_dir=str(tmp_path / "out"), validation_fraction=0.0, **options)
    tables = sorted((tmp_path / "out").rglob("*.csv"))
    places = [read_particles(path, voxel_size=VOXEL).centers_xyz_angstrom for path in tables]
    np.testing.assert_allclose(np.concatenate(places), [[140, 100, 60], [90, 80, 70]], atol=0.01)


def test_names_that_windows_refuses_are_replaced_in_outputs():
    assert [tomogram_name(f"/data/{name}.mrc") for name in ("TS:01", "nul", "a b", "Ts*?")] == [
        "TS_01", "nul_", "a b", "Ts__",
    ]  # fmt: skip


@pytest.fixture
def no_network(monkeypatch):
    """Any look-up or connection is an error, and remembered."""
    asked = []

    def refuse(*arguments, **named):
        asked.append(arguments)
        raise OSError("no network in this test")

    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    return asked


@pytest.mark.slow
def test_detect_report_evaluate_and_export_never_touch_the_network(tmp_path, no_network, capsys):
    import torch
    from monai.bundle import ConfigParser

    from tests.detection.detect_scene import NETWORKS

    settings = ConfigParser({"network_def": NETWORKS, "min_size": 1.0, "center_threshold": 0.01})
    network = ConfigParser({"n": NETWORKS}).get_parsed_content("n")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    ConfigParser.export_config_file(settings.config, str(tmp_path / "small.json"))
    volume = np.random.default_rng(0).normal(size=(16, 30, 32)).astype(np.float32)
    write_mrc(tmp_path / "TS_01.mrc", volume, VOXEL)
    where = ["--output_dir", f"{tmp_path}/out", "--config", f"{tmp_path}/small.json", "--particle_diameter", "120"]
    options = ["--weights", f"{tmp_path}/model.pt", "--tile", "32", "--device", "cpu", "--quiet"]
    assert cli.main(["detect", f"{tmp_path}/*.mrc", *where, *options]) == 0, capsys.readouterr().err
    run = tmp_path / "out" / "TS_01"
    assert cli.main(["report", str(run), "--quiet"]) == 0
    assert cli.main(["view", str(run), "--files", "--quiet"]) == 0
    labels = str(run / "TS_01_instances.mrc")
    assert cli.main(["evaluate", labels, labels, "--output_dir", f"{tmp_path}/e", "--bootstrap", "0", "--quiet"]) == 0
    table = str(run / "TS_01_particles.csv")
    assert cli.main(["export", table, f"{tmp_path}/a.tbl", "--tomogram", f"{tmp_path}/TS_01.mrc", "--quiet"]) == 0
    assert no_network == []
