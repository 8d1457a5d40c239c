"""Translation of typed formulas to z3. Runs in the z3 process."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import z3

from verifiers.logic.formula import CONNECTIVES, QUANTIFIERS, FormulaError, Node
from verifiers.logic.signature import NUMBER, OBJECT, TRUTH, Typed

JOIN: Mapping[str, Callable[[z3.BoolRef, z3.BoolRef], z3.BoolRef]] = {
    "&": z3.And, "|": z3.Or, "^": z3.Xor, "->": z3.Implies, "<->": operator.eq,
}  # fmt: skip
EQUALITY: Mapping[str, Callable[[z3.ExprRef, z3.ExprRef], z3.BoolRef]] = {"=": operator.eq, "!=": operator.ne}
ORDER: Mapping[str, Callable[[z3.ArithRef, z3.ArithRef], z3.BoolRef]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
ARITHMETIC: Mapping[str, Callable[[z3.ArithRef, z3.ArithRef], z3.ArithRef]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul,
}  # fmt: skip
MAX_EXPANDED = 20_000
"""Limit on the parts of formulas whose quantifiers are expanded over a finite domain."""
ELEMENT = "!element"
"""Prefix of the names of a finite domain's elements; no formula has such names."""


class TooLarge(FormulaError):
    """An error for formulas that would be too long over this domain."""


class Translation:
    """The formulas of one question in z3, with quantifiers, or expanded over a finite domain of objects.

    Args:
        typed: the formulas.
        domain: names of all existing objects, all different; an integer: size of an unnamed domain; None: any domain.
    Raises:
        TooLarge: the domain is finite, and the formulas would be too long.
        FormulaError: the domain has a name that is not an object.
    """

    def __init__(self, typed: Typed, context: z3.Context, domain: Sequence[str] | int | None = None) -> None:
        self._context, self._symbols = context, typed.symbols
        self._sorts = {
            OBJECT: z3.DeclareSort("object", context), NUMBER: z3.IntSort(context), TRUTH: z3.BoolSort(context)
        }  # fmt: skip
        self.elements: list[z3.ExprRef] = []
        self._numerals: dict[int, z3.ExprRef] = {}
        self.closed: list[z3.BoolRef] = []
        """Axioms of a finite domain: its elements differ, and every object is one of them."""
        if isinstance(domain, int):
            self.elements = [self._object(f"{ELEMENT}{number}") for number in range(domain)]
        elif domain is not None:
            self.elements = [self._named(name) for name in domain]
        self._seen: set[int] = set()
        self._left = MAX_EXPANDED
        self._apply = {name: self._function(name) for name, symbol in typed.symbols.items() if symbol.args}
        self.assertions = [self._formula(formula, ()) for formula in typed.formulas]
        objects = [*self._numerals.values()]
        if len(objects) > 1:
            self.closed.append(z3.Distinct(*objects))
        if len(self.elements) > 1:
            self.closed.append(z3.Distinct(*self.elements))
        if self.elements:
            named = [self._object(name) for name, symbol in typed.symbols.items() if symbol == ((), OBJECT)]
            for term in (*objects, *named):
                self._close(term)

    def constant(self, name: str) -> z3.ExprRef:
        """Return the z3 term of a name without arguments."""
        return z3.Const(name, self._sorts[self._symbols[name].result])

    def applied(self, name: str, args: Sequence[z3.ExprRef]) -> z3.ExprRef:
        """Apply a predicate or function to arguments."""
        return self._apply[name](*args)

    def _object(self, name: str) -> z3.ExprRef:
        return z3.Const(name, self._sorts[OBJECT])

    def _named(self, name: str) -> z3.ExprRef:
        symbol = self._symbols.get(name)
        if symbol is not None and symbol != ((), OBJECT):
            raise FormulaError(f"the domain must name objects; {name} is a {symbol.result} in the formulas.")
        return self._object(name)

    def _function(self, name: str) -> z3.FuncDeclRef:
        symbol = self._symbols[name]
        return z3.Function(name, *(self._sorts[sort] for sort in symbol.args), self._sorts[symbol.result])

    def _close(self, term: z3.ExprRef) -> None:
        """Add the axiom that an object is one of the elements."""
        if self.elements and term.get_id() not in self._seen:
            self._seen.add(term.get_id())
            self.closed.append(z3.Or(*(term == element for element in self.elements)))

    def _formula(self, node: Node, bound: tuple[z3.ExprRef, ...]) -> z3.BoolRef:
        self._left -= 1
        if self.elements and self._left < 0:
            raise TooLarge(f"over {len(self.elements)} objects the formulas are too long.")
        if node.kind == "truth":
            return z3.BoolVal(bool(node.value), self._context)
        if node.kind in QUANTIFIERS:
            return self._quantified(node, bound)
        if node.kind in CONNECTIVES:
            parts = [self._formula(arg, bound) for arg in node.args]
            return z3.Not(parts[0]) if node.kind == "~" else JOIN[node.kind](*parts)
        if node.kind in EQUALITY:
            return EQUALITY[node.kind](*(self._term(arg, bound) for arg in node.args))
        if node.kind in ORDER:
            return ORDER[node.kind](*self._numbers(node, bound))
        return cast("z3.BoolRef", self._term(node, bound))

    def _numbers(self, node: Node, bound: tuple[z3.ExprRef, ...]) -> list[z3.ArithRef]:
        """Translate the parts of a comparison or sum, which `typed` has checked to be numbers."""
        return [cast("z3.ArithRef", self._term(arg, bound)) for arg in node.args]

    def _quantified(self, node: Node, bound: tuple[z3.ExprRef, ...]) -> z3.BoolRef:
        over_all, sort = node.kind == "forall", str(node.value)
        if sort == OBJECT and self.elements:
            parts = [self._formula(node.args[0], (*bound, element)) for element in self.elements]
            return z3.And(*parts) if over_all else z3.Or(*parts)
        variable = z3.FreshConst(self._sorts[sort], "!bound")
        body = self._formula(node.args[0], (*bound, variable))
        return z3.ForAll([variable], body) if over_all else z3.Exists([variable], body)

    def _term(self, node: Node, bound: tuple[z3.ExprRef, ...]) -> z3.ExprRef:
        if node.kind == "bound":
            return bound[-1 - int(node.value)]
        if node.kind == "number":
            return z3.IntVal(int(node.value), self._context)
        if node.kind == "numeral":
            return self._numerals.setdefault(int(node.value), self._object(f"!{node.value}"))
        if node.kind == "name":
            return self.constant(str(node.value))
        if node.kind in ARITHMETIC:
            numbers = self._numbers(node, bound)
            return -numbers[0] if len(numbers) == 1 else ARITHMETIC[node.kind](*numbers)
        args = [self._term(arg, bound) for arg in node.args]
        term = self._apply[str(node.value)](*args)
        if self._symbols[str(node.value)].result == OBJECT:
            self._close(term)
        return term


__all__ = ["ELEMENT", "TooLarge", "Translation"]
