"""Losses that skip ignored voxels: wherever the target is negative, the prediction does not count.

MONAI 1.6 has ``ignore_index`` in `DiceLoss` but not in `DiceCELoss`, and `MaskedLoss` multiplies the
logits by the mask, which leaves log(2) of cross-entropy in every ignored voxel.
"""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from monai.losses import DiceLoss
from torch import nn
from torch.nn import functional

__all__ = ["CenterLoss", "JointLoss", "MaskLoss"]

IGNORED = -1.0
CENTER_KINDS = ("mse", "smooth_l1")
NEAR_CENTER = 0.5  # of the target, from where on a voxel has a class
SHARPNESS = 10.0  # a map higher by 1 than the others makes their class exp(10) times as likely


class MaskLoss(nn.Module):
    """Dice plus binary cross-entropy of one logit channel.

    Equal to ``monai.losses.DiceCELoss(sigmoid=True)`` when no voxel is ignored. The Dice part is
    computed per batch item and averaged, cross-entropy over all voxels that are not ignored. A batch
    that is ignored altogether gives 0, with a gradient of 0. Computed in float32 under any autocast.

    Parameters
    ----------
    lambda_dice, lambda_ce : float
        Weights of the two parts; both >= 0.
    batch : bool
        Sum the Dice overlap over the batch before dividing: crops without a particle then do not
        push the Dice part to 1 by a handful of false voxels.
    smooth : float
        Added to numerator and denominator of the Dice part; > 0.

    Examples
    --------
    >>> target = torch.tensor([1.0, 0.0, -1.0, -1.0]).reshape(1, 1, 1, 2, 2)
    >>> logits = torch.tensor([30.0, -30.0, 5.0, -5.0]).reshape(1, 1, 1, 2, 2)
    >>> round(MaskLoss()(logits, target).item(), 4)
    0.0
    """

    def __init__(
        self, lambda_dice: float = 1.0, lambda_ce: float = 1.0, batch: bool = False, smooth: float = 1e-5
    ) -> None:
        super().__init__()
        if lambda_dice < 0 or lambda_ce < 0:
            raise ValueError(f"lambda_dice and lambda_ce: expected numbers >= 0, got {lambda_dice} and {lambda_ce}.")
        if smooth <= 0:
            raise ValueError(f"smooth: expected a number above 0 (an empty crop divides by it), got {smooth}.")
        self.lambda_dice = float(lambda_dice)
        self.lambda_ce = float(lambda_ce)
        self.dice = DiceLoss(
            sigmoid=True, ignore_index=int(IGNORED), batch=batch, smooth_nr=float(smooth), smooth_dr=float(smooth)
        )

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Take logits and a target (B, 1, Z, Y, X), 1 particle, 0 background, negative ignored; of any number type."""
        logits, truth, valid = _prepare(input, target)
        with torch.autocast(logits.device.type, enabled=False):
            cross_entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
            cross_entropy = (cross_entropy * valid).sum() / valid.sum().clamp(min=1.0)
            dice = self.dice(logits, torch.where(valid > 0, truth, IGNORED))
        return self.lambda_dice * dice + self.lambda_ce * cross_entropy


class CenterLoss(nn.Module):
    """Weighted regression of the center map.

    Every voxel weighs ``1 + positive_weight * target``, so that the few voxels near a center count
    against the many far from any. The result is the weighted **mean** of the error, the sum of
    weight times error over the sum of the weights: its size stays that of one voxel's error whatever
    the weight, the crop or the number of ignored voxels. All voxels ignored: 0, with a gradient of 0.
    One more channel of the target, as `CenterTargetd` makes with ``balance_voxels``, multiplies the weights.
    Of several maps, one for each class, the loss is the mean of their losses: a rare class counts as much as others.
    Their voxels weigh by the highest of the targets: near a center of one class the 0 of the others counts as much as
    its own 1, or classes that look alike would all come out high at both.
    Computed in float32 under any autocast.

    Parameters
    ----------
    positive_weight : float
        Extra weight of a voxel whose target is 1; >= 0. With 0 and ``kind="mse"`` this is the plain
        mean squared error that the original used.
    kind : {"mse", "smooth_l1"}
        Squared error, or 0.5 e^2 / beta below ``beta`` and |e| - 0.5 beta above, which lets a wrongly
        annotated particle pull less.
    beta : float
        Where ``smooth_l1`` turns from squared to linear; > 0.
    class_weight : float
        Of several maps, what the cross-entropy of the class adds near the centers; >= 0. Their squared error hardly
        falls by telling apart classes that look alike, this does.

    Examples
    --------
    >>> target = torch.tensor([1.0, 0.0, -1.0, -1.0]).reshape(1, 1, 1, 2, 2)
    >>> round(CenterLoss(positive_weight=3.0)(torch.zeros(1, 1, 1, 2, 2), target).item(), 4)
    0.8
    """

    def __init__(
        self, positive_weight: float = 10.0, kind: str = "mse", beta: float = 0.1, class_weight: float = 0.0
    ) -> None:
        super().__init__()
        if kind not in CENTER_KINDS:
            raise ValueError(f"kind: expected one of {', '.join(CENTER_KINDS)}, got {kind!r}.")
        if positive_weight < 0:
            raise ValueError(f"positive_weight: expected a number >= 0, got {positive_weight}.")
        if beta <= 0:
            raise ValueError(f"beta: expected a number above 0, got {beta}.")
        if class_weight < 0:
            raise ValueError(f"class_weight: expected a number >= 0, got {class_weight}.")
        self.positive_weight = float(positive_weight)
        self.kind = kind
        self.beta = float(beta)
        self.class_weight = float(class_weight)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Take center maps (B, C, Z, Y, X) and their targets: 0 to 1, negative where ignored; then weights, if any."""
        count = input.shape[1] if input.ndim > 2 else 1
        weights = target[:, count:] if target.ndim > 2 and target.shape[1] == count + 1 else None
        prediction, truth, valid = _prepare(input, target if weights is None else target[:, :count], count)
        with torch.autocast(prediction.device.type, enabled=False):
            if self.kind == "mse":
                error = functional.mse_loss(prediction, truth, reduction="none")
            else:
                error = functional.smooth_l1_loss(prediction, truth, reduction="none", beta=self.beta)
            weight = valid * (1.0 + self.positive_weight * truth.amax(dim=1, keepdim=True))
            if weights is not None:
                weight = weight * (weights.as_tensor() if isinstance(weights, MetaTensor) else weights).to(weight)
            parts = zip(weight.split(1, dim=1), error.split(1, dim=1), strict=True)
            regression = torch.stack([(w * e).sum() / w.sum().clamp(min=1.0) for w, e in parts]).mean()
            if not self.class_weight or count == 1:
                return regression
            return regression + self.class_weight * _class_entropy(prediction, truth, weight)


