"""report: one run -> one self-contained HTML page."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest

from custom_transforms.units import voxel_zyx_to_angstrom_xyz
from custom_transforms.volumes.mrc_write import write_instances
from scripts.report import gallery, render, summary
from scripts.report.inputs import load_run, run_prefix
from scripts.report.plots import histogram_figure, nearest_neighbor_angstrom, precision_recall
from scripts.report.report import make_report, report
from scripts.report.truth import compare

SHAPE = (12, 20, 28)
CENTERS_ZYX = np.array([[3.0, 5.0, 6.0], [8.0, 14.0, 20.0], [6.0, 10.0, 13.0], [9.0, 4.0, 24.0]])
SCORES = np.array([0.9, 0.7, 0.4, 0.1])
HOSTILE = "<script>alert('x')</script>\"&\n,"


def make_run(n: int = 4, voxel_size=(10.0, 10.0, 10.0)) -> dict:
    """Balls of radius 3 voxels, dark in noise; the last of four was dropped by a filter."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    instances = np.zeros(SHAPE, np.int16)
    centers, voxel_size = CENTERS_ZYX[:n], np.array(voxel_size)
    dropped = np.arange(n) == 3
    for i, center in enumerate(centers):
        if not dropped[i]:
            instances[((grid - center) ** 2).sum(-1) <= 9] = i + 1
    tomogram = rng.normal(size=SHAPE).astype(np.float32) * 0.3 - (instances > 0)
    angstrom = voxel_zyx_to_angstrom_xyz(centers, voxel_size)
    table = pd.DataFrame(
        {
            "particle_id": np.arange(1, n + 1),
            "label": np.where(dropped, 0, np.arange(1, n + 1)),
            "class": ["ribosome", "proteasome", "ribosome", ""][:n],
            **{f"{axis}_vox": centers[:, 2 - k] for k, axis in enumerate("xyz")},
            **{f"{axis}_angstrom": angstrom[:, k] for k, axis in enumerate("xyz")},
            "score": SCORES[:n],
            "volume_vox": 123,
            "volume_angstrom3": 123.0 * voxel_size.prod(),
            "touches_border": False,
            "neighbors": 2,
            "dropped_by": np.where(dropped, "size", ""),
        }
    )
    info = {"tomogram": {"voxel_size_zyx_angstrom": list(voxel_size)}, "weights_sha256": "ab" * 32, "warnings": []}
    center_map = np.where(instances > 0, 0.8, 0.0).astype(np.float32)
    return {"tomogram": tomogram, "instances": instances, "center_map": center_map, "particles": table, "info": info}


def matches_of(table: pd.DataFrame) -> pd.DataFrame:
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


def test_page_is_self_contained_and_holds_the_table(tmp_path):
    run = make_run()
    path = make_report(tmp_path / "TS_01", **run)
    assert path == tmp_path / "TS_01_report.html" and [p.name for p in tmp_path.iterdir()] == [path.name]
    page = Page(path)
    assert [u for u in page.loads if not u.startswith(("data:", "#"))] == []
    own = page.scripts["script"] + page.scripts["style"] + path.read_text("utf-8").split("<style>")[0]
    assert not re.search(r"https?://|//cdn|\bfetch\(|XMLHttpRequest|@import|url\(", own)
    assert "default-src 'none'" in path.read_text("utf-8")[:1500]
    assert page.csv() == run["particles"].to_csv(index=False, float_format="%.7g", lineterminator="\n")
    assert "3 particles found in TS_01: 28 × 20 × 12 voxels (x × y × z), 10 Å per voxel." in page.text
    assert "1 candidate did not pass the filters: 1 smaller than the minimum size." in page.text
    assert "shown at full resolution" in page.text and "ab" * 32 in page.text


def test_inputs_are_left_unchanged(tmp_path):
    run, same = make_run(), make_run()
    make_report(tmp_path / "t", **run)
    for name in ("tomogram", "instances", "center_map"):
        np.testing.assert_array_equal(run[name], same[name])
    pd.testing.assert_frame_equal(run["particles"], same["particles"])
    assert run["info"] == same["info"]


