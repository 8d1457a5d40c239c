"""Questions about first-order formulas: labels, models, translations; hard ones end within their limits."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from verifiers import BadReference, Outcome, Verdict, get_verifier
from verifiers.asked_process import AskedProcess
from verifiers.logic.formula import Node
from verifiers.logic.question import Question, ask
from verifiers.logic.reading import parse

LOGIC = get_verifier("logic")
BLIND = Path(__file__).resolve().parents[3] / "cases" / "logic_blind.jsonl"
GROUP = ["∀x∀y∀z (f(f(x,y),z) = f(x,f(y,z)))", "∀x (f(e,x) = x)", "∀x∃y (f(y,x) = e)"]
STRICT_ORDER = ["∀x ¬L(x, x)", "∀x∀y∀z (L(x,y) ∧ L(y,z) → L(x,z))", "∀x∃y L(x,y)"]
"""A formula without a finite model."""


def graded(reference: dict[str, object], completion: str) -> Verdict:
    return LOGIC.verify(completion=completion, reference=reference)  # pyright: ignore[reportArgumentType]


def entailment(premises: list[str], claim: str, **more: object) -> dict[str, object]:
    return {"kind": "entailment", "premises": premises, "claim": claim, **more}


def test_pairs_written_without_sight_of_the_code() -> None:
    """100 pairs of two hands, half of them wrong ones near a right one."""
    for line in BLIND.read_text(encoding="utf-8").split("\n")[:-1]:
        row = json.loads(line)
        verdict = graded(row["reference"], row["completion"])
        assert verdict.graded, (row, verdict.reason)
        assert verdict.right is row["expected"], (row, verdict.reason)


@pytest.mark.parametrize(
    ("claim", "gold"),
    [("P(a) | P(b)", "entailed"), ("P(a)", "unknown"), ("a = b", "contradicted"), ("∀x P(x)", "unknown"),
     ("∃x∃y (x ≠ y)", "entailed"), ("∀x (x = a | x = b)", "entailed"), ("f(f(a)) = a | f(a) ≠ b", "unknown"),
     ("c = a | c = b", "entailed")],
)  # fmt: skip
def test_a_domain_holds_all_there_is(claim: str, gold: str) -> None:
    given = entailment(["∃x P(x)"], claim, domain=["a", "b"])
    for said in ("entailed", "contradicted", "unknown"):
        assert graded(given, f"The answer is {said}.").right == (said == gold)
    without = entailment(["∃x P(x)"], claim)
    assert graded(without, "The answer is unknown.").right


def holds(node: Node, relations: dict[str, frozenset[tuple[int, ...]]], bound: tuple[int, ...]) -> bool:
    """Evaluate a formula without functions in a model over 0 and 1, by trying all: the constants a and b are 0 and
    1.
    """
    if node.kind == "apply":
        args = [bound[-1 - int(arg.value)] if arg.kind == "bound" else "ab".index(str(arg.value)) for arg in node.args]
        return tuple(args) in relations[str(node.value)]
    if node.kind in ("forall", "exists"):
        found = [holds(node.args[0], relations, (*bound, one)) for one in (0, 1)]
        return all(found) if node.kind == "forall" else any(found)
    parts = [holds(arg, relations, bound) for arg in node.args]
    return {
        "~": lambda: not parts[0], "&": lambda: all(parts), "|": lambda: any(parts), "^": lambda: parts[0] != parts[1],
        "->": lambda: not parts[0] or parts[1], "<->": lambda: parts[0] == parts[1],
    }[node.kind]()  # fmt: skip


def test_labels_agree_with_all_models_of_two_objects() -> None:
    source = random.Random(3)
    ones, pairs = [(n,) for n in (0, 1)], list(itertools.product((0, 1), repeat=2))

    def subsets(rows: Sequence[tuple[int, ...]]) -> list[frozenset[tuple[int, ...]]]:
        return [
            frozenset(row for row, chosen in zip(rows, mask, strict=True) if chosen)
            for mask in itertools.product((False, True), repeat=len(rows))
        ]

    models = [{"P": p, "R": r} for p in subsets(ones) for r in subsets(pairs)]

    def made(depth: int, names: tuple[str, ...]) -> str:
        if depth == 0 or (source.random() < 0.2 and len(names) > 2):
            first, second = source.choice(names), source.choice(names)
            return source.choice((f"P({first})", f"R({first}, {second})"))
        if source.random() < 0.4:
            name = "xyz"[len(names) - 2]
            return f"{source.choice('∀∃')}{name} ({made(depth - 1, (*names, name))})"
        sign = source.choice(("&", "|", "->", "<->", "^"))
        return f"({made(depth - 1, names)} {sign} {'~' * source.randrange(2)}{made(depth - 1, names)})"

    seen: set[str] = set()
    for _ in range(40):
        premise, claim = made(3, ("a", "b")), made(3, ("a", "b"))
        left, right = parse(premise), parse(claim)
        values = {holds(right, model, ()) for model in models if holds(left, model, ())}
        label = {(True,): "entailed", (False,): "contradicted", (False, True): "unknown"}.get(tuple(sorted(values)))
        verdict = graded(entailment([premise], claim, domain=["a", "b"]), f"The answer is {label or 'unknown'}.")
        assert verdict.right == (label is not None), (premise, claim, verdict.reason)
        seen.add(label or "none")
    assert seen >= {"entailed", "contradicted", "unknown"}


def test_a_countermodel_is_shown() -> None:
    given = entailment(["∀x (Cat(x) → Furry(x))", "Furry(tom)"], "Cat(tom)")
    verdict = graded(given, "The answer is True.")
    assert verdict.detail["countermodel"] == "domain: 1; tom = 1; Cat: of nothing; Furry: (1)"
    assert "countermodel" not in graded(given, "The answer is Uncertain.").detail
    named = graded(entailment(["∃x P(x)"], "P(a)", domain=["a", "b"]), "The answer is True.")
    assert named.detail["countermodel"] == "domain: a, b; P: (b)"
    other = graded({"kind": "translation", "formula": "∃x (P(x) ∧ Q(x))"}, "<answer>∃x P(x)</answer>")
    assert other.outcome is Outcome.INCORRECT
    assert "P: (1)" in str(other.detail["countermodel"])


def test_labels_stand_alone_or_beside_formulas() -> None:
    assert graded({"kind": "entailment", "label": "Uncertain"}, "The answer is unknown").right
    assert not graded({"kind": "entailment", "label": "False"}, "The answer is unknown").right
    assert graded(entailment(["P(a)"], "P(a)", label="True"), "The answer is True").right
    with pytest.raises(BadReference, match="label must be what follows from the formulas, entailed; got unknown"):
        LOGIC.check_reference({"kind": "entailment", "premises": ["P(a)"], "claim": "P(a)", "label": "Uncertain"})
    with pytest.raises(BadReference, match="label must be one of"):
        LOGIC.check_reference({"kind": "entailment", "label": "no"})
    lines: dict[str, object] = {"kind": "entailment", "premises": "∀x (P(x) → Q(x))\n\nP(a)\n", "claim": "Q(a)"}
    assert graded(lines, "The answer is true.").right


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (entailment(["P(a)", "P(a, b)"], "P(a)"), "P is written with 1 argument and with 2 arguments"),
        (entailment(["∀x P(x)", "¬P(a)"], "Q(a)"), "contradict each other"),
        (entailment(["P(a)"], "P(a)", domain=["P"]), "P is a truth value in the formulas"),
        (entailment(["P(a)"], "P(a)", domain=["a", "a"]), "different names"),
        (entailment(["∀x∀y∀z∀u∀v R(x,y,z,u,v)"], "P(a)", domain=[*"abcdefghij"]), "too long"),
        ({"kind": "model", "formulas": ["∃x P(x)"]}, "use kind consistency"),
        ({"kind": "translation", "formula": "P(a"}, "the arguments of P"),
        (entailment(STRICT_ORDER, "L(a, b)"), "z3 cannot decide it"),
    ],
)
def test_references_that_cannot_be_used(reference: dict[str, object], said: str) -> None:
    with pytest.raises(BadReference, match=said):
        LOGIC.check_reference(reference)  # pyright: ignore[reportArgumentType]
    assert graded(reference, "The answer is True. <answer>true</answer>").outcome is Outcome.BAD_REFERENCE


def test_a_known_label_decides_where_z3_cannot() -> None:
    given = entailment(STRICT_ORDER, "L(a, b)", label="Uncertain")
    assert graded(given, "The answer is Uncertain.").right
    assert graded(given, "The answer is True.").outcome is Outcome.INCORRECT


def test_an_answer_that_nobody_can_decide_earns_nothing() -> None:
    """z3 gives up (undecided) or reaches its limit: neither is correct, and the reference is not to blame."""
    hard = " & ".join(f"({text})" for text in STRICT_ORDER)
    verdict = graded({"kind": "translation", "formula": "∀x ¬L(x, x)"}, f"<answer>∀x ¬L(x, x) | ({hard})</answer>")
    assert verdict.right  # both ways follow
    verdict = graded({"kind": "translation", "formula": "¬∃x L(x, x)"}, f"<answer>~({hard})</answer>")
    assert verdict.outcome in (Outcome.INCORRECT, Outcome.LIMIT_EXCEEDED)
    assert verdict.reward == 0
    if "countermodel" not in verdict.detail:
        assert verdict.detail["tier"] in ("undecided", "limit")


HARD = {
    "a strict order without end": STRICT_ORDER,
    "groups of exponent 3 need not commute": [*GROUP, "∀x f(x,f(x,x)) = e", "f(a,b) ≠ f(b,a)"],
    "a function on numbers": ["∀x ∃y (y > x & g(y) > g(x))", "∀x (g(g(x)) = g(x) + 1)"],
    "Robbins's equation": [
        "∀x∀y (f(x,y) = f(y,x))", "∀x∀y∀z (f(f(x,y),z) = f(x,f(y,z)))",
        "∀x∀y (n(f(n(f(x,y)),n(f(x,n(y))))) = x)", "∃x∃y (n(f(n(x),n(y))) ≠ f(x,y) & n(n(x)) ≠ x)",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_hard_formulas_are_given_up_within_the_limit(name: str) -> None:
    process = AskedProcess("verifiers.logic.solver:decide", cpu_seconds=1.0, wall_seconds=40)
    question = Question(tuple(map(parse, HARD[name])))
    assert process.ask(Question((parse("p"),))).startswith('{"holds": true')
    child = process._process
    assert child is not None
    said = process.ask(question)
    assert said.startswith("limit: 1 s") or json.loads(said)["holds"] is not True or json.loads(said)["model"]
    after = process.ask(Question((parse("~q"),)))  # the next question is answered, by another process if need be
    assert after.startswith('{"holds": true')
    if said.startswith("limit"):
        assert not os.path.exists(f"/proc/{child.pid}")  # no zombie
    last = process._process
    process.close()
    assert last is not None
    assert not os.path.exists(f"/proc/{last.pid}")


def test_consistency() -> None:
    given: dict[str, object] = {"kind": "consistency", "formulas": ["∀x∃y R(x, y)", "∀x ¬R(x, x)"]}
    assert graded(given, "The answer is consistent.").right
    assert graded(given, "The answer is: unsatisfiable").outcome is Outcome.INCORRECT
    assert graded({**given, "domain": ["a"]}, "The answer is inconsistent.").right
    assert graded(given, "The answer is 4.").outcome is Outcome.INCORRECT


def test_an_answer_too_long_for_its_domain_is_a_limit() -> None:
    given: dict[str, object] = {"kind": "translation", "formula": "∃x P(x)", "domain": [*"abcdefghij"]}
    assert graded(given, "<answer>~∀x ~P(x)</answer>").right
    verdict = graded(given, "<answer>∃x P(x) | ∃x∃y∃z∃u∃v R(x,y,z,u,v)</answer>")
    assert (verdict.outcome, verdict.detail["tier"]) == (Outcome.LIMIT_EXCEEDED, "limit")


def test_z3_stays_out_of_the_verifiers_process() -> None:
    code = (
        "import sys; from verifiers import grade;"
        " r = {'kind': 'entailment', 'premises': ['∀x P(x)'], 'claim': 'P(a)'};"
        " assert grade('logic', 'The answer is True.', r).right; assert 'z3' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_same_question_is_asked_once() -> None:
    question = Question((parse("∀x P(x)"),), parse("P(a)"))
    assert ask(question).holds is False
    assert ask(question) == ask(question)
