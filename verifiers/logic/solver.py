"""z3's answer to one question: can these formulas hold together? Runs in the z3 process (`logic.question.ask`).

Each question gets its own z3 context, so nothing is left for the next one. Effort is limited in z3's resource units, so
that the answer does not depend on the load of the machine. If z3 does not respect that limit, its process is killed.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence

import z3

from verifiers.logic import smtlib
from verifiers.logic.formula import FormulaError, Node, is_first_order
from verifiers.logic.question import Found, Question, ValueFault
from verifiers.logic.signature import OBJECT, TRUTH, Typed, typed
from verifiers.logic.translate import TooLarge, Translation

EFFORT = 3_000_000
"""Limit of one check in z3's resource units: some seconds."""
SMALL, LARGER = (1, 2, 3), (4, 5, 6)
"""Sizes of finite domains searched for a model before z3 is asked about any domain, and afterwards."""
MAX_SHOWN = 600
"""Limit on the characters of a reported model."""


def decide(question: Question) -> str:
    """Return `Found` as JSON, or {"fault": why the question is invalid, "values": True if its values are at fault}."""
    try:
        found = _decided(question)
    except TooLarge as error:
        found = Found(None, limit=str(error))
    except FormulaError as error:
        return json.dumps({"fault": str(error), "values": isinstance(error, ValueFault)})
    return json.dumps(found._asdict())


def _decided(question: Question) -> Found:
    if question.smtlib is not None:
        reader = Reader(question.smtlib)
        formulas = [reader.read(str(text)) for text in question.formulas]
        if question.denied is not None:
            formulas.append(z3.Not(reader.read(str(question.denied))))
        if question.values is not None:
            formulas += _equations(formulas, dict(question.values))
        return _checked(_solver(formulas, reader.context))
    given = [formula for formula in question.formulas if isinstance(formula, Node)]
    if isinstance(question.denied, Node):
        given.append(Node("~", (question.denied,)))
    read = typed(given)
    if question.domain is not None:
        return _found(read, question.domain)
    if not any(map(is_first_order, read.formulas)):
        return _found(read, None)
    small = _in_domains(read, SMALL)
    if small is not None:
        return small
    found = _found(read, None)
    return found if found.holds is False else _in_domains(read, LARGER) or Found(found.holds, "", found.limit)


def _in_domains(read: Typed, sizes: Sequence[int]) -> Found | None:
    """Return a model in the smallest of these domains that has one; None if no domain is shown to have one."""
    for size in sizes:
        try:
            found = _found(read, size)
        except TooLarge:
            return None
        if found.holds:
            return found
    return None


def _found(read: Typed, domain: Sequence[str] | int | None) -> Found:
    context = z3.Context()
    made = Translation(read, context, domain)
    solver = _solver([*made.assertions, *made.closed], context)
    answer = _checked(solver)
    if not answer.holds:
        return answer
    names = list(domain) if isinstance(domain, Sequence) else [str(at + 1) for at in range(len(made.elements))]
    return Found(True, _shown(solver.model(), read, made, names)[:MAX_SHOWN])


def _solver(formulas: Sequence[z3.BoolRef], context: z3.Context) -> z3.Solver:
    solver = z3.Solver(ctx=context)
    solver.set("rlimit", EFFORT)
    solver.add(*formulas)
    return solver


def _checked(solver: z3.Solver) -> Found:
    answer = solver.check()
    if answer == z3.unknown:
        reason = solver.reason_unknown()
        return Found(None, limit=reason if LIMITED.search(reason) else "")
    return Found(answer == z3.sat)


LIMITED = re.compile(r"cancel|timeout|resource|memory|memout", re.IGNORECASE)
"""Reasons of z3 that mean a limit; other reasons mean that it cannot decide."""


