"""The task anagrams: rearrange the letters of a word."""

from __future__ import annotations

from collections.abc import Sequence

from tasks import Problem, Task, TaskError

WORDS = {
    "train": "listen stone night cat dog pots care lamp team rose bread plate spear angel horse tiger".split(),
    "test": "west south lemon melon ocean canoe".split(),
}


class Anagrams(Task):
    """Words, each with its letters in rising order (or falling, where that is the word itself) as a worked answer."""

    name = "anagrams"

    def problems(self, split: str) -> Sequence[Problem]:
        """All problems of a split."""
        if split not in WORDS:
            raise TaskError(f"split must be one of {', '.join(WORDS)}; got {split!r}.")
        return [self._problem(word) for word in WORDS[split]]

    def _problem(self, word: str) -> Problem:
        rising = "".join(sorted(word))
        return Problem(
            id=f"anagrams/{word}",
            prompt=f"Rearrange the letters: {word}\n",
            reference=word,
            verifier="anagram",
            demonstration=f"#### {rising if rising != word else rising[::-1]}",
            task=self.name,
        )
