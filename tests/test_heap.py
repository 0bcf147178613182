"""Memory that networks on a CPU keep between tiles: pages are not taken anew for each, and all go back in the end."""

import resource
from pathlib import Path

import pytest
import torch

from scripts.tiling.heap import _glibc, blocks_from_heap, heap_kept

PAGE = resource.getpagesize()
BLOCK = 2**24 * 4 // PAGE  # pages of a block


def faults(blocks):
    """Pages that the system handed out while blocks were filled and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(blocks):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(not hasattr(_glibc()[0], "argtypes"), reason="the C library is not glibc")
def test_blocks_are_taken_once_and_go_back_in_the_end():
    with heap_kept():
        with blocks_from_heap():
            faults(20)  # gaps of the heap take a while to grow together
            with heap_kept(), blocks_from_heap():  # as validation within training does
                pass
            assert faults(5) < BLOCK
        kept = resident()
    assert resident() < kept - BLOCK / 2
