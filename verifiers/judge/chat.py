"""Requests to a judge model and its replies, independent of what serves the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, NotRequired, Protocol, TypedDict

from verifiers.judge.errors import JudgeFault
from verifiers.verdict import JSON


class Turn(NamedTuple):
    """A chat message."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One call of the judge model."""

    turns: tuple[Turn, ...]
    schema: Mapping[str, JSON]
    """JSON schema of the reply."""
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    top_logprobs: int = 0
    """Alternatives for each token whose log-probabilities are requested; 0: none."""

    def key(self, identity: Mapping[str, JSON]) -> str:
        """Return a hex digest of everything that can change the reply: the model's identity and the whole request."""
        content: JSON = [
            dict(identity),
            [list(turn) for turn in self.turns],
            dict(self.schema),
            [self.max_tokens, self.temperature, self.seed, self.top_logprobs],
        ]
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=32).hexdigest()

    def with_tokens(self, max_tokens: int) -> ChatRequest:
        """Return a copy of the request with another `max_tokens`."""
        return replace(self, max_tokens=max_tokens)

    def prompt_bytes(self) -> int:
        """Return the UTF-8 bytes of the turns, with 16 for the template of each: an upper bound of the prompt's tokens.

        No byte-level tokenizer makes more tokens of them.
        """
        return sum(len(turn.content.encode("utf-8", "replace")) + 16 for turn in self.turns)


class Token(NamedTuple):
    """A sampled token and the log-probabilities of its alternatives, itself included."""

    text: str
    logprobs: Mapping[str, float]


class StoredReply(TypedDict):
    """A reply as JSON."""

    text: str
    finish_reason: str
    usage: tuple[int, int]
    tokens: list[tuple[str, Mapping[str, float]]]
    model: NotRequired[str]


class Reply(NamedTuple):
    """A reply of the model."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    """Both as charged: the endpoint's count if it is plausible, otherwise our own (see `counting`)."""
    tokens: tuple[Token, ...] = ()
    """Tokens with log-probabilities; empty if none were requested."""
    model: str = ""
    """Name of the model that answered, as the server reports it; empty if it reports none."""

    def to_json(self) -> StoredReply:
        """Return the reply as the cache stores it."""
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "usage": (self.prompt_tokens, self.completion_tokens),
            "tokens": [(token.text, token.logprobs) for token in self.tokens],
            "model": self.model,
        }

    @classmethod
    def from_json(cls, row: StoredReply) -> Reply:
        """Build a reply from JSON: the inverse of `to_json`."""
        tokens = tuple(Token(text, logprobs) for text, logprobs in row["tokens"])
        return cls(row["text"], row["finish_reason"], *row["usage"], tokens, row.get("model", ""))


class Backend(Protocol):
    """Interface of anything that answers chat requests."""

    @property
    def identity(self) -> Mapping[str, JSON]:
        """Part of the cache key that distinguishes judges: model, revision, how replies are constrained."""
        ...

    def answer(self, requests: Sequence[ChatRequest]) -> list[Reply | JudgeFault]:
        """Return the replies in order, with a fault for each request that got none."""
        ...


__all__ = ["Backend", "ChatRequest", "Reply", "Token", "Turn"]
