"""``python -m tests.hostile``: what comes of each bad input, as a table; the slowest and the largest."""

from __future__ import annotations

import sys
from collections import Counter

from tests.hostile.run import GOOD, run

if __name__ == "__main__":
    outcomes = run()
    groups = list(dict.fromkeys(one.group for one in outcomes))
    kinds = [*GOOD, *sorted({one.kind for one in outcomes} - set(GOOD))]
    print("| input |", " | ".join(["all", *kinds]), "|\n|---" + "|---" * (len(kinds) + 1) + "|")
    for group in [*groups, "all"]:
        chosen = [one for one in outcomes if group in (one.group, "all")]
        counts = Counter(one.kind for one in chosen)
        print(f"| {group} | {len(chosen)} |", " | ".join(str(counts[kind]) for kind in kinds), "|")
    for title, key in (("seconds", "seconds"), ("megabytes", "megabytes")):
        print(f"\nTen largest in {title}:")
        for one in sorted(outcomes, key=lambda one: -getattr(one, key))[:10]:
            print(f"  {getattr(one, key):8.1f}  {one.group}, {one.name}: {one.kind}")
    bad = [one for one in outcomes if one.kind not in GOOD]
    for one in bad:
        print(f"\n{one.kind}: {one.group}, {one.name}\n  {one.text}")
    sys.exit(bool(bad))
