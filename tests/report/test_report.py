"""report: one run -> one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from custom_transforms.volumes.mrc_write import write_instances, write_mrc
from scripts.report import center_map, gallery, render, summary
from scripts.report.inputs import load_run, run_prefix
from scripts.report.plots import histogram_figure, nearest_neighbor_angstrom, precision_recall
from scripts.report.report import make_report, report
from scripts.report.truth import compare
from tests.report.conftest import SHAPE, detect_balls

HOSTILE = "<script>alert('x')</script>\"&\n,"


def matches_of() -> pd.DataFrame:
    """As `evaluate` writes them: the first is right, the second false, the third covers two; one was missed."""
    rows = [
        ("true", 1, 1, "TP", "TP"),
        ("true", 2, 3, "merged", "TP"),
        ("true", 3, 3, "merged", "FN"),
        ("true", 4, 0, "FN", "FN"),
        ("true", 5, 0, "ignored", "ignored"),
        ("predicted", 1, 1, "TP", "TP"),
        ("predicted", 0, 2, "FP", "FP"),
        ("predicted", 2, 3, "merged", "TP"),
    ]
    frame = pd.DataFrame(rows, columns=["side", "true_label", "predicted_label", "outcome", "point_outcome"])
    return frame.assign(tomogram="TS_01", reason="because", x_angstrom=240.0, y_angstrom=40.0, z_angstrom=90.0)


class Page(HTMLParser):
    """What a browser would load, and the text it would show."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._script: str | None = None
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.loads += [named[a] for a in ("src", "href", "action", "poster", "data") if named.get(a)]
        if tag in ("script", "style"):
            self._script = named.get("id") or tag
            self.scripts[self._script] = ""

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._script = None

    def handle_data(self, data):
        if self._script is None:
            self.text += data
        else:
            self.scripts[self._script] += data

    def csv(self) -> str:
        return zlib.decompress(base64.b64decode(self.scripts["blob-csv"])).decode("utf-8")


def test_page_is_self_contained_and_holds_the_table(run):
    path = run.path("_report.html")
    page = Page(path)
    assert [u for u in page.loads if not u.startswith(("data:", "#"))] == []
    own = page.scripts["script"] + page.scripts["style"] + path.read_text("utf-8").split("<style>")[0]
    assert not re.search(r"https?://|//cdn|\bfetch\(|XMLHttpRequest|@import|url\(", own)
    assert "default-src 'none'" in path.read_text("utf-8")[:1500]
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(page.csv())), pd.read_csv(run.path("_particles.csv")))
    assert "3 particles found in TS_01: 28 × 20 × 12 voxels (x × y × z), 10 Å per voxel." in page.text
    assert "1 candidate did not pass the filters: 1 near a face of the tomogram." in page.text
    assert "shown at full resolution" in page.text and run.record.inputs.weights_sha256 in page.text
    assert {"blob-slices", "blob-labels", "blob-center"} <= set(page.scripts)


def test_a_report_made_again_is_the_same_but_for_its_date_and_has_the_center_map(run):
    def undated() -> str:
        return re.sub("Report made [^<]*", "", run.path("_report.html").read_text("utf-8"))

    first = undated()
    report(run.folder)
    assert undated() == first and 'id="blob-center"' in first
    assert (
        run.record.files["center_map"] == "TS_01_center_map.npz" and run.record.files["report"] == "TS_01_report.html"
    )


