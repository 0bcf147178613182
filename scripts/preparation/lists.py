"""Which particles of the lists that `prepare` is given belong to which tomogram."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from custom_transforms.files.names import tomogram_base_name, tomogram_stem
from scripts.particles.csv_table import CSV, position_unit
from scripts.particles.particle_list import ParticleList
from scripts.particles.registry import find_format, guess_format, settled_context
from scripts.particles.shared.context import TomogramContext
from scripts.particles.shared.options import context_of
from scripts.particles.shared.plausible import check_positions
from scripts.preparation.inputs import TomogramInput
from scripts.sources.copick_project import is_copick
from scripts.sources.labels_and_lists import TomogramFile, files_by_tomogram
from scripts.sources.particle_lists import read_particles

__all__ = ["Lists", "match_particles"]


@dataclass
class Lists:
    """The particle lists of a call, and where given the detections that their particles move to.

    Parameters
    ----------
    inputs : list of TomogramInput
    particles, recenter_on : str
        Lists as `files_by_tomogram` finds them.
    class_names : dict of str to str
        Names of the shapes file for the list's class numbers.
    format, binning, tomograms_star
        Of ``particles``, as `prepare` has them.

    Attributes
    ----------
    notes : list of str
        What was assumed or left out.
    classes : dict of str to int
        Number of every class so far.
    """

    inputs: list[TomogramInput]
    particles: str
    class_names: dict[str, str]
    format: str | None = None
    binning: float | None = None
    tomograms_star: str | None = None
    recenter_on: str | None = None
    notes: list[str] = field(default_factory=list)
    classes: dict[str, int] = field(default_factory=dict)
    _files: dict[str, TomogramFile] = field(init=False)
    _detections: dict[str, TomogramFile] = field(init=False, default_factory=dict)
    _read: dict[tuple, tuple[ParticleList, float | None]] = field(default_factory=dict)  # the last list alone
    _rows: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [one.name for one in self.inputs]
        self._files = files_by_tomogram(self.particles, names, "particles", self.format)
        if self.recenter_on is None:
            return
        self._detections = files_by_tomogram(self.recenter_on, names, "particles")
        if len(names) > 1 and self._detections[names[0]].shared and not is_copick(self.recenter_on):
            raise ValueError(
                f"--recenter_on {self.recenter_on}: expected a list for each of the {len(names)} tomograms, "
                "got one file. Give the folder that detect wrote, or 'detections/{name}/{name}_particles.csv'."
            )

    def files(self) -> list[Path]:
        """Every list that is read."""
        return [file.path for file in (*self._files.values(), *self._detections.values())]

    def particles_of(
        self, tomogram: TomogramInput, size_zyx: tuple[int, int, int], voxel_size_zyx: np.ndarray
    ) -> ParticleList:
        """The particles of a tomogram, Å of that tomogram."""
        file = self._files[tomogram.name]
        key = (file, size_zyx, tuple(voxel_size_zyx))
        if key not in self._read:
            self._read = {key: self._first_read(file, size_zyx, voxel_size_zyx)}
        particles, binning = self._read[key]
        if file.shared:
            if not self._rows:
                self._rows, notes = match_particles(particles, self.inputs)
                self.notes += notes
            particles = particles.select(self._rows[tomogram.name])
        else:
            particles = particles.with_tomogram(tomogram.name)
        check_positions(particles, f"{file.path}: {tomogram.name}", voxel_size_zyx, size_zyx, binning)
        return particles

    def detections_of(
        self, tomogram: TomogramInput, size_zyx: tuple[int, int, int], voxel_size_zyx: np.ndarray
    ) -> np.ndarray | None:
        """Centers (x, y, z) to recenter on, Å of that tomogram; None where the density decides."""
        if self.recenter_on is None:
            return None
        file = self._detections[tomogram.name]
        detections = _read_list(file, None, context_of(voxel_size=voxel_size_zyx, size_zyx=size_zyx))
        if file.shared:  # picks of a project are of all its runs
            detections = detections.select(match_particles(detections, self.inputs)[0][tomogram.name])
        check_positions(detections, f"{file.path}: {tomogram.name}", voxel_size_zyx, size_zyx)
        return detections.centers_xyz_angstrom

    def _first_read(
        self, file: TomogramFile, size_zyx: tuple[int, int, int], voxel_size_zyx: np.ndarray
    ) -> tuple[ParticleList, float | None]:
        context = context_of(
            voxel_size=voxel_size_zyx,
            size_zyx=size_zyx,
            binning=self.binning,
            tomograms_star=self.tomograms_star,
            class_names=self.class_names,
        )
        if not is_copick(file.path):
            context = settled_context(file.path, self.format, context)
        particles = _read_list(file, self.format, context)
        numbered = all(key.isdecimal() for key in self.class_names)
        wanted = {name: int(key) for key, name in self.class_names.items()} if numbered else {}
        self.classes.update(number_classes(set(map(str, particles.class_name)), self.classes, wanted))
        note = _position_note(file.path, self.format)
        self.notes += [note] if note and note not in self.notes else []
        return particles, context.binning


def number_classes(names: Iterable[str], known: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    """Give every class a number from 1 that fits a volume of small integers.

    Parameters
    ----------
    names : iterable of str
        Classes; "" is none.
    known : mapping of str to int
        Numbers given already; they stay.
    wanted : mapping of str to int
        Numbers of the shapes file.

    Returns
    -------
    dict of str to int
        A class takes its wanted number, or the number that is its name, if that is from 1 to 32,767 and free;
        the others follow in alphabetical order with what is left.

    Examples
    --------
    >>> number_classes(["b", "2", "40205", ""], {"a": 1}, {})
    {'a': 1, '2': 2, '40205': 3, 'b': 4}
    """
    numbers = dict(known)
    new = sorted({name for name in names if name} - set(known))
    taken = set(numbers.values())
    for name in new:
        own = wanted.get(name, int(name) if name.isdecimal() else 0)
        if 1 <= own <= np.iinfo(np.int16).max and own not in taken:
            numbers[name] = own
            taken.add(own)
    free = (number for number in itertools.count(1) if number not in taken)
    numbers.update(zip([name for name in new if name not in numbers], free, strict=False))
    return numbers


def match_particles(
    particles: ParticleList, tomograms: Sequence[TomogramInput]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Find the particles (row numbers) of every tomogram by its name, or else by its number.

    Names are compared without folder, ending, ``rec_`` and Warp's pixel size. Particles without a name, and those of a
    list with one other name, go to the tomogram if there is only one. Numbers count the tomograms from 0 (or from
    1, if 0 does not occur).

    Returns
    -------
    rows : dict of tomogram name to int array
        Every tomogram is there; possibly empty.
    notes : list of str
        What was assumed or left out.

    Raises
    ------
    ValueError
        If nothing matches; lists both sides.
    """
    spelled, spelling = np.unique(np.asarray(particles.tomogram), return_inverse=True)
    base_of = np.array([tomogram_base_name(str(name)) for name in spelled], dtype=object)
    given = [tomogram_base_name(tomogram.name) for tomogram in tomograms]
    found = sorted(set(base_of))
    notes: list[str] = []
    to_tomogram = {name: name for name in found if name in given}
    if found and not to_tomogram:
        to_tomogram = _by_number(found, tomograms, given, notes)
    files = {base: one.path.name for one, base in zip(tomograms, given, strict=True) if one.path is not None}
    apart = [
        f"{name} = {files[base]}"
        for name, base in zip(map(str, spelled), base_of, strict=True)
        if base in to_tomogram and base in files and tomogram_stem(name) != tomogram_stem(files[base]) and name
    ]
    if apart:
        notes.append(f"names were matched without what programs add to them: {', '.join(apart[:10])}")
    left = [name for name in found if name not in to_tomogram]
    if left:
        count = int(np.isin(base_of, left)[spelling].sum())
        notes.append(f"{count} particles belong to tomograms that were not given: {', '.join(left[:10])}")
    rows = {
        tomogram.name: np.flatnonzero(
            np.array([to_tomogram.get(name) == base for name in base_of], dtype=bool)[spelling]
        )
        for tomogram, base in zip(tomograms, given, strict=True)
    }
    notes += [f"{name}: the list has no particle in this tomogram" for name, index in rows.items() if len(index) == 0]
    return rows, notes


