"""The option wrapper: nothing runs on a command line that is not understood, and text stays text."""

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from scripts.command_line import parser as cli
from scripts.command_line.arguments import parse_arguments
from scripts.command_line.next_steps import next_step
from scripts.command_line.parser import verb_named
from scripts.command_line.signatures import read_signature
from scripts.records.detection import command_line
from tests.command_line.toy_verbs import CALLS, VERBS
from tests.conftest import ROOT
from tests.forked_python import run_python


def main(*words):
    return cli.main(list(words), VERBS)


@pytest.fixture
def run(capsys):
    CALLS.clear()

    def call(*words, verb="record"):
        code = main(verb, *words)
        return code, CALLS, capsys.readouterr().err

    return call


def test_a_misspelt_option_is_rejected_before_any_work(run):
    code, calls, error = run("a.mrc", "--outptu_dir", "x")
    assert (code, calls) == (2, [])
    assert error == "error: record has no option --outptu_dir. Did you mean --output_dir? Nothing was done.\n"


@pytest.mark.parametrize("text", ["2024_01", "1e3", "None", "True", "[1,2]", "a b'c", "-"])
def test_text_stays_text_in_options_and_file_names(run, text):
    code, calls, _ = run(text, "--output_dir", text)
    assert code == 0
    assert calls == [((text,), text, False, None, 1.0, (96,))]


def test_a_bare_flag_does_not_swallow_the_file_name_after_it(run):
    """Defect 5 of the original: ``-filter_outlier False`` was true."""
    code, calls, _ = run("--overwrite", "a.mrc", "--output_dir=x", "b.mrc")
    assert code == 0
    assert calls == [(("a.mrc", "b.mrc"), "x", True, None, 1.0, (96,))]
    assert run("a.mrc", "--overwrite=False")[1][-1][2] is False


@pytest.mark.parametrize(
    ("words", "tomograms", "report"),
    [
        (["--report", "a.mrc"], ("a.mrc",), True),
        (["--report", "False", "a.mrc"], ("a.mrc",), False),
        (["a.mrc", "--report=no", "--overwrite"], ("a.mrc",), False),
        (["a.mrc"], ("a.mrc",), None),
    ],
)
def test_a_flag_with_a_third_state_takes_true_or_false_but_no_file_name(run, words, tomograms, report):
    assert run(*words)[1] == [(tomograms, "out", "--overwrite" in words, report, 1.0, (96,))]
    assert "--report: expected true or false, got 'maybe'" in run("--report=maybe")[2]


def test_numbers_are_parsed_and_anything_else_is_an_error(run):
    """Defect 5 of the original: it rejected ``-vs 13.5``."""
    assert run("a.mrc", "--diameter", "1e3", "--tile", "64,96,96")[1] == [
        (("a.mrc",), "out", False, None, 1000.0, (64, 96, 96))
    ]
    for text in ("wide", "nan", "inf", "-inf", "1e999"):
        code, _, error = run("a.mrc", "--diameter", text)
        assert code == 2
        assert error == f"error: --diameter: expected a number, got {text!r}. Nothing was done.\n"


def test_a_missing_value_and_a_repeated_option_are_errors(run):
    assert run("a.mrc", "--output_dir")[2] == "error: --output_dir needs a value. Nothing was done.\n"
    assert "given twice" in run("a.mrc", "--diameter", "1", "--diameter", "2")[2]


def test_an_argument_may_be_given_by_name_and_the_others_take_the_places_left(run):
    assert run("b.csv", "--source", "a.csv", verb="copy")[1] == [("a.csv", "b.csv", 1)]
    code, _, error = run("a", "b", "c", verb="copy")
    assert code == 2
    assert "copy does not know what to do with 'c' (options are given by name: --count ...)" in error


def test_a_missing_argument_is_named(capsys):
    assert cli.main(["export", "list.star"]) == 2
    assert capsys.readouterr().err == "error: export needs TARGET. See `--help`.\n"
    assert cli.main(["detect"]) == 1
    assert "expected tomograms (files, folders, patterns" in capsys.readouterr().err


def test_an_error_is_one_line_and_exit_code_1_with_the_message_below_monais_wrapping(capsys):
    assert main("wrapped") == 1
    assert capsys.readouterr().err == "error: the file is bad\n"


