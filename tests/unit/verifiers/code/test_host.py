"""The code verifier from completion to verdict, on programs that are known to be harmless: no sandbox is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox.api import Job, JobOutcome, JobResult
from verifiers import Outcome, Verifier, get_verifier
from verifiers.code.grading import Grader
from verifiers.verdict import JSON


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return get_verifier("code", sandbox="unsafe-host", block="whole")


CASES = Path(__file__).parents[3] / "cases" / "code_tests.jsonl"
TESTS: list[dict[str, JSON]] = [json.loads(line) for line in CASES.read_text().split("\n") if line]


@pytest.mark.parametrize("test", TESTS, ids=[str(test["id"]) for test in TESTS])
def test_verdict(verifier: Verifier, test: dict[str, JSON]) -> None:
    verdict = verifier.verify(completion=str(test["program"]), reference=test["reference"])
    assert (verdict.outcome, verdict.detail["mode"]) == (test["outcome"], test["mode"]), verdict


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"tests": ["x = 1"]}, "contain no comparison"),
        ({"tests": ["assert f(1) == 1"], "setup": "1/0"}, "ZeroDivisionError"),
        ({"entry_point": "f", "oracle": "def f(x): return 1/x", "inputs": [[1], [0]]}, "the oracle raises for [0]"),
        ({"entry_point": "f", "oracle": "def g(x): return x", "inputs": [[1]]}, "the oracle raises"),
    ],
)
def test_tests_that_do_not_run_by_themselves_are_a_bad_reference(
    verifier: Verifier, reference: JSON, message: str
) -> None:
    verdict = verifier.verify(completion="def f(x): return 1", reference=reference)
    assert verdict.outcome == "bad_reference", verdict
    assert verdict.reward is None
    assert message in verdict.reason


def test_predictions(verifier: Verifier) -> None:
    gold: dict[str, JSON] = {
        "code": "def f(x, g=None):\n    x.append(1)\n    return g(x) if g else x\n",
        "entry_point": "f",
    }
    output: JSON = {**gold, "input": "[2]", "output": "[2, 1]", "predict": "output"}
    given: JSON = {**gold, "input": "[2]", "output": "[2, 1]", "predict": "input"}
    for reference, completion, right in (
        (output, "[ANSWER]assert f([2]) == [2, 1][/ANSWER]", True),
        (output, "[ANSWER][2] + [1][/ANSWER]", True),
        (output, "[ANSWER](2, 1)[/ANSWER]", False),
        (output, "[ANSWER]f([2])[/ANSWER]", False),  # it is asked what f does, and f is not there
        (given, "[ANSWER]f([2])[/ANSWER]", True),
        (given, "[ANSWER]list((2,))[/ANSWER]", True),
        (given, "[ANSWER][], lambda xs: [2, *xs][/ANSWER]", True),
        (given, "[ANSWER][1][/ANSWER]", False),
        (given, "[ANSWER]f((globals().update(f=lambda *a: [2, 1]), [3])[1])[/ANSWER]", False),
        (given, "[ANSWER]type('E', (list,), {'__eq__': lambda *a: True})()[/ANSWER]", False),
        (given, "[ANSWER]type('E', (), {'append': print, '__eq__': lambda *a: True})()[/ANSWER]", False),
    ):
        verdict = verifier.verify(completion=completion, reference=reference)
        assert (verdict.reward == 1.0) is right, (completion, verdict)
    assert verifier.verify(completion="I do not know.", reference=output).outcome == "no_answer"


def test_a_share_of_tests() -> None:
    verifier = get_verifier("code", sandbox="unsafe-host", reward="fraction", block="whole")
    code = "def f(x):\n    if x == 2: import os; os._exit(0)\n    return x"
    reference: JSON = {"entry_point": "f", "calls": [{"args": [n], "expected": n} for n in range(4)]}
    verdict = verifier.verify(completion=code, reference=reference)
    assert (verdict.outcome, verdict.reward) == ("partial", 0.5)  # nothing is reached behind the exit
    cases: JSON = {"cases": [{"input": f"{n}\n", "output": f"{n % 2}\n"} for n in range(4)]}
    assert verifier.verify(completion="print(0)", reference=cases).reward == 0.5
    assert verifier.verify(completion="print(7)", reference=cases).outcome == "incorrect"


def test_a_limit_is_the_programs_own_doing(verifier: Verifier) -> None:
    code = "def f(x):\n    while True: print('x' * 100_000)"
    verdict = verifier.verify(completion=code, reference={"tests": ["assert f(1) == 1"]})
    assert (verdict.outcome, verdict.reward) == ("limit_exceeded", 0.0)


def test_a_fault_of_the_sandbox_is_never_a_wrong_answer(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = JobResult(outcome=JobOutcome.INFRASTRUCTURE_FAULT, detail="the disk is on fire")
    monkeypatch.setattr(type(verifier._open()._sandbox), "run", lambda self, job: fault)  # type: ignore[attr-defined]
    verdict = verifier.verify(completion="def f(x): return -1", reference={"tests": ["assert f(1) == 1"]})
    assert (verdict.outcome, verdict.reward) == (Outcome.VERIFIER_ERROR, None)
    assert "the disk is on fire" in verdict.reason


def test_the_tested_process_is_given_no_expected_value(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data sent with the program, byte for byte, for every kind of reference."""
    sent: list[bytes] = []
    sandbox = verifier._open()._sandbox  # type: ignore[attr-defined]
    run = type(sandbox).run

    def spy(self: object, job: Job) -> JobResult:
        for one in (job, job.helper):
            if one is not None and one.files["main.py"].startswith(b"import program"):
                sent.append(b"".join(one.files.values()) + one.stdin)
        return run(self, job)

    monkeypatch.setattr(type(sandbox), "run", spy)
    code = "def f(x): return 'no' + 'thing'"
    secret = "EXPECTED-7351"
    references: list[JSON] = [
        {"tests": [f"assert f(1) == '{secret}'"], "setup": f"WANT = '{secret}'\nclass C:\n    pass"},
        {"tests": [f"r = f(1)\nassert r == '{secret}'"], "setup": f"WANT = '{secret}'"},
        {"tests": [f"def check(c):\n    assert c(1) == '{secret}'"], "check": "check", "entry_point": "f"},
        {"entry_point": "f", "calls": [{"args": [1], "expected": secret}]},
        {"entry_point": "f", "oracle": f"def f(x):\n    return '{secret[:8]}' + '{secret[8:]}'", "inputs": [[1]]},
        {"pytest": f"def test_f():\n    for want in ['{secret}']:\n        assert f(1) == want"},
    ]
    for reference in references:
        sent.clear()
        verdict = verifier.verify(completion=code, reference=reference)
        assert verdict.outcome == "incorrect", (reference, verdict)
        mine = [data for data in sent if b"'no' + 'thing'" in data]
        assert mine
        assert not any(secret[:8].encode() in data for data in mine), reference


def test_grader_keeps_nothing_of_one_problem_for_another(verifier: Verifier) -> None:
    grader = verifier._open()  # type: ignore[attr-defined]
    assert isinstance(grader, Grader)
    code = "def f(x): return 1"
    assert verifier.verify(completion=code, reference={"tests": ["assert f(1) == 1"]}).reward == 1
    assert verifier.verify(completion=code, reference={"tests": ["assert f(1) == 2"]}).reward == 0
    assert verifier.verify(completion=code, reference={"tests": ["assert f(1) == 1"]}).reward == 1
