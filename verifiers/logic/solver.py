"""Questions to z3: is a set of formulas satisfiable, do two say the same. In our own language or in SMT-LIB 2."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from verifiers.errors import VerifierError
from verifiers.logic.formula import FormulaError, Node, names_of, parse

if TYPE_CHECKING:
    import z3

SOLVER_MILLISECONDS = 5_000
MAX_SMTLIB = 50_000
UNSAFE = re.compile(r"[;\"|:\\]")
"""Signs that could end a term or name a solver's option: files can be written with those."""


class SolverGaveUp(VerifierError):
    """z3 answered neither yes nor no in time: could not grade."""


def satisfiable(formulas: Sequence[z3.BoolRef]) -> bool:
    """Whether all can hold together.

    Raises:
        SolverGaveUp: z3 does not know.
    """
    import z3

    solver = z3.Solver()
    solver.set("timeout", SOLVER_MILLISECONDS)
    solver.add(*formulas)
    answer = solver.check()
    if answer == z3.unknown:
        raise SolverGaveUp(f"z3 gave up ({solver.reason_unknown()}) after {SOLVER_MILLISECONDS} ms.")
    return answer == z3.sat


def entails(premises: Sequence[z3.BoolRef], claim: z3.BoolRef) -> bool:
    """Whether the claim holds wherever all premises do."""
    import z3

    return not satisfiable([*premises, cast("z3.BoolRef", z3.Not(claim))])


def equivalent(left: z3.BoolRef, right: z3.BoolRef) -> bool:
    """Whether two formulas hold in the same models."""
    return not satisfiable([cast("z3.BoolRef", left != right)])


def to_z3(formula: Node) -> z3.BoolRef:
    """A formula of our own language for z3."""
    import z3

    sorts = names_of(formula)
    made = {name: z3.Bool(name) if sort is bool else z3.Int(name) for name, sort in sorts.items()}
    build: Mapping[str, Callable[..., object]] = {
        "~": z3.Not, "&": z3.And, "|": z3.Or, "^": z3.Xor, "->": z3.Implies,
        "<->": lambda a, b: a == b, "=": lambda a, b: a == b, "!=": lambda a, b: a != b,
        "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
        "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b,
    }  # fmt: skip

    def convert(node: Node) -> object:
        if node.kind == "name":
            return made[str(node.value)]
        if node.kind == "truth":
            return z3.BoolVal(bool(node.value))
        if node.kind == "number":
            return z3.IntVal(int(node.value))
        return build[node.kind](*map(convert, node.args))

    return cast("z3.BoolRef", convert(formula))


def own_formula(text: str) -> z3.BoolRef:
    """A text in our own language, for z3."""
    return to_z3(parse(text))


def smtlib_formula(declarations: str) -> Callable[[str], z3.BoolRef]:
    """A reader of single SMT-LIB 2 terms under some declarations.

    The term may come from a model: it is refused where it could be anything but one term.
    """

    def read(text: str) -> z3.BoolRef:
        import z3

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
            said = error.value.decode(errors="replace") if isinstance(error.value, bytes) else str(error.value)
            raise FormulaError(f"{text.strip()[:60]!r}: {said.strip()[:200]}") from error
        if len(found) != 1:
            raise FormulaError("declarations must declare and define, nothing else; they assert.")
        return cast("z3.BoolRef", found[0])

    return read


def constants_of(formulas: Sequence[z3.BoolRef]) -> dict[str, z3.ExprRef]:
    """The free constants of formulas, by name."""
    import z3

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
    """Whether formulas hold where each constant has the value that a text says.

    Raises:
        FormulaError: a text is no value of its constant's sort.
    """
    equations: list[z3.BoolRef] = []
    for name, constant in constants_of(formulas).items():
        equations.append(cast("z3.BoolRef", constant == _value(values[name], constant, name)))
    return satisfiable([*formulas, *equations])


def _value(text: str, constant: z3.ExprRef, name: str) -> object:
    import z3

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
        return z3.BitVecVal(int(plain), cast("z3.BitVecRef", constant).size())
    raise FormulaError(f"{name} cannot be {text[:40]!r}.")
