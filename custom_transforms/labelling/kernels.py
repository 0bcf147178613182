"""What several compiled loops share: joining sets, searching sorted numbers."""

from __future__ import annotations

from numba import njit

__all__ = ["first_above", "join_sets"]


@njit(nogil=True, cache=True)
def join_sets(parent, a, b):
    """Join the sets of two members; the lower of their roots becomes the root of both."""
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    while parent[b] != b:
        parent[b] = parent[parent[b]]
        b = parent[b]
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@njit(nogil=True, cache=True)
def first_above(values, first, last, limit):
    """Index, from ``first`` on, of the first of sorted values above ``limit``; ``last`` if none before it is."""
    while first < last:
        middle = (first + last) // 2
        if values[middle] <= limit:
            first = middle + 1
        else:
            last = middle
    return first
