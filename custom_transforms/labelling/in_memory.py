"""The two ends of post-processing: what the networks gave, and the whole chain of `instances` in one call."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from custom_transforms.labelling.assign import assign_instances
from custom_transforms.labelling.components import mask_from_probability
from custom_transforms.labelling.refine import refine_seeds
from custom_transforms.labelling.seeds import find_seeds
from custom_transforms.measuring.particle_table import filter_particles, measure_particles
from custom_transforms.units import ParticleSizes, as_voxel_size_zyx

__all__ = ["check_finite", "detect_instances", "split_prediction"]

CHECKED_PLANES = 32


def check_finite(maps: torch.Tensor, first: int = 0) -> None:
    """Refuse maps of the networks that hold NaN or Inf, which post-processing would take for background.

    Parameters
    ----------
    maps : tensor, shape (C, Z, Y, X), float
        Looked at a few planes at a time; nothing of its size is made.
    first : int
        Which plane of the tomogram the first one is, for the message.

    Examples
    --------
    >>> check_finite(torch.zeros(2, 4, 5, 6))
    """
    for z in range(0, maps.shape[1], CHECKED_PLANES):
        part = maps[:, z : z + CHECKED_PLANES]
        # of one map after another, as of all at once it takes six times as long; NaN is the extreme of what holds one
        if not all(torch.isfinite(end) for one in part for end in torch.aminmax(one)):
            raise ValueError(
                f"the networks gave values that are not finite (NaN, Inf) in planes {first + z} to "
                f"{first + z + part.shape[1] - 1}. Are the weights damaged, or does the tomogram hold voxels far "
                "beyond all others? Try the weights on another tomogram."
            )


def split_prediction(
    prediction: torch.Tensor, dtype: torch.dtype = torch.float32, in_place: bool = False
) -> tuple[torch.Tensor, ...]:
    """Turn the network's channels into a mask probability and center maps.

    Parameters
    ----------
    prediction : tensor, shape (1 + classes, Z, Y, X)
        Channel 0: mask logit. The others: a center map for each class, as the network gave them. On any device.
    dtype : torch dtype
        float32, or float16 to halve the memory of the maps.
    in_place : bool
        Reuse the memory of ``prediction``, which is lost then; only where dtype is its own.

    Returns
    -------
    probability, center_map : tensor, shape (1, Z, Y, X)
        Sigmoid of channel 0; the highest of the other channels, clipped to 0..1. NaN stays NaN.
    class_maps : tensor, shape (classes, Z, Y, X)
        All other channels, clipped; left out where there is only one.

    Examples
    --------
    >>> probability, center_map = split_prediction(torch.full((2, 1, 1, 1), 2.0))
    >>> round(probability.item(), 3), center_map.item()
    (0.881, 1.0)
    """
    if prediction.ndim != 4 or prediction.shape[0] < 2:
        raise ValueError(
            f"pred: expected (2, Z, Y, X), mask logit and center map (or one for each class), got "
            f"{tuple(prediction.shape)}. Use a network_def with two outputs, or join two networks."
        )
    if in_place and prediction.dtype == dtype:
        probability, centers = prediction[:1].sigmoid_(), prediction[1:].clamp_(0, 1)
    else:
        probability, centers = torch.sigmoid(prediction[:1]).to(dtype), prediction[1:].clamp(0, 1).to(dtype)
    if len(centers) == 1:
        return probability, centers
    return probability, centers.amax(dim=0, keepdim=True), centers


def detect_instances(
    probability: np.ndarray,
    center_map: np.ndarray,
    voxel_size_zyx: np.ndarray,
    particle_diameter: float,
    mask_threshold: float,
    center_threshold: float,
    method: str = "watershed",
    *,
    require_seed: bool = False,
    neighbor_number: int = 0,
    min_distance: float | None = None,
    min_size: float | None = None,
    radius_max: float | None = None,
    neighbor_distance: float | None = None,
) -> tuple[np.ndarray, pd.DataFrame]:
    """Run the whole chain: two maps in, labels and table out.

    Parameters
    ----------
    probability, center_map : ndarray, shape (Z, Y, X), float
        Mask probability and center map, 0..1. Not changed.
    voxel_size_zyx : ndarray, shape (3,)
        Å per voxel along Z, Y, X.
    particle_diameter : float
        Å; gives min_distance, min_size, radius_max and neighbor_distance where they are None.
    mask_threshold, center_threshold : float
        A voxel is foreground above the one; a peak is a seed from the other on.
    method : {"watershed", "nearest", "split"}
        See `assign_instances`.
    require_seed : bool
        Drop what no seed owns.
    neighbor_number : int
        Particles need so many others within neighbor_distance; 0 is off.
    min_distance, radius_max, neighbor_distance : float, optional
        Å.
    min_size : float, optional
        Å^3.

    Returns
    -------
    labels : ndarray, shape (Z, Y, X), int32
        0 background, 1..n particles.
    table : DataFrame
        One row per particle, dropped ones too; empty with all columns if there is nothing.

    Raises
    ------
    ValueError
        For maps of different shapes and settings out of range; the message says which.

    Examples
    --------
    >>> probability, center_map = np.zeros((2, 9, 10, 11), np.float32)
    >>> probability[2:7, 3:8, 4:9] = 0.9
    >>> center_map[4, 5, 6] = 1.0
    >>> labels, table = detect_instances(probability, center_map, np.full(3, 10.0), 60.0, 0.5, 0.3)
    >>> table[["label", "z_vox", "y_vox", "x_vox", "volume_vox"]].values.tolist()
    [[1.0, 4.0, 5.0, 6.0, 125.0]]
    """
    voxel = as_voxel_size_zyx(voxel_size_zyx)
    sizes = ParticleSizes.from_diameter(
        particle_diameter, min_distance=min_distance, min_size=min_size, radius_max=radius_max,
        neighbor_distance=neighbor_distance,
    )  # fmt: skip
    mask = mask_from_probability(probability, mask_threshold, sizes.min_size / voxel.prod())
    peaks, _ = find_seeds(center_map, center_threshold, sizes.min_distance, voxel)
    centers, heights = refine_seeds(center_map, peaks, sizes.refine_radius, voxel)
    labels, seed_labels = assign_instances(
        mask, center_map, peaks, method=method, radius_max=sizes.radius_max, voxel_size_zyx=voxel,
        require_seed=require_seed,
        min_size_voxels=sizes.min_size / voxel.prod(),
    )  # fmt: skip
    del mask
    table = measure_particles(
        labels, probability, seed_labels, centers, heights, voxel_size_zyx=voxel,
        center_threshold=center_threshold, neighbor_distance=sizes.neighbor_distance,
    )  # fmt: skip
    table, labels = filter_particles(
        table, labels, min_size=sizes.min_size, neighbor_number=neighbor_number,
        neighbor_distance=sizes.neighbor_distance, in_place=True,
    )  # fmt: skip
    return labels, table
