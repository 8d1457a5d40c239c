"""A reader of SMT-LIB 2. z3 gets only declarations and terms that are written from the tokens read here.

References and answers are data, but a whole script could set options of the process, write files and include files. A
script that has only declarations, or `(assert TERM)`, in tokens of these kinds cannot.
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
"""Limit on the nesting of brackets."""
DECLARING = frozenset(
    "declare-const declare-fun declare-sort declare-datatype declare-datatypes"
    " define-const define-fun define-fun-rec define-funs-rec define-sort".split()
)
WRITTEN_OUT = frozenset({"define-fun", "define-const"})
"""Definitions that z3 expands wherever their names are used."""
MAX_WRITTEN_OUT = 5_000
LEFT_OUT = frozenset({"set-logic"})
"""Commands that are dropped: most scripts begin with it, and z3 does not need it."""
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
"""Tokens of SMT-LIB 2.6, section 3.1, without keywords (`:name`): options and attributes cannot be written."""


def expressions(text: str) -> Iterator[list[str]]:
    """Yield the expressions of a text one by one, as tokens without comments. Joined by spaces they are equivalent.

    Raises:
        FormulaError: the text is too long, nests too deeply, or has a token that no declaration or term has.

    Example:
        >>> list(expressions("(> x   1) ; greater\\n p"))
        [['(', '>', 'x', '1', ')'], ['p']]
    """
    if len(text) > MAX_CHARACTERS:
        raise FormulaError(f"SMT-LIB text may have at most {MAX_CHARACTERS} characters; this has {len(text)}.")
    tokens: list[str] = []
    depth = at = 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None or len(found["token"] or "") > MAX_TOKEN:
            raise FormulaError(f"{text[at : at + 20]!r} is not part of an SMT-LIB declaration or term.")
        at = found.end()
        token = found["token"]
        if token is None:
            continue
        depth += (token == "(") - (token == ")")
        if not 0 <= depth <= MAX_NESTING:
            raise FormulaError(f"SMT-LIB brackets must match, and nest at most {MAX_NESTING} deep.")
        tokens.append(token)
        if depth == 0:
            yield tokens
            tokens = []
    if tokens:
        raise FormulaError("SMT-LIB brackets must match; some are not closed.")


class Declared(NamedTuple):
    """Declarations and definitions."""

    script: str
    """The script for z3, written from the tokens."""
    depths: Mapping[str, int]
    """Defined function -> depth of nested applications after all definitions are expanded."""


def declarations(text: str) -> Declared:
    """Parse the declarations and definitions of a text.

    Raises:
        FormulaError: it has anything else, or definitions that expand without bounds. The message does not depend on
            the rest of a command.
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
    """Parse a text that is a single term, and return it written from its tokens.

    Args:
        text: the term.
        depths: expanded depths of the functions that its declarations define.
    Raises:
        FormulaError: it is not one term, or too deep once its functions are expanded.
    """
    found = list(expressions(text))
    if len(found) != 1:
        raise FormulaError(f"{text.strip()[:60]!r} is not one SMT-LIB term.")
    _depth(found[0], depths)
    return " ".join(found[0])


def _depth(expression: Sequence[str], depths: Mapping[str, int]) -> int:
    """Return the largest depth of nested applications after defined functions are expanded.

    z3 expands them as it reads, and walks the result by recursion, which ends the process at a depth of about 100,000.
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
                raise FormulaError(f"SMT-LIB definitions may expand to at most {MAX_WRITTEN_OUT} nested applications.")
        opened = token == "("
    return frames[0][1]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


__all__ = ["Declared", "declarations", "expressions", "term"]
