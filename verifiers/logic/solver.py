"""Questions to z3: whether formulas have a model, and whether two are equivalent. In our language or in SMT-LIB 2."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence

import z3

from verifiers.errors import VerifierError
from verifiers.logic.formula import FormulaError, Node, parse

SOLVER_MILLISECONDS = 5_000
MAX_SMTLIB = 50_000
UNSAFE = re.compile(r"[;\"|:\\]")
"""Signs that could end a term or name a solver's option: files can be written with those."""


class SolverGaveUp(VerifierError):
    """z3 answered neither yes nor no in time: could not grade."""


def satisfiable(formulas: Sequence[z3.BoolRef]) -> bool:
    """Return True if all formulas can hold together.

    Raises:
        SolverGaveUp: z3 does not know.
    """
    solver = z3.Solver()
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


def to_z3(formula: Node) -> z3.BoolRef:
    """Convert a formula of our own language, each of whose names is of one sort, as `parse` returns it."""
    if formula.kind == "name":
        return z3.Bool(str(formula.value))
    if formula.kind == "truth":
        return z3.BoolVal(bool(formula.value))
    if formula.kind == "~":
        return z3.Not(to_z3(formula.args[0]))
    left, right = formula.args
    if formula.kind in CONNECTIVES:
        return CONNECTIVES[formula.kind](to_z3(left), to_z3(right))
    return COMPARISONS[formula.kind](_number(left), _number(right))


def _number(term: Node) -> z3.ArithRef:
    if term.kind == "name":
        return z3.Int(str(term.value))
    if term.kind == "number":
        return z3.IntVal(int(term.value))
    left, right = term.args
    return ARITHMETIC[term.kind](_number(left), _number(right))


def own_formula(text: str) -> z3.BoolRef:
    """Read a text in our own language."""
    return to_z3(parse(text))


def smtlib_formula(declarations: str) -> Callable[[str], z3.BoolRef]:
    """Return a reader of single SMT-LIB 2 terms under these declarations.

    The term may come from a model: it is refused if it could be anything but one term.
    """

    def read(text: str) -> z3.BoolRef:
        depth = 0
        for char in text:
            depth += (char == "(") - (char == ")")
            if depth < 0:
                break
        if depth or not text.strip() or UNSAFE.search(text) or len(text) > MAX_SMTLIB:
            raise FormulaError(f"{text.strip()[:60]!r} is not one SMT-LIB term.")
        try:
            found = z3.parse_smt2_string(f"{declarations}\n(assert {text})")
        except z3.Z3Exception as error:
            reason = error.value.decode(errors="replace") if isinstance(error.value, bytes) else str(error.value)
            raise FormulaError(f"{text.strip()[:60]!r}: {reason.strip()[:200]}") from error
        if len(found) != 1:
            raise FormulaError("declarations must declare and define, nothing else; they assert.")
        return found[0]

    return read


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
        return z3.BoolVal(plain == "true")
    if not re.fullmatch(r"-?\d{1,40}(?:(?:/\d{1,40})|(?:\.\d{1,40}))?", plain):
        raise FormulaError(f"{name} must be a number; got {text[:40]!r}.")
    if z3.is_int(constant) and re.fullmatch(r"-?\d+", plain):
        return z3.IntVal(plain)
    if z3.is_real(constant):
        return z3.RealVal(plain)
    if z3.is_bv(constant) and re.fullmatch(r"-?\d+", plain):
        return z3.BitVecVal(int(plain), constant.size())
    raise FormulaError(f"{name} cannot be {text[:40]!r}.")
