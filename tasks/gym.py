"""Any data set of reasoning-gym (procedural, scored by its own code): pip install reasoning-gym."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module

from tasks.base import Problem, Task, TaskError
from verifiers import JSON

TEST_SEED = 1_000_003
"""Added to the seed for the test split."""


class ReasoningGym(Task):
    """Problems of one reasoning-gym data set.

    Args:
        dataset: its name, for example leg_counting.
        config: its options.
        train_size: problems of the training split.
        test_size: problems of the test split, before those that are also in the training split are removed.
        seed: seed of the data set.
        instruction: the prompt; {question} is replaced by the question.
    Raises:
        TaskError: an instruction without {question}.
    """

    name = "reasoning-gym"

    def __init__(
        self,
        *,
        dataset: str,
        config: Mapping[str, JSON] | None = None,
        train_size: int = 5_000,
        test_size: int = 500,
        seed: int = 0,
        instruction: str = "{question}\nGive the final answer between <answer> and </answer>.",
    ) -> None:
        if "{question}" not in instruction:
            raise TaskError("instruction must contain {question}.")
        self._dataset, self._config, self._seed = dataset, dict(config or {}), seed
        self._sizes = {"train": train_size, "test": test_size}
        self._instruction = instruction

    def problems(self, split: str) -> Sequence[Problem]:
        if split not in self._sizes:
            raise TaskError(f"split must be train or test; got {split!r}.")
        entries = self._entries(split)
        if split == "test":
            seen = {str(entry["question"]) for entry in self._entries("train")}
            entries = [entry for entry in entries if str(entry["question"]) not in seen]
        return [self._problem(entry, split, index) for index, entry in enumerate(entries)]

    def _entries(self, split: str) -> list[dict[str, JSON]]:
        try:
            reasoning_gym = import_module("reasoning_gym")
        except ModuleNotFoundError as error:
            raise TaskError("the task reasoning-gym needs its package: pip install reasoning-gym.") from error
        seed = self._seed + (TEST_SEED if split == "test" else 0)
        try:
            made: Iterable[Mapping[str, object]] = reasoning_gym.create_dataset(
                self._dataset, size=self._sizes[split], seed=seed, **self._config
            )
        except (ValueError, TypeError, AssertionError) as error:
            raise TaskError(f"reasoning-gym cannot make {self._dataset!r} with {self._config}: {error}") from error
        return [json.loads(json.dumps(dict(entry), default=str)) for entry in made]

    def _problem(self, entry: dict[str, JSON], split: str, index: int) -> Problem:
        answer = entry.get("answer")
        return Problem(
            id=f"reasoning-gym/{self._dataset}/{split}/{index}",
            prompt=self._instruction.replace("{question}", str(entry["question"])),
            reference={"dataset": self._dataset, "entry": entry},
            verifier="reasoning-gym",
            demonstration=None if answer is None else f"<answer>{answer}</answer>",
            task=self.name,
        )
