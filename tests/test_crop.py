"""Crop to the labelled part: MONAI's middle where all is labelled, inside the volume everywhere else."""

import numpy as np
import pytest
import torch
from monai.transforms import CenterSpatialCropd

from custom_transforms.crop import CropLabelledd, labelled_region

SHAPE = (12, 21, 28)


@pytest.mark.parametrize("size", [(4, 5, 6), (5, 4, 28), (-1, 7, 40), (12, 21, 1)])
@pytest.mark.parametrize("value", [0, 3, -1])  # background, a particle, nothing labelled at all
def test_a_volume_that_is_all_one_kind_is_cropped_as_monai_does(size, value):
    data = {"image": torch.arange(np.prod(SHAPE)).reshape(1, *SHAPE), "label": torch.full((1, *SHAPE), value)}
    expected = CenterSpatialCropd(["image", "label"], size)(data)
    made = CropLabelledd(["image", "label"], "label", size)(data)
    assert all(torch.equal(made[key], expected[key]) for key in data)


def test_the_region_has_its_size_lies_inside_and_follows_the_labels():
    for corner in np.ndindex(2, 2, 2):
        labels = np.full(SHAPE, -1)
        box = tuple(slice(n - 3, n) if far else slice(0, 3) for far, n in zip(corner, SHAPE, strict=True))
        labels[box] = 0
        region = labelled_region(labels, (5, 5, 5))
        assert labels[region].shape == (5, 5, 5) and (labels[region] >= 0).sum() == 27
