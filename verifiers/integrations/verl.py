"""verl: a verifier as its `compute_score`, and a `compute_score` as a verifier.

In verl's config: `reward.custom_reward_function.path=<this file>`, `name=compute_score`, and under `reward_kwargs`
for example `verifier: math`. `python -c "import verifiers.integrations.verl as m; print(m.__file__)"` prints the path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from verifiers.base import Example, GradingRow, Verifier
from verifiers.compose import by_value
from verifiers.errors import VerifierError
from verifiers.integrations import load_function, positive, process_pool
from verifiers.jsonl import is_object
from verifiers.returned import as_number, finished
from verifiers.row_choice import RowGraders
from verifiers.verdict import JSON, Outcome, Verdict


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: JSON,
    extra_info: Mapping[str, JSON] | None = None,
    *,
    verifier: str | None = None,
    options: Mapping[str, JSON] | None = None,
    verifiers: Mapping[str, str] | None = None,
    any_row: bool = False,
    ungraded: float | None = None,
    workers: int = 2,
    **_: object,
) -> dict[str, float | str | bool]:
    """Score one completion as verl's custom reward function; grades in killable workers.

    Args:
        data_source: data source of the row.
        solution_str: the completion.
        ground_truth: the reference answer.
        extra_info: of the row; its `verifier` and `verifier_options` are the row's own choice.
        verifier: default for all rows.
        options: of that verifier.
        verifiers: data source -> verifier, in place of `verifier`.
        any_row: True: rows may name files, modules and URLs as verifiers, and choose what runs on this machine.
        ungraded: score of a row that could not be graded; None: raise an error, because verl accepts only numbers.
        workers: number of grading processes.
    Returns:
        score, acc (True if the answer is right) and outcome; verl logs them.
    Raises:
        VerifierError: no verifier is named, the row asks for more than a row may choose, or it could not be graded.
    """
    info = dict(extra_info or {})
    set_here, given = (verifiers or {}).get(data_source) or verifier, options or {}
    own, own_options = info.get("verifier"), info.get("verifier_options")
    graders = RowGraders(set_here, given if set_here == verifier else {}, any_row=any_row)
    chosen = graders.choice(
        own if isinstance(own, str) else None, own_options if own_options and is_object(own_options) else None
    )
    if chosen is None:
        raise VerifierError(f"no verifier for data source {data_source!r}: set `verifier` in reward_kwargs.")
    prompt = info.get("question")
    row = GradingRow(
        completion=solution_str,
        reference=ground_truth,
        prompt=prompt if isinstance(prompt, str) else None,
        info=info,
    )
    verdict = process_pool(workers).submit(chosen.verifier, chosen.options, row).result()
    reward = ungraded if verdict.reward is None else verdict.reward
    if reward is None:
        raise VerifierError(
            f"{verdict.outcome} by {chosen.verifier}: {verdict.reason}. Set `ungraded` in reward_kwargs to continue."
        )
    return {"score": reward, "acc": verdict.right, "outcome": str(verdict.outcome)}


class VerlFunction(Verifier):
    """verl scoring function, `compute_score(data_source, solution_str, ground_truth, extra_info)`, as a verifier.

    Args:
        function: module:attribute or file.py:attribute, for example verl.utils.reward_score:default_compute_score.
        data_source: for rows whose `info` has none.
        full: number that the function returns for a right answer; the reward is its number divided by this.
    """

    name = "verl"
    grade_seconds = 30.0
    memory_bytes = 4 << 30
    machine_options = frozenset({"function"})
    example_options = {"function": "verifiers.integrations.example_functions:same_score"}
    examples = (
        Example(completion="Paris", reference="Paris", prompt="What is the capital of France?"),
        Example(completion="Lyon", reference="Paris", outcome=Outcome.INCORRECT),
    )

    def __init__(self, *, function: str, data_source: str = "", full: float = 1.0) -> None:
        self._function, self._target, self._data_source = load_function(function), function, data_source
        self._full = positive(full)

    def grade(self, row: GradingRow) -> Verdict:
        found = finished(
            self._function(
                data_source=row.info.get("data_source", self._data_source),
                solution_str=row.completion,
                ground_truth=row.reference,
                extra_info=dict(row.info),
            )
        )
        score = found.get("score") if is_object(found) else found
        wants = "a number, a dict with the number as `score`, or a sequence that begins with it"
        reward = as_number(_first(cast("object", score)), who=self._target, wants=wants)
        return by_value(reward / self._full, f"{self._target} returned {reward:g}")


def _first(score: object) -> object:
    """Return the first element of a list or tuple; anything else unchanged."""
    if isinstance(score, list | tuple):
        listed = cast("Sequence[object]", score)
        return listed[0] if listed else None
    return score
