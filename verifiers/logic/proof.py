"""A checker of proofs in Fitch style (natural deduction), one step per line, with quantifiers and equality.

    1. p -> q        ; premise
    2. | p           ; assume
    3. | q           ; ->E 1, 2
    4. p -> q        ; ->I 2-3

Bars open subproofs; `;`, `[...]` or `by` precedes the rule. RULES lists the rules and what they cite. Every name that
no quantifier binds is a constant. `∀I` cites a line about an arbitrary name: one that no premise or open assumption
has. `∃E` cites a line with `∃` and a subproof that assumes its instance for such a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from verifiers.logic.formula import FALSE, QUANTIFIERS, FormulaError, Node, nodes_of
from verifiers.logic.reading import parse

MAX_LINES = 2000
_NUMBERED = r"^\s*(\d{1,6})\s*[.:)]\s*((?:[|│]\s*)*)(.+?)\s*"
LINE = re.compile(_NUMBERED + r"\[?\s*(?:;|\bby\b|//)\s*(.+?)\s*\]?\s*$")
BRACKETED = re.compile(_NUMBERED + r"\[\s*([^\[\]]+?)\s*\]?\s*$")
CITED = re.compile(r"(\d{1,6})\s*(?:[-–]\s*(\d{1,6}))?")


class ProofError(ValueError):
    """An error for a line that does not follow; the message names the line."""


class Subproof(NamedTuple):
    """A closed subproof: its assumption and its last formula."""

    assumed: Node
    last: Node


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a proof as written."""

    number: int
    depth: int
    formula: Node
    rule: str
    cited: tuple[tuple[int, int | None], ...]
    """Cited lines as (number, None), and subproofs as (first, last)."""


def read_proof(text: str) -> list[Step]:
    """Parse the steps of a proof; blank lines and lines without a number are skipped.

    Raises:
        ProofError: a numbered line cannot be parsed, or there are more than MAX_LINES.
    """
    steps: list[Step] = []
    for line in text.splitlines():
        if not re.match(r"\s*\d{1,6}\s*[.:)]", line):
            continue
        if len(steps) >= MAX_LINES:
            raise ProofError(f"a proof may have at most {MAX_LINES} lines.")
        found = LINE.match(line) or BRACKETED.match(line)
        if found is None:
            raise ProofError(f"line {line.strip()[:60]!r} must be: NUMBER. FORMULA ; RULE LINES.")
        number, bars, formula, reason = found.groups()
        rule, cited = _reason(reason)
        try:
            node = parse(formula, close=False)
        except FormulaError as error:
            raise ProofError(f"line {number}: {formula[:60]!r} is not a formula: {error}") from error
        depth = bars.count("|") + bars.count("│")
        steps.append(Step(int(number), depth, node, rule, cited))
    return steps


def _reason(text: str) -> tuple[str, tuple[tuple[int, int | None], ...]]:
    found = re.search(r"\d", text)
    name = text[: found.start()] if found else text
    cites = text[found.start() :] if found else ""
    cited = tuple((int(a), int(b) if b else None) for a, b in CITED.findall(cites))
    key = name.strip().strip(",:()").strip().lower().replace(" ", "")
    return SYNONYMS.get(key, key), cited


def check_proof(steps: Sequence[Step], *, premises: Sequence[Node], goal: Node) -> None:
    """Check every step of a proof, and that its last line is the goal.

    Raises:
        ProofError: at the first line that does not follow, or if the last line is not the goal outside every subproof.
    """
    if not steps:
        raise ProofError("there is no line.")
    proof = _Proof(premises)
    for step in steps:
        proof.add(step)
    last = steps[-1]
    if last.depth or last.formula != goal:
        raise ProofError(f"the last line must be the goal, outside every subproof; it is {str(last.formula)[:80]}.")


