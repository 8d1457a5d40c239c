"""`logic`: is this assignment a model, is this claim entailed, are these formulas equivalent, is this a proof?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from verifiers.answers.final import no_answer
from verifiers.answers.find import extract_answer, strip_thinking
from verifiers.answers.json_schema import last_between, last_fenced, read_json
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadReference
from verifiers.jsonl import is_object
from verifiers.logic.formula import MAX_LENGTH, FormulaError, Node, evaluate, in_form, names_of, parse, size_of
from verifiers.logic.proof import ProofError, check_proof, read_proof
from verifiers.logic.smtlib import term
from verifiers.verdict import JSON, Outcome, Verdict, fixed

if TYPE_CHECKING:
    from z3 import BoolRef

KINDS: Mapping[str, tuple[str, ...]] = {
    "model": ("formulas", "values", "smtlib"),
    "entailment": ("premises", "claim", "smtlib"),
    "equivalence": ("formula", "form", "max_operators", "smtlib"),
    "proof": ("premises", "goal"),
}
FORMS = ("any", "cnf", "dnf", "nnf")
PAIR = re.compile(r"([A-Za-z_][A-Za-z0-9_']*)\s*(?:=|:|\bis\b(?:\s+an?\b)?)\s*([A-Za-z]+|-?\d[\d./]*)")
TRUTHS: Mapping[str, bool] = {"true": True, "t": True, "yes": True, "false": False, "f": False, "no": False}
WORDS: Mapping[str, tuple[str, ...]] = {
    "entailed": ("entailed", "yes", "true", "valid", "it follows", "follows"),
    "contradicted": ("contradicted", "false", "contradiction", "refuted"),
    "unknown": ("unknown", "uncertain", "undetermined", "neither", "cannot be determined"),
    "not entailed": ("no", "not entailed", "invalid", "does not follow", "not valid"),
}


class Logic(Verifier):
    """Checks logic with an evaluator, z3 and a proof checker. The reference is an object of one of these kinds.

    - `{"kind": "model", "formulas": ["p -> q", "x + 1 < y"], "values": {"knight": true}}`: the answer gives every name
      a value that makes all formulas true: `p = true, x = 3`, lines `p: true`, or a JSON object. `values` are words
      that stand for values.
    - `{"kind": "entailment", "premises": [...], "claim": "..."}`: entailed, contradicted or unknown (yes, true, valid;
      false; uncertain). A bare "no" or "invalid" says: not entailed.
    - `{"kind": "equivalence", "formula": "...", "form": "cnf", "max_operators": 9}`: a formula that holds in the same
      models, in a form (any, cnf, dnf, nnf) and of a size; the formula itself is not an answer.
    - `{"kind": "proof", "premises": [...], "goal": "..."}`: a proof in Fitch's style, in the last fenced block or
      `<answer>`, or anywhere in the text: see `verifiers.logic.proof`.

    Formulas are those of `verifiers.logic.formula`; with `"smtlib": "(declare-const x Int)"` (declarations) they are
    SMT-LIB 2 terms, except in proofs.
    """

    name = "logic"
    grade_seconds = 30.0
    reference_schema = {"type": "object", "properties": {"kind": {"enum": [*KINDS]}}, "required": ["kind"]}
    examples = (
        Example(
            completion="The answer is p = true, q = true", reference={"kind": "model", "formulas": ["p -> q", "p"]}
        ),
        Example(
            completion="The answer is p = true, q = false",
            reference={"kind": "model", "formulas": ["p -> q", "p"]},
            outcome=Outcome.INCORRECT,
        ),
        Example(
            completion="The answer is unknown.",
            reference={"kind": "entailment", "premises": ["p -> q", "q"], "claim": "p"},
            prompt="Given p -> q and q: is p entailed, contradicted or unknown?",
        ),
        Example(
            completion="\\boxed{(~p | q) & (~q | p)}",
            reference={"kind": "equivalence", "formula": "p <-> q", "form": "cnf"},
            prompt="Write p <-> q in conjunctive normal form.",
        ),
        Example(
            completion="```\n1. p & q ; premise\n2. q ; &E 1\n```",
            reference={"kind": "proof", "premises": ["p & q"], "goal": "q"},
        ),
        Example(
            completion="```\n1. q ; premise\n```",
            reference={"kind": "proof", "premises": ["p & q"], "goal": "q"},
            outcome=Outcome.INCORRECT,
        ),
    )

    def check_reference(self, reference: JSON) -> None:
        given = _read(reference)
        try:
            match given.kind:
                case "model":
                    _require_satisfiable(given.formulas, given.smtlib)
                case "entailment":
                    _gold_entailment(given.premises, given.claim, given.smtlib)
                case "equivalence":
                    _read_all([given.formula], given.smtlib)
                case _:
                    _premises_and_goal(given.premises, given.goal)
        except FormulaError as error:
            raise _no_formula(error) from error

    def grade(self, row: GradingRow) -> Verdict:
        given = _read(row.reference)
        if given.kind == "proof":
            return _grade_proof(given, row.completion)
        found = extract_answer(row.completion)
        block = _last_block(row.completion) if found is None or "\n" in strip_thinking(row.completion) else None
        if given.kind == "model" and block is not None:
            answer = block
        elif found is not None and found.answer.strip():
            answer = found.answer
        else:
            return no_answer()
        return {"model": _grade_model, "entailment": _grade_entailment, "equivalence": _grade_equivalence}[given.kind](
            given, answer
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A reference; the fields that its kind does not have are empty."""

    kind: str
    formulas: tuple[str, ...]
    values: Mapping[str, JSON]
    premises: tuple[str, ...]
    claim: str
    formula: str
    goal: str
    form: str
    max_operators: int | None
    smtlib: str | None
    """Declarations, under which formulas are SMT-LIB terms; None: formulas are in our own language."""


