"""The option wrapper: nothing runs on a command line that is not understood, and text stays text."""

import pytest

from scripts import cli


def record(
    *tomograms: str,
    output_dir: str = "out",
    overwrite: bool = False,
    diameter: float = 1.0,
    tile: tuple[int, ...] = (96,),
) -> None:
    """Note how it was called."""
    record.calls.append((tomograms, output_dir, overwrite, diameter, tile))


@pytest.fixture
def run(monkeypatch, capsys):
    record.calls = []
    monkeypatch.setattr(cli, "find_verb", lambda verb, verbs: record)

    def call(*arguments):
        code = cli.main(["record", *arguments])
        return code, record.calls, capsys.readouterr().err

    return call


def test_a_misspelt_option_is_rejected_before_any_work(run):
    code, calls, error = run("a.mrc", "--outptu_dir", "x")
    assert (code, calls) == (2, [])
    assert error == "error: record has no option --outptu_dir. Did you mean --output_dir? Nothing was done.\n"


@pytest.mark.parametrize("text", ["2024_01", "1e3", "None", "True", "[1,2]", "a b'c", "-"])
def test_text_stays_text_in_options_and_file_names(run, text):
    code, calls, _ = run(text, "--output_dir", text)
    assert code == 0
    assert calls == [((text,), text, False, 1.0, (96,))]


def test_a_bare_flag_does_not_swallow_the_file_name_after_it(run):
    """Defect 5 of the original: ``-filter_outlier False`` was true."""
    code, calls, _ = run("--overwrite", "a.mrc", "--output_dir=x", "b.mrc")
    assert code == 0
    assert calls == [(("a.mrc", "b.mrc"), "x", True, 1.0, (96,))]
    assert run("a.mrc", "--overwrite=False")[1][-1][2] is False


def test_numbers_are_parsed_and_anything_else_is_an_error(run):
    """Defect 5 of the original: it rejected ``-vs 13.5``."""
    assert run("a.mrc", "--diameter", "1e3", "--tile", "64,96,96")[1] == [
        (("a.mrc",), "out", False, 1000.0, (64, 96, 96))
    ]
    code, _, error = run("a.mrc", "--diameter", "wide")
    assert code == 2
    assert error == "error: --diameter: expected a number, got 'wide'. Nothing was done.\n"


def test_a_missing_value_and_a_repeated_option_are_errors(run):
    assert run("a.mrc", "--output_dir")[2] == "error: --output_dir needs a value. Nothing was done.\n"
    assert "given twice" in run("a.mrc", "--diameter", "1", "--diameter", "2")[2]


def test_a_missing_argument_is_named(capsys):
    assert cli.main(["export", "list.star"]) == 2
    assert capsys.readouterr().err == "error: export needs TARGET. See `--help`.\n"
    assert cli.main(["detect"]) == 1
    assert "detect needs tomograms" in capsys.readouterr().err


def test_an_error_is_one_line_and_exit_code_1_with_the_message_below_monais_wrapping(monkeypatch, capsys):
    def fail() -> None:
        try:
            raise ValueError("the file\nis bad")
        except ValueError as error:
            raise RuntimeError("applying transform ...") from error

    monkeypatch.setattr(cli, "find_verb", lambda verb, verbs: fail)
    assert cli.main(["fail"]) == 1
    assert capsys.readouterr().err == "error: the file is bad\n"


def test_every_verb_explains_each_of_its_options():
    for verb in cli.VERBS:
        text = cli.help_text(verb, cli.find_verb(verb))
        assert f"usage: {verb}" in text
        lines = text.splitlines()
        for number, line in enumerate(lines):
            if line.startswith("  --"):
                assert lines[number + 1].strip(), f"{verb}: {line.strip()} is not explained"


def test_an_unknown_verb_lists_the_known_ones(capsys):
    assert cli.main(["detct"]) == 2
    assert "expected one of " in (error := capsys.readouterr().err) and "Did you mean detect?" in error
