"""Inferers: a network over one patch or over a whole tomogram, in the fastest arithmetic the device has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer

__all__ = ["PatchInferer", "TomogramInferer", "reduced_precision"]


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


class PatchInferer(SimpleInferer):
    """Run the network once over a batch of patches; the output is always float32.

    Parameters
    ----------
    amp : bool
        Reduced precision where the device has it, see `reduced_precision`. On CUDA leave it to the trainer's own
        ``amp``, which scales the gradients too: this class then only widens the output.
    """

    def __init__(self, amp: bool = True) -> None:
        super().__init__()
        self.amp = amp

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        with reduced_precision(inputs.device, self.amp and inputs.device.type == "cpu"):
            return network(inputs, *args, **kwargs).float()


class TomogramInferer(SlidingWindowInferer):
    """MONAI's sliding window, for tomograms of any shape and in reduced precision.

    A side shorter than the tile is extended by reflection, again and again if needed, and the result cut back,
    so that a thin tomogram works and its border looks like tomogram. All other arguments are MONAI's.

    Parameters
    ----------
    roi_size : sequence of 3 ints
        Tile, voxels (Z, Y, X).
    amp : bool
        Reduced precision where the device has it; the stitched result is float32 in any case.
    """

    def __init__(self, roi_size: Sequence[int], amp: bool = True, **kwargs: Any) -> None:
        super().__init__(roi_size=roi_size, **kwargs)
        self.amp = amp

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """Take (B, 1, Z, Y, X) float32; return the network's channels on the same voxels, float32."""

        def run(tiles: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
            with reduced_precision(tiles.device, self.amp):
                return network(tiles, *more, **named).float()

        padded = inputs
        before = [0] * 3
        for axis, tile in enumerate(self.roi_size):
            padded, before[axis] = reflect_to_length(padded, axis + 2, int(tile))
        result = super().__call__(padded, run, *args, **kwargs)
        window = [slice(start, start + size) for start, size in zip(before, inputs.shape[2:], strict=True)]
        return result[(slice(None), slice(None), *window)]


def reflect_to_length(volume: torch.Tensor, axis: int, length: int) -> tuple[torch.Tensor, int]:
    """Extend one axis of a (B, C, Z, Y, X) tensor to ``length`` by reflection about its end voxels.

    Returns the tensor and how many voxels were put before the first one. A side of one voxel is repeated.
    """
    size = volume.shape[axis]
    missing = length - size
    if missing <= 0:
        return volume, 0
    period = max(2 * (size - 1), 1)
    index = torch.arange(-(missing // 2), length - missing // 2) % period
    index = torch.where(index < size, index, period - index)
    return volume.index_select(axis, index.to(volume.device)), missing // 2
