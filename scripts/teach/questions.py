"""Questions about the candidates of a tomogram: each answer is saved at once and decides what is asked next."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from custom_transforms.measuring.taught import Taught
from scripts.particles.csv_table import table_text
from scripts.particles.shared.format import write_text
from scripts.teach.ask import COLUMNS, unsure
from scripts.teach.candidates import Candidates, common_settings
from scripts.teach.classes import learn_classes, standardised
from scripts.teach.examples import OTHER, match_examples, read_lists

__all__ = ["Questions", "open_questions"]


class Questions:
    """Asks about the candidate whose class is least sure, and learns anew from each answer.

    Parameters
    ----------
    candidates : Candidates
    known : ndarray, shape (n,), str
        Class of each candidate, `OTHER`, or "" where nobody has said; at least one class.
    examples, counter_examples : Path
        Written after each answer: lists that ``teach`` takes, ``prepare`` the first.

    Attributes
    ----------
    row : int or None
        The candidate asked about; None when all are answered.
    name : str
        The class it may be of.
    """

    def __init__(self, candidates: Candidates, known: np.ndarray, examples: Path, counter_examples: Path) -> None:
        self.candidates, self.known = candidates, known.copy()
        self.files = {False: examples, True: counter_examples}  # by whether they hold what is of no class
        self.classes = sorted(set(map(str, known)) - {"", OTHER})
        self.answered, self._asked = 0, list[int]()
        self._values, self._mean, self._scale = standardised(candidates.descriptors)
        self._settings = common_settings([candidates])
        self._ask()

    def answer(self, name: str | None) -> None:
        """Say which class it is of, `OTHER` for none of them, or None for no answer; asks about the next."""
        if self.row is None:
            return
        self._asked.append(self.row)
        if name is not None:
            self.known[self.row] = name
            self.answered += 1
            self.save()
        self._ask()

    def back(self) -> None:
        """Take the last answer back, and ask about that candidate again."""
        if not self._asked:
            return
        row = self._asked.pop()
        if self.known[row] != "":
            self.known[row] = ""
            self.answered -= 1
            self.save()
        self._ask(row)

    def save(self) -> None:
        """Write both lists, whole or not at all; none of counter-examples where there are none."""
        table = self.candidates.table.assign(tomogram=self.candidates.name, class_score=self.scores)
        table["class"] = self.known
        for counter, path in self.files.items():
            rows = table[(self.known != "") & ((self.known == OTHER) == counter)]
            if len(rows):
                write_text(path, table_text(rows[COLUMNS], float_format="%.6g"))
            else:
                path.unlink(missing_ok=True)

    def _ask(self, row: int | None = None) -> None:
        taught = self._learn()
        probability = taught.probabilities(self.candidates.descriptors)
        margins, nearest = unsure(taught, probability)
        self.scores = probability.max(axis=1)
        free = np.setdiff1d(np.flatnonzero(self.known == ""), self._asked)
        self.row = row if row is not None or len(free) == 0 else int(free[margins[free].argmin()])
        self.name = "" if self.row is None else self.classes[nearest[self.row]]

    def _learn(self) -> Taught:
        return learn_classes(self._values, self.known, self.classes).taught(self._mean, self._scale, *self._settings)


def open_questions(candidates: Candidates, particles: str, restart: bool) -> Questions:
    """Go on with the answers beside the detection, or begin with a list of examples.

    Raises
    ------
    ValueError
        If none of the examples is near a candidate.
    """
    examples, counter = (
        candidates.run.prefix.with_name(f"{candidates.name}_{what}.csv") for what in ("examples", "counter_examples")
    )
    again = examples.is_file() and not restart
    lists, _ = read_lists([candidates], str(examples) if again else particles, None, None, None)
    others = read_lists([candidates], str(counter), None, None, None)[0] if again and counter.is_file() else None
    known = match_examples([candidates], lists, others)
    if not known.classes:
        raise ValueError(
            f"--teach: expected a list of examples, none in {examples if again else particles} is near a particle that "
            "was found. Check its voxel size and tomogram names."
        )
    return Questions(candidates, known.known[0], examples, counter)
