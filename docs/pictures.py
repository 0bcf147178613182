"""Make the pictures of "How it works", one a stage, by the code itself: ``python docs/pictures.py``.

A small crowded tomogram is simulated, and the parts of ``configs/`` are run one by one on it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import mrcfile
import numpy as np
import torch
from skimage.segmentation import find_boundaries

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from monai.bundle import ConfigParser  # noqa: E402

from custom_transforms.augment import apply_wedge_mask  # noqa: E402
from custom_transforms.targets import center_target, mask_target  # noqa: E402
from scripts.simulate.simulate import simulate  # noqa: E402

PICTURES = ROOT / "docs" / "pages" / "pictures"
SHAPE_ZYX = (64, 160, 192)
SLICE = SHAPE_ZYX[0] // 2
GREY = {"cmap": "gray", "vmin": -2.5, "vmax": 3.5}
BRIGHT = np.random.default_rng(3).permutation(np.array(plt.colormaps["hsv"](np.linspace(0, 1, 997)))[:, :3])


def main() -> None:
    """Simulate, run the stages, write a picture of each."""
    with tempfile.TemporaryDirectory() as folder:
        scene = json.loads((ROOT / "configs" / "scene_demo.json").read_text(encoding="utf-8"))
        simulate({**scene, "shape": list(SHAPE_ZYX)}, folder, seed=4, validation=0)
        truth = Path(folder) / f"{scene['name']}_000"
        labels = read(truth / "labels.mrc").astype(np.int32)
        stages = run_stages(truth / "tomogram.mrc")
        raw = read(truth / "tomogram.mrc")
    image, seeds = stages["image"], stages["seeds"].centers_zyx_vox
    tile = torch.as_tensor(image[:, :96, :96].copy())
    turned = apply_wedge_mask(tile, 40.0).flip(2)
    near = {"cmap": "gray", "points": seeds[np.abs(seeds[:, 0] - SLICE) <= 4]}
    grey, heat, found = {"cmap": "gray"}, {"cmap": "magma"}, shown_labels(stages["instances"], image)
    mask, center = (np.asarray(target)[SLICE] for target in (mask_target(labels), center_target(labels, 10.0)))
    probability, center_map = (stages[name][SLICE] for name in ("probability", "center_map"))
    unit = {"vmin": 0, "vmax": 1}
    pictures = {
        "simulate": [("particles and their labels", *shown_labels(labels)), ("tomogram", raw[SLICE], grey)],
        "load": [("file", raw[SLICE], grey), ("loaded: protein bright, z-scored", image[SLICE], GREY)],
        "targets": [("labels", *shown_labels(labels)), ("mask target", mask, {}), ("center target", center, heat)],
        "augment": [("tile", tile[SLICE].numpy(), GREY), ("flipped, fewer tilts", turned[SLICE].numpy(), GREY)],
        "networks": [
            ("tomogram", image[SLICE], GREY),
            ("MaskNet: probability", probability, unit),
            ("CenterNet: center map", center_map, {**heat, **unit}),
        ],
        "instances": [("mask and seeds", stages["foreground"][SLICE], near), ("instances", *found)],
        "evaluate": [("true particles", *shown_labels(labels, image)), ("detected particles", *found)],
    }
    for name, panels in pictures.items():
        save(name, panels)


def read(path: Path) -> np.ndarray:
    """The volume of an MRC file, (Z, Y, X)."""
    with mrcfile.open(path) as file:
        return np.array(file.data)


def run_stages(tomogram: Path) -> dict[str, Any]:
    """What each part of ``configs/inference.json`` makes of a tomogram, by the name of its result."""
    parser = ConfigParser()
    parser.read_config(str(ROOT / "configs" / "inference.json"))
    parser.update({"bundle_root": str(ROOT), "device": "cpu", "progress": False, "tile": [64, 96, 96]})
    item = parser.get_parsed_content("preprocessing")({"image": str(tomogram)})
    stages: dict[str, Any] = {"image": item["image"][0].numpy()}
    network = parser.get_parsed_content("network").eval()
    with torch.no_grad():
        item["pred"] = parser.get_parsed_content("inferer")(item["image"][None], network)[0]
    for transform in parser.get_parsed_content("postprocessing").transforms:
        if type(transform).__name__ == "MeasureParticlesd":  # all after it concerns the table
            break
        item = transform(item)
        for name in ("probability", "center_map", "foreground", "instances"):
            if name in item:
                stages[name] = item[name][0].numpy()
    return {**stages, "seeds": item["seeds"]}


def shown_labels(labels: np.ndarray, image: np.ndarray | None = None) -> tuple[np.ndarray, dict[str, Any]]:
    """A slice of a label volume in colours, over the tomogram if one is given."""
    slice_yx = labels[SLICE]
    colours = BRIGHT[slice_yx % len(BRIGHT)]
    if image is None:
        return np.where((slice_yx > 0)[..., None], colours, 0.0), {}
    grey = np.clip((image[SLICE] - GREY["vmin"]) / (GREY["vmax"] - GREY["vmin"]), 0, 1)[..., None].repeat(3, -1)
    mixed = np.where((slice_yx > 0)[..., None], 0.55 * grey + 0.45 * colours, grey)
    mixed[find_boundaries(slice_yx, mode="inner")] *= 0.3
    return mixed, {}


def save(name: str, panels: Sequence[tuple[str, np.ndarray, dict[str, Any]]]) -> None:
    """Write ``stage_<name>.webp``: panels (title, slice, options of imshow) side by side."""
    sides = [panel[1].shape[1] / panel[1].shape[0] for panel in panels]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.2 * sum(sides) + 0.2, 3.5), width_ratios=sides)
    for axis, (title, picture, options) in zip(axes, panels, strict=True):
        points = options.pop("points", None) if options else None
        axis.imshow(picture, interpolation="nearest", **options)
        if points is not None:
            axis.plot(points[:, 2], points[:, 1], ".", color="#ff3b6b", markersize=7)
        axis.set_title(title, fontsize=11)
        axis.axis("off")
    figure.tight_layout(pad=0.4)
    path = PICTURES / f"stage_{name}.webp"
    figure.savefig(path, dpi=90, bbox_inches="tight", pad_inches=0.05, pil_kwargs={"quality": 85, "method": 6})
    plt.close(figure)
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
