"""Particle lists: every format against hand-computed numbers, other programs' libraries, and broken files."""

import json
import warnings

import emfile
import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from custom_transforms.files.names import tomogram_name
from scripts.command_line.export import export
from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import FORMATS, guess_format, read_particles, write_particles
from scripts.particles.shared.context import ParticleListWarning, TomogramContext, tomogram_base_name
from scripts.particles.shared.orientations import rotation_from_dynamo, rotation_from_relion, rotation_from_tom

SIZE_ZYX = (11, 20, 29)
WRITABLE = [name for name, one in FORMATS.items() if one.write]
READABLE = [name for name, one in FORMATS.items() if one.read]
ONE_CLASS = {"copick"}

pytestmark = [
    pytest.mark.filterwarnings("ignore::scripts.particles.shared.context.ParticleListWarning"),
    pytest.mark.filterwarnings("ignore:The `dict` method is deprecated"),  # inside imodmodel
]


def make_particles(count=7, seed=0, one_class=False):
    rng = np.random.default_rng(seed)
    centers = rng.uniform(0, 1, (count, 3)) * (np.array(SIZE_ZYX[::-1]) - 1) * 13.48
    names = ["ribosome"] * count if one_class else [("proteasome", "ribosome")[i % 2] for i in range(count)]
    return ParticleList(
        centers,
        tomogram="TS_01",
        class_name=names,
        score=rng.uniform(0, 1, count),
        rotation=Rotation.random(count, random_state=seed) if count else None,
    )


def file_of(tmp_path, name):
    if name == "imod":
        pytest.importorskip("imodmodel")
    return tmp_path / f"list{FORMATS[name].suffixes[0]}"


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("binning", [1, 2, 3, 4])
def test_writing_and_reading_keeps_what_the_format_can_hold(name, binning, tmp_path):
    path, known = file_of(tmp_path, name), make_particles(one_class=name in ONE_CLASS)
    options = {"voxel_size": 13.48, "size_zyx": SIZE_ZYX, "binning": binning, "name": "TS_01"}
    write_particles(known, path, name, **options)
    assert guess_format(path).name == name
    found = read_particles(path, **options)
    order = np.argsort([list(known.class_name)[i] for i in range(7)], kind="stable") if name == "imod" else np.arange(7)
    np.testing.assert_allclose(found.centers_xyz_angstrom, known.centers_xyz_angstrom[order], atol=2e-4)
    keeps = FORMATS[name].keeps
    if "score" in keeps:
        np.testing.assert_allclose(found.score, known.score, atol=1e-5)
    if "orientation" in keeps:
        assert (known.rotation.inv() * found.rotation).magnitude().max() < 1e-5
    else:
        assert found.rotation is None
    if "class" in keeps and name not in ("dynamo", "em", "stopgap"):
        assert list(found.class_name) == list(known.class_name[order])
    elif "class" in keeps:  # these hold numbers, alphabetical
        assert list(found.class_name) == [{"proteasome": "1", "ribosome": "2"}[n] for n in known.class_name]


@pytest.mark.parametrize("name", [n for n in WRITABLE if n != "em"])
def test_an_empty_list_is_a_legal_file(name, tmp_path):
    path = file_of(tmp_path, name)
    write_particles(ParticleList(np.zeros((0, 3))), path, name, voxel_size=10.0, size_zyx=SIZE_ZYX, name="TS_01")
    assert len(read_particles(path, name, voxel_size=10.0, size_zyx=SIZE_ZYX, name="TS_01")) == 0