def test_sigterm_runs_what_cleans_up_gives_143_and_the_handler_of_before_is_back(capsys, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    assert main("end", str(tmp_path)) == 143 and 143 in cli.EXIT_CODES
    assert capsys.readouterr().err == "error: ended by SIGTERM\n"
    assert list(tmp_path.iterdir()) == [] and signal.getsignal(signal.SIGTERM) is before


def in_pipe(command, reader):
    """Run Python into a pipe, from the repository's folder; the exit code is Python's."""
    script = f"set -o pipefail; {shlex.join([sys.executable, *command])} | {reader}"
    return subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("flags", [[], ["--json"], ["--quiet"]])
def test_a_closed_pipe_ends_a_verb_quietly(flags):
    words = ["talk", "--tomograms", "200", *flags]
    code = f"import sys; from tests.command_line import toy_verbs as toy; sys.exit(toy.main({words}, toy.VERBS))"
    done = in_pipe(["-c", code], "head -c 10")
    assert (done.returncode, done.stderr) == (141, "") and len(done.stdout) == 10


def test_help_into_a_closed_pipe_ends_quietly():
    done = in_pipe(["-m", "scripts", "detect", "--help"], "true")
    assert done.stderr == "" and done.returncode in (0, 141)  # 0 where all was written before the reader went


def test_a_verb_in_another_thread_leaves_signals_alone(run_work):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(main, "work", "--quiet").result() == 0


def is_understood(verb, words):
    return parse_arguments(verb, read_signature(verb_named(verb)), words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.3", 0.3),
        ("{ribosome: 0.5, beta-gal 2:.25}", {"ribosome": 0.5, "beta-gal 2": 0.25}),
        (' {"vlp": 1}', {"vlp": 1.0}),
        ("{}", "expected {CLASS: NUMBER, ...}, got '{}'"),
        ("{a: 0.5, a: 0.6}", "expected {CLASS: NUMBER, ...}, got '{a: 0.5, a: 0.6}'"),
        ("{ribosome}", "expected {CLASS: NUMBER, ...}, got '{ribosome}'"),
        ("{a: many}", "expected a number, got 'many'"),
        ("{a: 0.5, b: 2}", "expected a number above 0 and at most 1, got '{a: 0.5, b: 2}'"),
        ("a: 0.5", "expected a number, got 'a: 0.5'"),
    ],
)
def test_a_setting_by_class_is_typed_as_an_object(text, expected):
    words = ["a.mrc", "--center_threshold", text]
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=re.escape(f"--center_threshold: {expected}. Nothing was done.")):
            is_understood("detect", words)
    else:
        assert is_understood("detect", words).named["center_threshold"] == expected


