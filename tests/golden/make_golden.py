"""Make the particle lists of tests/golden/lists with other programs' own libraries; nothing of ours is imported.

Run once with each Python that has some of the libraries; it writes the files that these can write, and notes in
golden.json which library in which version wrote them:

    .venv/bin/python tests/golden/make_golden.py     (starfile, dynamotable, emfile, imodmodel, and plain text)
    cryocat/bin/python tests/golden/make_golden.py   (python -m venv cryocat && cryocat/bin/pip install cryocat)
    copick/bin/python tests/golden/make_golden.py    (python -m venv copick && copick/bin/pip install copick)

Each file holds the same three particles in a tomogram TS_01 of 12 x 20 x 28 voxels (Z, Y, X) of 10 Å, binned by 4
against its tilt series of 2.5 Å. Where a voxel counts from its center and 4 pixels are averaged, voxel i is at the
unbinned pixel 4 i + 1.5.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

LISTS = Path(__file__).parent / "lists"
INDEX = Path(__file__).parent / "golden.json"

SIZE_ZYX, VOXEL_SIZE, BINNING = (12, 20, 28), 10.0, 4
PIXEL_SIZE = VOXEL_SIZE / BINNING
SIZE_XYZ = np.array(SIZE_ZYX[::-1])
VOXELS_XYZ = np.array([[3.0, 5.0, 2.0], [20.25, 11.5, 8.75], [7.0, 17.0, 10.0]])
ANGSTROM_XYZ = VOXELS_XYZ * VOXEL_SIZE
PIXELS_XYZ = BINNING * VOXELS_XYZ + (BINNING - 1) / 2
# phi about z, then theta about x, then psi about z, about fixed axes: the reference is turned into the tomogram
PHI_PSI_THETA = np.array([[25.0, 40.0, 70.0], [-110.0, 15.0, 130.0], [170.0, -95.0, 45.0]])
SCORES, CLASSES, NAMES = [0.875, 0.5, 0.25], [2, 1, 2], ["ribosome", "proteasome", "ribosome"]


def matrices() -> np.ndarray:
    """Rotation matrices of the three particles, shape (3, 3, 3), written out."""

    def about(axis: str, degrees: float) -> np.ndarray:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]] if axis == "z" else [[1, 0, 0], [0, c, -s], [0, s, c]])

    return np.stack([about("z", psi) @ about("x", theta) @ about("z", phi) for phi, psi, theta in PHI_PSI_THETA])


def relion_angles() -> np.ndarray:
    """Rot, tilt, psi of RELION's matrix Rz(-psi) Ry(-tilt) Rz(-rot), read off the elements; degrees, shape (3, 3)."""
    m = matrices()
    rot = np.arctan2(m[:, 2, 1], m[:, 2, 0])
    psi = np.arctan2(m[:, 1, 2], -m[:, 0, 2])
    return np.degrees(np.stack([rot, np.arccos(m[:, 2, 2]), psi], axis=1))


def transforms() -> np.ndarray:
    """4 x 4 matrices of the three particles."""
    found = np.tile(np.eye(4), (3, 1, 1))
    found[:, :3, :3] = matrices()
    return found


# one function a library; each returns {file: format} ------------------------------------------------------------