def test_a_particle_at_a_known_voxel_has_the_numbers_each_program_expects(tmp_path):
    """Voxel x 3, y 5, z 2 of (12, 20, 28) at 10 Å, binned by 4: unbinned pixel 4 i + 1.5 of 2.5 Å."""
    one = ParticleList(np.array([[30.0, 50.0, 20.0]]), tomogram="rec_TS_01", class_name="2")
    options = {"voxel_size": 10.0, "size_zyx": (12, 20, 28), "binning": 4}

    def write(name):
        path = file_of(tmp_path, name)
        write_particles(one, path, name, **options)
        return path

    table = starfile.read(write("relion5"))
    centered = table[[f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"]].to_numpy()[0]
    np.testing.assert_allclose(centered, [(13.5 - 56) * 2.5, (21.5 - 40) * 2.5, (9.5 - 24) * 2.5])
    assert table["rlnTomoName"][0] == "TS_01" and "rlnAngleRot" not in table.columns
    table = starfile.read(write("warp"))
    assert table[[f"rlnCoordinate{a}" for a in "XYZ"]].to_numpy()[0].tolist() == [13.5, 21.5, 9.5]
    assert table["rlnMicrographName"][0] == "TS_01.tomostar"
    assert starfile.read(write("relion4"))["rlnTomoName"][0] == "TS_01"
    table = starfile.read(write("stopgap"))
    assert table[["orig_x", "orig_y", "orig_z"]].to_numpy()[0].tolist() == [14.5, 22.5, 10.5]
    _, motl = emfile.read(write("em"))
    assert motl.shape == (1, 1, 20) and motl[0, 0, 7:10].tolist() == [14.5, 22.5, 10.5] and motl[0, 0, 19] == 2
    words = write("dynamo").read_text().split()
    assert [float(w) for w in words[23:26]] == [13.5, 21.5, 9.5] and float(words[35]) == 2.5
    assert json.loads(write("czi").read_text())["location"] == {"x": 3.0, "y": 5.0, "z": 2.0}
    assert json.loads(write("copick").read_text())["points"][0]["location"] == {"x": 30.0, "y": 50.0, "z": 20.0}
    box = json.loads(write("eman2").read_text())["boxes_3d"][0]
    assert box[:3] == [(3 - 14) * 4.0, (5 - 10) * 4.0, (2 - 6) * 4.0]
    assert 'x="3" y="5" z="2"' in write("deepfinder").read_text()
    assert write("coords").read_text().split() == ["3.000000", "5.000000", "2.000000"]
    assert write("original").read_text().splitlines()[1].split("\t")[:2] == ["30.000000", "50.000000"]


def test_imod_points_are_at_half_pixels_in_x_and_y(tmp_path):
    imodmodel = pytest.importorskip("imodmodel")
    one = ParticleList(np.array([[30.0, 50.0, 20.0]]), class_name="ribosome")
    write_particles(one, tmp_path / "a.mod", voxel_size=10.0, size_zyx=(12, 20, 28))
    assert imodmodel.read(tmp_path / "a.mod")[["x", "y", "z"]].to_numpy()[0].tolist() == [3.5, 5.5, 2.0]


def test_dynamotable_reads_our_table_at_the_same_positions(tmp_path):
    dynamotable = pytest.importorskip("dynamotable")
    known = make_particles()
    write_particles(known, tmp_path / "a.tbl", voxel_size=13.48, binning=2)
    table = dynamotable.read(str(tmp_path / "a.tbl"), str(tmp_path / "a.doc"))
    pixels = table[["x", "y", "z"]].to_numpy() + table[["dx", "dy", "dz"]].to_numpy()
    np.testing.assert_allclose((pixels - 0.5) / 2 * 13.48, known.centers_xyz_angstrom, atol=0.01)
    assert set(table["tomo_file"]) == {"TS_01"}


def test_dynamo_and_relion_angles_that_are_known_to_be_equal_give_one_rotation():
    """A published pair of both programs that gives identical reconstructions."""
    relion = rotation_from_relion([[137.7, 1.1777, 42.727]])
    dynamo = rotation_from_dynamo([[-47.273, 1.1777, -132.3]])
    assert (relion.inv() * dynamo).magnitude()[0] < 1e-6


def test_relion_angles_follow_its_euler_matrix():
    """RELION's matrix, spelled out, takes a vector of the reference into the tomogram."""
    rot, tilt, psi = np.radians([25.0, 40.0, 70.0])

    def passive(axis, angle):
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]] if axis == "z" else [[c, 0, -s], [0, 1, 0], [s, 0, c]])

    matrix = passive("z", psi) @ passive("y", tilt) @ passive("z", rot)
    np.testing.assert_allclose(rotation_from_relion([[25.0, 40.0, 70.0]]).as_matrix()[0], matrix, atol=1e-12)


