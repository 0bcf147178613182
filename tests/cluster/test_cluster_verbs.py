"""Every verb on workers gives what it gives without, byte by byte."""

import json
import os
import shutil
from functools import partial

import numpy as np
import pytest

from custom_transforms.files.claim import CLAIM, claimed
from custom_transforms.instances import METHODS
from custom_transforms.io import write_mrc
from scripts.cluster.workers import Workers
from scripts.command_line.export import export
from scripts.detection import batch
from scripts.detection.one_volume import NetworkElsewhere
from scripts.detection.plan import LARGEST_BLOCK
from scripts.detection.streaming import CHUNKS, Scratch, block_sides
from scripts.evaluation.evaluate import evaluate
from scripts.preparation.prepare import prepare
from scripts.simulate.simulate import simulate
from tests.cluster.in_process import Travels, threads  # noqa: F401  fixture
from tests.command_line.test_export import detections
from tests.conftest import balls
from tests.detection.detect_scene import files_of
from tests.detection.test_classes import DIAMETERS, NAMES, SHAPE, THRESHOLDS, class_prediction, in_blocks, in_memory
from tests.detection.test_streaming import assert_same
from tests.simulate.test_simulate import SCENE

VERBS = {
    "simulate": lambda folder, out, cluster: simulate(SCENE, out, n=3, seed=2, cluster=cluster),
    "prepare": lambda folder, out, cluster: prepare(
        f"{folder}/t_*.mrc", particles=f"{folder}/{{name}}.csv", radius=50.0, output_dir=out, recenter=20.0,
        cluster=cluster,
    ),
    "evaluate": lambda folder, out, cluster: evaluate(
        f"{folder}/predicted", f"{folder}/true", out, bootstrap=20, cluster=cluster
    ),
    "export": lambda folder, out, cluster: export(
        f"{folder}/detections", f"{out}.star", to_format="relion5", binning=2.0, cluster=cluster
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def tomograms(tmp_path_factory):
    """Tomograms with lists, each with a class of its own; labels of two sides; detections."""
    folder = tmp_path_factory.mktemp("verbs")
    for index in range(3):
        labels = balls((20, 28, 36), seed=index)
        noise = np.random.default_rng(index).normal(0, 0.2, labels.shape)
        write_mrc(folder / f"t_{index}.mrc", (noise - (labels > 0)).astype(np.float32), 10.0)
        rows = [f"{x},{y},{z},{'cab'[index]}" for x, y, z in ((12, 9, 8), (25, 20, 11))]
        (folder / f"t_{index}.csv").write_text("\n".join(["x_vox,y_vox,z_vox,class", *rows]) + "\n")
        for side, shift in (("predicted", 0), ("true", index)):
            write_mrc(folder / side / f"t_{index}.mrc", np.roll(labels, shift, 1).astype(np.int16), 10.0)
    detections(folder / "detections")
    return folder


@pytest.mark.parametrize("verb", VERBS)
def test_on_workers_as_one_after_another(verb, tomograms, tmp_path, monkeypatch, threads):  # noqa: F811
    found = []
    for cluster in (None, "any"):
        (tmp_path / "place").mkdir()
        monkeypatch.chdir(tmp_path / "place")
        VERBS[verb](tomograms, "out", cluster)
        found.append(files_of(tmp_path / "place"))
        shutil.rmtree(tmp_path / "place")
    assert found[0] == found[1] and found[0]


@pytest.mark.slow
def test_detected_on_workers_as_one_after_another_and_a_bad_file_is_accounted_for(setting, tmp_path, command):
    folder, _ = setting
    bad = tmp_path / "bad.mrc"
    bad.write_bytes(b"no tomogram")
    tomograms = [folder / "tomogram_0.mrc", bad, folder / "tomogram_1.mrc"]
    results = {}
    for name, options in {"here": (), "workers": ("--cluster", "local")}.items():
        code, out, err = command(*tomograms, *options)
        assert code == 1 and f"error: {bad}" in err and "1 of 3 tomograms failed" in err, err
        made = tmp_path / "2024_01"
        failed = json.loads((made / "failed" / "bad.json").read_text())
        assert failed["tomogram"] == str(bad) and "bad.mrc" in failed["error"]
        records = [json.loads((made / one / f"{one}.json").read_text()) for one in ("tomogram_0", "tomogram_1")]
        for record in records:
            del record["timings_seconds"]
        same = {key: value for key, value in files_of(made).items() if key.endswith(("mrc", "csv", "star", "txt"))}
        results[name] = (
            {record["command"].removesuffix(" --cluster local") for record in records},
            records[0]["inputs"],
            same,
        )
        made.rename(tmp_path / name)
    assert results["here"] == results["workers"]
    # what is done is not done again, and an account of a failure that is over goes
    (tmp_path / "workers").rename(tmp_path / "2024_01")
    bad.write_bytes((folder / "tomogram_0.mrc").read_bytes())
    code, out, _ = command(*tomograms)
    assert code == 0 and out.count("done before") == 2
    assert not (tmp_path / "2024_01" / "failed" / "bad.json").exists()


def test_a_second_start_works_aside_and_counts_unless_the_first_is_done(setting, tmp_path):
    folder, options = setting
    item = {"image": str(folder / "tomogram_0.mrc")}

    def start(name, second):
        detector = {"overrides": {**options, "output_dir": str(tmp_path / name), "report": False, "runtime": "torch"}}
        done = batch.Task(batch.Batch(detector, str(tmp_path / name), run="this"))(item, second)
        assert not done.failure and done.facts["written"], done
        return {file: data for file, data in files_of(tmp_path / name).items() if file != "tomogram_0.json"}

    with claimed(tmp_path / "second" / "tomogram_0"):  # by the first start, on another worker
        second = start("second", second=True)
    claim = tmp_path / "died" / "tomogram_0" / CLAIM  # by a worker that died on another machine, a moment ago
    claim.parent.mkdir(parents=True)
    claim.write_text(json.dumps({"host": "another", "process": 1, "run": "this"}))
    assert start("died", second=False) == second | {CLAIM: claim.read_bytes()}
    assert start("first", second=False) == {file: data for file, data in second.items() if file != CLAIM}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "first").rglob("*") if path.is_file()}
    start("first", second=True)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "first").rglob("*") if path.is_file()}


