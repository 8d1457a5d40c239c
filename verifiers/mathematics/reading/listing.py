"""Table of everything that is parsed, from the parser's own tables.

`python -m verifiers.mathematics.reading.listing` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable

from verifiers.mathematics.reading.foreign import UNITS
from verifiers.mathematics.reading.grammar import BIG, CASES, DECORATIONS, MATRICES, PREFIX_NAMES, SET_NAMES
from verifiers.mathematics.reading.tokens import (
    ALIASES,
    ALPHABETS,
    FUNCTIONS,
    GREEK_NAMES,
    NAMED_FUNCTIONS,
    RELATIONS,
    TEXT_COMMANDS,
)
from verifiers.mathematics.units import BASE, COMPOUND, CURRENCIES, PREFIXES, SENSES


def _spelled(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in sorted(names, key=lambda name: (name.lower(), name)))


def table() -> str:
    """Return a Markdown table: kinds of mathematics, and the notations from which they are parsed."""
    rows = {
        "functions": _spelled(FUNCTIONS),
        "functions after `\\`, in `\\operatorname{}`, or before a bracket": _spelled(NAMED_FUNCTIONS),
        "other spellings": " ".join(f"`{name}`={meant}" for name, meant in sorted(ALIASES.items())),
        "relations and arrows": _spelled(f"\\{name}" for name in RELATIONS),
        "sums, products, integrals, limits": _spelled(f"\\{name}" for name in BIG),
        "matrices": _spelled(MATRICES),
        "systems and cases": _spelled(CASES),
        "sets": _spelled(f"\\{name}" for name in SET_NAMES) + " `\\mathbb{R}` `\\mathbb R`",
        "marks before a name": _spelled(f"\\{name}" for name in PREFIX_NAMES),
        "marks that make another name": _spelled(f"\\{name}" for name in DECORATIONS),
        "alphabets that change nothing": _spelled(f"\\{name}" for name in ALPHABETS),
        "words in mathematics": _spelled(f"\\{name}" for name in TEXT_COMMANDS),
        "letters": _spelled(f"\\{name}" for name in GREEK_NAMES),
        "units": " ".join(f"`{names.split()[0]}`" for names in BASE) + " " + _spelled(COMPOUND),
        "prefixes": _spelled(PREFIXES),
        "currencies": _spelled(CURRENCIES),
        "words that distinguish two quantities": _spelled({*SENSES.values()}),
        "units in Chinese, Japanese, Korean and Russian": f"{len(UNITS)} words, and their combinations",
    }
    lines = [f"| {kind} | {listed} |" for kind, listed in rows.items()]
    return "\n".join(["| kind | notations |", "| --- | --- |", *lines])


if __name__ == "__main__":
    print(table())
