"""scripts.metrics inside MONAI's engines: what from_engine delivers, ignored voxels, pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator

from scripts.metrics import CenterF1, InstanceMetrics, MaskDice, NamedMetricsHandler

SHAPE = (12, 20, 28)


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Three particles of 50 Å and an ignored corner; peaks on two of them, one in the corner, one in the void."""
    labels = np.zeros((1, *SHAPE), np.int16)
    labels[0, 2:7, 2:7, 2:7], labels[0, 4:9, 10:15, 18:23], labels[0, 2:7, 2:7, 12:17] = 1, 2, 3
    labels[0, :3, 15:, :5] = -1
    centers = np.zeros((1, *SHAPE), np.float32)
    for place, height in (
        ((4, 4, 4), 0.9),
        ((6, 12, 20), 1.3),
        ((1, 17, 2), 0.7),
        ((10, 2, 25), 0.6),
        ((4, 4, 14), 0.2),
    ):
        centers[(0, *place)] = height
    return torch.from_numpy(centers), torch.from_numpy(labels)


def run_engine(metric: dict, pred: torch.Tensor, label: torch.Tensor, decollate: bool = True, handler=None) -> dict:
    """Two volumes with metadata through a SupervisedEvaluator, wired as a config does it."""
    meta = {"voxel_size_zyx": np.array([10.0, 10.0, 10.0])}
    item = {"image": MetaTensor(pred, meta=dict(meta)), "label": MetaTensor(label, meta=dict(meta))}
    config = {
        "handler": {
            "_target_": handler or "monai.handlers.IgniteMetricHandler",
            "metric_fn": metric,
            "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
        }
    }
    parser = ConfigParser(config, globals={"monai": "monai"})
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([item, item]), batch_size=2),
        network=torch.nn.Identity(),
        key_val_metric={"key": parser.get_parsed_content("handler")},
        decollate=decollate,
    )
    engine.run()
    return engine.state.metrics


@pytest.mark.parametrize("decollate", [True, False])
def test_center_f1_from_a_config_reads_the_voxel_size_from_the_metadata(decollate):
    metric = {"_target_": "scripts.metrics.CenterF1", "threshold": 0.3, "particle_diameter": 50.0}
    metrics = run_engine(metric, *scene(), decollate=decollate)
    # each volume: 2 found, 1 extra in the void, 1 missed; the peak in the ignored corner does not count
    assert metrics["key"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


def test_center_f1_takes_the_last_channel_and_pools_volumes_before_dividing():
    pred, label = scene()
    metric = CenterF1(50.0, voxel_size=10.0, metric_name=["f1", "precision", "recall"])
    metric(y_pred=torch.stack([torch.cat([torch.ones_like(pred), pred])]), y=label[None])
    metric(y_pred=[torch.zeros_like(pred)], y=[label])
    assert [float(v) for v in metric.aggregate()] == pytest.approx([4 / (4 + 1 + 4), 2 / 3, 2 / 6])
    assert metric.get_buffer().tolist() == [[2, 1, 1], [0, 0, 3]]


def test_center_f1_of_a_perfect_target_is_one():
    from custom_transforms.targets import center_target

    _, label = scene()
    metric = CenterF1(62.0, voxel_size=10.0)
    metric(y_pred=[center_target(label, 10.0)], y=[label])
    assert float(metric.aggregate()) == 1.0


def test_without_any_voxel_size_the_error_says_how_to_give_one():
    with pytest.raises(ValueError, match="labels without 'voxel_size_zyx' .* give voxel_size"):
        CenterF1(50.0)([scene()[0]], [scene()[1]])


@pytest.mark.parametrize("logits", [True, False])
def test_mask_dice_skips_ignored_voxels(logits):
    _, label = scene()
    probability = (label > 0).float() * 0.8 + 0.1
    probability[label == 3] = 0.1  # a third of the particle voxels is missed
    probability[label == -1] = 0.9  # wrong, but ignored
    metric = MaskDice(threshold=0.5, logits=logits)
    metric(y_pred=[torch.logit(probability) if logits else probability], y=[label])
    assert float(metric.aggregate()) == pytest.approx(2 * 250 / (250 + 375))


def test_mask_dice_equals_monai_where_nothing_is_ignored():
    from monai.metrics import DiceMetric

    rng = np.random.default_rng(0)
    logit = torch.from_numpy(rng.normal(size=(1, 1, *SHAPE)).astype(np.float32))
    mask = torch.from_numpy((rng.random((1, 1, *SHAPE)) < 0.3).astype(np.int8))
    ours = MaskDice()
    ours(logit, mask)
    expected = DiceMetric()((logit > 0).float(), mask.float())
    assert float(ours.aggregate()) == pytest.approx(float(expected))


def test_instance_metrics_put_every_name_into_the_engine_state():
    _, label = scene()
    predicted = label.clone().int()
    predicted[label == 3] = 1  # merged with its neighbour
    metrics = run_engine(
        {"_target_": "scripts.metrics.InstanceMetrics"}, predicted, label, handler="scripts.metrics.NamedMetricsHandler"
    )
    assert metrics["key"] == metrics["f1"] == pytest.approx(2 * 1 / (3 + 2))
    assert (metrics["recall"], metrics["precision"], metrics["merged_rate"]) == pytest.approx((1 / 3, 1 / 2, 2 / 3))
    assert metrics["panoptic_quality"] == pytest.approx(2 * 1.0 / (3 + 2))
    assert NamedMetricsHandler.__mro__[1].__name__ == "IgniteMetricHandler"


def test_unknown_names_and_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="metric_name: expected one or more of f1, precision, .* got 'dice'"):
        InstanceMetrics(metric_name="dice")
    with pytest.raises(ValueError, match=r"over the same voxels, got \(1, 1, 3, 4, 5\) and \(1, 1, 3, 4, 6\)"):
        MaskDice()(torch.zeros(1, 1, 3, 4, 5), torch.zeros(1, 1, 3, 4, 6))
    with pytest.raises(ValueError, match="has seen no volume yet"):
        MaskDice().aggregate()