def test_tom_angles_turn_by_phi_then_theta_then_psi():
    """phi about z, theta about x, psi about z, all about fixed axes: x goes to y, then to z, and stays."""
    np.testing.assert_allclose(rotation_from_tom([[90.0, 0.0, 90.0]]).apply([1.0, 0, 0])[0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rotation_from_tom([[90.0, 90.0, 0.0]]).apply([1.0, 0, 0])[0], [-1, 0, 0], atol=1e-12)


def test_relion_shifts_are_turned_by_the_subtomogram_and_never_by_the_particle(tmp_path):
    table = {"rlnTomoName": ["TS_01"], "rlnCoordinateX": [10.0], "rlnCoordinateY": [10.0], "rlnCoordinateZ": [10.0]}
    table |= {"rlnOriginXAngst": [5.0], "rlnOriginYAngst": [0.0], "rlnOriginZAngst": [0.0]}
    table |= {"rlnAngleRot": [90.0], "rlnAngleTilt": [0.0], "rlnAnglePsi": [0.0]}
    starfile.write(pd.DataFrame(table), tmp_path / "a.star")
    plain = read_particles(tmp_path / "a.star", voxel_size=2.5)
    np.testing.assert_allclose(plain.centers_xyz_angstrom, [[20.0, 25.0, 25.0]], atol=1e-9)
    table |= {"rlnTomoSubtomogramRot": [0.0], "rlnTomoSubtomogramTilt": [0.0], "rlnTomoSubtomogramPsi": [90.0]}
    starfile.write(pd.DataFrame(table), tmp_path / "b.star")
    turned = read_particles(tmp_path / "b.star", voxel_size=2.5)
    np.testing.assert_allclose(turned.centers_xyz_angstrom, [[25.0, 30.0, 25.0]], atol=1e-9)
    np.testing.assert_allclose(turned.rotation.apply([1.0, 0, 0]), [[-1, 0, 0]], atol=1e-9)


def test_relion5_takes_unbinned_sizes_from_tomograms_star_and_offers_both_center_rules(tmp_path):
    sizes = {"rlnTomoName": ["TS_01"], "rlnTomoSizeX": [115], "rlnTomoSizeY": [81], "rlnTomoSizeZ": [47]}
    starfile.write({"global": pd.DataFrame(sizes)}, tmp_path / "tomograms.star")
    one = ParticleList(np.array([[30.0, 50.0, 20.0]]), tomogram="TS_01")
    options = {"voxel_size": 10.0, "binning": 4, "tomograms_star": tmp_path / "tomograms.star"}
    write_particles(one, tmp_path / "a.star", "relion5", **options)
    x = starfile.read(tmp_path / "a.star")["rlnCenteredCoordinateXAngst"][0]
    assert x == pytest.approx((13.5 - 57.5) * 2.5)
    other = read_particles(tmp_path / "a.star", center_rule="size/2-1", **options)
    np.testing.assert_allclose(other.centers_xyz_angstrom, [[27.5, 47.5, 17.5]], atol=1e-6)


def test_an_assumed_unbinned_size_is_told(tmp_path):
    one = ParticleList(np.array([[30.0, 50.0, 20.0]]), tomogram="TS_01")
    with pytest.warns(ParticleListWarning, match=r"size x binning = 112 x 80 x 48 \(x, y, z\)"):
        write_particles(one, tmp_path / "a.star", "relion5", voxel_size=10.0, size_zyx=(12, 20, 28), binning=4)


def test_a_wrong_binning_is_an_error_that_gives_the_right_one(tmp_path):
    blocks = {
        "optics": pd.DataFrame({"rlnOpticsGroup": [1], "rlnTomoTiltSeriesPixelSize": [2.5]}),
        "particles": pd.DataFrame(
            {"rlnTomoName": ["TS_01"], "rlnCoordinateX": [1.0], "rlnCoordinateY": [2.0], "rlnCoordinateZ": [3.0]}
        ),
    }
    starfile.write(blocks, tmp_path / "a.star")
    with pytest.raises(ValueError, match="Give --binning 4"):
        read_particles(tmp_path / "a.star", voxel_size=10.0, binning=2)
    for options in ({}, {"binning": 4}):
        found = read_particles(tmp_path / "a.star", voxel_size=10.0, **options).centers_xyz_angstrom
        np.testing.assert_allclose(found, [[-1.25, 1.25, 3.75]])


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><objlist><object x="&b;"/></objlist>'
)
BROKEN = [
    ("a.csv", "x_angstrom,y_angstrom\n1,2\n", "needs the column z_angstrom"),
    (
        "a.csv",
        "x_angstrom,y_angstrom,z_angstrom\n1,2,3\n1,two,3\n",
        r"column y_angstrom, row 2: expected a number, got 'two'",
    ),
    ("a.csv", "x_angstrom,y_angstrom,z_angstrom,angle_rot,angle_tilt,angle_psi\n1,2,3,0,left,0\n", "angle_tilt, row 1"),
    ("a.csv", "x_angstrom,y_angstrom,z_angstrom\n1,2,inf\n", "row 1: expected a number"),
    ("a.xml", BOMB, "may not hold a document type or entities"),
    ("a.xml", '<objlist><object x="1" y="2"/></objlist>', "object 1 lacks the attribute z"),
    ("a.xml", '<objlist><object x="1" y="2" z="3" phi="a" psi="0" the="0"/></objlist>', "column phi, row 1"),
    ("a.xml", '<objlist><object x="1" y="2" z="3" phi="1"/></objlist>', "psi is missing"),
    ("a.xml", '<objlist><object x="1" y="2" z="3"/>', "not readable as XML"),
    ("a.star", "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n1 2\n", "looks like a list of 2D particles"),
    ("a.tbl", "1 2 3\n", "expected at least 26 columns, got 3"),
    ("a.json", '{"pickable_object_name": "a", "points": [{"location": {"x": 1}}]}', "point 1: expected location"),
    (
        "a.ndjson",
        '{"type": "point", "location": {"x": 1, "y": 1, "z": 1}}\n{"type": "line"}\n',
        "line 2: expected a type",
    ),
    ("a.coords", "1 2 3\n1 2\n", "line 2: expected three numbers"),
    ("a.em", "short", "header of 512 bytes"),
]