def _by_number(
    found: list[str], tomograms: Sequence[TomogramInput], given: list[str], notes: list[str]
) -> dict[str, str]:
    if len(found) == 1 and len(given) == 1:
        if found[0]:
            notes.append(f"the list's tomogram {found[0]!r} is taken to be {tomograms[0].name}")
        return {found[0]: given[0]}
    if all(name.isdecimal() for name in found):
        first = 0 if "0" in found else 1
        if max(map(int, found)) - first < len(given):
            notes.append(
                "the list numbers its tomograms; they are taken in the order of the command line: " + ", ".join(given)
            )
            return {name: given[int(name) - first] for name in found}
    if found == [""]:
        raise ValueError(
            f"the list does not say which tomogram a particle is in, and {len(given)} are given. Add a column tomogram "
            "with their names, or use one list per tomogram: --particles 'lists/{name}.csv'."
        )
    listed = [repr(name) if name else "particles without a tomogram" for name in found[:10]]
    raise ValueError(
        f"no tomogram of the list is among those given. The list has {', '.join(listed)}; "
        f"given are {', '.join(map(repr, given[:10]))}. Rename the files, or use one list per tomogram: "
        "--particles 'lists/{name}.csv'."
    )


def _read_list(file: TomogramFile, format_name: str | None, context: TomogramContext) -> ParticleList:
    particles = read_particles(file.path, format_name, context, file.member)
    if len(particles) == 0:
        warnings.warn(f"{file.path}: the particle list is empty.", UserWarning, stacklevel=2)
    return particles


def _position_note(path: Path, format_name: str | None) -> str:
    """Say which columns of a table were taken, and in which unit; "" for formats that leave no choice."""
    if is_copick(path) or (find_format(format_name) if format_name else guess_format(path)) is not CSV:
        return ""
    return f"the list's positions are its columns {position_unit(path)}"
