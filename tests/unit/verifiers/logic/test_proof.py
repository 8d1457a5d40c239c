"""Proofs of first order: right ones, each with one thing wrong, and no false conclusion."""

from __future__ import annotations

import pytest

from verifiers import Outcome, Verdict, get_verifier

LOGIC = get_verifier("logic")
RIGHT = {
    "instance": (
        ["∀x (Dog(x) → Animal(x))", "Dog(rex)"],
        "Animal(rex)",
        "1. ∀x (Dog(x) → Animal(x)) ; premise\n2. Dog(rex) ; premise\n3. Dog(rex) → Animal(rex) ; ∀E 1\n"
        "4. Animal(rex) ; MP 2, 3",
    ),
    "chain, in Prover9's notation": (
        ["all x (a(x) -> b(x))", "all x (b(x) -> c(x))"],
        "all y (a(y) -> c(y))",
        "1. all x (a(x) -> b(x)) [premise]\n2. all x (b(x) -> c(x)) [premise]\n3. a(k) -> b(k) [UI 1]\n"
        "4. b(k) -> c(k) [UI 2]\n5. a(k) -> c(k) [HS 3, 4]\n6. all z (a(z) -> c(z)) [UG 5]",
    ),
    "a witness": (
        ["∃x (P(x) ∧ Q(x))"],
        "∃x Q(x)",
        "1. ∃x [P(x) ∧ Q(x)] ; premise\n2. | P(c) ∧ Q(c) ; assume\n3. | Q(c) ; &E 2\n4. | ∃x Q(x) ; ∃I 3\n"
        "5. ∃x Q(x) ; ∃E 1, 2-4",
    ),
    "under an assumption of the name": (
        ["∀x P(x)"],
        "∀x (Q(x) → P(x))",
        "1. ∀x P(x) ; premise\n2. | Q(a) ; assume\n3. | P(a) ; ∀E 1\n4. Q(a) → P(a) ; ->I 2-3\n"
        "5. ∀x (Q(x) → P(x)) ; ∀I 4",
    ),
    "equality": (
        ["a = b", "R(a, f(a))"],
        "R(b, f(a)) & a = a",
        "1. a = b ; premise\n2. R(a, f(a)) ; premise\n3. R(b, f(a)) ; =E 1, 2\n4. a = a ; =I\n"
        "5. R(b, f(a)) & a = a ; &I 3, 4",
    ),
    "a negated quantifier": (
        ["~∃x P(x)"],
        "~P(a)",
        "1. ~∃x P(x) ; premise\n2. ∀x ~P(x) ; QN 1\n3. ~P(a) ; ∀E 2",
    ),
}  # fmt: skip


def graded(premises: list[str], goal: str, proof: str) -> Verdict:
    return LOGIC.verify(
        completion=f"```\n{proof}\n```", reference={"kind": "proof", "premises": [*premises], "goal": goal}
    )


@pytest.mark.parametrize("name", RIGHT)
def test_steps_of_first_order(name: str) -> None:
    premises, goal, proof = RIGHT[name]
    verdict = graded(premises, goal, proof)
    assert verdict.outcome is Outcome.CORRECT, verdict.reason
    lines = proof.split("\n")
    for at in range(len(lines)):  # no line can be left out
        assert not graded(premises, goal, "\n".join(lines[:at] + lines[at + 1 :])).right


@pytest.mark.parametrize(
    ("premises", "goal", "proof", "said"),
    [
        (["P(a)"], "∀x P(x)", "1. P(a) ; premise\n2. ∀x P(x) ; ∀I 1", "needs a name that no premise"),
        ([], "P(a) → ∀x P(x)",
         "1. | P(a) ; assume\n2. | ∀x P(x) ; ∀I 1\n3. P(a) → ∀x P(x) ; ->I 1-2", "open assumption"),
        (["∃x P(x)"], "P(c)", "1. ∃x P(x) ; premise\n2. | P(c) ; assume\n3. | P(c) ; R 2\n4. P(c) ; ∃E 1, 2-3",
         "or result has; got c"),
        (["∃x P(x)", "Q(c)"], "∃x (P(x) & Q(x))",
         "1. ∃x P(x) ; premise\n2. Q(c) ; premise\n3. | P(c) ; assume\n4. | P(c) & Q(c) ; &I 2, 3\n"
         "5. | ∃x (P(x) & Q(x)) ; ∃I 4\n6. ∃x (P(x) & Q(x)) ; ∃E 1, 3-5", "needs a name"),
        (["∀x ∃y R(x, y)"], "∃y ∀x R(x, y)",
         "1. ∀x ∃y R(x, y) ; premise\n2. ∃y R(a, y) ; ∀E 1\n3. | R(a, b) ; assume\n4. | ∀x R(x, b) ; ∀I 3\n"
         "5. | ∃y ∀x R(x, y) ; ∃I 4\n6. ∃y ∀x R(x, y) ; ∃E 2, 3-5", "open assumption"),
        (["∀x R(x, x)"], "∀x ∀y R(x, y)", "1. ∀x R(x, x) ; premise\n2. R(a, a) ; ∀E 1\n3. ∀y R(a, y) ; ∀I 2\n"
         "4. ∀x ∀y R(x, y) ; ∀I 3", "needs a name"),
        (["∀x R(x, x)"], "R(a, b)", "1. ∀x R(x, x) ; premise\n2. R(a, b) ; ∀E 1", "does not follow by ∀e"),
        (["∀x ∃y R(x, y)"], "∃y R(y, y)", "1. ∀x ∃y R(x, y) ; premise\n2. ∃y R(y, y) ; ∀E 1", "does not follow"),
        (["P(a)", "a = b"], "P(c)",
         "1. P(a) ; premise\n2. a = b ; premise\n3. P(c) ; =E 1, 2", "does not follow by =e"),
        ([], "a = b", "1. a = b ; =I", "does not follow by =i"),
        (["~∀x P(x)"], "∀x ~P(x)", "1. ~∀x P(x) ; premise\n2. ∀x ~P(x) ; QN 1", "does not follow by qn"),
        (["P(x)"], "∀x P(x)", "1. P(x) ; premise\n2. ∀x P(x) ; ∀I 1", "needs a name"),
        (["P(f(a))"], "∀x P(x)", "1. P(f(a)) ; premise\n2. ∀x P(x) ; ∀I 1", "needs a name"),
    ],
)  # fmt: skip
def test_what_does_not_follow(premises: list[str], goal: str, proof: str, said: str) -> None:
    verdict = graded(premises, goal, proof)
    assert verdict.outcome is Outcome.INCORRECT
    assert said in verdict.reason