@pytest.mark.parametrize("more", [{"region": "region.mrc"}, {"voxel_size_model": 13.0}], ids=str)
def test_one_volume_over_workers_is_the_streamed_one(more, setting, tmp_path, monkeypatch, threads):  # noqa: F811
    """Its tiles are run and its blocks labelled elsewhere; also if it is rescaled, and outside a region."""
    monkeypatch.setattr("scripts.detection.plan.LARGEST_BLOCK", 25)
    noise, inside = np.random.default_rng(3).normal(0, 0.2, (20, 24, 48)), np.zeros((20, 24, 48), np.int8)
    inside[:, 5:, :40] = 1
    write_mrc(tmp_path / "region.mrc", inside, 10.0)
    write_mrc(tmp_path / "t.mrc", (noise - (balls(noise.shape, 0) > 0)).astype(np.float32), 10.0)
    more = {key: str(tmp_path / value) if key == "region" else value for key, value in more.items()}
    found, rounds, map_blocks = [], [], NetworkElsewhere.map_blocks
    monkeypatch.setattr(
        NetworkElsewhere, "map_blocks", lambda self, *about: rounds.append(len(about[2])) or map_blocks(self, *about)
    )
    for cluster in (None, "any"):
        place = tmp_path / str(cluster)
        overrides = {**setting[1], **more, "tile": [16, 32, 32], "output_dir": str(place), "report": False}
        options = {"overrides": {**overrides, "runtime": "torch"}, "stream": True}
        task, items = batch.Batch(options, str(place)), [{"image": str(tmp_path / "t.mrc")}]
        assert [done.failure for done in batch.detect_batch(task, batch.Detector(**options), items, cluster)] == [""]
        files = files_of(place)
        found.append((json.loads(files.pop("t.json"))["computed"], files))
    assert found[0] == found[1] and found[0][0]["path"] == "streamed" and rounds == [2] * 5


