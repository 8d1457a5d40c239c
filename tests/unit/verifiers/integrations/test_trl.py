"""A verifier as TRL's reward function: no content of a batch ends a run."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable

import pytest

from verifiers import BadReference
from verifiers.integrations.trl import TOLD_AFTER, reward_function

Reward = Callable[..., list[float | None]]


@pytest.fixture(scope="module")
def reward() -> Reward:
    return reward_function("math", reference="solution", workers=1)


def call(reward: Reward, reference: object, *, times: int = 4) -> list[float | None]:
    return reward(prompts=["?"] * times, completions=["#### 3"] * times, solution=[reference] * times)


def test_a_batch_without_a_usable_reference_is_none_throughout(reward: Reward) -> None:
    assert call(reward, "???") == [None] * 4
    assert call(reward, "3") == [1.0] * 4


@pytest.mark.parametrize(
    "odd",
    [None, b"3", {3}, datetime.date(2026, 1, 1), object(), ["a", {}], "\ud800", 10**5000],
    ids=["null", "bytes", "set", "date", "object", "mixed list", "half a character", "too many digits"],
)
def test_a_reference_that_is_no_json_is_none_and_leaves_the_other_rows(reward: Reward, odd: object) -> None:
    assert reward(prompts=["?", "?"], completions=["#### 3"] * 2, solution=[odd, "3"]) == [None, 1.0]


def test_numbers_of_numpy_are_numbers() -> None:
    import numpy as np

    numeric = reward_function("numeric", reference="solution", workers=1)
    assert call(numeric, np.int64(3)) == [1.0] * 4
    assert call(numeric, np.float32(4)) == [0.0] * 4


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ([{"role": "assistant", "content": "#### 3"}], 1.0),
        ([{"role": "assistant", "content": [{"type": "text", "text": "#### 3"}]}], 1.0),
        ([{"role": "assistant", "content": None}, {"role": "tool", "content": "#### 3"}], 0.0),
        ([{"role": "user", "content": "#### 3"}, {"role": "assistant", "content": "#### 4"}], 0.0),
        ([], None),
        (None, None),
        (7, None),
    ],
    ids=["chat", "parts", "a tool's answer", "the user's answer", "no message", "null", "a number"],
)
def test_only_what_the_assistant_said_is_graded(reward: Reward, completion: object, expected: float | None) -> None:
    assert reward(prompts=["?"], completions=[completion], solution=["3"]) == [expected]


def test_batches_in_a_row_without_a_reward_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    reward = reward_function("math", reference="solution", workers=1)
    for turn in range(TOLD_AFTER - 1):
        call(reward, rf"\frac{{{turn}")
    call(reward, "3")  # a batch with a reward between them
    for turn in range(TOLD_AFTER - 1):
        call(reward, rf"\frac{{{turn}")
    assert not caplog.records
    for turn in range(3 * TOLD_AFTER):
        call(reward, rf"\sqrt{{{turn}")
    (told,) = caplog.records
    said = told.getMessage()
    assert f"{TOLD_AFTER} batches in a row" in said
    assert r"'\\frac{0', '\\frac{1', '\\sqrt{0'" in said
    assert "column 'solution'" in said
    assert "'3'" not in said


def test_a_column_that_is_missing_is_told_at_the_first_batch_and_ends_no_run_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reward = reward_function("math", reference="solution", workers=1)
    with pytest.raises(BadReference, match="must have a column 'solution'; its columns: answer"):
        reward(prompts=["?"], completions=["#### 3"], answer=["3"])
    assert call(reward, "3") == [1.0] * 4
    assert reward(prompts=["?"], completions=["#### 3"], answer=["3"]) == [None]
