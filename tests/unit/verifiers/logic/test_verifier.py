"""Formulas against a truth table written here, proofs right and wrong, z3's answers, hostile text."""

from __future__ import annotations

import itertools
import random

import pytest

from verifiers import BadReference, Outcome, get_verifier
from verifiers.logic.assignment import sorts_of
from verifiers.logic.formula import FormulaError, Node, evaluate, in_form, size_of
from verifiers.logic.question import Question, ask
from verifiers.logic.reading import parse

LOGIC = get_verifier("logic")


def outcome(reference: dict[str, object], completion: str) -> Outcome:
    return LOGIC.verify(completion=completion, reference=reference).outcome  # pyright: ignore


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("p & q | r", "(p and q) or r"),
        ("p -> q -> r", "(not p) or ((not q) or r)"),
        ("~p & q <-> r ^ p", "((not p) and q) == (r != p)"),
        ("not (p or q) implies r", "(p or q) or r"),
        ("p ∧ ¬q ∨ ⊥ → r", "(not (p and not q)) or r"),
        ("p iff q iff r", "(p == q) == r"),
    ],
)
def test_formulas_mean_what_a_truth_table_says(text: str, python: str) -> None:
    formula = parse(text)
    for values in itertools.product((True, False), repeat=3):
        given = dict(zip("pqr", values, strict=True))
        assert evaluate(formula, given) == eval(python, {}, given)


def test_numbers_and_sorts() -> None:
    assert evaluate(parse("x + 2*y - 1 >= -3 & x != y"), {"x": -4, "y": 1}) is True
    assert sorts_of([parse("p -> x < 3")]) == {"p": bool, "x": int}


@pytest.mark.parametrize(
    "text",
    ["", "p q", "p &", "(p", "p)", "x < 3 < 4", "p & p < 3", "x * y = 1", "3", "x + 1", "p -> 3", "p" + "|p" * 9000,
     "(" * 99 + "p" + ")" * 99, "~" * 9000 + "p",
     "9" * 99 + " < x", "p; import os",
     "a" * 30_000],
)  # fmt: skip
def test_what_is_no_formula_is_said_so(text: str) -> None:
    with pytest.raises(FormulaError):
        parse(text)


def test_z3_and_the_evaluator_agree_on_random_formulas() -> None:
    source = random.Random(0)

    def made(depth: int) -> str:
        if depth == 0:
            return source.choice(["p", "q", "x < 2", "x + y = 3", "true"])
        sign = source.choice(["&", "|", "^", "->", "<->"])
        return f"({made(depth - 1)} {sign} {'~' * source.randrange(2)}{made(depth - 1)})"

    for _ in range(60):
        text = made(3)
        formula = parse(text)
        sorts = sorts_of([formula])
        values = {name: source.random() < 0.5 if sort is bool else source.randrange(4) for name, sort in sorts.items()}
        given = [
            Node("<->" if sorts[name] is bool else "=", (Node("name", (), name), value_of(value)))
            for name, value in values.items()
        ]
        assert ask(Question((formula, *given))).holds == evaluate(formula, values)


def value_of(value: bool | int) -> Node:
    return Node("truth" if isinstance(value, bool) else "number", (), value)


def test_forms_and_sizes() -> None:
    assert in_form(parse("(p | ~q) & r"), "cnf")
    assert not in_form(parse("(p & q) | r"), "cnf")
    assert in_form(parse("(p & q) | r"), "dnf")
    assert in_form(parse("(p & (q | ~r)) | r"), "nnf")
    assert not in_form(parse("~(p & q)"), "nnf")
    assert size_of(parse("~p & (q | r)")) == 3
    assert in_form(parse("all x exists y. P(x) & Q(y)"), "pnf")
    assert not in_form(parse("all x (P(x) & exists y Q(y))"), "pnf")
    assert in_form(parse("all x (~P(x) | exists y Q(y))"), "nnf")


