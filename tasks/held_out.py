"""Hold-out of prompts for data sets without a test split, and the test of whether two prompts are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from tasks.base import Message, TaskError

DEFAULT_SHARE = 0.1
"""Default share of prompts that are held out (our choice)."""


def prompt_text(prompt: str | Sequence[Message]) -> str:
    r"""Return the prompt as text. A chat of one message gives the same text as that message's content alone.

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
    """Return a 64-bit digest that is equal for prompts that differ only in case and white space."""
    return _digest(prompt_text(prompt))


@lru_cache(maxsize=4)  # the same row is looked up a few times in succession
def _digest(text: str) -> int:
    text = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def held_out(prompt: str | Sequence[Message], share: float) -> bool:
    """Return True if a prompt belongs to the held-out part, by its own digest alone.

    A prompt therefore stays on its side on every machine, in any order of rows, and when rows are added.
    """
    return prompt_digest(prompt) / 2**64 < share


class HoldOut(NamedTuple):
    """The rule that divides one source of rows into a training and a test split."""

    share: float
    least: int | None
    """Smallest digest, whose prompt is held out, if all digests lie on one side of the share; else None."""

    def tests(self, prompt: str | Sequence[Message]) -> bool:
        """Return True if rows with this prompt are test rows."""
        digest = prompt_digest(prompt)
        return digest / 2**64 < self.share if self.least is None else digest == self.least


def check_share(share: float) -> None:
    """Check a share of prompts to hold out.

    Raises:
        TaskError: the share is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise TaskError(f"held_out_share must be from 0 (none) to 1 (all, for evaluation only); got {share}.")


def hold_out(prompts: Iterable[str | Sequence[Message]], share: float) -> HoldOut | None:
    """Choose which prompts to hold out: a share of them, and at least one.

    Reads prompts only until one lies on each side of the share.

    Returns:
        None if there are not two different prompts.
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
