"""Metrics for MONAI engines: center F1 and mask Dice during training, instance scores during evaluation.

Each takes what ``monai.handlers.from_engine`` delivers, a list of channel-first MetaTensors per batch (or one
batch-first tensor), keeps a few counts per volume, and adds the counts up over volumes and ranks before dividing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric

from custom_transforms.files.whole_files import atomic_path
from custom_transforms.labelling.refine import refine_seeds
from custom_transforms.labelling.seeds import find_seeds
from custom_transforms.measuring.instance_centers import InstanceCenters, instance_boxes, instance_centers
from custom_transforms.units import ParticleSizes, as_voxel_size_zyx, voxel_zyx_to_angstrom_xyz
from scripts.matching.overlap import overlap_table
from scripts.matching.points import match_points, match_radius
from scripts.matching.scores import f_beta, ratio
from scripts.matching.volumes import judge_volumes, volume_counts, volume_scores

__all__ = ["CenterF1", "InstanceMetrics", "MaskDice", "NamedMetricsHandler", "SaveMetrics"]

IGNORE = -1


class _PooledMetric(CumulativeIterationMetric):
    """Counts per volume, pooled: a volume with many particles weighs more than one with few.

    ``aggregate`` gives one 0-dimensional tensor for one name, a list of them for several.
    """

    names: tuple[str, ...] = ()

    def __init__(self, metric_name: str | Sequence[str]) -> None:
        super().__init__()
        self.metric_name = [metric_name] if isinstance(metric_name, str) else list(metric_name)
        unknown = [name for name in self.metric_name if name not in self.names]
        if unknown or not self.metric_name:
            raise ValueError(f"metric_name: expected one or more of {', '.join(self.names)}, got {metric_name!r}")

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None:
            raise ValueError(f"{type(self).__name__}: expected predictions and labels, got no labels")
        if y_pred.ndim != 5 or y.ndim != 5 or y_pred.shape[2:] != y.shape[2:] or len(y_pred) != len(y):
            raise ValueError(
                f"{type(self).__name__}: expected predictions and labels of shapes (B, C, Z, Y, X) and (B, 1, Z, Y, X) "
                f"over the same voxels, got {tuple(y_pred.shape)} and {tuple(y.shape)}"
            )
        counts = [self._count(y_pred[i], y[i], _voxel_size(y, i, _voxel_size(y_pred, i))) for i in range(len(y))]
        return torch.as_tensor(np.asarray(counts, np.float64))

    def _count(self, pred: torch.Tensor, label: torch.Tensor, voxel_size: Any) -> Sequence[float]:
        raise NotImplementedError

    def _scores(self, totals: np.ndarray) -> dict[str, float]:
        raise NotImplementedError

    def aggregate(self) -> torch.Tensor | list[torch.Tensor]:
        buffer = self.get_buffer()
        if buffer is None:
            raise ValueError(f"{type(self).__name__}: nothing to aggregate, the metric has seen no volume yet")
        scores = self._scores(buffer.double().sum(dim=0).cpu().numpy())
        values = [torch.tensor(float(scores[name]), dtype=torch.float64) for name in self.metric_name]
        return values[0] if len(values) == 1 else values


def _voxel_size(volumes: torch.Tensor, item: int, otherwise: Any = None) -> Any:
    """The reader's voxel size of one volume of a batch, whether its metadata was collated or not."""
    size = getattr(volumes, "meta", {}).get("voxel_size_zyx")
    if size is None:
        return otherwise
    sizes = np.asarray(size, np.float64).reshape(-1, 3)
    return sizes[min(item, len(sizes) - 1)]


