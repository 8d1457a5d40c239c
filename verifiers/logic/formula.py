"""Formulas: tree, evaluation of those without quantifiers, normal forms. For the parser see `reading`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

MAX_DEPTH = 200
"""Limit on the nesting of operators; `a & b & c` has two."""


class FormulaError(ValueError):
    """An error for a text that is not a formula, or uses a name in two ways; the message says which."""


@dataclass(frozen=True, slots=True)
class Node:
    """A formula or a term. Formulas that differ only in the names of bound variables are equal.

    Example:
        >>> str(Node("forall", (Node("apply", (Node("bound", (), 0),), "Dog"),)))
        '∀x Dog(x)'
    """

    kind: str
    """An operator (`->`, `<`, `+`, ...; `-` also with one argument), `forall` or `exists`, `apply` (of a predicate or
    function to its arguments), `name`, `bound`, `number` or `truth`.
    """
    args: tuple[Node, ...] = ()
    value: str | int | bool = ""
    """A name, a number, a truth value; for `bound`, the number of quantifiers between it and its own."""

    def __str__(self) -> str:
        return _shown(self, 0)


VARIABLES = "xyzuvw"


def _variable(level: int) -> str:
    return VARIABLES[level % len(VARIABLES)] + str(level // len(VARIABLES) or "")


def _shown(node: Node, level: int) -> str:
    args = [_shown(arg, level + (node.kind in QUANTIFIERS)) for arg in node.args]
    if node.kind in QUANTIFIERS:
        return f"{QUANTIFIERS[node.kind]}{_variable(level)} {args[0]}"
    if node.kind == "bound":
        return _variable(level - 1 - int(node.value))
    if node.kind == "apply":
        return f"{node.value}({', '.join(args)})"
    if not args:
        return str(node.value).lower() if node.kind == "truth" else str(node.value)
    return f"{node.kind}{args[0]}" if len(args) == 1 else "(" + f" {node.kind} ".join(args) + ")"


QUANTIFIERS: Mapping[str, str] = {"forall": "∀", "exists": "∃"}
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


def check_depth(formula: Node) -> None:
    """Check the nesting of a formula.

    Raises:
        FormulaError: it nests deeper than MAX_DEPTH.
    """
    layer, depth = [formula], 0
    while layer:
        depth += 1
        if depth > MAX_DEPTH:
            raise FormulaError(f"it may nest at most {MAX_DEPTH} deep.")
        layer = [arg for node in layer for arg in node.args]


def nodes_of(formula: Node) -> Iterator[Node]:
    """Yield a formula and all its parts."""
    left = [formula]
    while left:
        node = left.pop()
        yield node
        left += node.args


def is_first_order(formula: Node) -> bool:
    """Return True if a formula has a quantifier, or a predicate or function with arguments."""
    return any(node.kind in QUANTIFIERS or node.kind == "apply" for node in nodes_of(formula))


def instance(body: Node, term: Node, level: int = 0) -> Node:
    """Return the body of a quantifier with a term without variables in place of its variable."""
    if body.kind == "bound":
        return term if body.value == level else body
    inner = level + (body.kind in QUANTIFIERS)
    return Node(body.kind, tuple(instance(arg, term, inner) for arg in body.args), body.value) if body.args else body


def evaluate(node: Node, values: Mapping[str, bool | int]) -> bool | int:
    """Compute the value of a formula or term without quantifiers. Every name needs a value in `values`."""
    if node.kind in ("truth", "number"):
        assert not isinstance(node.value, str)
        return node.value
    if node.kind == "name":
        return values[str(node.value)]
    args = [evaluate(arg, values) for arg in node.args]
    if node.kind == "-" and len(args) == 1:
        return -args[0]
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
    """Return True if a formula is in a normal form: cnf, dnf, nnf (negation) or pnf (prenex)."""
    if form == "nnf":
        return _nnf(formula)
    if form == "pnf":
        return _prenex(formula)
    outer, inner = ("&", "|") if form == "cnf" else ("|", "&")
    return _layers(formula, (outer, inner))


def _literal(node: Node) -> bool:
    atom = node.args[0] if node.kind == "~" else node
    return atom.kind in ("name", "truth", "apply") or atom.kind in COMPARISONS


def _layers(node: Node, operators: tuple[str, ...]) -> bool:
    if _literal(node):
        return True
    if not operators:
        return False
    if node.kind == operators[0]:
        return all(_layers(arg, operators) for arg in node.args)
    return _layers(node, operators[1:])


def _nnf(node: Node) -> bool:
    return _literal(node) or (node.kind in ("&", "|", *QUANTIFIERS) and all(map(_nnf, node.args)))


def _prenex(node: Node) -> bool:
    while node.kind in QUANTIFIERS:
        node = node.args[0]
    return not any(part.kind in QUANTIFIERS for part in nodes_of(node))


def size_of(node: Node) -> int:
    """Return the number of operators, quantifiers and applications of predicates or functions in a formula."""
    return bool(node.args) + sum(map(size_of, node.args))
