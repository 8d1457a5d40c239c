"""Names of formulas: whether they are predicates, functions or constants, and of which sort, inferred from their
use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from verifiers.logic.formula import COMPARISONS, CONNECTIVES, QUANTIFIERS, FormulaError, Node, is_first_order

OBJECT, NUMBER, TRUTH = "object", "number", "truth value"
ORDERED = frozenset(COMPARISONS) - {"=", "!="}


class Symbol(NamedTuple):
    """The sorts of a name's arguments and of its value."""

    args: tuple[str, ...]
    result: str


class Typed(NamedTuple):
    """The formulas of one question, with the sorts of their names."""

    formulas: tuple[Node, ...]
    """As given, except that a quantifier's `value` is the sort of its variable, and a number of the sort object has
    kind `numeral`.
    """
    symbols: dict[str, Symbol]


@dataclass(eq=False)
class _Slot:
    """A place that takes one sort; places that must agree are joined."""

    about: str
    sort: str = ""
    same: _Slot | None = None

    def root(self) -> _Slot:
        slot = self
        while slot.same is not None:
            slot = slot.same
        return slot


@dataclass
class _Use:
    """The use of a name."""

    args: list[_Slot]
    result: _Slot
    truth: bool
    """True if its value is a truth value."""


def typed(formulas: Sequence[Node]) -> Typed:
    """Infer the sorts of the names in formulas, which must be used consistently.

    A name is a number if arithmetic or order is applied to it, or if that follows from other names. Otherwise it is an
    object if any formula has a quantifier, a predicate or a function, and else a number.

    Raises:
        FormulaError: a name has two numbers of arguments or two sorts, or a part has the wrong sort.
    """
    inference = _Inference()
    for formula in formulas:
        inference.formula(formula, ())
    inference.rest = OBJECT if any(map(is_first_order, formulas)) else NUMBER
    symbols = {
        name: Symbol(tuple(map(inference.sort, use.args)), inference.sort(use.result))
        for name, use in inference.uses.items()
    }
    return Typed(tuple(map(inference.written, formulas)), symbols)


@dataclass
class _Inference:
    uses: dict[str, _Use] = field(default_factory=dict[str, _Use])
    slots: dict[int, _Slot] = field(default_factory=dict[int, _Slot])
    """Slots of quantifiers and numbers, by identity of their node."""
    rest: str = OBJECT
    """Sort of slots without any evidence."""

    def sort(self, slot: _Slot) -> str:
        return slot.root().sort or self.rest

    def set(self, slot: _Slot, sort: str) -> None:
        root = slot.root()
        if root.sort and root.sort != sort:
            raise FormulaError(f"{slot.about} is used as a {root.sort} and as a {sort}.")
        root.sort = sort

    def join(self, a: _Slot, b: _Slot) -> None:
        first, second = a.root(), b.root()
        if first is second:
            return
        if first.sort and second.sort and first.sort != second.sort:
            raise FormulaError(f"{a.about} is a {first.sort}, and {b.about} is a {second.sort}.")
        second.sort = first.sort or second.sort
        first.same = second

    def formula(self, node: Node, bound: tuple[_Slot, ...]) -> None:
        if node.kind in QUANTIFIERS:
            slot = self.slots[id(node)] = _Slot("a variable")
            self.formula(node.args[0], (*bound, slot))
        elif node.kind in CONNECTIVES:
            for arg in node.args:
                self.formula(arg, bound)
        elif node.kind in COMPARISONS:
            left, right = (self.term(arg, bound) for arg in node.args)
            self.join(left, right)
            if node.kind in ORDERED:
                self.set(left, NUMBER)
        elif node.kind in ("name", "apply"):
            self.set(self.used(node, bound, truth=True), TRUTH)
        elif node.kind != "truth":
            raise FormulaError(f"{str(node)[:60]} must be a truth value.")

    def term(self, node: Node, bound: tuple[_Slot, ...]) -> _Slot:
        if node.kind == "bound":
            return bound[-1 - int(node.value)]
        if node.kind == "number":
            slot = self.slots[id(node)] = _Slot(str(node.value))
            return slot
        if node.kind in ("name", "apply"):
            return self.used(node, bound, truth=False)
        if node.kind not in ("+", "-", "*"):
            raise FormulaError(f"{str(node)[:60]} must be a number.")
        for arg in node.args:
            self.set(self.term(arg, bound), NUMBER)
        return _Slot(str(node)[:60], NUMBER)

    def used(self, node: Node, bound: tuple[_Slot, ...], *, truth: bool) -> _Slot:
        name = str(node.value)
        use = self.uses.get(name)
        if use is None:
            args = [_Slot(f"argument {at} of {name}") for at in range(1, len(node.args) + 1)]
            use = self.uses[name] = _Use(args, _Slot(name), truth)
        if len(use.args) != len(node.args):
            raise FormulaError(f"{name} is written with {_arguments(use.args)} and with {_arguments(node.args)}.")
        if use.truth is not truth:
            raise FormulaError(f"{name} is used as a truth value and as a number or an object.")
        for slot, arg in zip(use.args, node.args, strict=True):
            self.join(slot, self.term(arg, bound))
        return use.result

    def written(self, node: Node) -> Node:
        """Return a formula or term in the form of `Typed.formulas`."""
        value, kind = node.value, node.kind
        if kind in QUANTIFIERS:
            value = self.sort(self.slots[id(node)])
        elif kind == "number" and self.sort(self.slots[id(node)]) == OBJECT:
            kind = "numeral"
        return Node(kind, tuple(map(self.written, node.args)), value)


def _arguments(args: Sequence[object]) -> str:
    return f"{len(args) or 'no'} argument{'s' * (len(args) != 1)}"


def renamed(answer: Node, given: Sequence[Node]) -> Node:
    """Rename symbols of an answer to those of the given formulas from which they differ only in case."""
    known = {symbol for formula in given for symbol in _symbols(formula)}
    alike: dict[tuple[str, int], set[str]] = {}
    for name, count in known:
        alike.setdefault((name.casefold(), count), set()).add(name)

    def rename(node: Node) -> Node:
        args = tuple(map(rename, node.args))
        if node.kind not in ("name", "apply") or (str(node.value), len(args)) in known:
            return Node(node.kind, args, node.value)
        names = alike.get((str(node.value).casefold(), len(args)), set())
        return Node(node.kind, args, next(iter(names)) if len(names) == 1 else node.value)

    return rename(answer)


def _symbols(formula: Node) -> set[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    left = [formula]
    while left:
        node = left.pop()
        if node.kind in ("name", "apply"):
            found.add((str(node.value), len(node.args)))
        left += node.args
    return found


__all__ = ["NUMBER", "OBJECT", "TRUTH", "Symbol", "Typed", "renamed", "typed"]
