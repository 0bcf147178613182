"""Run a command, or a function, in a child that is stopped, or refused, at its n-th call that changes the disk."""

import builtins
import errno
import io
import os
import signal
import sys
import tempfile
import traceback

import torch

from custom_transforms.files import whole_files
from scripts.command_line.parser import main

CHANGING = ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir")  # of os; and open with a mode that writes
HANGS = 120  # seconds


class Moment:
    """Counts the calls that change the disk; at the n-th it acts."""

    def __init__(self, number=0, act=None, folder=""):
        self.number, self.act, self.count, self.folder = number, act, 0, str(folder)

    def __call__(self, path):
        # files of libraries' own, and the pipes of processes, are none of ours
        if isinstance(path, (str, os.PathLike)) and not os.path.abspath(path).startswith(self.folder):
            return
        self.count += 1
        if self.count == self.number and self.act:
            self.act()

    def watch(self):
        for name in CHANGING:
            setattr(os, name, self._around(getattr(os, name)))
        before = io.open

        def opening(file, mode="r", *rest, **named):
            if set(mode) & set("wax+") and not isinstance(file, int):
                self(file)
            return before(file, mode, *rest, **named)

        builtins.open = io.open = opening

    def _around(self, before):
        def call(first, *rest, **named):
            self(first)
            return before(first, *rest, **named)

        return call


def refuse(number):
    """An act: the call fails as on a full or read-only disk."""

    def act():
        raise OSError(number, os.strerror(number))

    return act


def kill(how):
    """An act: a signal to the process itself."""
    return lambda: os.kill(os.getpid(), how)


FULL, READ_ONLY = refuse(errno.ENOSPC), refuse(errno.EROFS)


def run(words, moment):
    """Run a command line, or a function, in a child.

    Returns exit code or minus the signal, stderr, and how many calls changed the disk.
    """
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as counted:
        child = os.fork()
        if child == 0:
            code = 99
            try:
                signal.alarm(HANGS)
                os.dup2(said.fileno(), 2)
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115
                sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
                whole_files._swept.clear()  # of the parent
                torch.set_num_threads(1)  # threads of the parent are not there
                moment.watch()
                code = (words() or 0) if callable(words) else main([*map(str, words)])
                os.write(counted.fileno(), str(moment.count).encode())
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        counted.seek(0)
        return status, said.read().decode(), int(counted.read() or 0)