@pytest.mark.parametrize("n", [0, 1])
def test_zero_particles_and_one_particle_give_a_valid_page(tmp_path, n):
    page = Page(make_report(tmp_path / "t", **make_run(n)))
    assert ("Nothing was found" in page.text) == (n == 0)
    assert f"{n} particle{'s' if n == 0 else ''} found" in page.text
    assert len(page.csv().splitlines()) == n + 1


def test_long_voxels_are_named_and_distances_use_them(tmp_path):
    page = Page(make_report(tmp_path / "t", **make_run(voxel_size=(20.0, 10.0, 10.0))))
    assert "Voxels are not cubes" in page.text and "10 × 10 × 20 Å per voxel (x × y × z)" in page.text
    distances = nearest_neighbor_angstrom(np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 3]]), np.array([20.0, 10.0, 10.0]))
    assert distances.tolist() == [20.0, 20.0, 30.0]


def test_hostile_names_are_text_everywhere(tmp_path):
    run = make_run()
    run["particles"]["class"] = HOSTILE
    run["particles"].loc[3, "dropped_by"] = HOSTILE
    run["info"] |= {"command": HOSTILE, HOSTILE: HOSTILE, "warnings": [HOSTILE]}
    path = make_report(tmp_path / "t", title=HOSTILE, **run)
    assert "<script>alert" not in path.read_text("utf-8")
    assert Page(path).text.count("<script>alert('x')</script>") >= 5
    assert Page(path).csv() == run["particles"].to_csv(index=False, float_format="%.7g", lineterminator="\n")


def test_page_stays_below_its_limit_and_says_how_much_it_binned(tmp_path):
    run = make_run()
    big = {name: np.kron(run[name], np.ones((3, 8, 8), run[name].dtype)) for name in ("instances", "center_map")}
    tomogram = np.random.default_rng(0).normal(size=big["instances"].shape).astype(np.float32)
    run |= big | {"tomogram": tomogram}
    free = make_report(tmp_path / "free", **run)
    limit = free.stat().st_size - 300_000
    tight = make_report(tmp_path / "tight", **run, max_bytes=limit)
    assert tight.stat().st_size <= limit
    assert "binned by" in Page(tight).text and "binned by" not in Page(free).text
    none = make_report(tmp_path / "none", **run, max_bytes=0)
    assert "The tomogram does not fit into the page's size limit" in Page(none).text


def test_too_many_rows_keep_the_best_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "MAX_ROWS", 2)
    page = Page(make_report(tmp_path / "t", **make_run()))
    assert [line.split(",")[0] for line in page.csv().splitlines()[1:]] == ["1", "2"]
    assert "The page holds the 2 best of 4 table rows; t_particles.csv beside it has all of them." in page.text


def test_run_folder_is_read_as_detect_wrote_it(tmp_path):
    run, folder = make_run(), tmp_path / "out" / "TS_01"
    folder.mkdir(parents=True)
    for name, file in (("tomogram", tmp_path / "TS_01.mrc"), ("instances", folder / "TS_01_instances.mrc")):
        with mrcfile.new(file) as mrc:
            mrc.set_data(run[name])
            mrc.voxel_size = 10.0
    run["particles"].to_csv(folder / "TS_01_particles.csv", index=False)
    info = run["info"] | {"inputs": {"tomogram": {"path": str(tmp_path / "TS_01.mrc")}}}
    (folder / "TS_01.json").write_text(json.dumps(info))
    page = Page(report(folder))
    assert "3 particles found in TS_01" in page.text and "blob-slices" in page.scripts
    (tmp_path / "TS_01.mrc").unlink()
    page = Page(report(folder))
    assert (
        "is not at hand any more" in page.text and "blob-slices" not in page.scripts and "blob-labels" in page.scripts
    )
    loaded = load_run(folder)
    np.testing.assert_array_equal(loaded.instances, run["instances"])
    assert loaded.voxel_size_zyx.tolist() == [10.0] * 3


