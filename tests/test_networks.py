"""Networks: an architecture is an edit of network_def alone; weights load exactly or not at all."""

import copy
import csv
import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from scripts.detection.detector import Detector
from scripts.inferer import TomogramInferer
from scripts.networks import MaskAndCenterNet, join_state_dicts, load_weights, spare_padding
from scripts.tiling.windows import reflect_to_length
from tests.conftest import ROOT, SMALL_NETWORK, SMALL_TRAINING, run_config

COMMON = {"spatial_dims": 3, "in_channels": 1, "out_channels": 1}
ARCHITECTURES = {
    "BasicUNet": SMALL_NETWORK,
    "UNet": {"_target_": "UNet", **COMMON, "channels": [4, 8, 8], "strides": [2, 2], "norm": "batch"},
    "DynUNet": {
        "_target_": "DynUNet",
        **COMMON,
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [4, 8, 8],
        "norm_name": "batch",
    },
    "SegResNet": {"_target_": "SegResNet", **COMMON, "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    "AttentionUnet": {"_target_": "AttentionUnet", **COMMON, "channels": [4, 8, 8], "strides": [2, 2]},
    "SwinUNETR": {
        "_target_": "SwinUNETR",
        "in_channels": 1,
        "out_channels": 1,
        "feature_size": 12,
        "depths": [1, 1, 1, 1],
    },
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_swapped_by_network_def_alone(name, dataset_dir, tmp_path):
    small = {**SMALL_TRAINING, "epochs": 1, "crops_per_tomogram": 2, "network_def": ARCHITECTURES[name]}
    if name == "SwinUNETR":  # halves its input five times
        small["patch_size"] = [64, 64, 64]
    small["val_tile"] = [64, 64, 64]
    run_config("train_center.json", "training", dataset_dir=str(dataset_dir), output_dir=str(tmp_path), **small)
    network = ConfigParser({"network_def": ARCHITECTURES[name]}).get_parsed_content("network_def")
    load_weights(network, tmp_path / "model.pt").eval()
    with torch.no_grad():
        joint = MaskAndCenterNet(network, network)
        result = TomogramInferer((64, 64, 64), overlap=0.25)(torch.randn(1, 1, 24, 40, 36), joint)
    assert result.shape == (1, 2, 24, 40, 36) and result.dtype == torch.float32
    assert torch.isfinite(result).all()


def test_one_network_with_both_outputs_is_trained_and_detects_by_configs_alone(dataset_dir, tmp_path):
    network = {**SMALL_NETWORK, "out_channels": 2}
    small = {**SMALL_TRAINING, "epochs": 1, "crops_per_tomogram": 16, "learning_rate": 0.02, "network_def": network}
    small |= {"center_balance": 1.0, "particle_diameter": 120}
    options = {"dataset_dir": str(dataset_dir), "output_dir": str(tmp_path / "run"), **small}
    run_config("train_center.json,train_joint.json", "training", **options)
    (row,) = csv.DictReader((tmp_path / "run" / "metrics.csv").open())
    assert 0 < float(row["val_mask_dice"]) <= 1 and "val_center_f1" in row
    (tmp_path / "joint.json").write_text(json.dumps({"network_def": network}))
    found = Detector(
        {"weights": str(tmp_path / "run" / "model.pt"), "output_dir": str(tmp_path / "out"), "tile": [32, 32, 32]},
        [str(tmp_path / "joint.json")],
    )(dataset_dir / "tomogram_1.mrc")
    assert found["instances"].shape == found["image"].shape


def test_joined_weights_give_both_outputs_of_the_single_networks(tmp_path):
    mask, center = (ConfigParser({"n": SMALL_NETWORK}).get_parsed_content("n").eval() for _ in range(2))
    torch.save(join_state_dicts(mask.state_dict(), center.state_dict()), tmp_path / "model.pt")
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / "inference.json")])
    parser["network_def#mask_network"] = parser["network_def#center_network"] = SMALL_NETWORK
    joint = load_weights(parser.get_parsed_content("network_def"), tmp_path / "model.pt").eval()
    image = torch.randn(1, 1, 16, 32, 16)
    with torch.no_grad():
        torch.testing.assert_close(joint(image), torch.cat([mask(image), center(image)], dim=1))


