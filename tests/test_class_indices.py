"""Voxels of every class to crop around."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import ClassesToIndicesd

from custom_transforms import class_indices
from custom_transforms.class_indices import SampleClassIndicesd, sample_class_indices


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    foreground=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    most=st.sampled_from([1, 2, 7, 100, 10_000]),
    part=st.sampled_from([1, 64, 999, 2**22]),
)
def test_the_choice_is_that_of_monai(seed, foreground, most, part):
    rng = np.random.default_rng(seed)
    labels = (rng.random((1, 12, 20, 28)) < foreground).astype(np.int8)
    labels[0, :, :3] = -1
    options = {"keys": "mask", "num_classes": 2, "max_samples_per_class": most}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(class_indices, "PART", part)
        ours = SampleClassIndicesd(**options)({"mask": MetaTensor(labels)})["mask_indices"]
    theirs = ClassesToIndicesd(**options, indices_postfix="_indices")({"mask": MetaTensor(labels)})["mask_indices"]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.int64 and mine.tolist() == torch.as_tensor(other).tolist()


def test_wrong_options_and_labels_of_several_channels_are_errors():
    with pytest.raises(ValueError, match="max_samples_per_class of 1 or more, got 2 and 0"):
        sample_class_indices(np.zeros((2, 3)), 2, 0)
    with pytest.raises(ValueError, match=r"mask: expected labels \(1, Z, Y, X\), got \(2, 3, 4, 5\)"):
        SampleClassIndicesd("mask", 2, 10)({"mask": np.zeros((2, 3, 4, 5))})
