"""Run the benchmarks and print one table: ``make bench``, or ``python -m tests.benchmarks instances evaluate --full``.

Absolute times are of the machine at hand; ratios travel.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from pathlib import Path
from typing import Any

BENCHES = ("instances", "evaluate", "simulate", "inference", "streaming", "cluster")
RECORD = Path(__file__).with_name("results.json")


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the rows as one table; what a row does not have stays empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_text(row.get(name)) for name in names] for row in rows]
    widths = [max(len(line[k]) for line in [names, *cells]) for k in range(len(names))]
    for line in [names, *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def machine() -> dict[str, Any]:
    """What the times were taken on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"processor": (names or [platform.processor()])[0], "cores": os.cpu_count(), "memory_gib": round(memory, 1)}


def main() -> None:
    """Parse the options, run, print, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benches", nargs="*", default=BENCHES, help=f"which: {', '.join(BENCHES)} (all)")
    parser.add_argument("--full", action="store_true", help="also 464 x 928 x 928; needs about 10 GB")
    parser.add_argument("--json", type=Path, help="where the rows go (results.json here if all ran, else nowhere)")
    parser.add_argument("--note", default="", help="kept with the machine: what else ran on it")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.benches:
        if name not in BENCHES:
            parser.error(f"{name}: expected {', '.join(BENCHES)}")
        print(f"{name} ...", flush=True)
        rows += importlib.import_module(f"tests.benchmarks.bench_{name}").run(full=options.full)
    print_table(rows)
    # rows of a few benches must not take the place of the whole record
    target = options.json or (RECORD if set(options.benches) == set(BENCHES) else None)
    if target is not None:
        temporary = target.with_suffix(".part")
        made = {"machine": {**machine(), "note": options.note}, "full": options.full, "rows": rows}
        temporary.write_text(json.dumps(made, indent=1) + "\n")
        temporary.replace(target)


if __name__ == "__main__":
    main()
