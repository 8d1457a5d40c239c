"""Demonstrations that are wrong by their own verifier are said before anything is learned from them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reasoner.stages.sft import check_solutions
from tasks import Problem, Turn
from verifiers.pool import GradingPool


@pytest.fixture(scope="module")
def pool() -> Iterator[GradingPool]:
    with GradingPool(workers=1) as made:
        yield made


def problems(wrong: int, *, count: int = 100, **changes: object) -> list[Problem]:
    """Make problems with a demonstration each; `wrong` of them, evenly spread, give another number."""
    found = []
    for place in range(count):
        off = place * wrong // count != (place + 1) * wrong // count
        fields: dict[str, object] = {"verifier": "math", "reference": str(place), **changes}
        found.append(
            Problem(id=f"p/{place}", prompt="?", demonstration=f"It is \\boxed{{{place + off}}}.", **fields)  # type: ignore[arg-type]
        )
    return found


def test_wrong_demonstrations_are_counted_and_shown(pool: GradingPool) -> None:
    (said,) = check_solutions(problems(30), pool)
    count, of = said.split()[0], said.split()[2]
    assert of == "50"
    assert 10 <= int(count) <= 20
    assert "boxed" in said


@pytest.mark.parametrize("wrong", [0, 2, 5])
def test_a_few_are_not_worth_a_word(pool: GradingPool, wrong: int) -> None:
    assert check_solutions(problems(wrong), pool) == []


def test_what_no_rule_decides_is_not_judged(pool: GradingPool) -> None:
    assert check_solutions(problems(50, verifier="length", reference=None), pool) == []
    turns = (Turn("policy", "3\n"), Turn("environment", "lower\n"))
    assert check_solutions(problems(50, demonstration_turns=turns, environment="guess"), pool) == []
    assert check_solutions(problems(50, environment="guess"), pool) == []  # a game won at the first turn
    ungraded = problems(50, reference="\\frac{1}{0}")  # the verifier cannot read the reference
    assert check_solutions(ungraded, pool) == []


def test_of_many_some_are_graded(pool: GradingPool) -> None:
    (said,) = check_solutions(problems(900, count=3000), pool)
    assert " of 64 demonstrations are wrong" in said