class JointLoss(nn.Module):
    """The losses of both targets, for one network with two outputs: mask loss plus ``center_weight`` times center loss.

    Parameters
    ----------
    mask_loss, center_loss : nn.Module
        Of channel 0 (mask logit) and channel 1 (center map).
    center_weight : float
        > 0.

    Examples
    --------
    >>> output, target = torch.zeros(1, 2, 1, 2, 2), torch.ones(1, 2, 1, 2, 2)
    >>> loss = JointLoss(MaskLoss(lambda_dice=0), CenterLoss(), center_weight=10)
    >>> round(loss(output, target).item(), 3)  # log(2) + 10
    10.693
    """

    def __init__(self, mask_loss: nn.Module, center_loss: nn.Module, center_weight: float = 10.0) -> None:
        super().__init__()
        if center_weight <= 0:
            raise ValueError(f"center_weight: expected a number above 0, got {center_weight}.")
        self.mask_loss = mask_loss
        self.center_loss = center_loss
        self.center_weight = float(center_weight)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Take (B, 1 + classes, Z, Y, X), and the targets in that order; weights of `CenterLoss` may follow."""
        if input.ndim < 3 or input.shape[1] < 2:
            raise ValueError(
                f"JointLoss: expected an output (B, 2, Z, Y, X), mask logit and center map, got {tuple(input.shape)}. "
                "Use a network_def with out_channels 2."
            )
        mask, center = self.mask_loss(input[:, :1], target[:, :1]), self.center_loss(input[:, 1:], target[:, 1:])
        return mask + self.center_weight * center


def _class_entropy(prediction: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean of the cross-entropy of the class, (B, C, Z, Y, X), where a particle of a class has its center."""
    near = truth.amax(dim=1) > NEAR_CENTER
    logits = SHARPNESS * prediction.movedim(1, -1)[near]
    entropy = functional.cross_entropy(logits, truth.argmax(dim=1)[near], reduction="none")
    counts = weight.amax(dim=1)[near]
    return (counts * entropy).sum() / counts.sum().clamp(min=1.0)


def _prepare(
    input: torch.Tensor, target: torch.Tensor, channels: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prediction and target as plain float32, 0 where ignored (NaN there must not spread), and the 0/1 mask."""
    if input.shape != target.shape or input.ndim < 3 or input.shape[1] != channels:
        raise ValueError(
            f"loss: expected a prediction and a target of one shape (B, {channels}, Z, Y, X), "
            f"got {tuple(input.shape)} and {tuple(target.shape)}. Use a network with one output channel."
        )
    prediction = (input.as_tensor() if isinstance(input, MetaTensor) else input).float()
    truth = (target.as_tensor() if isinstance(target, MetaTensor) else target).to(prediction)
    valid = truth >= 0
    zero = torch.zeros((), device=prediction.device)
    return torch.where(valid, prediction, zero), torch.where(valid, truth, zero), valid.float()