MODEL = {"kind": "model", "formulas": ["ann -> ~bob", "ann", "x + 1 = y", "y < 4", "x > 1"]}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("ann = true, bob = false, x = 2, y = 3", Outcome.CORRECT),
        ("Ann: yes; Bob: no; x: 2; y: 3", Outcome.CORRECT),
        ('{"ann": true, "bob": false, "x": 2, "y": 3}', Outcome.CORRECT),
        ("ann = true, bob = true, x = 2, y = 3", Outcome.INCORRECT),
        ("ann = true, bob = false, x = 2", Outcome.INCORRECT),
        ("ann = true, bob = false, bob = true, x = 2, y = 3", Outcome.INCORRECT),
        ("ann = true, bob = false, x = 2, y = 3, z = 1", Outcome.INCORRECT),
        ("ann = true, bob = false, x = 2 or 1, y = 3", Outcome.INCORRECT),
        ("ann = 1, bob = 0, x = 2, y = 3", Outcome.INCORRECT),
        ("satisfiable", Outcome.INCORRECT),
    ],
)
def test_models(answer: str, expected: Outcome) -> None:
    assert outcome(MODEL, f"<answer>{answer}</answer>") is expected


def test_words_for_values() -> None:
    reference = {"kind": "model", "formulas": ["A <-> ~B", "A"], "values": {"knight": True, "knave": False}}
    assert outcome(reference, "The answer is A is a knight and B is a knave") is Outcome.CORRECT
    assert outcome(reference, "#### A=knave, B=knight") is Outcome.INCORRECT


@pytest.mark.parametrize(
    ("premises", "claim", "gold"),
    [
        (["p -> q", "p"], "q", "entailed"),
        (["p -> q", "~q"], "p", "contradicted"),
        (["p -> q", "q"], "p", "unknown"),
        (["x < y", "y < z"], "x + 1 < z", "entailed"),
    ],
)
def test_entailment(premises: list[str], claim: str, gold: str) -> None:
    reference = {"kind": "entailment", "premises": premises, "claim": claim}
    for said in ("entailed", "contradicted", "unknown"):
        expected = Outcome.CORRECT if said == gold else Outcome.INCORRECT
        assert outcome(reference, f"The answer is {said}.") is expected
    assert (outcome(reference, "The answer is no.") is Outcome.CORRECT) == (gold != "entailed")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"kind": "model", "formulas": ["p", "~p"]}, "must have a model"),
        ({"kind": "model", "formulas": ["p &"]}, "has an invalid formula"),
        ({"kind": "entailment", "premises": ["p", "~p"], "claim": "q"}, "contradict each other"),
        ({"kind": "equivalence", "formula": "p", "form": "xnf"}, "form must be one of"),
        ({"kind": "proof", "premises": "p", "goal": "p"}, "premises must be a list"),
        ({"kind": "magic"}, "kind is one of"),
        ({"kind": "proof", "premises": [], "goal": "p", "claim": "q"}, "got 'claim'"),
        (3, "kind is one of"),
    ],
)
def test_golds_that_cannot_be_met_are_refused(reference: object, message: str) -> None:
    with pytest.raises(BadReference, match=message):
        LOGIC.check_reference(reference)  # pyright: ignore


@pytest.mark.parametrize(
    ("given", "answer", "expected"),
    [
        ({"formula": "p -> q"}, "~p | q", Outcome.CORRECT),
        ({"formula": "p -> q"}, "p -> q", Outcome.INCORRECT),
        ({"formula": "p -> q"}, "true", Outcome.INCORRECT),
        ({"formula": "p <-> q", "form": "dnf"}, "p & q | ~p & ~q", Outcome.CORRECT),
        ({"formula": "p <-> q", "form": "cnf"}, "p & q | ~p & ~q", Outcome.INCORRECT),
        ({"formula": "p & q | p & r", "max_operators": 2}, "p & (q | r)", Outcome.CORRECT),
        ({"formula": "p & q | p & r", "max_operators": 2}, "p & q | p & r", Outcome.INCORRECT),
        ({"formula": "(> x 3)", "smtlib": "(declare-const x Int)"}, "(>= x 4)", Outcome.CORRECT),
        ({"formula": "(> x 3)", "smtlib": "(declare-const x Real)"}, "(>= x 4)", Outcome.INCORRECT),
        ({"formula": "(> x 3)", "smtlib": "(declare-const x Int)"}, "(>= x 4)) (assert false", Outcome.INCORRECT),
        ({"formula": "(> x 3)", "smtlib": "(declare-const x Int)"}, "(! x :named y)", Outcome.INCORRECT),
    ],
)
def test_equivalence(given: dict[str, object], answer: str, expected: Outcome) -> None:
    assert outcome({"kind": "equivalence", **given}, f"\\boxed{{{answer}}}") is expected


