"""Questions to z3 and its answers, and asking: z3 runs in a process of its own, which is killed at its limit."""

from __future__ import annotations

import json
from functools import cache
from typing import NamedTuple

from verifiers.asked_process import AskedProcess
from verifiers.logic.formula import FormulaError, Node

CPU_SECONDS, WALL_SECONDS = 8.0, 25.0
"""Of one question; z3's own limit is reached before the first, where z3 keeps to it."""


class Question(NamedTuple):
    """Whether formulas can hold together."""

    formulas: tuple[Node | str, ...]
    """Of our own language; text where they are SMT-LIB 2 terms."""
    denied: Node | str | None = None
    """A formula that does not hold beside them."""
    domain: tuple[str, ...] | None = None
    """Names of all objects there are; None: any domain."""
    smtlib: str | None = None
    """Declarations of the SMT-LIB terms."""
    values: tuple[tuple[str, str], ...] | None = None
    """Name -> value: what the constants of the SMT-LIB terms are."""


class Found(NamedTuple):
    """What z3 says."""

    holds: bool | None
    """Whether they can hold together; None: undecided."""
    model: str = ""
    """How, where that was found in a small domain."""
    limit: str = ""
    """Which limit was reached, where undecided."""


class ValueFault(FormulaError):
    """The values of a question are not those of its formulas' constants."""


@cache
def process() -> AskedProcess:
    """Return what all verifiers of this process ask."""
    return AskedProcess("verifiers.logic.solver:decide", cpu_seconds=CPU_SECONDS, wall_seconds=WALL_SECONDS)


def ask(question: Question) -> Found:
    """Return z3's answer to a question.

    Raises:
        FormulaError: it is none; ValueFault where its values are what is wrong.
        ProcessLost: nobody could be asked.
    """
    said = process().ask(question)
    kind, _, why = said.partition(": ")
    if kind in ("limit", "unknown"):
        return Found(None, limit=why if kind == "limit" or "memory" in why else "")
    answer = json.loads(said)
    if "fault" in answer:
        raise (ValueFault if answer["values"] else FormulaError)(answer["fault"])
    return Found(**answer)


__all__ = ["Found", "Question", "ValueFault", "ask", "process"]
