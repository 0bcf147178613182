"""Memory that may be used: every limit above the process counts, whatever version of control groups sets it."""

import nibabel as nib
import numpy as np
import pytest

from custom_transforms.files import text
from custom_transforms.files.limits import PROCESS_LIMIT, available_memory
from custom_transforms.volumes import compressed, read
from custom_transforms.volumes.mrc_write import write_mrc

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
    token = PROCESS_LIMIT.set(6 * GIB)  # by whom it was started
    try:
        assert available_memory(tmp_path) == min(expected, 6) * GIB
    finally:
        PROCESS_LIMIT.reset(token)


def test_text_files_beyond_what_lists_are_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = tmp_path / "a.star"
    with open(path, "wb") as file:
        file.truncate(3 * GIB)  # takes no disk
    with pytest.raises(ValueError, match=r"a.star: expected a list of at most 2 GiB, got 3.0 GiB"):
        text.read_text(path, "a list")
    with open(path, "wb") as file:
        file.truncate(GIB)
    monkeypatch.setattr(text, "available_memory", lambda: 8 * GIB)
    with pytest.raises(ValueError, match=r"reading it takes 16.00 GiB, and 8.00 GiB are free. Split it"):
        text.read_text(path, "a list")
    monkeypatch.setattr(text, "MOST_LINES", 3)
    path.write_text("1\r2\r\n3\n")
    with pytest.raises(ValueError, match="expected a list of at most 3 lines, got 4. Split it"):
        text.read_text(path, "a list")
    assert text.read_text(path, "a list", lines=False) == "1\n2\n3\n"
    with pytest.raises(FileNotFoundError, match="expected a list, found no such file. Check the path."):
        text.read_text("/dev/zero", "a list")


def test_a_job_is_refused_by_the_sum_of_its_volumes_and_copies_before_any_is_read(tmp_path, monkeypatch):
    volume = np.zeros((8, 16, 32), np.int16)
    for name in ("a.mrc", "a.mrc.gz"):
        write_mrc(tmp_path / name, volume, 10.0)
    write_mrc(tmp_path / "b.mrc.gz", volume.astype(np.float32), 10.0)
    nib.save(nib.Nifti1Image(volume.T, np.eye(4)), tmp_path / "c.nii")
    monkeypatch.setattr(compressed, "_fill", lambda *_: pytest.fail("it was read"))
    needed = {"a.mrc": 0, "c.nii": 0, "a.mrc.gz": 2, "b.mrc.gz": 4 + 6}  # bytes a voxel; floats cost 6 more
    for names in (["a.mrc", "c.nii"], ["a.mrc", "a.mrc.gz"], ["a.mrc.gz", "b.mrc.gz"], []):
        total = volume.size * (4 + sum(needed[name] for name in names))
        paths = [tmp_path / name for name in names]
        monkeypatch.setattr(read, "available_memory", lambda total=total: total)
        read.check_job("job", paths, (4, 6), voxels=volume.size)
        monkeypatch.setattr(read, "available_memory", lambda total=total: total - 1)
        with pytest.raises(ValueError, match=r"^job: expected .* GiB of memory .* for copies\), found .* GiB free"):
            read.check_job("job", paths, (4, 6), voxels=volume.size)
