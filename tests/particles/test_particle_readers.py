"""What we write, read by others: the same Å in their libraries, and the same density in the tomogram."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import emfile
import numpy as np
import pandas as pd
import pytest
import starfile
from scipy import ndimage
from scipy.spatial.transform import Rotation

from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import FORMATS, read_particles, write_particles
from tests.conftest import python_with

HERE = Path(__file__).parent
SIZE_ZYX, VOXEL = (11, 13, 16), 13.48
WRITABLE = [name for name, one in FORMATS.items() if one.write]

pytestmark = [
    pytest.mark.filterwarnings("ignore::scripts.particles.shared.context.ParticleListWarning"),
    pytest.mark.filterwarnings("ignore:The `dict` method is deprecated"),  # inside imodmodel
]

# Libraries of other programs that read what we write; the tests below run them, and the README's table names them.
CHECKED = {
    "relion5": ("starfile", "cryocat", "copick"), "relion4": ("starfile", "cryocat", "copick"),
    "relion3": ("starfile", "cryocat", "copick"), "warp": ("starfile", "cryocat", "copick"),
    "dynamo": ("dynamotable", "cryocat", "copick"), "em": ("emfile", "cryocat", "copick"),
    "stopgap": ("starfile", "cryocat"), "copick": ("copick",), "imod": ("imodmodel",),
}  # fmt: skip


def place_in_file(path: Path, name: str, binning: int, offset: float = 0.0) -> tuple[np.ndarray, bool]:
    """(x, y, z) of the first particle by a library of the format's own, and whether they are unbinned pixels.

    Nothing of ours is used; the rules are spelled out. ``offset`` is 1 for RELION's rule size/2 - 1.
    """
    size, pixel = np.array(SIZE_ZYX[::-1]), VOXEL / binning
    if name == "relion5":
        row = starfile.read(path).iloc[0]
        centered = np.array([row[f"rlnCenteredCoordinate{a}Angst"] for a in "XYZ"])
        return centered / pixel + size * binning / 2 - offset, True
    if name in ("relion4", "relion3", "warp"):
        row = starfile.read(path).iloc[0]
        return np.array([row[f"rlnCoordinate{a}"] for a in "XYZ"]), True
    if name == "stopgap":
        row = starfile.read(path).iloc[0]
        return np.array([row[f"orig_{a}"] + row[f"{a}_shift"] for a in "xyz"]) - 1, True
    if name == "dynamo":
        row = pytest.importorskip("dynamotable").read(str(path)).iloc[0]
        return np.array([row[a] + row[f"d{a}"] for a in "xyz"]), True
    if name == "em":
        motl = emfile.read(path)[1][0, 0]
        return motl[7:10] + motl[10:13] - 1, True
    if name == "imod":
        row = pytest.importorskip("imodmodel").read(path).iloc[0]
        return row[["x", "y", "z"]].to_numpy(float) - [0.5, 0.5, 0.0], False
    if name == "eman2":
        return np.array(json.loads(path.read_text())["boxes_3d"][0][:3]) / binning + size // 2, False
    if name == "copick":
        location = json.loads(path.read_text())["points"][0]["location"]
        return np.array([location[a] for a in "xyz"]) / VOXEL, False
    if name == "czi":
        location = json.loads(path.read_text().splitlines()[0])["location"]
        return np.array([location[a] for a in "xyz"]), False
    if name == "deepfinder":
        found = ElementTree.parse(path).getroot()[0]
        return np.array([float(found.get(a)) for a in "xyz"]), False
    if name == "coords":
        return np.loadtxt(path, ndmin=2)[0], False
    table = pd.read_csv(path, sep="\t" if name == "original" else ",")
    columns = [f"Position{a}" for a in "XYZ"] if name == "original" else [f"{a}_angstrom" for a in "xyz"]
    return table[columns].iloc[0].to_numpy(float) / VOXEL, False


def one_particle(binning: int) -> tuple[np.ndarray, np.ndarray]:
    """An unbinned tomogram with one blob, and its block mean; both (Z, Y, X)."""
    grid = np.indices([n * binning for n in SIZE_ZYX])
    middle = (np.array([4.3, 6.1, 9.2]) * binning).reshape(3, 1, 1, 1)
    unbinned = np.exp(-((grid - middle) ** 2).sum(axis=0) / (2 * (1.2 * binning) ** 2))
    z, y, x = SIZE_ZYX
    return unbinned, unbinned.reshape(z, binning, y, binning, x, binning).mean(axis=(1, 3, 5))


@pytest.mark.parametrize("binning", [1, 2, 3, 4])
def test_a_particle_lands_on_the_same_density_in_every_format(binning, tmp_path):
    """The center of mass of the binned blob, written, is the center of mass of the unbinned blob, and comes back."""
    unbinned, binned = one_particle(binning)
    places = {True: ndimage.center_of_mass(unbinned), False: ndimage.center_of_mass(binned)}
    centers = np.array([places[False][::-1]]) * VOXEL
    known = ParticleList(centers, "TS_01", "ribosome", 0.5, Rotation.random(1, random_state=0))
    options = {"voxel_size": VOXEL, "size_zyx": SIZE_ZYX, "binning": binning, "name": "TS_01"}
    for name in WRITABLE:
        for rule, offset in (("size/2", 0.0), ("size/2-1", 1.0)) if name == "relion5" else (("size/2", 0.0),):
            path = tmp_path / f"{name}_{offset:g}{FORMATS[name].suffixes[0]}"
            write_particles(known, path, name, center_rule=rule, **options)
            place, is_unbinned = place_in_file(path, name, binning, offset)
            np.testing.assert_allclose(place, places[is_unbinned][::-1], atol=0.01, err_msg=name)
            found = read_particles(path, name, center_rule=rule, **options).centers_xyz_angstrom[0]
            np.testing.assert_allclose(found / VOXEL, places[False][::-1], atol=1e-3, err_msg=name)


def write_folder(folder: Path, binning: int) -> ParticleList:
    """Lists of seven particles in every format that cryoCAT or copick read, and the tomograms.star of RELION."""
    rng = np.random.default_rng(binning)
    centers = rng.uniform(0, 1, (7, 3)) * (np.array(SIZE_ZYX[::-1]) - 1) * VOXEL
    known = ParticleList(centers, "TS_01", "ribosome", rng.uniform(0, 1, 7), Rotation.random(7, random_state=1))
    for name in ("relion5", "relion4", "relion3", "warp", "dynamo", "stopgap", "em", "copick"):
        path = folder / f"{name}{FORMATS[name].suffixes[0]}"
        write_particles(known, path, name, voxel_size=VOXEL, size_zyx=SIZE_ZYX, binning=binning)
    sizes = dict(zip(("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ"), np.array(SIZE_ZYX[::-1]) * binning, strict=True))
    sizes = {"rlnTomoName": ["TS_01"], **sizes, "rlnTomoTiltSeriesPixelSize": VOXEL / binning}
    starfile.write({"global": pd.DataFrame(sizes)}, folder / "tomograms.star")
    (folder / "options.json").write_text(json.dumps({"pixel_size": VOXEL / binning}))
    return known


def read_by(program: str, folder: Path) -> dict:
    python = python_with(program)
    if not python:
        pytest.skip(f"{program.upper()}_PYTHON names no Python with {program}")
    command = [python, "-W", "ignore", str(HERE / "particle_lists_with_other_programs.py"), program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("binning", [1, 4])
@pytest.mark.parametrize("program", ["cryocat", "copick"])
def test_other_programs_read_our_lists_at_the_same_positions(program, binning, tmp_path):
    known = write_folder(tmp_path, binning)
    found = read_by(program, tmp_path)
    assert set(found) == {name for name, programs in CHECKED.items() if program in programs}
    for name, entry in found.items():
        places = np.array(entry["positions"])
        if program == "cryocat":  # pixels of the tilt series, which count from 1 in motive lists
            places = (places - (name in ("em", "stopgap"))) * VOXEL / binning
        if name != "copick":  # Å from the middle of the first pixel, not of the first voxel
            places = places - (binning - 1) / 2 * VOXEL / binning
        apart = np.abs(places - known.centers_xyz_angstrom).max()
        turned = (known.rotation.inv() * Rotation.from_matrix(entry["matrices"])).magnitude().max()
        print(f"{program} {name} binning {binning}: {apart:.6f} Å, {np.degrees(turned):.5f} degrees apart")
        assert apart < 0.01 and np.degrees(turned) < 0.01, f"{program} {name}: {apart} Å, {turned} rad"


def test_starfile_and_dynamotable_read_what_cryocat_and_copick_need_beside_the_positions(tmp_path):
    """Names of particles and tomograms, without which they refuse a list; none invented where it is not known."""
    write_folder(tmp_path, 2)
    for name in ("relion5", "relion4"):
        table = starfile.read(tmp_path / f"{name}.star")
        assert table["rlnTomoParticleName"].tolist() == [f"TS_01/{n}" for n in range(1, 8)]
        assert set(table["rlnTomoName"]) == {"TS_01"}
    table = pytest.importorskip("dynamotable").read(str(tmp_path / "dynamo.tbl"), str(tmp_path / "dynamo.doc"))
    assert set(table["tomo_file"]) == {"TS_01"} and table["tag"].tolist() == list(range(1, 8))


LOOP = "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n"


@pytest.mark.parametrize(
    "name,text,told",
    [
        (
            "a.star",
            LOOP + '"' * 3_000_000 + " 2 3\n",
            r"expected rows of a relion3 list, got a line of 3,000,004 letters \(line 6\)",
        ),
        ("a.star", "data_\nloop_\n" + "".join(f"_c{i}\n" for i in range(100_000)), "expected at most 1,000 columns"),
        ("a.csv", "x_angstrom,y_angstrom,z_angstrom\n" + "1" * 3_000_000 + ",2,3\n", "got a line of 3,000,004 letters"),
        ("a.json", '{"points": ' + "[" * 100_000, "expected JSON of at most 64 brackets"),
        ("a.xml", f'<objlist><object x="{"1" * 3_000_000}" y="2" z="3"/></objlist>', "attributes of 10,000 letters"),
    ],
    ids=["a line", "columns", "a row", "depth", "an attribute"],
)
def test_what_no_list_holds_is_refused_at_once_in_a_short_sentence(name, text, told, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=told) as error:
        read_particles(tmp_path / name, voxel_size=10.0, size_zyx=(20, 30, 40), binning=1.0)
    assert len(str(error.value)) < 400
