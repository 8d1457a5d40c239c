"""GSM8K (Cobbe et al., arXiv:2110.14168): grade-school word problems with a number after `####`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tasks.base import Problem, Task, TaskError
from tasks.inputs import read

HUB_NAME = "openai/gsm8k"
CALCULATOR = re.compile(r"<<[^<>]*>>")


class Gsm8k(Task):
    """7,473 training and 1,319 test problems.

    Args:
        path: a folder with `gsm8k_train.jsonl[.gz]` and `gsm8k_test.jsonl[.gz]`; None: openai/gsm8k from the hub.
        instruction: appended to each question; "{question}" stands for the question.
    """

    name = "gsm8k"

    def __init__(
        self,
        *,
        path: str | None = None,
        instruction: str = "{question}\nReason step by step, then give the final number after ####.",
    ) -> None:
        if "{question}" not in instruction:
            raise TaskError("instruction must contain {question}.")
        self._path = path or HUB_NAME
        self._instruction = instruction

    def problems(self, split: str) -> Sequence[Problem]:
        if split not in self.splits:
            raise TaskError(f"split must be train or test; got {split!r}.")
        return [
            self._problem(row, split, index) for index, row in enumerate(read(self._path, split=split, config="main"))
        ]

    def _problem(self, row: Mapping[str, object], split: str, index: int) -> Problem:
        missing = [column for column in ("question", "answer") if column not in row]
        if missing:
            raise TaskError(
                f"gsm8k {split} row {index} must have columns question and answer; it lacks {' and '.join(missing)}"
                f" (it has: {', '.join(row) or 'none'})."
            )
        question, solution = str(row["question"]), str(row["answer"])
        worked, mark, gold = solution.rpartition("####")
        if not question.strip() or not mark or not gold.strip():
            raise TaskError(f"gsm8k {split} row {index} must have a question and an answer with ####.")
        answer = gold.strip().replace(",", "")
        return Problem(
            id=f"gsm8k/{split}/{index}",
            prompt=self._instruction.replace("{question}", question),
            reference=answer,
            verifier="math",
            demonstration=f"{CALCULATOR.sub('', worked).strip()}\n#### {answer}",
            task=self.name,
        )
