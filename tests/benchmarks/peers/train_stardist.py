"""Train StarDist 3D, for the comparison, on the tomograms that our networks are trained on.

    python -m tests.benchmarks.peers.train_stardist --folder DATA --stardist_python PATH --minutes 20 --output MODEL

``--folder`` is that of ``tests/benchmarks/general/data.py``; ``--stardist_python`` the Python of an environment with
StarDist (``stardist3d.py`` says how to make it). The tomograms are normalised as ours are and written to
``MODEL/volumes``, from where that Python reads them. ``--minutes`` counts from the first step.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from custom_transforms.io import LoadTomogramd
from custom_transforms.normalize import NormalizeTomogramd
from scripts.datalist import load_datalist
from scripts.simulate.write import write_json
from tests.benchmarks.peers.methods import STARDIST


def write_volumes(folder: Path, output: Path) -> Path:
    """Write images (float16) and labels (int32) as .npy; returns the JSON file that lists them."""
    output.mkdir(parents=True, exist_ok=True)
    read, normalize = LoadTomogramd(["image"], label_keys=["label"]), NormalizeTomogramd("image")
    listed: dict[str, list[dict[str, str]]] = {}
    for section in ("training", "validation"):
        listed[section] = []
        for number, item in enumerate(tqdm(load_datalist(folder, section), desc=section, unit="tomogram")):
            given = {"image": item["image"], "label": item["label"], "contrast": item.get("contrast", "dark")}
            data = normalize(read(given))
            names = {key: f"{section}_{number:03d}_{key}.npy" for key in ("image", "label")}
            for key, dtype in (("image", np.float16), ("label", np.int32)):
                np.save(output / names[key], np.asarray(data[key])[0].astype(dtype))
            listed[section].append(names)
    write_json(output / "volumes.json", listed)
    return output / "volumes.json"


def main(folder: Path, stardist_python: Path, minutes: float, output: Path, threads: int, seed: int) -> None:
    """Write the volumes and train on them; what StarDist prints is passed through."""
    datalist = write_volumes(folder, output / "volumes")
    command = [str(stardist_python), str(STARDIST), "train", "--datalist", str(datalist), "--output", str(output)]
    command += ["--minutes", str(minutes), "--seed", str(seed)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--stardist_python", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
