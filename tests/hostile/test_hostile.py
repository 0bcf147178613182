"""A sample of the bad inputs; `python -m tests.hostile` runs all of them."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.hostile.cases import MALICIOUS, Case, cases
from tests.hostile.run import GOOD, judge, run

SAMPLE = 100


def bad(outcomes):
    return [f"{one.kind}: {one.group}, {one.name}: {one.text}" for one in outcomes if one.kind not in GOOD]


def test_a_sample_of_bad_inputs_ends_in_one_sentence_or_a_right_answer():
    chosen = set(random.Random(1).sample(range(len(cases())), SAMPLE))
    made = tuple(what for _, what, _ in MALICIOUS)  # by hand, so worth it
    chosen |= {index for index, case in enumerate(cases()) if case.name.endswith(made)}
    outcomes = run(sorted(chosen))
    assert len(outcomes) == len(chosen) and bad(outcomes) == []


@pytest.mark.slow
def test_volumes_and_projects_end_in_one_sentence_or_a_right_answer():
    groups = ("volumes", "zarr", "projects", "datalists", "zips")
    assert bad(run(index for index, case in enumerate(cases()) if case.group in groups)) == []


def test_there_are_more_than_a_thousand_and_the_same_for_a_seed():
    first = [one.name for one in cases(3)]
    cases.cache_clear()
    assert len(first) > 1000 and [one.name for one in cases(3)] == first


def _raise(error: BaseException):
    raise error


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda folder: True, "silent"),
        (lambda folder: False, "wrong"),
        (lambda folder: _raise(KeyError("a")), "bug"),
        (lambda folder: int("a"), "bare"),
        (lambda folder: 0, "wrong"),
        (lambda folder: time.sleep(0) or (folder / "bad").touch() or True, "wrong"),
    ],
)
def test_the_judge_knows_what_is_no_clean_end(answer, kind, tmp_path):
    assert judge(Case("a", "b", answer, refuse=True)).kind == kind
    assert Path.cwd() != tmp_path