def _read(reference: JSON) -> Reference:
    given = reference if is_object(reference) else {}
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadReference(
            f"reference must be an object whose kind is one of {', '.join(KINDS)}; got {reference!r:.80}."
        )
    unknown = set(given) - set(KINDS[kind]) - {"kind"}
    if unknown:
        raise BadReference(f"a reference of kind {kind} has {', '.join(KINDS[kind])}; got {min(unknown)!r}.")
    form, values, limit, smtlib = (given.get(key) for key in ("form", "values", "max_operators", "smtlib"))
    read = Reference(
        kind=kind,
        formulas=_texts(given, "formulas") if "formulas" in KINDS[kind] else (),
        values=values if is_object(values) else {},
        premises=_texts(given, "premises") if "premises" in KINDS[kind] else (),
        claim=_text(given, "claim") if "claim" in KINDS[kind] else "",
        formula=_text(given, "formula") if "formula" in KINDS[kind] else "",
        goal=_text(given, "goal") if "goal" in KINDS[kind] else "",
        form=str(given.get("form", "any")),
        max_operators=limit if isinstance(limit, int) else None,
        smtlib=None if smtlib is None else str(smtlib),
    )
    if read.form not in FORMS:
        raise BadReference(f"form must be one of {', '.join(FORMS)}; got {form!r:.80}.")
    return read


def _texts(given: Mapping[str, JSON], key: str) -> tuple[str, ...]:
    value = given.get(key)
    listed = [value] if key == "formulas" and isinstance(value, str) else value
    texts = [text for text in listed if isinstance(text, str)] if isinstance(listed, list) else []
    if not isinstance(listed, list) or len(texts) < len(listed):
        raise BadReference(f"{key} must be a list of formulas; got {value!r:.80}.")
    return tuple(texts)


def _text(given: Mapping[str, JSON], key: str) -> str:
    value = given.get(key)
    if not isinstance(value, str):
        raise BadReference(f"{key} must be a formula; got {value!r:.80}.")
    return value


def _no_formula(error: FormulaError) -> BadReference:
    return BadReference(f"reference holds no formula: {error}")


def _read_all(texts: Sequence[str], smtlib: str | None) -> list[BoolRef]:
    """Formulas of one question to z3."""
    from verifiers.logic.solver import Reader

    reader = Reader(smtlib)
    return [reader.read(text) for text in texts]


@lru_cache(maxsize=256)
def _require_satisfiable(formulas: tuple[str, ...], smtlib: str | None) -> None:
    from verifiers.logic.solver import satisfiable

    if not satisfiable(_read_all(formulas, smtlib)):
        raise BadReference("formulas must have a model; together they have none.")


