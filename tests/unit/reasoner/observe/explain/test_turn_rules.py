"""Planted faults of runs with an environment, and healthy runs without an alarm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from reasoner.observe.explain import Level, findings
from tests.unit.reasoner.runs import Made, make_history, make_records


def played(
    *,
    calls: Callable[[int], float] = lambda step: 0.6,
    error: float = 0.05,
    said: str = "42\n",
    limit: float = 0.0,
    cut: float = 0.0,
    faults: Callable[[int], float] = lambda step: 0.0,
    wait: float = 0.01,
    worked: float = 2.0,
    score: bool = False,
    quotes: Callable[[dict], str] | None = None,
    unread: str = "",
    unshown: float = 0.0,
    trained: float = 0.0,
    seed: int = 0,
) -> Made:
    """A run in which a share of the rollouts calls a tool once."""

    def change(row: dict, rng: np.random.Generator) -> None:
        step = row["step"]
        reply = {
            "origin": "environment",
            "start": 3,
            "end": 6,
            "text": said,
            "done": False,
            "score": 0.0 if score else None,
            "data": None,
            "calls": 1,
            "errors": int(rng.random() < error),
            "cut": bool(rng.random() < cut),
        }
        turn = {"origin": "policy", "start": 0, "end": 3, "text": "<6*7>"}
        last = {"origin": "policy", "start": 6, "end": 12, "text": row["completion"]}
        if rng.random() < calls(step):
            row["turns"] = [turn, reply, last]
            if rng.random() >= trained:
                row["loss_mask"] = [not 3 <= place < 6 for place in range(12)]
            if quotes is not None:
                reply["text"] = last["text"] = quotes(row)
                row["completion"] = f"<6*7>{quotes(row)}\n{quotes(row)}"
                reply["errors"], right = 0, quotes(row) == row["reference"]
                row["reward"] = float(right)
                row["verdict"] |= {
                    "outcome": "correct" if right else "incorrect",
                    "reward": float(right),
                    "answer": quotes(row),
                }
            elif rng.random() < unshown:
                row["turns"] = [turn, reply]
        elif unread:
            row["completion"], row["reward"] = unread, 0.0
            row["verdict"] |= {"outcome": "incorrect", "reward": 0.0, "answer": None}
        if rng.random() < limit:
            row["finish_reason"], row["turns"] = "turns", [turn, reply, last]
            row["loss_mask"] = [not 3 <= place < 6 for place in range(12)]
        if rng.random() < faults(step):
            row["turns"] = [turn]
            row["reward"] = None
            row["verdict"] |= {
                "outcome": "verifier_error",
                "reward": None,
                "detail": {"reason": "RuntimeError: no server"},
                "verifier": "environment",
            }

    made = make_records(change=change, seed=seed)
    for figures in made.metrics:
        rows = [row for row in made.rollouts if row["step"] == figures["step"]]
        turns = [row.get("turns") or [] for row in rows]
        replies = [turn for one in turns for turn in one if turn["origin"] == "environment"]
        figures |= {
            "turns/mean": float(np.mean([max(1, sum(t["origin"] == "policy" for t in one)) for one in turns])),
            "turns/limit": float(np.mean([row["finish_reason"] == "turns" for row in rows])),
            "calls/mean": len(replies) / len(rows),
            "calls/share": float(np.mean([any(t.get("calls") for t in one) for one in turns])),
            "calls/error": sum(turn["errors"] for turn in replies) / max(1, len(replies)),
            "reply/cut": sum(turn["cut"] for turn in replies) / max(1, len(replies)),
            "environment/faults": float(np.mean([row["verdict"]["verifier"] == "environment" for row in rows])),
            "time/step": 10.0,
            "time/environment": 10 * wait * worked,
            "time/environment_wait": 10 * wait,
        }
    return made


@pytest.mark.parametrize(
    ("planted", "code", "level"),
    [
        ({"error": 1.0, "said": "error\n"}, "tool-down", Level.FAULT),
        ({"error": 0.5, "said": "Error: a parenthesis is not closed\n"}, "tool-errors", Level.WARNING),
        ({"calls": lambda step: max(0.0, 0.6 - 0.08 * step)}, "calls-collapse", Level.WARNING),
        ({"calls": lambda step: 0.0}, "no-calls", Level.WARNING),
        ({"limit": 0.5}, "turn-limit", Level.WARNING),
        ({"cut": 0.6}, "replies-cut", Level.WARNING),
        ({"wait": 0.4}, "environment-slow", Level.WARNING),
        ({"faults": lambda step: 0.02 * step}, "environment-fault", Level.FAULT),
        ({"quotes": lambda row: str(int(row["reference"]) + 1)}, "tool-wrong", Level.WARNING),
        ({"calls": lambda step: 0.0, "unread": "<calc>6*7"}, "calls-not-read", Level.FAULT),
        ({"unread": "<tool_call>{}"}, "calls-not-read", Level.WARNING),
        ({"unshown": 0.5}, "replies-not-shown", Level.WARNING),
        ({"trained": 1.0}, "replies-trained", Level.FAULT),
        ({"trained": 0.1}, "replies-trained", Level.FAULT),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_planted_fault_is_named_first(planted: dict, code: str, level: Level, seed: int) -> None:
    first = findings(make_history(played(**planted, seed=seed)))[0]
    assert (first.code, first.level) == (code, level), first.title


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_raises_no_alarm(seed: int) -> None:
    shares = (0.1 + 0.2 * seed, 0.3)
    made = played(calls=lambda step: min(1.0, shares[0] + 0.02 * step), error=0.1, limit=0.03, cut=0.02, seed=seed)
    assert [finding.code for finding in findings(make_history(made)) if finding.level is not Level.NOTE] == []


@pytest.mark.parametrize("seed", [0, 1])
def test_answers_that_repeat_right_replies_are_no_fault(seed: int) -> None:
    made = played(quotes=lambda row: row["reference"] if int(row["reference"]) % 10 else "7", seed=seed)
    assert "tool-wrong" not in {finding.code for finding in findings(make_history(made))}


def test_an_environment_that_gets_no_processor_is_not_called_slow() -> None:
    found = {finding.code: finding.level for finding in findings(make_history(played(wait=0.4, worked=0.01)))}
    assert "environment-slow" not in found
    assert found["environment-starved"] is Level.NOTE


def test_a_block_of_code_is_no_call_of_a_calculator() -> None:
    made = played(unread="```python\nprint(42)\n```\n")
    assert "calls-not-read" not in {finding.code for finding in findings(make_history(made))}


def test_the_marks_of_a_call_are_those_of_the_config() -> None:
    made = played(unread="<6*7")
    environment = {"name": "calculator", "options": {"opening": "<", "closing": ">"}}
    given = {"task": {"name": "arithmetic", "environment": environment}}
    codes = [{finding.code for finding in findings(make_history(made, **one))} for one in ({}, given)]
    assert ["calls-not-read" in found for found in codes] == [False, True]


def game(*, ending: str, seed: int = 0) -> Made:
    """A run of a game whose replies count no calls; half of its episodes end as `ending` says."""

    def change(row: dict, rng: np.random.Generator) -> None:
        ids = row["token_ids"]
        first = {"origin": "policy", "start": 0, "end": 3, "text": "23\n"}
        reply = {"origin": "environment", "start": 3, "end": 6, "text": "no\n", "score": 0.0, "done": False, "calls": 0}
        last = {"origin": "policy", "start": 6, "end": 14, "text": "22413443"}
        row["turns"] = [first, reply, last]
        if rng.random() < 0.5 and ending == "turn_tokens":
            row["finish_reason"], row["tokens"], row["token_ids"] = "length", 11, (ids * 14)[:14]
        elif rng.random() < 0.5 and ending == "end token":
            row["turns"] = [first, reply | {"end": 3}]

    made = make_records(change=change, seed=seed)
    for figures in made.metrics:
        zero = ("turns/limit", "calls/mean", "calls/share", "calls/error", "reply/cut", "environment/faults")
        figures |= {"turns/mean": 2.0, **dict.fromkeys(zero, 0.0)}
    return made


@pytest.mark.parametrize(
    ("ending", "code"), [("turn_tokens", "turn-tokens"), ("end token", "replies-not-shown"), ("done", None)]
)
def test_the_ends_of_a_game_are_told_apart(ending: str, code: str | None) -> None:
    history = make_history(game(ending=ending), rollout={"turn_tokens": 8})
    codes = {finding.code for finding in findings(history)}
    assert codes & {"turn-tokens", "replies-not-shown", "truncated", "no-calls"} == ({code} if code else set())


def test_lost_games_are_no_warning() -> None:
    found = {finding.code: finding.level for finding in findings(make_history(played(limit=0.5, score=True)))}
    assert found["turn-limit"] is Level.NOTE


def test_a_run_without_an_environment_has_none_of_these() -> None:
    codes = {finding.code for finding in findings(make_history(make_records()))}
    assert not codes & {"no-calls", "tool-down", "environment-fault", "turn-limit"}
