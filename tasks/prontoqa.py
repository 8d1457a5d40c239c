"""True or false by a chain of categories, after PrOntoQA (Saparov and He, arXiv:2210.01240); categories are made up."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from tasks.base import BadRow, Problem, TaskError, UnusableRow
from tasks.drawing import columns, draw_distinct, has_test, split_rows, text_of_first
from tasks.row_task import Row, RowTask, made
from verifiers import JSON

KINDS = "tove rath borogove wabe jubjub tulgey vorpal brillig slithe momer gimble beamish frabjous snark boojum".split()
TRAITS = "bitter cold earthy feisty floral liquid metallic opaque orange shy sour sweet windy wooden".split()
NAMES = "Alex Fae Max Polly Rex Sally Sam Stella Wren".split()
VERIFIER_OPTIONS: dict[str, JSON] = {"choices": ["true", "false"]}


class ProntoQa(RowTask):
    """Statements to judge true or false from facts, some of which are irrelevant.

    `info` contains the facts and the statement as formulas, for `logic` of kind entailment.

    Args:
        path: rows {question, answer: [{text: "... The answer is true."}]}, a file or a folder with
            prontoqa_train.jsonl[.gz] and prontoqa_test.jsonl[.gz]; None: generated here.
        hops: steps from the individual's category to the statement.
        distractors: number of irrelevant facts.
        train_size: problems of the training split.
        test_size: problems of the test split.
        seed: seed of the random draw.
    Raises:
        TaskError: an option out of range.
    """

    name = "prontoqa"

    def __init__(
        self,
        *,
        path: str | None = None,
        hops: int = 3,
        distractors: int = 3,
        train_size: int = 5_000,
        test_size: int = 500,
        seed: int = 0,
    ) -> None:
        if not 1 <= hops <= 8:
            raise TaskError(f"hops must be between 1 and 8; got {hops}.")
        if not 0 <= distractors <= 6:
            raise TaskError(f"distractors must be between 0 and 6; got {distractors}.")
        self._path, self._hops, self._distractors, self._seed = path, hops, distractors, seed
        self._sizes = {"train": train_size, "test": test_size}

    def read(self, split: str) -> Iterator[Problem | BadRow]:
        """Yield the problems of a split, generated here or read from `path`."""
        if self._path is None:
            source = random.Random(f"{self._seed} {self._hops} {self._distractors} {split}")
            return iter(draw_distinct(lambda: self._draw(source), split=split, sizes=self._sizes))
        rows = split_rows(self._path, name=self.name, split=split)
        return made(rows, lambda row, number: self._from_row(row, split, number))

    def source(self) -> str | None:
        """Return the path if it has no test split, else None."""
        return None if self._path is None or has_test(self._path, name=self.name) else self._path

    def _from_row(self, row: Row, split: str, index: int) -> Problem:
        question, answers = columns(row, "question", "answer")
        try:
            worked = text_of_first(answers).strip()
        except ValueError as error:
            raise UnusableRow(f"must have a list of answers with text: {error}") from error
        label = worked.rpartition("The answer is ")[2].rstrip(".")
        if label not in ("true", "false"):
            raise UnusableRow("must end in `The answer is true.` or `false.`")
        return self._problem(f"prontoqa/{split}/{index}", str(question), label, worked)

    def _problem(self, key: str, question: str, label: str, worked: str, **info: JSON) -> Problem:
        return Problem(
            id=key,
            prompt=question + "\n",
            reference=label,
            verifier="choice",
            verifier_options=VERIFIER_OPTIONS,
            info=info,
            demonstration=worked,
            task=self.name,
        )

    def _draw(self, source: random.Random) -> Problem:
        name = source.choice(NAMES)
        chain = source.sample(KINDS, self._hops + self._distractors)
        kinds, others = chain[: self._hops], chain[self._hops :]
        trait, *more = source.sample(TRAITS, 1 + self._distractors)
        holds, asked_positively = source.random() < 0.5, source.random() < 0.5
        steps = [(f"Every {a} is a {b}.", f"{a} -> {b}") for a, b in itertools.pairwise(kinds)]
        last = (
            f"Every {kinds[-1]} is {'' if holds else 'not '}{trait}.",
            f"{kinds[-1]} -> {'' if holds else '~'}{trait}",
        )
        aside = [
            (f"Every {kind} is {other}.", f"{kind} -> {other}")
            if source.random() < 0.5
            else (f"Every {kind} is a {source.choice(kinds)}.", "")
            for kind, other in zip(others, more, strict=True)
        ]
        aside = [(text, formula or _as_formula(text)) for text, formula in aside]
        facts = [*steps, last, *aside]
        source.shuffle(facts)
        statement = f"{name} is {'' if asked_positively else 'not '}{trait}"
        question = (
            f"{' '.join(text for text, _ in facts)} {name} is a {kinds[0]}."
            f' Is the statement "{statement}" true or false?'
        )
        lines = [f"{name} is a {kinds[0]}."]
        for kind, (text, _) in zip(kinds[1:], steps, strict=True):
            lines += [text, f"{name} is a {kind}."]
        lines += [last[0], f"{name} is {'' if holds else 'not '}{trait}."]
        label = "true" if holds == asked_positively else "false"
        return self._problem(
            f"prontoqa/{question}",
            question,
            label,
            "\n".join([*lines, f"The answer is {label}."]),
            premises=[kinds[0], *(formula for _, formula in facts)],
            claim=trait if asked_positively else f"~{trait}",
        )


def _as_formula(text: str) -> str:
    words = text.rstrip(".").split()
    return f"{words[1]} -> {words[-1]}"
