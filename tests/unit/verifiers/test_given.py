"""Grading in one call, from wherever Python runs."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

import verifiers
from verifiers import Outcome, UnknownVerifier, Verdict, get_verifier, grade

ASYNCHRONOUS = """
import asyncio

async def own(completion, reference):
    await asyncio.sleep(0)
    return completion == reference
"""
ASKED = {"role": "user", "content": "what is 1+2? is it #### 3?"}


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("so #### 3", True),
        ({"role": "assistant", "content": "#### 3"}, True),
        ([ASKED, {"role": "assistant", "content": "#### 3"}], True),
        (({"role": "assistant", "content": "#### 3"},), True),
        (
            [{"role": "assistant", "content": [{"type": "text", "text": "so #### "}, {"type": "text", "text": "3"}]}],
            True,
        ),
        ([{"role": "system", "content": "#### 3"}, ASKED, {"role": "assistant", "content": "no idea"}], False),
        ([{"role": "assistant", "content": "#### 3"}, ASKED, {"role": "assistant", "content": "#### 4"}], False),
        ([{"role": "assistant", "content": None}, {"role": "tool", "content": "#### 3"}], False),
        ([{"role": "assistant", "content": [{"type": "image", "url": "#### 3"}]}], False),
        ([{"role": "assistant"}], False),
    ],
)
def test_what_the_assistant_said_last_is_graded(completion: Any, right: bool) -> None:
    assert grade("math", completion, "3").right is right


@pytest.mark.parametrize(
    ("completion", "says"),
    [
        (None, "text or chat messages {role, content}; got NoneType"),
        (float("nan"), "got float"),
        (b"#### 3", "got bytes"),
        ([1, 2], "got list. Decode tokens first"),
        (["#### 3"], "got list"),
        ([], "must end with a message of the assistant; got the roles: no message"),
        ([ASKED], "got the roles: user"),
        ([{"role": "assistant", "content": "#### 3"}, ASKED], "got the roles: assistant, user"),
        ([{"content": "#### 3"}], "got the roles: None"),
    ],
)
def test_what_is_no_completion_is_refused(completion: Any, says: str) -> None:
    with pytest.raises(TypeError) as caught:
        grade("math", completion, "3")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "outcome"),
    [
        (["2", "3"], "correct"),
        (("3", "two"), "correct"),
        ({"any": ["7", "3"]}, "correct"),
        (["4", "5"], "incorrect"),
        (["2", "\\frac{"], "incorrect"),
        ([], "bad_reference"),
        ({"any": []}, "bad_reference"),
        (["\\frac{"], "bad_reference"),
    ],
)
def test_of_several_references_any_is_right(reference: object, outcome: str) -> None:
    assert grade("math", "#### 3", reference).outcome == outcome


def test_references_come_as_data_frames_hold_them() -> None:
    import numpy as np

    assert grade("numeric", "#### 3", np.int64(3)).right
    assert grade("countdown", "<answer>1 + 2</answer>", {"target": np.int64(3).item(), "numbers": (1, 2)}).graded
    with pytest.raises(TypeError, match=r"reference must be JSON .* got set"):
        grade("math", "#### 3", {3})
    with pytest.raises(TypeError, match="got object"):
        grade("math", "#### 3", object())


def test_options_prompt_and_verifiers_of_ones_own() -> None:
    assert grade("choice", "The answer is no.", "no", choices=["yes", "no"]).right
    assert not grade("choice", "The answer is no.", "yes", choices=["yes", "no"]).right
    assert grade(get_verifier("exact"), "#### a", "a").right

    async def asked(completion: str, prompt: str) -> bool:
        await asyncio.sleep(0)
        return prompt in completion

    verifiers.verifier("asked-for-this-test")(asked)
    assert grade("asked-for-this-test", "what? that", None, prompt=[{"role": "user", "content": "what?"}]).right
    with pytest.raises(UnknownVerifier, match="Did you mean 'math'"):
        grade("mth", "3", "3")


def test_it_grades_in_a_running_loop_and_from_threads(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(ASYNCHRONOUS)

    async def inside() -> list[bool]:
        together = await asyncio.gather(*(asyncio.to_thread(grade, "math", "#### 3", str(n)) for n in range(5)))
        return [grade(f"{own}:own", "a", "a").right, *(verdict.right for verdict in together)]

    assert asyncio.run(inside()) == [True, False, False, False, True, False]
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(grade(f"{own}:own", "a", "a").right)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [True] * 4


def test_a_verdict_is_neither_true_nor_false_and_travels_as_json() -> None:
    for reference in ("3", "4", "?"):
        verdict = grade("math", "#### 3", reference)
        for asked in (
            bool,
            lambda one: not one,
            lambda one: one or 1,
            lambda one: any([one]),
            lambda one: [*filter(None, [one])],
        ):
            with pytest.raises(TypeError, match=rf"this one is {verdict.outcome}. Use `verdict.right`"):
                asked(verdict)
        assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict
    assert grade("math", "#### 3", "?").outcome is Outcome.BAD_REFERENCE
