"""The release kit: what goes into the zip, and what verification notices."""

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import zipfile

import numpy as np
import pytest
import torch

from bundle.__main__ import VERBS
from bundle.build import build_bundle, bundle_files, with_settings
from bundle.checks import code, configs, files, loading, metadata, networks
from bundle.verify import newest_zip, verify_zip
from scripts.command_line.parser import main
from scripts.records.bundle_zip import extract, unpacked
from scripts.weights.join import join
from tests.bundle.bundle_zip import NAME, ROOT, read_zip


def edit_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# build


def test_same_tree_gives_same_bytes(tree, weights, archive, tmp_path):
    for path in tree.rglob("*.py"):
        path.touch()
    again = build_bundle(tree, weights, tmp_path)
    assert again.name == f"{NAME}_v{json.loads(read_zip(again, 'configs/metadata.json'))['version']}.zip"
    assert again.read_bytes() == archive.read_bytes()


def test_the_zip_has_one_folder_with_the_parts_the_zoo_wants_and_nothing_else(archive):
    with zipfile.ZipFile(archive) as file:
        names = file.namelist()
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {stat.filemode(info.external_attr >> 16) for info in file.infolist()} == {"-rw-r--r--"}
    assert names == sorted(names) and all(name.startswith(f"{NAME}/") for name in names)
    tops = {name.split("/")[1] for name in names}
    assert tops == {"LICENSE", "configs", "custom_transforms", "docs", "models", "scripts"}
    assert [name for name in names if "/models/" in name] == [
        f"{NAME}/models/model.json",
        f"{NAME}/models/model.pt",
    ]
    assert not [name for name in names if "__pycache__" in name]