def starfile_files(folder: Path) -> dict[str, str]:
    import pandas as pd
    import starfile

    angles = dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), relion_angles().T, strict=True))
    rest = {**angles, "rlnClassNumber": CLASSES, "rlnAutopickFigureOfMerit": SCORES}
    pixels = {f"rlnCoordinate{a}": v for a, v in zip("XYZ", PIXELS_XYZ.T, strict=True)}
    warp = pd.DataFrame({**pixels, **rest, "rlnMicrographName": ["TS_01.tomostar"] * 3})
    starfile.write(warp, folder / "warp_starfile.star")
    relion3 = pd.DataFrame({"rlnMicrographName": ["tomograms/TS_01.mrc"] * 3, **pixels, **rest})
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [PIXEL_SIZE]})
    starfile.write({"optics": optics, "particles": relion3}, folder / "relion3_starfile.star")
    centered = (PIXELS_XYZ - SIZE_XYZ * BINNING / 2) * PIXEL_SIZE
    relion5 = {f"rlnCenteredCoordinate{a}Angst": v for a, v in zip("XYZ", centered.T, strict=True)}
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnTomoTiltSeriesPixelSize": [PIXEL_SIZE]})
    table = pd.DataFrame({"rlnTomoName": ["TS_01"] * 3, **relion5, **rest, "rlnOpticsGroup": [1] * 3})
    starfile.write({"optics": optics, "particles": table}, folder / "relion5_starfile.star")
    box = 10.0
    columns = {
        "CoordinateX": VOXELS_XYZ[:, 0] - box / 2,
        "CoordinateY": VOXELS_XYZ[:, 1] - box / 2,
        "CoordinateZ": VOXELS_XYZ[:, 2],
        **{name: [box] * 3 for name in ("Width", "Height", "Depth", "EstWidth", "EstHeight")},
        "Confidence": SCORES,
    }
    starfile.write(
        {"global": {"cbox_format_version": "1.0"}, "cryolo": pd.DataFrame(columns)}, folder / "cbox_starfile.cbox"
    )
    return {
        "warp_starfile.star": "warp",
        "relion3_starfile.star": "relion3",
        "relion5_starfile.star": "relion5",
        "cbox_starfile.cbox": "cbox",
    }


def dynamotable_files(folder: Path) -> dict[str, str]:
    import dynamotable
    import pandas as pd

    tdrot, tilt, narot = (-PHI_PSI_THETA[:, [1, 2, 0]]).T  # Dynamo turns the particle onto the template
    shift = np.array([0.5, -1.25, 2.0])
    columns = {
        "tag": [1, 2, 3], **dict(zip("xyz", (PIXELS_XYZ - shift).T, strict=True)),
        **dict(zip(("dx", "dy", "dz"), np.tile(shift, (3, 1)).T, strict=True)),
        "tdrot": tdrot, "tilt": tilt, "narot": narot, "cc": SCORES, "class": CLASSES,
        "tomo": [4] * 3, "tomo_file": ["tomograms/TS_01.rec"] * 3,
    }  # fmt: skip
    dynamotable.write(pd.DataFrame(columns), str(folder / "dynamo_dynamotable.tbl"))
    return {"dynamo_dynamotable.tbl": "dynamo"}


def emfile_files(folder: Path) -> dict[str, str]:
    import emfile

    motl = np.zeros((1, 3, 20), dtype=np.float32)
    motl[0, :, 0], motl[0, :, 3], motl[0, :, 4] = SCORES, [1, 2, 3], 1
    motl[0, :, 7:10], motl[0, :, 16:19], motl[0, :, 19] = PIXELS_XYZ + 1, PHI_PSI_THETA, CLASSES
    emfile.write(folder / "em_emfile.em", motl, overwrite=True)
    return {"em_emfile.em": "em"}


def imodmodel_files(folder: Path) -> dict[str, str]:
    import imodmodel
    import pandas as pd

    order = np.argsort(CLASSES, kind="stable")
    points = VOXELS_XYZ[order] + [0.5, 0.5, 0.0]
    table = pd.DataFrame(points, columns=["x", "y", "z"])
    table["object_id"] = np.array(CLASSES)[order] - 1
    table["contour_id"] = 0
    imodmodel.write(table, folder / "imod_imodmodel.mod")
    return {"imod_imodmodel.mod": "imod"}


