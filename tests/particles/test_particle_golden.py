"""Golden particle lists: what other programs' libraries wrote is read at the right place, turned the right way."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from scripts.particles.registry import FORMATS, guess_format, read_particles
from tests.golden.make_golden import (
    ANGSTROM_XYZ,
    BINNING,
    CLASSES,
    INDEX,
    NAMES,
    PIXEL_SIZE,
    SCORES,
    SIZE_ZYX,
    VOXEL_SIZE,
    matrices,
)

LISTS = INDEX.parent / "lists"
GOLDEN = json.loads(INDEX.read_text())
KNOWN = {name: entry["format"] for name, entry in GOLDEN.items() if not name.startswith("real_")}
OPTIONS = {"voxel_size": VOXEL_SIZE, "binning": BINNING, "size_zyx": SIZE_ZYX, "name": "TS_01"}

# What a file holds beside positions. The libraries leave out, or put elsewhere, what is missing here.
NUMBERED = {
    name for name, kind in KNOWN.items() if kind in ("dynamo", "em", "stopgap", "deepfinder", "warp", "relion3")
}
NUMBERED |= {"relion4_cryocat.star", "relion5_cryocat.star", "relion5_starfile.star"}
NUMBERED -= {"dynamo_copick.tbl", "em_copick.em"}
NAMED = {"TS_01_info.json", "csv_plain.csv"}
SCORED = {name for name, kind in KNOWN.items() if kind in ("dynamo", "em", "stopgap", "warp", "cbox", "eman2", "csv")}
SCORED = SCORED - {"em_copick.em"} | {"relion5_starfile.star", "relion3_starfile.star", "copick_copick.json"}
WITHOUT_ORIENTATION = {"imod", "coords", "cbox", "shrec", "csv", "original", "eman2"}

pytestmark = [
    pytest.mark.filterwarnings("ignore::scripts.particles.shared.context.ParticleListWarning"),
    pytest.mark.filterwarnings("ignore:The `dict` method is deprecated"),  # inside imodmodel
]


def read(name, **options):
    return read_particles(LISTS / name, GOLDEN[name]["format"], **{**OPTIONS, **options})


def test_every_format_has_a_golden_file_and_every_file_is_as_it_was_made():
    assert set(KNOWN.values()) == set(FORMATS)
    files = {path.name for path in LISTS.iterdir()} - {"dynamo_dynamotable.doc"}  # written along with the .tbl
    assert files == set(GOLDEN)
    for name, entry in GOLDEN.items():
        assert hashlib.sha256((LISTS / name).read_bytes()).hexdigest() == entry["sha256"], name


@pytest.mark.parametrize("name", KNOWN)
def test_a_golden_file_is_read_at_its_places_and_orientations(name):
    kind = KNOWN[name]
    found = read(name, **({"axis_order": "xyz"} if kind == "shrec" else {}))
    order = np.argsort(CLASSES, kind="stable") if kind == "imod" else np.arange(3)
    expected = np.floor(ANGSTROM_XYZ / VOXEL_SIZE) * VOXEL_SIZE if kind == "shrec" else ANGSTROM_XYZ[order]
    np.testing.assert_allclose(found.centers_xyz_angstrom, expected, atol=0.01)
    if kind in WITHOUT_ORIENTATION:
        assert found.rotation is None
    else:
        away = Rotation.from_matrix(matrices()).inv() * found.rotation
        assert np.degrees(away.magnitude()).max() < 0.01


@pytest.mark.parametrize("name", sorted(NUMBERED | NAMED))
def test_a_golden_file_gives_its_classes(name):
    assert list(read(name).class_name) == (NAMES if name in NAMED else [str(number) for number in CLASSES])


@pytest.mark.parametrize("name", sorted(SCORED))
def test_a_golden_file_gives_its_scores(name):
    np.testing.assert_allclose(read(name).score, SCORES, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in KNOWN if KNOWN[name] not in ("em", "stopgap", "deepfinder")])
def test_a_golden_file_names_its_tomogram(name):
    """TS_01, although the files say TS_01.tomostar, tomograms/TS_01.rec or TS_01_info.json; numbers stay numbers."""
    numbered = name in ("dynamo_copick.tbl", "dynamo_cryocat.tbl")
    unnamed = KNOWN[name] in ("csv", "coords") and not read(name).tomogram[0]
    assert unnamed or set(read(name, **({"axis_order": "xyz"} if KNOWN[name] == "shrec" else {})).tomogram) == (
        {"1"} if numbered else {"TS_01"}
    )


@pytest.mark.parametrize("name", [name for name in KNOWN if KNOWN[name] != "shrec"])
def test_the_format_of_a_golden_file_is_recognised(name):
    assert guess_format(LISTS / name).name == KNOWN[name]


def test_relion5_files_read_the_same_with_the_size_of_tomograms_star(tmp_path):
    z, y, x = (n * BINNING for n in SIZE_ZYX)
    text = f"data_global\n\nloop_\n_rlnTomoName\n_rlnTomoSizeX\n_rlnTomoSizeY\n_rlnTomoSizeZ\nTS_01 {x} {y} {z}\n"
    (tmp_path / "tomograms.star").write_text(text)
    for name in ("relion5_cryocat.star", "relion5_copick.star", "relion5_starfile.star"):
        options = {"voxel_size": VOXEL_SIZE, "binning": BINNING, "tomograms_star": tmp_path / "tomograms.star"}
        found = read_particles(LISTS / name, **options)
        np.testing.assert_allclose(found.centers_xyz_angstrom, ANGSTROM_XYZ, atol=0.01)
        shifted = read_particles(LISTS / name, center_rule="size/2-1", **options)
        np.testing.assert_allclose(shifted.centers_xyz_angstrom, ANGSTROM_XYZ - PIXEL_SIZE, atol=0.01)


def test_rows_of_published_lists_are_read_where_they_say():
    found = read("real_hsp60.star", voxel_size=2.0, binning=1)
    np.testing.assert_allclose(found.centers_xyz_angstrom[0], np.array([1142.0204, 3235.5812, 1015.192]) * 2, atol=0.01)
    assert set(found.class_name) == {"hsp60"} and set(found.tomogram) == {"tomo_0054"} and found.rotation is not None
    found = read("real_ribosome.json")
    np.testing.assert_allclose(found.centers_xyz_angstrom[0], [4601.271, 601.066, 600.934], atol=0.01)
    assert set(found.class_name) == {"ribosome"} and set(found.tomogram) == {"TS_5_4"} and found.rotation is None
