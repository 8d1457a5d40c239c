"""GSM8K (Cobbe et al., arXiv:2110.14168): grade-school word problems with a number after `####`."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tasks.base import Problem, Task, TaskError

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
        self._path = path
        self._instruction = instruction

    def problems(self, split: str) -> Sequence[Problem]:
        if split not in self.splits:
            raise TaskError(f"split must be train or test; got {split!r}.")
        return [self._problem(row, split, index) for index, row in enumerate(self._rows(split))]

    def _rows(self, split: str) -> Iterable[Mapping[str, object]]:
        if self._path is None:
            from datasets import load_dataset

            return load_dataset(HUB_NAME, "main", split=split)  # pyright: ignore[reportReturnType]
        folder = Path(self._path)
        for name in (f"gsm8k_{split}.jsonl.gz", f"gsm8k_{split}.jsonl"):
            if (folder / name).is_file():
                return read_jsonl(folder / name)
        raise TaskError(f"path must hold gsm8k_{split}.jsonl or .jsonl.gz; got {self._path!r}.")

    def _problem(self, row: Mapping[str, object], split: str, index: int) -> Problem:
        question, solution = str(row.get("question", "")), str(row.get("answer", ""))
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


def read_jsonl(path: Path) -> list[Mapping[str, object]]:
    r"""The rows of a JSONL file, gzipped or not; only \n ends a line.

    Raises:
        TaskError: a line is not a JSON object; names it.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    rows: list[Mapping[str, object]] = []
    with opener(path, "rt", encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise TaskError(f"{path} line {number} must be JSON: {error}") from error
            if not isinstance(row, dict):
                raise TaskError(f"{path} line {number} must be a JSON object; got {type(row).__name__}.")
            rows.append(row)  # pyright: ignore[reportUnknownArgumentType]
    return rows
