"""An answer that stands only in tool output earns nothing, with every shipped verifier that reads text.

The policy's turns are scripted; environments, grading pool, verifiers and the rollout are those of a run. The answers
are the verifiers' own examples of correct completions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest

from reasoner.config.sections import PromptSection
from reasoner.engine.base import Finished
from reasoner.model.load import byte_tokenizer
from reasoner.records import Completion, FinishReason, Request, Rollout, SamplingParams, Segment
from reasoner.rollout.round import RoundSampler
from reasoner.rollout.turns import TurnLimits
from tasks import Problem
from verifiers import JSON, Outcome, get_verifier
from verifiers.base import Example
from verifiers.pool import GradingPool

READ_TEXT = (
    *("choice", "code", "countdown", "criterion", "exact", "instructions", "json_schema", "logic", "math"),
    *("math-verify", "numeric"),
)
OPTIONS: dict[str, dict[str, JSON]] = {"code": {"sandbox": "unsafe-host"}}
SILENT = "I will not say."
# a program in a fence is an answer to `code`, and no call
PYTHON = {"parse": "tool_call", "sandbox": "unsafe-host", "cpu_seconds": 4.0}


def right(name: str) -> Example:
    """A correct completion, from the examples in the verifier's own documentation."""
    examples = get_verifier(name, **OPTIONS.get(name, {})).examples
    return next(one for one in examples if one.outcome is Outcome.CORRECT)


def printing(text: str) -> str:
    """A call whose output is the text, which does not stand in the call, nor a number of it."""
    code = f"print(''.join(chr(c ^ 60_000) for c in {[ord(c) ^ 60_000 for c in text]}))"
    return f"<tool_call>{json.dumps({'name': 'python', 'arguments': {'code': code}})}</tool_call>"


class Scripted:
    """Engine whose policy writes given turns, each up to a stop string; the prompt has the number of the script."""

    in_step = False

    def __init__(self, scripts: Sequence[Sequence[str]]) -> None:
        self.scripts, self.turn, self.tokenizer = scripts, 0, byte_tokenizer()

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Finished]:
        for index, request in enumerate(requests):
            number = re.match(r"script (\d+)", self.tokenizer.decode(list(request.prompt_ids)))
            assert number is not None
            text = self.scripts[int(number[1])][self.turn]
            ids = tuple(self.tokenizer.encode(text)) or (self.tokenizer.eos_token_id,)
            yield Finished(
                index,
                Completion(
                    text=text,
                    token_ids=ids,
                    rollout_logprobs=(0.0,) * len(ids),
                    loss_mask=(True,) * len(ids),
                    segments=(Segment(start=0, end=len(ids), origin="policy", text=text),),
                    finish_reason=FinishReason.STOP,
                    policy_version=0,
                ),
            )
        self.turn += 1


class Asked(NamedTuple):
    """An episode: a problem's grading, its environment, and the policy's turns."""

    verifier: str
    reference: JSON
    turns: Sequence[str]
    environment: str = "python"
    info: dict[str, JSON] = {}


def rollouts(pool: GradingPool, asked: Sequence[Asked], *, max_turns: int = 4) -> list[Rollout]:
    """Play and grade episodes as a run does."""
    problems = [
        Problem(
            id=f"p{number}",
            prompt=f"script {number}\n",
            reference=one.reference,
            verifier=one.verifier,
            verifier_options=OPTIONS.get(one.verifier, {}),
            info=one.info,
            environment=one.environment,
            environment_options=PYTHON if one.environment == "python" else {},
        )
        for number, one in enumerate(asked)
    ]
    sampler = RoundSampler(
        engine=Scripted([one.turns for one in asked]),  # pyright: ignore[reportArgumentType]
        pool=pool,
        tokenizer=byte_tokenizer(),
        prompt=PromptSection(chat="never"),
        seed=0,
        limits=TurnLimits(max_turns=max_turns, reply_tokens=4_096),
    )
    done = sampler.sample(problems, group_size=1, params=SamplingParams(max_tokens=20_000), seed_parts=(1,), step=1)
    return [group.rollouts[0] for group in done.all().groups]


@pytest.fixture(scope="module")
def pool() -> Iterator[GradingPool]:
    with GradingPool(workers=1) as made:
        yield made


@pytest.fixture(scope="module")
def played(pool: GradingPool) -> dict[str, list[Rollout]]:
    """For each verifier: the tool says the answer, and the policy's last turn is another text, empty, the answer."""
    asked = [
        Asked(name, one.reference, (printing(one.completion), last), info=dict(one.info))
        for name in READ_TEXT
        for one in [right(name)]
        for last in (SILENT, "", one.completion)
    ]
    found = rollouts(pool, asked)
    return {name: found[place * 3 : place * 3 + 3] for place, name in enumerate(READ_TEXT)}


@pytest.mark.parametrize("name", READ_TEXT)
def test_the_tools_words_earn_nothing_and_the_policys_own_earn(played: dict[str, list[Rollout]], name: str) -> None:
    silent, empty, quotes = played[name]
    for one in (silent, empty, quotes):
        (reply,) = one.completion.replies
        assert (reply.text, reply.errors) == (right(name).completion.rstrip("\n"), 0)
        assert right(name).completion.rstrip("\n") in one.completion.text
    assert silent.verdict.reward == empty.verdict.reward == 0.0, (silent.verdict, empty.verdict)
    assert quotes.verdict.reward == 1.0, quotes.verdict


def test_a_call_at_the_limit_of_turns_earns_nothing(pool: GradingPool) -> None:
    asked = [
        Asked(name, one.reference, (printing(one.completion),), info=dict(one.info))
        for name in READ_TEXT
        for one in [right(name)]
    ]
    for one in rollouts(pool, asked, max_turns=1):
        assert one.completion.finish_reason is FinishReason.TURNS
        assert one.verdict.reward == 0.0, (one.problem.verifier, one.verdict)


@pytest.mark.parametrize("name", ["exact", "numeric", "math", "math-verify"])
def test_what_the_calculator_says_earns_nothing(pool: GradingPool, name: str) -> None:
    call, boxed = "<calc>31336+1</calc>", "\\boxed{31337}"
    silent, empty, quotes, before, limit = rollouts(
        pool,
        [
            Asked(name, "31337", turns, environment="calculator")
            for turns in ((call, SILENT), (call, ""), (call, boxed), (f"{boxed} {call}", ""), (call,) * 3)
        ],
        max_turns=3,
    )
    assert [one.verdict.reward for one in (silent, empty, quotes)] == [0.0, 0.0, 1.0]
    assert before.verdict.reward == 0.0  # the last turn is the answer, whatever stood in an earlier one
    assert limit.completion.finish_reason is FinishReason.TURNS
    assert limit.verdict.reward == 0.0


def test_a_tool_without_a_score_earns_nothing_from_outcome(pool: GradingPool) -> None:
    says = printing('{"score": 1.0, "done": true}')
    (one,) = rollouts(pool, [Asked("outcome", None, (says, "score: 1.0"))])
    assert one.completion.replies[0].text == '{"score": 1.0, "done": true}'
    assert one.verdict.outcome is Outcome.NO_ANSWER
    assert one.verdict.reward == 0.0
