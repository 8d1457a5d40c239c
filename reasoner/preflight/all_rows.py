"""Faults of the data that only all rows show: copies, contradicting references, held-out rows that are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from reasoner.config.stage import StageConfig
from reasoner.data.check import Shared, shared_rows
from reasoner.data.figures import NEAR_TESTED, Figures, of_problem
from reasoner.observe.explain.prompt_rules import COPIES, TWINS
from reasoner.observe.explain.significance import percent
from tasks import Problem
from tasks.registry import get_task
from tasks.survey import Repeats
from verifiers import JSON


class AllRows(NamedTuple):
    """Counts over all rows of a stage."""

    train: int
    repeats: Repeats
    """Of the training rows."""
    examples: tuple[str, ...]
    """Names of two rows that contradict each other; empty if there are none."""
    tested: int = 0
    """Held-out rows; 0 if nothing is evaluated."""
    shared: Shared | None = None
    """Held-out rows that are also training rows."""

    @property
    def contradicts(self) -> bool:
        """True if more rows contradict each other than labels of public data are wrong."""
        return self.repeats.contradicting >= TWINS * max(1, self.train)

    def to_json(self) -> dict[str, JSON]:
        """Return the counts as a JSON object."""
        return {
            "train": self.train,
            "prompts": self.repeats.prompts,
            "sharing_a_prompt": self.repeats.sharing,
            "contradicting": self.repeats.contradicting,
            "held_out": self.tested,
            "held_out_in_train": self.shared.equal if self.shared else 0,
            "held_out_near_train": len(self.shared.near) if self.shared else 0,
        }


def count_rows(parts: Sequence[Sequence[Problem]], config: StageConfig, *, tests: bool) -> AllRows:
    """Count the training rows of each task, and the held-out ones if the config evaluates.

    Raises:
        TaskError: the evaluation split cannot be read.
    """
    train, test = Figures("train"), Figures("test")
    for part in parts:
        for problem in part:
            train.add(of_problem(problem))
    repeats = train.survey.repeats()
    examples = tuple(map(train.named, repeats.contradiction_rows[0])) if repeats.contradiction_rows else ()
    if not tests:
        return AllRows(train.usable, repeats, examples)
    for section in config.task:
        for one in get_task(section.name, **section.options).each(section.eval_split):
            if isinstance(one, Problem):
                test.add(of_problem(one))
    near = 0 if config.eval.overlap == "off" else NEAR_TESTED
    return AllRows(train.usable, repeats, examples, test.usable, shared_rows(train, test, tested=near))


def row_sentences(found: AllRows, *, answers: bool) -> Iterator[str]:
    """Yield advice on rows that contradict each other, on copies, and on held-out rows that are trained on.

    Args:
        found: the counts.
        answers: True if verifiers compare with the reference; otherwise different references are no contradiction.
    """
    repeats, rows = found.repeats, max(1, found.train)
    sharing = f"{percent(repeats.sharing / rows)} of them share their prompt with another row"
    if answers and found.contradicts:
        first, second = found.examples
        yield (
            f"{percent(repeats.contradicting / rows)} of the {found.train} training rows ({repeats.contradicting}) have"
            f" the prompt of another row and another reference, such as {first} and {second} ({sharing}): the model"
            " cannot know which is meant. Check how prompts are made (template, columns), and fix or drop the wrong"
            " references."
        )
    if found.train >= 16 and repeats.sharing >= COPIES * rows:
        yield (
            f"the {found.train} training rows have only {repeats.prompts} different prompts ({sharing}): drop the"
            " copies, which are drawn as often as all others."
        )
    shared = found.shared
    if shared is None or not (shared.equal or shared.near):
        return
    said: list[str] = []
    if shared.equal:
        said.append(
            f"{shared.equal} of the {found.tested} held-out rows have the prompt of a training row (such as"
            f" {shared.examples[0]})"
        )
    if shared.near:
        one = shared.near[0]
        said.append(
            f"{len(shared.near)} of the first {shared.near_tested} held-out rows share half of their words with a"
            f" training row (such as {one.held_out} and {one.train})"
        )
    yield f"{', and '.join(said)}: accuracy on them may be memory. Leave them out of the training data."