class CenterF1(_PooledMetric):
    """F1 of the particle centers that a center map gives, for validation of CenterNet.

    Peaks of the map become centers as in detection (found, then refined) and are matched one to one to the centers of
    the labels, within ``match_fraction`` of each true particle's radius but at least ``min_voxels``.

    A prediction that lies on an ignored voxel (label -1) and matches nothing does not count. F1 is nan only when
    there was neither a particle nor a prediction in any volume.

    Parameters
    ----------
    particle_diameter : float
        Å; sets how far apart two peaks must be and how far a peak may move when refined (`ParticleSizes`).
    threshold : float
        Peaks below this height are no predictions.
    voxel_size : float or 3 floats (Z, Y, X), optional
        Å per voxel, for volumes that carry none in their metadata (``voxel_size_zyx``), which comes first.
    match_fraction, min_voxels : float
        See above.
    min_distance : float, optional
        Å; replaces the default from the diameter.
    metric_name : str or list of str
        ``f1``, ``precision``, ``recall``.
    classes : sequence of str, optional
        Score each class by itself, and give the mean over those that have a particle or a prediction.

    Notes
    -----
    ``y_pred`` is the network's output (B, C, Z, Y, X); its last channel is the center map, clipped to 0..1; with
    classes its last channels are theirs.
    ``y`` is the instance labels (B, 1, Z, Y, X): 0 background, 1..n particles, -1 ignored. With classes they come last,
    after the center target of each class, which says what class an instance is of.
    """

    names = ("f1", "precision", "recall")

    def __init__(
        self,
        particle_diameter: float | Mapping[str, float],
        threshold: float | Mapping[str, float] = 0.3,
        voxel_size: Any = None,
        match_fraction: float = 0.5,
        min_voxels: float = 2.0,
        min_distance: float | None = None,
        metric_name: str | Sequence[str] = "f1",
        classes: Sequence[str] | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(metric_name)
        self.classes = len(classes or ())
        self.sizes = ParticleSizes.from_diameter(particle_diameter, min_distance=min_distance)
        self.threshold = min(threshold.values()) if isinstance(threshold, Mapping) else threshold
        self.voxel_size = None if voxel_size is None else as_voxel_size_zyx(voxel_size)
        self.match_fraction = match_fraction
        self.min_voxels = min_voxels

    def _count(self, pred: torch.Tensor, label: torch.Tensor, voxel_size: Any) -> Sequence[float]:
        size = as_voxel_size_zyx(_required(self.voxel_size if voxel_size is None else voxel_size))
        labels = _array(label[-1]).astype(np.int32, copy=False)
        if not self.classes:
            return self._count_class(pred[-1], labels, instance_centers(labels, size), size)
        targets = _array(label[: self.classes])
        labels = np.where((targets[0] < 0) & (labels >= 0), IGNORE, labels)
        true = instance_centers(labels, size)
        kinds = _classes_of(true, labels, targets)
        counts: list[float] = []
        for number, center_map in enumerate(pred[-self.classes :]):
            own = InstanceCenters(*(values[kinds == number] for values in true))
            counts += self._count_class(center_map, labels, own, size)
        return counts

    def _count_class(
        self, center_map: torch.Tensor, labels: np.ndarray, true: InstanceCenters, size: np.ndarray
    ) -> tuple[int, int, int]:
        """Hits, extra predictions and missed particles of one center map."""
        values = _array(center_map).astype(np.float32, copy=False).clip(0.0, 1.0)
        peaks, _ = find_seeds(values, self.threshold, self.sizes.min_distance, size)
        found, _ = refine_seeds(values, peaks, self.sizes.refine_radius, size)
        _, centers, diameters = true
        reach = match_radius(diameters / 2, size, self.match_fraction, self.min_voxels)
        matches = match_points(voxel_zyx_to_angstrom_xyz(found, size), voxel_zyx_to_angstrom_xyz(centers, size), reach)
        extra = np.setdiff1d(np.arange(len(found)), matches.predicted)
        at = np.clip(np.rint(found[extra]).astype(np.int64), 0, np.asarray(labels.shape) - 1)
        n_extra = int(np.count_nonzero(labels[tuple(at.T)] != IGNORE))
        return len(matches.true), n_extra, len(centers) - len(matches.true)

    def _scores(self, totals: np.ndarray) -> dict[str, float]:
        if not self.classes:
            return _rates("f1", *totals)
        each = [_rates("f1", *counts) for counts in totals.reshape(-1, 3) if counts.any()]
        known = {name: [one[name] for one in each if not np.isnan(one[name])] for name in self.names}
        return {name: float(np.mean(values)) if values else np.nan for name, values in known.items()}


def _classes_of(true: InstanceCenters, labels: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Which target, (classes, Z, Y, X), holds each instance: the highest at its center and in it; -1 if all are 0."""
    at = np.clip(np.rint(true.centers_zyx_vox).astype(np.int64), 0, np.asarray(labels.shape) - 1)
    boxes = dict(instance_boxes(labels))
    highest = np.zeros((len(true.ids), len(targets)))
    for k, label in enumerate(true.ids):
        box = boxes[int(label)]
        inside = targets[(slice(None), *box)][:, labels[box] == label].max(axis=1)
        highest[k] = np.maximum(inside, targets[(slice(None), *at[k])])
    return np.where(highest.max(axis=1, initial=0) > 0, highest.argmax(axis=1), -1)


class MaskDice(_PooledMetric):
    """Dice of the particle mask over the voxels that are not ignored, pooled over all volumes.

    MONAI's DiceMetric has no ignore label. 2 |A and B| / (|A| + |B|); nan only if both masks are empty everywhere.

    Parameters
    ----------
    threshold : float
        Probability from which a voxel is particle, 0 to 1 exclusive.
    logits : bool
        Whether ``y_pred`` holds logits (the network's output) or probabilities.
    metric_name : str or list of str
        ``dice``, ``precision``, ``recall`` (of voxels).

    Notes
    -----
    ``y_pred`` is (B, C, Z, Y, X), its first channel the mask; ``y`` is (B, 1, Z, Y, X), a mask target or instance
    labels: above 0 is particle, 0 background, negative ignored.
    """

    names = ("dice", "precision", "recall")

    def __init__(self, threshold: float = 0.5, logits: bool = True, metric_name: str | Sequence[str] = "dice") -> None:
        super().__init__(metric_name)
        if not 0 < threshold < 1:
            raise ValueError(f"threshold: expected a probability between 0 and 1, got {threshold!r}")
        self.cut = float(np.log(threshold / (1 - threshold))) if logits else threshold

    def _count(self, pred: torch.Tensor, label: torch.Tensor, voxel_size: Any) -> Sequence[float]:
        counted = label[0] >= 0
        predicted = (pred[0] > self.cut) & counted
        true = label[0] > 0
        both = int(torch.count_nonzero(predicted & true))
        return both, int(torch.count_nonzero(predicted)) - both, int(torch.count_nonzero(true)) - both

    def _scores(self, totals: np.ndarray) -> dict[str, float]:
        return _rates("dice", *totals)  # the F1 of voxels


class InstanceMetrics(_PooledMetric):
    """Instance scores of predicted against true labels, by overlap (`scripts.matching.volumes.judge_volumes`).

    Parameters
    ----------
    rule : {"main", "original"}
    border : {"count", "ignore"}
        What to do with particles that touch a face of the volume.
    metric_name : str or list of str
        ``f1``, ``precision``, ``recall``, ``merged_rate``, ``split_rate``, ``panoptic_quality``,
        ``segmentation_quality``, ``recognition_quality``. MONAI's handler records the first of several;
        `NamedMetricsHandler` all of them.

    Notes
    -----
    ``y_pred`` and ``y`` are instance labels (B, 1, Z, Y, X): 0 background, 1..n particles; -1 in ``y`` is ignored.
    """

    names = (
        "f1",
        "precision",
        "recall",
        "merged_rate",
        "split_rate",
        "panoptic_quality",
        "segmentation_quality",
        "recognition_quality",
    )

    def __init__(self, rule: str = "main", border: str = "count", metric_name: str | Sequence[str] = names) -> None:
        super().__init__(metric_name)
        self.rule, self.border = rule, border
        self._fields = list(volume_counts(np.empty(0), np.empty(0), np.empty(0)))

    def _judge(self, true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        found = judge_volumes(overlap_table(true, predicted), self.rule, self.border)
        return volume_counts(found.true_status, found.predicted_status, found.matched_iou)

    def _count(self, pred: torch.Tensor, label: torch.Tensor, voxel_size: Any) -> Sequence[float]:
        counts = self._judge(_array(label[0]), _array(pred[0]))
        return [counts[field] for field in self._fields]

    def _scores(self, totals: np.ndarray) -> dict[str, float]:
        return volume_scores(dict(zip(self._fields, totals, strict=True)))


def _rates(f1: str, hits: float, extra: float, missed: float) -> dict[str, float]:
    """F1 under its name, precision and recall."""
    return {
        f1: float(f_beta(hits, extra, missed, beta=1.0)),
        "precision": float(ratio(hits, hits + extra)),
        "recall": float(ratio(hits, hits + missed)),
    }


def _required(voxel_size: Any) -> Any:
    if voxel_size is None:
        raise ValueError(
            "CenterF1: expected a voxel size, got labels without 'voxel_size_zyx' in their metadata; "
            "give voxel_size (Å), or load the labels with the project's reader"
        )
    return voxel_size


def _array(volume: torch.Tensor) -> np.ndarray:
    plain = volume.as_tensor() if hasattr(volume, "as_tensor") else volume
    plain = plain.detach().cpu()
    return (plain.float() if plain.dtype in (torch.bfloat16, torch.float16) else plain).numpy()


class NamedMetricsHandler(IgniteMetricHandler):
    """Puts every value of a metric with several names into ``engine.state.metrics``; MONAI's handler keeps the first.

    The name it is attached by holds the first value, so it can be the key metric; the others go by their own names.
    Takes the arguments of `monai.handlers.IgniteMetricHandler`.
    """

    def completed(self, engine: Any, name: str) -> None:
        values = self.metric_fn.aggregate()
        values = values if isinstance(values, list) else [values]
        names = getattr(self.metric_fn, "metric_name", [name])
        engine.state.metrics.update(dict(zip(names, (float(value) for value in values), strict=True)))
        engine.state.metrics[name] = float(values[0])
        if self.save_details:
            engine.state.metric_details[name] = self.metric_fn.get_buffer()


class SaveMetrics:
    """Write an engine's metrics to a JSON file when it is done; a MONAI handler.

    Parameters
    ----------
    path : path
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        """Register with ignite."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        metrics = {name: float(value) for name, value in engine.state.metrics.items()}
        with atomic_path(self.path) as temporary:
            Path(temporary).write_text(json.dumps(metrics, indent=2) + "\n")
