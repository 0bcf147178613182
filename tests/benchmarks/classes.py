"""How well six classes are told apart: F-beta (4) of each, on tomograms that training never saw.

    python -m tests.benchmarks.classes --maps DIR --folder runs/classes --epochs 34

Classes of mixed size stand in one scene (`SCENE`), at SNR 0.1 to 0.5: 8 tomograms train, 2 choose the thresholds, 4
test. Both networks start from the shipped ones, or from ``--pretrained``: CenterNet with a map for each class, MaskNet
for a sixth of the epochs, as the shipped one leaves out most of the shells. All by the commands of a user. *All* adds
up the counts of the classes; *class ignored* matches the same centers by place alone, so that what is lost to
classification is seen. What is finished is not done again, and training goes on where it stopped.

With ``--picks FOLDER`` it scores what another program picked on the same tomograms, ``FOLDER/validation/*.csv`` and
``FOLDER/test/*.csv`` with a class and a score, as ``peers/train_deepfinder.py`` writes them: the lowest score that
counts is chosen for each class on validation, too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scripts.evaluation.bootstrap import bootstrap_intervals
from scripts.evaluation.evaluate import evaluate
from scripts.simulate.simulate import simulate
from tests.benchmarks.__main__ import print_table

ROOT = Path(__file__).parents[2]
SCENE = Path(__file__).with_name("general") / "scenes" / "six_classes.json"
TOMOGRAMS, VALIDATION, TEST = 14, 2, 4
SEED = 7001
PARTS = ("validation", "test")
WEIGHTS = ROOT / "models" / "model.pt"


def run(*command: str) -> None:
    """A command of a user, in the project's folder."""
    print("python -m", *command, file=sys.stderr)
    subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True)


