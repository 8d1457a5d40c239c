"""Evaluation problems that stand in the training data: found by shared runs of words, at load. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from tasks import Problem

NGRAM = 8
"""Words in a run. Tulu 3 (arXiv:2411.15124, section 3.2) matches runs of 8; so do we."""
SHARE = 0.5
"""Share of a problem's words that shared runs must cover; above a half in Tulu 3."""
COMMON = 0.01
"""A run in more than this share of the training problems, and in more than 10, is instruction text (ours)."""

WORD = re.compile(r"\w+|[^\w\s]")


class Overlap(NamedTuple):
    """An evaluation problem and the training problem that it shares most with."""

    held_out: str
    train: str
    share: float
    """Of the evaluation problem's words, instruction text left out."""


def find_overlaps(train: Sequence[Problem], held_out: Sequence[Problem]) -> list[Overlap]:
    """Every evaluation problem of whose words SHARE or more lie in runs of NGRAM words of one training problem.

    Problems with fewer words than a run overlap where all their words are equal. Case and spacing do not count.

    Example:
        >>> from tasks import Problem
        >>> def problem(id, text): return Problem(id=id, prompt=text, reference="1", verifier="exact", task="t")
        >>> find_overlaps([problem("a", "1 + 1 =")], [problem("b", "1+1="), problem("c", "1+2=")])
        [Overlap(held_out='b', train='a', share=1.0)]
    """
    tested = {run for problem in held_out for run in _runs(_words(problem))}
    limit = max(10, int(COMMON * len(train)))
    places: dict[int, list[int]] = {}
    for place, problem in enumerate(train):
        for run in tested.intersection(_runs(_words(problem))):
            places.setdefault(run, []).append(place)
    telling = {run: found for run, found in places.items() if len(found) <= limit}
    common = places.keys() - telling.keys()
    found: list[Overlap] = []
    for problem in held_out:
        place, share = _most_shared(problem, telling, common)
        if share >= SHARE:
            found.append(Overlap(problem.id, train[place].id, round(share, 3)))
    return found


def _most_shared(problem: Problem, telling: Mapping[int, Sequence[int]], common: Set[int]) -> tuple[int, float]:
    """The training problem that shares most words with this one, and their share of its own."""
    words = _words(problem)
    size = min(NGRAM, len(words))
    covered: dict[int, set[int]] = {}
    own: set[int] = set()
    for start, run in enumerate(_runs(words)):
        if run in common:
            continue
        own.update(range(start, start + size))
        for place in telling.get(run, ()):
            covered.setdefault(place, set()).update(range(start, start + size))
    if not covered:
        return -1, 0.0
    most = max(covered, key=lambda place: len(covered[place]))
    return most, len(covered[most]) / len(own)


def _words(problem: Problem) -> list[str]:
    prompt = problem.prompt
    text = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
    return WORD.findall(text.lower())


def _runs(words: Sequence[str]) -> Iterable[int]:
    """Hashes of every run of NGRAM words; of all words where there are fewer, marked so that they match as a whole."""
    if len(words) < NGRAM:
        yield hash(("whole", *words))
        return
    for start in range(len(words) - NGRAM + 1):
        yield hash(tuple(words[start : start + NGRAM]))


def overlap_sentence(overlaps: Sequence[Overlap], *, held_out: int, train: int) -> str:
    """What was found, in words."""
    first = "; ".join(f"{one.held_out} and {one.train} ({one.share:.0%})" for one in overlaps[:3])
    return (
        f"{len(overlaps)} of {held_out} evaluation problems stand in the {train} training problems (shared runs of"
        f" {NGRAM} words): {first}. Accuracy on them is memory, not skill: leave them out of the training data."
    )


__all__ = ["NGRAM", "SHARE", "Overlap", "find_overlaps", "overlap_sentence"]
