"""reasoning-gym: its datasets' scoring as a verifier. The task `reasoning-gym` provides their problems."""

from __future__ import annotations

from importlib import import_module

from verifiers.answers.final import final_answer, no_answer
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadReference
from verifiers.jsonl import is_list, is_object
from verifiers.verdict import JSON, Outcome, Verdict, graded

_LEGS: JSON = {
    "dataset": "leg_counting",
    "entry": {"question": "How many legs have an ant?", "answer": "6", "metadata": {"animals": {"ant": 1}}},
}


class ReasoningGym(Verifier):
    """Score of a reasoning-gym dataset (`score_answer`) for the final answer.

    Answers of several lines are given as `<answer>...</answer>`. The reference is `{"dataset": name, "entry":
    {question, answer, metadata}}`. Many datasets give any answer a small reward, such as 0.01; it is not changed.
    """

    name = "reasoning-gym"
    for_rows = False  # countdown and other datasets evaluate an answer with sympy.parse_expr, which uses Python's eval
    grade_seconds = 20.0
    memory_bytes = 2 << 30
    reference_schema = {
        "type": "object",
        "properties": {"dataset": {"type": "string"}, "entry": {"type": "object"}},
        "required": ["dataset", "entry"],
    }

    examples = (
        Example(completion="<answer>6</answer>", reference=_LEGS, prompt="How many legs have an ant?"),
        Example(completion="<answer>8</answer>", reference=_LEGS, outcome=Outcome.INCORRECT),
        Example(completion="I would have to guess.", reference=_LEGS, outcome=Outcome.NO_ANSWER),
    )

    def check_reference(self, reference: JSON) -> None:
        _dataset_and_entry(reference)

    def grade(self, row: GradingRow) -> Verdict:
        dataset, entry = _dataset_and_entry(row.reference)
        found = final_answer(row)
        if found is None:
            return no_answer()
        score_answer = import_module("reasoning_gym").get_score_answer_fn(dataset)
        gold, given = entry.get("answer"), dict[str, object](entry)
        if isinstance(gold, str) and score_answer(gold, given) < 1:  # JSON has turned the entry's tuples into lists
            given = {key: _with_tuples(inner) for key, inner in entry.items()}
        score = float(score_answer(found.answer, given))
        return graded(score, f"{dataset} gives {score:g}", answer=found.answer[:2000], form=found.form)


def _with_tuples(value: JSON) -> object:
    if is_object(value):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    return tuple(map(_with_tuples, value)) if is_list(value) else value


def _dataset_and_entry(reference: JSON) -> tuple[str, dict[str, JSON]]:
    if is_object(reference):
        dataset, entry = reference.get("dataset"), reference.get("entry")
        if isinstance(dataset, str) and is_object(entry):
            return dataset, entry
    raise BadReference(f'reference must be {{"dataset": name, "entry": {{...}}}}; got {str(reference)[:100]}.')
