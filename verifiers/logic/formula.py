"""Formulas over truth values and whole numbers: one parser, evaluation under an assignment, no z3.

Operators, weakest first: `<->`, `->` (to the right), `|`, `^` (either, not both), `&`, `~`, then one comparison
`= != < <= > >=` between terms of `+ - *`, a product having a number on one side. Words (`iff implies or xor and not
true false`) and the signs of logic (`↔ → ∨ ⊕ ∧ ¬ ⊤ ⊥ ≠ ≤ ≥`) stand for the same. A name is a number where it is
compared or counted with, else a truth value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MAX_LENGTH = 20_000
MAX_BRACKETS = 50
"""Brackets inside each other."""
MAX_DEPTH = 200
"""Operators inside each other; `a & b & c` are two."""
MAX_INTEGER = 10**12


class FormulaError(ValueError):
    """The text is no formula, or says of one name that it is a number and a truth value."""


@dataclass(frozen=True, slots=True)
class Node:
    """A formula or a term; `kind` is an operator of OPERATORS, `name`, `number` or `truth`."""

    kind: str
    args: tuple[Node, ...] = ()
    value: str | int | bool = ""

    def __str__(self) -> str:
        if not self.args:
            return str(self.value).lower() if self.kind == "truth" else str(self.value)
        if len(self.args) == 1:
            return f"{self.kind}{self.args[0]}"
        return "(" + f" {self.kind} ".join(map(str, self.args)) + ")"


FALSE = Node("truth", (), False)
COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
}
CONNECTIVES = ("<->", "->", "|", "^", "&", "~")
SAME: Mapping[str, str] = {
    "iff": "<->", "↔": "<->", "<=>": "<->", "⇔": "<->", "≡": "<->",
    "implies": "->", "→": "->", "=>": "->", "⇒": "->", "⊃": "->",
    "or": "|", "∨": "|", "||": "|", "\\/": "|",
    "xor": "^", "⊕": "^",
    "and": "&", "∧": "&", "&&": "&", "/\\": "&",
    "not": "~", "¬": "~", "!": "~",
    "≠": "!=", "≤": "<=", "≥": ">=", "==": "=", "×": "*", "−": "-", "⊤": "true", "⊥": "false",
}  # fmt: skip
TOKEN = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_']*)|(?P<number>\d+)"
    r"|(?P<sign><->|<=>|->|=>|<=|>=|!=|==|\|\||&&|\\/|/\\|[~!&|^()=<>+*\-↔⇔≡→⇒⊃∨⊕∧¬≠≤≥×−⊤⊥]))"
)


def parse(text: str) -> Node:
    """The formula that a text is, its names checked to be of one sort each.

    Raises:
        FormulaError: it is none, is longer than MAX_LENGTH characters or nests deeper than MAX_DEPTH.

    Example:
        >>> str(parse("not p -> x + 1 < 3"))
        '(~p -> ((x + 1) < 3))'
    """
    formula = _Parser(_tokens(text)).parse()
    _check_depth(formula)
    names_of(formula)
    return formula


def _check_depth(formula: Node) -> None:
    layer, depth = [formula], 0
    while layer:
        depth += 1
        if depth > MAX_DEPTH:
            raise FormulaError(f"it may nest {MAX_DEPTH} deep.")
        layer = [arg for node in layer for arg in node.args]


def _tokens(text: str) -> list[str]:
    if len(text) > MAX_LENGTH:
        raise FormulaError(f"a formula may have {MAX_LENGTH} characters; this one has {len(text)}.")
    tokens: list[str] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        found = TOKEN.match(text, at)
        if found is None:
            raise FormulaError(f"unexpected {text[at:].lstrip()[:10]!r}.")
        word = found.group().strip()
        tokens.append(SAME.get(word.lower() if word.isalpha() else word, word))
        at = found.end()
    return tokens


LEFT = ("|", "^", "&")


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._at, self._depth = tokens, 0, 0

    def parse(self) -> Node:
        if not self._tokens:
            raise FormulaError("it is empty.")
        found = self._iff()
        if self._at < len(self._tokens):
            raise FormulaError(f"unexpected {self._tokens[self._at]!r}.")
        return found

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _iff(self) -> Node:
        self._depth += 1
        if self._depth > MAX_BRACKETS:
            raise FormulaError(f"it may nest {MAX_BRACKETS} brackets deep.")
        left = self._implies()
        while self._peek() == "<->":
            self._take()
            left = Node("<->", (left, self._implies()))
        self._depth -= 1
        return left

    def _implies(self) -> Node:
        parts = [self._left(0)]
        while self._peek() == "->":
            self._take()
            parts.append(self._left(0))
        right = parts.pop()
        while parts:
            right = Node("->", (parts.pop(), right))
        return right

    def _left(self, level: int) -> Node:
        if level == len(LEFT):
            return self._negation()
        left = self._left(level + 1)
        while self._peek() == LEFT[level]:
            self._take()
            left = Node(LEFT[level], (left, self._left(level + 1)))
        return left

    def _negation(self) -> Node:
        count = 0
        while self._peek() == "~":
            self._take()
            count += 1
        found = self._comparison()
        for _ in range(count):
            found = Node("~", (found,))
        return found

    def _comparison(self) -> Node:
        left = self._sum()
        if self._peek() in COMPARISONS:
            return Node(self._take(), (left, self._sum()))
        return left

    def _sum(self) -> Node:
        left = self._product()
        while self._peek() in ("+", "-"):
            left = Node(self._take(), (left, self._product()))
        return left

    def _product(self) -> Node:
        left = self._signed()
        while self._peek() == "*":
            self._take()
            right = self._signed()
            if not any(_is_constant(side) for side in (left, right)):
                raise FormulaError("a product must have a number on one side.")
            left = Node("*", (left, right))
        return left

    def _signed(self) -> Node:
        negative = False
        while self._peek() == "-":
            self._take()
            negative = not negative
        found = self._atom()
        return Node("-", (Node("number", (), 0), found)) if negative else found

    def _atom(self) -> Node:
        token = self._take()
        if token == "(":
            found = self._iff()
            if self._take() != ")":
                raise FormulaError("a bracket is not closed.")
            return found
        if token.isdigit():
            if int(token[:20]) > MAX_INTEGER or len(token) > 15:
                raise FormulaError(f"a number may be at most {MAX_INTEGER}.")
            return Node("number", (), int(token))
        if token.lower() in ("true", "false"):
            return Node("truth", (), token.lower() == "true")
        if not token or not (token[0].isalpha() or token[0] == "_"):
            raise FormulaError(f"expected a name, a number or a bracket; got {token or 'the end'!r}.")
        return Node("name", (), token)


def _is_constant(node: Node) -> bool:
    return node.kind == "number" or (node.kind == "-" and all(arg.kind == "number" for arg in node.args))


def names_of(formula: Node) -> dict[str, type]:
    """Each name of a formula and its sort: bool or int.

    Raises:
        FormulaError: a name or an operand is of both sorts.
    """
    sorts: dict[str, type] = {}

    def want(node: Node, sort: type) -> None:
        if node.kind == "name":
            if sorts.setdefault(str(node.value), sort) is not sort:
                raise FormulaError(f"{node.value} stands for a number and for a truth value.")
        elif (node.kind in CONNECTIVES or node.kind in COMPARISONS or node.kind == "truth") != (sort is bool):
            what = "a truth value" if sort is bool else "a number"
            raise FormulaError(f"{str(node)[:60]} must be {what}.")
        inner = bool if node.kind in CONNECTIVES else int
        for arg in node.args:
            want(arg, inner)

    want(formula, bool)
    return sorts


def evaluate(node: Node, values: Mapping[str, bool | int]) -> bool | int:
    """The value of a formula or term where every name has one."""
    if node.kind in ("truth", "number"):
        assert not isinstance(node.value, str)
        return node.value
    if node.kind == "name":
        return values[str(node.value)]
    args = [evaluate(arg, values) for arg in node.args]
    if node.kind in COMPARISONS:
        return COMPARISONS[node.kind](args[0], args[1])
    if node.kind == "~":
        return not args[0]
    a, b = args
    return APPLY[node.kind](a, b)


APPLY: Mapping[str, Callable[[int, int], bool | int]] = {
    "<->": lambda a, b: a == b,
    "->": lambda a, b: (not a) or bool(b),
    "|": lambda a, b: bool(a or b),
    "^": lambda a, b: a != b,
    "&": lambda a, b: bool(a and b),
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def in_form(formula: Node, form: str) -> bool:
    """Whether a formula is in conjunctive (cnf), disjunctive (dnf) or negation normal form (nnf)."""
    if form == "nnf":
        return _nnf(formula)
    outer, inner = ("&", "|") if form == "cnf" else ("|", "&")
    return _layers(formula, (outer, inner))


def _literal(node: Node) -> bool:
    atom = node.args[0] if node.kind == "~" else node
    return atom.kind in ("name", "truth") or atom.kind in COMPARISONS


def _layers(node: Node, operators: tuple[str, ...]) -> bool:
    if _literal(node):
        return True
    if not operators:
        return False
    if node.kind == operators[0]:
        return all(_layers(arg, operators) for arg in node.args)
    return _layers(node, operators[1:])


def _nnf(node: Node) -> bool:
    return _literal(node) or (node.kind in ("&", "|") and all(map(_nnf, node.args)))


def size_of(node: Node) -> int:
    """Operators of a formula."""
    return bool(node.args) + sum(map(size_of, node.args))
