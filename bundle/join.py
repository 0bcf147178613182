"""Join the weights of two training runs into the one file that detection uses."""

from __future__ import annotations

from pathlib import Path

import torch

from custom_transforms.atomic import atomic_path
from scripts.networks import join_state_dicts, read_state_dict

__all__ = ["join"]


def join(mask: str, center: str, output: str = "models/model.pt") -> None:
    """Join the weights of MaskNet and CenterNet into one file.

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
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        torch.save(state, temporary)
    print(f"{target}: {sum(value.numel() for value in state.values()):,} numbers of both networks")