def _shown(model: z3.ModelRef, read: Typed, made: Translation, names: Sequence[str]) -> str:
    """Describe a model: the domain, the constants, where each predicate holds, the values of each function."""

    def value(term: z3.ExprRef) -> str:
        found = model.eval(term, model_completion=True)
        for name, element in zip(names, made.elements, strict=True):
            if found.eq(model.eval(element, model_completion=True)):
                return name
        return str(found).lower()

    lines = [f"domain: {', '.join(names)}"] if names else []
    constants = [name for name, symbol in sorted(read.symbols.items()) if not symbol.args and name not in names]
    lines += [f"{name} = {value(made.constant(name))}" for name in constants]
    for name, symbol in sorted(read.symbols.items()):
        if set(symbol.args) != {OBJECT} or len(names) ** len(symbol.args) > MAX_ROWS:
            continue
        rows = list(itertools.product(range(len(names)), repeat=len(symbol.args)))
        values = [value(made.applied(name, [made.elements[at] for at in row])) for row in rows]
        written = [", ".join(names[at] for at in row) for row in rows]
        if symbol.result == TRUTH:
            true = [f"({row})" for row, said in zip(written, values, strict=True) if said == "true"]
            lines.append(f"{name}: {', '.join(true) or 'of nothing'}")
        else:
            lines += [f"{name}({row}) = {said}" for row, said in zip(written, values, strict=True)]
    return "; ".join(lines)


MAX_ROWS = 40
"""Limit on the reported values of a predicate or function."""


class Reader:
    """A reader of SMT-LIB 2 terms under declarations, in its own z3 context.

    Raises:
        FormulaError: the declarations contain anything else.
    """

    def __init__(self, declarations: str) -> None:
        self.context = z3.Context()
        self._parser = z3.ParserContext(self.context)
        script, self._depths = smtlib.declarations(declarations)
        self._assertions(script, shown=declarations)

    def read(self, text: str) -> z3.BoolRef:
        """Parse one formula.

        Raises:
            FormulaError: the text is not a formula under these declarations.
        """
        (formula,) = self._assertions(f"(assert {smtlib.term(text, self._depths)})", shown=text)
        return formula

    def _assertions(self, script: str, *, shown: str) -> list[z3.BoolRef]:
        try:
            return list(self._parser.from_string(script))
        except z3.Z3Exception as error:
            reason = error.value.decode(errors="replace") if isinstance(error.value, bytes) else str(error.value)
            raise FormulaError(f"{shown.strip()[:60]!r}: {reason.strip()[:200]}") from error


def _equations(formulas: Sequence[z3.BoolRef], values: Mapping[str, str]) -> list[z3.BoolRef]:
    """Return equations that give each free constant of the formulas its value.

    Raises:
        ValueFault: a constant has no value, a value has no constant, or a text is not a value of the constant's sort.
    """
    constants = _constants(formulas)
    missing, extra = sorted(set(constants) - set(values)), sorted(set(values) - set(constants))
    if missing or extra:
        raise ValueFault(
            f"it gives {missing[0]} no value." if missing else f"{extra[0]} is not a name of the formulas."
        )
    return [constant == _value(values[name], constant, name) for name, constant in constants.items()]


def _constants(formulas: Sequence[z3.BoolRef]) -> dict[str, z3.ExprRef]:
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


def _value(text: str, constant: z3.ExprRef, name: str) -> z3.ExprRef:
    plain = text.strip().lower()
    if z3.is_bool(constant):
        if plain not in ("true", "false"):
            raise ValueFault(f"{name} must be true or false; got {text[:40]!r}.")
        return z3.BoolVal(plain == "true", constant.ctx)
    if not re.fullmatch(r"-?\d{1,40}(?:(?:/\d{1,40})|(?:\.\d{1,40}))?", plain):
        raise ValueFault(f"{name} must be a number; got {text[:40]!r}.")
    if z3.is_int(constant) and re.fullmatch(r"-?\d+", plain):
        return z3.IntVal(plain, constant.ctx)
    if z3.is_real(constant):
        return z3.RealVal(plain, constant.ctx)
    if z3.is_bv(constant) and re.fullmatch(r"-?\d+", plain):
        return z3.BitVecVal(int(plain), constant.size(), constant.ctx)
    raise ValueFault(f"{name} cannot be {text[:40]!r}.")


__all__ = ["Reader", "decide"]
