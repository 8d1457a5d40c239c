"""Code sets as formats of problems, for the registry of formats and `reasoner verify --format`."""

from __future__ import annotations

from tasks.code_sets.rows import CodeProblem, Row
from tasks.code_sets.sets import REFUSED, SETS, CodeSet, Refused
from tasks.inputs.formats import Format


def _row(one: CodeSet | Refused, row: Row) -> Row:
    found: CodeProblem = one.read(row)
    solved = {} if found.solution is None else {"demonstration": found.solution}
    return {**row, "prompt": found.prompt, "reference": found.reference, **solved}


def _format(one: CodeSet) -> Format:
    return Format(
        name=one.name,
        use="problems",
        told_by=f"columns {', '.join(one.columns)}",
        fits=one.fits,
        read=lambda row: _row(one, row),
        example=one.example,
        source=one.source,
        verifier="code",
        by_itself=one.by_itself,
    )


def _refused(one: Refused) -> Format:
    return Format(
        name=one.name,
        use="problems",
        told_by=f"columns {', '.join(one.columns)}: refused, since its tests need a world of packages",
        fits=one.fits,
        read=lambda row: _row(one, row),
        example=dict.fromkeys(one.columns, ""),
        source="docs/code.md",
    )


FORMATS = (*map(_refused, REFUSED), *map(_format, SETS))
"""Refused data sets come first, because their rows also have the columns of others."""