def test_a_center_map_larger_than_a_page_is_kept_binned(tmp_path, monkeypatch):
    monkeypatch.setattr(center_map, "MAX_VOXELS", 1000)
    values = np.random.default_rng(0).random(SHAPE)
    center_map.write(tmp_path / "map.npz", values, np.full(3, 10.0))
    kept = center_map.read(tmp_path / "map.npz")
    assert kept.binning_zyx == (2, 2, 2) and kept.values.shape == (6, 10, 14)
    expected = values.reshape(6, 2, 10, 2, 14, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(kept.values / 255, expected, atol=0.5 / 255 + 1e-6)


def test_old_and_damaged_folders_give_a_page_without_the_center_map_and_say_so(run):
    old = {"inputs", "tomogram", "particles", "files", "warnings"}
    content = {key: value for key, value in run.record.content().items() if key in old}
    run.path(".json").write_text(json.dumps({**content, "later": {"a": 1}}))
    run.path("_center_map.npz").write_text("no archive")
    assert "no center map: " in Page(report(run.folder)).text
    run.path("_center_map.npz").unlink()
    page = Page(report(run.folder))
    assert "No center map was kept with this detection, so the page shows none." in page.text
    assert "blob-center" not in page.scripts and "blob-slices" in page.scripts


def test_other_voxels_than_the_networks_know_are_named_in_the_page(tmp_path):
    found = detect_balls(tmp_path, voxel_size_model=14.0, keep_voxel_size=True)
    settings = found.record.inputs.settings
    assert (settings["voxel_size_model"], settings["keep_voxel_size"]) == (14.0, True)
    text = (
        "voxels of 10 Å, the networks know 14 Å: nothing was rescaled (keep_voxel_size), and particles may be missed."
    )
    assert text in Page(found.path("_report.html")).text


def test_a_report_that_cannot_be_made_costs_no_detection(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr("scripts.outputs.make_report", full)
    with pytest.warns(UserWarning, match="no report was written: the disk is full"):
        found = detect_balls(tmp_path)
    files = {path.name for path in found.folder.iterdir()}
    assert files == {*found.record.files.values(), "TS_01.json"} and "report" not in found.record.files
    assert "no report was written: the disk is full" in found.record.warnings and len(found.table) == 4
    assert "Noted while it ran" in Page(report(found.folder)).text


@pytest.mark.parametrize("n", [0, 1])
def test_zero_particles_and_one_particle_give_a_valid_page(run, n):
    run.table = run.table.head(n)
    page = Page(report(run.folder))
    assert ("Nothing was found" in page.text) == (n == 0)
    assert f"{n} particle{'s' if n == 0 else ''} found" in page.text
    assert len(page.csv().splitlines()) == n + 1


def test_long_voxels_are_named_and_distances_use_them(run):
    run.note(tomogram={**run.record.tomogram.content(), "voxel_size_zyx_angstrom": [20.0, 10.0, 10.0]})
    page = Page(report(run.folder))
    assert "Voxels are not cubes" in page.text and "10 × 10 × 20 Å per voxel (x × y × z)" in page.text
    distances = nearest_neighbor_angstrom(np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 3]]), np.array([20.0, 10.0, 10.0]))
    assert distances.tolist() == [20.0, 20.0, 30.0]


def test_hostile_names_are_text_everywhere(run):
    run.table = run.table.assign(**{"class": HOSTILE, "dropped_by": ["", "", "", HOSTILE]})
    run.note(**{"command": HOSTILE, "warnings": [HOSTILE], HOSTILE: HOSTILE})
    path = make_report(run.folder, title=HOSTILE)
    assert "<script>alert" not in path.read_text("utf-8")
    assert Page(path).text.count("<script>alert('x')</script>") >= 5
    assert set(pd.read_csv(io.StringIO(Page(path).csv()))["class"]) == {HOSTILE}


def test_several_classes_have_one_colour_and_their_counts_everywhere(run):
    plain = run.path("_report.html").read_text("utf-8")
    run.note(classes={"1": "4v4r", "2": "7", "3": "vlp"})
    kinds = {"class": ["7", "vlp", "7", "7"], "runner_up": ["4v4r", "7", "4v4r", "vlp"]}
    run.table = run.table.assign(**kinds, class_score=[0.9, 0.8, 0.5, 0.4])
    first, second, third = load_run(run.folder).classes.values()
    text, page = report(run.folder).read_text("utf-8"), Page(run.path("_report.html"))
    rows = [re.findall("<td[^>]*>(.*?)</td>", row) for row in text.split("<h3>Classes</h3>")[1].split("<tr>")[2:5]]
    assert [row[1:3] + row[4:] for row in rows] == [
        ["0", "0", "–", "–"],
        ["2", "1", "0.70", "4v4r"],
        ["1", "0", "0.80", "7"],
    ]
    assert [first in rows[0][0], second in rows[1][0], third in rows[2][0]] == [True] * 3
    data = json.loads(page.scripts["page-data"])
    assert data["classColours"] == [second, third]  # as counted in the page, dropped ones, too
    assert [data["figures"][f"class-{k}"]["data"][0]["marker"]["color"] for k in (0, 1)] == [second, third]
    headings = ["7: all, from the highest score to the lowest", "vlp: all, from the highest score to the lowest"]
    assert all(heading in page.text for heading in headings)
    strokes = [text.count(f'style="stroke: {colour}"') for colour in (first, second, third)]
    assert strokes == [0, 2, 1] and "By class" not in page.text
    of_classes = ('"classColours"', 'style="stroke', "<i style", "class-0", "Scores by class", "<h3>Classes")
    assert not [word for word in of_classes if word in plain]


