"""What tests of detect share: two tomograms, a tiny network for them, and the command line."""

import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from custom_transforms.io import write_mrc
from scripts.command_line.parser import main
from scripts.networks import MaskAndCenterNet
from tests.conftest import DIAMETER, SMALL_NETWORK, VOXEL_SIZE, balls

NETWORKS = {
    "_target_": "scripts.networks.MaskAndCenterNet",
    "mask_network": SMALL_NETWORK,
    "center_network": SMALL_NETWORK,
}


class Blobs(torch.nn.Module):
    """Stands for trained networks: finds bright blobs of one size by smoothing, with a reach of a few voxels."""

    def forward(self, image):
        smooth = image
        for _ in range(3):
            smooth = torch.nn.functional.avg_pool3d(smooth, 3, 1, 1, count_include_pad=False)
        return torch.cat([12 * (smooth - 0.6), (smooth / 2).clamp(0, 1)], dim=1)


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Two tomograms, weights, and the options that detect them with a tiny network."""
    folder = tmp_path_factory.mktemp("detect")
    for index in range(2):
        labels = balls((24, 48, 56), seed=index)
        noise = np.random.default_rng(index).normal(0, 0.2, labels.shape)
        write_mrc(folder / f"tomogram_{index}.mrc", (noise - (labels > 0)).astype(np.float32), VOXEL_SIZE)
    torch.manual_seed(0)
    network = ConfigParser({"n": NETWORKS}).get_parsed_content("n")
    assert isinstance(network, MaskAndCenterNet)
    torch.save(network.state_dict(), folder / "model.pt")
    options = {
        "network_def": NETWORKS,
        "weights": str(folder / "model.pt"),
        "tile": [32, 32, 32],
        "particle_diameter": DIAMETER,
        "mask_threshold": 0.45,
        "center_threshold": 0.01,
        "min_size": 1.0,
        "device": "cpu",
        "progress": False,
    }
    return folder, options


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def command(setting, tmp_path, capsys):
    folder, options = setting
    config = tmp_path / "settings.json"
    config.write_text(json.dumps({key: options[key] for key in ("network_def", "tile", "min_size", "mask_threshold")}))

    def call(*arguments):
        common = ["--weights", options["weights"], "--config", str(config), "--output_dir", str(tmp_path / "2024_01")]
        code = main(["detect", *map(str, arguments), *common, "--particle_diameter", str(DIAMETER), "--device", "cpu"])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call
