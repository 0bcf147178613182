"""Run a notebook without a kernel, and store what its cells printed and drew: ``python docs/notebook.py``."""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "pages" / "tutorials" / "notebook.ipynb"


def run_notebook(notebook: dict[str, Any]) -> dict[str, Any]:
    """Run the code cells in their order, in one namespace; give the notebook with their outputs.

    The value of a cell's last line is shown, as Jupyter does; a figure becomes a picture. An error ends it.
    """
    names: dict[str, Any] = {}
    cells = []
    for count, cell in enumerate(notebook["cells"], start=1):
        if cell["cell_type"] == "code":
            cell = {**cell, "execution_count": count, "outputs": run_cell("".join(cell["source"]), names)}
        cells.append(cell)
    return {**notebook, "cells": cells}


def run_cell(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one cell; give its outputs in the notebook format."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "<cell>", "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
        if value is not None:
            print(value)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(True)})
    for number in plt.get_fignums():
        picture = io.BytesIO()
        plt.figure(number).savefig(picture, format="png", dpi=80, bbox_inches="tight")
        plt.close(number)
        data = {"image/png": base64.b64encode(picture.getvalue()).decode()}
        outputs.append({"output_type": "display_data", "metadata": {}, "data": data})
    return outputs


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    made = run_notebook(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    NOTEBOOK.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(NOTEBOOK.relative_to(ROOT))
