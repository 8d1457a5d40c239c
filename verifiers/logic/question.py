"""Questions to z3 and its answers. z3 runs in a separate process, which is killed at its limit."""

from __future__ import annotations

import json
from functools import cache
from typing import NamedTuple

from verifiers.asked_process import AskedProcess
from verifiers.logic.formula import FormulaError, Node

CPU_SECONDS, WALL_SECONDS = 8.0, 25.0
"""Limits for one question. z3's own limit is usually reached before the CPU limit."""


class Question(NamedTuple):
    """The question whether formulas can all hold together."""

    formulas: tuple[Node | str, ...]
    """Formulas in our own language, or texts of SMT-LIB 2 terms."""
    denied: Node | str | None = None
    """A further formula that must be false."""
    domain: tuple[str, ...] | None = None
    """Names of all existing objects; None: any domain."""
    smtlib: str | None = None
    """Declarations for the SMT-LIB terms; None: formulas in our own language."""
    values: tuple[tuple[str, str], ...] | None = None
    """Name -> value of each constant in the SMT-LIB terms."""


class Found(NamedTuple):
    """The answer of z3."""

    holds: bool | None
    """True if they can hold together, False if not, None if undecided."""
    model: str = ""
    """A model as text, if one was found in a small domain."""
    limit: str = ""
    """The limit that was reached, if undecided for that reason."""


class ValueFault(FormulaError):
    """An error for values that do not fit the constants of a question's formulas."""


@cache
def process() -> AskedProcess:
    """Return the z3 process that all verifiers of this process share."""
    return AskedProcess("verifiers.logic.solver:decide", cpu_seconds=CPU_SECONDS, wall_seconds=WALL_SECONDS)


def ask(question: Question) -> Found:
    """Return z3's answer to a question.

    Raises:
        FormulaError: it is malformed; ValueFault if its values are at fault.
        ProcessLost: the z3 process is not available.
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
