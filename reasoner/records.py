"""The records between the trainer's rooms. Letters: P problems, G group, B rows, T tokens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from tasks import Message, Problem
from verifiers import Verdict
from verifiers.text import whole


class FinishReason(StrEnum):
    """Why the engine stopped."""

    STOP = "stop"
    """An end token or a stop string."""
    LENGTH = "length"
    """The token limit: the completion is truncated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A run of completion tokens of one origin. Today one segment of the policy's own covers all."""

    start: int
    end: int
    origin: str
    """"policy" (sampled, trained on) or "environment" (a tool's or user's turn, never trained on)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What an engine yields for one prompt."""

    text: str
    """Decoded completion without special tokens; includes the stop string that ended it."""
    token_ids: tuple[int, ...]
    """[T] sampled ids, the end token included where it was sampled."""
    rollout_logprobs: tuple[float, ...]
    """[T] log-probability of each sampled token under the sampling distribution (temperature applied)."""
    loss_mask: tuple[bool, ...]
    """[T] True where the policy sampled the token."""
    segments: tuple[Segment, ...]
    finish_reason: FinishReason
    policy_version: int
    """Version of the weights that sampled it (given to `load_weights`)."""

    def __post_init__(self) -> None:
        """Make the text one that UTF-8 can hold, whatever engine decoded it."""
        object.__setattr__(self, "text", whole(self.text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A completion with its verdict."""

    problem: Problem
    prompt_text: str
    prompt_ids: tuple[int, ...]
    completion: Completion
    verdict: Verdict
    sample_index: int
    """0 .. G-1 within its group."""
    step: int
    shaping: float = 0.0
    """Added to the verdict's reward by the trainer (length penalty and its like); 0 where ungraded."""

    @property
    def reward(self) -> float | None:
        """Verdict reward plus shaping; None where the completion could not be graded."""
        return None if self.verdict.reward is None else self.verdict.reward + self.shaping


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """G rollouts of one problem, in sample order, ungraded ones included."""

    problem: Problem
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """The sampling distribution. In training top_p and top_k stay off: they bias every ratio."""

    max_tokens: int
    temperature: float = 1.0
    """0: greedy (evaluation only; logprobs are then those of temperature 1)."""
    top_p: float = 1.0
    top_k: int = 0
    """0: off."""
    stop: tuple[str, ...] = ()
    end_ids: tuple[int, ...] | None = None
    """Tokens that end a completion, these alone; None: the model's own, of its tokenizer and generation config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One completion to sample."""

    prompt_ids: tuple[int, ...]
    seed: int
    """Seeds this request's own random state: the tokens do not depend on which requests run beside it,
    up to the last bits of batched arithmetic."""


def prompt_as_text(prompt: str | tuple[Message, ...]) -> str:
    """The problem as a verifier reads it: without chat marks."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt)


class Dropped(NamedTuple):
    """A rollout that leaves the update, and why."""

    group: int
    rollout: Rollout
    reason: str


class Estimate(NamedTuple):
    """A mean over problems with its 95 % interval."""

    value: float
    low: float
    high: float


Kept = list[tuple[int, Rollout]]
"""(group, rollout) of every row of the update."""