@pytest.mark.parametrize("method", METHODS)
def test_blocks_labelled_by_workers_are_those_labelled_here(method, tmp_path):
    """With classes; the volumes are in a folder, whose chunks no two blocks share, and only small things come back."""
    prediction, voxel = class_prediction(5, levels=5), np.array([13.0, 10.0, 10.0])
    rules, (side, chunks), found = (DIAMETERS, THRESHOLDS, NAMES, method), block_sides(15), []
    with Travels(2) as pool:
        elsewhere = NetworkElsewhere(Workers(pool, lambda: 2, 2), {}, tmp_path, "t")
        for name, run in (("here", map), ("workers", partial(elsewhere.map_blocks, tmp_path))):
            scratch = Scratch(tmp_path / name, SHAPE, chunks)
            found.append(in_blocks(prediction, voxel, side, *rules, scratch=scratch, run=run))
    assert (found[0][0] == found[1][0]).all() and found[0][1].equals(found[1][1])
    assert_same(found[1], in_memory(prediction, voxel, *rules))


def test_blocks_share_no_chunk_and_are_hardly_smaller_than_planned():
    for block in range(1, LARGEST_BLOCK + 1):
        for side, chunk, largest in zip(*block_sides(block), CHUNKS, strict=True):
            assert side % chunk == 0 and chunk <= largest and block - 16 < side <= block


def lose(folder, box):
    shutil.rmtree(folder)
    (folder / "owners").mkdir(parents=True)  # as Zarr does when it writes


def test_a_block_that_ends_after_its_volume_leaves_nothing_behind(tmp_path):
    (tmp_path / "scratch").mkdir()
    with Travels(1) as pool:
        elsewhere = NetworkElsewhere(Workers(pool, lambda: 1, 1), {}, tmp_path, "t")
        assert list(elsewhere.map_blocks(tmp_path / "scratch", partial(lose, tmp_path / "scratch"), [()])) == [None]
    assert list(tmp_path.iterdir()) == []


def test_a_tomogram_that_another_batch_has_comes_last_and_counts_once(
    setting,
    tmp_path,
    monkeypatch,
    capsys,
    threads,  # noqa: F811
):
    """Of two batches over the same tomograms, here or on workers, each does what the other has not begun."""
    folder, options = setting
    items = [{"image": str(folder / f"tomogram_{index}.mrc")} for index in range(2)]
    for cluster in (None, "any"):
        place = tmp_path / str(cluster)
        detector = {"overrides": {**options, "output_dir": str(place), "report": False, "runtime": "torch"}}
        claim = place / "tomogram_0" / CLAIM
        claim.parent.mkdir(parents=True)
        claim.write_text(json.dumps({"host": "another", "process": 7, "run": "other"}))
        looks = []

        def pause(seconds, claim=claim, looks=looks, place=place):
            if seconds:
                looks.append(seconds)
                assert (place / "tomogram_1" / "tomogram_1.json").exists()
                if len(looks) == 2:
                    claim.unlink()  # the other one stopped before its end

        monkeypatch.setattr(batch.time, "sleep", pause)
        done = list(batch.detect_batch(batch.Batch(detector, str(place)), batch.Detector(**detector), items, cluster))
        assert [os.path.basename(one.path) for one in done] == ["tomogram_1.mrc", "tomogram_0.mrc"]
        assert not any(one.failure for one in done) and len(looks) == 2 and not (place / "failed").exists()
        said = capsys.readouterr().err
        assert said.count("tomogram_0.mrc: waits, for") == 1 and "(host another, process 7)" in said
