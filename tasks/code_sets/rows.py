"""What the readers of code sets share: a row's columns, JSON in text, and what a reader gives back."""

from __future__ import annotations

import ast
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from tasks.base import TaskError
from tasks.inputs.formats import UnfitRow
from verifiers import JSON
from verifiers.code.guest import wire
from verifiers.jsonl import is_list, is_object

Row = Mapping[str, object]
STDIO = (
    "{problem}\n\nWrite a Python program that reads standard input and prints the answer. Answer with the whole program"
    " in one fenced Python block."
)
FUNCTION = "{problem}\n\nAnswer with the whole program in one fenced Python block."


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeProblem:
    """A row, read."""

    problem: str | Sequence[object]
    """Text for the prompt; or chat messages, which are the prompt as they are."""
    reference: JSON
    """Of the code verifier."""
    solution: str | None = None
    """A completion that its authors hold correct."""
    instruction: str = FUNCTION
    """The prompt, with {problem} for the text."""

    @property
    def prompt(self) -> str | Sequence[object]:
        """What a model is asked."""
        if isinstance(self.problem, str):
            return self.instruction.replace("{problem}", self.problem.strip())
        return self.problem


def text(row: Row, name: str) -> str:
    """The text in a column.

    Raises:
        UnfitRow: there is none.
    """
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UnfitRow(f"holds no text in column {name!r}; got {value!r:.80}")
    return value


def unpacked(value: object, what: str) -> object:
    """A value that may be JSON in text, or a Python literal in text.

    Raises:
        UnfitRow: it is text and neither.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            raise UnfitRow(f"holds no JSON in {what}: {error}"[:300]) from None


def mapping(value: object, what: str) -> Mapping[str, JSON]:
    """An object, or one as JSON in text.

    Raises:
        UnfitRow: it is neither.
    """
    found = unpacked(value, what)
    if not is_object(found):
        raise UnfitRow(f"holds no object in {what}; got {found!r:.80}")
    return found


def items(value: object, what: str) -> list[JSON]:
    """A list that is not empty, or one as JSON in text.

    Raises:
        UnfitRow: it is neither.
    """
    found = unpacked(value, what)
    if isinstance(found, Sequence) and not isinstance(found, str | bytes):
        found = [*cast("Sequence[JSON]", found)]
    if not is_list(found) or not found:
        raise UnfitRow(f"holds no list, or an empty one, in {what}; got {found!r:.80}")
    return found


def encoded(value: object, what: str) -> JSON:
    """A value as references hold it: tagged where JSON lacks its type.

    Raises:
        UnfitRow: it cannot be written.
    """
    try:
        return cast("JSON", wire.encode(value))
    except (wire.CannotCross, ValueError, RecursionError) as error:
        raise UnfitRow(f"holds {what} that cannot be given to a program: {error}"[:300]) from None


def pairs(group: object, given: str, expected: str, what: str) -> list[tuple[JSON, JSON]]:
    """The inputs and outputs of an object of two lists, side by side.

    Raises:
        UnfitRow: they are not as many, or there are none.
    """
    found = mapping(group, what)
    inputs, outputs = (items(found.get(name), f"{what}: {name}") for name in (given, expected))
    if len(inputs) != len(outputs):
        raise UnfitRow(f"holds {len(inputs)} {given} and {len(outputs)} {expected} in {what}, which must be as many")
    return list(zip(inputs, outputs, strict=True))


@contextmanager
def fitting(where: str) -> Generator[None]:
    """Say where a row is that does not fit.

    Raises:
        TaskError: it does not.
    """
    try:
        yield
    except UnfitRow as error:
        raise TaskError(f"{where}: it {error}.") from error


def fenced(code: str) -> str:
    """A program as a completion."""
    return "```python\n" + code.strip("\n") + "\n```"


def first_solution(value: object) -> str | None:
    """The first of the programs in a column, which may be JSON in text; None where there is none."""
    try:
        found = unpacked(value, "solutions") if value else None
    except UnfitRow:
        return None
    if isinstance(found, Sequence) and not isinstance(found, str) and found and isinstance(found[0], str):
        return fenced(found[0])
    return None