def test_the_gallery_of_a_class_goes_from_its_best_to_its_worst():
    scores = np.arange(1, 31) / 31
    table = pd.DataFrame({"score": scores, "dropped_by": "", "class": ["a"] * 29 + [""]})
    table.loc[28, "dropped_by"] = "size"
    (title, rows), (_, none), (last, _) = gallery.choose_by_class(table, ["a", "b", ""], shown=4).items()
    assert title == "a: 4 of 28, from the highest score to the lowest" and last.startswith("No class: all")
    assert (rows["score"] * 31).round().tolist() == [28, 19, 10, 1] and none.empty


def test_the_table_to_download_holds_no_formula(run):
    run.table = run.table.assign(**{"class": "=1+1"})
    page = Page(report(run.folder))
    assert set(pd.read_csv(io.StringIO(page.csv()))["class"]) == {"'=1+1"}
    assert load_run(run.folder).particles["class"].tolist() == ["=1+1"] * 4


def test_page_stays_below_its_limit_and_says_how_much_it_binned(run, tmp_path):
    loaded, big = load_run(run.folder), np.ones((3, 8, 8))
    run.relabel(np.kron(loaded.instances, big.astype(np.int16)))
    center_map.write(run.path("_center_map.npz"), np.kron(loaded.center_map.values / 255, big), np.full(3, 10.0))
    noise = np.random.default_rng(0).normal(size=loaded.instances.shape * np.array(big.shape))
    write_mrc(tmp_path / "big.mrc", noise.astype(np.float32), 10.0)
    options = {"tomogram": tmp_path / "big.mrc", "output": tmp_path / "page.html"}
    free = make_report(run.folder, **options)
    limit = free.stat().st_size - 300_000
    assert "binned by" not in Page(free).text
    tight = make_report(run.folder, **options, max_bytes=limit)
    assert tight.stat().st_size <= limit and "binned by" in Page(tight).text
    none = make_report(run.folder, **options, max_bytes=0)
    assert "The tomogram does not fit into the page's size limit" in Page(none).text


def test_too_many_rows_keep_the_best_and_say_so(run, monkeypatch):
    monkeypatch.setattr(render, "MAX_ROWS", 2)
    run.table = run.table.assign(score=[0.9, 0.7, 0.4, 0.1])
    page = Page(report(run.folder))
    assert [line.split(",")[0] for line in page.csv().splitlines()[1:]] == ["1", "2"]
    assert "The page holds the 2 best of 4 table rows; TS_01_particles.csv beside it has all of them." in page.text


def test_a_tomogram_that_is_gone_leaves_the_particles(run):
    run.note(inputs={"tomogram": {"path": "gone.zarr"}})
    page = Page(report(run.folder))
    assert "The tomogram gone.zarr is not at hand any more" in page.text
    assert "blob-slices" not in page.scripts and "blob-labels" in page.scripts


def test_a_zarr_tomogram_is_shown_at_the_level_that_was_detected(run, tmp_path):
    pytest.importorskip("zarr")
    from tests.volumes.test_zarr import save_zarr

    tomogram = np.array(load_run(run.folder).tomogram)
    fine = tomogram.repeat(2, 0).repeat(2, 1).repeat(2, 2)  # save_zarr keeps every second voxel in the next level
    path = save_zarr(tmp_path / "TS_01.zarr", fine, 5.0)
    run.note(inputs={"tomogram": {"path": str(path)}})
    loaded = load_run(run.folder)
    assert np.array_equal(loaded.tomogram, tomogram) and not loaded.notes


