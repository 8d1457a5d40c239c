"""Duplicates, contradictions and shared rows, against a slow count."""

from __future__ import annotations

import random

import pytest

from tasks.survey import Survey, answer_digest, text_digest


def survey(rows: list[tuple[str, str]], numbers: range | None = None) -> Survey:
    found = Survey()
    for number, (asked, right) in zip(numbers or range(len(rows)), rows, strict=True):
        found.add(number, asked=text_digest(asked), right=answer_digest(right))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_a_slow_count(seed: int) -> None:
    source = random.Random(seed)
    rows = [(f"q{source.randrange(40)}", f"{source.randrange(3)}") for _ in range(source.randrange(200))]
    first: dict[str, int] = {}
    duplicates: list[tuple[int, int]] = []
    contradictions: list[tuple[int, int]] = []
    for number, (asked, right) in enumerate(rows):
        if asked in first:
            (duplicates if rows[first[asked]][1] == right else contradictions).append((first[asked], number))
        else:
            first[asked] = number
    found = survey(rows).repeats()
    assert (found.duplicates, found.contradictions) == (len(duplicates), len(contradictions))
    assert found.duplicate_rows == sorted(duplicates)[:3]
    assert found.contradiction_rows == sorted(contradictions)[:3]
    answers: dict[str, list[str]] = {}
    for asked, right in rows:
        answers.setdefault(asked, []).append(right)
    assert found.prompts == len(answers)
    assert found.sharing == sum(len(given) for given in answers.values() if len(given) > 1)
    assert found.contradicting == sum(len(given) for given in answers.values() if len(set(given)) > 1)


def test_rows_that_another_survey_has_too() -> None:
    train, test = survey([(f"q{n}", "1") for n in range(50)]), survey([("Q7", "2"), ("x", "1"), (" q9 ", "1")])
    assert test.shared(train) == (2, [0, 2])
    assert Survey().shared(train) == (0, [])
    assert Survey().repeats().duplicates == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("0.5", "1/2", True),
        ("42", 42, True),
        ("42", 42.0, True),
        ("1,000", "1000", True),
        ("6*7 = 42\n#### 42", "42", True),
        ("\\boxed{42}", "$42$", True),
        ("Paris", "paris", True),
        ("42", "-42", False),
        ("1/2", "2/1", False),
        ("1/0", "2/0", False),
        ({"answer": "A", "choices": ["x"]}, {"choices": ["x"], "answer": "A"}, True),
        (["2", "two"], ["two", "2"], False),
    ],
)
def test_reference_answers_that_say_the_same(one: object, other: object, same: bool) -> None:
    assert (answer_digest(one) == answer_digest(other)) == same  # pyright: ignore[reportArgumentType]