def test_smtlib_models() -> None:
    reference = {
        "kind": "model",
        "smtlib": "(declare-const x Int) (declare-const b (_ BitVec 8)) (declare-const p Bool)",
        "formulas": ["(= (* x x) 49)", "(= (bvadd b #x01) #x00)", "(=> p (> x 0))"],
    }
    assert outcome(reference, "<answer>x = -7, b = 255, p = false</answer>") is Outcome.CORRECT
    assert outcome(reference, "<answer>x = -7, b = 255, p = true</answer>") is Outcome.INCORRECT
    assert outcome(reference, "<answer>x = seven, b = 255, p = true</answer>") is Outcome.INCORRECT


PROOFS = {
    "modus ponens under an assumption": (
        (["p -> q", "q -> r"], "p -> r"),
        "1. p -> q ; premise\n2. q -> r ; premise\n3. | p ; assume\n4. | q ; ->E 1, 3\n"
        "5. | r ; MP 2, 4\n6. p -> r ; ->I 3-5",
    ),
    "excluded middle": (
        ([], "p | ~p"),
        "1. | ~(p | ~p) ; assume\n2. || p ; assume\n3. || p | ~p ; |I 2\n4. || false ; ~E 1, 3\n5. | ~p ; ~I 2-4\n"
        "6. | p | ~p ; |I 5\n7. | false ; ~E 1, 6\n8. p | ~p ; IP 1-7",
    ),
    "cases": (
        (["p | q", "p -> r", "q -> r"], "r"),
        "1. p | q [premise]\n2. p -> r [premise]\n3. q -> r [premise]\n4. | p [assume]\n"
        "5. | r [->E 2, 4]\n6. | q [assume]\n"
        "7. | r [->E 3, 6]\n8. r [|E 1, 4-5, 6-7]",
    ),
    "biconditional": (
        (["p & q"], "p <-> q"),
        "1. p & q by premise\n2. | p by assume\n3. | q by &E 1\n4. | q by assume\n5. | p by &E 1\n"
        "6. p <-> q by <->I 2-3, 4-5",
    ),
    "de Morgan": (
        (["~(p | q)"], "~p & ~q"),
        "1. ~(p | q) ; premise\n2. | p ; assume\n3. | p | q ; |I 2\n4. | false ; ~E 1, 3\n"
        "5. ~p ; ~I 2-4\n6. | q ; assume\n"
        "7. | p | q ; |I 6\n8. | false ; ~E 1, 7\n9. ~q ; ~I 6-8\n10. ~p & ~q ; &I 5, 9",
    ),
    "other rules": (
        (["p | q", "~p", "q -> r", "r -> s", "~t -> ~s"], "t"),
        "1. p | q ; premise\n2. ~p ; premise\n3. q -> r ; premise\n4. r -> s ; premise\n"
        "5. ~t -> ~s ; premise\n6. q ; DS 1, 2\n"
        "7. q -> s ; HS 3, 4\n8. s ; MP 6, 7\n9. ~~s ; DN 8\n10. ~~t ; MT 5, 9\n11. t ; DN 10",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROOFS)
def test_proofs(name: str) -> None:
    (premises, goal), proof = PROOFS[name]
    reference = {"kind": "proof", "premises": premises, "goal": goal}
    verdict = LOGIC.verify(completion=f"A proof:\n```\n{proof}\n```", reference=reference)  # pyright: ignore
    assert verdict.outcome is Outcome.CORRECT, verdict.reason
    lines = proof.splitlines()
    for at in range(len(lines)):  # no line can be left out
        shorter = "\n".join(lines[:at] + lines[at + 1 :])
        assert outcome(reference, f"```\n{shorter}\n```") is not Outcome.CORRECT, shorter


@pytest.mark.parametrize(
    ("proof", "said"),
    [
        ("1. q ; premise", "line 1: q does not follow by premise"),
        ("1. p -> q ; premise\n2. | p ; assume\n3. | q ; ->E 1, 2\n4. q ; R 3", "line 4: line 3 cannot be cited"),
        ("1. p -> q ; premise\n2. | p ; assume\n3. q ; ->E 1, 2", "line 3: line 2 cannot be cited"),
        ("1. p -> q ; premise\n2. | q ; assume\n3. | q ; R 2", "the last line must be the goal"),
        ("1. p -> q ; premise\n2. q ; magic 1", "no rule 'magic'"),
        ("1. p -> q ; premise\n2. q ; ->E 1", "->e cites 2 lines"),
        ("1. p -> q ; premise\n1. q ; ->E 1, 1", "numbers must rise"),
        ("1. p -> q ; premise\n2. q ; ->E 1, 2", "line 2: line 2 cannot be cited"),
        ("1. p -> q ; premise\n2. || p ; assume\n3. q ; ->E 1, 2", "line 2: an assumption opens a subproof"),
        ("1. q", "must be: NUMBER. FORMULA ; RULE LINES"),
        ("1. p q ; premise", "is not a formula"),
    ],
)
def test_false_proofs(proof: str, said: str) -> None:
    verdict = LOGIC.verify(completion=proof, reference={"kind": "proof", "premises": ["p -> q"], "goal": "q"})
    assert verdict.outcome is Outcome.INCORRECT
    assert said in verdict.reason


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("The formulas are inconsistent.", Outcome.CORRECT),
        ("P holds for some x. Therefore, these formulas are unsatisfiable.", Outcome.CORRECT),
        ("If the first is true, Q must hold.\nThe formulas are inconsistent", Outcome.CORRECT),
        ("The formulas are consistent.", Outcome.INCORRECT),
        ("The formulas are inconsistent. Or are they?", Outcome.NO_ANSWER),
        ("It is not true that the formulas are inconsistent.", Outcome.NO_ANSWER),
        ("The formulas are not inconsistent.", Outcome.NO_ANSWER),
        ("Assume that the formulas are inconsistent and look for a model.", Outcome.NO_ANSWER),
        ("inconsistent, or so it seems", Outcome.INCORRECT),
    ],
)
def test_a_last_sentence_that_states_the_label_is_an_answer(completion: str, expected: Outcome) -> None:
    reference = {"kind": "consistency", "formulas": ["p", "p -> q", "~q"]}
    assert outcome(reference, completion) is expected


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("Ann: knight\nBob: knave", Outcome.CORRECT),
        ("- Ann: knight\n- Bob: knave", Outcome.CORRECT),
        ("Ann: knight\nBob: knight", Outcome.INCORRECT),
        ("Ann: knight", Outcome.INCORRECT),
        ("Ann: knight\nBob: knave\nor the other way round", Outcome.NO_ANSWER),
        ("I think of Ann and of Bob.\nBoth could be knights.", Outcome.NO_ANSWER),
    ],
)
def test_a_text_that_is_nothing_but_a_model_is_an_answer(completion: str, expected: Outcome) -> None:
    values = {"knight": True, "knave": False}
    reference = {"kind": "model", "formulas": ["Ann <-> ~Bob", "Bob <-> (Ann & Bob)"], "values": values}
    assert outcome(reference, completion) is expected