def test_only_tracked_files_go_in(tmp_path):
    for name in ("LICENSE", "configs/inference.json", "configs/metadata.json", "bundle/docs/README.md", "scripts/a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert "scripts/a.py" in bundle_files(tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    (tmp_path / "scripts" / "scratch.py").write_text("")
    assert set(bundle_files(tmp_path)) == {
        "LICENSE",
        "configs/inference.json",
        "configs/metadata.json",
        "docs/README.md",
        "scripts/a.py",
    }
    (tmp_path / "scripts" / "a.py").unlink()
    with pytest.raises(ValueError, match=r"scripts/a\.py: git tracks it, but it is not there"):
        bundle_files(tmp_path)


def test_build_without_weights_is_an_error_that_says_how_to_get_them(tmp_path, capsys):
    assert main(["build", "--weights", str(tmp_path / "no.pt"), "--output", str(tmp_path)], VERBS) == 1
    message = capsys.readouterr().err
    assert "expected a weights file (.pt), found none" in message and "python -m scripts join" in message
    assert not list(tmp_path.iterdir())


def test_weights_of_another_network_are_refused_and_the_older_zip_stays(tree, weights, tmp_path):
    older = build_bundle(tree, weights, tmp_path).read_bytes()
    other = tmp_path / "other.pt"
    torch.save({"mask_network.weight": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match="do not fit the network of the config"):
        build_bundle(tree, other, tmp_path)
    assert next(tmp_path.glob("*.zip")).read_bytes() == older


def test_thresholds_and_voxel_size_become_the_defaults_of_the_bundle(tree, weights, tmp_path):
    overlay = {"_desc_": "chosen on 2 tomograms", "particle_diameter": 180.0, "mask_threshold": 0.35, "min_size": 99.0}
    (tmp_path / "thresholds.json").write_text(json.dumps(overlay))
    made = build_bundle(tree, weights, tmp_path, tmp_path / "thresholds.json", voxel_size=8.5)
    before, after = (tree / "configs/inference.json").read_text(), read_zip(made, "configs/inference.json")
    changed = [new.strip() for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]
    assert changed == [
        '"voxel_size_model": 8.5,',
        '"particle_diameter": 180.0,',
        '"mask_threshold": 0.35,',
        '"min_size": 99.0,',
        '"largest_tile_side": 96,',
    ]
    record = json.loads(read_zip(made, "docs/provenance.json"))
    assert record["thresholds"] == overlay and record["voxel_size_angstrom"] == 8.5
    assert record["detection"]["mask_threshold"] == 0.35
    assert record["detection"]["center_threshold"] == json.loads(before)["center_threshold"]
    assert record["weights"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_settings_that_are_not_in_the_config_are_refused():
    with pytest.raises(ValueError, match="thresholds.json: 'mask_treshold' is not an id of configs/inference.json"):
        with_settings('{\n    "mask_threshold": 0.5\n}', {"mask_treshold": 0.4}, "thresholds.json")
    with pytest.raises(ValueError, match="expected plain settings such as calibrate writes, got network_def"):
        with_settings('{\n    "network_def": {\n        "a": 1\n    }\n}', {"network_def": {}}, "thresholds.json")


def test_what_was_measured_goes_with_the_weights_and_the_shipped_ones_have_it(tree, weights, tmp_path):
    """The model card's table, the record, metadata, provenance: the same figures."""
    table = (ROOT / "bundle" / "docs" / "README.md").read_text().split("## **Performance**")[1].split("**Where it")[0]
    said = {}
    for line in table.splitlines()[4:]:
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if ":" in cells[0]:
            numbers = [float(one.replace(",", "")) for cell in cells[1:] for one in re.findall(r"[\d.,]+", cell)]
            said[cells[0].split(":")[0]] = numbers[:9]
    record = json.loads((ROOT / "models" / "model.json").read_text())
    assert record["metrics"]["seed"] == 1001 and "tests.benchmarks.general.score" in record["metrics"]["command"]
    names = ("particles", "center F1", "interval", "precision", "recall", "merged rate", "split rate", "error (Å)")
    rows = {row["scene"]: np.hstack([row[name] for name in names]).tolist() for row in record["metrics"]["scenes"]}
    assert rows == said and len(said) == 10
    metrics = json.loads((ROOT / "configs" / "metadata.json").read_text())["eval_metrics"]
    assert metrics == {f"center_f1_{scene.replace(' ', '_')}": one[1] for scene, one in said.items()}
    copy = shutil.copy(weights, tmp_path / "model.pt")
    (tmp_path / "model.json").write_text(json.dumps({"metrics": record["metrics"]}))
    for source, expected in ((copy, (metrics, record["metrics"])), (weights, ({}, {}))):  # others' are not claimed
        made = build_bundle(tree, source, tmp_path / "dist")
        told = [json.loads(read_zip(made, name)) for name in ("configs/metadata.json", "docs/provenance.json")]
        assert (told[0]["eval_metrics"], told[1]["metrics"]) == expected


def test_joined_weights_keep_the_records_of_both_runs_and_the_bundle_tells_them(tree, weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    for name in ("mask", "center"):
        (tmp_path / name).mkdir()
        part = {key.removeprefix(f"{name}_network."): value for key, value in state.items() if key.startswith(name)}
        torch.save(part, tmp_path / name / "model.pt")
        (tmp_path / name / "model.json").write_text(json.dumps({"epoch": 7, "score": 0.5, "metric": name}))
    joined = tmp_path / "model.pt"
    join(str(tmp_path / "mask/model.pt"), str(tmp_path / "center/model.pt"), str(joined))
    made = build_bundle(tree, joined, tmp_path / "dist")
    training = json.loads(read_zip(made, "docs/provenance.json"))["training"]
    assert training["mask"]["run"] == {"epoch": 7, "score": 0.5, "metric": "mask"}
    assert training["center"]["run"]["metric"] == "center"
    torch.save({**state, "mask_network.final_conv.bias": torch.ones(1)}, joined)
    with pytest.raises(ValueError, match=r"expected the weights that .*model\.json belongs to"):
        build_bundle(tree, joined, tmp_path / "dist")


# unpack


def test_a_zip_is_unpacked_once_and_a_changed_one_anew(tree, weights, archive, tmp_path):
    first = unpacked(archive, tmp_path / "cache")
    assert first.name == NAME and (first / "models" / "model.pt").read_bytes() == weights.read_bytes()
    (first / "mark").touch()
    copy = shutil.copy(archive, tmp_path / "renamed.zip")
    assert unpacked(copy, tmp_path / "cache") == first and (first / "mark").exists()
    other = build_bundle(tree, weights, tmp_path, voxel_size=7.0)
    assert unpacked(other, tmp_path / "cache") != first
    assert not list((tmp_path / "cache").glob(".unpacking*"))
    assert unpacked(first) == first


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a\\..\\evil", "C:/evil"])
def test_names_that_lead_out_of_the_folder_are_refused(name, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a/good", "")
        file.writestr(zipfile.ZipInfo(name), "evil")
    with pytest.raises(ValueError, match="would be written outside the bundle's folder"):
        unpacked(tmp_path / "a.zip", tmp_path / "in" / "cache")
    assert not list(tmp_path.rglob("evil")) and not list(tmp_path.rglob("good"))


def test_links_second_names_and_second_folders_are_refused(tmp_path):
    link = zipfile.ZipInfo("a/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    for members, message in (
        ([link], "is a link"),
        (["a/x", "a/X"], "holds a name twice"),
        (["a/x", "a/X/"], "holds a name twice"),
        (["a/x/y", "a/X"], "a/X is a file and a folder in it"),
        (["a", "a/x"], "a is a file and a folder in it"),
        (["a/" + "x" * 300], "holds a name of 300 bytes, expected at most 255"),
        (["a/x", "b/x"], "expected one folder at the top, got a, b"),
        (["x"], "expected one folder at the top, got x"),
        (["a/x"], "expected a bundle of this project, but it has no configs/metadata.json"),
    ):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            for member in members:
                file.writestr(member, "/etc/passwd")
        with pytest.raises(ValueError, match=message):
            unpacked(tmp_path / "a.zip", tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())


def test_a_missing_or_damaged_zip_gets_a_clear_error(archive, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a bundle"):
        unpacked(tmp_path / "no.zip")
    content = archive.read_bytes()
    (tmp_path / "short.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="it is none, or is cut short"):
        unpacked(tmp_path / "short.zip", tmp_path / "cache")
    flipped = bytearray(content)
    flipped[content.index(b"Apache License")] ^= 1
    (tmp_path / "flipped.zip").write_bytes(flipped)
    with pytest.raises(ValueError, match="the zip cannot be unpacked .*CRC"):
        unpacked(tmp_path / "flipped.zip", tmp_path / "cache")
    with zipfile.ZipFile(tmp_path / "deflated.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/x", b"text" * 100)
    content = bytearray((tmp_path / "deflated.zip").read_bytes())
    content[33] ^= 0xFF  # the compressed bytes begin after 30 of the header and 3 of the name
    (tmp_path / "deflated.zip").write_bytes(content)
    with pytest.raises(ValueError, match="the zip cannot be unpacked"):
        unpacked(tmp_path / "deflated.zip", tmp_path / "cache")


def test_a_folder_that_cannot_be_written_to_is_an_error_in_words(archive, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match=r"the zip cannot be unpacked into .*taken/in \(Not a directory\)"):
        extract(archive, tmp_path / "taken" / "in")


# verify


def test_verify_without_a_zip_takes_the_newest(tmp_path):
    with pytest.raises(FileNotFoundError, match="Make it: python -m bundle build"):
        newest_zip(tmp_path)
    for number, name in enumerate(("b.zip", "c.zip", "a.zip")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (number, number))
    assert newest_zip(tmp_path).name == "a.zip"


def test_a_sound_bundle_passes_the_quick_checks(case):
    assert "files" in files.check_required_files(case)
    assert files.check_name(case) == case.archive.name
    for check in (files.check_sizes, files.check_provenance, metadata.check_version, metadata.check_format):
        check(case)
    assert configs.check_keys(case) and networks.check_weights(case)
    assert networks.check_net_in_out(case) == "takes [1, 1, 32, 48, 32]"


def remove(name):
    return lambda root: (root / name).unlink()


def change(name, **values):
    return lambda root: edit_json(root / name, **values)


def spoil_weights(root):
    path = root / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "mask_network.final_conv.bias": torch.tensor([np.nan])}, path)


def enlarge(root):
    with (root / "docs" / "film.png").open("wb") as file:
        file.truncate(26 * 1024**2)


def import_unknown(root):
    (root / "scripts" / "extra.py").write_text("import tests.conftest\n")


@pytest.mark.parametrize(
    "damage,check,message",
    [
        (remove("LICENSE"), files.check_required_files, "missing: LICENSE"),
        (
            lambda root: (root / "scripts" / "__pycache__").mkdir(),
            files.check_required_files,
            "leftovers: scripts/__py",
        ),
        (enlarge, files.check_sizes, r"expected at most 25 MB a file, got docs/film\.png \(26 MB\)"),
        (change("configs/metadata.json", version="9.0.0"), files.check_name, r"expected .*_v9\.0\.0\.zip"),
        (change("configs/metadata.json", version="9.0.0"), metadata.check_version, r"9\.0\.0 is not in the changelog"),
        (change("configs/metadata.json", version="9.0.0"), files.check_provenance, "another bundle than metadata's"),
        (change("configs/metadata.json", task=3), metadata.check_format, "task: expected text, got a whole number"),
        (change("configs/metadata.json", network_data_format={}), metadata.check_format, "format.inputs is missing"),
        (
            change("configs/metadata.json", numpy_version=">=2"),
            code.check_packages,
            "one exact version each, got numpy",
        ),
        (
            change("configs/inference.json", inferer=None, mask_threshold=0.123),
            files.check_provenance,
            "mask_threshold is",
        ),
        (change("configs/train_mask.json", train={}), configs.check_keys, "train_mask.json has no train#trainer"),
        (remove("configs/inference.json"), configs.check_keys, "configs/inference.json is missing"),
        (
            remove("configs/train.json"),
            loading.check_load,
            "which bundles of before 0.2.0 lack: build the bundle again",
        ),
        (spoil_weights, networks.check_weights, "NaN or infinite: mask_network.final_conv.bias"),
        (spoil_weights, files.check_provenance, "but provenance says"),
        (change("models/model.json", metrics={"f1": 0.9}), files.check_provenance, "metrics of provenance are not"),
    ],
)
def test_a_check_notices(damage, check, message, case):
    damage(case.root)
    with pytest.raises(ValueError, match=message):
        check(case)


def test_outputs_that_differ_after_export_are_noticed(case):
    network = networks.load_network(case)
    assert networks._compare(case, network) == "equal outputs"
    with torch.no_grad():
        next(network.parameters()).add_(0.01)
    with pytest.raises(ValueError, match="outputs differ by up to"):
        networks._compare(case, network)


def test_verify_of_a_file_that_is_not_there_exits_with_1(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "no.zip")], VERBS) == 1
    assert "expected the zip of a bundle, found none. Make it: python -m bundle build" in capsys.readouterr().err


def test_with_json_the_lines_of_the_checks_are_part_of_the_object(archive, tmp_path, monkeypatch, capfd):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho ' 1. weights  ok'\nprintf 0 > \"$6\"\n")
    python.chmod(0o755)
    monkeypatch.setattr("bundle.verify.sys.executable", str(python))
    assert main(["verify", str(archive), "--json"], VERBS) == 0
    told = json.loads(capfd.readouterr().out)["results"]
    assert [one["text"] for one in told] == [" 1. weights  ok", f"{archive}: all checks passed"]


@pytest.mark.slow
def test_the_built_zip_passes_every_check_in_an_empty_folder(archive, capfd):
    failed = verify_zip(archive)
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if "  failed: " in line] == []
    assert failed == 0 and len(lines) == 17 and all("  ok  " in line for line in lines)


@pytest.mark.slow
def test_a_failed_check_is_a_line_and_exit_code_1(archive, tmp_path, capfd):
    damaged = tmp_path / archive.name
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(damaged, "w") as new:
        for name in old.namelist():
            if name.endswith(("configs/metadata.json", "LICENSE", "docs/README.md")):
                new.writestr(name, old.read(name))
    assert main(["verify", str(damaged)], VERBS) == 1
    output = capfd.readouterr()
    assert re.search(r"^ 2\. required files +failed: missing: configs/inference.json", output.out, re.MULTILINE)
    assert re.search(r"^ 4\. version and changelog +ok ", output.out, re.MULTILINE)
    assert "checks above failed" in output.err
