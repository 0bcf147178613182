"""Python commands in a process of their own, without the seconds that torch and MONAI take to import.

`run_python` asks a server, one for each pytest process, that has imported the libraries and nothing of the bundle; the
server forks, and the child goes on as ``python ARGUMENTS`` would: its folder, environment, streams and exit code are
its own, and the bundle's modules are read anew.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

LIBRARIES = (
    "torch torch._dynamo monai.bundle monai.inferers monai.networks.nets ignite.engine scipy.ndimage "
    "skimage.segmentation pandas numba pydantic fire jinja2 cc3d edt"
)


def run_python(
    *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run` gives for ``python ARGUMENTS``, where they begin with ``-m MODULE`` or ``-c CODE``."""
    words = [str(word) for word in arguments]
    assert words[0] in ("-m", "-c"), words
    with tempfile.TemporaryDirectory() as folder:
        streams = [f"{folder}/stdout", f"{folder}/stderr"]
        environment = dict(os.environ) if env is None else env
        question = {"words": words, "cwd": str(cwd), "env": environment, "streams": streams}
        server = _server()
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(json.dumps(question) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        stdout, stderr = (Path(path).read_text(encoding="utf-8", errors="replace") for path in streams)
    done = subprocess.CompletedProcess([sys.executable, *words], os.waitstatus_to_exitcode(status), stdout, stderr)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)} ended with {done.returncode}\n{stdout[-2000:]}\n{stderr[-4000:]}")
    return done


@cache
def _server() -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    atexit.register(server.kill)
    return server


def _answer() -> dict:
    """Serve until a child has something to run: returns in the child alone; ends with the questions in the server."""
    for line in sys.stdin:
        question = json.loads(line)
        child = os.fork()
        if not child:
            return question
        print(os.waitpid(child, 0)[1], flush=True)
    sys.exit()


def _become(question: dict) -> list[str]:
    """Take over folder, environment and streams of a question; returns the words after ``python``."""
    for number, path in enumerate((os.devnull, *question["streams"])):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(question["cwd"])
    os.environ.clear()
    os.environ.update(question["env"])
    sys.orig_argv = [sys.executable, *question["words"]]
    sys.path[0] = ""
    sys.path[1:1] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    return question["words"]


if __name__ == "__main__":
    for library in LIBRARIES.split():
        __import__(library)
    kind, what, *rest = _become(_answer())
    sys.argv = [kind, *rest]
    if kind == "-m":
        sys.path[0] = os.getcwd()
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
