"""Parser of formulas over truth values and integers, and of first order, in the notations of `notation`.

Operators from weakest to strongest: `<->`; `->` (right-associative) and `<-`; `|`; `^` (exclusive or); `&`; then `~`,
`-` before a formula, and quantifiers; then one comparison `= != < <= > >=` between terms of `+ - *`. A product must
have a number on one side. After `.`, `:` or `,` a quantifier extends as far as possible, and also if its variable
appears again after the first operator (`∀x P(x) → Q(x)`); otherwise it covers the next part only. In a first-order
formula, free names of objects from u to z are universally quantified.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from verifiers.logic.formula import (
    COMPARISONS,
    CONNECTIVES,
    QUANTIFIERS,
    FormulaError,
    Node,
    check_depth,
    is_first_order,
    nodes_of,
)
from verifiers.logic.notation import CLOSING, FREE, Token, tokens_of
from verifiers.logic.signature import typed

MAX_BRACKETS = 50
"""Limit on the nesting of brackets and quantifiers."""
MAX_QUANTIFIERS = 200
MAX_INTEGER = 10**12
POWERS: Mapping[str, int] = {
    "<->": 1, "->": 2, "<-": 2, "|": 3, "^": 4, "&": 5, **dict.fromkeys(COMPARISONS, 7), "+": 8, "-": 8, "*": 9,
}  # fmt: skip
"""Binding power of binary operators."""
ARROWS, PREFIX = 2, 6
"""Binding power of `->` and `<-`, and of `~` and quantifiers."""
CONNECTING = frozenset(sign for sign, power in POWERS.items() if power < PREFIX)
SEPARATORS = frozenset((".", ":", ","))
_END = Token("end", "the end", False)
_LETTER = re.compile(r"[a-z]\d*")


def parse(text: str, *, close: bool = True, constants: Collection[str] = ()) -> Node:
    """Parse a formula.

    Args:
        text: the formula.
        close: quantify over free names from u to z; False: they are constants (in proofs).
        constants: names that are never variables.
    Raises:
        FormulaError: it is not a formula, is too long, nests too deeply, or uses a name in two ways.

    Example:
        >>> str(parse("not p -> x + 1 < 3"))
        '(~p -> ((x + 1) < 3))'
        >>> str(parse("all x (Dog(x) -> exists y. Owns(y, x))."))
        '∀x (Dog(x) -> ∃y Owns(y, x))'
    """
    tokens, variable = tokens_of(text)
    formula = _Parser(tokens).parse()
    check_depth(formula)
    if close and is_first_order(formula):
        free = [name for name in _terms(formula) if variable.fullmatch(name) and name not in constants]
        for name in dict.fromkeys(free):
            formula = Node("forall", (_abstracted(formula, name, 0),))
        check_depth(formula)
    typed([formula])
    return formula


def _terms(formula: Node) -> Iterator[str]:
    """Yield the names of objects or numbers in a formula."""
    for node in nodes_of(formula):
        if node.kind not in CONNECTIVES and node.kind not in QUANTIFIERS:
            yield from (str(arg.value) for arg in node.args if arg.kind == "name")


def _abstracted(node: Node, name: str, level: int) -> Node:
    """Return the body of a quantifier over a name: the name becomes a bound variable."""
    if node.kind == "name" and node.value == name:
        return Node("bound", (), level)
    inner = level + (node.kind in QUANTIFIERS)
    return Node(node.kind, tuple(_abstracted(arg, name, inner) for arg in node.args), node.value)


def _as_formula(node: Node) -> Node:
    """Read a minus before a formula as `not`, as Prover9 does."""
    return Node("~", (_as_formula(node.args[0]),)) if _is_minus(node) else node


def _is_minus(node: Node) -> bool:
    return node.kind == "-" and len(node.args) == 1


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens, self._at, self._depth, self._quantifiers = tokens, 0, 0, 0
        self._bound: list[str] = []

    def parse(self) -> Node:
        if not self._tokens:
            raise FormulaError("it is empty.")
        found = _as_formula(self._expression(0))
        if self._at < len(self._tokens):
            raise FormulaError(f"unexpected {self._peek().text!r}.")
        return found

    def _peek(self, ahead: int = 0) -> Token:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else _END

    def _is(self, *signs: str) -> bool:
        return self._peek().kind == "sign" and self._peek().text in signs

    def _take(self) -> Token:
        token = self._peek()
        self._at += 1
        return token

    def _take_sign(self, *signs: str) -> str | None:
        return self._take().text if self._is(*signs) else None

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_BRACKETS:
            raise FormulaError(f"it may nest brackets and quantifiers at most {MAX_BRACKETS} deep.")

    def _expression(self, least: int) -> Node:
        """Parse an expression of operators with at least this binding power."""
        left = self._operand()
        arrows: list[tuple[Node, str]] = []
        while True:
            sign = self._peek().text if self._peek().kind == "sign" else ""
            power = POWERS.get(sign, -1)
            if power != ARROWS:
                left, arrows = _joined(arrows, left), []
            if power < least:
                return left
            self._take()
            right = self._expression(power + 1)
            if power == ARROWS:
                arrows.append((left, sign))
                left = right
            else:
                left = _binary(sign, left, right)

    def _operand(self) -> Node:
        signs: list[str] = []
        while sign := self._take_sign("~", "-"):
            signs.append(sign)
        if not signs:
            return self._atom()
        found = self._expression(PREFIX) if signs[-1] == "~" else self._atom()
        while signs:
            sign = signs.pop()
            if sign == "-" and _is_minus(found):
                found = found.args[0]
            else:
                found = Node(sign, (_as_formula(found) if sign == "~" else found,))
        return found

    def _atom(self) -> Node:
        token = self._take()
        if token.kind == "sign":
            if token.text in QUANTIFIERS:
                return self._quantified(token.text)
            if token.text in CLOSING:
                return self._prefix() or self._group(token.text)
            if token.text in ("true", "false"):
                return Node("truth", (), token.text == "true")
        if token.kind == "number":
            if len(token.text) > 15 or int(token.text) > MAX_INTEGER:
                raise FormulaError(f"a number may be at most {MAX_INTEGER}.")
            return Node("number", (), int(token.text))
        if token.kind != "name":
            raise FormulaError(f"expected a name, a number or a bracket; got {token.text!r}.")
        if self._is("("):
            return self._application(token.text)
        if token.text in self._bound:
            return Node("bound", (), self._bound[::-1].index(token.text))
        return Node("name", (), token.text)

    def _group(self, opened: str) -> Node:
        self._deeper()
        found = self._expression(0)
        if not self._take_sign(CLOSING[opened]):
            raise FormulaError("a bracket is not closed.")
        self._depth -= 1
        return found

    def _application(self, name: str) -> Node:
        if name in self._bound:
            raise FormulaError(f"{name} is a variable: it cannot be a predicate or a function.")
        self._take()
        self._deeper()
        args: list[Node] = []
        while not self._is(")") or args:
            args.append(self._expression(PREFIX + 1))
            if not self._take_sign(","):
                break
        if not self._take_sign(")"):
            raise FormulaError(f"the arguments of {name} must be terms with commas between them, within brackets.")
        self._depth -= 1
        return Node("apply", tuple(args), name) if args else Node("name", (), name)

    def _prefix(self) -> Node | None:
        """Parse a quantifier in its own brackets, `(∀x)(...)`, whose bracket is already open; None if there is none."""
        start = self._at
        sign = self._take_sign(*QUANTIFIERS)
        if sign is not None and self._peek().kind == "name":
            names = self._variables()
            if self._take_sign(")", "]"):
                return self._over(sign, names, wide=False)
        self._at = start
        return None

    def _quantified(self, kind: str) -> Node:
        bracketed = self._take_sign("[") is not None
        if self._peek().kind != "name":
            raise FormulaError(f"a variable must follow the quantifier; got {self._peek().text!r}.")
        names = self._variables(bracketed=bracketed)
        if bracketed and not self._take_sign("]"):
            raise FormulaError("the variables of a quantifier must be in brackets that are closed.")
        separated = self._take_sign(*SEPARATORS) is not None
        return self._over(kind, names, wide=separated and not bracketed)

    def _variables(self, *, bracketed: bool = False) -> list[str]:
        names = [self._take().text]
        while True:
            comma = self._is(",")
            after, beyond = self._peek(comma), self._peek(comma + 1)
            if after.kind != "name" or after.text in names or (not bracketed and _is_applied(after, beyond)):
                return names
            if not comma and not (_LETTER.fullmatch(after.text) and _begins(beyond)):
                return names
            self._at += 1 + comma
            names.append(after.text)

    def _over(self, kind: str, names: list[str], *, wide: bool) -> Node:
        self._quantifiers += 1
        if self._quantifiers > MAX_QUANTIFIERS:
            raise FormulaError(f"it may have at most {MAX_QUANTIFIERS} quantifiers.")
        self._deeper()
        wide = wide or self._names_again([name for name in names if name not in self._bound])
        self._bound += names
        body = _as_formula(self._expression(0 if wide else PREFIX))
        del self._bound[-len(names) :]
        self._depth -= 1
        for _ in names:
            body = Node(kind, (body,))
        return body

    def _names_again(self, names: list[str]) -> bool:
        """Return True if a name appears again, not rebound, after the first operator in the rest of this bracket."""
        depth, joined = 0, False
        rebound: int | None = None
        for at in range(self._at, len(self._tokens)):
            kind, text, _ = self._tokens[at]
            if kind == "sign" and text in CLOSING:
                depth += 1
            elif kind == "sign" and text in CLOSING.values():
                depth -= 1
                if depth < 0:
                    return False
                if rebound is not None and depth < rebound:
                    rebound = None
            elif kind == "sign" and depth == 0 and text in CONNECTING:
                joined = True
            elif kind == "name" and text in names and rebound is None:
                if self._tokens[at - 1].kind == "sign" and self._tokens[at - 1].text in QUANTIFIERS:
                    rebound = depth
                elif joined:
                    return True
        return False


def _joined(arrows: list[tuple[Node, str]], last: Node) -> Node:
    """Join `a -> b -> c` as `a -> (b -> c)`."""
    for left, sign in reversed(arrows):
        last = _binary(sign, left, last)
    return last


def _binary(sign: str, left: Node, right: Node) -> Node:
    if sign in CONNECTING:
        left, right = _as_formula(left), _as_formula(right)
    if sign == "<-":
        return Node("->", (right, left))
    if sign == "*" and not any(_is_constant(side) for side in (left, right)):
        raise FormulaError("a product must have a number on one side.")
    return Node(sign, (left, right))


def _is_applied(name: Token, after: Token) -> bool:
    """Return True if a name after a quantifier's variable is a predicate; False if it is one more variable."""
    if after.kind != "sign" or after.text != "(":
        return False
    return not (FREE.fullmatch(name.text) or (_LETTER.fullmatch(name.text) and not after.touches))


def _begins(token: Token) -> bool:
    """Return True if a formula may begin with a token, or a quantifier's variables end before it."""
    if token.kind == "sign":
        return token.text in ("~", "-", *QUANTIFIERS, *CLOSING, *SEPARATORS)
    return token.kind == "name"


def _is_constant(node: Node) -> bool:
    return node.kind == "number" or (node.kind == "-" and all(arg.kind == "number" for arg in node.args))


__all__ = ["MAX_BRACKETS", "parse"]
