"""Commands that are killed, or whose disk is full or read-only, at any write: files whole, the rerun identical."""

import csv
import json
import os
import random
import shutil
import signal

import pytest
import torch

from scripts.command_line.parser import main
from tests.conftest import SMALL_TRAINING, run_config
from tests.detection.detect_scene import files_of, setting  # noqa: F401
from tests.kills import FULL, READ_ONLY, Moment, kill, run

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TIMED = (".json", ".html", ".png")  # hold times, or are drawn from what does
VERBS = ("detect", "detect streamed", "prepare", "export", "evaluate")
KILLS, REFUSALS = int(os.environ.get("KILLS", 2)), int(os.environ.get("REFUSALS", 1))  # of each verb; 50 take minutes


@pytest.fixture(scope="module")
def commands(setting, tmp_path_factory):  # noqa: F811
    """A command line for each verb, ending with its output folder, and what a rerun adds."""
    folder, options = setting
    base = tmp_path_factory.mktemp("kills")
    config = base / "settings.json"
    config.write_text(json.dumps({key: options[key] for key in ("network_def", "tile", "min_size", "mask_threshold")}))
    tomogram = folder / "tomogram_0.mrc"
    common = ["--weights", options["weights"], "--config", config, "--particle_diameter", "120", "--device", "cpu"]
    detect = ["detect", tomogram, *common, "--center_threshold", "0.01", "--formats", "csv,relion5,dynamo"]
    assert main([*map(str, detect), "--output_dir", str(base / "made")]) == 0
    made = base / "made" / "tomogram_0" / "tomogram_0"
    labels, picks = f"{made}_instances.mrc", f"{made}_particles.csv"
    return base, {
        "detect": ([*detect, "--output_dir"], []),
        "detect streamed": ([*detect, "--stream", "true", "--report", "false", "--output_dir"], []),
        "prepare": (["prepare", tomogram, "--particles", picks, "--radius", "15", "--output_dir"], ["--overwrite"]),
        "export": (["export", "--to_format", "dynamo", "--overwrite", picks], []),
        "evaluate": (["evaluate", labels, labels, "--bootstrap", "0", "--output_dir"], []),
    }


def clear(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def compared(folder):
    return {name: content for name, content in files_of(folder).items() if not name.endswith(TIMED)}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_is_stopped_anywhere_leaves_whole_files_and_its_rerun_is_identical(verb, commands):
    base, lines = commands
    words, more = lines[verb]
    out = base / verb.replace(" ", "_")
    target = out / "list.tbl" if verb == "export" else out
    out.mkdir(exist_ok=True)
    if verb != "detect":  # which was run, see `commands`
        assert main([*map(str, words), str(target)]) == 0  # here, so that children need not import and compile
        clear(out)
    code, said, count = run([*words, target], Moment(folder=out))
    assert code == 0, said
    whole, names = compared(out), set(files_of(out))

    def check(act, number, added=()):
        """Run with an act at a call that changes the disk; what it leaves is whole."""
        code, said, _ = run([*words, target, *added], Moment(number, act, out))
        left = files_of(out)
        assert all(left[name] == whole[name] for name in left.keys() & whole.keys()), (number, act)
        assert "Traceback" not in said and "run again with --debug" not in said, (number, said)
        return code, said, [name for name in left if name not in names]

    moments, start = random.Random(7), VERBS.index(verb)
    for turn in range(start, start + KILLS):
        clear(out)
        how, number = SIGNALS[turn % 3], moments.randint(1, count)
        code, said, hidden = check(kill(how), number)
        assert code == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[how], (how, number, said)
        assert how is signal.SIGKILL or not hidden, (how, number, hidden)
        if turn < start + REFUSALS:  # the rerun meets a full or read-only disk
            code, said, hidden = check((FULL, READ_ONLY)[turn % 2], moments.randint(1, count), more)
            errors = [line for line in said.splitlines() if line.startswith("error: ")]
            assert code in (0, 1) and len(errors) == code, (turn, said)
            assert how is signal.SIGKILL or not hidden, (turn, hidden)
        code, said, _ = run([*words, target, *more], Moment())
        assert code == 0, (how, number, said)
        assert compared(out) == whole and set(files_of(out)) == names, (how, number, set(files_of(out)) ^ names)


def trained(folder):
    """What a training leaves, without times: log, state, weights, record."""
    rows = [{**row, "seconds": 0} for row in csv.DictReader((folder / "metrics.csv").open())]
    state = torch.load(folder / "last.pt", weights_only=True)
    numbers = [state["network"], state["average"], *state["optimizer"]["state"].values()]
    numbers = [value.tolist() for part in numbers for value in part.values()]
    weights = [(folder / name).read_bytes() for name in ("model.pt", "model.json")]
    return rows, numbers, state["epoch"], state["best"], weights


@pytest.mark.slow
def test_a_training_that_is_stopped_anywhere_ends_as_if_it_was_not(dataset_dir, tmp_path):
    out = tmp_path / "run"
    options = {**SMALL_TRAINING, "crops_per_tomogram": 1, "dataset_dir": str(dataset_dir), "output_dir": str(out)}

    def train():
        run_config("train_mask.json", "training", resume=True, **options)

    code, said, count = run(train, Moment(folder=out))
    assert code == 0, said
    whole, names = trained(out), {path.name for path in out.iterdir()}
    moments = random.Random(7)
    for turn in range(KILLS):
        shutil.rmtree(out)
        how, number = SIGNALS[turn % 3], moments.randint(1, count)
        code, said, _ = run(train, Moment(number, kill(how), out))
        assert code == -9 if how is signal.SIGKILL else code != 0, (how, number, code, said)
        code, said, _ = run(train, Moment())
        assert code == 0, (how, number, said)
        assert trained(out) == whole and {path.name for path in out.iterdir()} == names, (how, number)
