"""The flood of one seed inside its ball, and who wins each voxel: the compiled loops of `assign_instances`.

Every seed floods by itself, so the result cannot depend on the order of the seeds, on tiles or on threads.
Seeds whose balls may overlap are never flooded at the same time (see `seed_rounds`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from custom_transforms.labelling.components import Runs
from custom_transforms.labelling.kernels import first_above
from custom_transforms.volumes.parallel import run_parallel

__all__ = ["INTERIOR_FRACTION", "Ball", "flood_all", "nearest_all", "seed_rounds", "touched_components"]

# The height, relative to the peak, down to which the hollow inside of a particle is flooded. A Gaussian center
# target (sigma a quarter of the diameter) has fallen to 0.15 at 0.97 of the particle's radius: the inside
# reaches the shell from within, and hardly leaves the particle where the shell has holes.
INTERIOR_FRACTION = 0.15

# what a cell of the padded box around a seed is
_CLOSED, _MASK, _INTERIOR, _REACHED, _PASSED = 0, 1, 2, 3, 4


class Ball:
    """The voxels within R_max of a seed, as the half length in X of each of its rows (-1: no voxel).

    Parameters
    ----------
    radius : float
        In units of the smallest voxel side.
    weights : ndarray, shape (3,)
        See `squared_axis_weights`; a voxel belongs to the ball if its weighted squared distance is <= radius ** 2.
    shape : sequence of 3 ints
        Of the volume: the ball is cut where no voxel of it can be, a side less one voxel from the seed.

    Raises
    ------
    ValueError
        If the box around the ball has more voxels than 32 bits can number.
    """

    def __init__(self, radius: float, weights: np.ndarray, shape: Sequence[int]) -> None:
        self.weights = np.asarray(weights, dtype=np.float64)
        whole = np.floor(radius / np.sqrt(self.weights) + 1e-9)
        self.reach = np.minimum(whole, np.asarray(shape) - 1).astype(np.int64)  # voxels along Z, Y, X
        sides = 2 * self.reach + 3  # with the closed cells around it
        if sides.prod() > np.iinfo(np.int32).max:
            raise ValueError(
                f"radius_max: expected a ball in a box of at most {np.iinfo(np.int32).max:,} voxels, got one of "
                f"{' x '.join(map(str, sides))}. Give the largest radius that a particle has."
            )
        dz, dy, dx = (np.arange(r + 1) ** 2 * w for r, w in zip(self.reach, self.weights, strict=True))
        # one octant, plane by plane: a large ball would need many times its own memory at once
        octant = np.stack([np.count_nonzero(z + dy[:, None] + dx <= radius**2, axis=1) - 1 for z in dz])
        self.rows = octant[np.ix_(*(np.abs(np.arange(-r, r + 1)) for r in self.reach[:2]))]


def seed_rounds(peaks_zyx: np.ndarray, ball: Ball, shape: tuple[int, ...]) -> list[list[np.ndarray]]:
    """Group seeds so that the groups of one round can be flooded at the same time.

    The longest axis is cut into slabs of two ball radii; slabs of even number make the first round, odd
    ones the second. Two seeds of different slabs of a round are more than two radii apart.

    Returns
    -------
    list of list of ndarray of int64
        Rounds -> groups -> indices of seeds.
    """
    axis = int(np.argmax(shape))
    slab = peaks_zyx[:, axis] // (2 * ball.reach[axis] + 1)
    order = np.argsort(slab, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(slab[order])) + 1) if len(order) else []
    return [[g for g in groups if slab[g[0]] % 2 == parity] for parity in (0, 1)]


def flood_all(
    mask: np.ndarray, center_map: np.ndarray, peaks_zyx: np.ndarray, ball: Ball
) -> tuple[np.ndarray, np.ndarray]:
    """Flood from every seed; each mask voxel goes to the best (cost, distance, seed).

    Returns
    -------
    owner : ndarray, shape (Z, Y, X), int32
        1 + index of the winning seed, 0 where no seed came.
    cost : ndarray, shape (Z, Y, X), uint8
        Cost of the winner; scratch memory for the caller.
    """
    owner = np.zeros(mask.shape, dtype=np.int32)
    cost = np.zeros(mask.shape, dtype=np.uint8)
    fraction = np.float32(INTERIOR_FRACTION)
    for groups in seed_rounds(peaks_zyx, ball, mask.shape):
        run_parallel(
            lambda group: _flood_group(
                mask, center_map, peaks_zyx, group, ball.rows, ball.reach, ball.weights, fraction, owner, cost
            ),
            [(group,) for group in groups],
        )
    return owner, cost


def nearest_all(
    runs: Runs, shape: tuple[int, ...], peaks_zyx: np.ndarray, allowed: list[np.ndarray], ball: Ball
) -> np.ndarray:
    """Give each foreground voxel to the nearest seed that may own its component, within the ball.

    Parameters
    ----------
    allowed : list of ndarray of int
        Per seed the components it may own.

    Returns
    -------
    ndarray, shape (Z, Y, X), int32
        1 + index of the winning seed, 0 where no seed came.
    """
    owner = np.zeros(shape, dtype=np.int32)
    first = np.cumsum([0, *(len(ids) for ids in allowed)])
    ids = np.concatenate([*allowed, np.zeros(0, np.int64)]).astype(np.int64)
    for groups in seed_rounds(peaks_zyx, ball, shape):
        run_parallel(
            lambda group: _nearest_group(
                runs.row_first, runs.start, runs.stop, runs.component, peaks_zyx, group, first, ids,
                ball.rows, ball.reach, ball.weights, owner,
            ),
            [(group,) for group in groups],
        )  # fmt: skip
    return owner


def touched_components(
    mask: np.ndarray, center_map: np.ndarray, runs: Runs, peak: np.ndarray, ball: Ball
) -> np.ndarray:
    """Components that a seed may own: its own, or, outside the mask, every one that its interior touches.

    Returns
    -------
    ndarray of int64
        Sorted, unique; empty for a seed that reaches no mask voxel.
    """
    touched = _touched(
        mask, center_map, runs.row_first, runs.start, runs.stop, runs.component, peak,
        ball.rows, ball.reach, np.float32(INTERIOR_FRACTION),
    )  # fmt: skip
    return np.unique(touched)


@njit(nogil=True, cache=True)
def _level(value):  # of NaN it is 0
    if not value > 0:
        return 0
    if value >= 1:
        return 255
    return int(value * np.float32(255) + np.float32(0.5))


@njit(nogil=True, cache=True)
def _open_ball(mask, center_map, peak, rows, reach, fraction, state, level):
    """Mark which cells of the padded box around a seed may be flooded, and their levels."""
    state[:] = _CLOSED
    pz, py, px = peak[0], peak[1], peak[2]
    step_y = 2 * reach[2] + 3
    step_z = step_y * (2 * reach[1] + 3)
    outside = not mask[pz, py, px]
    floor = max(fraction * np.float32(_level(center_map[pz, py, px])), np.float32(1))
    for z in range(max(pz - reach[0], 0), min(pz + reach[0] + 1, mask.shape[0])):
        for y in range(max(py - reach[1], 0), min(py + reach[1] + 1, mask.shape[1])):
            half = rows[z - pz + reach[0], y - py + reach[1]]
            base = (z - pz + reach[0] + 1) * step_z + (y - py + reach[1] + 1) * step_y + reach[2] + 1 - px
            for x in range(max(px - half, 0), min(px + half + 1, mask.shape[2])):
                if mask[z, y, x]:
                    state[base + x] = _MASK
                    level[base + x] = _level(center_map[z, y, x])
                elif outside:
                    here = _level(center_map[z, y, x])
                    if here >= floor:
                        state[base + x] = _INTERIOR
                        level[base + x] = here
    return step_z, step_y


@njit(nogil=True, cache=True)
def _flood_ball(state, level, start, step_z, step_y, head, following):
    """Minimax flood with one stack per cost. Afterwards the reached cells hold their cost in ``level``.

    A cell is pushed once: stacks are emptied from the lowest cost up, so the first way to a cell is the best.
    """
    head[:] = -1
    cost = 255 - level[start]
    level[start] = cost
    state[start] = _REACHED if state[start] == _MASK else _PASSED
    head[cost] = start
    following[start] = -1
    while cost < 256:
        cell = head[cost]
        if cell < 0:
            cost += 1
            continue
        head[cost] = following[cell]
        interior = state[cell] == _PASSED
        for side in range(6):
            step = step_z if side < 2 else (step_y if side < 4 else 1)
            other = cell + step if side % 2 else cell - step
            kind = state[other]
            if kind == _MASK or (kind == _INTERIOR and interior):
                paid = max(cost, 255 - level[other])
                level[other] = paid
                state[other] = _REACHED if kind == _MASK else _PASSED
                following[other] = head[paid]
                head[paid] = other


@njit(nogil=True, cache=True)
def _flood_group(mask, center_map, peaks, group, rows, reach, weights, fraction, owner, best):
    cells = (2 * reach[0] + 3) * (2 * reach[1] + 3) * (2 * reach[2] + 3)
    state = np.empty(cells, np.uint8)
    level = np.empty(cells, np.uint8)
    following = np.empty(cells, np.int32)
    head = np.empty(256, np.int32)
    for seed in group:
        step_z, step_y = _open_ball(mask, center_map, peaks[seed], rows, reach, fraction, state, level)
        start = (reach[0] + 1) * step_z + (reach[1] + 1) * step_y + reach[2] + 1
        _flood_ball(state, level, start, step_z, step_y, head, following)
        _claim(peaks, seed, rows, reach, weights, state, level, step_z, step_y, owner, best)


@njit(nogil=True, cache=True)
def _claim(peaks, seed, rows, reach, weights, state, level, step_z, step_y, owner, best):
    """Take every reached mask voxel for which this seed beats the present owner."""
    pz, py, px = peaks[seed, 0], peaks[seed, 1], peaks[seed, 2]
    for z in range(max(pz - reach[0], 0), min(pz + reach[0] + 1, owner.shape[0])):
        for y in range(max(py - reach[1], 0), min(py + reach[1] + 1, owner.shape[1])):
            half = rows[z - pz + reach[0], y - py + reach[1]]
            base = (z - pz + reach[0] + 1) * step_z + (y - py + reach[1] + 1) * step_y + reach[2] + 1 - px
            for x in range(max(px - half, 0), min(px + half + 1, owner.shape[2])):
                if state[base + x] != _REACHED:
                    continue
                rival = owner[z, y, x] - 1
                cost = level[base + x]
                wins = rival < 0 or cost < best[z, y, x]
                if not wins and cost == best[z, y, x]:
                    wins = _is_nearer(peaks, seed, rival, z, y, x, weights)
                if wins:
                    owner[z, y, x] = seed + 1
                    best[z, y, x] = cost


@njit(nogil=True, cache=True)
def _is_nearer(peaks, seed, rival, z, y, x, weights):
    """Whether ``seed`` lies nearer to the voxel than ``rival``; ties go to the smaller index."""
    dz, dy, dx = z - peaks[seed, 0], y - peaks[seed, 1], x - peaks[seed, 2]
    own = dz * dz * weights[0] + dy * dy * weights[1] + dx * dx * weights[2]
    dz, dy, dx = z - peaks[rival, 0], y - peaks[rival, 1], x - peaks[rival, 2]
    other = dz * dz * weights[0] + dy * dy * weights[1] + dx * dx * weights[2]
    return own < other or (own == other and seed < rival)


@njit(nogil=True, cache=True)
def _nearest_group(
    row_first, start, stop, component, peaks, group, allowed_first, allowed, rows, reach, weights, owner
):
    nz, ny, nx = owner.shape
    for seed in group:
        mine = allowed[allowed_first[seed] : allowed_first[seed + 1]]
        pz, py, px = peaks[seed, 0], peaks[seed, 1], peaks[seed, 2]
        for z in range(max(pz - reach[0], 0), min(pz + reach[0] + 1, nz)):
            for y in range(max(py - reach[1], 0), min(py + reach[1] + 1, ny)):
                half = rows[z - pz + reach[0], y - py + reach[1]]
                x_end = min(px + half + 1, nx) if half >= 0 else 0
                run_end = row_first[z * ny + y + 1]
                run = first_above(stop, row_first[z * ny + y], run_end, px - half)  # ends behind the ball's first X
                while run < run_end and start[run] < x_end:
                    if _contains(mine, component[run]):
                        for x in range(max(start[run], px - half, 0), min(stop[run], x_end)):
                            rival = owner[z, y, x] - 1
                            if rival < 0 or _is_nearer(peaks, seed, rival, z, y, x, weights):
                                owner[z, y, x] = seed + 1
                    run += 1


@njit(nogil=True, cache=True)
def _contains(ids, wanted):
    for k in range(ids.size):  # noqa: SIM110 (numba has no any())
        if ids[k] == wanted:
            return True
    return False


@njit(nogil=True, cache=True)
def _touched(mask, center_map, row_first, start, stop, component, peak, rows, reach, fraction):
    """Components of the mask cells that the seed's interior touches (one entry per touch)."""
    cells = (2 * reach[0] + 3) * (2 * reach[1] + 3) * (2 * reach[2] + 3)
    state = np.empty(cells, np.uint8)
    level = np.empty(cells, np.uint8)
    step_z, step_y = _open_ball(mask, center_map, peak, rows, reach, fraction, state, level)
    stack = np.empty(cells, np.int64)
    stack[0] = (reach[0] + 1) * step_z + (reach[1] + 1) * step_y + reach[2] + 1
    touched = np.empty(cells, np.int64)
    count = 0
    filled = 1
    state[stack[0]] = _REACHED if state[stack[0]] == _MASK else _PASSED
    while filled:
        filled -= 1
        cell = stack[filled]
        if state[cell] == _REACHED:
            z = peak[0] + cell // step_z - reach[0] - 1
            y = peak[1] + cell % step_z // step_y - reach[1] - 1
            x = peak[2] + cell % step_y - reach[2] - 1
            row = z * mask.shape[1] + y
            touched[count] = component[first_above(stop, row_first[row], row_first[row + 1], x)]
            count += 1
            continue
        for side in range(6):
            step = step_z if side < 2 else (step_y if side < 4 else 1)
            other = cell + step if side % 2 else cell - step
            if state[other] == _MASK or state[other] == _INTERIOR:
                state[other] = _REACHED if state[other] == _MASK else _PASSED
                stack[filled] = other
                filled += 1
    return touched[:count]