def test_a_zarr_tomogram_is_shown_at_the_level_that_was_detected(tmp_path):
    pytest.importorskip("zarr")
    from tests.volumes.test_zarr import save_zarr

    run = make_run()
    tomogram = run.pop("tomogram")
    fine = tomogram.repeat(2, 0).repeat(2, 1).repeat(2, 2)  # save_zarr keeps every second voxel in the next level
    path = save_zarr(tmp_path / "TS_01.zarr", fine, 5.0)
    info = {**run["info"], "inputs": {"tomogram": {"path": str(path)}}}
    loaded = load_run(tmp_path / "TS_01", **{**run, "info": info})
    assert np.array_equal(loaded.tomogram, tomogram) and not loaded.notes
    gone = load_run(
        tmp_path / "TS_01", **{**run, "info": {**info, "inputs": {"tomogram": {"path": str(tmp_path / "gone.zarr")}}}}
    )
    assert gone.tomogram is None and "gone.zarr is not at hand any more" in gone.notes[0]
    unsized = {
        **run,
        "info": {},
        "particles": run["particles"].drop(columns=["z_angstrom", "y_angstrom", "x_angstrom"]),
    }
    assert np.array_equal(load_run(tmp_path / "TS_01", tomogram=path / "1", **unsized).tomogram, tomogram)


def test_unusable_input_is_named(tmp_path):
    run = make_run()
    with pytest.raises(FileNotFoundError, match="expected the folder of one detection"):
        report(tmp_path / "no" / "such")
    with pytest.raises(FileNotFoundError, match="expected the particle table"):
        report(tmp_path)
    with pytest.raises(
        ValueError, match="volumes of one shape .* tomogram \\(12, 20, 28\\), instances \\(12, 20, 27\\)"
    ):
        make_report(tmp_path / "t", **run | {"instances": run["instances"][:, :, :-1]})
    with pytest.raises(ValueError, match="expected a 3D tomogram"):
        make_report(tmp_path / "t", **run | {"tomogram": run["tomogram"][0]})
    with pytest.raises(ValueError, match="z_vox missing"):
        make_report(tmp_path / "t", **run | {"particles": run["particles"].drop(columns="z_vox")})
    for name in "ab":
        (tmp_path / f"{name}_particles.csv").write_text("")
    with pytest.raises(ValueError, match="found 2: a, b"):
        run_prefix(tmp_path)
    assert list(tmp_path.glob("*.html")) == []


def test_missing_record_and_columns_are_tolerated(tmp_path):
    table = make_run()["particles"][["x_vox", "y_vox", "z_vox"]]
    page = Page(make_report(tmp_path / "t", particles=table, info={}))
    assert "4 particles found in t: unknown voxel size." in page.text
    assert "The run left no record of its settings." in page.text and "Voxel size unknown" in page.text


def test_what_evaluate_writes_is_what_the_report_reads(tmp_path):
    from scripts.evaluation.evaluate import evaluate  # imports torch: not for the other tests

    run = make_run()
    true = np.zeros(SHAPE, np.int16)
    true[run["instances"] == 1] = 5  # found; the second is false, the third found, and one is missed
    true[run["instances"] == 3] = 6
    true[9:11, 3:6, 23:26] = 7
    for name, labels in (("TS_01_instances", run["instances"]), ("truth", true)):
        write_instances(tmp_path / f"{name}.mrc", labels, np.full(3, 10.0))
    evaluate(tmp_path / "TS_01_instances.mrc", tmp_path / "truth.mrc", tmp_path / "eval", bootstrap=0, coloured=False)
    comparison = compare(tmp_path / "eval", load_run(tmp_path / "TS_01", **run))
    assert comparison.outcome.tolist() == ["TP", "FP", "TP", ""]
    assert comparison.n_truth == 3 and comparison.misses_zyx_vox.tolist() == [[9.5, 4.0, 24.0]]
    page = Page(make_report(tmp_path / "TS_01", **run, evaluation=tmp_path / "eval"))
    assert re.search(r"volume\.recall\s*0\.667", page.text)


