"""Helpers of the readers of code sets: a row's columns, JSON in text, and the record that a reader returns."""

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
    """A programming problem as read from a row."""

    problem: str | Sequence[object]
    """Text for the prompt; or chat messages, which are used unchanged as the prompt."""
    reference: JSON
    """Reference for the code verifier."""
    solution: str | None = None
    """A completion that the data set's authors consider correct; None if the row has none."""
    instruction: str = FUNCTION
    """The prompt; {problem} is replaced by the text."""

    @property
    def prompt(self) -> str | Sequence[object]:
        """The prompt: the instruction with the problem filled in, or the chat messages."""
        if isinstance(self.problem, str):
            return self.instruction.replace("{problem}", self.problem.strip())
        return self.problem


def text(row: Row, name: str) -> str:
    """Return the non-empty text in a column.

    Raises:
        UnfitRow: there is none.
    """
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UnfitRow(f"has no text in column {name!r}; got {value!r:.80}")
    return value


def unpacked(value: object, what: str) -> object:
    """Parse text that is JSON or a Python literal; return any other value unchanged.

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
            raise UnfitRow(f"has no JSON in {what}: {error}"[:300]) from None


def mapping(value: object, what: str) -> Mapping[str, JSON]:
    """Return an object, given as such or as JSON in text.

    Raises:
        UnfitRow: it is neither.
    """
    found = unpacked(value, what)
    if not is_object(found):
        raise UnfitRow(f"has no object in {what}; got {found!r:.80}")
    return found


def items(value: object, what: str) -> list[JSON]:
    """Return a non-empty list, given as such or as JSON in text.

    Raises:
        UnfitRow: it is neither, or empty.
    """
    found = unpacked(value, what)
    if isinstance(found, Sequence) and not isinstance(found, str | bytes):
        found = [*cast("Sequence[JSON]", found)]
    if not is_list(found) or not found:
        raise UnfitRow(f"has no list, or an empty one, in {what}; got {found!r:.80}")
    return found


def encoded(value: object, what: str) -> JSON:
    """Encode a value as references store it: tagged if JSON lacks its type.

    Raises:
        UnfitRow: it cannot be encoded.
    """
    try:
        return cast("JSON", wire.encode(value))
    except (wire.CannotCross, ValueError, RecursionError) as error:
        raise UnfitRow(f"has {what} that cannot be given to a program: {error}"[:300]) from None


def pairs(group: object, given: str, expected: str, what: str) -> list[tuple[JSON, JSON]]:
    """Pair the inputs and outputs of an object with two lists of equal length.

    Raises:
        UnfitRow: their lengths differ, or one is empty.
    """
    found = mapping(group, what)
    inputs, outputs = (items(found.get(name), f"{what}: {name}") for name in (given, expected))
    if len(inputs) != len(outputs):
        raise UnfitRow(f"has {len(inputs)} {given} and {len(outputs)} {expected} in {what}; the numbers must be equal")
    return list(zip(inputs, outputs, strict=True))


@contextmanager
def fitting(where: str) -> Generator[None]:
    """Re-raise `UnfitRow` from the block as a TaskError that names the row.

    Raises:
        TaskError: the row does not fit.
    """
    try:
        yield
    except UnfitRow as error:
        raise TaskError(f"{where}: it {error}.") from error


def fenced(code: str) -> str:
    """Return a program as a completion: in a fenced Python block."""
    return "```python\n" + code.strip("\n") + "\n```"


def first_solution(value: object) -> str | None:
    """Return the first program in a column (a list, or JSON in text), as a completion; None if there is none."""
    try:
        found = unpacked(value, "solutions") if value else None
    except UnfitRow:
        return None
    if isinstance(found, Sequence) and not isinstance(found, str) and found and isinstance(found[0], str):
        return fenced(found[0])
    return None
