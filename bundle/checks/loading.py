"""Checks of use elsewhere: load the network and run a detection from a folder that is not the bundle's."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from .common import DIAMETER, Case

__all__ = ["check_load", "check_run"]


LOAD = """
import sys, torch
from monai.bundle import load
name, folder, weights = sys.argv[1:]
state, got = torch.load(weights, weights_only=True), load(name, bundle_dir=folder, device="cpu").state_dict()
same = got.keys() == state.keys() and all(torch.equal(got[key], state[key].to(got[key].dtype)) for key in got)
sys.exit(0 if same else "the loaded network has other weights than models/model.pt")
"""


def check_load(case: Case) -> str:
    """monai.bundle.load, as it comes, gives the network with its weights, from a folder and path without the bundle."""
    if not (case.root / "configs" / "train.json").is_file():
        raise ValueError("expected configs/train.json, which bundles of before 0.2.0 lack: build the bundle again")
    arguments = [case.root.name, str(case.root.parent), case.path("models/model.pt")]
    _run(case, ["-c", LOAD, *arguments])
    return f"from {case.work.name}/"


def _run(case: Case, arguments: list[str]) -> None:
    """Run Python in the folder for what checks write, without this process's path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=case.work, env=environment, capture_output=True, text=True
    )
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        # of a chain of errors the first is the cause; MONAI's last line is advice on debugging
        reason = next((line for line in lines if re.match(r"(\w+\.)*\w*[Ee]rror: ", line)), lines[-1])
        raise ValueError(f"exit code {result.returncode}: {reason}")


def check_run(case: Case) -> str:
    """The exact command, in a process of its own whose path has nothing but the bundle's folder by MONAI's doing."""
    output = case.work / "detections"
    arguments = {
        "config_file": case.path("configs/inference.json"),
        "dataset_dir": str(case.dataset),
        "output_dir": str(output),
        "particle_diameter": f"{DIAMETER:g}",
        "tile": "[32,48,64]",
        "device": "cpu",
        "progress": "false",
    }
    options = [part for name, value in arguments.items() for part in (f"--{name}", value)]
    _run(case, ["-m", "monai.bundle", "run", "inference", *options])
    made = sorted(path.name for path in (output / "noise").iterdir())
    wanted = {"noise_instances.mrc", "noise_particles.csv", "noise.json"}
    if not wanted <= set(made):
        raise ValueError(f"expected {', '.join(sorted(wanted - set(made)))}, got {', '.join(made) or 'nothing'}")
    return f"from {case.work.name}/, {len(made)} files"
