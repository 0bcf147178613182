"""Optimal one-to-one matching of predicted to true centers, and the whole threshold sweep from one set of pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

__all__ = ["PointMatches", "candidate_pairs", "hits_by_threshold", "match_pairs", "match_points", "match_radius"]

_DENSE_GROUP = 2_000_000  # entries of a group's cost matrix above which the sparse solver takes over


@dataclass(frozen=True)
class PointMatches:
    """Who matched whom.

    ``predicted`` and ``true`` are indices of equal length k, ``distances`` (k,) is in Å.
    """

    predicted: np.ndarray
    true: np.ndarray
    distances: np.ndarray


def match_radius(
    radius_angstrom: ArrayLike, voxel_size_zyx: ArrayLike, fraction: float = 0.5, min_voxels: float = 2.0
) -> np.ndarray:
    """How far a predicted center may lie from the true one: a fraction of the particle's radius, at least 2 voxels.

    Parameters
    ----------
    radius_angstrom : float or ndarray, shape (n,)
        Radius of the true particles in Å.
    voxel_size_zyx : ndarray, shape (3,)
        Å per voxel; "2 voxels" are twice the largest of the three.

    Returns
    -------
    ndarray, shape (n,)
        Å.

    Examples
    --------
    >>> match_radius([100.0, 20.0], [10.0, 10.0, 10.0])
    array([50., 20.])
    """
    floor = min_voxels * float(np.max(np.asarray(voxel_size_zyx, np.float64)))
    return np.maximum(fraction * np.atleast_1d(np.asarray(radius_angstrom, np.float64)), floor)


def candidate_pairs(
    predicted: np.ndarray, true: np.ndarray, max_distance: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List every predicted and true center that are close enough to be one particle (a distance equal to it counts).

    Parameters
    ----------
    predicted : ndarray, shape (n, 3)
        Centers in Å; one axis order for both.
    true : ndarray, shape (m, 3)
        Centers in Å.
    max_distance : float or ndarray, shape (m,)
        Å, per true center.

    Returns
    -------
    predicted_index, true_index : ndarray, shape (k,), int64
    distances : ndarray, shape (k,)
        Å.
    """
    predicted = np.asarray(predicted, np.float64).reshape(-1, 3)
    true = np.asarray(true, np.float64).reshape(-1, 3)
    nothing = np.empty(0, np.int64)
    if not len(predicted) or not len(true):
        return nothing, nothing, np.empty(0)
    reach = np.broadcast_to(np.asarray(max_distance, np.float64), (len(true),))
    if not (np.isfinite(predicted).all() and np.isfinite(true).all() and np.isfinite(reach).all()):
        raise ValueError("matching: expected finite centers and distances in Å, got NaN or infinity; check both lists")
    # A hair more than asked, then the exact test: the tree's own rounding must not decide a distance equal to it.
    found = cKDTree(predicted).query_ball_point(true, reach * (1 + 1e-9) + 1e-9, return_sorted=True)
    counts = np.fromiter((len(near) for near in found), np.int64, len(found))
    predicted_index = np.concatenate([np.asarray(near, np.int64) for near in found if near] or [nothing])
    true_index = np.repeat(np.arange(len(true)), counts)
    distances = np.linalg.norm(predicted[predicted_index] - true[true_index], axis=1)
    near_enough = distances <= reach[true_index] * (1 + 1e-12)
    return predicted_index[near_enough], true_index[near_enough], distances[near_enough]


