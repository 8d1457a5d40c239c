"""References in SMT-LIB: declarations are graded; commands to z3 have no effect, and reveal nothing of any file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from verifiers import BadReference, Outcome, get_verifier
from verifiers.logic.formula import FormulaError
from verifiers.logic.smtlib import MAX_CHARACTERS, MAX_NESTING, declarations, expressions, term

LOGIC = get_verifier("logic")
P = "(declare-const p Bool)"


def entailment(smtlib: str, premise: str = "p", claim: str = "p") -> dict[str, object]:
    return {"kind": "entailment", "premises": [premise], "claim": claim, "smtlib": smtlib}


def outcome(reference: object, completion: str = "The answer is entailed.") -> Outcome:
    return LOGIC.verify(completion=completion, reference=reference).outcome  # pyright: ignore[reportArgumentType]


def fault(reference: object) -> str:
    with pytest.raises(BadReference) as caught:
        LOGIC.check_reference(reference)  # pyright: ignore[reportArgumentType]
    return str(caught.value)


COMMANDS = {
    "written": '(set-option :regular-output-channel "{path}")(echo "a line")',
    "diagnostics": '(set-option :diagnostic-output-channel "{path}")',
    "included": '(include "{path}")',
    "in upper case": '(SET-OPTION :regular-output-channel "{path}")',
    "behind a comment": '; (\n(set-option ; )\n:regular-output-channel "{path}")',
    "in a quoted symbol": '(|set-option| :regular-output-channel "{path}")',
    "bare": "{path}",
    "quoted": '"{path}"',
    "as a name": "(declare-const |{path}",
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("place", ["declarations", "premise", "claim"])
def test_a_command_neither_writes_nor_tells_what_is_there(tmp_path: Path, command: str, place: str) -> None:
    there, absent = tmp_path / "aa.smt2", tmp_path / "bb.smt2"
    there.write_text(P)
    said: set[str] = set()
    for path in (there, absent):
        written = command.format(path=path)
        given = {
            "declarations": entailment(written + P),
            "premise": entailment(P, f"p) {written} (assert p"),
            "claim": entailment(P, claim=f"p){written}(assert p"),
        }[place]
        assert outcome(given) is Outcome.BAD_REFERENCE
        said.add(fault(given).replace(str(path), "PATH"))
    assert len(said) == 1
    assert there.read_text() == P
    assert not absent.exists()


@pytest.mark.parametrize(
    "command",
    [
        "(set-option :memory_max_size 1)",
        "(set-option :rlimit 1)",
        "(set-option :timeout 1)",
        "(push 1)",
        "(pop 1)",
        "(reset)",
        "(reset-assertions)",
        "(assert p)",
        "(check-sat)",
        "(get-model)",
        "(exit)",
        "(set-info :status sat)",
        "(declare-tactic t skip)",
        "(eval p)",
        "(simplify p)",
        "()",
        "((declare-const q Bool))",
        "declare-const",
    ],
)
def test_a_command_leaves_nothing_for_the_next_row(command: str) -> None:
    assert outcome(entailment(P + command)) is Outcome.BAD_REFERENCE
    assert outcome({"kind": "entailment", "premises": ["p -> q", "p"], "claim": "q"}) is Outcome.CORRECT


@pytest.mark.parametrize(
    ("smtlib", "premise", "claim"),
    [
        ("(declare-fun p () Bool)", "p", "p"),
        ("; two numbers\n(declare-const x Int) (declare-const y Int)", "(> x y)", "(>= x (+ y 1))"),
        ("(set-logic QF_LIA)(declare-fun x () Int)", "(> x 3)", "(> x 2)"),
        ("(declare-fun f (Int) Int)", "(= (f 1) 2)", "(not (= (f 1) 3))"),
        ("(define-fun twice ((n Int)) Int (* 2 n))(declare-const x Int)", "(= x (twice 4))", "(= x 8)"),
        ("(define-fun-rec s ((n Int)) Int (ite (<= n 0) 0 (+ n (s (- n 1)))))", "true", "(= (s 3) 6)"),
        ("(declare-sort Person 0)(declare-const a Person)(declare-fun wise (Person) Bool)",
         "(forall ((x Person)) (wise x))", "(wise a)"),
        ("(declare-datatypes ((Color 0)) (((red) (green) (blue))))(declare-const c Color)",
         "(and (not (= c red)) (not (= c green)))", "(= c blue)"),
        ("(declare-const |it is wet| Bool)", "|it is wet|", "(or |it is wet| false)"),
        ('(declare-const s String)', '(= s "a ""b"" :c")', '(= (str.len s) 8)'),
        ('(declare-const s String)(define-fun |a (b)| () String ") ) ( (")', '(= s |a (b)|)', '(= s ") ) ( (")'),
        ("(declare-const b (_ BitVec 8))", "(= b #x0F)", "(= b #b00001111)"),
        ("(declare-const r Real)", "(= r 0.50)", "(= (* 2.0 r) 1.0)"),
        ("(define-sort Word () (_ BitVec 4))(declare-const w Word)", "(= w #xF)", "(bvuge w #x1)"),
    ],
)  # fmt: skip
def test_declarations_are_graded(smtlib: str, premise: str, claim: str) -> None:
    given = entailment(smtlib, premise, claim)
    LOGIC.check_reference(given)  # pyright: ignore[reportArgumentType]
    assert outcome(given) is Outcome.CORRECT
    assert outcome(given, "The answer is contradicted.") is Outcome.INCORRECT


def test_an_answer_is_one_term() -> None:
    given = {"kind": "equivalence", "formula": "(> x 3)", "smtlib": "(declare-const x Int)"}
    for wrong in (
        "(>= x 4)(echo a)",
        '(>= x 4)) (include "/etc/passwd") (assert true',
        "(> x  3) ; the same",
        "(> x 3",
    ):
        assert outcome(given, f"<answer>{wrong}</answer>") is Outcome.INCORRECT
    assert outcome(given, "<answer>(>= x 4) ; greater</answer>") is Outcome.CORRECT


def test_text_is_bounded_and_never_a_recursion() -> None:
    deep = "(not " * (MAX_NESTING - 1) + "(not p)" + ")" * (MAX_NESTING - 1)
    assert outcome(entailment(P, deep, deep)) is Outcome.CORRECT
    for text in (
        f"(not {deep})",
        "(" * 40_000,
        "p " * MAX_CHARACTERS,
        "a" * 2_000,
        "(not é)",
        "(not \x00p)",
        "1p",
        "#xG",
    ):
        with pytest.raises(FormulaError):
            term(text)
        assert outcome(entailment(P, text)) is Outcome.BAD_REFERENCE
    with pytest.raises(FormulaError, match="not closed"):
        list(expressions("(p"))
    assert declarations("(declare-const\n x  Int);end").script == "( declare-const x Int )"


def test_definitions_that_grow_without_bounds_are_refused_before_they_are_written_out() -> None:
    """z3 expands definitions: each line doubles the depth of the last one, until its recursion ends the process."""
    doubling = "(define-fun g0 ((x Bool)) Bool (not x))" + "".join(
        f"(define-fun g{n} ((x Bool)) Bool (g{n - 1} (g{n - 1} x)))" for n in range(1, 40)
    )
    by_name = "(define-fun f0 () Bool p)" + "".join(f"(define-fun f{n} () Bool (not f{n - 1}))" for n in range(1, 9000))
    bound = "(define-fun g ((x Bool)) Bool " + "(not " * 400 + "x" + ")" * 400 + ")"
    chain = "(let ((a0 (g p))) " + "".join(f"(let ((a{n} (g a{n - 1}))) " for n in range(1, 100)) + "a99" + ")" * 100
    assert outcome(entailment(P + doubling)) is Outcome.BAD_REFERENCE
    assert outcome(entailment(P + by_name[:49_000].rpartition("(define")[0])) is not Outcome.VERIFIER_ERROR
    assert outcome(entailment(P + bound, chain, chain)) is Outcome.BAD_REFERENCE
    for honest, claim in (
        (doubling.partition("(define-fun g9 ")[0], "(not (not (g8 p)))"),
        ("(define-fun most ((a Int) (b Int)) Int (ite (> a b) a b))(declare-const x Int)",
         "(or p (= 9 " + "(most 9 " * 60 + "9" + ")" * 60 + "))"),
        (by_name.partition("(define-fun f300 ")[0], "(not f299)"),
    ):  # fmt: skip
        assert outcome(entailment(P + honest, "p", claim)) is Outcome.CORRECT, claim[:40]


def test_questions_are_asked_side_by_side() -> None:
    """Each in a context of its own: z3 entered by several threads in one context ends the process."""

    def ask(number: int) -> Outcome:
        given = entailment("(declare-const x Int)", f"(> x {number})", f"(>= x {number + 1})")
        LOGIC.check_reference(given)  # pyright: ignore[reportArgumentType]
        return outcome(given)

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(ask, range(100))) == {Outcome.CORRECT}