def test_the_folder_of_several_detections_names_them(tmp_path):
    for name in ("TS_01", "TS_02"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / f"{name}_particles.csv").touch()
    (tmp_path / "out" / "dataset").mkdir()
    (tmp_path / "out" / "dataset" / "TS_01_particles.csv").touch()  # of prepare
    with pytest.raises(ValueError, match=r"holds those of 2: .*out/TS_01, .*out/TS_02\. Give one of them"):
        report(tmp_path / "out")


def test_a_report_made_again_still_shows_the_evaluation(tmp_path, recwarn):
    run = make_run()
    folder, evaluation = tmp_path / "TS_01", tmp_path / "evaluation"
    folder.mkdir()
    evaluation.mkdir()
    run["particles"].to_csv(folder / "TS_01_particles.csv", index=False)
    (folder / "TS_01.json").write_text(json.dumps(run["info"]))
    (evaluation / "metrics.json").write_text("{}")
    matches = matches_of(run["particles"])
    matches.to_csv(evaluation / "matches.csv", index=False)

    def shows_truth(**options) -> bool:
        return "Compared with the truth" in Page(report(folder, **options)).text

    assert not shows_truth() and shows_truth(evaluation=evaluation) and shows_truth()
    record = json.loads((folder / "TS_01.json").read_text())
    assert {key: record[key] for key in run["info"]} == run["info"]
    assert not [one for one in recwarn if "evaluation" in str(one.message)]
    matches.head(3).to_csv(evaluation / "matches.csv", index=False)
    with pytest.warns(UserWarning, match="TS_01: the evaluation in .*evaluation, .* has been written anew since"):
        assert not shows_truth()
    (evaluation / "matches.csv").unlink()
    with pytest.warns(UserWarning, match="is not there any more; the page is made without it"):
        assert not shows_truth()
    (folder / "TS_01.json").write_text(json.dumps(run["info"]))  # a new detection
    assert not shows_truth()


def warnings_of(tmp_path, **changes) -> list[str]:
    run = make_run() | changes
    return [check["title"] for check in summary.checks(load_run(tmp_path / "t", **run))]


def test_checks_speak_up_only_when_something_is_odd(tmp_path):
    run = make_run()
    info, table = run["info"], run["particles"]
    many = pd.concat([table] * 10, ignore_index=True).assign(dropped_by="")
    assert warnings_of(tmp_path) == []
    assert warnings_of(tmp_path, tomogram=-run["tomogram"]) == ["The contrast looks inverted"]
    assert warnings_of(tmp_path, tomogram=-run["tomogram"], info=info | {"contrast": "bright"}) == []
    assert warnings_of(tmp_path, info={"voxel_size": 1.0}) == ["Odd voxel size"]
    assert warnings_of(tmp_path, info=info | {"model_voxel_size": 14.0}) == ["Model and tomogram differ in voxel size"]
    assert warnings_of(tmp_path, particles=many.assign(touches_border=True)) == ["Many particles touch the border"]
    assert warnings_of(tmp_path, particles=many.assign(score=0.1)) == ["Low scores"]
    many.loc[:3, "dropped_by"] = "size"
    assert warnings_of(tmp_path, particles=many) == []  # a tenth
    many.loc[4:5, "dropped_by"] = "edge"
    (check,) = summary.checks(load_run(tmp_path / "t", **run | {"particles": many}))
    assert check["title"] == "Many candidates were dropped"
    reasons = "size 4 (smaller than the minimum size), edge 2 (near a face of the tomogram)"
    assert check["text"].startswith(f"6 of 40 candidates (15 %): {reasons}. ")
    many["dropped_by"] = ""
    expected = {"score_quantiles": {"0.1": 0.8, "0.5": 0.9, "0.9": 0.95}}
    assert warnings_of(tmp_path, particles=many, info=info | expected) == ["Scores are unlike those of the training"]
    assert warnings_of(tmp_path, particles=table.assign(dropped_by="size")) == ["Every candidate was dropped"]
    assert warnings_of(tmp_path, info=info | {"warnings": ["odd header"]}) == ["Noted while it ran"]


