"""Entailment and consistency of formulas, decided by z3, with models as evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from verifiers.errors import BadReference
from verifiers.logic.formula import Node
from verifiers.logic.question import Found, Question, ask
from verifiers.logic.reading import parse
from verifiers.logic.signature import typed
from verifiers.logic.smtlib import term

Formula = Node | str
"""A formula, or the text of an SMT-LIB term."""


@dataclass(frozen=True)
class Label:
    """The correct label, with models that refute other labels."""

    label: str
    against: Mapping[str, str] = field(default_factory=dict[str, str])
    """Wrong label -> a model of formulas that cannot hold together according to that label."""


class Undecided(NamedTuple):
    """The result if z3 finds no label."""

    why: str


def formulas_of(texts: Sequence[str], domain: tuple[str, ...] | None, smtlib: str | None) -> tuple[Formula, ...]:
    """Parse the formulas of one question, which must use names consistently.

    SMT-LIB terms are only split into tokens here; z3 reads them when it is asked.

    Raises:
        FormulaError: a text is not a formula.
    """
    if smtlib is not None:
        return tuple(map(term, texts))
    read = tuple(parse(text, constants=domain or ()) for text in texts)
    typed(read)
    return read


def entailment(
    premises: Sequence[Formula], claim: Formula, domain: tuple[str, ...] | None, smtlib: str | None
) -> Label | Undecided:
    """Decide whether premises entail a claim, contradict it, or neither (unknown).

    Raises:
        BadReference: the premises contradict each other.
        FormulaError: an SMT-LIB term cannot be read.
    """
    true = ask(Question((*premises, claim), None, domain, smtlib))
    false = ask(Question(tuple(premises), claim, domain, smtlib))
    if (true.holds, false.holds) == (False, False):
        raise BadReference("premises must be able to hold together; they contradict each other.")
    against = {"entailed": false.model, "contradicted": true.model}
    if false.holds is False:
        return Label("entailed", against)
    if true.holds is False:
        return Label("contradicted", against)
    if None in (true.holds, false.holds):
        return _undecided(true, false)
    return Label("unknown", against)


def consistency(formulas: Sequence[Formula], domain: tuple[str, ...] | None, smtlib: str | None) -> Label | Undecided:
    """Decide whether formulas can all hold together (consistent, inconsistent)."""
    found = ask(Question(tuple(formulas), None, domain, smtlib)) if formulas else Found(True)
    if found.holds is None:
        return _undecided(found)
    return Label("consistent", {"inconsistent": found.model}) if found.holds else Label("inconsistent")


def _undecided(*found: Found) -> Undecided:
    limits = [one.limit for one in found if one.holds is None and one.limit]
    return Undecided(f"z3 cannot decide it{f' ({limits[0]})' if limits else ''}.")


__all__ = ["Formula", "Label", "Undecided", "consistency", "entailment", "formulas_of"]
