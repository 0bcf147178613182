"""What a list, a tomograms.star or a model says of its tomogram is believed, compared, and never overruled silently."""

from __future__ import annotations

import json
import struct
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import FORMATS, read_particles, settled_context, write_particles
from scripts.particles.shared.context import ParticleListWarning

SIZE_ZYX = (11, 20, 29)  # voxels of the binned tomogram
CENTERS = np.array([[33.0, 50.5, 20.0], [200.0, 150.25, 90.0], [101.0, 10.0, 77.0]])  # Å
quick = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
pytestmark = pytest.mark.filterwarnings("ignore:The `dict` method is deprecated")  # inside imodmodel


def star(path, columns, *rows, block="particles"):
    head = "".join(f"_{name} #{number}\n" for number, name in enumerate(columns, 1))
    path.write_text(f"data_{block}\n\nloop_\n{head}" + "".join(f"{row}\n" for row in rows))
    return path


def pixels_of(centers_angstrom, voxel, binning):
    """Of the tilt series, spelled out: voxel i holds the pixels b i ... b i + b - 1."""
    return centers_angstrom / voxel * binning + (binning - 1) / 2


XYZ = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
# Columns after name and position, and their values, that say a pixel of p Å.
PIXEL_COLUMNS = {
    "rlnTomoTiltSeriesPixelSize": lambda p: {"rlnTomoTiltSeriesPixelSize": p},
    "rlnPixelSize": lambda p: {"rlnPixelSize": p},
    "rlnMicrographPixelSize": lambda p: {"rlnMicrographPixelSize": p},
    "rlnDetectorPixelSize in Å": lambda p: {"rlnDetectorPixelSize": p},
    "rlnDetectorPixelSize in µm": lambda p: {"rlnMagnification": 10000, "rlnDetectorPixelSize": p},
    "rlnImagePixelSize": lambda p: {"rlnImagePixelSize": p},
    "rlnImagePixelSize, binned": lambda p: {"rlnImagePixelSize": 3 * p, "rlnTomoSubtomogramBinning": 3},
}


@pytest.mark.parametrize("said", PIXEL_COLUMNS)
@pytest.mark.parametrize("name", ["relion4", "relion3", "warp"])
@quick
@given(voxel=st.floats(3, 20), binning=st.sampled_from([1, 2, 3, 4, 7, 8]))
def test_a_pixel_size_in_a_star_supplies_the_binning(said, name, voxel, binning, tmp_path):
    extra = PIXEL_COLUMNS[said](round(voxel / binning, 5))
    column = "rlnTomoName" if name == "relion4" else "rlnMicrographName"
    file_name = {"relion4": "TS_01", "relion3": "TS_01.mrc", "warp": "TS_01.tomostar"}[name]
    rows = [
        " ".join([file_name, *map(str, row), *map(str, extra.values())]) for row in pixels_of(CENTERS, voxel, binning)
    ]
    path = star(tmp_path / "a.star", (column, *XYZ, *extra), *rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ParticleListWarning)
        found = read_particles(path, voxel_size=voxel, size_zyx=SIZE_ZYX)
    np.testing.assert_allclose(found.centers_xyz_angstrom, CENTERS, rtol=1e-4)
    assert set(found.tomogram) == {"TS_01"}
    with pytest.raises(ValueError, match=rf"but voxel size / binning is .* / {2 * binning:g} = .* Give --binning"):
        read_particles(path, voxel_size=voxel, size_zyx=SIZE_ZYX, binning=2 * binning)


@pytest.mark.parametrize("name", [name for name, one in FORMATS.items() if one.counts == "unbinned"])
def test_a_list_that_says_nothing_is_taken_as_unbinned_with_a_warning_and_never_without(name, tmp_path):
    known = ParticleList(CENTERS, "7", "1", 0.5)
    path = tmp_path / f"list{FORMATS[name].suffixes[0]}"
    options = {"voxel_size": 10.0, "size_zyx": SIZE_ZYX, "name": "7"}
    with pytest.warns(ParticleListWarning, match=f"^{name}: assumed unbinned pixels of 10 Å; give --binning"):
        write_particles(known, path, name, **options)
    if name in ("dynamo", "eman2"):  # they say their pixel
        assert settled_context(path, name, **{**options, "voxel_size": 40.0}).binning == 4
    else:
        with pytest.warns(ParticleListWarning, match="assumed unbinned pixels"):
            read_particles(path, name, **options)
    write_particles(known, path, name, binning=3, **options)
    found = read_particles(path, name, binning=3, **options)
    np.testing.assert_allclose(found.centers_xyz_angstrom, CENTERS, atol=1e-4)