def plain_files(folder: Path) -> dict[str, str]:
    """Formats without a library to install, written as the program's documentation shows them."""
    root = ElementTree.Element("objlist")
    for voxel, number, (phi, psi, the) in zip(VOXELS_XYZ, CLASSES, PHI_PSI_THETA, strict=True):
        words = {"tomo_idx": 0, "class_label": number, **dict(zip("xyz", voxel, strict=True)), "psi": psi, "phi": phi}
        ElementTree.SubElement(root, "object", {k: str(v) for k, v in {**words, "the": the}.items()})
    (folder / "deepfinder_plain.xml").write_bytes(ElementTree.tostring(root, xml_declaration=True, encoding="UTF-8"))
    boxes = [
        [*((v - SIZE_XYZ // 2) * BINNING), "manual", s, c] for v, s, c in zip(VOXELS_XYZ, SCORES, CLASSES, strict=True)
    ]
    info = {
        "apix_unbin": PIXEL_SIZE,
        "boxes_3d": boxes,
        "class_list": {str(n): {"boxsize": 32, "name": name} for n, name in ((1, "proteasome"), (2, "ribosome"))},
    }
    (folder / "TS_01_info.json").write_text(json.dumps(info))
    np.savetxt(folder / "coords_plain.coords", VOXELS_XYZ, fmt="%9.2f")
    rows = [
        {"type": "orientedPoint", "location": dict(zip("xyz", v, strict=True)), "xyz_rotation_matrix": m.tolist()}
        for v, m in zip(VOXELS_XYZ.tolist(), matrices(), strict=True)
    ]
    (folder / "czi_plain.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = ["1bxn 3 5 2 25.0 70.0 40.0", "3qm1 20 11 8 10 20 30", "1bxn 7 17 10 0 0 0"]
    (folder / "shrec_plain.txt").write_text("\n".join(whole) + "\n")
    lines = ["x,y,z,class,score"] + [
        f"{x:g},{y:g},{z:g},{name},{score}" for (x, y, z), name, score in zip(VOXELS_XYZ, NAMES, SCORES, strict=True)
    ]
    (folder / "csv_plain.csv").write_text("\n".join(lines) + "\n")
    head = "PositionX\tPositionY\tPositionZ\tVolumeX\tVolumeY\tVolumeZ\tOffsetFromFace"
    body = ["\t".join(f"{n:g}" for n in [*(v * VOXEL_SIZE), *v, 0]) for v in VOXELS_XYZ]
    (folder / "original_plain.txt").write_text("\n".join([head, *body]) + "\n")
    return {
        "deepfinder_plain.xml": "deepfinder", "TS_01_info.json": "eman2", "coords_plain.coords": "coords",
        "czi_plain.ndjson": "czi", "shrec_plain.txt": "shrec", "csv_plain.csv": "csv", "original_plain.txt": "original",
    }  # fmt: skip


def cryocat_files(folder: Path) -> dict[str, str]:
    """cryoCAT keeps the numbers of a position from format to format, so each is given its own format's numbers."""
    import pandas as pd
    from cryocat import cryomotl

    def motl(first: int) -> pd.DataFrame:
        table = pd.DataFrame(np.zeros((3, 20)), columns=cryomotl.Motl.motl_columns)
        table[["x", "y", "z"]], table[["phi", "psi", "theta"]] = PIXELS_XYZ + first, PHI_PSI_THETA
        table["score"], table["class"], table["tomo_id"], table["object_id"] = SCORES, CLASSES, 1, 1
        table["subtomo_id"] = [1, 2, 3]
        return table

    cryomotl.EmMotl(motl(1)).write_out(str(folder / "em_cryocat.em"))
    cryomotl.StopgapMotl(motl(1)).write_out(str(folder / "stopgap_cryocat.star"))
    cryomotl.DynamoMotl(motl(0)).write_out(str(folder / "dynamo_cryocat.tbl"))
    for name, number in (("relion3", 3.1), ("relion4", 4.0)):
        relion = cryomotl.RelionMotl(motl(0), version=number, pixel_size=PIXEL_SIZE, binning=1.0)
        ending = ".mrc" if name == "relion3" else ""
        relion.write_out(str(folder / f"{name}_cryocat.star"), tomo_format=f"TS_$xx{ending}")
    sizes = pd.DataFrame([["TS_01", *(SIZE_XYZ * BINNING)]], columns=["rlnTomoName", *_TOMO_SIZE])
    relion = cryomotl.RelionMotlv5(motl(0), sizes, pixel_size=PIXEL_SIZE, binning=1.0)
    relion.write_out(str(folder / "relion5_cryocat.star"), tomo_format="TS_$xx")
    return {
        "em_cryocat.em": "em", "stopgap_cryocat.star": "stopgap", "dynamo_cryocat.tbl": "dynamo",
        "relion3_cryocat.star": "relion3", "relion4_cryocat.star": "relion4", "relion5_cryocat.star": "relion5",
    }  # fmt: skip


_TOMO_SIZE = ["rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ"]


def copick_files(folder: Path) -> dict[str, str]:
    """copick's own export functions; its points are Å from the middle of the first pixel of the tilt series' size."""
    import tempfile

    import copick
    from copick.util import formats

    points = PIXELS_XYZ * PIXEL_SIZE
    center = tuple(SIZE_XYZ * BINNING / 2 * PIXEL_SIZE)
    options = {"tilt_series_pixel_size": PIXEL_SIZE}
    for name, centers in (("relion4", {}), ("relion5", {"tomogram_centers": {"TS_01": center}})):
        tables = formats.build_relion_star_tables({"TS_01": (points, transforms())}, **centers, **options)
        formats.write_star_particles(str(folder / f"{name}_copick.star"), *tables)
    position, eulers, shift = formats.copick_to_dynamo_transform(points, transforms(), PIXEL_SIZE)
    formats.write_dynamo_table(str(folder / "dynamo_copick.tbl"), position, eulers, shift, np.array(SCORES))
    position, eulers = formats.copick_to_em_transform(points, transforms(), PIXEL_SIZE)[:2]
    (folder / "em_copick.em").unlink(missing_ok=True)  # emfile replaces nothing unasked
    formats.write_em_motivelist(str(folder / "em_copick.em"), position, eulers, np.array(SCORES))
    with tempfile.TemporaryDirectory() as root:
        config = {"name": "t", "description": "", "version": copick.__version__, "config_type": "filesystem"}
        config["pickable_objects"] = [{"name": "ribosome", "is_particle": True, "label": 1, "radius": 120.0}]
        config |= {"overlay_root": f"local://{root}", "overlay_fs_args": {"auto_mkdir": True}}
        (Path(root) / "project.json").write_text(json.dumps(config))
        picks = copick.from_file(f"{root}/project.json").new_run("TS_01").new_picks("ribosome", "1", "alice")
        picks.from_numpy(ANGSTROM_XYZ, transforms())
        for point, score in zip(picks.points, SCORES, strict=True):
            point.score = score
        picks.store()
        found = next(Path(root).rglob("*ribosome.json"))
        (folder / "copick_copick.json").write_bytes(found.read_bytes())
    return {
        "relion4_copick.star": "relion4", "relion5_copick.star": "relion5", "dynamo_copick.tbl": "dynamo",
        "em_copick.em": "em", "copick_copick.json": "copick",
    }  # fmt: skip


LIBRARIES: dict[str, Callable[[Path], dict[str, str]]] = {
    "starfile": starfile_files,
    "dynamotable": dynamotable_files,
    "emfile": emfile_files,
    "imodmodel": imodmodel_files,
    "cryocat": cryocat_files,
    "copick": copick_files,
    "plain text": plain_files,
}


def main() -> None:
    """Write what the libraries of this Python can write, and update golden.json."""
    LISTS.mkdir(exist_ok=True)
    index = json.loads(INDEX.read_text()) if INDEX.exists() else {}
    owners = {"cryocat", "copick"}
    own = any(_version(name) for name in owners)
    for library, write in LIBRARIES.items():
        number = "" if library == "plain text" else _version(library)
        if number is None or (own and library not in owners):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = write(LISTS)
        for name, format_name in written.items():
            digest = hashlib.sha256((LISTS / name).read_bytes()).hexdigest()
            index[name] = {"format": format_name, "written_by": f"{library} {number}".strip(), "sha256": digest}
    INDEX.write_text(json.dumps(dict(sorted(index.items())), indent=1) + "\n")
    print(f"{len(index)} files in {INDEX}")


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
