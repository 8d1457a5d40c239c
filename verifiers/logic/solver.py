"""Questions to z3: whether formulas have a model, and whether two are equivalent. In our language or in SMT-LIB 2.

Each question has a `Reader`, and with it a context of z3's of its own: nothing is left for the next one, and threads
may ask side by side.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence

import z3

from verifiers.errors import VerifierError
from verifiers.logic import smtlib
from verifiers.logic.formula import FormulaError, Node, parse

SOLVER_MILLISECONDS = 5_000


class SolverGaveUp(VerifierError):
    """z3 answered neither yes nor no in time: could not grade."""


def satisfiable(formulas: Sequence[z3.BoolRef]) -> bool:
    """Return True if all formulas can hold together.

    Raises:
        SolverGaveUp: z3 does not know.
    """
    if not formulas:
        return True
    solver = z3.Solver(ctx=formulas[0].ctx)
    solver.set("timeout", SOLVER_MILLISECONDS)
    solver.add(*formulas)
    answer = solver.check()
    if answer == z3.unknown:
        raise SolverGaveUp(f"z3 gave up ({solver.reason_unknown()}) after {SOLVER_MILLISECONDS} ms.")
    return answer == z3.sat


def entails(premises: Sequence[z3.BoolRef], claim: z3.BoolRef) -> bool:
    """Return True if the claim holds wherever all premises do."""
    return not satisfiable([*premises, z3.Not(claim)])


def contradicts(premises: Sequence[z3.BoolRef], claim: z3.BoolRef) -> bool:
    """Return True if the claim holds nowhere that all premises do."""
    return entails(premises, z3.Not(claim))


def equivalent(left: z3.BoolRef, right: z3.BoolRef) -> bool:
    """Return True if two formulas hold in the same models."""
    return not satisfiable([left != right])


CONNECTIVES: Mapping[str, Callable[[z3.BoolRef, z3.BoolRef], z3.BoolRef]] = {
    "&": z3.And, "|": z3.Or, "^": z3.Xor, "->": z3.Implies, "<->": operator.eq,
}  # fmt: skip
COMPARISONS: Mapping[str, Callable[[z3.ArithRef, z3.ArithRef], z3.BoolRef]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
ARITHMETIC: Mapping[str, Callable[[z3.ArithRef, z3.ArithRef], z3.ArithRef]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul,
}  # fmt: skip


class Reader:
    """Reads the formulas of one question, in a context of z3's that nothing else uses."""

    def __init__(self, declarations: str | None = None) -> None:
        """`declarations`: under which formulas are SMT-LIB 2 terms; None: they are in our own language.

        Raises:
            FormulaError: they are more than declarations.
        """
        self._context = z3.Context()
        self._parser = None if declarations is None else z3.ParserContext(self._context)
        self._depths: Mapping[str, int] = {}
        if declarations is not None:
            script, self._depths = smtlib.declarations(declarations)
            self._assertions(script, shown=declarations)

    def read(self, text: str) -> z3.BoolRef:
        """Return one formula.

        Raises:
            FormulaError: the text is none, under these declarations.
        """
        if self._parser is None:
            return self._formula(parse(text))
        (formula,) = self._assertions(f"(assert {smtlib.term(text, self._depths)})", shown=text)
        return formula

    def _assertions(self, script: str, *, shown: str) -> list[z3.BoolRef]:
        assert self._parser is not None
        try:
            return list(self._parser.from_string(script))
        except z3.Z3Exception as error:
            reason = error.value.decode(errors="replace") if isinstance(error.value, bytes) else str(error.value)
            raise FormulaError(f"{shown.strip()[:60]!r}: {reason.strip()[:200]}") from error

    def _formula(self, formula: Node) -> z3.BoolRef:
        """A formula of our own language, each of whose names is of one sort, as `parse` returns it."""
        if formula.kind == "name":
            return z3.Bool(str(formula.value), self._context)
        if formula.kind == "truth":
            return z3.BoolVal(bool(formula.value), self._context)
        if formula.kind == "~":
            return z3.Not(self._formula(formula.args[0]))
        left, right = formula.args
        if formula.kind in CONNECTIVES:
            return CONNECTIVES[formula.kind](self._formula(left), self._formula(right))
        return COMPARISONS[formula.kind](self._number(left), self._number(right))

    def _number(self, term: Node) -> z3.ArithRef:
        if term.kind == "name":
            return z3.Int(str(term.value), self._context)
        if term.kind == "number":
            return z3.IntVal(int(term.value), self._context)
        left, right = term.args
        return ARITHMETIC[term.kind](self._number(left), self._number(right))


def constants_of(formulas: Sequence[z3.BoolRef]) -> dict[str, z3.ExprRef]:
    """Return the free constants of formulas, by name."""
    found: dict[str, z3.ExprRef] = {}
    seen: set[int] = set()
    stack: list[z3.ExprRef] = list(formulas)
    while stack:
        node = stack.pop()
        if node.get_id() in seen:
            continue
        seen.add(node.get_id())
        if z3.is_const(node) and node.decl().kind() == z3.Z3_OP_UNINTERPRETED:
            found[str(node)] = node
        stack.extend(node.children())
    return found


def holds_under(formulas: Sequence[z3.BoolRef], values: Mapping[str, str]) -> bool:
    """Return True if the formulas hold when each constant has the value that its text gives.

    Raises:
        FormulaError: a text is no value of its constant's sort.
    """
    equations = [constant == _value(values[name], constant, name) for name, constant in constants_of(formulas).items()]
    return satisfiable([*formulas, *equations])


def _value(text: str, constant: z3.ExprRef, name: str) -> z3.ExprRef:
    plain = text.strip().lower()
    if z3.is_bool(constant):
        if plain not in ("true", "false"):
            raise FormulaError(f"{name} must be true or false; got {text[:40]!r}.")
        return z3.BoolVal(plain == "true", constant.ctx)
    if not re.fullmatch(r"-?\d{1,40}(?:(?:/\d{1,40})|(?:\.\d{1,40}))?", plain):
        raise FormulaError(f"{name} must be a number; got {text[:40]!r}.")
    if z3.is_int(constant) and re.fullmatch(r"-?\d+", plain):
        return z3.IntVal(plain, constant.ctx)
    if z3.is_real(constant):
        return z3.RealVal(plain, constant.ctx)
    if z3.is_bv(constant) and re.fullmatch(r"-?\d+", plain):
        return z3.BitVecVal(int(plain), constant.size(), constant.ctx)
    raise FormulaError(f"{name} cannot be {text[:40]!r}.")
