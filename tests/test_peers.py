"""The comparison with other methods: each finds what is plain to see and is scored as `evaluate` scores."""

import json
import sys

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from custom_transforms.io import write_mrc
from scripts.detection.detector import Detector
from scripts.evaluation.sides import Side
from tests.benchmarks.peers import __main__ as peers
from tests.benchmarks.peers.methods import Volume, all_methods, radial_template
from tests.conftest import SMALL_NETWORK, VOXEL_SIZE, write_dataset

CENTERS = np.array([[12, 12, 12], [11, 34, 20], [13, 20, 44], [12, 36, 50]])
RADIUS = 6
NETWORKS = {
    "_target_": "scripts.networks.MaskAndCenterNet",
    "mask_network": SMALL_NETWORK,
    "center_network": SMALL_NETWORK,
}
# stands in for StarDist's Python: components of what is bright
FAKE_STARDIST = """#!{python}
import sys
import numpy as np
from scipy.ndimage import center_of_mass, gaussian_filter, label
given = dict(zip(sys.argv[3::2], sys.argv[4::2]))
if not given["--model"].endswith("model"):
    sys.exit("no such model")
labels, n = label(gaussian_filter(np.load(given["--images"]), 1) > 1)
centers = np.round(center_of_mass(labels > 0, labels, np.arange(1, n + 1))).reshape(-1, 3)
np.savez(given["--output"] + "/image.npz", labels=labels, centers=centers, prob=1 - 0.1 * np.arange(n))
"""


def distance_to(center, shape):
    return np.sqrt(((np.stack(np.mgrid[: shape[0], : shape[1], : shape[2]], axis=-1) - center) ** 2).sum(-1))


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """A detector with untrained networks, its options, and a map of the ball."""
    folder = tmp_path_factory.mktemp("peers")
    torch.manual_seed(0)
    torch.save(ConfigParser({"n": NETWORKS}).get_parsed_content("n").state_dict(), folder / "model.pt")
    write_mrc(folder / "ball.mrc", (distance_to(12, (25, 25, 25)) < RADIUS).astype(np.float32), VOXEL_SIZE)
    options = {"network_def": NETWORKS, "tile": [32, 32, 32], "device": "cpu", "particle_diameter": 120}
    return folder, options, Detector({**options, "weights": str(folder / "model.pt"), "progress": False})


@pytest.fixture(scope="module")
def stardist(tmp_path_factory):
    """A Python that stands in for StarDist's, and a model."""
    folder = tmp_path_factory.mktemp("stardist")
    (folder / "python").write_text(FAKE_STARDIST.format(python=sys.executable))
    (folder / "python").chmod(0o755)
    return folder / "python", folder / "model"


@pytest.fixture(scope="module")
def sample(setting):
    """Four balls in a volume of 24 x 48 x 60: noisy image, maps as good networks would give them, truth."""
    labels = np.zeros((24, 48, 60), np.int32)
    near = np.stack([distance_to(center, labels.shape) for center in CENTERS])
    labels[near.min(0) < RADIUS] = near.argmin(0)[near.min(0) < RADIUS] + 1
    image = gaussian_filter((labels > 0).astype(np.float32), 1)
    image += np.random.default_rng(0).normal(0, 0.2, labels.shape)
    image = (image - image.mean()) / image.std()
    pred = np.stack([8 * gaussian_filter((labels > 0).astype(float), 0.7) - 4, np.exp(-(near.min(0) ** 2) / 18)])
    meta = {"voxel_size_zyx": np.full(3, VOXEL_SIZE)}
    data = {"image": MetaTensor(torch.tensor(image[None], dtype=torch.float32), meta=meta)}
    data["pred"] = MetaTensor(torch.tensor(pred, dtype=torch.float32), meta=meta)
    return Volume(setting[2].split(data), meta["voxel_size_zyx"]), Side(labels, None, meta["voxel_size_zyx"])


@pytest.mark.parametrize("name", peers.NAMES)
def test_every_method_finds_bright_balls_and_is_calibrated_by_the_score_that_evaluate_gives(
    name, setting, stardist, sample
):
    folder, _, detector = setting
    method = all_methods(detector, [folder / "ball.mrc"], stardist)[name]
    with peers.tqdm(disable=True) as progress:
        chosen = peers.calibrate(method, [sample], progress)
    found = next(iter(method.find(sample[0], [chosen["params"]]))).above(chosen["cutoff"])
    assert len(found.centers_zyx_vox) == len(CENTERS)
    offset = np.linalg.norm(found.centers_zyx_vox[:, None] - CENTERS, axis=-1)
    assert sorted(offset.argmin(1)) == [0, 1, 2, 3] and offset.min(1).max() < 2
    score = peers.judge([(found, *sample)], seconds=3.0)
    assert score["f1"] == chosen["f1"] == 1 and score["seconds"] == 3
    assert score["merged_rate"] == (None if name in ("blobs", "templates") else 0)


