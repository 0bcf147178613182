"""Training that tells classes apart: targets, losses, what is said of the data set, and a run from end to end."""

import json
import logging
import re

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import MetaTensor

from bundle.build import name_channels, training_config
from custom_transforms.class_targets import ClassLabelsd, class_members, class_numbers
from custom_transforms.io import read_tomogram
from custom_transforms.measuring.instance_centers import instance_centers
from custom_transforms.targets import CenterTargetd, center_target, mask_target
from scripts.losses import CenterLoss
from scripts.metrics import CenterF1
from scripts.training_record import describe_training
from tests.conftest import ROOT, VOXEL_SIZE, balls, write_dataset

SHAPE = (20, 26, 34)
LABELS = balls(SHAPE, seed=2, radius=4.0)
OF_LABEL = pd.Series(["a", "b", "c"] * len(LABELS), index=range(1, 3 * len(LABELS) + 1))
GROUPS = {"x": ["b"], "y": ["a"]}


def item(labels, folder, names=OF_LABEL):
    """Labels and their particle table, as a transform gets them."""
    ids = np.unique(labels[labels > 0])
    table = pd.DataFrame({"label": ids, "class": names[ids].to_numpy()})
    table.to_csv(folder / "particles.csv", index=False)
    tensor = MetaTensor(torch.from_numpy(labels[None]), meta={"voxel_size_zyx": np.full(3, VOXEL_SIZE)})
    return {"label": tensor, "particles": str(folder / "particles.csv")}


@pytest.mark.parametrize("kind", ["gaussian", "distance"])
@pytest.mark.parametrize("other", ["background", "ignore"])
def test_a_class_has_the_centers_of_its_own_particles_and_others_are_background_or_ignored(kind, other, tmp_path):
    labels = LABELS.copy()
    labels[:, :5] = -1
    d = ClassLabelsd(classes=GROUPS, other=other)(item(labels, tmp_path))
    target = CenterTargetd(kind=kind, classes=GROUPS)(d)["center"].numpy()
    numbers = d["class"].numpy()[0]
    of_voxel = np.where(labels > 0, OF_LABEL.reindex(np.maximum(labels, 1).ravel()).to_numpy().reshape(SHAPE), "")
    expected = np.where(labels < 0, -1, np.select([of_voxel == "b", of_voxel == "a", of_voxel == "c"], [1, 2, 3], 0))
    assert np.array_equal(numbers, np.where(expected == 3, -1 if other == "ignore" else 3, expected))
    assert np.array_equal(target < 0, np.stack([numbers < 0] * 2)) and target.shape == (2, *SHAPE)
    every = center_target(labels, VOXEL_SIZE, kind)
    for channel, name in enumerate("ba"):
        own, foreign = of_voxel == name, (of_voxel != name) & (of_voxel != "")
        assert own.any() and np.array_equal(target[channel][own], every[own])
        assert (target[channel][foreign] <= 0).all()
    if kind == "gaussian":  # all particles together, where none is of another class
        without = ClassLabelsd(classes={"x": ["a", "b", "c"]})(item(labels, tmp_path))
        np.testing.assert_array_equal(CenterTargetd(classes=["x"])(without)["center"][0], every)


def test_without_classes_the_class_of_a_voxel_is_the_mask():
    labels = torch.from_numpy(LABELS[None]) - (torch.rand(1, *SHAPE) < 0.1).int()
    found = ClassLabelsd()({"label": labels})["class"]
    assert found.dtype == torch.int8 and torch.equal(found, mask_target(labels))


def test_the_loss_of_maps_is_the_mean_of_their_losses_with_the_weights_of_the_highest_target():
    torch.manual_seed(0)
    plain, output, target = CenterLoss(positive_weight=0.0), torch.rand(2, 3, 4, 5, 6), torch.rand(2, 3, 4, 5, 6)
    target[0, :, 0] = -1
    highest = 1 + 7 * target.amax(dim=1, keepdim=True)
    for weights in (None, torch.rand(2, 1, 4, 5, 6)):
        weighted = highest if weights is None else highest * weights
        each = [plain(output[:, k : k + 1], torch.cat([target[:, k : k + 1], weighted], 1)) for k in range(3)]
        given = target if weights is None else torch.cat([target, weights], 1)
        torch.testing.assert_close(CenterLoss(positive_weight=7.0)(output, given), torch.stack(each).mean())


