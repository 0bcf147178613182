"""Losses: equal to MONAI's where nothing is ignored, exact by hand where something is."""

import math

import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DiceCELoss

from scripts.losses import CenterLoss, JointLoss, MaskLoss

SHAPE = (2, 1, 6, 8, 10)


def _batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(SHAPE, generator=generator)
    return logits, (torch.rand(SHAPE, generator=generator) > 0.7).float()


def _volume(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 1, 1, 1, len(values))


@pytest.mark.parametrize("batch", [False, True])
def test_mask_loss_equals_dice_ce_of_monai_when_nothing_is_ignored(batch):
    logits, target = _batch()
    expected = DiceCELoss(sigmoid=True, batch=batch, lambda_dice=0.7, lambda_ce=1.3)(logits, target)
    actual = MaskLoss(lambda_dice=0.7, lambda_ce=1.3, batch=batch)(logits, target.to(torch.int8))
    torch.testing.assert_close(actual, expected)


def test_mask_loss_skips_ignored_voxels_exactly_as_by_hand():
    logits = _volume(0.0, math.log(3.0), 4.0)  # probabilities 1/2, 3/4 and one that is ignored
    target = _volume(1.0, 0.0, -1.0)
    cross_entropy = (math.log(2.0) + math.log(4.0)) / 2
    dice = 1 - 2 * 0.5 / (0.5 + 0.75 + 1.0)
    assert MaskLoss(smooth=1e-8)(logits, target).item() == pytest.approx(cross_entropy + dice, abs=1e-6)
    counted = MaskLoss(smooth=1e-8)(logits, _volume(1.0, 0.0, 0.0)).item()
    extra = math.log1p(math.exp(4.0))
    probability = 1 / (1 + math.exp(-4.0))
    expected = (math.log(2.0) + math.log(4.0) + extra) / 3 + 1 - 1 / (2.25 + probability)
    assert counted == pytest.approx(expected, abs=1e-6)


def test_center_loss_skips_ignored_voxels_exactly_as_by_hand():
    prediction, target = _volume(0.5, 0.25, 0.9), _volume(1.0, 0.0, -1.0)
    # weights 1 + 4 * 1 = 5 and 1; squared errors 0.25 and 0.0625
    assert CenterLoss(4.0)(prediction, target).item() == pytest.approx((5 * 0.25 + 0.0625) / 6, abs=1e-7)
    counted = CenterLoss(4.0)(prediction, _volume(1.0, 0.0, 0.0)).item()
    assert counted == pytest.approx((5 * 0.25 + 0.0625 + 0.81) / 7, abs=1e-7)


def test_a_second_channel_of_the_center_target_holds_weights():
    prediction = _volume(0.5, 0.25, 0.9)
    target = torch.cat([_volume(1.0, 0.0, -1.0), _volume(0.5, 1.0, 1.0)], dim=1)
    assert CenterLoss(4.0)(prediction, target).item() == pytest.approx((2.5 * 0.25 + 0.0625) / 3.5, abs=1e-7)
    even = torch.cat([_volume(1.0, 0.0, -1.0), _volume(1.0, 1.0, 1.0)], dim=1)
    assert CenterLoss(4.0)(prediction, even).item() == CenterLoss(4.0)(prediction, even[:, :1]).item()


def test_near_a_center_of_one_class_the_zero_of_the_others_counts_as_much():
    """Classes that look alike would otherwise both come out high at either."""
    target = torch.zeros(1, 2, 3, 4, 5)
    target[0, 0, 1, 1, 1] = target[0, 1, 2, 2, 2] = 1.0
    missed, confused = target.clone(), target.clone()
    missed[0, 0, 1, 1, 1] = 0.0
    confused[0, 0, 2, 2, 2] = 1.0
    loss = CenterLoss(positive_weight=20.0)
    assert loss(confused, target).item() == pytest.approx(loss(missed, target).item())
    weight = 1 + 20 * target.amax(dim=1)
    assert loss(confused, target).item() == pytest.approx(0.5 * 21 / weight.sum().item())


def test_class_weight_adds_the_cross_entropy_of_the_class_where_a_center_is_near():
    generator = torch.Generator().manual_seed(2)
    prediction = torch.rand(2, 3, 3, 4, 5, generator=generator)
    target = torch.rand(2, 4, 3, 4, 5, generator=generator)  # the last channel holds weights
    target[:, :3] *= torch.rand(2, 1, 3, 4, 5, generator=generator)
    target[0, :3, 0] = -1
    prediction[0, :, 0] = float("nan")
    total, weights = 0.0, 0.0
    for item, z, y, x in torch.cartesian_prod(*map(torch.arange, (2, 3, 4, 5))).tolist():
        truth, maps = target[item, :3, z, y, x], prediction[item, :, z, y, x].double()
        if truth.max() > 0.5:
            weight = (1 + 4 * truth.max()) * target[item, 3, z, y, x]
            total += weight * (torch.logsumexp(10 * maps, 0) - 10 * maps[truth.argmax()])
            weights += weight
    assert weights > 20
    more = CenterLoss(4.0, class_weight=0.3)(prediction, target) - CenterLoss(4.0)(prediction, target)
    assert more.item() == pytest.approx(0.3 * (total / weights).item(), rel=1e-4)


