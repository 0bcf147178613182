"""The one form in which particle positions travel between file formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

__all__ = ["ParticleList"]


@dataclass(frozen=True)
class ParticleList:
    """Particles of one or several tomograms.

    Positions are Å in the frame of the tomogram they are used with: array index times voxel size, so
    0 Å is the center of the first voxel. What is unknown stays unknown ("" or nan or None); nothing is invented.

    Parameters
    ----------
    centers_xyz_angstrom : ndarray, shape (n, 3), float64
        Å, in the order (X, Y, Z). ``n`` may be 0.
    tomogram : ndarray, shape (n,), str
        Name of the tomogram of each particle, "" if unknown. One string is taken for all.
    class_name : ndarray, shape (n,), str
        Class of each particle, "" if unknown. One string is taken for all.
    score : ndarray, shape (n,), float64
        Larger is better; nan if unknown.
    rotation : scipy Rotation of length n, or None
        Active: takes a vector (x, y, z) of the template into the tomogram. None if unknown.
    radius_angstrom : ndarray, shape (n,), float64
        Å; nan if unknown. One number is taken for all.
    extra : DataFrame with n rows
        Columns that a format carries beside these; a format that does not know them drops them.

    Examples
    --------
    >>> particles = ParticleList(np.array([[10.0, 20.0, 30.0]]), tomogram="TS_01", class_name="ribosome")
    >>> len(particles), str(particles.class_name[0]), float(particles.score[0])
    (1, 'ribosome', nan)
    """

    centers_xyz_angstrom: np.ndarray
    tomogram: np.ndarray | Sequence[str] | str = ""
    class_name: np.ndarray | Sequence[str] | str = ""
    score: np.ndarray | Sequence[float] | float = np.nan
    rotation: Rotation | None = None
    radius_angstrom: np.ndarray | Sequence[float] | float = np.nan
    extra: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __post_init__(self) -> None:
        centers = np.array(self.centers_xyz_angstrom, dtype=np.float64)
        if centers.size == 0:
            centers = centers.reshape(0, 3)
        if centers.ndim != 2 or centers.shape[1] != 3:
            raise ValueError(f"centers_xyz_angstrom: expected shape (n, 3), got {centers.shape}")
        bad = np.flatnonzero(~np.isfinite(centers).all(axis=1))
        if bad.size:
            raise ValueError(
                f"particle {bad[0] + 1} of {len(centers)}: expected a finite position, got {centers[bad[0]].tolist()} "
                f"({bad.size} such particles). Remove or correct these rows."
            )
        count = len(centers)
        object.__setattr__(self, "centers_xyz_angstrom", centers)
        object.__setattr__(self, "tomogram", _column("tomogram", self.tomogram, count, str))
        object.__setattr__(self, "class_name", _column("class_name", self.class_name, count, str))
        object.__setattr__(self, "score", _column("score", self.score, count, np.float64))
        object.__setattr__(self, "radius_angstrom", _column("radius_angstrom", self.radius_angstrom, count, np.float64))
        self._check_rotation(count)
        extra = pd.DataFrame(index=range(count)) if self.extra.shape[1] == 0 else self.extra.reset_index(drop=True)
        if len(extra) != count:
            raise ValueError(f"extra: expected {count} rows, one per particle, got {len(extra)}")
        object.__setattr__(self, "extra", extra)

    def _check_rotation(self, count: int) -> None:
        if self.rotation is None:
            return
        if count == 0:
            object.__setattr__(self, "rotation", None)
        elif self.rotation.single or len(self.rotation) != count:
            got = "one" if self.rotation.single else str(len(self.rotation))
            raise ValueError(f"rotation: expected {count} rotations, one per particle, got {got}")

    def __len__(self) -> int:
        return len(self.centers_xyz_angstrom)

    def select(self, keep: np.ndarray) -> ParticleList:
        """Take the particles of a boolean mask of shape (n,), or those of an index array, in its order."""
        rows = np.asarray(keep)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        return ParticleList(
            self.centers_xyz_angstrom[rows],
            np.asarray(self.tomogram)[rows],
            np.asarray(self.class_name)[rows],
            np.asarray(self.score)[rows],
            None if self.rotation is None or rows.size == 0 else self.rotation[rows],
            np.asarray(self.radius_angstrom)[rows],
            self.extra.iloc[rows],
        )

    def with_centers(self, centers_xyz_angstrom: np.ndarray) -> ParticleList:
        """The same particles at other positions, Å, shape (n, 3), order (X, Y, Z)."""
        return replace(self, centers_xyz_angstrom=centers_xyz_angstrom)

    def with_tomogram(self, name: str) -> ParticleList:
        """The same particles, all in the tomogram ``name``."""
        return replace(self, tomogram=name)

    def to_dataframe(self) -> pd.DataFrame:
        """The list as a table: tomogram, class, center and score, then radius, rotation (a scipy object) and the rest.

        Examples
        --------
        >>> ParticleList(np.array([[10.0, 20.0, 30.0]]), class_name="ribosome").to_dataframe().T[0].to_dict()
        {'tomogram': '', 'class': 'ribosome', 'x_angstrom': 10.0, 'y_angstrom': 20.0, 'z_angstrom': 30.0, 'score': nan}
        """
        table = pd.DataFrame({"tomogram": self.tomogram, "class": self.class_name})
        table[["x_angstrom", "y_angstrom", "z_angstrom"]] = self.centers_xyz_angstrom
        table["score"] = self.score
        if np.isfinite(self.radius_angstrom).any():
            table["radius_angstrom"] = self.radius_angstrom
        if self.rotation is not None:
            table["rotation"] = list(self.rotation)
        return pd.concat([table, self.extra.drop(columns=[c for c in table if c in self.extra])], axis=1)

    @staticmethod
    def concat(lists: Sequence[ParticleList]) -> ParticleList:
        """Join lists, in order; orientations stay only if every list that is not empty has them.

        Examples
        --------
        >>> len(ParticleList.concat([ParticleList(np.zeros((2, 3))), ParticleList(np.zeros((0, 3)))]))
        2
        """
        filled = [particles for particles in lists if len(particles)]
        if not filled:
            return ParticleList(np.zeros((0, 3)))
        rotations = [particles.rotation for particles in filled if particles.rotation is not None]
        return ParticleList(
            np.concatenate([p.centers_xyz_angstrom for p in filled]),
            np.concatenate([p.tomogram for p in filled]),
            np.concatenate([p.class_name for p in filled]),
            np.concatenate([p.score for p in filled]),
            Rotation.concatenate(rotations) if len(rotations) == len(filled) else None,
            np.concatenate([p.radius_angstrom for p in filled]),
            pd.concat([p.extra for p in filled], ignore_index=True),
        )


def _column(name: str, values: object, count: int, dtype: type) -> np.ndarray:
    """One value per particle; a single value is repeated."""
    column = np.asarray(values)
    column = np.repeat(column, count) if column.ndim == 0 else column
    if column.shape != (count,):
        raise ValueError(f"{name}: expected {count} values, one per particle, got shape {column.shape}")
    if dtype is str:
        return np.array(column, dtype=str) if count else np.zeros(0, dtype="<U1")
    return np.array(column, dtype=dtype)