@lru_cache(maxsize=4096)
def _gold_entailment(premises: tuple[str, ...], claim: str, smtlib: str | None) -> str:
    from verifiers.logic.solver import contradicts, entails, satisfiable

    *read, claimed = _read_all([*premises, claim], smtlib)
    if not satisfiable(read):
        raise BadReference("premises must be able to hold together; they contradict each other.")
    if entails(read, claimed):
        return "entailed"
    return "contradicted" if contradicts(read, claimed) else "unknown"


@lru_cache(maxsize=256)
def _premises_and_goal(premises: tuple[str, ...], goal: str) -> tuple[tuple[Node, ...], Node]:
    return tuple(map(parse, premises)), parse(goal)


def _grade_model(given: Reference, answer: str) -> Verdict:
    shown = answer[:500]
    try:
        assignment = read_assignment(answer)
        if given.smtlib is not None:
            return _grade_smt_model(given, assignment, shown)
        formulas = _gold_formulas(given)
        sorts = {name: sort for formula in formulas for name, sort in names_of(formula).items()}
        values = _typed(assignment, sorts, given.values)
    except FormulaError as error:
        return fixed(Outcome.INCORRECT, f"no assignment: {error}", answer=shown)
    for formula in formulas:
        if not evaluate(formula, values):
            return fixed(Outcome.INCORRECT, f"{str(formula)[:200]} does not hold", answer=shown)
    return fixed(Outcome.CORRECT, "every formula holds", answer=shown)


def _gold_formulas(given: Reference) -> list[Node]:
    try:
        return [parse(text) for text in given.formulas]
    except FormulaError as error:
        raise _no_formula(error) from error


def _grade_smt_model(given: Reference, assignment: Mapping[str, str], shown: str) -> Verdict:
    from verifiers.logic.solver import constants_of, holds_under

    try:
        formulas = _read_all(given.formulas, given.smtlib)
    except FormulaError as error:
        raise _no_formula(error) from error
    _same_names(assignment, constants_of(formulas))
    if holds_under(formulas, assignment):
        return fixed(Outcome.CORRECT, "every formula holds", answer=shown)
    return fixed(Outcome.INCORRECT, "some formula does not hold", answer=shown)


def read_assignment(answer: str) -> dict[str, str]:
    """`p = true, x = 3`, lines `p: true` or a JSON object, as name -> value.

    Raises:
        FormulaError: anything else is in the text, or a name has two values.

    Example:
        >>> read_assignment("p = true, x: 3 and Ann is a knight")
        {'p': 'true', 'x': '3', 'Ann': 'knight'}
    """
    if len(answer) > MAX_LENGTH:
        raise FormulaError(f"an assignment may have {MAX_LENGTH} characters; this one has {len(answer)}.")
    if answer.strip().startswith("{") and '"' in answer:
        try:
            found = read_json(answer)
        except ValueError as error:
            raise FormulaError(f"not JSON: {error}.") from error
        if not is_object(found):
            raise FormulaError("it is no JSON object.")
        return {name: str(value).lower() for name, value in found.items()}
    values: dict[str, str] = {}
    for name, value in PAIR.findall(answer):
        if values.setdefault(name, value) != value:
            raise FormulaError(f"{name} has two values.")
    rest = re.sub(r"\band\b|[\s,;.{}()\[\]$*\\&-]", "", PAIR.sub(" ", answer))
    if rest:
        raise FormulaError(f"{rest[:40]!r} is no `name = value`.")
    if not values:
        raise FormulaError("it gives no name a value.")
    return values


def _typed(
    assignment: Mapping[str, str], sorts: Mapping[str, type], words: Mapping[str, JSON]
) -> dict[str, bool | int]:
    """Values of the sorts that the formulas want; names may differ in case where that is unambiguous."""
    folded = {name.lower(): name for name in sorts}
    unambiguous = len(folded) == len(sorts)
    named = {folded.get(name.lower(), name) if unambiguous else name: value for name, value in assignment.items()}
    if len(named) < len(assignment):
        raise FormulaError("it gives a name two values.")
    _same_names(named, sorts)
    meant = {word.lower(): value for word, value in words.items()}
    values: dict[str, bool | int] = {}
    for name, sort in sorts.items():
        text = named[name].lower()
        value = meant.get(text)
        if isinstance(value, int) and isinstance(value, sort):
            values[name] = value
        elif sort is bool and text in TRUTHS:
            values[name] = TRUTHS[text]
        elif sort is int and re.fullmatch(r"-?\d{1,15}", text):
            values[name] = int(text)
        else:
            what = "a truth value" if sort is bool else "a whole number"
            raise FormulaError(f"{name} must be {what}; got {named[name][:40]!r}.")
    return values