def test_unusable_input_is_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected the folder of one detection"):
        report(tmp_path / "no" / "such")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match="empty.json: expected the record of a detection, found none"):
        report(empty)
    write_mrc(tmp_path / "small.mrc", np.zeros((12, 20, 27), np.float32), 10.0)
    with pytest.raises(ValueError, match=r"small.mrc: .* shape \(Z, Y, X\) \(12, 20, 28\) .* got \(12, 20, 27\)"):
        report(run.folder, tomogram=tmp_path / "small.mrc")
    page = run.path("_report.html").read_bytes()
    run.table = run.table.drop(columns="z_vox")
    with pytest.raises(ValueError, match="TS_01_particles.csv: expected the particle table .* z_vox missing"):
        report(run.folder)
    run.path("_particles.csv").unlink()
    with pytest.raises(FileNotFoundError, match="expected the particle table"):
        report(run.folder)
    assert run.path("_report.html").read_bytes() == page
    for name in "ab":
        (empty / f"{name}_particles.csv").write_text("")
    with pytest.raises(ValueError, match="found 2: a, b"):
        run_prefix(empty)


def test_what_evaluate_writes_is_what_the_report_reads(run, tmp_path):
    from scripts.evaluation.evaluate import evaluate  # imports torch: not for the other tests

    labels = np.array(load_run(run.folder).instances)
    true = np.zeros(SHAPE, np.int16)
    true[labels == 1] = 5  # found; the second is false, the third found, and one is missed
    true[labels == 3] = 6
    true[9:11, 3:6, 23:26] = 7
    write_instances(tmp_path / "truth.mrc", true, np.full(3, 10.0))
    evaluate(run.path("_instances.mrc"), tmp_path / "truth.mrc", tmp_path / "eval", bootstrap=0)
    comparison = compare(tmp_path / "eval", load_run(run.folder))
    assert comparison.outcome.tolist() == ["TP", "FP", "TP", ""]
    assert comparison.n_truth == 3 and comparison.misses_zyx_vox.tolist() == [[9.5, 4.0, 24.0]]
    assert re.search(r"volume\.recall\s*0\.667", Page(report(run.folder, evaluation=tmp_path / "eval")).text)


def test_the_folder_of_several_detections_names_them(tmp_path):
    for name in ("TS_01", "TS_02"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / f"{name}_particles.csv").touch()
    (tmp_path / "out" / "dataset").mkdir()
    (tmp_path / "out" / "dataset" / "TS_01_particles.csv").touch()  # of prepare
    with pytest.raises(ValueError, match=r"holds those of 2: .*out/TS_01, .*out/TS_02\. Give one of them"):
        report(tmp_path / "out")


def test_a_report_made_again_still_shows_the_evaluation(run, tmp_path, recwarn):
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    (evaluation / "metrics.json").write_text("{}")
    matches, detection = matches_of(), run.record
    matches.to_csv(evaluation / "matches.csv", index=False)

    def shows_truth(**options) -> bool:
        return "Compared with the truth" in Page(report(run.folder, **options)).text

    assert not shows_truth() and shows_truth(evaluation=evaluation) and shows_truth()
    assert run.record.changed(evaluation=None).content() == {**detection.content(), "evaluation": None}
    assert not [one for one in recwarn if "evaluation" in str(one.message)]
    matches.head(3).to_csv(evaluation / "matches.csv", index=False)
    with pytest.warns(UserWarning, match="TS_01: the evaluation in .*evaluation, .* has been written anew since"):
        assert not shows_truth()
    (evaluation / "matches.csv").unlink()
    with pytest.warns(UserWarning, match="is not there any more; the page is made without it"):
        assert not shows_truth()
    run.note(evaluation=None)  # as of a new detection
    assert not shows_truth()


def test_gallery_of_taught_picks_shows_both_sides_of_the_threshold():
    scores = np.arange(20) / 20
    dropped = np.where(scores < 0.5, "class", "")
    dropped[19] = "edge"  # it was left out for another reason
    groups = gallery.choose_taught(pd.DataFrame({"class_score": scores, "dropped_by": dropped}), 4)
    shown = {title.partition(":")[0]: rows["class_score"].round(2).tolist() for title, rows in groups.items()}
    assert shown == {
        "Most like your examples": [0.9, 0.85, 0.8, 0.75],
        "Just above the threshold": [0.65, 0.6, 0.55, 0.5],
        "Just below the threshold": [0.45, 0.4, 0.35, 0.3],
    }


def checks_of(run) -> list[str]:
    return [check["title"] for check in summary.checks(run)]


