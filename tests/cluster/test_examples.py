"""What the page on clusters shows runs where its programs are: an array of SLURM, jobs for Dask, a Snakefile."""

import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from scripts.command_line.arguments import parse_arguments
from scripts.command_line.parser import main, verb_named
from scripts.command_line.signatures import read_signature
from tests.conftest import DIAMETER, ROOT
from tests.detection.detect_scene import files_of

PAGE = (ROOT / "docs" / "pages" / "howto" / "cluster.md").read_text()
ARRAY = re.search(r"```bash\n(#!.*?)```", PAGE, re.DOTALL)[1]
SNAKEFILE = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
SLURM = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000
PartitionName=gpu Nodes={host} Default=YES
"""


def test_the_commands_of_the_snakefile_are_understood_and_lead_to_their_outputs():
    commands = re.findall(r'shell: "python -m scripts (.*)"', SNAKEFILE)
    parsed = {}
    for verb, *words in map(shlex.split, commands):
        parsed[verb] = parse_arguments(verb, read_signature(verb_named(verb)), words)
    assert sorted(parsed) == ["detect", "report"]
    outputs = re.findall(r'output: "(.*)"', SNAKEFILE)
    assert outputs == ["detections/overview.html", "detections/{name}/{name}.json"]


def test_snakemake_plans_a_job_for_every_tomogram(tmp_path):
    program = shutil.which("snakemake")
    if program is None:
        pytest.skip("snakemake is not installed")
    (tmp_path / "tomograms").mkdir()
    for name in ("a", "b"):
        (tmp_path / "tomograms" / f"{name}.mrc").touch()
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    plan = subprocess.run([program, "--dry-run", "--printshellcmds"], cwd=tmp_path, capture_output=True, text=True)
    said = plan.stdout + plan.stderr
    assert plan.returncode == 0, said
    for name in ("a", "b"):
        assert f"python -m scripts detect tomograms/{name}.mrc --output_dir detections" in said


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A SLURM of one node, with two CPUs; gives the environment in which its commands reach it."""
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "scancel")
    missing = [name for name in programs if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing or os.getuid() != 0:
        pytest.skip(f"needs SLURM (apt install slurm-wlm munge), and root to start it; missing: {missing}")
    folder = tmp_path_factory.mktemp("slurm")
    with socket.socket() as first, socket.socket() as second:
        ports = [one.bind(("127.0.0.1", 0)) or one.getsockname()[1] for one in (first, second)]
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(SLURM.format(host=host, user="root", folder=folder, ports=ports))
    (folder / "key").write_bytes(secrets.token_bytes(1024))
    (folder / "key").chmod(0o600)
    (folder / "state").mkdir()
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin", "SLURM_CONF": str(folder / "slurm.conf")}
    munge = [f"--{name}-file={folder / name}" for name in ("pid", "log", "seed")]
    daemons = (
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/key", *munge],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", host],
    )
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(folder / "log", "w"))
        for daemon in daemons:
            process = subprocess.Popen(daemon, env=environment, stdout=log, stderr=log, start_new_session=True)
            stack.callback(process.wait)
            stack.callback(process.send_signal, signal.SIGTERM)
            time.sleep(1)
        until = time.monotonic() + 60
        while "idle" not in subprocess.run(["sinfo"], env=environment, capture_output=True, text=True).stdout:
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(1)
        yield environment


@pytest.mark.slow
def test_a_real_slurm_detects_what_a_serial_run_does_by_its_array_and_by_jobs_for_dask(
    slurm, setting, tmp_path, monkeypatch
):
    pytest.importorskip("dask_jobqueue")
    folder, options = setting
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    config = tmp_path / "settings.json"
    kept = ("network_def", "tile", "min_size", "mask_threshold")
    config.write_text(json.dumps({key: options[key] for key in kept} | {"runtime": "torch"}))
    common = ["--weights", options["weights"], "--config", str(config), "--device", "cpu"]
    common += ["--particle_diameter", str(DIAMETER)]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tomograms").symlink_to(folder)
    names = ("tomogram_0", "tomogram_1")
    assert main(["detect", *(f"tomograms/{name}.mrc" for name in names), *common, "--output_dir", "serial"]) == 0

    cluster = json.loads((ROOT / "configs" / "cluster_slurm.json").read_text())
    cluster |= {"cores": 1, "memory": "1GB", "job_extra_directives": [], "maximum_jobs": 2, "python": sys.executable}
    cluster |= {"job_script_prologue": [f"export PYTHONPATH={ROOT} OMP_NUM_THREADS=1"], "log_directory": str(tmp_path)}
    (tmp_path / "cluster.json").write_text(json.dumps(cluster))
    assert main(["detect", "tomograms/*.mrc", *common, "--output_dir", "dask", "--cluster", "cluster.json"]) == 0

    script = ARRAY.replace("0-199", "0-1").replace("/200", "/2 " + shlex.join(common))
    script = script.replace("--cpus-per-task=8", "--cpus-per-task=1").replace("#SBATCH --gres=gpu:1\n", "")
    script = script.replace("--mem=32G", "--mem=1G").replace("python -m", f"{sys.executable} -m")
    script = script.replace("output_dir detections", "output_dir array")
    (tmp_path / "detect.sbatch").write_text(script)
    variables = {**slurm, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(["sbatch", "--wait", "detect.sbatch"], env=variables, check=True)

    def results(name):
        made = {key: value for key, value in files_of(tmp_path / name).items() if key.startswith("tomogram_")}
        return {key: value for key, value in made.items() if key.endswith(("mrc", "csv", "star", "txt"))}

    assert len(results("serial")) >= 6
    assert results("dask") == results("serial")
    assert results("array") == results("serial")
