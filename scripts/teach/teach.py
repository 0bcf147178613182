"""teach: from a handful of examples to the class they are of, among all that the general networks find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from custom_transforms.files.whole_files import check_folder
from custom_transforms.measuring.taught import Taught, write_taught
from scripts.console import note, tell
from scripts.detection.detect import detect
from scripts.particles.particle_list import ParticleList
from scripts.sources.detections import find_detections
from scripts.teach.ask import most_useful, unsure, write_questions
from scripts.teach.candidates import Candidates, common_settings, open_candidates
from scripts.teach.classes import learn_classes, standardised
from scripts.teach.examples import OTHER, Examples, match_examples, read_lists, rest_of
from scripts.teach.move import FILE as MOVED
from scripts.teach.move import move_networks
from scripts.teach.picks import check_target, write_picks

__all__ = ["teach"]

MOST_LISTED = 5
FILE = "taught.json"


def teach(
    *detections: str,
    particles: str | None = None,
    counter_examples: str | None = None,
    complete: str | None = None,
    output_dir: str = "taught",
    ask: int = 0,
    minutes: float = 0,
    from_format: str | None = None,
    binning: float | None = None,
    tomograms_star: str | None = None,
    report: bool = True,
) -> None:
    """Learn from a few examples which of the found particles are yours; seconds, and the networks stay as they are.

    Writes what was learnt (taught.json, for `detect --teach`) and, by it, new labels and lists of the tomograms named.
    A particle that the general networks do not find cannot be chosen: --minutes 5 moves them to the examples first.

    example: python -m scripts teach detections --particles examples.csv --output_dir taught

    Parameters
    ----------
    detections : str
        Folders that detect wrote, of one tomogram or all; or tomograms, which are then detected first, into
        <output_dir>/candidates.
    particles : str
        List of examples, 3 to 500, of any format: all of one class, or of several by its column class. Rows of the
        class other are counter-examples, rows of the class ? are passed over.
    counter_examples : str
        A list of particles that are of none of the classes.
    complete : str
        Where the list names every particle of its classes: a mask file ('masks/{name}.mrc') or a box z0:z1,y0:y1,x0:x1
        in voxels. What else was found there is a counter-example, in tomograms with examples.
    output_dir : str
        Folder for the results.
    ask : int
        Write so many candidates whose answer would help most: asked.csv, to fill in, and asked.html with pictures.
    minutes : float
        Move CenterNet to the examples first, for so long at most, and detect again; kept (moved.pt) where nine in ten
        of the others, and of what is most like them, stay found among no more candidates. 0 does not.
    from_format : str
        Format of the lists; guessed from name and content.
    binning : float
        Voxel of the tomogram over pixel of the list, as of prepare.
    tomograms_star : str
        RELION's tomograms.star, as of prepare.
    report : bool
        Make the HTML page of each tomogram.
    """
    if particles is None:
        raise ValueError("--particles: expected a list of examples, none is named. See --help.")
    if ask < 0:
        raise ValueError(f"--ask: expected how many candidates to ask about, 0 or more, got {ask}.")
    if not minutes >= 0:
        raise ValueError(f"--minutes: expected minutes to move the networks, 0 or more, got {minutes}.")
    folder = Path(output_dir).expanduser()
    check_folder(folder, "--output_dir")
    candidates = [open_candidates(run) for run in _runs(detections, folder)]
    settings, weights = common_settings(candidates)
    for one in candidates:
        check_target(one, folder)
    about_list = from_format, None if binning is None else float(binning), tomograms_star
    lists, notes = read_lists(candidates, particles, *about_list)
    others = None if counter_examples is None else read_lists(candidates, counter_examples, *about_list)[0]
    moved = None
    if minutes:
        unlike = _counter_examples(candidates, lists, others, complete)
        moved = move_networks(candidates, lists, unlike, float(minutes), folder)
    if moved is not None:
        candidates = moved
        settings, weights = common_settings(candidates)
    examples = match_examples(candidates, lists, _counter_examples(candidates, lists, others, complete))
    for text in [*notes, *_about(examples, sum(map(len, lists)))]:
        note(text)
    values, mean, scale = standardised(np.concatenate([one.descriptors for one in candidates]))
    learnt = learn_classes(values, np.concatenate(examples.known), examples.classes)
    for text in learnt.warnings:
        note(text)
    taught = learnt.taught(mean, scale, settings, weights)
    file = folder / FILE
    write_taught(file, replace(taught, networks=None if moved is None else MOVED))
    for learnt_class in learnt.classes:
        tell(learnt_class.text, **learnt_class.facts)
    tell(str(file), written=[file])
    _write(candidates, file, folder, report)
    if ask:
        _ask(candidates, examples, taught, values, ask, folder)


def _counter_examples(
    candidates: Sequence[Candidates],
    lists: Sequence[ParticleList],
    others: Sequence[ParticleList] | None,
    complete: str | None,
) -> Sequence[ParticleList] | None:
    """The user's, and of these candidates those that are no example where the list is complete."""
    if complete is None:
        return others
    rest = rest_of(candidates, lists, complete)
    note(f"{sum(map(len, rest))} candidates where the list is complete are counter-examples")
    return rest if others is None else [ParticleList.concat(both) for both in zip(others, rest, strict=True)]


