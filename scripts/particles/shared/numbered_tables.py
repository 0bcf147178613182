"""What lists with numbered tomograms and obligatory angles (Dynamo, TOM, STOPGAP) share."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.format import class_numbers, number_names

__all__ = ["known_rotation", "names_of_numbers", "numbers_of_particles", "score_or_zero"]


def known_rotation(angles: np.ndarray | None, to_rotation) -> Rotation | None:
    """Rotations of angles (n, 3); None where all are zero, which these programs write for 'not known'."""
    return to_rotation(angles) if angles is not None and len(angles) and np.any(angles != 0) else None


def names_of_numbers(numbers: np.ndarray, what: str, names: dict[int, str] | None = None) -> list[str]:
    """Text for whole numbers, "" for one that is missing (nan); a companion file's names where there is one.

    Raises
    ------
    ValueError
        For a number that is not whole, or that the companion file does not hold; ``what`` names file and column.
    """
    wrong = np.flatnonzero(np.isfinite(numbers) & (numbers != np.round(numbers)))
    if wrong.size:
        raise ValueError(f"{what}, row {wrong[0] + 1}: expected a whole number, got {numbers[wrong[0]]:g}.")
    whole = ["" if np.isnan(n) else str(int(n)) for n in numbers]
    if not names:
        return whole
    unknown = sorted({n for n in whole if n and int(n) not in names}, key=int)
    if unknown:
        raise ValueError(f"{what}: the number {unknown[0]} has no name in the file beside it. Add it there.")
    return [names[int(n)] if n else "" for n in whole]


def numbers_of_particles(particles: ParticleList, context: TomogramContext) -> tuple[list[int], list[int], list[str]]:
    """Tomogram numbers, class numbers and tomogram names of every particle."""
    names = [str(name) or context.name or "1" for name in particles.tomogram]
    return number_names(names), class_numbers(particles, context), names


def score_or_zero(particles: ParticleList) -> np.ndarray:
    """Scores, 0 where unknown: the column cannot be left out."""
    return np.nan_to_num(np.asarray(particles.score, dtype=float), nan=0.0)
