"""The record of the benchmarks: whole, and under one name for each thing."""

import json
import sys
from types import SimpleNamespace

import pytest

from tests.benchmarks import __main__ as benchmarks


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