def test_checks_speak_up_only_when_something_is_odd(run):
    loaded = load_run(run.folder)
    record, table, tomogram = loaded.record, loaded.particles, np.array(loaded.tomogram)
    assert checks_of(loaded) == []
    loaded.tomogram = -tomogram
    assert checks_of(loaded) == ["The contrast looks inverted"]
    loaded.record = record.changed(inputs={"settings": {"contrast": "bright"}})
    assert checks_of(loaded) == []
    loaded.tomogram = tomogram
    loaded.record = record.changed(inputs={"tomogram": {"contrast": "bright"}, "settings": {"contrast": "dark"}})
    assert checks_of(loaded) == ["The contrast looks inverted"]
    loaded.record = record.changed(tomogram={"shape_zyx": list(SHAPE), "voxel_size_zyx_angstrom": [1.0] * 3})
    assert checks_of(loaded) == ["Odd voxel size"]
    loaded.record = record.changed(warnings=["odd header"])
    assert checks_of(loaded) == ["Noted while it ran"]
    loaded.record = record
    many = pd.concat([table] * 10, ignore_index=True).assign(dropped_by="", touches_border=False)
    loaded.particles = many.assign(touches_border=True)
    assert checks_of(loaded) == ["Many particles touch the border"]
    loaded.particles = many.assign(score=0.1)
    assert checks_of(loaded) == ["Low scores"]
    loaded.particles = many
    many.loc[:3, "dropped_by"] = "size"
    assert checks_of(loaded) == []  # a tenth
    many.loc[4:5, "dropped_by"] = "edge"
    (check,) = summary.checks(loaded)
    assert check["title"] == "Many candidates were dropped"
    reasons = "size 4 (smaller than the minimum size), edge 2 (near a face of the tomogram)"
    assert check["text"].startswith(f"6 of 40 candidates (15 %): {reasons}. ")
    loaded.particles = table.assign(dropped_by="size")
    assert checks_of(loaded) == ["Every candidate was dropped"]


def test_particles_with_gold_are_counted_among_what_deserves_a_look(run):
    loaded = load_run(run.folder)
    loaded.particles = loaded.particles.assign(flags=["gold", "", "membrane,gold", "gold"])  # the fourth was dropped
    (check,) = [one for one in summary.checks(loaded) if "Gold" in one["title"]]
    assert "2 of 3 particles hold what looks like a gold bead" in check["text"]
    loaded.particles.loc[0, "flags"] = ""
    assert "1 of 3 particles holds what" in next(c["text"] for c in summary.checks(loaded) if "Gold" in c["title"])
    loaded.particles["flags"] = np.nan  # what a CSV without a flag is read as
    assert not [one for one in summary.checks(loaded) if "Gold" in one["title"]]


def test_gallery_shows_the_kept_particles_and_no_particle_twice():
    scores = np.linspace(0, 1, 101)
    table = pd.DataFrame({"particle_id": range(101), "score": scores, "dropped_by": np.where(scores < 0.3, "size", "")})
    shown = {title.split()[0]: rows["score"].round(2).tolist() for title, rows in gallery.choose(table, 4).items()}
    assert shown["Best:"] == [1.0, 0.99, 0.98, 0.97] and shown["Worst:"] == [0.33, 0.32, 0.31, 0.3]
    assert shown["Typical:"] == [0.67, 0.66, 0.65, 0.64]
    assert sum(map(len, gallery.choose(table.tail(5), shown=4).values())) == 5
    assert list(gallery.choose(table.tail(4), shown=4)) == ["All particles, the highest scores first"]


def test_crops_at_the_border_keep_the_particle_in_the_middle(run):
    loaded = load_run(run.folder)
    loaded.instances = np.zeros(SHAPE, np.int16)
    loaded.instances[5, 0:2, 26:28] = 1
    picture = gallery.crop_picture(loaded, np.array([5.0, 0.0, 27.0]), 8, 1, "1", "", (-1.0, 1.0))
    points = np.array([pair.split(",") for pair in re.findall(r"[\d.]+,[\d.]+", picture.outline)], float)
    # crop pixel 4 is the center's voxel: x 26..27 lie at pixels 3..4, y 0..1 at 4..5, whose edges are 3..5 and 4..6
    np.testing.assert_allclose([points.min(0), points.max(0)], [[3, 4], [5, 6]], atol=0.51)
    outside = gallery.crop_picture(loaded, np.array([5.0, 99.0, 27.0]), 8, 1, "1", "", (-1.0, 1.0))
    assert outside.image == outside.outline == ""


