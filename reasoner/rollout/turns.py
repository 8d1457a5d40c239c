"""Episodes of several turns: the policy writes, its environment replies, and so on to an end or a limit.

Turns are played in rounds: round t samples turn t of all episodes that still run, in one call of the engine, while the
replies to finished turns are computed in the grading pool. The requests of a round are a function of the rounds before
it, whatever finished first. So a run with environments resumes exactly, as any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.config.errors import ConfigError
from reasoner.config.methods import METHODS
from reasoner.config.sections import PromptSection, RolloutSection
from reasoner.config.stage import StageConfig
from reasoner.data.prompt import TEMPLATE_FAULTS
from reasoner.data.replies import ReplyWriter
from reasoner.data.turns import Ends, Turns
from reasoner.engine.base import Finished
from reasoner.records import (
    Completion,
    FinishReason,
    Request,
    SamplingParams,
    Segment,
    VersionSpan,
    prompt_as_text,
)
from tasks import Problem, Turn
from tasks.environments.asked import ASKED, AskedEnvironment, Choice, asked_options, asked_row, reply_in
from tasks.environments.base import Environment, Episode, Reply
from tasks.environments.registry import get_environment
from verifiers import Verdict
from verifiers.pool import GradingPool

LOOKED_AT = 64
"""Problems of each task that are looked at before a run begins."""


def check_environments(
    parts: Iterable[Sequence[Problem]], config: StageConfig, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """Check that the environments of a stage can be made and shown, before anything is sampled.

    Args:
        parts: problems of each task; the first LOOKED_AT of each are looked at.
        config: of the stage.
        tokenizer: the policy's.
    Returns:
        Sentences for a person.
    Raises:
        TaskError: an environment cannot be made.
        ConfigError: the method or the reward reads a completion as one text, or the chat template shows no replies.
    """
    choices = {
        f"{problem.environment} {dict(problem.environment_options)}": problem
        for part in parts
        for problem in islice(part, LOOKED_AT)
        if problem.environment is not None
    }
    said: list[str] = []
    for problem in choices.values():
        name = str(problem.environment)
        if config.engine.name == "vllm" and config.engine.options.get("tensor_parallel_size", 1) != 1:
            raise ConfigError(
                "bad-value",
                f"engine.options.tensor_parallel_size must be 1 with an environment ({name}, of task {problem.task}):"
                " processes that share an engine must sample the same turns at the same time. Use one device for each"
                " engine, or engine.name=vllm-server.",
            )
        if not METHODS[config.method].several_turns:
            raise ConfigError(
                "bad-value",
                f"method {config.method} reads a completion as one text, and task {problem.task} has the environment"
                f" {name!r}. Take problems without an environment, or the method grpo, ppo, distill or sft.",
            )
        if config.reward is not None and config.reward.name == "reward-model":
            raise ConfigError(
                "bad-value",
                f"reward {config.reward.name!r} reads a completion as one text, and task {problem.task} has the"
                f" environment {name!r}. Reward with a verifier.",
            )
        made = get_environment(name, **problem.environment_options)
        writer = ReplyWriter.of(made, tokenizer, config.prompt, most_tokens=config.rollout.reply_tokens)
        if writer.role != "inline" and strips_thinking(tokenizer, writer.role):
            tool = "set prompt.reply=tool, or " if _keeps(writer.turns, "tool") else ""
            said.append(
                f"environment {name}: replies are messages of the role {writer.role}, and this chat template drops the"
                " thinking of earlier turns behind those. The policy is trained with its thinking kept;"
                f" {tool}serve the model without dropping it."
            )
    return said


def _keeps(turns: Turns, role: str) -> bool:
    return turns.reply_fault(role) is None and not strips_thinking(turns.tokenizer, role)


def strips_thinking(tokenizer: PreTrainedTokenizerBase, role: str) -> bool:
    """Return True if the chat template drops the thinking of an earlier turn behind a message of this role."""
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nkept7\n</think>\n\nb"},
        {"role": role, "content": "c"},
    ]
    try:
        return "kept7" not in str(tokenizer.apply_chat_template(messages, tokenize=False))
    except TEMPLATE_FAULTS:
        return False


class TurnLimits(NamedTuple):
    """Limits of an episode; see `rollout` in the config."""

    max_turns: int | None = None
    turn_tokens: int | None = None
    reply_tokens: int = 256

    @classmethod
    def of(cls, section: RolloutSection) -> TurnLimits:
        """The limits of a config section."""
        return cls(section.max_turns, section.turn_tokens, section.reply_tokens)


class Played(NamedTuple):
    """A finished episode."""

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  (as in `Finished`)
    """Position in the requests given to `play`."""
    completion: Completion
    fault: Verdict | None = None
    """Verdict of an environment that could not reply: the episode is not graded."""


@dataclass(slots=True)
class Waited:
    """Time that environments took in a round of sampling."""

    seconds: float = 0.0
    """Spent on replies, summed over the workers."""
    wait_seconds: float = 0.0
    """Waited for replies when no turn was left to sample."""


@dataclass(slots=True)
class _Episode:
    """An episode under way."""

    problem: Problem
    request: Request
    environment: Environment
    choice: Choice
    writer: ReplyWriter
    ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    segments: list[Segment] = field(default_factory=list[Segment])
    versions: list[VersionSpan] = field(default_factory=list[VersionSpan])
    end: int | None = None
    """The end token of the policy's latest turn; None if a stop string ended it."""

    def add_turn(self, piece: Completion, end_of: Callable[[Completion], int | None]) -> None:
        """Append a turn of the policy."""
        start = len(self.ids)
        self.ids += piece.token_ids
        self.logprobs += piece.rollout_logprobs
        self.segments.append(Segment(start=start, end=len(self.ids), origin="policy", text=piece.text))
        spans = piece.versions or (VersionSpan(piece.policy_version, 0, len(piece.token_ids)),)
        self.versions += [VersionSpan(version, start + first, start + last) for version, first, last in spans]
        self.end = end_of(piece)

    def add_reply(self, reply: Reply, ids: Sequence[int] = (), text: str | None = None) -> None:
        """Append a reply; without ids it is recorded and not shown."""
        start = len(self.ids)
        self.ids += ids
        self.logprobs += [0.0] * len(ids)
        shown = reply.text if text is None else text
        self.segments.append(Segment(start=start, end=len(self.ids), origin="environment", text=shown, reply=reply))

    def completion(self, reason: FinishReason) -> Completion:
        """All turns as one completion."""
        mask = [False] * len(self.ids)
        for part in self.segments:
            if part.origin == "policy":
                mask[part.start : part.end] = [True] * (part.end - part.start)
        return Completion(
            text="".join(part.text for part in self.segments),
            token_ids=tuple(self.ids),
            rollout_logprobs=tuple(self.logprobs),
            loss_mask=tuple(mask),
            segments=tuple(self.segments),
            finish_reason=reason,
            policy_version=self.versions[0].version,
            versions=tuple(self.versions) if len({span.version for span in self.versions}) > 1 else (),
        )

    def asked(self, seed: int) -> Episode:
        """The episode as the environment sees it."""
        turns = [
            Turn("policy", part.text) if part.reply is None else Turn("environment", part.reply.text, part.reply.data)
            for part in self.segments
        ]
        return Episode(
            turns=turns,
            prompt=prompt_as_text(self.problem.prompt),
            reference=self.problem.reference,
            info=self.problem.info,
            seed=seed,
        )


