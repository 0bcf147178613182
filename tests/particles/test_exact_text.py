"""Names and numbers of a list come back as they were, and a row that does not fit its columns is never shifted."""

from __future__ import annotations

import csv
import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scripts.command_line.export import export
from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import FORMATS, guess_format, read_particles, write_particles
from scripts.particles.shared.context import ParticleListWarning
from scripts.particles.shared.star_text import parse_star, star_text
from tests.particles.test_declared import XYZ, star

CENTERS = np.array([[30.0, 50.0, 20.0], [200.0, 150.0, 90.0]])
OPTIONS = {"voxel_size": 10.0, "size_zyx": (11, 20, 29), "binning": 3, "name": "TS_01"}
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = (
    st.text(alphabet="ab8S#'_;,=+-@. \"$[]{}\\/", min_size=1, max_size=8)
    .map(str.strip)
    .filter(
        lambda name: (
            name and not ('"' in name and "'" in name) and name.strip("'\"") and not name.replace(".", "").isdecimal()
        )
    )
)


@pytest.mark.parametrize("name", ["csv", "relion5", "relion4", "relion3", "warp", "deepfinder"])
@quick
@given(classes=st.lists(NAMES, min_size=2, max_size=2))
@example(classes=["80S#1", "80S#2"])
@example(classes=["a'b", "_rlnX"])
@example(classes=["data_x", "loop_"])
@example(classes=["=1+1", "'=1+1"])
@example(classes=["-ribosome", '"a b"'])
def test_class_names_come_back_as_they_were(name, classes, tmp_path):
    path = tmp_path / f"a{FORMATS[name].suffixes[0]}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ParticleListWarning)
        write_particles(ParticleList(CENTERS, "TS_01", classes), path, name, **OPTIONS)
        found = read_particles(path, name, **OPTIONS)
    assert list(found.class_name) == classes
    np.testing.assert_allclose(found.centers_xyz_angstrom, CENTERS, atol=1e-4)


def test_no_cell_of_a_table_is_a_formula(tmp_path):
    write_particles(ParticleList(CENTERS, "=A1", ["@SUM(1)", "+1+1"]), tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in "=+@" and cell]
    found = read_particles(tmp_path / "a.csv")
    assert list(found.class_name) == ["@SUM(1)", "+1+1"] and set(found.tomogram) == {"=A1"}


@quick
@given(st.lists(st.tuples(NAMES, st.floats(-1e6, 1e6)), max_size=4))
def test_star_text_is_read_back(rows):
    columns = {"name": [name for name, _ in rows], "number": [number for _, number in rows]}
    table = parse_star(star_text(columns), "a.star")["particles"]
    assert table["name"].tolist() == columns["name"]
    assert [f"{number:.6f}" for number in columns["number"]] == table["number"].tolist()


def test_star_refuses_names_that_it_cannot_hold(tmp_path):
    for name in ("a\nb", "a'\"b"):
        with pytest.raises(ValueError, match="STAR cannot hold the name"):
            write_particles(ParticleList(CENTERS, "TS_01", name), tmp_path / "a.star", "relion4", **OPTIONS)
    assert not list(tmp_path.iterdir())


