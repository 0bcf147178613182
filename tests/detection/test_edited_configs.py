"""Whatever a user edits in the config: streamed it gives what it gives in memory, or is refused by name before work."""

import copy
import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser

from custom_transforms.filters import ExcludeParticlesd
from custom_transforms.instances import FindSeedsd
from custom_transforms.io import write_mrc
from custom_transforms.measuring.particle_filter import ParticleFilter
from scripts.detection.detector import Detector
from scripts.inferer import TomogramInferer
from tests.conftest import DIAMETER, ROOT, VOXEL_SIZE, balls
from tests.detection.detect_scene import NETWORKS, Blobs

PARTS = ("preprocessing", "postprocessing")
SHIPPED = json.loads((ROOT / "configs" / "inference.json").read_text(encoding="utf-8"))
SMOOTH = {"_target_": "GaussianSmoothd", "keys": "image", "sigma": 0.7}
SCALE = {"_target_": "ScaleIntensityd", "keys": "image"}
HERE = "tests.detection.test_edited_configs"


class OwnSeedsd(FindSeedsd):
    """Does something else than the class it is made of."""

    def __call__(self, data):
        return super().__call__({**data, "center_map": data["center_map"] * 0})


class DropFaintd(ParticleFilter):
    """Looks at the table alone, and says so."""

    streams = ParticleFilter.streams

    def __init__(self, keys="instances", limit=0.6, particle_diameter=DIAMETER):
        super().__init__(keys, particle_diameter, None, allow_missing_keys=False)
        self.limit = limit

    def choose(self, table, labels, meta):
        return table, {"faint": np.asarray(table["score"] < self.limit)}


class OwnInferer(TomogramInferer):
    """Does something else, too."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A small tomogram, a volume of its shape for masks and regions, and the options that detect it."""
    folder = tmp_path_factory.mktemp("edited")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr("scripts.detection.plan.forward_bytes", lambda network, tile: 10**6)  # the plan's slow part
    labels = balls((20, 36, 44), seed=0)
    noise = np.random.default_rng(0).normal(0, 0.2, labels.shape)
    write_mrc(folder / "scene.mrc", (noise - (labels > 0)).astype(np.float32), VOXEL_SIZE)
    torch.save(ConfigParser({"n": NETWORKS}).get_parsed_content("n").state_dict(), folder / "model.pt")
    options = {
        "network_def": NETWORKS, "weights": str(folder / "model.pt"), "tile": [20, 32, 32], "device": "cpu",
        "particle_diameter": DIAMETER, "mask_threshold": 0.45, "center_threshold": 0.2, "min_size": 1.0,
        "progress": False, "report": False, "formats": ["csv"], "overwrite": True, "output_dir": str(folder / "out"),
    }  # fmt: skip
    yield folder / "scene.mrc", options
    monkeypatch.undo()


def detect_both(scene, overrides):
    """Detect streamed, in a few blocks, and in memory, and compare; gives the table. A refusal comes before work."""
    path, options = scene
    detector = Detector({**options, **overrides}, stream=True)
    plan = replace(detector.plan(path), block=23)
    detector.network = Blobs()
    outcomes = []
    for how in (plan, None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = detector(path, how)
        outcomes.append((found["output_files"]["instances"].read_bytes(), found["particles"]))
    assert outcomes[0][0] == outcomes[1][0]
    pd.testing.assert_frame_equal(outcomes[0][1], outcomes[1][1], rtol=1e-7, atol=1e-9)
    return outcomes[0][1]


def edited(edits):
    """The shipped chains with steps dropped, doubled, moved to the front, put in, or set otherwise."""
    chains = {part: copy.deepcopy(SHIPPED[part]["transforms"]) for part in PARTS}
    for part, kind, place, value in edits:
        steps = chains[part]
        place %= max(len(steps), 1)
        if kind == "insert":
            steps.insert(place, value)
        elif not steps:
            continue
        elif kind == "drop":
            del steps[place]
        elif kind == "double":
            steps.insert(place, copy.deepcopy(steps[place]))
        elif kind == "first":
            steps.insert(0, steps.pop(place))
        elif isinstance(steps[place], dict):
            name, number = value
            steps[place] |= {name: number} if name in steps[place] else {}
    return {part: {"_target_": "Compose", "transforms": chains[part]} for part in PARTS}


EDITS = st.tuples(
    st.sampled_from(PARTS),
    st.sampled_from(["drop", "double", "first", "insert"]),
    st.integers(0, 9),
    st.sampled_from([SMOOTH, SCALE, {"_target_": f"{HERE}.DropFaintd"}]),
)
SETTINGS = st.tuples(
    st.just("postprocessing"),
    st.just("set"),
    st.integers(0, 9),
    st.sampled_from([
        ("threshold", 0.3), ("threshold", 0.7), ("min_distance", 90.0), ("min_size", 2e5), ("particle_diameter", 70.0),
        ("method", "nearest"), ("method", "split"), ("require_seed", False), ("radius_max", 40.0),
        ("neighbor_distance", 150.0), ("neighbor_number", 2), ("edge_margin", 60.0), ("active", False),
    ]),
)  # fmt: skip


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(EDITS, max_size=1), st.lists(SETTINGS, max_size=5))
@example([("postprocessing", "double", 5, None)], [("postprocessing", "set", 5, ("min_size", 6e5))])
@example([("postprocessing", "drop", 5, None)], [("postprocessing", "set", 3, ("require_seed", False))])
@example([("postprocessing", "insert", 6, {"_target_": f"{HERE}.DropFaintd"})], [])
@example([], [("postprocessing", "set", 3, ("method", "split")), ("postprocessing", "set", 3, ("radius_max", 40.0))])
def test_an_edited_config_gives_the_same_streamed_or_its_step_is_refused_by_name(scene, edits, changed):
    try:
        detect_both(scene, edited([*edits, *changed]))
    except ValueError as error:
        told = r"^(pre|post)processing: this tomogram is larger than memory, and (\w+( \([\w ]+\))?(, )?)+ needs all"
        assert edits and re.match(told, str(error)), error


