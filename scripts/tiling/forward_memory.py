"""Memory of one forward pass of a network, counted without computing it."""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["forward_bytes"]

GUESSED_BYTES = 600  # a voxel; a pair of 16-wide BasicUNets takes 480


def forward_bytes(network: torch.nn.Module, tile: Sequence[int]) -> int:
    """Peak memory of one forward pass of one tile, in float32, without the weights; nothing is computed.

    The network runs on torch's "meta" device, where tensors have shapes and no values, and every tensor is counted
    as long as it lives.
    """
    return _forward_bytes(network, tuple(int(side) for side in tile))


@lru_cache(maxsize=32)  # one tomogram tries 17 tiles at most; each entry keeps its network alive
def _forward_bytes(network: torch.nn.Module, tile: tuple[int, ...]) -> int:
    try:
        shadow = copy.deepcopy(network).to("meta")
        with torch.no_grad(), _LiveBytes() as live:
            shadow(torch.empty((1, 1, *tile), device="meta"))
    except (NotImplementedError, RuntimeError) as error:  # an operator without shapes-only form
        logging.getLogger(__name__).info("memory of the network is a guess: %s", error)
        return GUESSED_BYTES * int(np.prod(tile))
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Count the bytes of living tensors, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(one, torch.Tensor):
                self._count(one.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size
