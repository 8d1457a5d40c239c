"""Tokens used by a call: the endpoint's count if it is plausible, otherwise an estimate from the texts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from verifiers.judge.chat import ChatRequest
from verifiers.verdict import JSON

PIECE = re.compile(r"[A-Za-z]{1,3}|\s+|.", re.DOTALL)
LONGEST_TOKEN = 64
"""Upper bound of the mean bytes per token of a text (our choice): no tokenizer packs a prompt more densely."""


class Tokens(NamedTuple):
    """Tokens of one call."""

    prompt: int
    completion: int


def tokens_of(text: str) -> int:
    """Overestimate the tokens of a text: about one for 2.3 bytes of English, one for each digit.

    Example:
        >>> tokens_of("Hello, world 42"), tokens_of("中文")
        (9, 4)
    """
    if text.isascii():
        return sum(1 for _ in PIECE.finditer(text))
    return sum(max(1, len(piece.group().encode("utf-8", "replace")) - 1) for piece in PIECE.finditer(text))


def own_count(request: ChatRequest, text: str | None) -> Tokens:
    """Estimate the tokens of a call without the endpoint's count; at most the number reserved for it.

    Args:
        request: the call.
        text: the reply as received, parsed or not; None: unknown, counted as max_tokens.
    """
    prompt = sum(tokens_of(turn.content) + 8 for turn in request.turns)
    completion = request.max_tokens if text is None else min(request.max_tokens, tokens_of(text))
    return Tokens(min(prompt, request.prompt_bytes()), completion)


def counted(usage: JSON, request: ChatRequest, text: str) -> Tokens:
    """Return the tokens of a call: the endpoint's counts if they are plausible, otherwise those of `own_count`.

    A plausible prompt has no more tokens than bytes; a plausible reply has no more than max_tokens, or than `tokens_of`
    its text. So the charge exceeds the reservation only if the text itself shows that the endpoint exceeded the limit.

    Args:
        usage: the field `usage` of the endpoint's answer, of any type.
        request: the call.
        text: of the reply.
    """
    own, reported = own_count(request, text), usage if isinstance(usage, dict) else {}
    least = request.prompt_bytes() // LONGEST_TOKEN
    prompt = _plausible(reported, "prompt_tokens", least, request.prompt_bytes())
    least = len(text.encode("utf-8", "replace")) // LONGEST_TOKEN
    most = max(request.max_tokens, tokens_of(text))
    completion = _plausible(reported, "completion_tokens", least, most)
    return Tokens(own.prompt if prompt is None else prompt, own.completion if completion is None else completion)


def _plausible(usage: Mapping[str, JSON], name: str, least: int, most: int) -> int | None:
    """Return a count from the endpoint's usage; None if it is no whole number from `least` (at least 1) to `most`."""
    value = usage.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        return None
    return int(value) if max(1, least) <= value <= most else None


__all__ = ["Tokens", "counted", "own_count", "tokens_of"]