def test_the_validation_score_is_the_mean_over_the_classes(tmp_path):
    d = ClassLabelsd(classes=GROUPS)(item(LABELS, tmp_path))
    target = CenterTargetd(classes=GROUPS)(d)["center"]
    label = MetaTensor(torch.cat([target.as_tensor(), torch.from_numpy(LABELS[None]).float()]), meta=target.meta)

    def score(maps):
        metric = CenterF1(particle_diameter=80.0, threshold=0.5, classes=GROUPS)
        metric([torch.as_tensor(maps)], [label])
        return float(metric.aggregate())

    counts = OF_LABEL[np.unique(LABELS[LABELS > 0])].value_counts()
    perfect = target.as_tensor()
    assert score(perfect) == 1.0
    assert score(torch.stack([perfect[0], perfect[1] * 0])) == pytest.approx(0.5)
    assert score(perfect.flip(0)) == 0.0  # every center in the map of another class
    both = perfect.amax(dim=0)
    recall_one = [2 * counts[n] / (2 * counts[n] + counts[m]) for n, m in (("b", "a"), ("a", "b"))]
    assert score(torch.stack([both, both])) == pytest.approx(np.mean(recall_one))
    assert len(instance_centers(LABELS, VOXEL_SIZE).ids) == counts.sum()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Tomograms of balls of two classes and a third that is rare, as prepare writes them."""
    folder = write_dataset(tmp_path_factory.mktemp("classes"), shape=(24, 48, 56))
    content = json.loads((folder / "dataset.json").read_text())
    for index, one in enumerate([*content["training"], *content["validation"]]):
        labels, _ = read_tomogram(folder / one["label"], check="labels")
        ids = np.unique(labels[labels > 0])
        names = np.where(ids <= 2, "virus", np.where(ids % 2, "ribosome", "proteasome"))
        pd.DataFrame({"label": ids, "class": names}).to_csv(folder / f"particles_{index}.csv", index=False)
        one["particles"] = f"particles_{index}.csv"
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_the_record_names_classes_and_counts_and_warns_of_a_rare_one(dataset, caplog):
    with caplog.at_level(logging.WARNING):
        found = describe_training(dataset, classes={"complex": ["ribosome", "proteasome"], "virus": ["virus"]})
    assert found["classes"] == ["complex", "virus"] and found["class_counts"]["virus"] == 2
    assert found["class_counts"]["complex"] > 5 and found["other"] == "background"
    assert "class virus has 2 particles to train on: expect it to be missed." in caplog.text
    assert "complex has" not in caplog.text and "classes" not in describe_training(dataset)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: class_members(["a", "b", "a"]), "classes: expected each name in one class, got 'a' twice."),
        (lambda: class_members({"x": ["a"], "y": ["a", "b"]}), "got 'a' twice."),
        (lambda: class_members({"x": []}), "got a class without a name of the data set."),
        (lambda: class_members("ribosome"), "expected a list of names, or an object of lists, got 'ribosome'."),
        (lambda: class_numbers(LABELS, OF_LABEL, ["a"], "no"), "other: expected background or ignore, got 'no'."),
        (lambda: ClassLabelsd(other="no"), "other: expected background or ignore, got 'no'."),
        (lambda: ClassLabelsd(classes=["a"])({"label": torch.zeros(1, 2, 3, 4)}), "a particle table that names the"),
    ],
)  # fmt: skip
def test_wrong_classes_say_what_was_expected(act, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        act()


def test_a_class_that_no_tomogram_has_is_refused_with_those_there_are(dataset):
    known = r"got vlp. They have proteasome \(\d+\), ribosome \(\d+\), virus \(2\)."
    with pytest.raises(ValueError, match=known):
        describe_training(dataset, classes=["ribosome", "vlp"])


def test_a_bundles_metadata_names_the_map_of_each_class_and_its_training_config_the_classes():
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text())
    name_channels(metadata, ["ribosome", "vlp"])
    output = metadata["network_data_format"]["outputs"]["pred"]
    names = {"0": "mask logit", "1": "center map of ribosome", "2": "center map of vlp"}
    assert output["num_channels"] == 3 and output["channel_def"] == names
    assert metadata["pred_classes"].endswith("channel 2: center map of vlp")
    network = {"_target_": "torch.nn.Identity"}
    assert training_config(ROOT, network, ["ribosome", "vlp"])["classes"] == ["ribosome", "vlp"]
    assert training_config(ROOT, network)["classes"] is None
