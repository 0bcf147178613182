"""Join the weights of two training runs into the one file that detection uses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from bundle.provenance import training_record
from custom_transforms.atomic import atomic_path
from scripts.networks import join_state_dicts, read_state_dict

__all__ = ["join"]


def join(mask: str, center: str, output: str = "models/model.pt") -> None:
    """Join the weights of MaskNet and CenterNet into one file.

    A model.json beside it keeps what the two runs recorded: best epoch, score, seed.

    example: python -m bundle join runs/mask/model.pt runs/center/model.pt --output models/model.pt

    Parameters
    ----------
    mask : str
        model.pt of a training with configs/train_mask.json.
    center : str
        model.pt of a training with configs/train_center.json.
    output : str
        Weights file to write.
    """
    state = join_state_dicts(read_state_dict(mask), read_state_dict(center))
    target = Path(output)
    record = {
        "mask": {"sha256": _sha256(mask), "run": training_record(Path(mask))},
        "center": {"sha256": _sha256(center), "run": training_record(Path(center))},
    }
    with atomic_path(target) as temporary:
        torch.save(state, temporary)
    text = json.dumps({"sha256": _sha256(target), **record}, indent=2) + "\n"
    with atomic_path(target.with_suffix(".json")) as temporary:
        temporary.write_text(text)
    print(f"{target}: {sum(value.numel() for value in state.values()):,} numbers of both networks")


def _sha256(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