def train(folder: Path, names: list[str], epochs: int, diameter: float, pretrained: Path) -> Path:
    """CenterNet with a map for each class, joined with a MaskNet of the same tomograms; returns the weights."""
    weights = folder / "model.pt"
    parts = {
        "mask": [str(max(epochs // 6, 1)), "--learning_rate", "0.001"],
        "center": [
            str(epochs), "--learning_rate", "0.002", "--classes", str(names), "--center_balance", "2",
            "--particle_diameter", f"{diameter:g}",
        ],
    }  # fmt: skip
    for part, options in parts.items():
        if not weights.exists():
            run(
                "monai.bundle", "run", "training", "--config_file", f"configs/train_{part}.json",
                "--dataset_dir", str(folder / "data"), "--output_dir", str(folder / part), "--pretrained",
                str(pretrained), "--memory_format", "$torch.channels_last_3d", "--batch_size", "4",
                "--crops_per_tomogram", "32", "--resume", str((folder / part / "last.pt").exists()).lower(),
                "--epochs", *options,
            )  # fmt: skip
    if not weights.exists():
        run("scripts", "join", *(str(folder / part / "model.pt") for part in parts), "--output", str(weights))
    return weights


def diameters_of(data: Path) -> dict[str, float]:
    """Median diameter, Å, of the true particles of every class."""
    tables = [pd.read_csv(path) for path in sorted(data.glob("*/particles.csv"))]
    particles = pd.concat([table[table["label"] > 0] for table in tables])
    return particles.groupby("class")["diameter_angstrom"].median().round().to_dict()


def scores(points: dict[str, Any]) -> dict[str, Any]:
    """What the table shows of an evaluation's points."""
    names = {"F-beta 4": "f_beta", "F1": "f1", "precision": "precision", "recall": "recall"}
    low, high = points["intervals"]["particles"]["f_beta"]
    return {
        "particles": points["n_true"],
        **{k: points[v] for k, v in names.items()},
        "95 %": f"{low:.3f} to {high:.3f}",
    }


def pooled(classes: dict[str, Any]) -> dict[str, Any]:
    """The scores of all classes, their counts added up: a particle counts only for its own class."""

    def rates(counts: np.ndarray) -> dict[str, np.ndarray]:
        tp, fp, fn = counts.T

        def f(beta: int) -> np.ndarray:
            return (1 + beta**2) * tp / ((1 + beta**2) * tp + beta**2 * fn + fp)

        return {"f_beta": f(4), "f1": f(1), "precision": tp / (tp + fp), "recall": tp / (tp + fn)}

    counts = np.sum([[part["points"][name] for name in ("tp", "fp", "fn")] for part in classes.values()], axis=0)
    values = {name: float(value[0]) for name, value in rates(counts[None]).items()}
    return {**values, "n_true": int(counts[0] + counts[2]), "intervals": bootstrap_intervals([counts], rates)}


def chosen(picks: Path, data: Path, folder: Path) -> Path:
    """Write the picks of the test tomograms that score enough for their class, and return their folder.

    Of twenty thresholds, evenly spread over a class's scores, the one with the best F-beta (4) on validation is taken.
    """
    validation, test = ({path.name: pd.read_csv(path) for path in (picks / part).glob("*.csv")} for part in PARTS)
    of_class = pd.concat(validation.values()).groupby("class")["score"]
    best = dict.fromkeys(of_class.groups, (-1.0, 0.0))
    for share in np.linspace(0, 0.95, 20):
        limits = of_class.quantile(share)
        found = evaluate(write_picks(validation, limits, folder / "validation"), data, beta=4, bootstrap=0)["classes"]
        for name, limit in limits.items():
            best[name] = max(best[name], (found[name]["points"]["f_beta"], limit))
    return write_picks(test, pd.Series({name: limit for name, (_, limit) in best.items()}), folder / "test")


def write_picks(lists: dict[str, pd.DataFrame], limits: pd.Series, folder: Path) -> Path:
    """Write lists without the picks below the limit of their class, or of a class without limit."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in lists.items():
        table[table["score"] >= table["class"].map(limits)].to_csv(folder / name, index=False)
    return folder


def detected(folder: Path, data: Path, epochs: int, pretrained: Path) -> Path:
    """Train, choose thresholds, detect; returns the folder with what was found in the test tomograms."""
    diameters = diameters_of(data)
    weights = train(folder, list(diameters), epochs, min(diameters.values()), pretrained)
    settings = folder / "thresholds.json"
    if not settings.exists():
        run("scripts", "calibrate", str(data), "--weights", str(weights), "--particle_diameter", json.dumps(diameters),
            "--beta", "4", "--output", str(settings))  # fmt: skip
    tests = json.loads((data / "dataset.json").read_text())["test"]
    images = [str(data / item["image"]) for item in tests]
    run("scripts", "detect", *images, "--weights", str(weights), "--config", str(settings),
        "--output_dir", str(folder / "found"))  # fmt: skip
    return folder / "found"


def main(maps: str, folder: Path, epochs: int, pretrained: Path, picks: Path | None) -> None:
    """Simulate; train and detect, or take the picks of another program; print the table."""
    data = folder / "data"
    simulate(SCENE, data, TOMOGRAMS, SEED, validation=VALIDATION, test=TEST, maps=maps)
    where = detected(folder, data, epochs, pretrained) if picks is None else chosen(picks, data, picks / "chosen")
    found = evaluate(where, data, metric="czii")
    rows = [{"class": name, **scores(part["points"])} for name, part in found["classes"].items()]
    rows.append({"class": "all", **scores(pooled(found["classes"]))})
    rows.append({"class": "class ignored", **scores(found["pooled"]["points"])})
    print_table(rows)
    print(f"czii: {found['czii']['score']:.3f}")
    print(json.dumps(found["confusion"], indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", required=True, help="as for tests/benchmarks/general/data.py")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=34)
    parser.add_argument("--pretrained", type=Path, default=WEIGHTS, help="both networks, joined")
    parser.add_argument("--picks", type=Path, help="of another program, instead of training and detecting")
    main(**vars(parser.parse_args()))
