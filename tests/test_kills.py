"""Commands that are killed, or whose disk is full or read-only, at any write: files whole, the rerun identical."""

import json
import os
import random
import shutil
import signal

import pytest

from scripts.command_line.parser import main
from tests.detection.detect_scene import files_of, setting  # noqa: F401
from tests.kills import FULL, READ_ONLY, Moment, kill, run

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TIMED = (".json", ".html", ".png")  # hold times, or are drawn from what does
VERBS = ("detect", "detect streamed", "prepare", "export", "evaluate")
KILLS, REFUSALS = int(os.environ.get("KILLS", 3)), int(os.environ.get("REFUSALS", 2))  # of each verb; 50 take minutes


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
    assert run([*detect, "--report", "false", "--output_dir", base / "made"], Moment())[0] == 0
    made = base / "made" / "tomogram_0" / "tomogram_0"
    labels, picks = f"{made}_instances.mrc", f"{made}_particles.csv"
    return base, {
        "detect": ([*detect, "--output_dir"], []),
        "detect streamed": ([*detect, "--stream", "true", "--report", "false", "--output_dir"], []),
        "prepare": (["prepare", tomogram, "--particles", picks, "--radius", "15", "--output_dir"], ["--overwrite"]),
        "export": (["export", "--to_format", "dynamo", "--overwrite", picks], []),
        "evaluate": (["evaluate", labels, labels, "--bootstrap", "0", "--output_dir"], []),
    }


def compared(folder):
    return {name: content for name, content in files_of(folder).items() if not name.endswith(TIMED)}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_is_stopped_anywhere_leaves_whole_files_and_its_rerun_is_identical(verb, commands):
    base, lines = commands
    words, more = lines[verb]
    out = base / verb.replace(" ", "_")
    target = out / "list.tbl" if verb == "export" else out
    assert main([*map(str, words), str(target)]) == 0  # here, so that children need not import and compile
    shutil.rmtree(out)
    out.mkdir()
    code, said, count = run([*words, target], Moment(folder=out))
    assert code == 0, said
    whole, names = compared(out), set(files_of(out))
    moments = random.Random(7)
    acts = [(kill(SIGNALS[turn % 3]), SIGNALS[turn % 3]) for turn in range(KILLS)]
    acts += [((FULL, READ_ONLY)[turn % 2], None) for turn in range(REFUSALS)]
    for act, how in acts:
        shutil.rmtree(out)
        out.mkdir()
        number = moments.randint(1, count)
        where = f"{verb}, {how.name if how else 'refused'} at {number} of {count}"
        code, said, _ = run([*words, target], Moment(number, act, out))
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in said and "run again with --debug" not in said, (where, said)
        if how is None:
            assert code in (0, 1) and len(errors) == code, (where, said)
        else:
            assert code == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[how], (where, code, said)
        left = files_of(out)
        assert all(left[name] == whole[name] for name in left.keys() & whole.keys()), where
        hidden = [name for name in left if name not in names]
        assert how is signal.SIGKILL or not hidden, (where, hidden)
        code, said, _ = run([*words, target, *more], Moment())
        assert code == 0, (where, said)
        assert compared(out) == whole and set(files_of(out)) == names, (where, set(files_of(out)) ^ names)
