"""Rows of public code sets with programs, and the verdicts that each set's own grader gave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tasks.code_sets.sets import SETS, code_set_of
from verifiers import Verifier, get_verifier
from verifiers.jsonl import is_list, is_object

CASES = Path(__file__).parents[3] / "cases" / "code_rows.jsonl"
BY_NAME = {one.name: one for one in SETS}
SHORT = 16
"""The short suite tries one program out of this number."""


class Case(NamedTuple):
    id: str
    name: str
    row: dict[str, object]
    program: str
    theirs: bool
    """Verdict of its own grader."""
    ours: bool
    """Verdict of its own grader, except where that fails honest programs by the way it runs them: see `otherwise` of
    the set.
    """


def cases() -> Iterator[Case]:
    for line in CASES.read_text().split("\n"):
        if line:
            found = json.loads(line)
            for label, (program, theirs, *ours) in found["programs"].items():
                yield Case(f"{found['id']}/{label}", found["set"], found["row"], program, theirs, (ours or [theirs])[0])


ALL = list(cases())


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return get_verifier("code", sandbox="unsafe-host")


def graded(verifier: Verifier, case: Case) -> bool | None:
    problem = BY_NAME[case.name].read(case.row)
    completion = case.program if case.name.startswith("cruxeval") else f"```python\n{case.program}\n```"
    reward = verifier.verify(completion=completion, reference=problem.reference).reward
    return None if reward is None else reward == 1.0


@pytest.mark.parametrize("case", ALL[::SHORT], ids=lambda case: case.id)
def test_a_verdict_is_that_of_the_sets_own_grader(verifier: Verifier, case: Case) -> None:
    assert graded(verifier, case) is case.ours


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for n, case in enumerate(ALL) if n % SHORT], ids=lambda case: case.id)
def test_every_verdict_is_that_of_the_sets_own_grader(verifier: Verifier, case: Case) -> None:
    assert graded(verifier, case) is case.ours


def test_every_set_that_is_called_verified_was_run_on_ten_rows_honest_and_wrong() -> None:
    for one in SETS:
        of_set = [case for case in ALL if case.name == one.name]
        rows = {case.id.split("/")[1] for case in of_set}
        both = {case.theirs for case in of_set}
        if one.grader:
            assert (one.name == "leetcode" or len(rows) >= 9, both) == (True, {True, False}), one.name
        else:
            assert not of_set, one.name
        if any(case.theirs != case.ours for case in of_set):
            assert one.otherwise, one.name


def test_rows_are_told_by_their_columns() -> None:
    for case in ALL:
        told = code_set_of(case.row)
        assert told is not None
        assert told.name == case.name.replace("cruxeval_input", "cruxeval")


def test_a_row_of_code_contests_is_graded_by_the_rule_of_its_source(verifier: Verifier) -> None:
    """By words in any case, numbers less than 1e-5 apart; its own grader was not run."""

    def held(expected: str, printed: str) -> bool | None:
        tests = {"input": ["x\n"], "output": [expected]}
        row = {"name": "a", "description": "Q", "public_tests": tests, "private_tests": {}, "generated_tests": None}
        return graded(verifier, Case("", "code_contests", row, f"print({printed!r})", True, True))

    assert held("YES 1.5\n2\n", "yes\n1.500009  2")
    assert held("10\n", "10.000001")
    assert not held("1.5\n", "1.50002")
    assert not held("0\n", "0.00001")
    assert not held("1 2\n", "12")
    assert not held("1 2\n", "1 2 3")


def test_each_row_s_reference_has_what_the_set_says() -> None:
    for case in ALL:
        reference = BY_NAME[case.name].read(case.row).reference
        assert is_object(reference)
        if case.name == "eurus":
            tests = reference.get("cases", reference.get("calls"))
            assert is_list(tests)
            assert len(tests) <= 10
