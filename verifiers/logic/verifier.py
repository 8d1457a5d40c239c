"""`logic`: checks models, entailment, equivalence and translation of formulas, and proofs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from verifiers.answers.final import no_answer
from verifiers.answers.find import extract_answer, strip_thinking
from verifiers.answers.json_schema import last_between, last_fenced
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadReference
from verifiers.logic.assignment import read_assignment, sorts_of, values_of
from verifiers.logic.entailment import Label, Undecided, consistency, entailment, formulas_of
from verifiers.logic.formula import FormulaError, Node, evaluate, in_form, size_of
from verifiers.logic.notation import MAX_LENGTH
from verifiers.logic.proof import ProofError, check_proof, read_proof
from verifiers.logic.question import Found, Question, ValueFault, ask
from verifiers.logic.reading import parse
from verifiers.logic.reference import KINDS, NOT_ENTAILED, WORDS, Reference, label_in, no_formula, read_reference
from verifiers.logic.signature import renamed, typed
from verifiers.verdict import JSON, Outcome, Verdict, fixed


class Logic(Verifier):
    """Checks logic with an evaluator, z3 and a proof checker. The reference is an object of one of these kinds.

    - `{"kind": "model", "formulas": ["p -> q", "x + 1 < y"], "values": {"knight": true}}`: the answer gives every name
      a value so that all formulas are true: `p = true, x = 3`, lines `p: true`, or a JSON object. `values` are further
      words for values.
    - `{"kind": "entailment", "premises": [...], "claim": "...", "label": "Uncertain"}`: entailed, contradicted or
      unknown (true, false, uncertain; yes, valid). A bare "no" or "invalid" means: not entailed. `label` may be given
      without formulas; with formulas it must be what z3 finds, and is used if z3 cannot decide.
    - `{"kind": "consistency", "formulas": [...]}`: consistent or inconsistent.
    - `{"kind": "equivalence", "formula": "...", "form": "cnf", "max_operators": 9}`: a formula that holds in the same
      models, in a normal form (any, cnf, dnf, nnf, pnf) and of a limited size; the formula itself is not accepted.
    - `{"kind": "translation", "formula": "..."}`: the same, but the formula itself is accepted too. Names may differ
      from the reference's in case.
    - `{"kind": "proof", "premises": [...], "goal": "..."}`: a proof in Fitch style, in the last fenced block or
      `<answer>`, or anywhere in the text: see `verifiers.logic.proof`.

    Formulas are those of `verifiers.logic.reading`, first-order ones included. With `"domain": ["a", "b"]` these are
    all existing objects, and they differ. With `"smtlib": "(declare-const x Int)"` (declarations) formulas are SMT-LIB
    2 terms, except in proofs.
    """

    name = "logic"
    version = "3"
    grade_seconds = 90.0
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
            completion="Rex may be another's. The answer is Uncertain.",
            reference={
                "kind": "entailment",
                "premises": ["∀x (Dog(x) → ∃y Owns(y, x))", "Dog(rex)"],
                "claim": "Owns(ann, rex)",
            },
        ),
        Example(
            completion="<answer>all x (dog(x) -> animal(x)).</answer>",
            reference={"kind": "translation", "formula": "¬∃x (Dog(x) ∧ ¬Animal(x))"},
            prompt="Write in first-order logic: no dog is no animal.",
        ),
        Example(
            completion="<answer>∀x (Animal(x) → Dog(x))</answer>",
            reference={"kind": "translation", "formula": "¬∃x (Dog(x) ∧ ¬Animal(x))"},
            outcome=Outcome.INCORRECT,
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
        given = read_reference(reference)
        try:
            match given.kind:
                case "model":
                    _require_model(given.formulas, given.smtlib)
                case "entailment" | "consistency":
                    _correct_label(given)
                case "equivalence" | "translation":
                    _read_formula(given)
                case _:
                    _premises_and_goal(given.premises, given.goal)
        except FormulaError as error:
            raise no_formula(error) from error

    def grade(self, row: GradingRow) -> Verdict:
        given = read_reference(row.reference)
        if given.kind == "proof":
            return _grade_proof(given, row.completion)
        found = extract_answer(row.completion)
        block = _last_block(row.completion) if found is None or "\n" in strip_thinking(row.completion) else None
        if given.kind not in WORDS and block is not None:
            answer = block
        elif found is not None and found.answer.strip():
            answer = found.answer
        else:
            answer = _undeclared(given.kind, strip_thinking(row.completion).strip())
            if answer is None:
                return no_answer()
        return GRADE[given.kind](given, answer)


def _limited(found: Found, what: str, shown: str) -> Verdict:
    """Return the verdict on an answer that z3 could not decide: incorrect, or limit exceeded."""
    if found.limit:
        return fixed(Outcome.LIMIT_EXCEEDED, f"{what}: {found.limit}", answer=shown, tier="limit")
    return fixed(Outcome.INCORRECT, f"{what}: z3 cannot tell", answer=shown, tier="undecided")


@lru_cache(maxsize=256)
def _require_model(formulas: tuple[str, ...], smtlib: str | None) -> None:
    read = formulas_of(formulas, None, smtlib)
    if smtlib is None:
        sorts_of([formula for formula in read if isinstance(formula, Node)])
    found = ask(Question(read, None, None, smtlib)) if read else Found(True)
    if found.holds is None:
        raise BadReference(f"formulas must be decidable; z3 gives up: {found.limit or 'it cannot tell'}.")
    if not found.holds:
        raise BadReference("formulas must have a model; together they have none.")


def _correct_label(given: Reference) -> Label:
    """Return the correct label of a reference, with models that refute others.

    Raises:
        BadReference: z3 finds another label than the reference has, or none, or the premises contradict each other.
        FormulaError: a formula cannot be parsed.
    """
    if given.label is not None and given.claim is None and not given.formulas:
        return Label(given.label)
    find = _labelled(given.kind, given.premises, given.claim, given.formulas, given.domain, given.smtlib)
    if isinstance(find, Undecided):
        if given.label is None:
            raise BadReference(f"{find.why} Give its label together with the formulas, if it is known.")
        return Label(given.label)
    if given.label not in (None, find.label):
        raise BadReference(f"label must be what follows from the formulas, {find.label}; got {given.label}.")
    return find


@lru_cache(maxsize=4096)
def _labelled(
    kind: str,
    premises: tuple[str, ...],
    claim: str | None,
    formulas: tuple[str, ...],
    domain: tuple[str, ...] | None,
    smtlib: str | None,
) -> Label | Undecided:
    if kind == "consistency":
        return consistency(formulas_of(formulas, domain, smtlib), domain, smtlib)
    *read, claimed = formulas_of((*premises, claim or ""), domain, smtlib)
    return entailment(read, claimed, domain, smtlib)


def _grade_label(given: Reference, answer: str) -> Verdict:
    claimed = label_in(given.kind, answer)
    if claimed is None:
        labels = [label for label in WORDS[given.kind] if label != NOT_ENTAILED]
        wanted = f"{', '.join(labels[:-1])} or {labels[-1]}"
        return fixed(Outcome.INCORRECT, f"{answer[:60]!r} must be {wanted}", answer=answer[:200])
    try:
        gold = _correct_label(given)
    except FormulaError as error:
        raise no_formula(error) from error
    what = "the claim is" if given.kind == "entailment" else "they are"
    if claimed == gold.label or (claimed == NOT_ENTAILED and gold.label != "entailed"):
        return fixed(Outcome.CORRECT, f"{what} {gold.label}", answer=claimed)
    shown: dict[str, JSON] = {"countermodel": gold.against[claimed]} if gold.against.get(claimed) else {}
    return fixed(Outcome.INCORRECT, f"{what} {gold.label}", answer=claimed, **shown)


@lru_cache(maxsize=256)
def _premises_and_goal(premises: tuple[str, ...], goal: str) -> tuple[tuple[Node, ...], Node]:
    read = tuple(parse(text, close=False) for text in (*premises, goal))
    typed(read)
    return read[:-1], read[-1]


def _grade_model(given: Reference, answer: str) -> Verdict:
    shown = answer[:500]
    formulas, sorts = _reference_formulas(given.formulas) if given.smtlib is None else ([], {})
    try:
        assignment = read_assignment(answer)
        if given.smtlib is not None:
            return _grade_smt_model(given, assignment, shown)
        values = values_of(assignment, sorts, given.values)
    except FormulaError as error:
        return fixed(Outcome.INCORRECT, f"no assignment: {error}", answer=shown)
    for formula in formulas:
        if not evaluate(formula, values):
            return fixed(Outcome.INCORRECT, f"{str(formula)[:200]} does not hold", answer=shown)
    return fixed(Outcome.CORRECT, "every formula holds", answer=shown)


@lru_cache(maxsize=256)
def _reference_formulas(texts: tuple[str, ...]) -> tuple[list[Node], dict[str, type]]:
    try:
        formulas = [parse(text) for text in texts]
        return formulas, sorts_of(formulas)
    except FormulaError as error:
        raise no_formula(error) from error


def _grade_smt_model(given: Reference, assignment: Mapping[str, str], shown: str) -> Verdict:
    try:
        found = ask(Question(given.formulas, None, None, given.smtlib, tuple(assignment.items())))
    except ValueFault:
        raise
    except FormulaError as error:
        raise no_formula(error) from error
    if found.holds is None:
        return _limited(found, "these values are too hard to check", shown)
    if found.holds:
        return fixed(Outcome.CORRECT, "every formula holds", answer=shown)
    return fixed(Outcome.INCORRECT, "some formula does not hold", answer=shown)


def _read_formula(given: Reference) -> Node | str:
    (read,) = formulas_of((given.formula,), given.domain, given.smtlib)
    if given.smtlib is not None or given.domain is not None:
        found = ask(Question((read,), None, given.domain, given.smtlib))  # are its names declared?
        if found.holds is None and given.domain is not None:
            raise FormulaError(found.limit)
    return read


def _grade_equivalence(given: Reference, answer: str) -> Verdict:
    shown = answer[:500]
    try:
        wanted = _read_formula(given)
    except FormulaError as error:
        raise no_formula(error) from error
    try:
        (read,) = formulas_of((answer,), given.domain, given.smtlib)
        if isinstance(read, Node) and isinstance(wanted, Node):
            read = renamed(read, [wanted])
            typed([wanted, read])
        fault = _fault_of_form(given, wanted, read) if given.kind == "equivalence" else ""
        if fault:
            return fixed(Outcome.INCORRECT, fault, answer=shown)
        return _compared(given, wanted, read, shown)
    except FormulaError as error:
        return fixed(Outcome.INCORRECT, f"no formula: {error}", answer=shown)


def _compared(given: Reference, wanted: Node | str, read: Node | str, shown: str) -> Verdict:
    if wanted == read:
        return fixed(Outcome.CORRECT, "the same formula", answer=shown)
    open_question: Found | None = None
    for left, right, name in ((wanted, read, "given formula"), (read, wanted, "answer")):
        found = ask(Question((left,), right, given.domain, given.smtlib))
        if found.holds:
            model: dict[str, JSON] = {"countermodel": found.model} if found.model else {}
            return fixed(Outcome.INCORRECT, f"not equivalent: the {name} alone may hold", answer=shown, **model)
        if found.holds is None:
            open_question = found if open_question is None or found.limit else open_question
    if open_question is not None:
        return _limited(open_question, "the answer is too hard to compare", shown)
    return fixed(Outcome.CORRECT, "equivalent", answer=shown)


def _fault_of_form(given: Reference, wanted: Node | str, read: Node | str) -> str:
    form, limit = given.form, given.max_operators
    if not isinstance(read, Node):
        return "it is the given formula" if read == wanted else ""
    if form != "any" and not in_form(read, form):
        return f"it is not in {form}"
    if limit is not None and size_of(read) > limit:
        return f"it has {size_of(read)} operators, more than {limit}"
    if form == "any" and limit is None and read == wanted:
        return "it is the given formula"
    return ""


def _grade_proof(given: Reference, completion: str) -> Verdict:
    try:
        premises, goal = _premises_and_goal(given.premises, given.goal)
    except FormulaError as error:
        raise no_formula(error) from error
    text = _last_block(completion) or strip_thinking(completion)
    if len(text) > 50 * MAX_LENGTH:
        return fixed(Outcome.LIMIT_EXCEEDED, f"a proof may have {50 * MAX_LENGTH} characters; it has {len(text)}")
    try:
        steps = read_proof(text)
        if not steps:
            return fixed(Outcome.NO_ANSWER, "the completion has no numbered line of a proof")
        check_proof(steps, premises=premises, goal=goal)
    except ProofError as error:
        return fixed(Outcome.INCORRECT, str(error), answer=text.strip()[:500])
    return fixed(Outcome.CORRECT, f"a proof in {len(steps)} lines", answer=text.strip()[:500])


def _last_block(completion: str) -> str | None:
    visible = strip_thinking(completion)
    tagged = last_between(visible, "<answer>", "</answer>")
    return tagged.strip() if tagged is not None else last_fenced(visible)


STATED = re.compile(
    r"(?:^|[.!?]\s+|\n)(?:(?:so|thus|hence|therefore),? )?(?:the|these) "
    r"(?:formulas?|premises|statements|claim|conclusion) (?:is|are) ([\w ]+?)[.!]?$",
    re.IGNORECASE,
)
"""A last sentence that states a label."""


def _undeclared(kind: str, visible: str) -> str | None:
    """Return the answer of a text that declares none: its last sentence states a label, or all of it is a model."""
    if kind in WORDS:
        stated = STATED.search(visible)
        return stated.group(1) if stated and label_in(kind, stated.group(1)) else None
    if kind == "model":
        try:
            read_assignment(visible)
        except FormulaError:
            return None
        return visible
    return None


GRADE: Mapping[str, Callable[[Reference, str], Verdict]] = {
    "model": _grade_model,
    "entailment": _grade_label,
    "consistency": _grade_label,
    "equivalence": _grade_equivalence,
    "translation": _grade_equivalence,
}
"""Kind -> function that grades an answer found in the completion."""
