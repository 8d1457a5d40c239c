"""Which prompts are held out where a data set has no test split, and when two prompts are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from tasks.base import Message, TaskError

DEFAULT_SHARE = 0.1
"""Of the prompts (ours)."""


def prompt_text(prompt: str | Sequence[Message]) -> str:
    r"""What is asked, without the difference between a text and a chat of one message.

    Example:
        >>> prompt_text("2+2?") == prompt_text([{"role": "user", "content": "2+2?"}])
        True
    """
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def prompt_digest(prompt: str | Sequence[Message]) -> int:
    """64 bits that two prompts share if they differ in nothing but case and white space."""
    return _digest(prompt_text(prompt))


@lru_cache(maxsize=4)  # the same row is asked for a few times, one after the other
def _digest(text: str) -> int:
    text = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def held_out(prompt: str | Sequence[Message], share: float) -> bool:
    """Whether a prompt belongs to the held-out part: by its own digest alone.

    So it stays there whatever the order of the rows, on every machine, and when rows are added.
    """
    return prompt_digest(prompt) / 2**64 < share


class HoldOut(NamedTuple):
    """How one source of rows becomes a training and a test split."""

    share: float
    least: int | None
    """Where all digests lie on one side of the share: the smallest of them, whose prompt is held out then."""

    def tests(self, prompt: str | Sequence[Message]) -> bool:
        """Whether rows with this prompt are test rows."""
        digest = prompt_digest(prompt)
        return digest / 2**64 < self.share if self.least is None else digest == self.least


def check_share(share: float) -> None:
    """Raise where no share of prompts can be held out.

    Raises:
        TaskError: says what to set.
    """
    if not 0 <= share <= 1:
        raise TaskError(f"held_out_share must be from 0 (none) to 1 (all, for evaluation alone); got {share}.")


def hold_out(prompts: Iterable[str | Sequence[Message]], share: float) -> HoldOut | None:
    """Hold out a share of the prompts, and at least one. Reads on until one prompt lies on either side.

    Returns:
        None where there are not two prompts that differ.
    """
    if share in (0, 1):  # training or evaluation alone
        return HoldOut(share, None)
    digests: set[int] = set()
    sides: set[bool] = set()
    for prompt in prompts:
        digests.add(digest := prompt_digest(prompt))
        sides.add(digest / 2**64 < share)
        if len(sides) == 2:
            return HoldOut(share, None)
    return HoldOut(share, min(digests)) if len(digests) > 1 else None


__all__ = ["DEFAULT_SHARE", "HoldOut", "check_share", "held_out", "hold_out", "prompt_digest", "prompt_text"]
