"""SymPy's second opinion: its decisions, its limit, and that no process is left behind."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from verifiers import Outcome, get_verifier
from verifiers.asked_process import ProcessLost
from verifiers.errors import BadOption, BadReference
from verifiers.kit.audit import read_cases
from verifiers.mathematics.opinion.ask import SecondOpinion
from verifiers.mathematics.reading.reader import read
from verifiers.mathematics.verifier import Math

CASES = Path(__file__).parents[3] / "cases" / "math_opinion.jsonl"
HARD = r"\int_0^1 e^{\sin(x^3)+\cos x^5}\ln(1+x+x^7)\,dx"


def graded(math: Math, reference: str, answer: str):
    return math.verify(completion=f"\\boxed{{{answer}}}", reference=reference)


def test_every_labelled_case_is_right_and_no_worked_out_reference_is_met_by_the_problem_itself() -> None:
    math, cases = Math(sympy_seconds=20), read_cases(str(CASES), {})
    assert len(cases) >= 160
    wrong = [
        (case.completion, case.reference, verdict.reason)
        for case in cases
        if ((verdict := math.verify(completion=case.completion, reference=case.reference)).reward == 1) != case.expected
    ]
    assert not wrong


def test_a_question_over_its_limit_is_limit_exceeded_and_the_next_one_is_answered() -> None:
    math = Math(sympy_seconds=1.0)
    verdict = graded(math, HARD, "1")
    assert (verdict.outcome, verdict.reward) == (Outcome.LIMIT_EXCEEDED, 0.0)
    assert "1 s of CPU time" in verdict.reason
    assert graded(math, r"\lim_{x\to 0}\frac{\sin x}{x}", "1").reward == 1


def test_its_version_and_limit_stand_in_the_verdict() -> None:
    from importlib import metadata

    verdict = graded(Math(sympy_seconds=7), "1", "1")
    assert f"sympy {metadata.version('sympy')} 7s" in verdict.version
    assert "sympy" not in graded(Math(sympy_seconds=0), "1", "1").version


def test_without_it_the_same_answers_are_undecided() -> None:
    verdict = graded(Math(sympy_seconds=0), r"\int_0^1 x^2 dx", "1/3")
    assert (verdict.outcome, verdict.detail["tier"]) == (Outcome.INCORRECT, "undecided")


UNDECIDED = [
    (r"\int f(x)\,dx", "F(x)+C"),
    (r"e^{\int x\,dx}", r"e^{x^2/2}+C"),
    (r"\iint xy\,dx\,dy", r"\frac{x^2y^2}{4}+C"),
    (r"\frac{x^2}{2}+C", r"\int x\,dx"),
    ("a_n=2^n-1", "a_{n+1}=2a_n+1, a_1=1"),
    ("a_{n+1}=2a_n+1, a_1=1", "a_{n+1}=a_n+2^n, a_1=1"),
]


@pytest.mark.parametrize(("reference", "answer"), UNDECIDED)
def test_what_nothing_decides_is_incorrect_and_said_to_be_undecided(reference: str, answer: str) -> None:
    verdict = graded(Math(sympy_seconds=20), reference, answer)
    assert (verdict.outcome, verdict.detail["tier"]) == (Outcome.INCORRECT, "undecided")


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("a_{n+1}=2a_n+1, a_1=1", "a_n=2a_{n-1}-1, a_1=1"),
        ("a_{n+1}=2a_n+1, a_1=1", "a_n=2a_{n-1}+1, a_1=2"),
        (r"\int x\,dx", r"x^2+C"),
        (r"\int x\,dx", r"\frac{x^2}{2}"),
    ],
)
def test_what_differs_for_certain_is_not_called_undecided(reference: str, answer: str) -> None:
    verdict = graded(Math(sympy_seconds=20), reference, answer)
    assert verdict.outcome is Outcome.INCORRECT
    assert verdict.detail["tier"] != "undecided"


@pytest.mark.parametrize("reference", [r"\int x^2", r"\int_0^1 x^2", r"3+\int f", r"\int\int x\,y"])
def test_an_integral_without_its_variable_is_a_bad_reference(reference: str) -> None:
    math = Math()
    with pytest.raises(BadReference, match="variable of its integral"):
        math.check_reference(reference)
    assert graded(math, reference, "3").outcome is Outcome.BAD_REFERENCE


@pytest.mark.parametrize(
    "reference",
    [
        r"\int x^2+x\,dx",
        r"\int \frac{dx}{x}",
        r"\int \ln x\,dx",
        r"\oint \vec E\cdot d\vec A",
        r"\int f\,d^3x",
        r"\int |z|\,|dz|",
    ],
)
def test_an_integral_with_its_variable_anywhere_is_a_reference(reference: str) -> None:
    Math().check_reference(reference)


@pytest.mark.parametrize("seconds", [-1, 601])
def test_its_limit_has_bounds(seconds: float) -> None:
    with pytest.raises(BadOption, match="sympy_seconds"):
        get_verifier("math", sympy_seconds=seconds)


def test_no_process_is_started_for_what_is_decided_without_it() -> None:
    math = Math()
    for reference, answer in (
        (r"\frac12", "0.5"),
        ("x+1", "1+x"),
        ("1/3", r"\int_0^1 x^2 dx"),
        ("a_{n+1}=2a_n+1, a_1=1", "a_{n+1}=a_n+2^n, a_1=1"),
    ):
        graded(math, reference, answer)
    assert math._opinion is not None
    assert math._opinion._process is None


def test_a_lost_process_is_a_fault_of_ours_and_is_replaced() -> None:
    opinion = SecondOpinion(30.0)
    assert opinion.ask(read(r"\int_0^1 x dx"), read("1/2")) == "equal"
    process = opinion._process
    assert process is not None

    def kill() -> None:
        time.sleep(0.5)
        process.kill()

    threading.Thread(target=kill).start()
    with pytest.raises(ProcessLost):
        opinion.ask(read(HARD), read("1"))
    assert opinion.ask(read(r"\int_0^1 x dx"), read("1/3")) == "different"
    opinion.close()


def test_it_ends_with_its_owner() -> None:
    opinion = SecondOpinion(5.0)
    opinion.ask(read(r"\int_0^1 x dx"), read("1/2"))
    process = opinion._process
    assert process is not None
    del opinion
    assert process.poll() is not None
    assert not os.path.exists(f"/proc/{process.pid}/stat")


def test_threads_share_it() -> None:
    math, said = Math(sympy_seconds=20), []
    threads = [
        threading.Thread(target=lambda n=n: said.append(graded(math, rf"\int_0^{n} x\,dx", str(n * n) + "/2").reward))
        for n in range(1, 7)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [1.0] * 6
