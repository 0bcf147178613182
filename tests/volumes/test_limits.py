"""Memory that may be used: every limit above the process counts, whatever version of control groups sets it."""

import pytest

from custom_transforms.volumes.limits import available_memory

GIB = 2**30
LIMITS = {
    "free": ({}, "", 100),
    "container (v2)": ({"memory.max": 16, "memory.current": 4}, "0::/", 12),
    "cached files are free (v2)": ({"memory.max": 16, "memory.current": 10, "memory.stat": 6}, "0::/", 12),
    "slurm step (v2)": ({"job_1/step_0/memory.max": 8, "job_1/step_0/memory.current": 1}, "0::/job_1/step_0", 7),
    "slurm job above its step (v2)": (
        {"memory.max": 64, "memory.current": 1, "slurm/job_1/memory.max": 8, "slurm/job_1/memory.current": 3},
        "0::/slurm/job_1/step_0", 5,
    ),
    "soft limit (v2)": ({"a/memory.max": "max", "a/memory.high": 9, "a/memory.current": 2}, "0::/a", 7),
    "slurm step (v1)": (
        {"memory/slurm/step/memory.limit_in_bytes": 8, "memory/slurm/step/memory.usage_in_bytes": 3},
        "9:cpuset:/\n4:memory:/slurm/step\n0::/", 5,
    ),
    "no limit (v1)": ({"memory/memory.limit_in_bytes": 2**33, "memory/memory.usage_in_bytes": 3}, "4:memory:/", 100),
    "used up": ({"memory.max": 4, "memory.current": 5}, "0::/", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_memory_is_what_the_tightest_limit_leaves(name, tmp_path):
    files, groups, expected = LIMITS[name]
    for path, value in files.items():
        path = tmp_path / "sys" / "fs" / "cgroup" / path
        path.parent.mkdir(parents=True, exist_ok=True)
        number = value if value == "max" else str(value * GIB)
        path.write_text(f"anon 1\ninactive_file {number}\n" if path.name == "memory.stat" else number + "\n")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {100 * 2**20} kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text(groups)
    assert available_memory(tmp_path) == expected * GIB
