"""The networks run by OpenVINO: the same maps as PyTorch's, or PyTorch with a word of why."""

import importlib.util
import logging
import sys

import pytest
import torch
from monai.networks.nets import BasicUNet

from scripts.inferer import TomogramInferer
from scripts.networks import MaskAndCenterNet, spare_padding
from scripts.tiling import openvino_network
from scripts.tiling.openvino_network import OpenVinoNetwork, choose_runtime

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed: pip install -r tests/requirements.txt", allow_module_level=True)
worth_trying = openvino_network._worth_trying  # before conftest.py switches it off


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    pair = (
        BasicUNet(spatial_dims=3, out_channels=1, features=[4, 4, 4, 4, 4, 4], norm=["batch", {"affine": True}])
        for _ in range(2)
    )
    return spare_padding(MaskAndCenterNet(*pair)).eval()


@pytest.fixture
def image():
    return torch.randn(1, 1, 40, 70, 52, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def logged(monkeypatch):
    """Not caplog: configs run by other tests set the loggers up anew."""
    lines = []
    for level in ("info", "warning"):
        monkeypatch.setattr(logging.getLogger(openvino_network.__name__), level, lambda t, *a: lines.append(t % a))
    monkeypatch.setattr(openvino_network, "_worth_trying", worth_trying)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return lines


@pytest.mark.parametrize("tile", [(32, 48, 64), (40, 36, 52)])  # the second with odd sides after two poolings
def test_maps_equal_those_of_pytorch_and_nothing_is_sent(networks, image, tile, logged):
    maps = {}
    for runtime in ("torch", "openvino", "auto"):
        inferer = TomogramInferer(tile, runtime=runtime, tta=2, amp=False)
        maps[runtime] = inferer(image, networks)
        assert inferer.ran == ("torch" if runtime == "torch" else "openvino")
    torch.testing.assert_close(maps["openvino"], maps["torch"], rtol=1e-4, atol=1e-4)
    assert torch.equal(maps["auto"], maps["openvino"])
    assert "runtime: OpenVINO, float32; differs from PyTorch by " in logged[-1]
    assert "openvino_telemetry.main" not in sys.modules


def test_changed_weights_are_converted_anew(networks, image):
    inferer = TomogramInferer((48, 80, 64), runtime="openvino", amp=False)
    before = inferer(image, networks)
    bias = networks.center_network.final_conv.bias
    with torch.no_grad():
        bias += 1.0
        after = inferer(image, networks)
        bias -= 1.0
    torch.testing.assert_close(after[:, 1], before[:, 1] + 1, rtol=1e-4, atol=1e-4)


class Sorted(torch.nn.Module):
    """Python decides by values, which a conversion cannot follow: its constants are those of one input."""

    def forward(self, tile):
        return tile * (1.0 if float(tile.flatten()[0]) > 0 else 2.0) * torch.rand(1)


def test_networks_openvino_cannot_run_stay_in_pytorch_with_a_note_or_are_an_error(image, logged):
    network = Sorted().eval()
    assert choose_runtime("auto", network, image, "cpu") is network
    assert logged[0].startswith("runtime: PyTorch, for OpenVINO does not run this network: it")
    with pytest.raises(ValueError, match="expected a network that OpenVINO runs as PyTorch does, but .* auto or torch"):
        choose_runtime("openvino", network, image, "cpu")
    with pytest.raises(ValueError, match="it is for networks on the CPU, and this one is on cuda:0"):
        choose_runtime("openvino", network, image, "cuda:0")
    with pytest.raises(ValueError, match="runtime: expected one of auto, torch, openvino, got 'onnx'"):
        TomogramInferer(runtime="onnx")


def test_without_openvino_or_with_amx_auto_takes_pytorch(networks, image, logged, monkeypatch):
    monkeypatch.setattr(openvino_network.importlib.util, "find_spec", lambda name: None)
    assert choose_runtime("auto", networks, image, "cpu") is networks
    assert logged[-1] == "runtime: PyTorch; on this CPU OpenVINO is faster: pip install openvino"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert choose_runtime("auto", networks, image, "cpu") is networks
    assert logged[-1] == "runtime: PyTorch, in bfloat16 by AMX"
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match="the package is missing: pip install openvino"):
        choose_runtime("openvino", networks, image, "cpu")


def test_memory_of_a_tile_is_given_back_after_each_tomogram(networks, image):
    compiled = OpenVinoNetwork(networks, image[..., :32, :32, :32])
    inferer = TomogramInferer((48, 80, 64), runtime="openvino", amp=False)
    inferer(image, networks)
    assert inferer._chosen[1]._compiled == {} and compiled.difference < 1e-4
