"""load, intensities: one z-score per tomogram, protein bright."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_transforms.io import LoadTomogramd, metadata_warnings, write_mrc
from custom_transforms.normalize import (
    Intensities,
    NormalizedVolume,
    NormalizeTomogramd,
    contrast_skewness,
    normalize_tomogram,
)
from custom_transforms.volumes.lazy import open_tomogram
from custom_transforms.volumes.slabs import mean_and_deviation

SHAPE = (12, 20, 28)


def noise(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def scene(sign: float) -> np.ndarray:
    """Cubes of protein in noise; ``sign`` -1 makes them dark."""
    volume, rng = noise((60, 64, 68)), np.random.default_rng(1)
    for corner in rng.integers(0, 52, size=(40, 3)):
        volume[tuple(slice(start, start + 8) for start in corner)] += sign
    return volume


@settings(max_examples=20, deadline=None)
@given(
    offset=st.floats(-1e5, 1e5),
    scale=st.floats(1e-2, 1e4),
    dtype=st.sampled_from(["float32", "float64", "int16", "float16"]),
    shape=st.sampled_from([SHAPE, (1, *SHAPE), (3, 7, 300_001), (70, 90, 80), (500,)]),
)
def test_statistics_equal_numpys_in_double_precision(offset, scale, dtype, shape):
    volume = noise(shape).astype("f8") * scale + offset
    volume = volume.clip(-3e4, 3e4).astype(dtype)
    mean, deviation = mean_and_deviation(volume)
    np.testing.assert_allclose(
        [mean, deviation], [volume.mean(dtype="f8"), volume.std(dtype="f8")], rtol=1e-9, atol=1e-6
    )


def test_statistics_do_not_depend_on_the_number_of_threads():
    code = """if True:
        import numpy as np
        from custom_transforms.volumes.slabs import mean_and_deviation
        for volume in np.random.default_rng(0).normal(3, 7, (60, 100_000)):  # one sum in some shows it
            print(*map(float.hex, mean_and_deviation(volume)))
    """
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
        ).stdout
        for threads in ("1", "2")
    ]  # fmt: skip
    assert runs[0] == runs[1] and runs[0].count("\n") == 60


@pytest.mark.parametrize(("contrast", "sign"), [("dark", -1), ("bright", 1)])
def test_dark_protein_becomes_bright(contrast, sign):
    volume = noise() * 7 + 1e4
    before = volume.copy()
    expected = sign * (volume.astype("f8") - volume.mean(dtype="f8")) / volume.std(dtype="f8")
    result = normalize_tomogram(volume, contrast)
    assert result.dtype == np.float32 and np.array_equal(volume, before)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    extremes=st.lists(st.tuples(st.integers(0, 6719), st.floats(25, 1e6) | st.floats(-1e6, -25)), max_size=4),
    contrast=st.sampled_from(["dark", "bright"]),
)
def test_a_few_extreme_voxels_change_no_other_voxel_and_are_clipped(extremes, contrast):
    clean, volume = noise(), noise()
    for at, value in extremes:
        volume.flat[at] = value
    extreme = np.abs(volume) >= 25
    rest = volume[~extreme].astype("f8")
    sign = -1 if contrast == "dark" else 1
    result = normalize_tomogram(volume, contrast)
    np.testing.assert_allclose(result[~extreme], sign * (rest - rest.mean()) / rest.std(), atol=1e-5)
    np.testing.assert_allclose(result[~extreme], normalize_tomogram(clean, contrast)[~extreme], atol=0.01)
    assert np.array_equal(np.sign(result[extreme]), sign * np.sign(volume[extreme]))
    assert ((abs(result[extreme]) > 15) & (abs(result[extreme]) < 25)).all()


@pytest.mark.parametrize("dtype", ["float32", "int16"])
@pytest.mark.parametrize("share", [0, 1e-5, 5e-4, 0.01, 0.3])
def test_without_rare_extremes_the_result_is_that_of_all_voxels_to_the_last_bit(dtype, share):
    """What is not rare is the tomogram's own, as particles of 40 deviations after denoising."""
    volume = noise((40, 72, 80)) * 30
    volume.flat[: int(share * volume.size)] += 18 * 30 if share < 0.001 else 40 * 30
    volume = volume.round().astype(dtype)
    mean, deviation = mean_and_deviation(volume)
    expected = ((volume.astype("f8") - mean) * (1 / deviation)).astype("f4")
    assert np.array_equal(normalize_tomogram(volume, "bright"), expected)


