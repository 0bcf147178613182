"""The networks run by OpenVINO instead of PyTorch: on CPUs without matrix units (AMX) several times faster."""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["RUNTIMES", "TOLERANCE", "OpenVinoNetwork", "choose_runtime"]

RUNTIMES = ("auto", "torch", "openvino")
TOLERANCE = 1e-3  # of the largest output, about what float16 maps are rounded by; the shipped networks differ by 1e-5
REPEATS = 32  # networks with up to five poolings see the same remainders at sides that differ by this
# layers that do the same whatever the size of what they see: a network of these alone is converted on a small window
LOCAL_LAYERS = (
    nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d, nn.InstanceNorm3d, nn.GroupNorm, nn.MaxPool3d, nn.AvgPool3d,
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Dropout, nn.Dropout3d,
    nn.Identity, nn.Upsample, nn.ReplicationPad3d, nn.ConstantPad3d,
)  # fmt: skip
logger = logging.getLogger(__name__)


class OpenVinoNetwork:
    """A network in float32, compiled for tiles of one shape on the CPU, and called like the network.

    Parameters
    ----------
    network : nn.Module
        (B, 1, Z, Y, X) to (B, C, Z, Y, X), on the CPU, in evaluation mode.
    first : tensor, shape (1, 1, Z, Y, X)
        A tile; the network is converted on it, or on a part of it if all its layers are `LOCAL_LAYERS`.

    Attributes
    ----------
    difference : float
        Largest difference to PyTorch on what it was converted on, over the largest value there.

    Raises
    ------
    ImportError
        If openvino is not installed.
    RuntimeError
        If the network cannot be converted, or gives other values than in PyTorch; says what differs.
    """

    def __init__(self, network: nn.Module, first: torch.Tensor) -> None:
        self._openvino = import_openvino()
        self._compiled: dict[tuple[int, ...], Any] = {}
        window = _window(network, first)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: shapes become constants, which is what is wanted
            expected = network(window).numpy()
            traced = torch.jit.trace(network, window, check_trace=False)
            try:
                self._model = self._openvino.convert_model(traced, example_input=window)
            except Exception as error:  # it raises types of its own, and what PyTorch raises
                raise RuntimeError(f"it cannot be converted ({str(error).splitlines()[0]})") from error
        found = self(window).numpy()
        if found.shape != expected.shape:
            raise RuntimeError(f"its output has the shape {found.shape} instead of {expected.shape}")
        scale = max(float(np.abs(expected).max()), 1e-6)
        self.difference = float(np.abs(found - expected).max()) / scale
        if not self.difference <= TOLERANCE:
            raise RuntimeError(f"its outputs differ by {self.difference:.2g} of the largest, more than {TOLERANCE:g}")

    def __call__(self, tiles: torch.Tensor) -> torch.Tensor:
        """Run a batch (B, 1, Z, Y, X) float32; the result (B, C, Z, Y, X) is a tensor of its own."""
        array = tiles.contiguous().numpy()
        if array.shape not in self._compiled:
            self._compiled.clear()  # buffers of other shapes would stay in memory
            self._compiled[array.shape] = self._compile(array.shape)
        return torch.from_numpy(self._compiled[array.shape].infer([array], share_inputs=True)[0].copy())

    def release(self) -> None:
        """Give back the memory of the last tile; the next one compiles anew, in half a second."""
        self._compiled.clear()

    def _compile(self, shape: tuple[int, ...]) -> Any:
        model = self._model.clone()
        model.reshape({model.input(0): list(shape)})
        # without the hint, CPUs with bfloat16 would take it
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        return self._openvino.Core().compile_model(model, "CPU", options).create_infer_request()


def choose_runtime(
    runtime: str, network: Callable, first: torch.Tensor, device: torch.device | str
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network itself, or the same compiled by OpenVINO.

    Parameters
    ----------
    runtime : {"auto", "torch", "openvino"}
        auto takes OpenVINO if it is installed, the device is a CPU without AMX (where PyTorch computes in bfloat16 and
        is faster) and it agrees with PyTorch on the first tile within `TOLERANCE`; else PyTorch, and the log says why.
    network : callable
    first : tensor, shape (1, 1, Z, Y, X)
        The first tile.
    device : device
        Where the network is.

    Raises
    ------
    ImportError, ValueError
        With "openvino", if it is not installed or the network does not run in it; say what to do.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime: expected one of {', '.join(RUNTIMES)}, got {runtime!r}.")
    if runtime == "torch" or (runtime == "auto" and not _worth_trying(network, device)):
        return network
    try:
        if torch.device(device).type != "cpu" or not isinstance(network, nn.Module):
            raise RuntimeError(f"it is for networks on the CPU, and this one is on {device}")
        compiled = OpenVinoNetwork(network, first.cpu())
    except RuntimeError as error:
        if runtime == "openvino":
            raise ValueError(
                f"runtime openvino: expected a network that OpenVINO runs as PyTorch does, but {error}. "
                "Set runtime to auto or torch."
            ) from error
        logger.warning("runtime: PyTorch, for OpenVINO does not run this network: %s", error)
        return network
    logger.info("runtime: OpenVINO, float32; differs from PyTorch by %.1g of the largest output", compiled.difference)
    return compiled


def _worth_trying(network: Callable, device: torch.device | str) -> bool:
    """Whether auto tries OpenVINO; the log says why not."""
    if torch.device(device).type != "cpu" or not isinstance(network, nn.Module):
        return False
    if torch.cpu._is_amx_tile_supported():
        logger.info("runtime: PyTorch, in bfloat16 by AMX")
        return False
    if importlib.util.find_spec("openvino") is None:
        logger.info("runtime: PyTorch; on this CPU OpenVINO is faster: pip install openvino")
        return False
    return True


def import_openvino() -> Any:
    """Import openvino without its telemetry, which would send the fact to its makers."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it then imports a stub
    try:
        import openvino
    except ImportError as error:
        raise ImportError("runtime openvino: the package is missing: pip install openvino") from error
    return openvino


def _window(network: nn.Module, tile: torch.Tensor) -> torch.Tensor:
    """The part of a tile that a network is converted on: all of it, unless sizes do not matter to the network."""
    layers = (layer for layer in network.modules() if not list(layer.children()))
    if not all(isinstance(layer, LOCAL_LAYERS) for layer in layers):
        return tile
    z, y, x = (min(side, REPEATS + side % REPEATS) for side in tile.shape[2:])
    return tile[..., :z, :y, :x].contiguous()
