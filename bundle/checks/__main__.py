"""Run all checks on an unpacked bundle: ``python -m checks ZIP ROOT WORK RESULT [SCHEMA]``.

This package imports nothing of the repository, so that the scripts and transforms that are checked are the bundle's.
`bundle.verify` copies it beside the unpacked bundle and starts it there.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from . import code, configs, files, loading, metadata, networks
from .common import Case

CHECKS: list[tuple[str, Callable[[Case], str]]] = [
    ("name of the zip", files.check_name),
    ("required files", files.check_required_files),
    ("file sizes", files.check_sizes),
    ("version and changelog", metadata.check_version),
    ("metadata format", metadata.check_format),
    ("packages", code.check_packages),
    ("keys of the configs", configs.check_keys),
    ("properties, inference", configs.check_inference_properties),
    ("properties, train_mask", configs.check_train_mask_properties),
    ("properties, train_center", configs.check_train_center_properties),
    ("weights", networks.check_weights),
    ("input and output of the network", networks.check_net_in_out),
    ("TorchScript (ckpt_export)", networks.check_torchscript),
    ("torch.export", networks.check_export),
    ("monai.bundle.load", loading.check_load),
    ("monai.bundle run inference", loading.check_run),
    ("provenance", files.check_provenance),
]


def run_checks(case: Case, checks: Sequence[tuple[str, Callable[[Case], str]]] = tuple(CHECKS)) -> int:
    """Run checks in order, print a line for each; returns how many failed."""
    width, failed = max(len(title) for title, _ in checks), 0
    for number, (title, check) in enumerate(checks, 1):
        quiet = io.StringIO()
        try:
            with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                detail = "ok      " + check(case)
        except Exception as error:  # a check may fail in any way: that is its result, and is printed
            failed += 1
            detail = f"failed: {_reason(error)}"
        logging.disable(logging.NOTSET)
        print(f"{number:2d}. {title:<{width}}  {detail}".rstrip(), flush=True)
    return failed


def _reason(error: BaseException) -> str:
    """The message at the bottom of what MONAI wrapped, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def main(arguments: Sequence[str]) -> None:
    """Check; the number of failed checks goes into the file RESULT, which is missing if something else went wrong."""
    archive, root, work, result = (Path(one).resolve() for one in arguments[:4])
    schema = Path(arguments[4]) if len(arguments) > 4 else None
    failed = run_checks(Case(archive, root, work, schema))
    result.write_text(str(failed))


if __name__ == "__main__":
    main(sys.argv[1:])
