"""Records passed between the parts of the trainer. Letters: P problems, G group, B rows, T tokens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from tasks import Message, Problem
from tasks.environments.base import Reply
from verifiers import JSON, Verdict
from verifiers.text import whole


class FinishReason(StrEnum):
    """Reason why the engine stopped."""

    STOP = "stop"
    """An end token or a stop string was sampled."""
    LENGTH = "length"
    """The token limit was reached: the completion is truncated."""
    TURNS = "turns"
    """The limit of turns was reached while the environment still expected another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A turn: consecutive completion tokens with one origin. Without an environment one segment covers all."""

    start: int
    end: int
    """Equal to `start` for a last reply that ended the episode: it is recorded and not shown to the policy."""
    origin: str
    """"policy" (sampled, trained on) or "environment" (turn of a tool or user, never trained on)."""
    text: str = ""
    """Text as the environment and the verifier see it; empty where the completion has one segment."""
    reply: Reply | None = None
    """The reply, for a turn of an environment."""


class VersionSpan(NamedTuple):
    """Consecutive tokens of a completion that weights of one version sampled."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Output of an engine for one prompt."""

    text: str
    """Decoded completion without special tokens; includes the stop string that ended it."""
    token_ids: tuple[int, ...]
    """[T] sampled ids, including the end token if it was sampled."""
    rollout_logprobs: tuple[float, ...]
    """[T] log-probability of each sampled token under the sampling distribution (temperature applied)."""
    loss_mask: tuple[bool, ...]
    """[T] True if the policy sampled the token."""
    segments: tuple[Segment, ...]
    finish_reason: FinishReason
    policy_version: int
    """Version of the weights that sampled its first token (`version` of `load_weights`)."""
    versions: tuple[VersionSpan, ...] = ()
    """Spans of the sampled tokens, in order; empty where `policy_version` sampled all of them."""

    def __post_init__(self) -> None:
        """Make the text encodable as UTF-8, whichever engine decoded it."""
        object.__setattr__(self, "text", whole(self.text))

    @property
    def answer_text(self) -> str:
        """Text that is graded: the policy's last turn. Nothing that an environment wrote is read as an answer."""
        if len(self.segments) < 2:
            return self.text
        return next(part.text for part in reversed(self.segments) if part.origin == "policy")

    @property
    def policy_tokens(self) -> int:
        """Number of tokens that the policy sampled."""
        if len(self.segments) < 2:
            return len(self.token_ids)
        return sum(part.end - part.start for part in self.segments if part.origin == "policy")

    @property
    def token_versions(self) -> list[int]:
        """[T] version of the weights that sampled each token; of no meaning for tokens of an environment."""
        found = [self.policy_version] * len(self.token_ids)
        for span in self.versions:
            found[span.start : span.end] = [span.version] * (span.end - span.start)
        return found

    def turn_rows(self) -> list[JSON]:
        """The turns as JSON, for verifiers and for the records of a run; `text` is as the policy saw it."""
        return [
            {
                "origin": part.origin,
                "start": part.start,
                "end": part.end,
                "text": part.text,
                **({} if part.reply is None else {k: v for k, v in part.reply.to_json().items() if k != "text"}),
            }
            for part in self.segments
        ]

    def cut_in_turn(self, turn_tokens: int | None) -> bool:
        """Return True if the episode ended because a turn reached `rollout.turn_tokens`."""
        last = self.segments[-1]
        of_policy = self.finish_reason is FinishReason.LENGTH and last.origin == "policy"
        return of_policy and last.end - last.start == turn_tokens

    @property
    def replies(self) -> list[Reply]:
        """The environment's replies, in order."""
        return [part.reply for part in self.segments if part.reply is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A completion with its verdict."""

    problem: Problem
    prompt_text: str
    prompt_ids: tuple[int, ...]
    completion: Completion
    verdict: Verdict
    sample_index: int
    """Index within its group, 0 .. G-1."""
    step: int
    shaping: float = 0.0
    """Amount that the trainer adds to the verdict's reward (e.g. a length penalty); 0 if ungraded."""

    @property
    def reward(self) -> float | None:
        """Verdict's reward plus shaping; None if the completion could not be graded."""
        return None if self.verdict.reward is None else self.verdict.reward + self.shaping


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """G rollouts of one problem in sample order, including ungraded ones."""

    problem: Problem
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling distribution. In training top_p and top_k must be off, because they bias every importance ratio."""

    max_tokens: int
    temperature: float = 1.0
    """0: greedy decoding (evaluation only; its log-probabilities are those at temperature 1)."""
    top_p: float = 1.0
    top_k: int = 0
    """0: off."""
    stop: tuple[str, ...] = ()
    end_ids: tuple[int, ...] | None = None
    """The only tokens that end a completion; None: the end tokens of the model's tokenizer and generation config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Request for one completion."""

    prompt_ids: tuple[int, ...]
    max_tokens: int | None = None
    """Tokens of this completion; None: those of the sampling distribution, which are never exceeded."""
    stop: tuple[str, ...] | None = None
    """Stop strings of this completion; None: those of the sampling distribution."""
    seed: int
    """Seed of this request's own random state. The tokens do not depend on the other requests in the batch, up to
    rounding in batched arithmetic."""
    continued: bool = False
    """Another request may begin with the tokens of this one: an engine may keep their keys and values."""
    priority: int = 0
    """Of requests that wait for a server, those with the lowest go first."""
    version: int | None = None
    """Version of the adapter that samples it, for an engine that `pins`; None: the newest weights."""


def prompt_as_text(prompt: str | tuple[Message, ...]) -> str:
    """Return the problem's text for a verifier, without chat markup: the contents of all messages, one per line."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt)


class Dropped(NamedTuple):
    """A rollout that is left out of the update, and the reason."""

    group: int
    rollout: Rollout
    reason: str


class Estimate(NamedTuple):
    """A mean over problems with its 95 % interval."""

    value: float
    low: float
    high: float


Kept = list[tuple[int, Rollout]]
"""(group index, rollout) of every row of the update."""
