"""BIG-Bench Hard (Suzgun et al., arXiv:2210.09261): 27 tasks, for evaluation; the data asks not to be trained on."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.base import Problem, Task, TaskError
from tasks.inputs import read

HUB_NAME = "lukaemon/bbh"
SUBTASKS: Sequence[str] = (
    "boolean_expressions causal_judgement date_understanding disambiguation_qa dyck_languages formal_fallacies"
    " geometric_shapes hyperbaton logical_deduction_five_objects logical_deduction_seven_objects"
    " logical_deduction_three_objects movie_recommendation multistep_arithmetic_two navigate object_counting"
    " penguins_in_a_table reasoning_about_colored_objects ruin_names salient_translation_error_detection snarks"
    " sports_understanding temporal_sequences tracking_shuffled_objects_five_objects"
    " tracking_shuffled_objects_seven_objects tracking_shuffled_objects_three_objects web_of_lies word_sorting"
).split()


class Bbh(Task):
    """6,511 problems, graded as published: the declared answer must equal the target.

    Args:
        path: a file with columns task, input, target; None: lukaemon/bbh from the hub, one configuration per subtask.
        subtasks: names of some of the 27; None: all.
        instruction: the prompt; {question} is replaced by the question.
    """

    name = "bbh"
    splits = ("test",)

    def __init__(
        self,
        *,
        path: str | None = None,
        subtasks: list[str] | None = None,
        instruction: str = "{question}\nThink step by step, and end with: So the answer is ANSWER.",
    ) -> None:
        unknown = [name for name in subtasks or () if name not in SUBTASKS]
        if unknown:
            raise TaskError(f"subtasks must be some of {', '.join(SUBTASKS)}; got {unknown[0]!r}.")
        if "{question}" not in instruction:
            raise TaskError("instruction must contain {question}.")
        self._path, self._subtasks, self._instruction = path, subtasks or list(SUBTASKS), instruction

    def problems(self, split: str) -> Sequence[Problem]:
        if split not in self.splits:
            raise TaskError(f"bbh has only the split test, for evaluation; got {split!r}.")
        counts: dict[str, int] = dict.fromkeys(SUBTASKS, 0)
        problems: list[Problem] = []
        for subtask, question, target in self._rows():
            if subtask not in self._subtasks:
                continue
            problems.append(
                Problem(
                    id=f"bbh/{subtask}/{counts[subtask]}",
                    prompt=self._instruction.replace("{question}", question),
                    reference=target,
                    verifier="exact",
                    info={"subtask": subtask},
                    demonstration=f"So the answer is {target}.",
                    task=self.name,
                )
            )
            counts[subtask] += 1
        return problems

    def _rows(self) -> Sequence[tuple[str, str, str]]:
        if self._path is not None:
            rows = list(read(self._path, split="test"))
            missing = [column for column in ("task", "input", "target") if rows and column not in rows[0]]
            if missing:
                raise TaskError(f"{self._path} must have column {missing[0]!r}; it has: {', '.join(rows[0])}.")
            return [(str(row["task"]), str(row["input"]), str(row["target"])) for row in rows]
        return [
            (name, str(row["input"]), str(row["target"]))
            for name in self._subtasks
            for row in read(HUB_NAME, split="test", config=name)
        ]