TABLE = " ".join(["1"] * 23 + ["10", "20", "30"] + ["0"] * 9)
SHIFTED = [
    ("a.tbl", f"{TABLE}\n{TABLE} 5\n", "dynamo row 2: expected 35 columns as in the first row, got 36"),
    ("a.tbl", f"{TABLE}\n{TABLE[2:]}\n", "dynamo row 2: expected 35 columns as in the first row, got 34"),
    ("a.coords", "1 2 3\n1 2 3 4\n", "coords line 2: expected three numbers x y z, got '1 2 3 4'"),
    ("a.coords", "x y z score\n1 2 3 0.5\n1 2 3\n", "coords line 3: expected a value for each column"),
    ("a.csv", "class,x,y,z\na,1,2,3\na,1,2\n", "row 2 has 3 values, the header 4"),
    ("a.csv", "class,x,y,z\na,1,2,3,4\n", "row 1 has 5 values, the header 4"),
    ("a.star", f"data_\nloop_\n_{XYZ[0]}\n_{XYZ[1]}\n_{XYZ[2]}\n1 2 3\n1 2\n", "line 7 .* 3 values, .* got 2"),
    ("TS_01_info.json", '{"boxes_3d": [[1, 2, "manual", 0.5, 0]]}', "eman2 box 1: expected"),
    ("TS_01_info.json", '{"boxes_3d": [[1, 2, 3, 4, "manual", 0.5, 0]]}', "eman2 box 1: expected"),
    ("a.txt", "1bxn 1 2 3 4 0 0 0\n", "shrec line 1: expected a class, three numbers, and three angles or none"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::scripts.particles.shared.context.ParticleListWarning")
@pytest.mark.parametrize(("name", "text", "message"), SHIFTED)
def test_a_row_with_a_number_too_few_or_too_many_is_an_error(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_particles(tmp_path / name, "shrec" if name == "a.txt" else None, voxel_size=10.0, size_zyx=(11, 20, 29))


def test_a_header_names_the_columns_of_coords(tmp_path):
    (tmp_path / "a.coords").write_text("class x y z\n7 1 2 3\n")
    assert read_particles(tmp_path / "a.coords", "coords", voxel_size=10.0).centers_xyz_angstrom.tolist() == [
        [10, 20, 30]
    ]


def test_a_missing_value_that_is_not_needed_costs_a_warning_and_not_the_list(tmp_path):
    row = TABLE.split()
    row[9] = "NaN"
    (tmp_path / "a.tbl").write_text(" ".join(row) + "\n")
    columns = (
        "rlnTomoName",
        *XYZ,
        "rlnAngleRot",
        "rlnAngleTilt",
        "rlnAnglePsi",
        "rlnClassNumber",
        "rlnAutopickFigureOfMerit",
    )
    star(tmp_path / "a.star", columns, "TS_01 10 20 30 nan 0 0 nan nan", "TS_01 10 20 30 0 0 0 2.0 0.5")
    (tmp_path / "a.csv").write_text("x,y,z,score,radius_angstrom\n10,20,30,nan,inf\n")
    box = {"boxes_3d": [[1, 2, 3, "manual", float("nan"), 0]], "apix_unbin": 5.0}
    (tmp_path / "a.json").write_text(json.dumps(box))
    for name, count in (("a.tbl", 1), ("a.star", 2), ("a.csv", 1), ("a.json", 1)):
        with pytest.warns(ParticleListWarning, match="missing; taken as unknown"):
            found = read_particles(tmp_path / name, voxel_size=10.0, size_zyx=(11, 20, 29))
        assert len(found) == count and np.isnan(found.score[0])
    with pytest.warns(ParticleListWarning, match="1 of 2 particles have no rlnAngleRot"):
        found = read_particles(tmp_path / "a.star", voxel_size=10.0)
    assert list(found.class_name) == ["", "2"] and found.rotation is None


def test_a_doc_beside_a_table_is_not_replaced_unasked(tmp_path):
    write_particles(ParticleList(CENTERS, "TS_01"), tmp_path / "in.csv")
    (tmp_path / "picks.doc").write_text("1 other\n")
    options = {"source": str(tmp_path / "in.csv"), "target": str(tmp_path / "picks.tbl"), "voxel_size": 10.0}
    with pytest.raises(ValueError, match=r"picks.doc: exists already, and dynamo writes it beside the list"):
        export(**options)
    assert (tmp_path / "picks.doc").read_text() == "1 other\n" and not (tmp_path / "picks.tbl").exists()
    with pytest.warns(ParticleListWarning):
        export(**options, overwrite=True)
    assert (tmp_path / "picks.doc").read_text() == "1 TS_01\n"
    (tmp_path / "picks.doc").write_text("2 other\n")
    with pytest.raises(ValueError, match="the number 1 has no name in the file beside it"):
        read_particles(tmp_path / "picks.tbl", voxel_size=10.0)


def xml(attributes):
    return f'<objlist><object x="1" y="2" z="3" {attributes}/></objlist>'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xml", xml(" ".join(f'a{n}="1"' for n in range(200))), "at most 100 attributes of 10,000 letters, got 203"),
        ("a.xml", xml(f'a="{"x" * 20_000}"'), "expected at most 100 attributes of 10,000 letters"),
        ("a.json", '{"points": ' + "[" * 200_000 + "]" * 200_000 + "}", "of at most 64 brackets in each other"),
        ("a.coords", "1 2 3" + " " * 2_000_000, "got a line of 2,000,005 letters"),
        ("a.tbl", "1 " * 1_000_000, "got a line of 2,000,000 letters"),
        ("a.json", '{"points": [{"location": {"x": 1' + "0" * 99 + "}}]}", "got a whole number of 100 digits"),
        ("a.ndjson", '{"type": "point", "location": ' + "[" * 90 + "]" * 90 + "}", "czi line 1: expected JSON of"),
        ("a.ndjson", '{"type": "point"}' + " " * 200_000, "rows of a czi list, got a line of 200,017 letters"),
        ("a.cbox", "data_cryolo\n" + "x" * 200_000, "got a line of 200,000 letters"),
    ],
)  # fmt: skip
def test_what_no_list_has_is_refused(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_particles(tmp_path / name, "copick" if name == "a.json" else None, voxel_size=10.0)


# STAR dialects: format that is recognised, columns, a row, where it lies (voxels of 10 Å), tomogram, score
DIALECTS = {
    "WarpTools 2": ("relion4", ("rlnTomoName", "rlnTomoParticleId", *XYZ), "TS_01.tomostar 1 11 21 8", "TS_01", np.nan),
    "RELION 3.0": ("relion3", ("rlnMicrographName", *XYZ, "rlnOriginX", "rlnOriginY", "rlnOriginZ"),
                   "TS_01.mrc 13 20 8 2 -1 0", "TS_01", np.nan),
    "pytom": ("warp", (*XYZ, "rlnLCCmax", "rlnCutOff", "rlnDetectorPixelSize", "rlnMicrographName"),
              "11 21 8 0.25 0.1 10.0 TS_01.tomostar", "TS_01", 0.25),
    "no name": ("relion4", ("rlnTomoName", *XYZ), "'' 11 21 8", "other", np.nan),
    "only positions": ("relion3", XYZ, "11 21 8", "other", np.nan),
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("capitals", [False, True])
def test_a_star_dialect_is_recognised_and_read(dialect, capitals, tmp_path):
    name, columns, row, tomogram, score = DIALECTS[dialect]
    path = star(tmp_path / "a.star", columns, row)
    if capitals:
        path.write_text(path.read_text().replace("data_", "DATA_").replace("loop_", "LOOP_"))
    assert guess_format(path).name == name
    found = read_particles(path, voxel_size=10.0, binning=1, name="other")
    np.testing.assert_allclose(found.centers_xyz_angstrom, [[110.0, 210.0, 80.0]])
    assert list(found.tomogram) == [tomogram]
    np.testing.assert_equal(found.score, [score])


def test_particles_of_m_are_read_with_a_word(tmp_path):
    columns = ("wrpCoordinateX1", "wrpCoordinateY1", "wrpCoordinateZ1", "wrpAngleRot1", "wrpAngleTilt1", "wrpAnglePsi1",
               "wrpSourceName")  # fmt: skip
    path = star(tmp_path / "a.star", columns, "104.5 110.2 80.1 10 20 30 TS_01.tomostar")
    with pytest.warns(ParticleListWarning, match="M's own particles; their first positions are taken as Å"):
        found = read_particles(path, voxel_size=10.0)
    assert found.centers_xyz_angstrom.tolist() == [[104.5, 110.2, 80.1]] and list(found.tomogram) == ["TS_01"]
    assert found.rotation is not None


@pytest.mark.parametrize(
    ("columns", "row", "looks"),
    [
        (("rlnTomoName", "rlnTomoTiltSeriesStarFile", "rlnTomoSizeX"), "TS_01 a.star 330", "a tomograms.star"),
        (("rlnTomoParticlesFile", "rlnTomoTomogramsFile"), "p.star t.star", "an optimisation set"),
        (("rlnMicrographMovieName", "rlnTomoNominalStageTiltAngle"), "a.mrc 3.0", "a tilt series"),
        (("rlnCoordinateX", "rlnCoordinateY", "rlnMicrographName"), "1 2 a.mrc", "a list of 2D particles"),
        (("rlnSomething",), "1", "none of the STAR lists that are known"),
    ],
)
def test_another_star_says_what_it_looks_like_and_what_it_has(columns, row, looks, tmp_path):
    path = star(tmp_path / "a.star", columns, row)
    with pytest.raises(ValueError, match=f"looks like {looks}.*It has the columns {', '.join(columns)}") as caught:
        read_particles(path, voxel_size=10.0)
    assert "relion5" not in str(caught.value)
