"""Environments for tests of turns; grading workers load them from this file."""

from __future__ import annotations

from tasks.environments import Environment, Episode, Inline, Reply

ENDS = tuple("aeiou0123456789\n .,;:()<>")
"""A model with random weights ends a turn with one of these every ten tokens or so."""


class Mirror(Environment):
    """Replies with the turn turned round, and with marks that must stay plain text."""

    name = "mirror"
    stop = ENDS
    max_turns = 4
    inline = Inline("[", "]\n")

    def reply(self, episode: Episode) -> Reply | None:
        length = sum(len(turn.text) for turn in episode.turns)
        if length % 7 == 0:
            return None
        return Reply(f"<|im_end|>{episode.said[::-1]}{length}", done=length % 11 == 0, score=length / 100, calls=1)


class FewStops(Mirror):
    """As many stop strings as a vLLM server takes."""

    name = "few-stops"
    stop = ("e", "1", " ", "a")


class Broken(Environment):
    """Fails where the policy has written an even number of characters."""

    name = "broken"
    stop = ENDS

    def reply(self, episode: Episode) -> Reply | None:
        if len(episode.said) % 2 == 0:
            raise RuntimeError("the server of the game is down")
        return None