def match_pairs(
    predicted_index: np.ndarray, true_index: np.ndarray, distances: np.ndarray, n_predicted: int, n_true: int
) -> PointMatches:
    """Choose pairs so that no center is used twice: as many as possible, and among those the least total distance.

    Centers that share no candidate are independent, so each connected group is solved by itself.
    Returns the chosen pairs sorted by true index. Exact; between equal optima either may come out, but the same
    input always gives the same answer.
    """
    if not len(distances):
        return PointMatches(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    graph = coo_array(
        (np.ones(len(distances)), (true_index, predicted_index + n_true)), shape=(n_true + n_predicted,) * 2
    )
    _, group_of_node = connected_components(graph, directed=False)
    group = group_of_node[true_index]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    chosen = [order[starts[sizes == 1]]]  # the usual case: one candidate for one particle
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        edges = order[start : start + size]
        chosen.append(edges[_assign(predicted_index[edges], true_index[edges], distances[edges])])
    pairs = np.concatenate(chosen)
    pairs = pairs[np.argsort(true_index[pairs], kind="stable")]
    return PointMatches(predicted_index[pairs], true_index[pairs], distances[pairs])


def _assign(predicted_index: np.ndarray, true_index: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Positions, among one group's edges, of its best matching."""
    _, row = np.unique(true_index, return_inverse=True)
    _, column = np.unique(predicted_index, return_inverse=True)
    n_rows, n_columns = int(row.max()) + 1, int(column.max()) + 1
    scaled = distances / max(float(distances.max()), np.finfo(float).tiny)
    # One pair given up must cost more than every distance of the group together.
    give_up = min(n_rows, n_columns) + 1.0
    if n_rows * n_columns > _DENSE_GROUP:
        return _assign_sparse(row, column, scaled, n_rows, n_columns, give_up)
    cost = np.full((n_rows, n_columns), give_up)
    edge_at = np.full((n_rows, n_columns), -1, np.int64)
    cost[row, column] = scaled
    edge_at[row, column] = np.arange(len(row))
    edges = edge_at[linear_sum_assignment(cost)]
    return edges[edges >= 0]


def _assign_sparse(
    row: np.ndarray, column: np.ndarray, scaled: np.ndarray, n_rows: int, n_columns: int, give_up: float
) -> np.ndarray:
    """The same on a sparse matrix: each row may also take a column of its own, at the price of giving up."""
    own = np.arange(n_rows)
    # Sparse matrices drop zeros, so every cost is raised by one; each row takes exactly one column, so nothing changes.
    costs = np.concatenate([scaled + 1, np.full(n_rows, give_up + 1)])
    where = (np.concatenate([row, own]), np.concatenate([column, n_columns + own]))
    biadjacency = coo_array((costs, where), shape=(n_rows, n_columns + n_rows)).tocsr()
    rows, columns = min_weight_full_bipartite_matching(biadjacency)
    kept = columns < n_columns
    key = row.astype(np.int64) * n_columns + column
    order = np.argsort(key)
    return order[np.searchsorted(key[order], rows[kept].astype(np.int64) * n_columns + columns[kept])]


def match_points(predicted: np.ndarray, true: np.ndarray, max_distance: ArrayLike) -> PointMatches:
    """Match predicted to true centers one to one: the most pairs, then the least total distance.

    Parameters
    ----------
    predicted : ndarray, shape (n, 3)
        Centers in Å; one axis order for both. ``n`` may be 0.
    true : ndarray, shape (m, 3)
        Centers in Å. ``m`` may be 0.
    max_distance : float or ndarray, shape (m,)
        Å; how far a prediction may lie from each true center (inclusive).

    Returns
    -------
    PointMatches
        Indices of the pairs, sorted by the true one, and their distances.

    Examples
    --------
    >>> match_points(np.array([[0., 0, 0], [3, 0, 0]]), np.array([[2., 0, 0], [4, 0, 0]]), 2.5).predicted
    array([0, 1])
    """
    pairs = candidate_pairs(predicted, true, max_distance)
    return match_pairs(*pairs, n_predicted=len(predicted), n_true=len(true))


def hits_by_threshold(
    predicted_index: np.ndarray, true_index: np.ndarray, score: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many pairs the best matching has at every score threshold, from one pass over the candidates.

    Predictions are added from the highest score down; each raises the size of the best matching by one if a path of
    swaps leads it to a free particle, and by none otherwise, so no threshold is ever matched anew.

    Parameters
    ----------
    predicted_index, true_index : ndarray, shape (k,)
        Candidate pairs (`candidate_pairs`).
    score : ndarray, shape (n,)
        Score of every prediction; finite.

    Returns
    -------
    thresholds : ndarray, shape (t,)
        The distinct scores, highest first: keeping a prediction means score >= threshold.
    true_positives, predicted : ndarray, shape (t,), int64
        Pairs of the best matching, and predictions kept, at each.
    """
    order = np.argsort(-score, kind="stable")
    near: dict[int, list[int]] = {}
    for prediction, particle in zip(predicted_index.tolist(), true_index.tolist(), strict=True):
        near.setdefault(prediction, []).append(particle)
    taker_of: dict[int, int] = {}  # true -> predicted
    held_by: dict[int, int] = {}  # predicted -> true
    gained = [_augment(prediction, near, taker_of, held_by) for prediction in order.tolist()]
    sorted_score = score[order]
    last = np.flatnonzero(np.append(sorted_score[1:] != sorted_score[:-1], True)) if len(order) else order
    return sorted_score[last], np.cumsum(np.asarray(gained, np.int64))[last], last + 1


def _augment(prediction: int, near: dict[int, list[int]], taker_of: dict[int, int], held_by: dict[int, int]) -> bool:
    """Give the prediction a particle, moving others along where that frees one (breadth-first)."""
    came_from: dict[int, int] = {}  # true -> the prediction that would take it
    queue = [prediction]
    for taker in queue:
        for particle in near.get(taker, ()):
            if particle in came_from:
                continue
            came_from[particle] = taker
            if particle in taker_of:
                queue.append(taker_of[particle])
                continue
            free: int | None = particle
            while free is not None:
                mover = came_from[free]
                left = held_by.get(mover)
                taker_of[free], held_by[mover] = mover, free
                free = left
            return True
    return False
