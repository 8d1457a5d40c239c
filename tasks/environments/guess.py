"""Guess a number: the policy names numbers, and learns whether the hidden one is higher or lower."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.environments.base import Reply, Turn, environment
from verifiers import JSON

MOST_DIGITS = 9


@environment("guess", stop=("\n",), max_turns=6, sample_turns=("32\n", "x\n", "7\n"))
def guess(*, turns: Sequence[Turn], reference: JSON) -> Reply | None:
    """Reply higher, lower or right; the reference answer is the hidden number.

    Example:
        >>> guess(turns=[Turn("policy", "32\\n")], reference=40).text
        'higher\\n'
    """
    said = turns[-1].text.strip()
    if not (said.isascii() and said.isdecimal() and len(said) <= MOST_DIGITS):
        return Reply("a number, please\n", score=0.0, calls=1, errors=1)
    number, hidden = int(said), int(str(reference))
    if number == hidden:
        return Reply("right\n", done=True, score=1.0, calls=1)
    return Reply("higher\n" if number < hidden else "lower\n", score=0.0, calls=1)
