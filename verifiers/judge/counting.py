"""What a call took, counted by ourselves, and what an endpoint says of it where that can be true."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from verifiers.judge.chat import ChatRequest
from verifiers.verdict import JSON

PIECE = re.compile(r"[A-Za-z]{1,3}|\s+|.", re.DOTALL)
LONGEST_TOKEN = 64
"""Bytes of a token, on average over a text; no tokenizer packs a prompt closer (ours)."""


class Tokens(NamedTuple):
    """Of one call."""

    prompt: int
    completion: int


def tokens_of(text: str) -> int:
    """More tokens than an ordinary tokenizer makes of a text: about one for 2.3 bytes of English, each digit one.

    Example:
        >>> tokens_of("Hello, world 42"), tokens_of("中文")
        (9, 4)
    """
    if text.isascii():
        return sum(1 for _ in PIECE.finditer(text))
    return sum(max(1, len(piece.group().encode("utf-8", "replace")) - 1) for piece in PIECE.finditer(text))


def own_count(request: ChatRequest, text: str | None) -> Tokens:
    """What a call took, without a word of the endpoint's; at most what was reserved for it.

    Args:
        request: the call.
        text: that came back, of whatever form; None: how much came is not known.
    """
    prompt = sum(tokens_of(turn.content) + 8 for turn in request.turns)
    completion = request.max_tokens if text is None else min(request.max_tokens, tokens_of(text))
    return Tokens(min(prompt, request.prompt_bytes()), completion)


def counted(usage: JSON, request: ChatRequest, text: str) -> Tokens:
    """What a call took by the endpoint's word, and by our own count where it says nothing or what cannot be.

    A prompt has no more tokens than bytes, and a reply no more than were allowed or stand in it: what is charged is
    never more than what was reserved, unless the text that came shows that the endpoint went beyond the limit.
    """
    own, said = own_count(request, text), usage if isinstance(usage, dict) else {}
    least = request.prompt_bytes() // LONGEST_TOKEN
    prompt = _said(said, "prompt_tokens", least, request.prompt_bytes())
    least = len(text.encode("utf-8", "replace")) // LONGEST_TOKEN
    most = max(request.max_tokens, tokens_of(text))
    completion = _said(said, "completion_tokens", least, most)
    return Tokens(own.prompt if prompt is None else prompt, own.completion if completion is None else completion)


def _said(usage: Mapping[str, JSON], name: str, least: int, most: int) -> int | None:
    """A number of the endpoint's; None where it is none that can be."""
    value = usage.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        return None
    return int(value) if max(1, least) <= value <= most else None


__all__ = ["Tokens", "counted", "own_count", "tokens_of"]
