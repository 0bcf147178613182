"""Make and read copick projects with copick's own API; run by test_copick.py with a Python that has copick.

copick needs zarr below 3 and this project zarr 3, so copick lives in an environment of its own:
``python -m venv copick && copick/bin/pip install copick``, and COPICK_PYTHON names its Python.
"""

import json
import sys
from pathlib import Path

import copick
import numpy as np

SHAPE = (12, 20, 28)
OBJECTS = [
    {"name": "ribosome", "is_particle": True, "label": 1, "radius": 120.0},
    {"name": "proteasome", "is_particle": True, "label": 2, "radius": 80.0},
]


def make(folder: Path) -> None:
    """Two runs with a tomogram each; picks of alice in the first, in a static and an overlay folder."""
    static = {"overlay_root": f"local://{folder}/static", "overlay_fs_args": {"auto_mkdir": True}}
    both = {**static, "overlay_root": f"{folder}/overlay", "static_root": f"local://{folder}/static"}
    common = {"name": "t", "description": "", "version": copick.__version__, "config_type": "filesystem"}
    for name, roots in (("static.json", static), ("project.json", both)):
        (folder / name).write_text(json.dumps({**common, "pickable_objects": OBJECTS, **roots}))
    root = copick.from_file(str(folder / "static.json"))
    for index in range(2):
        run = root.new_run(f"TS_{index + 1:03}")
        tomogram = run.new_voxel_spacing(10.012).new_tomogram("wbp")
        tomogram.from_numpy(np.random.default_rng(index).normal(size=SHAPE).astype(np.float32))
    run = root.get_run("TS_001")
    angle = np.deg2rad(30)
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    for name, points in (("ribosome", [[10.0, 20.25, 30.5], [111.11, 70.7, 50.05]]), ("proteasome", [[200, 60, 40]])):
        picks = run.new_picks(name, "1", "alice")
        picks.from_numpy(np.array(points, dtype=float), np.stack([turned] * len(points)))
        picks.store()


def read(folder: Path) -> None:
    """Print everything that copick itself finds, as JSON."""
    root = copick.from_file(str(folder / "project.json"))
    found: dict = {"picks": {}, "segmentations": {}, "tomograms": {}}
    for run in root.runs:
        for picks in run.picks:
            points, transforms = picks.numpy()
            key = f"{run.name} {picks.pickable_object_name}:{picks.user_id}/{picks.session_id}"
            found["picks"][key] = {
                "points": points.tolist(),
                "transforms": transforms.tolist(),
                "scores": [point.score for point in picks.points],
                "trust": picks.trust_orientation,
            }
        for one in run.get_segmentations(is_multilabel=None, is_instance=None):
            kind = "instance" if one.is_instance else "binary"
            key = f"{run.name} {kind} {one.name}:{one.user_id}/{one.session_id}@{one.voxel_size}"
            found["segmentations"][key] = one.numpy().tolist()
        for spacing in run.voxel_spacings:
            for tomogram in spacing.tomograms:
                total = float(np.asarray(tomogram.numpy(), dtype=np.float64).sum())
                found["tomograms"][f"{run.name} {tomogram.tomo_type}@{spacing.voxel_size}"] = total
    print(json.dumps(found))


if __name__ == "__main__":
    {"make": make, "read": read}[sys.argv[1]](Path(sys.argv[2]))
