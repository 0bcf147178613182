"""One of two processes that train together: the runs of test_two_processes_train_together_to_the_end."""

import os
import sys
from pathlib import Path

import torch

from tests.conftest import SMALL_TRAINING, run_config

RUNS = [(1, 2, 0), (2, 3, 1), (3, 1, 1), (3, 2, 0), (3, 2, 1)]  # epochs, val_interval, patience

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    store = torch.distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), 2, False)
    begin, number = torch.distributed.init_process_group, iter(range(99))
    # every run makes its process group anew; in one pair of processes each needs keys of its own
    torch.distributed.init_process_group = lambda backend, init_method: begin(
        backend,
        store=torch.distributed.PrefixStore(str(next(number)), store),
        rank=int(os.environ["RANK"]),
        world_size=2,
    )
    for epochs, val_interval, patience in RUNS:
        for resume in (False, True):
            options = {**SMALL_TRAINING, "epochs": epochs + 2 * resume, "patience": patience, "resume": resume}
            run_config(
                "train_mask.json,multi_gpu_train.json",
                "training",
                dataset_dir=str(folder / "data"),
                output_dir=str(folder / f"epochs{epochs}_interval{val_interval}_patience{patience}"),
                val_interval=val_interval,
                **options,
            )
