"""SMT-LIB 2 read by ourselves: z3 is given declarations and terms that were written anew from what was read here.

A reference or an answer is data. What z3 reads as a whole script may set options of the process, write and include
files; one that holds nothing but declarations, or `(assert TERM)`, in tokens of these kinds, cannot.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from verifiers.logic.formula import FormulaError

MAX_CHARACTERS = 50_000
MAX_TOKEN = 1_000
MAX_NESTING = 500
"""Brackets inside each other."""
DECLARING = frozenset(
    "declare-const declare-fun declare-sort declare-datatype declare-datatypes"
    " define-const define-fun define-fun-rec define-funs-rec define-sort".split()
)
WRITTEN_OUT = frozenset({"define-fun", "define-const"})
"""Definitions that z3 puts in the place of their names."""
MAX_WRITTEN_OUT = 5_000
LEFT_OUT = frozenset({"set-logic"})
"""Begins most scripts; z3 needs it not, and is not given it."""
TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+|;[^\n]*)
    |(?P<token>[()]
      |[A-Za-z~!@$%^&*_+=<>.?/-][0-9A-Za-z~!@$%^&*_+=<>.?/-]*   # a symbol
      |\|[^|\\\x00-\x1f\x7f-\U0010ffff]*\|                      # a quoted one, in ASCII
      |[0-9]+(?:\.[0-9]+)?(?![0-9A-Za-z~!@$%^&*_+=<>.?/-])      # a number
      |\#x[0-9A-Fa-f]+(?![0-9A-Za-z])|\#b[01]+(?![0-9A-Za-z])
      |"(?:[^"\x00-\x1f\x7f-\U0010ffff]|"")*")                  # a text, in ASCII""",
    re.VERBOSE,
)
"""SMT-LIB 2.6, section 3.1, without keywords (`:name`): an option or an attribute cannot be written."""


def expressions(text: str) -> Iterator[list[str]]:
    """Yield the expressions of a text one by one, as their tokens without comments; with a space between they are it.

    Raises:
        FormulaError: the text is too long, nests too deeply, or holds what is no token of a declaration or a term.

    Example:
        >>> list(expressions("(> x   1) ; greater\\n p"))
        [['(', '>', 'x', '1', ')'], ['p']]
    """
    if len(text) > MAX_CHARACTERS:
        raise FormulaError(f"SMT-LIB text may have {MAX_CHARACTERS} characters; this has {len(text)}.")
    tokens: list[str] = []
    depth = at = 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None or len(found["token"] or "") > MAX_TOKEN:
            raise FormulaError(f"{text[at : at + 20]!r} is no part of an SMT-LIB declaration or term.")
        at = found.end()
        token = found["token"]
        if token is None:
            continue
        depth += (token == "(") - (token == ")")
        if not 0 <= depth <= MAX_NESTING:
            raise FormulaError(f"SMT-LIB brackets must match, at most {MAX_NESTING} inside each other.")
        tokens.append(token)
        if depth == 0:
            yield tokens
            tokens = []
    if tokens:
        raise FormulaError("SMT-LIB brackets must match; some are not closed.")


class Declared(NamedTuple):
    """Declarations and definitions."""

    script: str
    """Written anew."""
    depths: Mapping[str, int]
    """Of each defined function, how many applications lie inside each other once it is written out."""


def declarations(text: str) -> Declared:
    """Return the declarations and definitions of a text.

    Raises:
        FormulaError: it holds anything else, or definitions that grow without bounds. The message is the same whatever
            the rest of a command says.
    """
    kept: list[str] = []
    depths: dict[str, int] = {}
    for expression in expressions(text):
        command = expression[1] if len(expression) > 3 else ""
        if command in LEFT_OUT:
            continue
        if command not in DECLARING:
            raise FormulaError(f"declarations must be {_listed(sorted(DECLARING))}, nothing else.")
        kept.append(" ".join(expression))
        if command in WRITTEN_OUT:
            depths[expression[2]] = _depth(expression, depths) - 1
    return Declared("\n".join(kept), depths)


def term(text: str, depths: Mapping[str, int] = MappingProxyType({})) -> str:
    """Return the one term that a text is, written anew.

    Args:
        text: of the term.
        depths: of the functions that its declarations define.
    Raises:
        FormulaError: it is none, or more than one, or grows too deep with its functions written out.
    """
    found = list(expressions(text))
    if len(found) != 1:
        raise FormulaError(f"{text.strip()[:60]!r} is not one SMT-LIB term.")
    _depth(found[0], depths)
    return " ".join(found[0])


def _depth(expression: Sequence[str], depths: Mapping[str, int]) -> int:
    """How many applications lie inside each other at most, defined functions written out.

    z3 writes them out as it reads, and walks what comes of it by recursion, which ends the process at some 100,000.
    """
    frames: list[tuple[str, int]] = [("", 0)]
    """Head and depth so far of each open bracket."""
    opened = False
    for token in expression:
        if token == "(":
            frames.append(("", 0))
        elif opened and token != ")":
            frames[-1] = (token, 0)
        else:
            inner = depths.get(token, 0)
            if token == ")":
                head, inner = frames.pop()
                inner += depths.get(head, 1)
            head, depth = frames[-1]
            joined = depth + inner if head == "let" else max(depth, inner)  # a let's body may hold what it binds
            frames[-1] = (head, joined)
            if joined > MAX_WRITTEN_OUT:
                raise FormulaError(
                    f"SMT-LIB definitions may write out to {MAX_WRITTEN_OUT} applications inside others."
                )
        opened = token == "("
    return frames[0][1]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


__all__ = ["Declared", "declarations", "expressions", "term"]