def test_histograms_count_every_finite_value_once():
    values = np.array([0.1, 0.5, np.nan, 0.5, 1.0, np.inf])
    figure = histogram_figure({"kept": values, "dropped": np.zeros(3)}, "score", (0.0, 1.0))
    assert [sum(trace["y"]) for trace in figure["data"]] == [4, 3]
    tail = histogram_figure({"kept": np.append(np.arange(500.0), 1e9)}, "volume")
    assert sum(tail["data"][0]["y"]) == 501 and max(tail["data"][0]["x"]) < 1000
    assert histogram_figure({"kept": np.array([np.nan])}, "score") is None


def test_precision_and_recall_by_hand():
    recall, precision, average = precision_recall(np.array([True, False, True, False]), np.array([4.0, 3, 2, 2]), 4)
    assert recall.tolist() == [0.25, 0.25, 0.5] and precision.tolist() == [1.0, 0.5, 0.5]
    assert average == pytest.approx(0.25 * 1 + 0.25 * 0.5)


def test_truth_is_joined_to_the_particles_from_files_and_from_memory(run, tmp_path):
    run.table = run.table.assign(**{"class": "ribosome", "score": [0.9, 0.7, 0.4, 0.1]})
    matches = matches_of()
    scores = {"precision": 0.5, "recall": 0.25, "f1": None}
    metrics = {"tomograms": {"TS_01": {"volume": {"f1": 0.75}, "classes": {"ribosome": {"points": scores}}}}}
    taken = {"(none)": {"ribosome": 1}, "vlp": {"(none)": 3, "ribosome": 2}, "ribosome": {"ribosome": 4}}
    metrics["tomograms"]["TS_01"]["confusion"] = taken
    loaded = load_run(run.folder)
    comparison = compare({"metrics": metrics, "matches": matches}, loaded)
    rows = [("ribosome", [4, 0]), ("vlp", [2, 3]), ("(none)", [1, 0])]
    assert comparison.confusion() == (["ribosome", "(none)"], rows)
    assert comparison.outcome.tolist() == ["TP", "FP", "merged", ""]
    assert comparison.counts() == {"TP": 1, "merged": 1, "split": 0, "FP": 1, "FN": 1}
    assert comparison.misses_zyx_vox.tolist() == [[9.0, 4.0, 24.0]] and comparison.n_truth == 4
    assert comparison.scored["outcome"].tolist() == ["TP", "FP", "TP"]  # by centers
    assert comparison.scored["score"].tolist() == [0.9, 0.7, 0.4]
    short = matches[matches["side"] == "predicted"][["predicted_label", "outcome"]]
    assert compare({"matches": short}, loaded).outcome.tolist() == comparison.outcome.tolist()
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    matches.to_csv(tmp_path / "matches.csv", index=False)
    page = Page(make_report(run.folder, evaluation=tmp_path))
    assert (
        "1 right; none split; 2 particles merged into 1 detection; 1 false; 1 of 4 true particles missed." in page.text
        and "volume.f1" in page.text
    )
    known = r"class\s*precision \(centers\)\s*recall \(centers\)\s*ribosome\s*0.500\s*0.250\s*Who was taken"
    assert re.search(known, page.text)  # a score that no class has gets no column
    assert re.search(r"found as\s*ribosome\s*missed\s*ribosome\s*4\s*–\s*vlp\s*2\s*3\s*made up\s*1\s*–", page.text)
    assert "Scores say nothing about particles that were missed." in page.text
    assert "without WebGL flat, seen from above" in page.text and "scroll sideways" in page.text
    assert "Missed: in the truth, but not found" in page.text and "False: found, but not in the truth" in page.text
    assert re.search(r"merged\s*one found particle covers several true ones\s*1\s*2\s*split", page.text)
    assert "missed (false negative, FN)" in page.text
    pieces = matches.assign(outcome=matches["outcome"].replace({"TP": "split", "merged": "split", "FP": "split"}))
    split = compare({"matches": pieces}, loaded).sentence()
    assert split == "0 right; 3 particles split into 3 detections; none merged; 0 false; 1 of 4 true particles missed"
    assert compare({"matches": short}, loaded).sentence().startswith("1 right; 0 detections split; 1 detection merged;")
    with pytest.raises(ValueError, match="expected a column outcome"):
        compare({"matches": matches.drop(columns="outcome")}, loaded)
    with pytest.raises(FileNotFoundError, match="metrics.json"):
        compare(tmp_path / "elsewhere", loaded)