def test_another_intensity_after_the_normalisation_is_refused_and_not_left_out(scene):
    steps = [*SHIPPED["preprocessing"]["transforms"], SCALE]
    with pytest.raises(ValueError, match="^preprocessing: .* larger than memory, and ScaleIntensityd needs all of it"):
        detect_both(scene, {"preprocessing#transforms": steps})


def test_a_threshold_that_no_peak_reaches_finds_nothing_both_ways(scene):
    assert len(detect_both(scene, {"postprocessing#transforms#2#threshold": 99})) == 0
    assert len(detect_both(scene, {"postprocessing#transforms#2#threshold": 0.2})) > 3


def test_values_come_from_the_steps_and_may_differ_from_one_to_the_next(scene):
    step = "postprocessing#transforms#{}#{}".format
    plain = detect_both(scene, {})
    sizes = detect_both(scene, {step(1, "min_size"): 9e5, step(3, "require_seed"): False, step(5, "min_size"): 2e5})
    reach = detect_both(scene, {step(4, "neighbor_distance"): 150.0, step(5, "neighbor_distance"): 400.0})
    far = detect_both(scene, {step(2, "min_distance"): 250.0, "preprocessing#transforms#1#contrast": "bright"})
    assert all(not plain.equals(other) for other in (sizes, reach, far))
    assert len(detect_both(scene, {"inferer#mode": "gaussian", "inferer#overlap": 0.25})) > 3


@pytest.mark.parametrize(
    "overrides,told",
    [
        ({"postprocessing#transforms#2#_target_": f"{HERE}.OwnSeedsd"}, "postprocessing: .* OwnSeedsd needs"),
        ({"postprocessing#transforms#0#dtype": "float16"}, r"SplitPredictiond \(its dtype is torch.float16\) needs"),
        ({"postprocessing#transforms#1#keys": "center_map"}, r"MaskFromProbabilityd \(its keys is \('center_map',\)\)"),
        ({"exclude": "ice.mrc"}, r"ExcludeParticlesd \(its mask is ice.mrc\) needs all of it. Leave it out, or use"),
        ({"preprocessing": {"_target_": "OneOf", "transforms": SHIPPED["preprocessing"]["transforms"]}},
         "preprocessing: .* OneOf needs"),
        ({"postprocessing#transforms": SHIPPED["postprocessing"]["transforms"][:-1]}, r"FlagGoldd \(as the last step"),
        ({"preprocessing#transforms": []}, r"preprocessing: .* Compose \(without steps\) needs all"),
        ({"inferer#_target_": f"{HERE}.OwnInferer"}, "inferer: .* OwnInferer needs all of it"),
    ],
)  # fmt: skip
def test_what_has_no_streamed_form_is_refused_by_name(scene, overrides, told):
    with pytest.raises(ValueError, match=told):
        detect_both(scene, overrides)


def test_an_inferer_whose_tiles_cannot_be_planned_is_refused_in_memory_too(scene):
    window = {"_target_": "SlidingWindowInferer", "roi_size": [16, 32, 32]}
    with pytest.raises(ValueError, match="inferer: expected a TomogramInferer, .* got SlidingWindowInferer"):
        Detector({**scene[1], "inferer": window})


def test_a_class_made_of_a_step_says_anew_that_it_streams():
    assert "streams" not in vars(OwnSeedsd) and "streams" in vars(ExcludeParticlesd) and "streams" in vars(DropFaintd)
