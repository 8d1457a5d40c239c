"""The field that separates two kinds of problems, and near misses."""

from __future__ import annotations

import numpy as np
import pytest

from reasoner.observe.explain.pass_rates import fits, two_kinds
from reasoner.preflight.fields import (
    PROMPT,
    Facts,
    Side,
    belief_of,
    facts_of_problem,
    facts_of_row,
    hopeless_side,
    separating,
)
from tasks import Problem
from tests.unit.reasoner.runs import make_history, make_records

RNG = np.random.default_rng(0)
HARD = np.repeat([True, False], [60, 40])
COUNTS = [(0 if hard else int(RNG.binomial(8, 0.8)), 8) for hard in HARD]


def facts(**columns: list[str | float]) -> list[Facts]:
    return [{name: values[place] for name, values in columns.items()} for place in range(len(HARD))]


def of(hard: str | float, easy: str | float) -> list[str | float]:
    return [hard if is_hard else easy for is_hard in HARD]


def named(found: list[Facts]) -> tuple[str, str] | None:
    kinds = two_kinds(COUNTS)
    assert kinds is not None
    split = separating(found, COUNTS, kinds)
    return None if split is None else (str(split.rare), str(split.other))


def test_the_field_with_the_kinds_values_is_named() -> None:
    other = [f"s{place % 3}" for place in range(100)]
    assert named(facts(source=[*other], level=of(5, 1), **{PROMPT: of(20, 6)})) == ("level=5", "level=1")
    assert named(facts(source=[*other], **{PROMPT: of(20, 6)})) == (
        "prompts of more than 6 characters",
        "prompts of up to 6 characters",
    )
    assert named(facts(size=[float(p) if hard else 200.0 + p for p, hard in enumerate(HARD)])) == (
        "size up to 59",
        "size above 59",
    )
    families = [
        "logic" if hard and place % 2 else f
        for place, (hard, f) in enumerate(zip(HARD, of("sets", "sums"), strict=True))
    ]
    assert named(facts(family=[*families])) == ("family=logic or sets", "family=sums")


def test_a_field_that_separates_too_little_is_not_named() -> None:
    mixed = [value if place % 4 else 3 for place, value in enumerate(of(5, 3))]
    assert named(facts(level=[*mixed])) is None
    assert named(facts(level=[1.0] * 100)) is None, "it has one value"
    ids = [f"row{place}" for place in range(100)]
    assert named(facts(name=[*ids])) is None, "a name of each row is no kind"
    assert named([{"level": 5.0 if hard else 1.0} if place else {} for place, hard in enumerate(HARD)]) is None


@pytest.mark.parametrize(
    ("rare", "other", "told"),
    [
        ((0.0, 100), (0.4, 8), True),  # eight problems, too few to be told by their samples
        ((0.0, 100), (0.4, 4), False),
        ((0.1, 100), (0.5, 8), False),  # both have signal
        ((0.0, 100), (0.05, 8), False),
    ],
)
def test_problems_without_signal_are_told_by_their_field(
    rare: tuple[float, int], other: tuple[float, int], told: bool
) -> None:
    rng = np.random.default_rng(3)
    counts = [(int(rng.binomial(8, rate)), 8) for rate, size in (rare, other) for _ in range(size)]
    found = [{"level": value} for value, (_, size) in ((2.0, rare), (1.0, other)) for _ in range(size)]
    split = hopeless_side(found, counts, fits(counts)[0])
    assert (split is not None) is told
    if split is not None:
        assert (str(split.rare), str(split.other), split.sizes) == ("level=2", "level=1", (100, 8))
        low, high = belief_of(split, counts)
        assert low.mean < 0.01
        assert 0.2 < high.mean < 0.6


def test_a_field_without_meaning_tells_nothing() -> None:
    rng = np.random.default_rng(4)
    counts = [(int(rng.binomial(8, rate)), 8) for rate in rng.beta(0.3, 2, 150)]
    found: list[Facts] = [
        {"source": f"s{rng.integers(4)}", "size": float(rng.normal()), PROMPT: float(rng.integers(9, 40))}
        for _ in counts
    ]
    assert hopeless_side(found, counts, fits(counts)[0]) is None


def test_a_row_and_its_problem_have_the_same_facts() -> None:
    (row, *_) = make_history(make_records(steps=1)).rows
    row.info, row.task, row.difficulty = {"level": 3, "checked": True, "notes": ["a"], "url": "x" * 41}, "sums", 0.5
    problem = Problem(
        id=row.problem, prompt=row.question, reference=row.reference, verifier="exact", task="sums", difficulty=0.5,
        info=row.info,
    )  # fmt: skip
    assert facts_of_problem(problem) == facts_of_row(row)
    assert {key: facts_of_row(row)[key] for key in ("level", "checked", "task", "difficulty")} == {
        "level": 3, "checked": "true", "task": "sums", "difficulty": 0.5,
    }  # fmt: skip
    assert not {"notes", "url"} & facts_of_row(row).keys()


def test_a_side_holds_its_problems() -> None:
    assert Side("level", ("5",)).holds({"level": 5.0})
    assert not Side("level", ("5",)).holds({"level": 4.0})
    assert not Side("level", ("5",)).holds({})
    assert Side("size", high=6).holds({"size": 6.0})
    assert not Side("size", low=6).holds({"size": 6.0})
    assert not Side("size", low=6).holds({"size": "large"})