class Player:
    """Plays the episodes of one round of sampling."""

    def __init__(
        self,
        *,
        generate: Callable[[Sequence[Request], SamplingParams], Iterator[Finished]],
        pool: GradingPool,
        tokenizer: PreTrainedTokenizerBase,
        prompt: PromptSection,
        ends: Ends | None,
        limits: TurnLimits,
        in_step: bool = False,
    ) -> None:
        """`generate`: of the engine, stopping where a turn ends. `in_step`: of the engine, see there."""
        self._generate, self._pool, self._tokenizer = generate, pool, tokenizer
        self._prompt, self._ends, self._limits, self._in_step = prompt, ends, limits, in_step
        self._made: dict[str, tuple[Environment, ReplyWriter]] = {}
        self.waited = Waited()

    def play(
        self,
        problems: Sequence[Problem],
        requests: Sequence[Request],
        params: SamplingParams,
        *,
        seed_of: Callable[..., int],
        ranks: Sequence[int],
    ) -> Iterator[Played]:
        """Yield each completion as its episode ends; a problem without an environment has one turn.

        Args:
            problems: of each request.
            requests: first turns.
            params: the sampling distribution; max_tokens counts everything behind the prompt.
            seed_of: (index, *parts) to the seed of a later turn or of a reply.
            ranks: order in which the pool takes the replies.
        """
        episodes = {
            index: self._episode(problem, request)
            for index, (problem, request) in enumerate(zip(problems, requests, strict=True))
            if problem.environment is not None
        }
        live = [*range(len(requests))]
        turn = 0
        while live or (turn == 0 and self._in_step):
            given = [
                self._request(episodes[index], params, seed_of, index, turn) if index in episodes else requests[index]
                for index in live
            ]
            asked: dict[int, Future[Verdict]] = {}
            for place, piece in self._generate(given, params):
                index = live[place]
                if index not in episodes:
                    yield Played(index, piece)
                    continue
                episode = episodes[index]
                episode.add_turn(piece, self._end_of)
                if piece.finish_reason is FinishReason.LENGTH:
                    yield Played(index, episode.completion(FinishReason.LENGTH))
                    continue
                row = asked_row(episode.asked(seed_of(index, "reply", turn)), uses_seed=episode.environment.uses_seed)
                asked[index] = self._pool.submit(ASKED, asked_options(episode.choice), row, rank=ranks[index])
            turn += 1
            live = []
            for index in sorted(asked):
                done = self._replied(episodes[index], self._await(asked[index]), params, turn)
                if done is None:
                    live.append(index)
                else:
                    yield Played(index, *done)

    def _episode(self, problem: Problem, request: Request) -> _Episode:
        assert problem.environment is not None
        choice = Choice(problem.environment, problem.environment_options)
        key = f"{choice.name} {dict(choice.options)}"
        if key not in self._made:
            made = get_environment(choice.name, **choice.options)
            writer = ReplyWriter.of(made, self._tokenizer, self._prompt, most_tokens=self._limits.reply_tokens)
            self._made[key] = made, writer
        environment, writer = self._made[key]
        return _Episode(problem, request, environment, choice, writer)

    def _request(
        self, episode: _Episode, params: SamplingParams, seed_of: Callable[..., int], index: int, turn: int
    ) -> Request:
        left = params.max_tokens - len(episode.ids)
        stop = params.stop if self._ends is None else self._ends.stop
        return replace(
            episode.request,
            prompt_ids=(*episode.request.prompt_ids, *episode.ids),
            seed=seed_of(index, "turn", turn) if turn else episode.request.seed,
            max_tokens=min(left, self._limits.turn_tokens or left),
            stop=(*stop, *(text for text in episode.environment.stop if text not in stop)),
            continued=turn + 1 < (self._limits.max_turns or episode.environment.max_turns),
        )

    def _end_of(self, piece: Completion) -> int | None:
        ids = (self._tokenizer.eos_token_id,) if self._ends is None else self._ends.ids
        return piece.token_ids[-1] if piece.token_ids[-1] in ids else None

    def _await(self, asked: Future[Verdict]) -> Verdict:
        started = time.perf_counter()
        verdict = asked.result()
        self.waited.wait_seconds += time.perf_counter() - started
        self.waited.seconds += verdict.seconds
        return verdict

    def _replied(
        self, episode: _Episode, verdict: Verdict, params: SamplingParams, turns: int
    ) -> tuple[Completion, Verdict | None] | None:
        """Take a reply in; returns (completion, fault) where it ends the episode, None where the policy goes on."""
        if not verdict.graded:
            return episode.completion(FinishReason.STOP), replace(verdict, verifier=AskedEnvironment.name)
        reply = reply_in(verdict)
        if reply is None:
            return episode.completion(FinishReason.STOP), None
        most = self._limits.max_turns or episode.environment.max_turns
        if reply.done or turns >= most or not episode.writer.goes_on(ended=episode.end is not None):
            episode.add_reply(reply)
            stopped = reply.done or turns < most
            return episode.completion(FinishReason.STOP if stopped else FinishReason.TURNS), None
        written = episode.writer.write(reply.text, end=episode.end)
        if len(episode.ids) + len(written.ids) >= params.max_tokens:
            episode.add_reply(reply)
            return episode.completion(FinishReason.LENGTH), None
        episode.add_reply(replace(reply, cut=True) if written.cut else reply, written.ids, written.text)
        return None
