"""A folder is written to by one process at a time: the second one hears of it, and a killed one leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from custom_transforms.files.claim import CLAIM, claimed, clear_claim
from tests.conftest import ROOT

HOLD = """
import sys
from custom_transforms.files.claim import claimed
with claimed(sys.argv[1]):
    print("claimed", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has claimed the folder, until its stdin closes."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out" / "a")],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "claimed\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_until_the_first_is_done(tmp_path, other):
    folder = tmp_path / "out" / "a"
    with pytest.raises(FileExistsError) as caught, claimed(folder):
        pytest.fail("two processes had the folder")
    assert str(caught.value).startswith(f"{folder}: another process writes here now (host ")
    assert f"process {other.pid}, started 2" in str(caught.value)
    with claimed(tmp_path / "out" / "b"):  # the others go on
        other.communicate(timeout=20)
    assert list((tmp_path / "out").iterdir()) == []
    with claimed(folder), claimed(folder):  # inner calls of one process are free
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_the_claim_of_a_killed_process_is_taken_over_at_once(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "out" / "a" / CLAIM).is_file()
    with claimed(tmp_path / "out" / "a"):
        pass
    assert list((tmp_path / "out" / "a").iterdir()) == []


def test_the_claim_of_another_machine_holds_as_long_as_it_gives_signs_of_life(tmp_path):
    claim = tmp_path / CLAIM
    claim.write_text(json.dumps({"host": "elsewhere", "process": 7, "started": "today"}))
    with pytest.raises(FileExistsError, match=r"\(host elsewhere, process 7, started today\)"), claimed(tmp_path):
        pass
    os.utime(claim, (0, 0))
    with claimed(tmp_path):
        assert json.loads(claim.read_text())["process"] == os.getpid()
    for content in ("{damaged", "[1]", "[" * 9000):
        claim.write_text(content)
        clear_claim(tmp_path)
        assert not claim.exists()
    clear_claim(tmp_path / "nowhere")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_or_signal_leaves_no_claim(tmp_path, error):
    with pytest.raises(error), claimed(tmp_path / "a"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "a").write_text("a file")
    with (
        pytest.raises(OSError, match="expected a folder to write to, but a file is in its place"),
        claimed(tmp_path / "a" / "b"),
    ):
        pass
    assert Path(tmp_path / "a").read_text() == "a file"
