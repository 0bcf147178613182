"""Read particle lists with cryoCAT or with copick; run by test_particle_readers.py with a Python that has one of them.

Both live in environments of their own: ``python -m venv cryocat && cryocat/bin/pip install cryocat 'pandas<3'`` (its
STOPGAP writer breaks with pandas 3) and ``python -m venv copick && copick/bin/pip install copick``; CRYOCAT_PYTHON and
COPICK_PYTHON name their Pythons.

The folder given holds options.json (``pixel_size`` in Å) and lists named after their format, such as
relion5.star and dynamo.tbl. Printed is JSON: {format: {"positions": in the unit of the library, "matrices": ...}}.
"""

import json
import sys
from pathlib import Path

import numpy as np


def read_with_cryocat(folder: Path, pixel_size: float) -> dict:
    """Positions in pixels, as cryoCAT has them."""
    from cryocat import cryomotl, starfileio
    from scipy.spatial.transform import Rotation

    def old_relion(path: Path):
        frames, names, _ = starfileio.Starfile.read(str(path))
        table = frames[names.index("data_particles") if "data_particles" in names else 0]
        table["rlnImageName"] = [f"TS_01_{n}_2.5A.mrc" for n in range(len(table))]  # it reads no list without
        return cryomotl.RelionMotl(table, version=3.1, pixel_size=pixel_size)

    readers = {
        "em.em": lambda path: cryomotl.EmMotl(str(path)),
        "stopgap.star": lambda path: cryomotl.StopgapMotl(str(path)),
        "dynamo.tbl": lambda path: cryomotl.DynamoMotl(str(path)),
        "warp.star": old_relion,
        "relion3.star": old_relion,
        "relion4.star": lambda path: cryomotl.RelionMotl(str(path), version=4.0, pixel_size=pixel_size, binning=1.0),
        "relion5.star": lambda path: cryomotl.RelionMotlv5(
            str(path), str(path.with_name("tomograms.star")), pixel_size=pixel_size, binning=1.0
        ),
    }
    found = {}
    for name, reader in readers.items():
        motl = reader(folder / name)
        turned = Rotation.from_euler("zxz", motl.df[["phi", "theta", "psi"]].to_numpy(float), degrees=True)
        positions = np.asarray(motl.get_coordinates(), dtype=float)
        found[name.split(".")[0]] = {"positions": positions.tolist(), "matrices": turned.as_matrix().tolist()}
    return found


def read_with_copick(folder: Path, pixel_size: float) -> dict:
    """Positions in Å, as copick has them after its import."""
    from copick.models import CopickPicksFile
    from copick.util import formats
    from copick.util.relion import relion_rows_to_poses

    tomograms = formats.read_relion_tomograms(str(folder / "tomograms.star"))
    found = {}
    for name in ("relion5", "relion4", "relion3", "warp"):
        table, optics = formats.read_star_particles_with_optics(str(folder / f"{name}.star"))
        options = {"tomograms": tomograms} if name == "relion5" else {"tilt_series_pixel_size": pixel_size}
        positions = formats.relion_coordinates_to_angstrom(table, optics=optics, **options)
        turned, shifts = relion_rows_to_poses(table)
        found[name] = _entry(positions - shifts, turned)
    position, eulers, shift, _ = formats.read_dynamo_table(str(folder / "dynamo.tbl"))
    found["dynamo"] = _entry(*formats.dynamo_to_copick_transform(position, eulers, shift, pixel_size))
    position, eulers, _ = formats.read_em_motivelist(str(folder / "em.em"))
    found["em"] = _entry(*formats.em_to_copick_transform(position, eulers, pixel_size))
    picks = CopickPicksFile(**json.loads((folder / "copick.json").read_text()))
    places = [[point.location.x, point.location.y, point.location.z] for point in picks.points]
    found["copick"] = _entry(np.array(places), np.array([point.transformation for point in picks.points]))
    return found


def _entry(positions: np.ndarray, transforms: np.ndarray) -> dict:
    places = np.asarray(positions, dtype=float).tolist()
    return {"positions": places, "matrices": np.asarray(transforms)[:, :3, :3].tolist()}


if __name__ == "__main__":
    program, place = sys.argv[1], Path(sys.argv[2])
    size = json.loads((place / "options.json").read_text())["pixel_size"]
    print(json.dumps({"cryocat": read_with_cryocat, "copick": read_with_copick}[program](place, size)))
