"""The README's table of particle-list formats says what the registry, the golden files and the reader tests hold."""

from __future__ import annotations

import json

import pytest

from scripts.particles.registry import FORMATS
from tests.conftest import ROOT
from tests.golden.make_golden import INDEX
from tests.particles.test_particle_readers import CHECKED, WRITABLE
from tests.particles.test_particles import WRITABLE as ROUND_TRIPS

TEXT = (ROOT / "README.md").read_text().split("## Particle-list formats", 1)[1].split("## ", 1)[0]
LINES = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("|")]
ROWS = {cells[0]: dict(zip(LINES[0], cells, strict=True)) for cells in LINES[2:]}


def test_the_table_has_a_row_for_every_format():
    assert list(ROWS) == list(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_says_what_is_tested(name):
    row, one = ROWS[name], FORMATS[name]
    assert row["read"] == ("yes" if one.read else "–") and row["write"] == ("yes" if one.write else "–")
    assert row["round trip"] == ("binning 1–4" if name in ROUND_TRIPS else "–") and (name in WRITABLE) == bool(
        one.write
    )
    golden = [entry for file, entry in json.loads(INDEX.read_text()).items() if not file.startswith("real_")]
    writers = {entry["written_by"].split()[0] for entry in golden if entry["format"] == name}
    assert row["golden file written by"] == ", ".join(sorted(writers)).replace("plain", "as documented")
    assert row["ours read by"] == (", ".join(CHECKED.get(name, ())) or "–")