def test_class_weight_changes_nothing_where_there_is_one_map_or_no_center():
    prediction, target = _batch()
    assert CenterLoss(class_weight=1.0)(prediction, target).item() == CenterLoss()(prediction, target).item()
    far = torch.full((1, 2, 3, 4, 5), 0.4)
    assert CenterLoss(class_weight=1.0)(1 - far, far).item() == CenterLoss()(1 - far, far).item()


def test_center_loss_without_weight_is_the_plain_mean_squared_error():
    prediction, target = _batch()
    torch.testing.assert_close(CenterLoss(0.0)(prediction, target), torch.nn.functional.mse_loss(prediction, target))


def test_smooth_l1_is_linear_beyond_beta():
    loss = CenterLoss(0.0, kind="smooth_l1", beta=0.5)
    assert loss(_volume(2.0, 0.25), _volume(0.0, 0.0)).item() == pytest.approx((1.75 + 0.0625) / 2)


@pytest.mark.parametrize("loss", [MaskLoss(), MaskLoss(batch=True), CenterLoss(), CenterLoss(kind="smooth_l1")])
def test_ignored_voxels_get_no_gradient_whatever_they_hold(loss):
    logits, target = _batch()
    target[:, :, :2] = -1
    logits[:, :, 0] = float("nan")
    logits[:, :, 1] = float("inf")
    logits.requires_grad_()
    value = loss(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.isfinite(value) and value > 0
    assert (gradient[:, :, :2] == 0).all()
    assert (gradient[:, :, 2:] != 0).any()


@pytest.mark.parametrize("loss", [MaskLoss(), CenterLoss(), CenterLoss(kind="smooth_l1")])
def test_a_batch_that_is_ignored_altogether_gives_zero_with_a_gradient(loss):
    logits = _batch()[0].requires_grad_()
    value = loss(logits, torch.full(SHAPE, -1, dtype=torch.int8))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == 0.0
    assert not gradient.any()


@pytest.mark.parametrize("loss", [MaskLoss(), CenterLoss()])
def test_autocast_and_half_inputs_are_computed_in_float32(loss):
    logits, target = _batch()
    target[:, :, 0] = -1
    half = logits.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, target.to(torch.float16))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(half.float(), target))


@pytest.mark.parametrize("loss", [MaskLoss(), CenterLoss()])
def test_losses_leave_their_inputs_untouched_and_return_a_plain_tensor(loss):
    logits, target = _batch()
    target[0] = -1
    before = logits.clone(), target.clone()
    value = loss(MetaTensor(logits), MetaTensor(target))
    assert type(value) is torch.Tensor
    assert torch.equal(logits, before[0]) and torch.equal(target, before[1])


@pytest.mark.parametrize("loss", [MaskLoss(), CenterLoss()])
def test_shapes_that_do_not_fit_are_named(loss):
    with pytest.raises(ValueError, match=r"one shape \(B, 1, Z, Y, X\), got \(2, 1, 6, 8, 10\) and \(2, 6, 8, 10\)"):
        loss(torch.zeros(SHAPE), torch.zeros(2, 6, 8, 10))
    with pytest.raises(ValueError, match="one output channel"):
        MaskLoss()(torch.zeros(2, 2, 4, 4, 4), torch.zeros(2, 2, 4, 4, 4))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CenterLoss(kind="focal"), "kind: expected one of mse, smooth_l1, got 'focal'"),
        (lambda: CenterLoss(-1.0), "positive_weight: expected a number >= 0, got -1.0"),
        (lambda: CenterLoss(beta=0.0), "beta: expected a number above 0, got 0.0"),
        (lambda: CenterLoss(class_weight=-0.1), "class_weight: expected a number >= 0, got -0.1"),
        (lambda: MaskLoss(lambda_ce=-1.0), "expected numbers >= 0, got 1.0 and -1.0"),
        (lambda: MaskLoss(smooth=0.0), "smooth: expected a number above 0"),
    ],
)
def test_settings_out_of_range_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_joint_loss_is_the_sum_of_both_and_wants_two_channels():
    generator = torch.Generator().manual_seed(1)
    output, mask = torch.randn(2, 2, 4, 5, 6, generator=generator), (torch.rand(2, 1, 4, 5, 6) > 0.5).float()
    center = torch.rand(2, 2, 4, 5, 6, generator=generator)  # the second channel holds weights
    loss = JointLoss(MaskLoss(), CenterLoss(3.0), center_weight=7.0)(output, torch.cat([mask, center], dim=1))
    expected = MaskLoss()(output[:, :1], mask) + 7 * CenterLoss(3.0)(output[:, 1:], center)
    torch.testing.assert_close(loss, expected)
    with pytest.raises(ValueError, match=r"expected an output \(B, 2, Z, Y, X\).*out_channels 2"):
        JointLoss(MaskLoss(), CenterLoss())(output[:, :1], mask)
    with pytest.raises(ValueError, match="center_weight: expected a number above 0, got 0"):
        JointLoss(MaskLoss(), CenterLoss(), center_weight=0)
