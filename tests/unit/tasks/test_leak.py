"""Prompts that end in their answer are distinguished from those that only contain the same number or word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks import Message, Problem
from tasks.leak import final_answer, prompt_leak
from tasks.validate import Verifiers, suspects, unusable

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "cases" / "prompt_leaks.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize("case", CASES, ids=[repr(case["prompt"][-40:]) for case in CASES])
def test_a_declared_answer_a_bare_one_and_none(case: dict[str, object]) -> None:
    chat = (Message(role="system", content="Answer: 42"), Message(role="user", content=str(case["prompt"])))
    for prompt in (str(case["prompt"]), chat):
        found = prompt_leak(prompt, case["reference"])  # pyright: ignore[reportArgumentType]
        assert (found and found.sure) == case["sure"], found


def test_a_chat_that_ends_with_the_assistant_leaks_whatever_it_says() -> None:
    asked = Message(role="user", content="2+2?")
    said = Message(role="assistant", content="I am thinking.")
    assert prompt_leak((asked, said), "4")
    assert prompt_leak((asked, said, asked), "4") is None


def problems(count: int, *, leaking: int) -> list[Problem]:
    return [
        Problem(
            id=str(n),
            prompt=f"What is {n}+1?" + (f"\n{n + 1}" if n < leaking else ""),
            reference=str(n + 1),
            verifier="math",
        )
        for n in range(count)
    ]


def test_a_bare_answer_is_a_fault_where_most_prompts_end_so_and_a_question_otherwise() -> None:
    assert not unusable(problems(10, leaking=5), Verifiers())
    assert [*suspects(problems(10, leaking=5))] == [0, 1, 2, 3, 4]
    assert [*unusable(problems(10, leaking=6), Verifiers())] == [0, 1, 2, 3, 4, 5]


def test_the_final_answer_of_a_solution() -> None:
    assert final_answer("6 * 7 = 42\n#### 1,042") == "1042"
    assert final_answer("so it is \\boxed{x^2}.") == "x^2"
    assert final_answer("$42.$") == final_answer("42") == "42"
