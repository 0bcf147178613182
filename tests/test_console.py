"""What ends `python -m monai.bundle`: our sentence where we raised the error, else the traceback."""

import sys
from types import SimpleNamespace

import pytest
from monai.bundle import ConfigParser

from scripts.console import errors_in_words


def raised_by(config):
    with pytest.raises(Exception) as error:
        ConfigParser({"a": config}).get_parsed_content("a")
    return error.value


@pytest.mark.parametrize(
    "config,last",
    [
        ({"_target_": "scripts.datalist.load_datalist", "dataset_dir": "nowhere", "section": "test"}, "error: nowhere"),
        ("$1 / 0", "Traceback"),
        ("$int('x')", "Traceback"),
    ],
)
def test_only_errors_of_ours_lose_their_traceback(config, last, monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", lambda *error: print("Traceback", file=sys.stderr))
    monkeypatch.setitem(
        sys.modules, "__main__", SimpleNamespace(__spec__=SimpleNamespace(name="monai.bundle.__main__"))
    )
    errors_in_words()
    error = raised_by(config)
    sys.excepthook(type(error), error, error.__traceback__)
    assert capsys.readouterr().err.startswith(last)


def test_other_programs_keep_their_excepthook():
    before = sys.excepthook
    errors_in_words()
    assert sys.excepthook is before
