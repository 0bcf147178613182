"""What post-processing is compared with: a straightforward library chain, and the original's algorithm."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max
from skimage.measure import regionprops_table
from skimage.segmentation import watershed


def scipy_chain(
    probability: np.ndarray, center_map: np.ndarray, diameter: float, mask_threshold: float, center_threshold: float
) -> int:
    """Do the same steps with scipy and scikit-image as they come; lengths in voxels. Returns the particles kept."""
    min_size = 0.1 * np.pi / 6 * diameter**3
    components, _ = ndimage.label(probability > mask_threshold)
    mask = (np.bincount(components.ravel()) >= min_size)[components] & (components > 0)
    peaks = peak_local_max(
        center_map, min_distance=max(1, int(diameter / 4)), threshold_abs=center_threshold, exclude_border=False
    )
    markers = np.zeros(mask.shape, dtype=np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-center_map, markers, mask=mask)
    table = regionprops_table(labels, probability, properties=("label", "area", "centroid", "bbox", "intensity_mean"))
    centers = np.stack([table[f"centroid-{k}"] for k in range(3)], axis=1)
    if len(centers):
        cKDTree(centers).query_ball_point(centers, 2 * diameter, return_length=True)
    kept = table["label"][table["area"] >= min_size]
    renumber = np.zeros(labels.max() + 1, dtype=np.int32)
    renumber[kept] = np.arange(1, len(kept) + 1)
    labels = renumber[labels]
    return len(kept)


def original_chain(
    probability: np.ndarray, center_map: np.ndarray, diameter: float, mask_threshold: float, center_threshold: float
) -> int:
    """Do what the original did, written anew in plain form from a description of its behaviour.

    Small components go, 3 x 3 x 3 peaks are centers, every mask voxel compares itself with every center, every
    label is looked up in the whole volume, and three nearest neighbours decide what stays. The time grows with
    the square of the volume: voxels x centers, labels x volume.
    """
    components, count = ndimage.label(probability > mask_threshold, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    mask = (components > 0) & (sizes >= 64)[components]
    peaks = np.argwhere((center_map >= center_threshold) & (center_map == ndimage.maximum_filter(center_map, size=3)))
    labels = np.zeros(mask.shape, dtype=np.int32)
    for voxel in np.argwhere(mask):
        labels[tuple(voxel)] = 1 + ((peaks - voxel) ** 2).sum(axis=1).argmin()
    centers = []
    for label in range(1, len(peaks) + 1):
        z, y, x = np.where(labels == label)
        if len(z):
            centers.append((z.mean(), y.mean(), x.mean()))
    kept = 0
    points = np.array(centers).reshape(-1, 3)
    for point in points:
        distances = np.sort(np.sqrt(((points - point) ** 2).sum(axis=1)))
        kept += bool((distances[1:4] <= 1.7 * diameter).all())
    return kept
