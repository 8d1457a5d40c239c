"""Evaluation sets by name as a task, for `reasoner eval --suite` and `reasoner tasks`."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from functools import partial

from tasks.base import BadRow, Problem, TaskError, UnusableRow
from tasks.inputs import has_split, read
from tasks.inputs.entries import Rows
from tasks.inputs.formats import NothingToGrade, UnfitRow
from tasks.row_task import Row, RowTask, made
from tasks.suites.suite import QUESTION, Suite
from tasks.suites.table import suite_named
from verifiers import UnknownVerifier
from verifiers.registry import verifier_class


class SuiteTask(RowTask):
    """The problems of an evaluation set, with the prompt and the verifier of its definition (`reasoner suites`).

    Args:
        suite: its name.
        path: a file or folder of its rows; None: its data set on the Hugging Face hub.
        seed: of the order of choices, if they are shuffled.
        instruction: prompt with the placeholder {question}; None: the suite's.
    Raises:
        TaskError: the suite is unknown, its verifier is not installed, or the instruction has no {question}.
    """

    name = "suite"
    splits = ("test",)

    def __init__(self, *, suite: str, path: str | None = None, seed: int = 0, instruction: str | None = None) -> None:
        if instruction is not None and QUESTION not in instruction:
            raise TaskError(f"instruction must contain {QUESTION}.")
        self.suite = suite_named(suite)
        check_verifier(self.suite)
        self._path, self._seed, self._instruction = path, seed, instruction

    def read(self, split: str) -> Iterator[Problem | BadRow]:
        """Yield the problems of the evaluation set, and a BadRow for each row that cannot be used."""
        places = itertools.count()
        for config, rows in self._rows():
            self.say(*rows.notes)
            yield from made(rows, partial(self._problem, config, places))

    def source(self) -> str | None:
        """Return None: an evaluation set has no training data."""
        return None

    def _rows(self) -> Iterator[tuple[str | None, Rows]]:
        """Yield each configuration of the data with its rows; None for a path or the default configuration."""
        suite = self.suite
        if self._path is not None:
            split = suite.split if has_split(self._path, suite.split) in (None, True) else "test"
            yield None, read(self._path, split=split)
            return
        for config in suite.configs or (None,):
            try:
                yield config, read(suite.hub, split=suite.split, config=config)
            except TaskError as error:
                raise TaskError(missing(suite, str(error))) from error

    def _problem(self, config: str | None, places: Iterator[int], row: Row, number: int) -> Problem | None:
        suite, place = self.suite, next(places)
        try:
            asked = suite.read({"task": config, **row}, random.Random(f"{self._seed} {place}"))
        except NothingToGrade:
            return None
        except UnfitRow as error:
            raise UnusableRow(f"is not a row of {suite.title} ({suite.columns}): it {error}") from error
        if asked is None:
            return None
        return Problem(
            id=f"{suite.name}/{place}",
            prompt=suite.asks(asked, self._instruction),
            reference=asked.reference,
            verifier=asked.verifier or suite.verifier,
            verifier_options=suite.options if asked.options is None else asked.options,
            info={"part": asked.part} if asked.part else {},
            demonstration=asked.demonstration,
            task=suite.name,
        )


def check_verifier(suite: Suite) -> None:
    """Check that the verifier of a suite is installed.

    Raises:
        TaskError: it is not; the message names it.
    """
    try:
        verifier_class(suite.verifier)
    except UnknownVerifier as error:
        raise TaskError(
            f"suite {suite.name} needs the verifier {suite.verifier!r}, which is not installed here. {error}"
        ) from error


def missing(suite: Suite, why: str) -> str:
    """Build the error message for a suite whose data cannot be downloaded."""
    return (
        f"the data of suite {suite.name} is {suite.hub} on the hub, which cannot be read here: pass --data"
        f" {suite.name}=FILE with its rows ({suite.columns}), in any format of docs/data.md. {why}"
    )