class _Proof:
    def __init__(self, premises: Sequence[Node]) -> None:
        self._premises = premises
        self._fixed = {name for premise in premises for name in _names(premise)}
        """Names that appear in premises."""
        self._lines: dict[int, tuple[Node, tuple[int, ...]]] = {}
        """Number -> formula, and the numbers of its open assumptions."""
        self._ends: dict[int, int] = {}
        """First line of a subproof -> its last."""
        self._scope: tuple[int, ...] = ()

    def add(self, step: Step) -> None:
        if step.number in self._lines or (self._lines and step.number < max(self._lines)):
            raise ProofError(f"line {step.number}: numbers must rise.")
        if step.rule == "assume":
            if step.depth < 1 or step.depth > len(self._scope) + 1:
                raise ProofError(f"line {step.number}: an assumption opens a subproof, with one bar more.")
            self._scope = (*self._scope[: step.depth - 1], step.number)
        elif step.depth > len(self._scope):
            raise ProofError(f"line {step.number}: a subproof must open with an assumption.")
        else:
            self._scope = self._scope[: step.depth]
            if not self._follows(step):
                raise ProofError(f"line {step.number}: {str(step.formula)[:80]} does not follow by {step.rule}.")
        self._lines[step.number] = (step.formula, self._scope)
        if self._scope:
            self._ends[self._scope[-1]] = step.number

    def _follows(self, step: Step) -> bool:
        if step.rule == "premise":
            return step.formula in self._premises
        if step.rule not in RULES:
            raise ProofError(f"line {step.number}: no rule {step.rule!r}; known: premise, assume, {', '.join(RULES)}.")
        lines: list[Node] = []
        subproofs: list[Subproof] = []
        for first, last in step.cited:
            if last is None:
                lines.append(self._line(step, first))
            else:
                subproofs.append(self._subproof(step, first, last))
        rule: Rule = RULES[step.rule]
        if (len(lines), len(subproofs)) != (rule.lines, rule.subproofs):
            raise ProofError(f"line {step.number}: {step.rule} cites {rule.lines} lines, {rule.subproofs} subproofs.")
        if not rule.follows(step.formula, lines, subproofs):
            return False
        if rule.arbitrary is not None:
            self._check_arbitrary(step, *rule.arbitrary(step.formula, lines, subproofs))
        return True

    def _check_arbitrary(self, step: Step, term: Node | None, apart_from: Sequence[Node]) -> None:
        """Check that a term is an arbitrary name: no premise, open assumption or formula of `apart_from` has it.

        Raises:
            ProofError: it is not.
        """
        if term is None:
            return
        assumed = {name for number in self._scope for name in _names(self._lines[number][0])}
        named = {name for formula in apart_from for name in _names(formula)}
        if term.kind != "name" or str(term.value) in self._fixed | assumed | named:
            raise ProofError(
                f"line {step.number}: {step.rule} needs a name that no premise, open assumption or result has;"
                f" got {term}."
            )

    def _line(self, step: Step, number: int) -> Node:
        formula, scope = self._lines.get(number, (FALSE, (-1,)))
        if scope != self._scope[: len(scope)]:
            raise ProofError(f"line {step.number}: line {number} cannot be cited from here.")
        return formula

    def _subproof(self, step: Step, first: int, last: int) -> Subproof:
        assumed, scope = self._lines.get(first, (FALSE, ()))
        closed = bool(scope) and scope[-1] == first and first not in self._scope
        reachable = scope[:-1] == self._scope[: len(scope) - 1] if scope else False
        ended = self._ends.get(first) == last and self._lines.get(last, (FALSE, ()))[1] == scope
        if not (closed and reachable and ended):
            raise ProofError(
                f"line {step.number}: {first}-{last} is not a closed subproof that can be cited from here."
            )
        return Subproof(assumed, self._lines[last][0])


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of inference: how many lines and subproofs it cites, and its test."""

    lines: int
    subproofs: int
    follows: Callable[[Node, list[Node], list[Subproof]], bool]
    arbitrary: Callable[[Node, list[Node], list[Subproof]], tuple[Node | None, Sequence[Node]]] | None = None
    """Returns the term that must be arbitrary (None: none), and formulas that must not name it."""


def _names(formula: Node) -> set[str]:
    return {str(node.value) for node in nodes_of(formula) if node.kind == "name"}


class _NoMatch(Exception):
    """Raised if a formula is not an instance of another."""


def _instantiated(quantified: Node, one: Node) -> bool:
    """Return True if a formula is an instance of a quantified one."""
    try:
        _term_of(quantified.args[0], one)
    except _NoMatch:
        return False
    return True


def _term_of(body: Node, one: Node) -> Node | None:
    """Return the term that replaces the bound variable of `body` in its instance `one`.

    None if `body` does not have that variable.

    Raises:
        _NoMatch: the formula is not an instance.
    """
    found: Node | None = None
    pairs = [(body, one, 0)]
    while pairs:
        left, right, level = pairs.pop()
        if left.kind == "bound" and left.value == level:
            if found not in (None, right) or any(node.kind == "bound" for node in nodes_of(right)):
                raise _NoMatch
            found = right
            continue
        if (left.kind, left.value, len(left.args)) != (right.kind, right.value, len(right.args)):
            raise _NoMatch
        inner = level + (left.kind in QUANTIFIERS)
        pairs += [(a, b, inner) for a, b in zip(left.args, right.args, strict=True)]
    return found


def _replaced(equation: Node, before: Node, after: Node) -> bool:
    """Return True if `after` is `before` with some occurrences of one side of the equation replaced by the other."""
    if equation.kind != "=":
        return False
    pairs = [(before, after)]
    while pairs:
        left, right = pairs.pop()
        if left == right or {left, right} == set(equation.args):
            continue
        if (left.kind, left.value, len(left.args)) != (right.kind, right.value, len(right.args)):
            return False
        pairs += zip(left.args, right.args, strict=True)
    return True


def _witnessed(formula: Node, lines: list[Node], subproofs: list[Subproof]) -> bool:
    (some,), (proof,) = lines, subproofs
    return some.kind == "exists" and proof.last == formula and _instantiated(some, proof.assumed)


DUAL: Mapping[str, str] = {"forall": "exists", "exists": "forall"}


def _moved_in(before: Node, after: Node) -> bool:
    """Return True if `~∀x P(x)` became `∃x ~P(x)`, or `~∃x P(x)` became `∀x ~P(x)`."""
    if before.kind != "~" or before.args[0].kind not in DUAL:
        return False
    inner = before.args[0]
    return after == Node(DUAL[inner.kind], (_not(inner.args[0]),))


def _not(node: Node) -> Node:
    return Node("~", (node,))


def _either_order(pair: Sequence[Node], test: Callable[[Node, Node], bool]) -> bool:
    return test(pair[0], pair[1]) or test(pair[1], pair[0])


def _cases(formula: Node, lines: list[Node], subproofs: list[Subproof]) -> bool:
    (either,) = lines
    assumed = {proof.assumed for proof in subproofs}
    return either.kind == "|" and assumed == set(either.args) and all(proof.last == formula for proof in subproofs)


def _both_ways(formula: Node, lines: list[Node], subproofs: list[Subproof]) -> bool:
    if formula.kind != "<->":
        return False
    a, b = formula.args
    return {(proof.assumed, proof.last) for proof in subproofs} == {(a, b), (b, a)}


def _chain(formula: Node, a: Node, b: Node) -> bool:
    return a.kind == b.kind == "->" and a.args[1] == b.args[0] and formula == Node("->", (a.args[0], b.args[1]))


RULES: Mapping[str, Rule] = {
    "r": Rule(1, 0, lambda f, x, _: f == x[0]),
    "&i": Rule(2, 0, lambda f, x, _: f.kind == "&" and _either_order(x, lambda a, b: f.args == (a, b))),
    "&e": Rule(1, 0, lambda f, x, _: x[0].kind == "&" and f in x[0].args),
    "|i": Rule(1, 0, lambda f, x, _: f.kind == "|" and x[0] in f.args),
    "|e": Rule(1, 2, _cases),
    "->i": Rule(0, 1, lambda f, _, p: f == Node("->", (p[0].assumed, p[0].last))),
    "->e": Rule(2, 0, lambda f, x, _: _either_order(x, lambda a, b: a == Node("->", (b, f)))),
    "<->i": Rule(0, 2, _both_ways),
    "<->e": Rule(2, 0, lambda f, x, _: _either_order(x, lambda a, b: a.kind == "<->" and set(a.args) == {b, f})),
    "~i": Rule(0, 1, lambda f, _, p: f == _not(p[0].assumed) and p[0].last == FALSE),
    "~e": Rule(2, 0, lambda f, x, _: f == FALSE and _either_order(x, lambda a, b: a == _not(b))),
    "ip": Rule(0, 1, lambda f, _, p: p[0].assumed == _not(f) and p[0].last == FALSE),
    "x": Rule(1, 0, lambda f, x, _: x[0] == FALSE),
    "dn": Rule(1, 0, lambda f, x, _: x[0] == _not(_not(f)) or f == _not(_not(x[0]))),
    "mt": Rule(
        2,
        0,
        lambda f, x, _: _either_order(x, lambda a, b: a.kind == "->" and (_not(a.args[1]), f) == (b, _not(a.args[0]))),
    ),
    "ds": Rule(
        2, 0, lambda f, x, _: _either_order(x, lambda a, b: a.kind == "|" and f in a.args and _other(a, f) == b)
    ),
    "hs": Rule(2, 0, lambda f, x, _: _either_order(x, lambda a, b: _chain(f, a, b))),
    "∀e": Rule(1, 0, lambda f, x, _: x[0].kind == "forall" and _instantiated(x[0], f)),
    "∀i": Rule(
        1,
        0,
        lambda f, x, _: f.kind == "forall" and _instantiated(f, x[0]),
        lambda f, x, _: (_term_of(f.args[0], x[0]), [f]),
    ),
    "∃i": Rule(1, 0, lambda f, x, _: f.kind == "exists" and _instantiated(f, x[0])),
    "∃e": Rule(1, 1, _witnessed, lambda f, x, p: (_term_of(x[0].args[0], p[0].assumed), [f, x[0]])),
    "=i": Rule(0, 0, lambda f, _, __: f.kind == "=" and f.args[0] == f.args[1]),
    "=e": Rule(2, 0, lambda f, x, _: _either_order(x, lambda a, b: _replaced(a, b, f))),
    "qn": Rule(1, 0, lambda f, x, _: _moved_in(x[0], f) or _moved_in(f, x[0])),
    "lem": Rule(0, 0, lambda f, _, __: f.kind == "|" and _either_order(f.args, lambda a, b: a == _not(b))),
}
"""Name -> numbers of lines and subproofs that the rule cites, and the test that a formula follows from them."""


def _other(either: Node, one: Node) -> Node:
    """Return the negation of the other side of `a | b`."""
    a, b = either.args
    return _not(b if a == one else a)


SYNONYMS: Mapping[str, str] = {
    "assumption": "assume", "hypothesis": "assume", "given": "premise", "pr": "premise", "reiterate": "r",
    "reiteration": "r", "∧i": "&i", "∧e": "&e", "∨i": "|i", "∨e": "|e", "→i": "->i", "→e": "->e", "↔i": "<->i",
    "↔e": "<->e", "¬i": "~i", "¬e": "~e", "mp": "->e", "modusponens": "->e", "modustollens": "mt", "raa": "ip",
    "⊥e": "x", "explosion": "x", "dne": "dn", "dni": "dn", "disjunctivesyllogism": "ds", "hypotheticalsyllogism": "hs",
    "foralle": "∀e", "alle": "∀e", "ui": "∀e", "universalinstantiation": "∀e", "foralli": "∀i", "alli": "∀i",
    "ug": "∀i", "universalgeneralization": "∀i", "existsi": "∃i", "eg": "∃i", "existentialgeneralization": "∃i",
    "existse": "∃e", "reflexivity": "=i", "substitution": "=e", "leibniz": "=e", "quantifiernegation": "qn",
    "andi": "&i", "ande": "&e", "ori": "|i", "ore": "|e", "cases": "|e", "noti": "~i", "note": "~e",
}  # fmt: skip
