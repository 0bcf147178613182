"""The two networks as one module, how weights get into a network, and the device it runs on."""

from __future__ import annotations

import copy
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets.basic_unet import UpCat
from torch import nn

from custom_transforms.files.whole_files import atomic_path
from custom_transforms.volumes.rescale import TOLERANCE
from scripts.records.bundle_zip import unpacked
from scripts.records.weights import read_record
from scripts.settings import check_setting
from scripts.tiling.choice import LARGEST_SIDE

__all__ = [
    "UNSAID",
    "MaskAndCenterNet",
    "check_device",
    "join_state_dicts",
    "load_pretrained",
    "load_weights",
    "network_part",
    "read_state_dict",
    "reduced_precision",
    "save_tensors",
    "spare_padding",
    "weights_file",
]

PARTS = ("mask_network", "center_network")
# settings of weights whose record does not say them: nothing is rescaled for these, and their training saw small crops
UNSAID: Mapping[str, Any] = {"voxel_size_model": None, "largest_tile_side": LARGEST_SIDE}


class MaskAndCenterNet(nn.Module):
    """Run MaskNet and CenterNet on the same window and return their outputs as one tensor.

    One tensor means one sliding-window pass, one weights file and one TorchScript file for both.

    Parameters
    ----------
    mask_network, center_network : nn.Module
        Each takes (B, 1, Z, Y, X) and returns (B, 1, Z, Y, X), the center network a map for each class. Any MONAI
        network will do; the two may differ.
    """

    def __init__(self, mask_network: nn.Module, center_network: nn.Module) -> None:
        super().__init__()
        self.mask_network = mask_network
        self.center_network = center_network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Take (B, 1, Z, Y, X); return (B, 2, Z, Y, X): mask logit, center map; one more for each further class."""
        return torch.cat([self.mask_network(image), self.center_network(image)], dim=1)


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a flat state dict from a weights file, without running any code stored in it.

    Raises
    ------
    FileNotFoundError
        If there is no such file; says how weights are made.
    ValueError
        If the file is damaged (by the record beside it, or its own checksums), is not a flat state dict of tensors, or
        holds NaN or infinite numbers.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a weights file (.pt), found none. Train the networks "
            "(configs/train_mask.json, configs/train_center.json) and join them with `python -m scripts join`, "
            "or name another file with --weights."
        )
    read_record(path)  # which compares its sha256 with the file's
    try:
        _check_zip(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file; all mean the same to the user
        raise ValueError(f"{path}: expected a PyTorch weights file, but it cannot be read ({error}).") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(
            f"{path}: expected a flat state dict (names to tensors), got {type(state).__name__}. "
            "Use the model.pt of a run, not its last.pt, which also holds the optimizer."
        )
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ValueError(
            f"{path}: expected finite weights, got NaN or infinite numbers in {len(broken)} of {len(state)} tensors "
            f"({', '.join(broken[:3])}). Use other weights, or train again, with a smaller --learning_rate if the loss "
            "became NaN."
        )
    return state


def save_tensors(path: Path, content: Any) -> None:
    """Write tensors, whole or not at all; the same bytes, and so the same sha256, for the same numbers."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)  # given a path, torch would write its name, which is random here, into the file