def test_particles_with_gold_are_counted_among_what_deserves_a_look(tmp_path):
    run = make_run()
    run["particles"] = run["particles"].assign(flags=["gold", "", "membrane,gold", "gold"])  # the fourth was dropped
    loaded = load_run(tmp_path / "TS_01", **run)
    (check,) = [one for one in summary.checks(loaded) if "Gold" in one["title"]]
    assert "2 of 3 particles hold what looks like a gold bead" in check["text"]
    loaded.particles.loc[0, "flags"] = ""
    assert "1 of 3 particles holds what" in next(c["text"] for c in summary.checks(loaded) if "Gold" in c["title"])
    loaded.particles["flags"] = np.nan  # what a CSV without a flag is read as
    assert not [one for one in summary.checks(loaded) if "Gold" in one["title"]]


def test_gallery_shows_no_particle_twice_and_the_threshold_with_dropped_ones():
    scores = np.linspace(0, 1, 101)
    table = pd.DataFrame(
        {"particle_id": range(101), "score": scores, "dropped_by": np.where(scores < 0.3, "score", "")}
    )
    groups = gallery.choose(table, 0.3, shown=4)
    shown = {title.split()[0]: rows["score"].round(2).tolist() for title, rows in groups.items()}
    assert shown["Best:"] == [1.0, 0.99, 0.98, 0.97] and shown["Worst:"] == [0.33, 0.32, 0.31, 0.3]
    assert sorted(shown["Around"]) == [0.26, 0.27, 0.28, 0.29]
    few = gallery.choose(table.tail(5), None, shown=4)
    assert sum(map(len, few.values())) == 5
    assert list(gallery.choose(table.tail(4), None, shown=4)) == ["All particles, the highest scores first"]


def test_crops_at_the_border_keep_the_particle_in_the_middle(tmp_path):
    run = make_run()
    instances = np.zeros(SHAPE, np.int16)
    instances[5, 0:2, 26:28] = 1
    loaded = load_run(tmp_path / "t", **run | {"instances": instances})
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


def test_truth_is_joined_to_the_particles_from_files_and_from_memory(tmp_path):
    run = make_run()
    matches = matches_of(run["particles"])
    scores = {"precision": 0.5, "recall": 0.25, "f1": None}
    metrics = {"tomograms": {"t": {"volume": {"f1": 0.75}, "classes": {"ribosome": {"points": scores}}}}}
    loaded = load_run(tmp_path / "t", **run)
    comparison = compare({"metrics": metrics, "matches": matches}, loaded)
    assert comparison.outcome.tolist() == ["TP", "FP", "merged", ""]
    assert comparison.counts() == {"TP": 1, "merged": 1, "split": 0, "FP": 1, "FN": 1}
    assert comparison.misses_zyx_vox.tolist() == [[9.0, 4.0, 24.0]] and comparison.n_truth == 4
    assert comparison.scored["outcome"].tolist() == ["TP", "FP", "TP"]  # by centers
    assert comparison.scored["score"].tolist() == [0.9, 0.7, 0.4]
    short = matches[matches["side"] == "predicted"][["predicted_label", "outcome"]]
    assert compare({"matches": short}, loaded).outcome.tolist() == comparison.outcome.tolist()
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    matches.to_csv(tmp_path / "matches.csv", index=False)
    page = Page(make_report(tmp_path / "t", **run, evaluation=tmp_path))
    assert (
        "1 right; none split; 2 particles merged into 1 detection; 1 false; 1 of 4 true particles missed." in page.text
        and "volume.f1" in page.text
    )
    assert re.search(r"ribosome\s*0.500\s*0.250\s*–", page.text)
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
