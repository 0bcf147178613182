"""detect and simulate on workers give what they give without, byte by byte."""

import json

import pytest

from custom_transforms.files.claim import CLAIM, claimed
from scripts.detection import batch
from scripts.simulate.simulate import simulate
from tests.detection.detect_scene import files_of
from tests.simulate.test_simulate import SCENE

pytest.importorskip("distributed")


@pytest.mark.slow
def test_simulated_on_workers_as_one_after_another(tmp_path):
    simulate(SCENE, tmp_path / "here", n=3, seed=2)
    simulate(SCENE, tmp_path / "workers", n=3, seed=2, cluster="local")
    assert files_of(tmp_path / "here") == files_of(tmp_path / "workers")


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
        detector = {"overrides": {**options, "output_dir": str(tmp_path / name), "report": False}}
        done = batch.Task(batch.Batch(detector, str(tmp_path / name)))(item, second)
        assert not done.failure and done.facts["written"], done
        return {file: data for file, data in files_of(tmp_path / name).items() if file != "tomogram_0.json"}

    with claimed(tmp_path / "second" / "tomogram_0"):  # by the first start, on another worker
        second = start("second", second=True)
    claim = tmp_path / "died" / "tomogram_0" / CLAIM  # by a worker that died on another machine, a moment ago
    claim.parent.mkdir(parents=True)
    claim.write_text(json.dumps({"host": "another", "process": 1}))
    assert start("died", second=False) == second | {CLAIM: claim.read_bytes()}
    assert start("first", second=False) == {file: data for file, data in second.items() if file != CLAIM}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "first").rglob("*") if path.is_file()}
    start("first", second=True)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "first").rglob("*") if path.is_file()}
