"""Requests with instructions: the same by seed, satisfiable together, graded by what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks import TaskError
from tasks.base import Problem
from tasks.instruction_prompts import KINDS, TOPICS, WRITABLE
from tasks.registry import get_task
from tasks.validate import Verifiers, unusable, validate_task
from verifiers import JSON, Verifier, get_verifier
from verifiers.instructions.verifier import CHECKS

ROOT = Path(__file__).parents[3]
TINY = {"kinds": [*WRITABLE], "largest": 6, "train_size": 300, "test_size": 30}


def test_requests_are_the_same_by_seed_and_every_reference_can_be_used() -> None:
    problems = get_task("instructions", train_size=600).problems("train")
    assert problems == get_task("instructions", train_size=600).problems("train")
    assert problems[:50] != get_task("instructions", train_size=600, seed=1).problems("train")[:50]
    assert unusable(problems, Verifiers()) == {}
    test = {problem.prompt for problem in get_task("instructions", test_size=60).problems("test")}
    assert not test & {problem.prompt for problem in problems}


def test_what_is_asked_for_is_in_the_prompt_and_in_the_reference() -> None:
    seen = set()
    for problem in get_task("instructions", train_size=600).problems("train"):
        assert isinstance(problem.reference, dict)
        ids, kwargs = problem.reference["instruction_id_list"], problem.reference["kwargs"]
        assert isinstance(ids, list)
        assert isinstance(kwargs, list)
        groups = [KINDS[str(id)].group for id in ids]
        assert len({*groups}) == len(groups)
        assert "alone" not in groups or groups == ["alone"]
        said = [KINDS[str(id)].put(given) for id, given in zip(ids, kwargs, strict=True)]  # type: ignore[arg-type]
        assert str(problem.prompt).endswith(". " + " ".join(said) + "\n")
        seen.update(map(str, ids))
    assert seen == set(KINDS)


def test_kinds_are_published_ones_with_all_their_arguments() -> None:
    assert {id: set(kind.draws) for id, kind in KINDS.items()} == {id: set(CHECKS[id].arguments) for id in KINDS}


def test_a_perfect_writer_follows_everything_and_a_careless_one_part_of_it() -> None:
    perfect = validate_task(get_task("instructions", **TINY, demonstrations="perfect"), "train")  # type: ignore[arg-type]
    assert perfect.faults == []
    verifier = get_verifier("instructions")
    careless = get_task("instructions", **TINY, demonstrations="careless").problems("train")  # type: ignore[arg-type]
    right = sum(
        verifier.verify(completion=str(problem.demonstration), reference=problem.reference).right
        for problem in careless
    )
    assert 0.25 < right / len(careless) < 0.75


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kinds": ["count:number"]}, "Did you mean 'count:numbers'"),
        ({"kinds": ["custom:multiples"]}, "kinds must be of those that are generated"),
        ({"kinds": []}, "kinds must not be empty"),
        ({"most": 0}, "most be between 1 and 8"),
        ({"largest": 2}, "largest must be between 3 and 1000"),
        ({"demonstrations": "good"}, "none, perfect or careless"),
        ({"demonstrations": "perfect"}, "kinds has 'keywords:forbidden_words'"),
        ({"kinds": ["count:numbers"], "demonstrations": "careless"}, "kinds has 'count:numbers'"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, object], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        get_task("instructions", **options)  # type: ignore[arg-type]


def test_no_fixed_text_follows_much_more_than_half_of_the_tiny_requests() -> None:
    """`instructions_tiny` must beat the best single text for every request."""
    problems, verifier = tiny_requests(), tiny_verifier()
    texts = [
        mark + comma.join(["owl"] * count) + mark
        for mark in ('"', "")
        for comma in (" ", ", ")
        for count in range(1, 9)
    ]
    best = max(
        sum(verifier.verify(completion=text, reference=problem.reference).right for problem in problems)
        for text in texts
    )
    assert 0.5 < best / len(problems) < 0.6


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('"owl, fox"', True),
        ('"owl"', True),
        ('"owl fox', False),
        ('"owl coa"""""', False),  # what training without the pattern comes to: marks up to the limit of tokens
        ('"owlfox"', False),
        ('""', False),
    ],
)
def test_instructions_tiny_accepts_names_of_animals_alone(text: str, right: bool) -> None:
    reference: JSON = {"instruction_id_list": ["startend:quotation"], "kwargs": [{}]}
    assert tiny_verifier().verify(completion=text, reference=reference).right is right
    for topic in TOPICS:
        assert tiny_verifier().verify(completion=f'"{topic}"', reference=reference).right


def tiny_config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "configs" / "instructions_tiny.yaml").read_text())["task"]


def tiny_requests() -> Sequence[Problem]:
    return get_task("instructions", **tiny_config()["options"]).problems("test")


def tiny_verifier() -> Verifier:
    given = tiny_config()["verifier"]
    return get_verifier(given["name"], **given["options"])
