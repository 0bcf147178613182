"""Checks of use elsewhere: load the network and run a detection from a folder that is not the bundle's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from .common import DIAMETER, Case
from .networks import load_network

__all__ = ["check_load", "check_run"]


def check_load(case: Case) -> str:
    """monai.bundle.load gives the network with its weights."""
    from monai.bundle import load

    network: Any = load(
        case.root.name, bundle_dir=str(case.root.parent), workflow_type="inference", device="cpu", progress=False
    )
    expected, got = load_network(case).state_dict(), network.state_dict()
    if expected.keys() != got.keys() or not all(torch.equal(expected[name], got[name]) for name in expected):
        raise ValueError("the loaded network has other weights than models/model.pt")
    return f"from {Path.cwd().name}/, {len(got)} tensors"


def check_run(case: Case) -> str:
    """The exact command, in a process of its own whose path has nothing but the bundle's folder by MONAI's doing."""
    output = case.work / "detections"
    arguments = {
        "config_file": case.path("configs/inference.json"),
        "bundle_root": str(case.root),
        "dataset_dir": str(case.dataset),
        "output_dir": str(output),
        "particle_diameter": f"{DIAMETER:g}",
        "tile": "[32,48,64]",
        "device": "cpu",
        "progress": "false",
    }
    command = [sys.executable, "-m", "monai.bundle", "run", "inference"]
    command += [part for name, value in arguments.items() for part in (f"--{name}", value)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, cwd=case.work, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise ValueError(f"exit code {result.returncode}: {(result.stderr or result.stdout).strip().splitlines()[-1]}")
    made = sorted(path.name for path in (output / "noise").iterdir())
    wanted = {"noise_instances.mrc", "noise_particles.csv", "noise.json"}
    if not wanted <= set(made):
        raise ValueError(f"expected {', '.join(sorted(wanted - set(made)))}, got {', '.join(made) or 'nothing'}")
    return f"from {case.work.name}/, {len(made)} files"