def tomograms_star(folder, **changed):
    columns = {"rlnTomoName": "TS_01", "rlnTomoSizeX": 115, "rlnTomoSizeY": 81, "rlnTomoSizeZ": 47}
    columns |= {"rlnTomoTiltSeriesPixelSize": 2.5, "rlnTomoTomogramBinning": 4, **changed}
    return star(folder / "tomograms.star", columns, " ".join(map(str, columns.values())), block="global")


OPTIONS = {"voxel_size": 10.0, "size_zyx": SIZE_ZYX, "name": "TS_01"}


def test_tomograms_star_supplies_pixel_size_binning_and_size(tmp_path):
    star_file = tomograms_star(tmp_path)
    centered = (pixels_of(CENTERS, 10.0, 4) - np.array([115, 81, 47]) / 2) * 2.5
    columns = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
    rows = [" ".join(["TS_01", *map(str, row)]) for row in centered]
    path = star(tmp_path / "a.star", ("rlnTomoName", *columns), *rows)
    for options in (OPTIONS, {**OPTIONS, "voxel_size": None}):  # 10 Å is 4 x 2.5
        found = read_particles(path, tomograms_star=star_file, **options)
        np.testing.assert_allclose(found.centers_xyz_angstrom, CENTERS, atol=1e-6)
    write_particles(ParticleList(CENTERS, "TS_01"), tmp_path / "b.star", "relion5", tomograms_star=star_file, **OPTIONS)
    again = read_particles(tmp_path / "b.star", tomograms_star=star_file, **OPTIONS)
    np.testing.assert_allclose(again.centers_xyz_angstrom, CENTERS, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({}, {"voxel_size": 13.48}, r"rlnTomoTomogramBinning of tomograms.star is 4, but .* make it 5.392"),
        ({}, {"binning": 2}, r"tomograms.star is 2.5 Å, but voxel size / binning is 10 Å / 2 = 5 Å. Give --binning 4"),
        ({"rlnTomoTiltSeriesPixelSize": "nan"}, {"binning": 2}, "Binning of tomograms.star is 4, .* make it 2"),
        ({"rlnTomoTomogramBinning": "nan", "rlnTomoSizeX": 232, "rlnTomoSizeY": 160, "rlnTomoSizeZ": 88}, {},
         "the unbinned size is 8 times the tomogram's, but the binning is 4"),
        ({"rlnTomoName": "TS_02"}, {}, r"tomogram 'TS_01' is not in tomograms.star \(it holds TS_02\)"),
        ({"rlnTomoSizeX": 115.5}, {}, "row 1: expected whole numbers above 0 for rlnTomoSizeX"),
    ],
)  # fmt: skip
def test_a_tomograms_star_that_contradicts_is_an_error_with_both_numbers(changed, options, message, tmp_path):
    star_file = tomograms_star(tmp_path, **changed)
    for name in ("relion5", "relion4", "warp"):
        with pytest.raises(ValueError, match=message):
            write_particles(
                ParticleList(CENTERS, "TS_01"), tmp_path / "b.star", name, tomograms_star=star_file, **OPTIONS | options
            )
    path = star(tmp_path / "a.star", ("rlnTomoName", *XYZ), "TS_01 100 50 30")
    with pytest.raises(ValueError, match=message):
        read_particles(path, tomograms_star=star_file, **OPTIONS | options)


def test_the_size_alone_gives_the_binning_with_a_warning(tmp_path):
    star_file = tomograms_star(tmp_path, rlnTomoTiltSeriesPixelSize="nan", rlnTomoTomogramBinning="nan")
    path = star(
        tmp_path / "a.star", ("rlnTomoName", *XYZ), *(f"TS_01 {x} {y} {z}" for x, y, z in pixels_of(CENTERS, 10, 4))
    )
    with pytest.warns(ParticleListWarning, match="binning 4 is taken from the unbinned size"):
        found = read_particles(path, tomograms_star=star_file, **OPTIONS)
    np.testing.assert_allclose(found.centers_xyz_angstrom, CENTERS)


def copick(path, spacing):
    points = [{"location": dict(zip("xyz", center, strict=True))} for center in CENTERS.tolist()]
    path.write_text(json.dumps({"pickable_object_name": "a", "voxel_spacing": spacing, "points": points}))
    return path