def _runs(named: Sequence[str], folder: Path) -> list[Path]:
    """The detections that are named, or those made of the tomograms that are."""
    if not named:
        raise ValueError("expected folders that detect wrote, or tomograms, none is named. See --help.")
    found, tomograms = [], []
    for name in named:
        try:
            found += find_detections(name)
        except (ValueError, FileNotFoundError):
            tomograms.append(name)
    if tomograms:
        place = folder / "candidates"
        detect(*tomograms, output_dir=str(place), report=False)
        found += find_detections(place)
    return list(dict.fromkeys(found))


def _about(examples: Examples, count: int) -> list[str]:
    """What became of the examples; ValueError if none is left."""
    known = np.concatenate(examples.known)
    if not examples.classes:
        raise ValueError(
            f"--particles: none of its {count} examples is near a particle that was found. Detect at a lower "
            "--center_threshold, or check the list's voxel size and tomogram names."
        )
    counts = [f"{int((known == name).sum())} {name}" for name in [*examples.classes, OTHER] if (known == name).any()]
    notes = [f"{', '.join(counts)}, among {len(known)} candidates"]
    if examples.lost:
        shown = ", ".join(examples.lost[:MOST_LISTED]) + (", ..." if len(examples.lost) > MOST_LISTED else "")
        notes.append(
            f"{len(examples.lost)} of {count} examples are left out, as no candidate is near: {shown}. detect finds "
            "more at a lower --center_threshold"
        )
    return notes


def _write(candidates: Sequence[Candidates], file: Path, folder: Path, report: bool) -> None:
    for one in candidates:
        record, kept = write_picks(one, file, folder, report)
        tell(
            f"{one.name}: {kept} of {len(one.table)} -> {record.parent}", written=sorted(record.parent.iterdir()),
            tomogram=one.name, particles=kept,
        )  # fmt: skip


def _ask(
    candidates: Sequence[Candidates], examples: Examples, taught: Taught, values: np.ndarray, count: int, folder: Path
) -> None:
    """Write the questions; the decision of several classes is that of the nearest."""
    probability = taught.probabilities(np.concatenate([one.descriptors for one in candidates]))
    margins, _ = unsure(taught, probability)
    asked = most_useful(margins, values, np.concatenate(examples.known) == "", count)
    paths = write_questions(candidates, examples, asked, probability.max(axis=1), folder)
    tell(f"{paths[0]}: {len(asked)} candidates to answer, pictures in {paths[1]}", written=paths)
