"""Evaluation problems that stand in the training data: found by shared runs of words, at load."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from tasks import Problem
from tasks.inputs.spool import Picked
from verifiers.stats import wilson_interval

NGRAM = 8
"""Words in a run. Tulu 3 (arXiv:2411.15124, section 3.2) matches runs of 8; so do we."""
SHARE = 0.5
"""Share of a problem's words that shared runs must cover; above a half in Tulu 3."""
COMMON = 0.01
"""A run in more than this share of the training problems, and in more than 10, is instruction text (ours)."""
ALIKE = 0.03
"""Where more of a task's training problems than this share SHARE of their words with another one, different problems
look alike there, as filled-in templates do (ours). It is 1 % in GSM8K, 9 % in prontoqa, 92 % in functions, 100 % in
countdown."""
SAMPLE = 512
"""Training problems of a task that are compared with the others (ours)."""

WORD = re.compile(r"\w+|[^\w\s]")


class Overlap(NamedTuple):
    """An evaluation problem and the training problem that it shares most with."""

    held_out: str
    train: str
    share: float
    """Of the evaluation problem's words, instruction text left out."""


class Near(NamedTuple):
    """The training problem that shares most words with a problem, of those that are not the same words."""

    place: int
    share: float


def find_overlaps(train: Sequence[Problem], held_out: Sequence[Problem]) -> list[Overlap]:
    """Every evaluation problem that is, word for word, a training problem, or shares half of its words with one.

    Shares are of words in runs of NGRAM; case and spacing do not count. Problems made from a template share that much
    with each other though they are different problems. So the training problems of a task are compared with each other
    too: where they often look alike, shared words count only if they are at least twice as frequent in the evaluation.

    Example:
        >>> from tasks import Problem
        >>> def problem(id, text): return Problem(id=id, prompt=text, reference="1", verifier="exact", task="t")
        >>> find_overlaps([problem("a", "1 + 1 =")], [problem("b", "1+1="), problem("c", "1+2=")])
        [Overlap(held_out='b', train='a', share=1.0)]
    """
    equal = _equal(train, held_out)
    near = _nearest(train, held_out)
    telling = {task for task in {train[one.place].task for one in near if one} if _tells(task, train, near)}
    found: list[Overlap] = []
    for problem, one in zip(held_out, near, strict=True):
        place = equal.get(hash(tuple(_words(problem))))
        if place is not None:
            found.append(Overlap(problem.id, train[place].id, 1.0))
        elif one is not None and train[one.place].task in telling:
            found.append(Overlap(problem.id, train[one.place].id, round(one.share, 3)))
    return found


def _equal(train: Sequence[Problem], held_out: Sequence[Problem]) -> dict[int, int]:
    """The first training problem that is, word for word, an evaluation problem, by the hash of its words."""
    looked_for = {hash(tuple(_words(problem))) for problem in held_out}
    found: dict[int, int] = {}
    for place, problem in enumerate(train):
        if (key := hash(tuple(_words(problem)))) in looked_for:
            found.setdefault(key, place)
    return found


def _tells(task: str, train: Sequence[Problem], near: Sequence[Near | None]) -> bool:
    """Whether sharing SHARE of the words with a training problem of this task says more than that it is of the task."""
    own = Picked(train, (place for place, problem in enumerate(train) if problem.task == task))
    sample = own if len(own) <= SAMPLE else random.Random(0).sample(own, SAMPLE)
    alike = sum(one is not None for one in _nearest(own, sample)) / len(sample)
    found = sum(one is not None and train[one.place].task == task for one in near)
    return alike <= ALIKE or wilson_interval(found, len(near)).low > 2 * alike


def _nearest(train: Sequence[Problem], tested: Sequence[Problem]) -> list[Near | None]:
    """For each problem the training problem that shares most with it, if that is SHARE or more."""
    looked_for = {run for problem in tested for run in _runs(_words(problem))}
    limit = max(10, int(COMMON * len(train)))
    places: dict[int, list[int]] = {}
    for place, problem in enumerate(train):
        for run in looked_for.intersection(_runs(_words(problem))):
            places.setdefault(run, []).append(place)
    telling = {run: found for run, found in places.items() if len(found) <= limit}
    common = places.keys() - telling.keys()
    return [_most_shared(problem, train, telling, common) for problem in tested]


def _most_shared(
    problem: Problem, train: Sequence[Problem], telling: Mapping[int, Sequence[int]], common: Set[int]
) -> Near | None:
    words = _words(problem)
    covered: dict[int, set[int]] = {}
    own: set[int] = set()
    for start, run in enumerate(_runs(words)):
        if run in common:
            continue
        own.update(range(start, min(start + NGRAM, len(words))))
        for place in telling.get(run, ()):
            covered.setdefault(place, set()).update(range(start, min(start + NGRAM, len(words))))
    for place in sorted(covered, key=lambda place: -len(covered[place])):
        share = len(covered[place]) / len(own)
        if share < SHARE:
            return None
        if _words(train[place]) != words:
            return Near(place, share)
    return None


def _words(problem: Problem) -> list[str]:
    prompt = problem.prompt
    text = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
    return WORD.findall(text.lower())


def _runs(words: Sequence[str]) -> Iterable[int]:
    """Hashes of every run of NGRAM words; of all words where there are fewer, marked so that they match as a whole."""
    if len(words) < NGRAM:
        return [hash(("whole", *words))]
    return map(hash, zip(*(words[start:] for start in range(NGRAM)), strict=False))


def overlap_sentence(overlaps: Sequence[Overlap], *, held_out: int, train: int) -> str:
    """What was found, in words."""
    first = "; ".join(f"{one.held_out} and {one.train} ({one.share:.0%})" for one in overlaps[:3])
    return (
        f"{len(overlaps)} of {held_out} evaluation problems stand, whole or for the most part, in the {train} training"
        f" problems (shared runs of {NGRAM} words): {first}. Accuracy on them may be memory: leave them out of the"
        " training data."
    )