def test_the_spacing_of_picks_supplies_the_voxel_size_and_contradicts_another(tmp_path):
    path = copick(tmp_path / "a.json", 10.0)
    assert settled_context(path).voxel_size_zyx.tolist() == [10.0] * 3
    for voxel in (10.0, 20.0, 5.0):  # the same tomogram at another binning: Å are Å
        found = read_particles(path, voxel_size=voxel)
        np.testing.assert_allclose(found.centers_xyz_angstrom, CENTERS)
    with pytest.raises(ValueError, match="voxel_spacing is 10 Å, but this tomogram is one of 13.48 Å.*--binning 1.348"):
        read_particles(path, voxel_size=13.48)
    assert len(read_particles(path, voxel_size=13.48, binning=1.348)) == 3
    assert len(read_particles(copick(tmp_path / "b.json", None), voxel_size=13.48)) == 3


def test_the_folder_of_the_portal_says_the_voxel_size(tmp_path):
    folder = tmp_path / "VoxelSpacing10.000" / "Annotations" / "100"
    folder.mkdir(parents=True)
    write_particles(ParticleList(CENTERS), folder / "ribosome_point.ndjson", "czi", voxel_size=10.0)
    found = read_particles(folder / "ribosome_point.ndjson")
    np.testing.assert_allclose(found.centers_xyz_angstrom, CENTERS, atol=1e-4)
    with pytest.warns(ParticleListWarning, match="taken as those of the same tomogram at another binning"):
        found = read_particles(folder / "ribosome_point.ndjson", voxel_size=20.0)
    np.testing.assert_allclose(found.centers_xyz_angstrom, CENTERS - 5.0, atol=1e-4)  # a voxel of two begins 5 Å before
    with pytest.raises(ValueError, match="the folder VoxelSpacing10.000 is 10 Å, but this tomogram is one of 13.48 Å"):
        read_particles(folder / "ribosome_point.ndjson", voxel_size=13.48)


def imod(path, size_xyz=(0, 0, 0), pixel=1.0, units=0, scale=None, count=3):
    """A model spelled out by IMOD's description of its files; points in voxels of 10 Å."""
    points = (CENTERS / 10 + [0.5, 0.5, 0]).astype(">f4").tobytes()
    numbers = (*size_xyz, 1, 0, *[0] * 4, *[1.0] * 6, *[0] * 5, pixel, units)
    header = (b"IMODV1.2" + b"model".ljust(128, b"\0") + struct.pack(">4iI4i6f5ifi", *numbers)).ljust(240, b"\0")
    body = b"OBJT" + b"ribosome".ljust(176, b"\0") + b"CONT" + struct.pack(">iIii", count, 0, 0, 0) + points
    minx = b"" if scale is None else b"MINX" + struct.pack(">i18f", 72, *[1.0] * 9, *[scale] * 3, *[0.0] * 6)
    path.write_bytes(header + body + minx + b"IEOF")
    return path


@pytest.mark.parametrize(
    "said", [{"pixel": 1.0, "units": -9}, {"pixel": 10.0, "units": -10}, {"scale": 10.0}, {"size_xyz": (29, 20, 11)}]
)
def test_an_imod_model_says_its_pixel_or_size(said, tmp_path):
    path = imod(tmp_path / "a.mod", **said)
    found = read_particles(path, size_zyx=SIZE_ZYX, **({"voxel_size": 10.0} if "size_xyz" in said else {}))
    np.testing.assert_allclose(found.centers_xyz_angstrom, CENTERS, atol=1e-4)
    assert set(found.class_name) == {"ribosome"}
    with pytest.warns(ParticleListWarning, match=r"at another binning \(0.5\)"):
        half = read_particles(path, voxel_size=5.0, size_zyx=(22, 40, 58))
    np.testing.assert_allclose(half.centers_xyz_angstrom, CENTERS + 2.5, atol=1e-4)
    with pytest.raises(ValueError, match="Give the tomogram or the voxel size that belongs to the list"):
        read_particles(path, voxel_size=13.48, size_zyx=(8, 15, 26))


def test_a_model_that_announces_more_points_than_it_holds_takes_no_memory(tmp_path):
    path = imod(tmp_path / "a.mod", count=2**31 - 1)
    with pytest.raises(ValueError, match="its part CONT announces 25,769,803,780 bytes, but .* are left"):
        read_particles(path, voxel_size=10.0)


def test_a_table_in_voxels_and_angstrom_says_its_voxel_size(tmp_path):
    for name in ("csv", "original"):
        path = tmp_path / f"a{FORMATS[name].suffixes[0]}"
        write_particles(ParticleList(CENTERS * 9), path, name, voxel_size=13.48)
        assert settled_context(path).voxel_size_zyx.tolist() == [13.48] * 3
        assert settled_context(path, voxel_size=10.0).voxel_size_zyx.tolist() == [10.0] * 3  # its positions are Å
