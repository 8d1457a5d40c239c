"""Demonstrations with turns: what is no episode, what an environment does not reply, what ends a turn otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tasks import Problem, Task, TaskError, Turn
from tasks.validate import demonstration_fault, grouped, validate_task

GUESS, REPLY = Turn("policy", "3\n"), Turn("environment", "higher\n")
GOOD = Problem(
    id="game/1",
    prompt="game 1\n",
    reference="7",
    verifier="outcome",
    environment="guess",
    demonstration="7\n",
    demonstration_turns=(GUESS, REPLY),
)


class Games(Task):
    """Given problems."""

    def __init__(self, *problems: Problem) -> None:
        self._problems = problems

    def problems(self, split: str) -> Sequence[Problem]:
        return self._problems


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"demonstration": None}, "no demonstration: put the policy's last turn into demonstration"),
        ({"environment": None}, "names no environment"),
        ({"demonstration_turns": (REPLY, GUESS)}, "turn 1 of its demonstration is of the environment"),
        ({"demonstration_turns": (GUESS, GUESS)}, "turn 2 of its demonstration is of the policy"),
        ({"demonstration_turns": (GUESS, REPLY, GUESS)}, "turn 3 of its demonstration has no reply"),
        (
            {"demonstration_turns": (GUESS, Turn("environment", "lower\n"))},
            r"replies 'higher\\n' to turn 1 of its demonstration, which has 'lower\\n'",
        ),
        ({"demonstration": "8\n"}, "its own demonstration is incorrect"),
    ],
)
def test_a_demonstration_that_cannot_have_happened_is_named(change: dict, says: str) -> None:
    found = validate_task(Games(GOOD, replace(GOOD, id="game/2", **change)), "train")
    assert (found.total, found.accepted) == (2, 1)
    assert says.replace("\\\\", "\\") in found.faults[0]


def test_a_good_one_has_no_fault() -> None:
    assert demonstration_fault(GOOD) is None
    found = validate_task(Games(GOOD), "train")
    assert (found.accepted, found.demonstrations, found.faults, found.stops) == (1, 1, [], [])


def test_a_turn_without_a_stop_string_is_named() -> None:
    turns = (Turn("policy", "3"), REPLY)
    found = validate_task(Games(replace(GOOD, demonstration_turns=turns)), "train")
    assert found.faults == []
    assert found.stops == [r"game/1: turn 1 does not end with a stop string of its environment ('\n')"]
    last = validate_task(Games(replace(GOOD, demonstration="7")), "train")
    assert "its last turn, the demonstration, does not end with a stop string" in last.stops[0]


def test_turns_must_be_turns_and_any_sequence_of_them_will_do() -> None:
    with pytest.raises(TaskError, match=r"problem game/1: demonstration_turns must hold Turn.*got 'go'"):
        replace(GOOD, demonstration_turns=("go",))
    assert replace(GOOD, demonstration_turns=[GUESS, REPLY]) == GOOD
    assert replace(GOOD, demonstration_turns=None).demonstration_turns == ()


def test_an_unknown_environment_is_an_error() -> None:
    with pytest.raises(TaskError, match="no environment named 'nonesuch'"):
        validate_task(Games(replace(GOOD, environment="nonesuch", demonstration=None, demonstration_turns=())), "train")


def test_equal_reasons_are_said_once() -> None:
    lines = [f"game/{number}: replies '{number}' to turn {number}" for number in range(40)]
    assert [*grouped([*lines, "game/50: its prompt is empty"])] == [
        "game/0: replies '0' to turn 0 (and 39 more like it)",
        "game/50: its prompt is empty",
    ]
