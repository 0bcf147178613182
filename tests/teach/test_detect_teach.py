"""detect --teach: in memory and streamed what was taught chooses as teach chose in the finished folder."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from custom_transforms.io import read_tomogram
from scripts.detection.detector import Detector
from scripts.detection.single import detect_one
from scripts.teach.teach import teach
from tests.detection.detect_scene import Blobs, setting  # noqa: F401


def test_detect_with_what_was_taught_gives_what_teach_wrote(setting, tmp_path, capsys):  # noqa: F811
    folder, options = setting
    options = {name: value for name, value in options.items() if name != "center_threshold"} | {"report": False}
    path = folder / "tomogram_0.mrc"

    def detected(name, stream=False, **more):
        detector = Detector({**options, **more, "output_dir": str(tmp_path / name)}, stream=stream)
        detector.network = Blobs()
        detect_one(detector, path)
        return tmp_path / name / "tomogram_0"

    def files(place):
        table = pd.read_csv(place / "tomogram_0_particles.csv", keep_default_na=False, na_values={"class_score": ""})
        return table, np.asarray(read_tomogram(place / "tomogram_0_instances.mrc", check="labels")[0])

    whole, _ = files(detected("whole", center_threshold=0.2))
    kept = whole[whole["label"] > 0]
    assert len(kept) >= 8
    examples = kept[:4].assign(tomogram="tomogram_0", **{"class": "ball"})
    examples.to_csv(tmp_path / "examples.csv", index=False)
    record = tmp_path / "whole" / "tomogram_0" / "tomogram_0.json"
    evaluated = {**json.loads(record.read_text()), "evaluation": {"folder": "e", "matches_sha256": "0"}}
    record.write_text(json.dumps(evaluated))
    teach(str(tmp_path / "whole"), particles=str(tmp_path / "examples.csv"), output_dir=str(tmp_path / "taught"))
    assert json.loads((tmp_path / "taught/tomogram_0/tomogram_0.json").read_text()).get("evaluation") is None
    file = tmp_path / "taught" / "taught.json"
    content = json.loads(file.read_text())
    assert content["settings"]["center_threshold"] == 0.2
    content["classes"][0]["threshold"] = float(np.median(_scores(tmp_path / "taught" / "tomogram_0")))
    file.write_text(json.dumps(content))  # so that it drops some
    in_memory, labels = files(detected("memory", teach=str(file)))
    streamed, streamed_labels = files(detected("streamed", stream=True, teach=str(file)))
    pd.testing.assert_frame_equal(in_memory, streamed)
    assert np.array_equal(labels, streamed_labels)
    assert len(in_memory) == len(whole)  # the threshold came with the file
    left = in_memory[in_memory["label"] > 0]
    assert 0 < len(left) < len(kept) and set(left["class"]) == {"ball"} and set(labels.ravel()) == {0, *left["label"]}
    scores = in_memory.loc[kept.index, "class_score"]
    np.testing.assert_allclose(scores, _scores(tmp_path / "taught" / "tomogram_0"), atol=1e-3)
    with pytest.raises(FileExistsError, match="detected before with other teach"):  # it is another file now
        file.write_text(json.dumps({**content, "about": "again"}))
        detected("memory", teach=str(file))
    with pytest.raises(ValueError, match="center_threshold: expected a number above 0"):
        file.write_text(json.dumps({**content, "settings": {"center_threshold": "$print(1)"}}))
        detected("code", teach=str(file))


def _scores(place):
    table = pd.read_csv(place / "tomogram_0_particles.csv")
    return table["class_score"].dropna().to_numpy()
