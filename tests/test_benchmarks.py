"""The record of the benchmarks: whole, and under one name for each thing."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import classes


@pytest.mark.parametrize(
    ("words", "written"),
    [([], "results.json"), (["streaming"], None), (["streaming", "evaluate", "--json", "own.json"], "own.json")],
)
def test_a_few_benches_do_not_replace_the_record_of_all(words, written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmarks, "RECORD", tmp_path / "results.json")
    bench = SimpleNamespace(run=lambda full: [{"bench": "one", "total_s": 1.0}])
    monkeypatch.setattr(benchmarks.importlib, "import_module", lambda name: bench)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    benchmarks.main()
    assert [one.name for one in tmp_path.iterdir()] == ([written] if written else [])
    if written:
        asked = len(words[:2]) or len(benchmarks.BENCHES)
        assert json.loads((tmp_path / written).read_text())["rows"] == bench.run(False) * asked


def test_every_row_of_the_record_has_a_size():
    rows = json.loads(benchmarks.RECORD.read_text())["rows"]
    assert rows and all(isinstance(row["size"], str) and "shape" not in row for row in rows)


def test_thresholds_of_picks_are_chosen_on_validation_and_used_on_test(tmp_path):
    """Of picks in their places and of false ones, which score less, the false ones go, in each class by its limit."""
    rng = np.random.default_rng(0)
    columns = ["x_angstrom", "y_angstrom", "z_angstrom"]
    for part in classes.PARTS:
        for folder in (tmp_path / "data" / f"{part}_0", tmp_path / "picks" / part):
            folder.mkdir(parents=True)
        true = pd.DataFrame(rng.uniform(0, 3000, (80, 3)), columns=columns).assign(
            **{"class": ["a", "b"] * 40, "diameter_angstrom": 100.0}
        )
        true.to_csv(tmp_path / "data" / f"{part}_0" / "particles.csv", index=False)
        false = true.assign(**{axis: rng.uniform(6000, 9000, 80) for axis in columns})
        worth = {"a": 100.0, "b": 10.0}
        picks = [one.assign(score=one["class"].map(worth) + plus) for one, plus in ((true, 1), (false, 0))]
        pd.concat(picks).to_csv(tmp_path / "picks" / part / f"{part}_0.csv", index=False)
    kept = classes.chosen(tmp_path / "picks", tmp_path / "data", tmp_path / "chosen")
    table = pd.read_csv(kept / "test_0.csv")
    assert kept.name == "test" and table.groupby("class")["score"].agg(["size", "min"]).to_numpy().tolist() == [
        [40, 101.0], [40, 11.0],
    ]  # fmt: skip