def test_binary_volumes_and_padding_have_no_extremes():
    volume = np.zeros(SHAPE, np.float32)
    volume[0, 0, 0] = 1
    assert Intensities.of(volume, "dark").extreme == 0
    padded = np.pad(noise(), ((20, 20), (0, 0), (30, 30)))
    assert Intensities.of(padded, "dark").extreme == 0


@pytest.mark.parametrize("extreme", [0, 3])
def test_by_slices_the_result_is_that_in_memory_with_the_same_warning(tmp_path, extreme):
    path, volume = tmp_path / "a.mrc", noise((60, 140, 150))  # larger than the sample
    volume.flat[1000 : 1000 + extreme] = 9000
    write_mrc(path, volume, 10)
    opened, meta = open_tomogram(path)
    streamed = NormalizedVolume(opened, "dark", meta)
    item = NormalizeTomogramd("image")(LoadTomogramd("image")({"image": path}))
    assert np.array_equal(item["image"][0].numpy(), np.concatenate([streamed[z : z + 7] for z in range(0, 60, 7)]))
    told = metadata_warnings(item["image"].meta)
    assert told == metadata_warnings(meta)
    assert told == [
        f"{path}: 3 voxels lie more than 20 deviations away (gold, X-rays, dead pixels?); they were clipped, and left "
        "out of mean and deviation."
    ] * bool(extreme)


def test_unknown_contrast_and_constant_or_nan_volumes_are_refused():
    text = (
        "contrast: expected one of dark, bright (how protein looks in the tomogram), got 'white'. "
        "Raw tomograms are dark: --contrast dark."
    )
    with pytest.raises(ValueError) as caught:
        NormalizeTomogramd("image", contrast="white")
    assert str(caught.value) == text
    with pytest.raises(ValueError, match="got a volume where every voxel is the same"):
        normalize_tomogram(np.full(SHAPE, 3.0))
    for value in (np.nan, np.inf):
        volume = noise()
        volume[1, 2, 3] = value
        with pytest.raises(ValueError, match="got a volume where it has NaN or Inf"):
            normalize_tomogram(volume)


def test_memory_mapped_tomogram_is_normalized_and_its_file_stays(tmp_path):
    path = tmp_path / "a.mrc"
    write_mrc(path, noise(), 10)
    before = path.read_bytes()
    item = LoadTomogramd("image")({"image": path, "contrast": "bright"})
    result = NormalizeTomogramd("image", contrast="dark")(item)
    assert path.read_bytes() == before and torch.equal(item["image"].as_tensor()[0], torch.from_numpy(noise()))
    np.testing.assert_allclose(result["image"][0].numpy(), normalize_tomogram(noise(), "bright"))  # the item's own
    assert result["image"].meta["voxel_size_zyx"].tolist() == [10, 10, 10]
    result["image"].mul_(0)
    assert path.read_bytes() == before


def test_inverted_contrast_is_told_and_only_then():
    assert contrast_skewness(scene(-1)) < -0.1 < 0.1 < contrast_skewness(scene(1))
    for sign, contrast, expected in ((-1, "dark", 0), (1, "bright", 0), (-1, "bright", 1), (1, "dark", 1)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = NormalizeTomogramd("image", contrast)({"image": torch.from_numpy(scene(sign))[None]})
        assert len(caught) == expected
        assert metadata_warnings(result["image"].meta) == [str(w.message) for w in caught]
        if expected:
            other = {"dark": "bright", "bright": "dark"}[contrast]
            assert str(caught[0].message) == (
                f"tomogram: the contrast looks inverted: with --contrast {contrast} the rare strong values are dark, "
                f"and protein should be bright. If it looks {other} in the tomogram, give --contrast {other}."
            )


def test_pure_noise_of_any_size_does_not_look_inverted():
    shapes = [(12, 20, 28), (50, 56, 60), (80, 90, 100)]
    assert all(abs(contrast_skewness(noise(shape, seed))) < 0.1 for shape in shapes for seed in range(5))
