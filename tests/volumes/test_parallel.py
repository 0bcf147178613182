"""run_parallel: as many threads as PyTorch has, whose number it leaves alone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
import torch

from custom_transforms.volumes.parallel import run_parallel
from tests.conftest import ROOT


@pytest.mark.parametrize("threads", [1, 2])
def test_as_many_threads_work_as_pytorch_has(threads):
    torch.set_num_threads(threads)
    used = run_parallel(lambda job: (time.sleep(0.02), threading.get_ident())[1], [(job,) for job in range(6)])
    assert len(set(used)) == threads


def test_measuring_particles_leaves_the_number_of_pytorchs_threads():
    """numba sets it to all cores when it is asked for its own for the first time in a process."""
    code = """
import numpy as np, torch
from custom_transforms.measuring.particle_table import sums_by_label
before = torch.get_num_threads()
sums_by_label(np.ones((40, 5, 6), np.int32), np.ones((40, 5, 6), np.float32))
print(before, torch.get_num_threads())
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"OMP_NUM_THREADS": "1", "PATH": ""}, capture_output=True, text=True
    )
    assert run.stdout.split() == ["1", "1"], run.stderr
