"""First-order formulas mean the same in every notation; names used in two ways are reported."""

from __future__ import annotations

import time

import pytest

from verifiers.logic.formula import FormulaError, Node
from verifiers.logic.question import Question, ask
from verifiers.logic.reading import parse
from verifiers.logic.signature import renamed, typed

SAME = {
    "∀x (P(x) → ∃y R(x, y))": [
        "\\forall x (P(x) \\rightarrow \\exists y R(x, y))",
        "$\\forall x\\,\\left(P(x) \\to \\exists y\\; R(x, y)\\right)$",
        "\\[\\forall x \\; \\mathrm{P}(x) \\implies \\exists y \\; \\text{R}(x,y)\\]",
        "forall x. P(x) -> exists y. R(x, y)",
        "forall x, P(x) => exists y, R(x, y)",
        "all x (P(x) -> exists y R(x,y)).",
        "all z exists w (P(z) -> R(z,w)).",
        "! [X] : (P(X) => ? [Y] : R(X, Y))",
        "fof(name, axiom, ![X]: (P(X) => ?[Y]: R(X,Y))).",
        "fof('a name',conjecture,(![X]:(P(X)=>?[Y]:R(X,Y)))).",
        "(∀x)(P(x) ⊃ (∃y)R(x, y))",
        "∀x: P(x) ⇒ ∃y: R(x,y)",
        "∀x[P(x) ⟹ ∃y[R(x,y)]]",
        "for all x, P(x) implies there exists y such that R(x, y)",
        "P(x) -> exists y R(x, y)",
    ],
    "∀x ∀y (R(x, y) ↔ ¬(x = y))": [
        "∀x,y (R(x, y) ↔ x ≠ y)",
        "∀x y (R(x, y) <-> -(x = y))",
        "forall x y. R(x, y) <-> x != y",
        "![X,Y]: (R(X,Y) <=> X != Y)",
        "\\forall x \\forall y (R(x, y) \\iff x \\neq y)",
        "∀u ∀v (R(u, v) iff not u = v)",
    ],
    "P(a) ⊕ Q(a)": ["P(a) xor Q(a)", "P(a) <~> Q(a)", "P(a) \\oplus Q(a)", "P(a) ^ Q(a)", "P( a ) ⊻ Q(a)"],
    "¬P(a) ∧ ¬∃x Q(x)": [
        "-P(a) & -exists x Q(x).",
        "~P(a) & ~(?[X]: Q(X))",
        "¬P(a) ∧ ¬(∃x)(Q(x))",
        "!P(a) && !(exists x. Q(x))",
    ],
    "∀x (P(x) ∨ ¬Q(x))": ["P(x) | -Q(x).", "cnf(c, axiom, P(Long) | ~Q(Long)).", "∀x P(x) ∨ ¬Q(x)", "∀x (P(x) ← Q(x))"],
    "P(a) → Q(a)": ["Q(a) <- P(a).", "fof(c, axiom, Q(a) <= P(a)).", "Q(a) ⇐ P(a)", "Q(a) \\Leftarrow P(a)"],
    "f(a) < 0 - f(b)": ["f(a) < -f(b)", "f(a) <-f(b)", "f(a)<-f(b)"],
    "∀x P(x) → Q(a)": ["(∀x P(x)) → Q(a)", "(![X]: P(X)) => Q(a)", "![X]: P(X) => Q(a)"],
    "∀x (P(x) → Q(a))": ["∀x. P(x) → Q(a)", "forall x: P(x) -> Q(a)"],
    "∀x P(x) ∧ ∀x Q(x)": ["(all x P(x)) & (all y Q(y))"],
    "∀x (P(x) → (∃x Q(x) → R(x)))": ["∀y (P(y) → ((∃x Q(x)) → R(y)))"],
    "P(f(a, g(b))) ∧ f(a, g(b)) = c": ["P(f(a,g(b))) & c = c & f(a,g(b)) = c"],
    "true | P(a)": ["$true | P(a)", "⊤ ∨ P(a)", "$T | P(a)"],
}  # fmt: skip


@pytest.mark.parametrize("written", SAME)
def test_notations_are_read_alike(written: str) -> None:
    wanted = parse(written)
    for other in SAME[written]:
        read = parse(other)
        if read != wanted:  # prenex forms and the like
            assert ask(Question((Node("^", (read, wanted)),))).holds is False, (other, str(read))


def test_trees_do_not_depend_on_the_names_of_variables() -> None:
    assert parse("∀x ∃y R(x, y)") == parse("all u exists v R(u, v)")
    assert parse("∀x ∃y R(x, y)") != parse("∀x ∃y R(y, x)")
    assert str(parse("∃z (A(z) ∧ ∀x B(z, x))")) == "∃x (A(x) & ∀y B(x, y))"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("P(a) & P(a, b)", "P is written with 1 argument and with 2 arguments"),
        ("P(a) & P", "P is written with 1 argument and with no arguments"),
        ("P(Q(a)) & Q(b)", "Q is used as a truth value and as a number or an object"),
        ("P(q) & q", "q is used as a truth value"),
        ("f(a) < 3 & Q(d & e)", "must be terms with commas"),
        ("∀P P(a)", "P is a variable"),
        ("∀ (P(x))", "a variable must follow"),
        ("P(a", "the arguments of P"),
        ("P(a,)", "expected a name"),
        ("∀x", "expected a name"),
        ("P(a) Q(b)", "unexpected 'Q'"),
        ("![X: P(X)", "brackets that are closed"),
        ("\\frac{P(a)}{2}", "unexpected"),
        ("P(a; b)", "unexpected"),
        ("∀x " * 60 + "P(x)", "brackets and quantifiers at most 50 deep"),
        ("f(" * 60 + "a" + ")" * 60 + " = a", "deep"),
        ("(P(a) & Q(b)) = c", "must be a number"),
    ],
)  # fmt: skip
def test_faults_are_named(text: str, said: str) -> None:
    with pytest.raises(FormulaError, match="(?s).*" + said.replace("(", "\\(")):
        parse(text)


@pytest.mark.parametrize(
    "part", ["\\", " ", "such that ", "\\text{", "∀x ", "P(x) & ", "(", "[x,", "$", "'", "fof(a,b,", "-"]
)
def test_no_text_takes_long(part: str) -> None:
    began = time.process_time()
    with pytest.raises(FormulaError):
        parse(part * (20_000 // len(part)))
    assert time.process_time() - began < 3


def test_sorts_are_found_from_use() -> None:
    both = [parse("Age(bob) = 12 & Old(bob)"), parse("Age(bob) > 10")]
    symbols = typed(both).symbols
    assert symbols["Age"] == (("object",), "number")
    assert typed(both[:1]).symbols["Age"] == (("object",), "object")
    assert typed([parse("x = y")]).symbols["x"].result == "number"  # of no first order: a number, as ever
    with pytest.raises(FormulaError, match="and"):
        typed([parse("Likes(ann, bob)"), parse("Likes(ann)")])


def test_an_answer_may_differ_in_capitals() -> None:
    given = parse("∀x (Dog(x) → ∃y Owner(y, x))")
    assert renamed(parse("![X]: (dog(X) => ?[Y]: OWNER(Y,X))"), [given]) == given
    assert renamed(parse("dog(a)"), [parse("Dog(a) & DOG(a)")]) == parse("dog(a)")  # which of the two?
    assert renamed(parse("dog(a, b)"), [given]) == parse("dog(a, b)")