def test_weights_that_do_not_fit_are_an_error_that_says_how(tmp_path):
    network = torch.nn.Conv3d(1, 1, 3)
    torch.save({"weight": torch.zeros(2, 1, 3, 3, 3), "other": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(
        ValueError, match=r"1 names missing \(bias\), 1 unknown \(other\), 1 of another shape \(weight\)"
    ):
        load_weights(network, tmp_path / "w.pt")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ValueError, match="expected a PyTorch weights file"):
        load_weights(network, tmp_path / "text.pt")
    with pytest.raises(FileNotFoundError, match="Train the networks"):
        load_weights(network, tmp_path / "none.pt")


def test_thin_tomograms_are_extended_by_reflection_like_numpy():
    """Defect 6 of the original: a side not longer than the tile failed."""
    volume = torch.arange(4.0).reshape(1, 1, 4, 1, 1)
    longer, before = reflect_to_length(volume, 2, 13)
    expected = np.pad(np.arange(4.0), (before, 13 - 4 - before), mode="reflect")
    np.testing.assert_array_equal(longer.flatten().numpy(), expected)
    assert reflect_to_length(volume, 3, 5)[0].shape == (1, 1, 4, 5, 1)


def test_one_tile_and_many_tiles_agree_for_a_network_of_small_reach():
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, 3, padding=1, padding_mode="reflect")
    image = torch.randn(1, 1, 20, 44, 36)
    with torch.no_grad():
        whole = TomogramInferer((20, 44, 36), amp=False)(image, network)
        tiled = TomogramInferer((20, 24, 24), amp=False, overlap=0.5, mode="gaussian")(image, network)
    # a voxel at the border of a tile sees reflection instead of its neighbour: gaussian weights make that small
    assert (whole - tiled).abs().mean() < 0.05 * whole.abs().mean()


@pytest.mark.parametrize("shape", [(16, 32, 48), (17, 40, 23)], ids=["even", "odd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sparing_the_padding_changes_no_bit_of_output_and_gradient(shape, dtype):
    plain = ConfigParser({"n": SMALL_NETWORK}).get_parsed_content("n").train()
    spared = spare_padding(spare_padding(copy.deepcopy(plain)))
    image = torch.randn(2, 1, *shape)
    padded = []
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32), count_padding(padded):
        outputs = [plain(image), spared(image)]
    for output in outputs:
        output.float().square().mean().backward()
    assert torch.equal(*outputs)
    gradients = [[p.grad for p in network.parameters()] for network in (plain, spared)]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert len(padded) == 4 + (0 if shape == (16, 32, 48) else 4)


@contextmanager
def count_padding(calls):
    """Note every call of the padding that `spare_padding` is about."""
    pad = torch.nn.functional.pad
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "pad", lambda *given: calls.append(given[1]) or pad(*given))
        yield


def test_detection_runs_the_networks_channels_last_and_without_needless_padding(tmp_path):
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / "inference.json")])
    plain = parser.get_parsed_content("network_def").eval()
    torch.save(plain.state_dict(), tmp_path / "model.pt")
    parser["weights"], parser["device"] = str(tmp_path / "model.pt"), "cpu"
    fast = parser.get_parsed_content("network").eval()
    kernels = [p for p in fast.parameters() if p.ndim == 5 and min(p.shape[:2]) > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last_3d) for p in kernels)
    tile, padded = torch.randn(1, 1, 16, 32, 48), []
    with torch.no_grad(), count_padding(padded):
        found = fast(tile)
    assert padded == []
    with torch.no_grad():
        torch.testing.assert_close(found, plain(tile), rtol=1e-4, atol=1e-5)