@pytest.mark.parametrize(("name", "text", "message"), BROKEN)
def test_a_broken_list_is_one_clear_error(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_particles(tmp_path / name, voxel_size=10.0, size_zyx=SIZE_ZYX)


@pytest.mark.parametrize("name", READABLE)
@settings(max_examples=25, deadline=None)
@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
def test_random_bytes_give_a_list_or_our_error(name, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes") / "a.dat"
    path.write_bytes(data)
    try:
        found = read_particles(path, name, voxel_size=10.0, size_zyx=SIZE_ZYX, axis_order="xyz")
    except ValueError as error:
        assert str(path) in str(error) or "particle" in str(error)
    else:
        assert np.isfinite(found.centers_xyz_angstrom).all()


@pytest.mark.parametrize(
    "name", ["deepfinder", "em", "copick", "eman2", "imod"]
)  # the others have no mark of their end
def test_a_truncated_file_never_loses_particles_silently(name, tmp_path):
    path = file_of(tmp_path, name)
    options = {"voxel_size": 13.48, "size_zyx": SIZE_ZYX, "name": "TS_01"}
    write_particles(make_particles(one_class=name in ONE_CLASS), path, name, **options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - len(data) // 10])
    with pytest.raises(ValueError, match=r"complete\?"):
        read_particles(path, name, **options)


@pytest.mark.parametrize("name", WRITABLE)
def test_damaged_bytes_give_a_list_or_our_error(name, tmp_path):
    path, rng = file_of(tmp_path, name), np.random.default_rng(0)
    options = {"voxel_size": 13.48, "size_zyx": SIZE_ZYX, "name": "TS_01"}
    write_particles(make_particles(one_class=name in ONE_CLASS), path, name, **options)
    data = path.read_bytes()
    for _ in range(25):
        damaged = bytearray(data)
        damaged[int(rng.integers(len(data)))] = int(rng.integers(256))
        start = int(rng.integers(len(data)))
        del damaged[start : start + int(rng.integers(4))]
        path.write_bytes(bytes(damaged))
        try:
            found = read_particles(path, name, **options)
        except ValueError as error:
            assert str(path) in str(error) or "particle" in str(error)
        else:
            assert np.isfinite(found.centers_xyz_angstrom).all()


def test_unknown_formats_list_the_known_ones(tmp_path):
    (tmp_path / "a.xyz").write_text("hello")
    with pytest.raises(ValueError, match="known: csv, original, deepfinder"):
        read_particles(tmp_path / "a.xyz", "excel")
    with pytest.raises(ValueError, match="Did you mean relion5 or relion4 or warp or relion3 or stopgap[?]"):
        read_particles(tmp_path / "a.xyz", "star")
    with pytest.raises(ValueError, match="Did you mean dynamo[?]"):
        read_particles(tmp_path / "a.xyz", "dinamo")
    with pytest.raises(ValueError, match="name it with --from_format"):
        read_particles(tmp_path / "a.xyz")
    with pytest.raises(ValueError, match="can only be read"):
        write_particles(make_particles(), tmp_path / "a.cbox", "cbox")
    with pytest.raises(ValueError, match="not an option of particle lists"):
        read_particles(tmp_path / "a.xyz", "csv", voxel_sizes=3)


def test_a_missing_field_names_the_option_that_supplies_it(tmp_path):
    with pytest.raises(ValueError, match="--voxel_size"):
        write_particles(make_particles(), tmp_path / "a.xml")
    with pytest.raises(ValueError, match="--size"):
        write_particles(make_particles(), tmp_path / "a.star", "relion5", voxel_size=10.0)
    with pytest.raises(ValueError, match="--tomogram"):
        write_particles(ParticleList(np.zeros((1, 3))), tmp_path / "a.star", "relion4", voxel_size=10.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("default")
def test_a_conversion_says_what_it_loses(tmp_path):
    with pytest.warns(ParticleListWarning, match="original does not keep orientations"):
        lost = write_particles(make_particles(), tmp_path / "a.txt", voxel_size=10.0)
    assert len(lost) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert write_particles(make_particles(), tmp_path / "a.csv", voxel_size=10.0) == []


def test_shrec_takes_the_only_order_that_fits_and_asks_otherwise(tmp_path):
    (tmp_path / "a.txt").write_text("3d2f 10 18 27 -45 81 -72\n1qvr 3 2 1 0 0 0\n")
    options = {"voxel_size": 10.0}
    found = read_particles(tmp_path / "a.txt", "shrec", size_zyx=(12, 20, 28), **options)
    assert found.centers_xyz_angstrom.tolist() == [[270.0, 180.0, 100.0], [10.0, 20.0, 30.0]]
    assert list(found.class_name) == ["3d2f", "1qvr"] and found.rotation is None
    with pytest.raises(ValueError, match="--axis_order"):
        read_particles(tmp_path / "a.txt", "shrec", size_zyx=(20, 40, 40), **options)


def test_cbox_gives_the_middle_of_the_box(tmp_path):
    head = "data_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n"
    columns = ["CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height", "Depth", "Confidence"]
    text = head + "".join(f"_{c} #{i}\n" for i, c in enumerate(columns, 1)) + "1 2 3 10 20 10 0.5\n2 2 3 10 20 10 0.6\n"
    (tmp_path / "a.cbox").write_text(text)
    found = read_particles(tmp_path / "a.cbox", voxel_size=2.0)
    assert found.centers_xyz_angstrom[0].tolist() == [12.0, 24.0, 6.0] and found.score.tolist() == [0.5, 0.6]


def test_dropped_rows_of_our_table_are_left_out(tmp_path):
    table = "particle_id,label,class,x_vox,y_vox,z_vox,score,dropped_by\n1,1,a,1,2,3,0.5,\n2,0,a,4,5,6,0.1,min_size\n"
    (tmp_path / "a.csv").write_text(table)
    found = read_particles(tmp_path / "a.csv", voxel_size=2.0)
    assert found.centers_xyz_angstrom.tolist() == [[2.0, 4.0, 6.0]] and found.score.tolist() == [0.5]


def test_lists_reject_columns_of_another_length_and_positions_that_are_not_finite():
    with pytest.raises(ValueError, match="score: expected 2 values"):
        ParticleList(np.zeros((2, 3)), score=[1.0])
    with pytest.raises(ValueError, match="particle 2 of 2: expected a finite position"):
        ParticleList([[0, 0, 0], [0, np.nan, 0]])
    joined = ParticleList.concat([make_particles(3), make_particles(0), make_particles(2)])
    assert len(joined) == 5 and joined.rotation is not None and len(joined.select(np.array([4, 0]))) == 2


def test_export_converts_and_never_overwrites_unasked(tmp_path, capsys):
    write_particles(make_particles(), tmp_path / "a.csv", voxel_size=13.48)
    options = {"voxel_size": 13.48, "size": SIZE_ZYX, "binning": 2.0}
    export(str(tmp_path / "a.csv"), str(tmp_path / "a.star"), to_format="relion5", only_class="ribosome", **options)
    assert "3 of 7 particles" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--overwrite"):
        export(str(tmp_path / "a.csv"), str(tmp_path / "a.star"), **options)
    export(str(tmp_path / "a.star"), str(tmp_path / "b.csv"), scale=2.0, shift=(1.0, 0.0, 0.0), **options)
    first = read_particles(tmp_path / "b.csv").centers_xyz_angstrom[0]
    np.testing.assert_allclose(first, make_particles().centers_xyz_angstrom[1] * 2 + [1, 0, 0], atol=1e-4)
    with pytest.raises(ValueError, match="the list has none of it; it has proteasome, ribosome"):
        export(str(tmp_path / "a.csv"), str(tmp_path / "c.csv"), only_class="x")


@pytest.mark.parametrize(
    ("target", "options", "warned"),
    [
        ("a.star --to_format relion4", {"voxel_size": 10.0}, True),
        ("a.star --to_format warp", {"voxel_size": 10.0}, True),
        ("a.json --to_format eman2", {"voxel_size": 10.0, "size": SIZE_ZYX}, "written"),  # the file says its pixel
        ("a.star --to_format relion4", {"voxel_size": 10.0, "binning": 1.0}, False),
        ("a.star --to_format relion4", {"voxel_size": 4.0}, True),
        ("a.star --to_format relion5", {"voxel_size": 10.0, "size": SIZE_ZYX}, True),
        ("a.star --to_format stopgap", {"voxel_size": 10.0}, True),
        ("a.em --to_format em", {"voxel_size": 10.0}, True),
        ("a.coords", {"voxel_size": 10.0}, False),
    ],
)
def test_export_says_so_where_it_takes_large_pixels_for_unbinned(tmp_path, target, options, warned):
    """Both ways, and once."""
    name, _, written = target.partition(" --to_format ")
    write_particles(make_particles(), tmp_path / "in.csv", voxel_size=10.0)
    for source, to, formats in (
        ("in.csv", name, {"to_format": written or None}),
        (name, "b.csv", {"from_format": written or None}),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            export(str(tmp_path / source), str(tmp_path / to), **options, tomogram="TS_01", **formats)
        said = [str(one.message) for one in caught if "assumed unbinned pixels" in str(one.message)]
        size = options["voxel_size"]
        expected = f"{written}: assumed unbinned pixels of {size:g} Å; give --binning N if the tomogram is binned."
        assert said == ([expected] if warned is True or (warned == "written" and source == "in.csv") else [])


@pytest.mark.slow
def test_a_million_rows_are_read_in_reasonable_time(tmp_path):
    numbers = np.random.default_rng(0).uniform(0, 1000, (1_000_000, 3)).round(1)
    path = tmp_path / "a.csv"
    pd.DataFrame(numbers, columns=["x_angstrom", "y_angstrom", "z_angstrom"]).to_csv(path, index=False)
    assert len(read_particles(path)) == 1_000_000


NAME_PARTS = [
    "rec_",
    "TS_01",
    "tomogram",
    "_rec",
    "_full",
    "_10.00Apx",
    ".mrc",
    ".rec",
    ".ome",
    ".zarr",
    ".gz",
    "/",
    "/0",
    "x",
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(NAME_PARTS), max_size=7).map("".join))
def test_the_name_detect_gives_a_tomogram_matches_the_tomogram(path):
    path = f"/data/{path}"
    assert tomogram_base_name(tomogram_name(path)) == tomogram_base_name(path)
    assert tomogram_base_name(tomogram_base_name(path)) == tomogram_base_name(path)


def test_detected_tomograms_keep_the_name_of_their_file_or_folder():
    names = {"TS_001_rec.mrc": "TS_001_rec", "TS.01.mrc": "TS.01", "s/vlp_006/tomogram.mrc": "vlp_006",
             "TS_01.ome.zarr/0": "TS_01", "TS_01/tomo.zarr/0": "TS_01", "tomogram_0.mrc": "tomogram_0"}  # fmt: skip
    assert {path: tomogram_name(path) for path in names} == names


def test_context_rejects_nonsense():
    with pytest.raises(ValueError, match="center_rule"):
        TomogramContext(center_rule="middle")
    with pytest.raises(ValueError, match="binning"):
        TomogramContext(binning=0)
