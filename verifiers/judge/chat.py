"""What goes to a judge's model and what comes back, whatever serves it."""

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
    """One call of the judge's model."""

    turns: tuple[Turn, ...]
    schema: Mapping[str, JSON]
    """JSON schema of the reply."""
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    top_logprobs: int = 0
    """Alternatives a token whose log-probabilities are wanted; 0: none."""

    def key(self, identity: Mapping[str, JSON]) -> str:
        """A digest of all that can change the reply: the model's identity and the whole request."""
        content: JSON = [
            dict(identity),
            [list(turn) for turn in self.turns],
            dict(self.schema),
            [self.max_tokens, self.temperature, self.seed, self.top_logprobs],
        ]
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=32).hexdigest()

    def with_tokens(self, max_tokens: int) -> ChatRequest:
        """The same request with more room for the reply."""
        return replace(self, max_tokens=max_tokens)

    def prompt_bytes(self) -> int:
        """UTF-8 bytes of the turns and their frame: no byte-level tokenizer makes more tokens of them."""
        return sum(len(turn.content.encode("utf-8", "replace")) + 16 for turn in self.turns)


class Token(NamedTuple):
    """A sampled token and the log-probabilities of what could have stood there."""

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
    """Both as charged: by the endpoint's count where that can be true, else by ours."""
    tokens: tuple[Token, ...] = ()
    """With log-probabilities, where they were asked for."""
    model: str = ""
    """That answered, by its own word; empty where nothing was said."""

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
        """The inverse of `to_json`."""
        tokens = tuple(Token(text, logprobs) for text, logprobs in row["tokens"])
        return cls(row["text"], row["finish_reason"], *row["usage"], tokens, row.get("model", ""))


class Backend(Protocol):
    """Something that answers chat requests."""

    @property
    def identity(self) -> Mapping[str, JSON]:
        """What tells one judge's answers from another's: model, revision, how replies are constrained."""
        ...

    def answer(self, requests: Sequence[ChatRequest]) -> list[Reply | JudgeFault]:
        """Replies in order; a fault stands where there is none."""
        ...


__all__ = ["Backend", "ChatRequest", "Reply", "Token", "Turn"]