def test_a_cutoff_drops_small_components_and_renumbers_the_others():
    probability = np.zeros((1, 12, 20, 28), np.float32)
    probability[0, 2:4, 2:4, 2:4] = probability[0, 6:11, 3:8, 5:12] = probability[0, 2:8, 12:18, 20:26] = 0.9
    volume = Volume({"probability": probability}, np.full(3, VOXEL_SIZE))
    found = next(iter(all_methods(None, [])["components"].find(volume, [{"mask_threshold": 0.5}])))
    assert sorted(found.score) == [8e3, 175e3, 216e3]
    kept = found.above(1e4)
    assert set(np.unique(kept.labels)) == {0, 1, 2}
    for row, center in enumerate(kept.centers_zyx_vox, 1):
        np.testing.assert_allclose(np.argwhere(kept.labels == row).mean(0), center)


def test_mean_shift_separates_touching_balls_that_are_one_component():
    centers = np.array([[10, 12, 10], [10, 14, 21]])
    mask = np.minimum(*(distance_to(center, (20, 26, 32)) for center in centers)) < RADIUS
    volume = Volume({"probability": mask[None].astype(np.float32)}, np.full(3, VOXEL_SIZE))
    methods = all_methods(None, [])
    assert len(next(iter(methods["components"].find(volume, [{"mask_threshold": 0.5}]))).score) == 1
    found = next(iter(methods["mean_shift"].find(volume, [{"mask_threshold": 0.5, "bandwidth": 50.0}])))
    np.testing.assert_allclose(sorted(found.centers_zyx_vox.tolist(), key=lambda c: c[2]), centers, atol=1)
    assert found.score.sum() == mask.sum() * VOXEL_SIZE**3


def test_a_template_is_round_on_the_grid_of_the_tomogram():
    density = np.zeros((15, 15, 15), np.float32)
    density[5:10, 6:9, 7] = 1  # at 20 Å per voxel
    template = radial_template(density, 20.0, np.array([20.0, 10.0, 10.0]))
    middle = tuple(n // 2 for n in template.shape)
    assert template.shape[1] > template.shape[0] and template[middle] == template.max() == 1
    np.testing.assert_allclose(template, template[::-1, ::-1, ::-1])
    np.testing.assert_allclose(template[middle[0]], template[middle[0]].T)
    assert template[0, 0, 0] == 0


def test_what_stardist_wrote_comes_through_and_its_centers_are_points_or_centroids(stardist, sample):
    grid = [{"center": "point"}, {"center": "centroid"}]
    points, centroids = all_methods(None, [], stardist)["stardist"].find(sample[0], grid)
    assert points.score == pytest.approx([1.0, 0.9, 0.8, 0.7])
    assert (points.centers_zyx_vox == np.round(points.centers_zyx_vox)).all()
    for row, (point, centroid) in enumerate(zip(points.centers_zyx_vox, centroids.centers_zyx_vox, strict=True), 1):
        np.testing.assert_allclose(np.argwhere(points.labels == row).mean(0), centroid)
        assert 0 < np.abs(point - centroid).max() <= 0.5
    assert set(np.unique(points.above(0.75).labels)) == {0, 1, 2, 3}


def test_stardist_that_fails_says_why(stardist, sample, tmp_path):
    method = all_methods(None, [], (stardist[0], tmp_path / "nothing"))["stardist"]
    with pytest.raises(RuntimeError, match="(?s)expected StarDist to predict, it ended with 1.*no such model"):
        list(method.find(sample[0], method.grid))
    assert "stardist" not in all_methods(None, [])
    with pytest.raises(ValueError, match="Give --stardist_python and --stardist_model"):
        peers.main(tmp_path, None, tmp_path / "scores.json", ["easy"], ["stardist"])


@pytest.mark.slow
def test_a_finished_scene_is_kept_and_other_weights_are_refused(setting, tmp_path, capsys, monkeypatch):
    folder, options, _ = setting
    write_dataset(tmp_path)
    write_dataset(tmp_path / "test_easy")
    output, names = tmp_path / "scores.json", ["components", "blobs"]
    arguments = (tmp_path, None, output, ["easy"], names, folder / "model.pt")
    first = peers.main(*arguments, **options)
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "| scene | components | blobs |" and table[2].startswith("| easy | 0.")
    assert json.loads(output.read_text())["scenes"]["easy"].keys() == set(names)
    with monkeypatch.context() as patch:
        patch.setattr(peers, "load", None)  # nothing is read again
        assert peers.main(*arguments, **options)["scenes"] == json.loads(output.read_text())["scenes"]
    torch.save({}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="expected components made with the same weights, config and maps"):
        peers.main(*arguments[:-1], tmp_path / "other.pt", **options)
    again = peers.main(*arguments, overwrite=True, **options)
    assert again["scenes"]["easy"]["blobs"]["f1"] == first["scenes"]["easy"]["blobs"]["f1"]
