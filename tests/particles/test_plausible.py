"""Positions are held against their tomogram, wherever a list meets one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from custom_transforms.files.names import tomogram_base_name
from custom_transforms.volumes.mrc_write import write_mrc
from scripts.command_line.export import export
from scripts.evaluation.evaluate import evaluate
from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import FORMATS, read_particles, write_particles
from scripts.particles.shared.context import ParticleListWarning
from scripts.particles.shared.plausible import check_positions
from scripts.preparation.prepare import prepare
from tests.particles.test_declared import XYZ, star

SIZE_ZYX, VOXEL = (24, 32, 40), 10.0
INSIDE = np.random.default_rng(0).uniform(0.02, 0.98, (30, 3)) * (np.array(SIZE_ZYX[::-1]) - 1) * VOXEL


@pytest.fixture
def tomogram(tmp_path):
    path = tmp_path / "TS_01.mrc"
    write_mrc(path, np.random.default_rng(0).normal(size=SIZE_ZYX).astype(np.float32), VOXEL)
    return path


@pytest.mark.parametrize("factor", [2, 3, 4, 6, 8])
def test_a_list_outside_says_by_how_much_it_would_fit(factor):
    far = ParticleList((np.array(SIZE_ZYX[::-1]) * 0.8 + np.eye(3)) * VOXEL * factor)
    with pytest.raises(
        ValueError, match=f"all 3 positions lie outside.*Divided by {factor} they would fit.*--binning {factor},"
    ):
        check_positions(far, "a", VOXEL, SIZE_ZYX, 1.0)
    with pytest.raises(ValueError, match=f"--binning {2 * factor},"):
        check_positions(far, "a", VOXEL, SIZE_ZYX, 2.0)
    with pytest.raises(ValueError, match=f"Divided by {factor} they would fit") as caught:
        check_positions(far, "a", VOXEL, SIZE_ZYX)
    assert "--binning" not in str(caught.value)


def test_positions_in_a_tomogram_and_at_its_border_are_not_spoken_of(recwarn):
    edges = np.array([[-0.5, -0.5, -0.5], np.array(SIZE_ZYX[::-1]) - 0.5]) * VOXEL
    for places in (INSIDE, edges, INSIDE[:1], np.zeros((0, 3))):
        check_positions(ParticleList(places), "a", VOXEL, SIZE_ZYX)
    assert not recwarn


def test_some_outside_and_all_in_one_corner_are_warned_of():
    some = ParticleList(np.concatenate([INSIDE, [[5000.0, 10.0, 10.0]]]))
    with pytest.warns(ParticleListWarning, match="1 of 31 positions lie outside of the tomogram"):
        check_positions(some, "a", VOXEL, SIZE_ZYX)
    for divided in (2, 4, 8):
        with pytest.warns(ParticleListWarning, match="all 30 positions lie in the first .*Check the binning"):
            check_positions(ParticleList(INSIDE / divided), "a", VOXEL, SIZE_ZYX)
    most = ParticleList(INSIDE * 2)
    with pytest.warns(ParticleListWarning, match="positions lie outside.*Divided by 2 they would fit"):
        check_positions(most, "a", VOXEL, SIZE_ZYX)


@pytest.mark.filterwarnings("ignore::scripts.particles.shared.context.ParticleListWarning")
@pytest.mark.parametrize("name", [name for name, one in FORMATS.items() if one.write and not one.centered])
@pytest.mark.parametrize("binning", [1, 3])
def test_fractions_of_the_volume_are_refused_in_every_format(name, binning, tmp_path):
    if name == "imod":
        pytest.importorskip("imodmodel")
    fractions = np.array([[0.853, 0.857, 0.269], [0.164, 0.930, 0.731]])
    counts = FORMATS[name].counts
    angstrom = {"unbinned": (fractions - (binning - 1) / 2) / binning * VOXEL, "voxels": fractions * VOXEL}
    path = tmp_path / f"a{FORMATS[name].suffixes[0]}"
    options = {"voxel_size": VOXEL, "size_zyx": SIZE_ZYX, "binning": binning, "name": "1"}
    write_particles(ParticleList(angstrom.get(counts, fractions), "1"), path, name, **options)
    with pytest.raises(ValueError, match=f"{name}: all coordinates lie between 0 and 1"):
        read_particles(path, name, **options)


def test_prepare_export_and_evaluate_refuse_a_list_that_lies_outside(tomogram, tmp_path):
    rows = [f"TS_01.mrc {100 + i} {80 + i} {60 + i}" for i in range(6)]
    path = star(tmp_path / "far.star", ("rlnMicrographName", *XYZ), *rows)
    message = "all 6 positions lie outside of the tomogram.*Divided by 3 they would fit"
    with pytest.warns(ParticleListWarning, match="assumed unbinned"):
        with pytest.raises(ValueError, match=message):
            export(str(path), str(tmp_path / "out.csv"), tomogram=str(tomogram))
        with pytest.raises(ValueError, match=message):
            prepare(str(tomogram), particles=str(path), radius=30.0, output_dir=str(tmp_path / "set"), quiet=True)
    assert not (tmp_path / "out.csv").exists() and not (tmp_path / "set" / "dataset.json").exists()
    labels = np.zeros(SIZE_ZYX, np.int16)
    labels[10:14, 10:14, 10:14] = 1
    write_mrc(tmp_path / "truth.mrc", labels, VOXEL)
    write_particles(read_particles(path, voxel_size=VOXEL, binning=1), tmp_path / "far.csv", voxel_size=VOXEL)
    with pytest.raises(ValueError, match="prediction: all 6 positions lie outside"):
        evaluate(str(tmp_path / "far.csv"), str(tmp_path / "truth.mrc"), particle_diameter=60.0)


@pytest.mark.parametrize(
    "ending",
    ["_Vol", "_EVN", "_ODD", "_EVN_Vol", "_rec", "_full_rec", "_corrected", "_denoised", "_10.00Apx", "_SIRT", "_bin4"],
)
def test_names_of_programs_are_matched_with_a_note(ending, tmp_path):
    assert tomogram_base_name(f"rec_TS_01{ending}.mrc") == tomogram_base_name(f"a/TS_01{ending}.rec") == "TS_01"
    for number in (1, 2):
        volume = np.random.default_rng(number).normal(size=SIZE_ZYX).astype(np.float32)
        write_mrc(tmp_path / f"TS_0{number}{ending}.mrc", volume, VOXEL)
    path = star(tmp_path / "two.star", ("rlnTomoName", *XYZ), "TS_01 20 16 12", "TS_02 15 16 12")
    files = [str(tmp_path / f"TS_0{number}{ending}.mrc") for number in (1, 2)]
    prepare(*files, particles=str(path), binning=1, radius=30.0, output_dir=str(tmp_path / "set"), quiet=True)
    notes = (tmp_path / "set" / "prepare.json").read_text()
    assert f"names were matched without what programs add to them: TS_01 = TS_01{ending}.mrc, TS_02" in notes
    table = pd.read_csv(tmp_path / "set" / "TS_02_particles.csv")
    assert table[["x_vox", "y_vox", "z_vox"]].to_numpy().tolist() == [[15, 16, 12]]
