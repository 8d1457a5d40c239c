"""Evaluation problems that are also in the training data: found by shared runs of words when data is loaded."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from tasks import Problem
from tasks.inputs.spool import Picked
from verifiers.stats import wilson_interval

NGRAM = 8
"""Words in a run. Tulu 3 (arXiv:2411.15124, section 3.2) matches runs of 8; we use the same."""
SHARE = 0.5
"""Minimum share of a problem's words that shared runs must cover; above a half in Tulu 3."""
COMMON = 0.01
"""A run in more than this share of the training problems, and in more than 10, is instruction text (our choice)."""
ALIKE = 0.03
"""If more than this share of a task's training problems have SHARE of their words in common with another one, different
problems of that task look alike, as filled-in templates do (our choice). It is 1 % in GSM8K, 9 % in prontoqa, 92 % in
functions, 100 % in countdown."""
SAMPLE = 512
"""Training problems of a task that are compared with the others (our choice)."""

WORD = re.compile(r"\w+|[^\w\s]")


class Overlap(NamedTuple):
    """An evaluation problem and the training problem with which it has most in common."""

    held_out: str
    train: str
    share: float
    """Shared fraction of the evaluation problem's words; instruction text is not counted."""


class Near(NamedTuple):
    """The training problem that is most similar to a problem: by runs of words that few problems have. Exact copies are
    not counted.
    """

    place: int
    share: float


def find_overlaps(train: Sequence[Problem], held_out: Sequence[Problem]) -> list[Overlap]:
    """Find every evaluation problem that equals a training problem word for word, or shares half of its words with one.

    Only words in shared runs of NGRAM words count; case and spacing are ignored. Different problems made from one
    template also share that much. Therefore the training problems of a task are compared with each other too: if they
    often look alike, shared words count only if they are at least twice as frequent in the evaluation.

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
    """Map word hashes of the evaluation problems to the first training problem with exactly the same words."""
    looked_for = {hash(tuple(_words(problem))) for problem in held_out}
    found: dict[int, int] = {}
    for place, problem in enumerate(train):
        if (key := hash(tuple(_words(problem)))) in looked_for:
            found.setdefault(key, place)
    return found


def _tells(task: str, train: Sequence[Problem], near: Sequence[Near | None]) -> bool:
    """Return True if sharing SHARE of the words with a problem of this task means more than belonging to the task."""
    own = Picked(train, (place for place, problem in enumerate(train) if problem.task == task))
    sample = own if len(own) <= SAMPLE else random.Random(0).sample(own, SAMPLE)
    alike = sum(one is not None for one in _nearest(own, sample)) / len(sample)
    found = sum(one is not None and train[one.place].task == task for one in near)
    return alike <= ALIKE or wilson_interval(found, len(near)).low > 2 * alike


def _nearest(train: Sequence[Problem], tested: Sequence[Problem]) -> list[Near | None]:
    """Return for each problem the training problem that shares most with it; None below a share of SHARE."""
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
    """Return the hashes of all runs of NGRAM words; for a shorter text one hash, which matches only an equal text."""
    if len(words) < NGRAM:
        return [hash(("whole", *words))]
    return map(hash, zip(*(words[start:] for start in range(NGRAM)), strict=False))


def overlap_sentence(overlaps: Sequence[Overlap], *, held_out: int, train: int) -> str:
    """Describe the overlaps in a sentence."""
    first = "; ".join(f"{one.held_out} and {one.train} ({one.share:.0%})" for one in overlaps[:3])
    return (
        f"{len(overlaps)} of {held_out} evaluation problems are also, in whole or in large part, in the {train}"
        f" training problems (shared runs of {NGRAM} words): {first}. Accuracy on them may be memorization: leave"
        " them out of the training data."
    )
