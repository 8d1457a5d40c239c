"""GSM8K (Cobbe et al., arXiv:2110.14168): grade-school word problems whose answer is the number after `####`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tasks.base import BadRow, Problem, TaskError, UnusableRow
from tasks.held_out import DEFAULT_SHARE, check_share
from tasks.inputs import read
from tasks.row_task import RowTask, lacks_test, made

HUB_NAME = "openai/gsm8k"
CALCULATOR = re.compile(r"<<[^<>]*>>")


class Gsm8k(RowTask):
    """7,473 training and 1,319 test problems.

    Args:
        path: a folder with `gsm8k_train.jsonl[.gz]` and `gsm8k_test.jsonl[.gz]`, or one file, of which a part is held
            out; None: openai/gsm8k from the hub.
        held_out_share: share of prompts to hold out if there is no test split; 1 for evaluation only.
        instruction: the prompt; "{question}" is replaced by the question.
    Raises:
        TaskError: held_out_share is out of range, or the instruction lacks {question}.
    """

    name = "gsm8k"

    def __init__(
        self,
        *,
        path: str | None = None,
        held_out_share: float = DEFAULT_SHARE,
        instruction: str = "{question}\nReason step by step, then give the final number after ####.",
    ) -> None:
        if "{question}" not in instruction:
            raise TaskError("instruction must contain {question}.")
        check_share(held_out_share)
        self._path, self._held_out_share = path or HUB_NAME, held_out_share
        self._instruction = instruction

    def read(self, split: str) -> Iterator[Problem | BadRow]:
        """Yield the problems and bad rows of a split, as the data has it."""
        rows = read(self._path, split=split, config="main")
        self.say(*rows.notes)
        return made(rows, lambda row, number: self._problem(row, split, number))

    def source(self) -> str | None:
        """Return the path if it has no test split, else None."""
        return lacks_test(self._path, config="main")

    def _problem(self, row: Mapping[str, object], split: str, index: int) -> Problem:
        missing = [column for column in ("question", "answer") if column not in row]
        if missing:
            raise UnusableRow(
                f"must have columns question and answer; it lacks {' and '.join(missing)}"
                f" (it has: {', '.join(row) or 'none'})"
            )
        if row["question"] is None or row["answer"] is None:
            raise UnusableRow("has no value in column question or answer")
        question, solution = str(row["question"]), str(row["answer"])
        worked, mark, gold = solution.rpartition("####")
        if not question.strip() or not mark or not gold.strip():
            raise UnusableRow("must have a question and an answer with ####")
        answer = gold.strip().replace(",", "")
        return Problem(
            id=f"gsm8k/{split}/{index}",
            prompt=self._instruction.replace("{question}", question),
            reference=answer,
            verifier="math",
            demonstration=f"{CALCULATOR.sub('', worked).strip()}\n#### {answer}",
            task=self.name,
        )