def test_diameters_by_class_are_taken_by_calibrate_and_evaluate():
    for verb, words in (("calibrate", ["data"]), ("evaluate", ["found", "truth"])):
        named = is_understood(verb, [*words, "--particle_diameter={a: 120, b: 60}"]).named
        assert named["particle_diameter"] == {"a": 120, "b": 60}


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_each_of_its_options_and_has_an_example_that_is_understood(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: python -m scripts {verb}" in text and "--json" in text and "--quiet" in text
    examples = re.findall(rf"python -m scripts {verb} [^\n]*", re.sub("usage:.*", "", text))
    assert examples, f"{verb} has no example"
    for example in examples:
        assert is_understood(verb, shlex.split(example)[4:])
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  --"):
            assert lines[number + 1].strip(), f"{line.strip()} is not explained"


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_help_of_a_verb_holds_every_word_of_its_docstring(verb, capsys):
    module, name = verb_named(verb).split(":")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    documentation = ast.get_docstring(functions[name]).partition("\n**settings\n")[0]  # which the config explains
    cli.main([verb, "--help"])
    shown = capsys.readouterr().out.split()
    lines = re.sub(r"^\S.*\n-{3,}$|^\*{0,2}\w+(, \w+)* : .*$", "", documentation, flags=re.M)  # but headings, types
    missing = [word for word in lines.split() if word not in shown]
    assert not missing and len(shown) > len(lines.split())


def test_help_and_errors_of_usage_import_nothing_heavy():
    """An import of torch takes seconds, of numpy a tenth; nobody waits for them to read a help text."""
    code = """
import contextlib, io, sys
from scripts.command_line.parser import VERBS, main
words = [[], ["--version"], ["detct"], ["detect", "--tile"], ["export-onnx", "--help"]]
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    codes = [main(one) for one in words + [[verb, "--help"] for verb in VERBS]]
heavy = {"torch", "monai", "numpy", "pandas", "scipy", "numba", "matplotlib", "plotly", "fire"} & set(sys.modules)
print(codes, heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{[0, 0, 2, 2, 0] + [0] * len(cli.VERBS)} set()\n"


def test_help_of_a_verb_comes_both_ways(capsys):
    assert cli.main(["help", "export"]) == 0
    text = capsys.readouterr().out
    assert "usage: python -m scripts export SOURCE TARGET" in text
    assert cli.main(["export", "--help"]) == 0 and capsys.readouterr().out == text
    for spelling in ("export-onnx", "export_onnx"):
        assert cli.main([spelling, "--help"]) == 0
        assert "usage: python -m scripts export_onnx [options]" in capsys.readouterr().out
    assert cli.main(["help", "exprot"]) == 2 and "Did you mean export?" in capsys.readouterr().err
    assert cli.main(["help"]) == 0 and "Exit codes:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("token", "hint"),
    [
        ("-o", "Did you mean --output_dir or --overwrite?"),
        ("-output-dir", "Did you mean --output_dir?"),
        ("-v", "See `--help`."),
    ],
)
def test_an_option_with_one_dash_names_those_it_may_mean(run, token, hint):
    code, calls, error = run("a.mrc", token, "x")
    assert (code, calls) == (2, []) and error == f"error: {token}: options have two dashes. {hint} Nothing was done.\n"


@pytest.mark.parametrize(
    ("words", "goes_on"),
    [
        (["detect"], True),
        (["simulate"], True),
        (["detect", "--overwrite"], False),
        (["detect", "--overwrite=true"], False),
        (["prepare"], False),
    ],
)
def test_ctrl_c_says_that_the_same_command_goes_on_where_it_does(capsys, words, goes_on):
    assert cli.main(words, {words[0]: VERBS["stopped"]}) == 130
    assert capsys.readouterr().err == f"error: stopped{'; the same command goes on with what is left' * goes_on}\n"


def test_the_recorded_command_is_as_it_was_typed(tmp_path, monkeypatch):
    (tmp_path / "tool").mkdir()
    code = "import sys; from scripts.records.detection import command_line; print(command_line())"
    (tmp_path / "tool" / "__main__.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "x"), str(ROOT)])}
    done = run_python("-m", "tool", "demo", cwd=tmp_path, env=environment, check=True)
    assert done.stdout.strip() == "python -m tool demo"
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "tool.py"), "demo"])
    assert command_line() == "tool.py demo"


def test_an_unknown_verb_lists_the_known_ones(capsys):
    assert cli.main(["detct"]) == 2
    assert "expected one of " in (error := capsys.readouterr().err) and "Did you mean detect?" in error


@pytest.fixture
def run_work(capsys):
    return lambda *words: (main(*words), *capsys.readouterr())


def test_results_go_to_stdout_and_everything_else_to_stderr(run_work):
    code, out, err = run_work("work")
    assert code == 0 and out == "a line of text\na: 2 particles\n"
    assert "[1/1] a.mrc" in err and "tiles" in err
    assert "warning: csv does not keep radii.\n" in err and "ParticleListWarning" not in err


@pytest.mark.parametrize("arguments", [("--quiet", "work"), ("work", "--quiet"), ("work", "--quiet", "--source=a")])
def test_quiet_keeps_results_warnings_and_errors(run_work, arguments):
    code, out, err = run_work(*arguments)
    assert code == 0 and out == "a line of text\na: 2 particles\n"
    assert err == "warning: csv does not keep radii.\nwarning: a.mrc: y is thinner than z\n"
    assert run_work(*arguments, "--fail")[2].endswith("error: a.mrc: broken\n")


def test_json_is_one_object_with_files_counts_warnings_and_the_error(run_work):
    code, out, err = run_work("work", "--json", "--source", "--json")
    assert code == 2 and json.loads(out)["error"] == "--source needs a value. Nothing was done."
    code, out, err = run_work("work", "--json")
    found = json.loads(out)
    assert code == found["exit_code"] == 0 and found["command"] == "work" and found["error"] is None
    assert found["results"] == [
        {"text": "a line of text"},
        {"text": "a: 2 particles", "particles": 2, "score": None, "written": ["a.csv"]},
    ]
    assert found["written"] == ["a.csv"]
    assert found["warnings"] == ["csv does not keep radii.", "a.mrc: y is thinner than z"]
    assert "tiles" in err and run_work("work", "--json", "--quiet")[2].count("\n") == 2
    code, out, _ = run_work("work", "--json", "--fail")
    found = json.loads(out)
    assert code == found["exit_code"] == 1 and found["error"] == "a.mrc: broken" and len(found["results"]) == 2


def test_the_flags_of_every_verb_need_no_verb_and_change_nothing_after_two_dashes(run_work, capsys):
    assert cli.main(["--quiet"]) == 0 and "Exit codes:" in capsys.readouterr().out
    assert cli.main(["--json", "--version"]) == 0 and re.fullmatch(r"\d+\.\d+\.\d+\n", capsys.readouterr().out)
    code, out, _ = run_work("work", "--", "--json")
    assert code == 2 and out == ""  # a name, of which `work` takes none


def test_the_demo_tells_scores_and_files(monkeypatch, tmp_path, capsys):
    scores = {
        "points": {"n_true": 5, "n_predicted": 4, "f1": 0.75},
        "volume": {"f1": 0.5, "merged_rate": float("nan"), "split_rate": 0.02},
    }
    made = {"scores": scores, "report": tmp_path / "a" / "report.html", "folder": tmp_path / "a"}
    monkeypatch.setattr("scripts.demo.demo.run_demo", lambda *_: made)
    assert cli.main(["demo", "--json", "--output_dir", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["results"][0]["scores"]["points"] == {"n_true": 5, "n_predicted": 4, "f1": 0.75}
    assert found["results"][0]["text"].endswith("of instances 0.500, merged nan%, split 2.0%")
    assert found["results"][0]["text"].startswith("5 particles, 4 detected in 0 s: F1 of centers 0.750")
    assert found["written"] == [str(tmp_path / "a"), str(tmp_path / "a" / "report.html")]


def test_a_real_verb_tells_what_it_wrote(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("x_angstrom,y_angstrom,z_angstrom,score\n1,2,3,0.5\n")
    assert cli.main(["export", f"{tmp_path}/a.csv", f"{tmp_path}/a.coords", "--voxel_size", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["written"] == [f"{tmp_path}/a.coords"] and found["results"][0]["particles"] == 1
    assert found["warnings"] == found["results"][0]["lost"] == ["coords does not keep scores."]
    assert cli.main(["export", f"{tmp_path}/a.csv", f"{tmp_path}/a.coords", "--json"]) == 1
    assert "exists already" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize(
    ("verb", "values", "written", "expected"),
    [
        (
            "simulate",
            {"output_dir": "my data"},
            ["my data/dataset.json"],
            "python -m monai.bundle run training --config_file configs/train_mask.json --dataset_dir 'my data'; "
            "then the same with configs/train_center.json, and python -m scripts join",
        ),
        (
            "join",
            {"output": "runs/vlp.pt"},
            ["runs/vlp.pt"],
            "python -m scripts calibrate DATASET_DIR --weights runs/vlp.pt --particle_diameter ANGSTROM",
        ),
        (
            "calibrate",
            {"output": "vlp.json", "weights": "vlp.pt"},
            ["vlp.json"],
            "python -m scripts detect TOMOGRAMS --config vlp.json --weights vlp.pt",
        ),
        (
            "detect",
            {"output_dir": "out"},
            ["out/a/a_report.html", "out/a/a.json", "out/overview.html"],
            "open out/overview.html in a browser; "
            "python -m scripts export out particles.star --to_format relion5 (or .tbl, .em, .xml ...)",
        ),
        (
            "evaluate",
            {"predicted": "configs", "output_dir": "e"},
            ["e"],
            "python -m scripts report configs --evaluation e",
        ),
        ("evaluate", {"predicted": "a.csv", "output_dir": "e"}, ["e"], None),
        ("report", {"run_dir": "out/a"}, [], "python -m scripts view out/a to correct the centers"),
        ("view", {"run_dir": "out/a"}, [], None),
        ("export", {}, ["a.star"], None),
        ("build", {}, ["dist/a.zip"], "python -m bundle verify dist/a.zip"),
    ],
)
def test_every_verb_names_what_comes_next_with_the_names_of_this_run(verb, values, written, expected):
    assert next_step(verb, values, written) == expected
    assert expected is None or all(
        is_understood(command.split()[3], shlex.split(command.replace("ANGSTROM", "120"))[4:])
        for command in re.findall(
            r"python -m scripts (?:calibrate|detect|report|view)\b(?:(?! to correct)[^;(])*", expected
        )
    )


def test_the_next_step_is_a_note_on_stderr_and_a_field_of_the_json(capsys):
    step = "python -m scripts prepare TOMOGRAM --particles a.csv --radius ANGSTROM --output_dir dataset"
    verbs = {"view": VERBS["work"]}
    assert cli.main(["view"], verbs) == 0
    assert capsys.readouterr().err.endswith(f"\nnext: {step}\n")
    assert cli.main(["view", "--quiet"], verbs) == 0
    assert "next" not in capsys.readouterr().err
    assert cli.main(["view", "--json"], verbs) == 0
    assert json.loads(capsys.readouterr().out)["next"] == step
    assert cli.main(["view", "--fail"], verbs) == 1
    assert "next" not in capsys.readouterr().err