def _same_names(assignment: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    missing, extra = sorted(set(wanted) - set(assignment)), sorted(set(assignment) - set(wanted))
    if missing or extra:
        raise FormulaError(f"it says nothing of {missing[0]}." if missing else f"{extra[0]} is not asked for.")


def _grade_entailment(given: Reference, answer: str) -> Verdict:
    plain = " ".join(re.sub(r"[*$.`\"'()]", " ", answer).lower().split())
    claimed = next((meaning for meaning, words in WORDS.items() if plain in words), None)
    if claimed is None:
        return fixed(
            Outcome.INCORRECT, f"{answer[:60]!r} must be entailed, contradicted or unknown", answer=answer[:200]
        )
    try:
        gold = _gold_entailment(given.premises, given.claim, given.smtlib)
    except FormulaError as error:
        raise _no_formula(error) from error
    right = claimed == gold or (claimed == "not entailed" and gold != "entailed")
    return fixed(Outcome.CORRECT if right else Outcome.INCORRECT, f"the claim is {gold}", answer=claimed)


def _grade_equivalence(given: Reference, answer: str) -> Verdict:
    from verifiers.logic.solver import Reader, SolverGaveUp, equivalent

    shown = answer[:500]
    try:
        reader = Reader(given.smtlib)
        wanted = reader.read(given.formula)
    except FormulaError as error:
        raise _no_formula(error) from error
    try:
        fault = _fault_of_form(given, answer)
        if fault:
            return fixed(Outcome.INCORRECT, fault, answer=shown)
        same = equivalent(wanted, reader.read(answer))
    except FormulaError as error:
        return fixed(Outcome.INCORRECT, f"no formula: {error}", answer=shown)
    except SolverGaveUp as error:  # the given formula is trivially equivalent to itself: the answer is what is hard
        return fixed(Outcome.LIMIT_EXCEEDED, f"the answer is too hard to compare: {error}", answer=shown)
    return fixed(
        Outcome.CORRECT if same else Outcome.INCORRECT, "equivalent" if same else "not equivalent", answer=shown
    )


def _fault_of_form(given: Reference, answer: str) -> str:
    if given.smtlib is not None:
        same = term(answer) == term(given.formula)
        return "it is the given formula" if same else ""
    formula, form, limit = parse(answer), given.form, given.max_operators
    if form != "any" and not in_form(formula, form):
        return f"it is not in {form}"
    if limit is not None and size_of(formula) > limit:
        return f"it has {size_of(formula)} operators, more than {limit}"
    if form == "any" and limit is None and formula == parse(given.formula):
        return "it is the given formula"
    return ""


def _grade_proof(given: Reference, completion: str) -> Verdict:
    try:
        premises, goal = _premises_and_goal(given.premises, given.goal)
    except FormulaError as error:
        raise _no_formula(error) from error
    text = _last_block(completion) or strip_thinking(completion)
    if len(text) > 50 * MAX_LENGTH:
        return fixed(Outcome.LIMIT_EXCEEDED, f"a proof may have {50 * MAX_LENGTH} characters; it has {len(text)}")
    try:
        steps = read_proof(text)
        if not steps:
            return fixed(Outcome.NO_ANSWER, "the completion holds no numbered line of a proof")
        check_proof(steps, premises=premises, goal=goal)
    except ProofError as error:
        return fixed(Outcome.INCORRECT, str(error), answer=text.strip()[:500])
    return fixed(Outcome.CORRECT, f"a proof in {len(steps)} lines", answer=text.strip()[:500])


def _last_block(completion: str) -> str | None:
    visible = strip_thinking(completion)
    tagged = last_between(visible, "<answer>", "</answer>")
    return tagged.strip() if tagged is not None else last_fenced(visible)
