"""The overview of a folder of detections: which tomograms to look at first."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scripts.command_line.parser import main
from scripts.records import model
from scripts.report.overview import overview, overview_table
from tests.report.conftest import Run

COUNTS = {"TS_1": 20, "TS_2": 22, "TS_3": 2, "TS_4": 21, "TS_5": 19, "TS_6": 60, "TS_7": 0}


@pytest.fixture
def detections(detected, tmp_path):
    """Make finished tomograms with so many particles, and one that a filter dropped, each; one is not finished."""

    def make(counts=COUNTS) -> Path:
        for name, count in counts.items():
            (tmp_path / name).mkdir()
            run = Run(tmp_path / name)
            table = pd.concat([detected.table.head(1)] * (count + 1), ignore_index=True)
            table["label"] = [*range(1, count + 1), 0]
            table["score"] = [0.3 if name == "TS_5" else 0.8] * count + [0.1]
            run.table = table.assign(volume_angstrom3=np.pi / 6 * 1e6)
            record = detected.record.changed(warnings=["<b>dark?</b>"] if name == "TS_4" else [])
            model.write(record, run.path(".json"))
        (tmp_path / "TS_1" / "TS_1_report.html").touch()
        (tmp_path / "TS_8").mkdir()
        (tmp_path / "TS_8" / "TS_8_particles.csv").write_text("not finished")
        return tmp_path

    return make


def test_the_table_counts_what_was_kept_and_names_what_is_unusual(detections):
    table = overview_table(detections()).set_index("tomogram")
    assert table["particles"].to_dict() == COUNTS and set(table["dropped"]) == {1}
    assert table["unusual"].to_dict() == {
        **dict.fromkeys(("TS_1", "TS_2", "TS_4"), ""),
        **dict.fromkeys(("TS_3", "TS_7"), "few particles"),
        **{"TS_5": "low scores", "TS_6": "many particles"},
    }
    assert table.loc["TS_1", "median_diameter_angstrom"] == pytest.approx(100)
    assert table["report"].to_dict() == {**dict.fromkeys(COUNTS, ""), "TS_1": "TS_1/TS_1_report.html"}


def test_among_few_tomograms_nothing_is_unusual_and_no_name_is_a_formula(detections, tmp_path):
    assert set(overview_table(detections({"=1+1": 1, "B": 50, "TS_1": 90}))["unusual"]) == {""}
    cells = pd.read_csv(overview(tmp_path)[1], index_col="tomogram")
    assert set(cells.index) == {"'=1+1", "B", "TS_1"} and cells.loc["B", "particles"] == 50


def test_the_page_begins_with_what_is_unusual_links_reports_and_shows_text_as_text(detections, tmp_path, capsys):
    detections()
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'overview.html'}\n"
    page = (tmp_path / "overview.html").read_text()
    names = sorted(COUNTS, key=lambda one: page.index(f"{one}<"))
    assert set(names[:4]) == {"TS_3", "TS_5", "TS_6", "TS_7"} and names[4:] == ["TS_1", "TS_4", "TS_2"]
    assert '<a href="TS_1/TS_1_report.html">TS_1</a>' in page
    assert "&lt;b&gt;dark?&lt;/b&gt;" in page and "<b>" not in page
    assert len(pd.read_csv(tmp_path / "overview.csv")) == len(COUNTS)


def test_classes_are_counted_where_there_are_several(detections, tmp_path):
    detections({"TS_1": 3, "TS_2": 2, "TS_3": 1})
    for name, known in (("TS_1", {"vlp": 1000, "a": 2}), ("TS_2", {"vlp": 2, "b": 0}), ("TS_3", {"vlp": 1})):
        run = Run(tmp_path / name)
        run.note(classes={str(k): one for k, one in enumerate(known, 1)}, particles={"by_class": known})
    page, listed = overview(tmp_path)
    counts = pd.read_csv(listed, index_col="tomogram").filter(like="particles_").astype("Int64")
    assert list(counts) == ["particles_vlp", "particles_a", "particles_b"]
    assert counts.loc["TS_1"].tolist() == [1000, 2, pd.NA] and counts.loc["TS_3"].isna().all()
    rows = page.read_text().split("Particles by class</h2>")[1].split("<tr>")[2:]
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]
    assert cells == [
        ["TS_3", "–", "–", "–"],
        ["TS_2", "2", "–", "0"],
        ["TS_1", "1,000", "2", "–"],
        ["all", "1,002", "2", "0"],
    ]


def test_a_damaged_record_is_left_out_with_a_warning(detections, tmp_path):
    (detections() / "TS_1" / "TS_1.json").write_text("{")
    with pytest.warns(UserWarning, match=r"left out of the overview: .*TS_1\.json: expected JSON"):
        assert set(overview_table(tmp_path)["tomogram"]) == set(COUNTS) - {"TS_1"}


def test_a_folder_without_a_finished_detection_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected the output folder of detect, found no finished detection in it"):
        overview(tmp_path)
    assert list(tmp_path.iterdir()) == []