def _check_zip(path: Path) -> None:
    """Compare the checksums in a weights file with its content, which `torch.load` does not."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} in it is wrong, so bytes have changed. Copy it again")


def load_weights(
    network: nn.Module,
    path: str | Path,
    voxel_size: float | Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
) -> nn.Module:
    """Load a weights file into a network, exactly.

    Parameters
    ----------
    network : nn.Module
        Changed in place.
    path : path
        A flat state dict.
    voxel_size : float or sequence of 3 floats, optional
        Å per voxel that tomograms will be rescaled to for the network; another size than the one the record beside
        the weights names is a warning.
    classes : sequence of str, optional
        Names of the center maps that the network will be asked for, in their order.

    Raises
    ------
    ValueError
        If the weights do not fit, were trained for other classes, or the network has not one center map per class.
    """
    state = read_state_dict(path)
    _check_classes(network, path, list(classes or []))
    known = read_record(path).voxel_size
    if known is not None and voxel_size is not None and np.abs(np.divide(voxel_size, known) - 1).max() > TOLERANCE:
        given = ", ".join(f"{one:g}" for one in np.ravel(voxel_size))
        warnings.warn(
            f"{path} was trained at {known:g} Å per voxel, and voxel_size_model is {given}: particles look larger or "
            f"smaller than those it learnt. Set it to {known:g}, unless that is meant.",
            UserWarning,
            stacklevel=2,
        )
    return spare_padding(_load_exactly(network, state, path))


def _check_classes(network: nn.Module, path: str | Path, classes: list[str]) -> None:
    known = read_record(path).detection_settings().get("classes")
    if known and list(known) != classes:
        raise ValueError(
            f"{path}: was trained for the classes {', '.join(known)}, in this order, but classes is "
            f"{', '.join(classes) or 'null'}. Set it to those of the weights, or leave it out."
        )
    channels = output_channels(network) if classes else None
    if channels is not None and channels != 1 + len(classes):
        raise ValueError(
            f"network_def: expected {1 + len(classes)} channels, the mask and a center map for each of the classes "
            f"{', '.join(classes)}, got {channels}. Give the center network an output for each class."
        )


def output_channels(network: nn.Module) -> int | None:
    """How many channels a network gives of an image; None if it cannot be told without computing."""
    try:
        shadow = copy.deepcopy(network).to("meta")
        with torch.no_grad():
            return int(shadow(torch.empty((1, 1, 64, 64, 64), device="meta")).shape[1])
    except (NotImplementedError, RuntimeError, ValueError):  # an operator without shapes-only form, or another size
        return None


def load_pretrained(network: nn.Module, pretrained: str | Path | None, part: str | None) -> nn.Module:
    """Start a training from weights that are there, exactly; part of ``train_*.json``.

    Parameters
    ----------
    network : nn.Module
        One of the two networks, or both; changed in place.
    pretrained : path or None
        Weights of both networks, of this one alone, or a bundle (zip or folder); None leaves the network as it is.
    part : {"mask_network", "center_network"}, optional
        Which of a joint file's networks this one is; None is both.

    Notes
    -----
    A network of several classes starts from the one map of a network without classes, for every class.
    """
    if part not in (None, *PARTS):
        raise ValueError(f"part: expected one of {', '.join(PARTS)}, got {part!r}.")
    spare_padding(network)
    if pretrained is None:
        return network
    state = read_state_dict(weights_file(pretrained))
    if part is not None:
        state = network_part(state, part, pretrained)
    own = network.state_dict()
    for name, value in state.items():  # the last layer, and no other, has one output
        if name in own and value.ndim and len(value) == 1 < len(own[name]) and value.shape[1:] == own[name].shape[1:]:
            state[name] = value.repeat(len(own[name]), *[1] * (value.ndim - 1))
    return _load_exactly(network, state, pretrained)


def network_part(state: dict[str, torch.Tensor], part: str, path: str | Path) -> dict[str, torch.Tensor]:
    """The weights of one network: those of ``part`` where both were joined, else all."""
    if not any(name.split(".")[0] in PARTS for name in state):
        return state
    found = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
    if not found:
        raise ValueError(f"{path}: expected weights of {part}, but the file holds only the other network's.")
    return found


def weights_file(path: str | Path) -> Path:
    """The weights file behind a path: itself, or models/model.pt of a bundle (zip or folder)."""
    path = Path(path).expanduser()
    return unpacked(path) / "models" / "model.pt" if path.is_dir() or path.suffix == ".zip" else path


def _load_exactly(network: nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> nn.Module:
    own = network.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    if missing or unknown or other:
        raise ValueError(
            f"{path}: the weights do not fit the network of the config: {len(missing)} names missing "
            f"({', '.join(missing[:2]) or 'none'}), {len(unknown)} unknown ({', '.join(unknown[:2]) or 'none'}), "
            f"{len(other)} of another shape ({', '.join(other[:2]) or 'none'}). "
            "Use the network_def the weights were trained with, and their classes."
        )
    network.load_state_dict(state)
    return network


def spare_padding(network: nn.Module) -> nn.Module:
    """Let every BasicUNet inside pad only where a side is odd; the output stays the same, bit by bit.

    MONAI's BasicUNet (1.6) calls the replicating padding at every level, mostly by nothing, and CPU autocast computes
    that in float32, and so all that follows up to the next convolution. Without it a 96^3 tile takes half the time
    in bfloat16, and a training step three fifths.

    Parameters
    ----------
    network : nn.Module
        Any network; gets hooks where it holds a BasicUNet, once.
    """
    for module in network.modules():
        if isinstance(module, UpCat) and _pad_odd_sides not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_pad_odd_sides)
    return network


def _pad_odd_sides(module: UpCat, inputs: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    """Set ``is_pad`` of an UpCat: whether doubling the coarse sides misses the fine ones."""
    coarse, fine = inputs
    odd = fine is not None and any(2 * a != b for a, b in zip(coarse.shape[2:], fine.shape[2:], strict=True))
    if module.is_pad != odd:
        module.is_pad = odd


def join_state_dicts(mask: dict[str, torch.Tensor], center: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Join the weights of MaskNet and CenterNet into those of a `MaskAndCenterNet`."""
    joined = {f"mask_network.{name}": value for name, value in mask.items()}
    joined.update({f"center_network.{name}": value for name, value in center.items()})
    return joined


def check_device(device: str | torch.device) -> None:
    """Refuse a GPU that is not there; warn of one that is there and unused.

    Raises
    ------
    ValueError
        If the device is unknown or missing.
    """
    check_setting("device", device)
    kind = torch.device(device)
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind.type == "cuda" and (kind.index or 0) >= available:
        raise ValueError(
            f"--device {device}: {available} GPUs are visible to PyTorch. Use --device cpu, or fix the driver."
        )
    if kind.type == "cpu" and available:
        warnings.warn(
            f"{available} GPUs are there and unused: leave --device out to use one", UserWarning, stacklevel=2
        )


def reduced_precision(device: torch.device | str, enabled: bool = True) -> AbstractContextManager:
    """Autocast to float16 on CUDA, to bfloat16 on CPUs that compute in it, to nothing elsewhere.

    A 16-wide BasicUNet is about three times faster in bfloat16 on a CPU with AVX512-BF16 or AMX; on other CPUs
    bfloat16 is emulated and slower, so float32 stays.
    """
    kind = torch.device(device).type
    if enabled and kind == "cuda":
        return torch.autocast("cuda", torch.float16)
    if enabled and kind == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()
