"""What lists with numbered tomograms and obligatory angles (Dynamo, TOM, STOPGAP) share."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from scripts.particles.particle_list import ParticleList
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.format import class_numbers, number_names

__all__ = ["known_rotation", "names_of_numbers", "numbers_of_particles", "score_or_zero"]


def known_rotation(angles: np.ndarray, to_rotation) -> Rotation | None:
    """Rotations of angles (n, 3); None where all are zero, which these programs write for 'not known'."""
    return to_rotation(angles) if len(angles) and np.any(angles != 0) else None


def names_of_numbers(numbers: np.ndarray, names: dict[int, str] | None = None) -> list[str]:
    """Text for whole numbers, "" for 0 where no names are given; a companion file's names where it has them."""
    return [(names or {}).get(int(n), str(int(n))) for n in numbers]


def numbers_of_particles(particles: ParticleList, context: TomogramContext) -> tuple[list[int], list[int], list[str]]:
    """Tomogram numbers, class numbers and tomogram names of every particle."""
    names = [str(name) or context.name or "1" for name in particles.tomogram]
    return number_names(names), class_numbers(particles, context), names


def score_or_zero(particles: ParticleList) -> np.ndarray:
    """Scores, 0 where unknown: the column cannot be left out."""
    return np.nan_to_num(np.asarray(particles.score, dtype=float), nan=0.0)
