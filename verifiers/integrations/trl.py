"""TRL: a verifier as a reward function for its trainers, and its reward functions as verifiers.

`GRPOTrainer(..., reward_funcs=[reward_function("math", reference="solution")])`
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import cast

from verifiers.base import Example, GradingRow, Verifier
from verifiers.compose import by_value
from verifiers.errors import BadReference, BadReturn
from verifiers.given import Messages, as_json, completion_text, prompt_text
from verifiers.integrations import load_function, positive, process_pool
from verifiers.registry import get_verifier
from verifiers.returned import as_number, finished
from verifiers.verdict import JSON, Outcome, Verdict, fixed

NOT_DATA = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
"""Arguments that TRL passes in addition to the dataset's columns."""
TOLD_AFTER = 3
"""Consecutive ungraded batches after which the log warns; a single one may be a prompt with a bad reference."""
SHOWN = 5
"""Most reference answers in that warning."""
_log = logging.getLogger(__name__)


def reward_function(
    verifier: str, *, reference: str = "reference", options: Mapping[str, JSON] | None = None, workers: int = 2
) -> Callable[..., list[float | None]]:
    """Build a reward function for TRL that grades batches in killable workers.

    A row that could not be graded, or whose environment failed, gets None, which TRL ignores, and is counted in the
    metric `ungraded/VERIFIER`. No content of a batch ends the run. After `TOLD_AFTER` consecutive batches without a
    graded row, the log warns once, with their reference answers.

    Args:
        verifier: name, module:attribute, file or URL.
        reference: dataset column with the reference answer.
        options: of the verifier.
        workers: number of grading processes.
    Returns:
        Function of a batch's prompts, completions and columns; returns one reward or None per completion.
    Raises:
        UnknownVerifier, BadOption: immediately.
        BadReference: raised by the function if the column is missing and no earlier batch had it.
    """
    chosen = dict(options or {})
    get_verifier(verifier, **chosen)
    streak = _Streak(verifier, reference)

    def reward(
        *, prompts: Sequence[str | Messages], completions: Sequence[str | Messages], **columns: object
    ) -> list[float | None]:
        references = columns.get(reference)
        if not isinstance(references, Sequence) or len(cast("Sequence[object]", references)) != len(completions):
            has = ", ".join(name for name in columns if name not in NOT_DATA) or "none"
            if not streak.begun:
                raise BadReference(f"the dataset must have a column {reference!r}; its columns: {has}.")
            references = [None] * len(completions)  # such as an evaluation set without references: training continues
        verdicts = _graded(verifier, chosen, prompts, completions, cast("Sequence[JSON]", references), workers)
        verdicts = _without_faults(verdicts, columns.get("environments"))
        log_metric = columns.get("log_metric")
        if callable(log_metric):
            log_metric(f"ungraded/{verifier}", sum(not verdict.graded for verdict in verdicts) / max(1, len(verdicts)))
        streak.add(cast("Sequence[JSON]", references), verdicts)
        return [verdict.reward for verdict in verdicts]

    reward.__name__ = reward.__qualname__ = verifier.rpartition(":")[2].rpartition("/")[2].replace("-", "_")
    return reward


class _Streak:
    """Count of consecutive batches without a graded row; warns once."""

    def __init__(self, verifier: str, column: str) -> None:
        self._verifier, self._column = verifier, column
        self._batches, self._reported = 0, False
        self._references: list[str] = []
        self.begun = False
        """True once a batch had the column of references."""

    def add(self, references: Sequence[JSON], verdicts: Sequence[Verdict]) -> None:
        """Count a batch."""
        self.begun = True
        if self._reported or not verdicts:
            return
        if any(verdict.graded for verdict in verdicts):
            self._batches, self._references = 0, []
            return
        self._batches += 1
        self._references += [repr(reference)[:80] for reference in references]
        if self._batches < TOLD_AFTER:
            return
        self._reported = True
        (cause, _), *_ = Counter(verdict.reason for verdict in verdicts).most_common(1)
        different = list(dict.fromkeys(self._references))
        more = f" and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
        _log.warning(
            "%s could not grade any completion of %d batches in a row: %s The reference answers (column %r): %s%s."
            " Such rows have no reward and teach nothing.",
            *(self._verifier, self._batches, f"{cause.rstrip('. ')}.", self._column),
            *(", ".join(different[:SHOWN]), more),
        )


def _graded(
    verifier: str,
    options: Mapping[str, JSON],
    prompts: Sequence[str | Messages],
    completions: Sequence[str | Messages],
    references: Sequence[JSON],
    workers: int,
) -> list[Verdict]:
    """Return a verdict for each completion; a row of a wrong type becomes `bad_reference`."""
    pool = process_pool(workers)
    waiting: list[Verdict | Future[Verdict]] = []
    for prompt, completion, reference in zip(prompts, completions, references, strict=True):
        try:
            row = GradingRow(
                completion=completion_text(completion), reference=as_json(reference), prompt=prompt_text(prompt)
            )
            waiting.append(pool.submit(verifier, options, row))
        except TypeError as error:
            waiting.append(fixed(Outcome.BAD_REFERENCE, str(error)))
    return [each if isinstance(each, Verdict) else each.result() for each in waiting]


def _without_faults(verdicts: list[Verdict], environments: object) -> list[Verdict]:
    """Return the verdicts; rows whose environment could not reply (its attribute `fault`) are ungraded."""
    faults = [getattr(one, "fault", None) for one in cast("Sequence[object]", environments or ())]
    if len(faults) != len(verdicts):
        return verdicts
    return [
        verdict if fault is None else fixed(Outcome.VERIFIER_ERROR, str(fault))
        for verdict, fault in zip(verdicts, faults, strict=True)
    ]


def _named_columns(function: Callable[..., object]) -> frozenset[str] | None:
    """Return the names of a reward function's parameters; None if it has no signature."""
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


class TrlFunction(Verifier):
    """TRL reward function as a verifier, called with batches as TRL calls it.

    The reference is passed as the column that the function reads; `info` provides further columns. If the function
    returns None, there is no reward for this row: `bad_reference`.

    Args:
        function: module:attribute or file.py:attribute, for example trl.rewards:accuracy_reward.
        column: name under which the function reads the reference; None: it reads none.
        chat: True: completions are lists of messages, as in a conversational dataset; False: text.
        columns: keys of `info` that are passed on as columns.
        full: number that the function returns for a right answer; the reward is its number divided by this.
    """

    name = "trl"
    batch_rows = 16
    grade_seconds = 30.0
    memory_bytes = 4 << 30
    machine_options = frozenset({"function"})
    example_options = {"function": "verifiers.integrations.example_functions:same_text"}
    examples = (
        Example(completion="Paris", reference="Paris", prompt="What is the capital of France?"),
        Example(completion="Lyon", reference="Paris", outcome=Outcome.INCORRECT),
    )

    def __init__(
        self,
        *,
        function: str,
        column: str | None = "solution",
        chat: bool = True,
        columns: list[str] | None = None,
        full: float = 1.0,
    ) -> None:
        self._function, self._full = load_function(function), positive(full)
        self._target, self._column, self._chat, self._columns = function, column, chat, columns or []
        self._reads = _named_columns(self._function)

    @property
    def grades(self) -> bool:
        """True if the function has a parameter for the reference's column; a format function has none."""
        return self._column is not None and (self._reads is None or self._column in self._reads)

    def grade(self, row: GradingRow) -> Verdict:
        return self.grade_batch([row])[0]

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        given: dict[str, object] = {
            "prompts": [self._message("user", row.prompt or "") for row in rows],
            "completions": [self._message("assistant", row.completion) for row in rows],
            **{name: [row.info.get(name) for row in rows] for name in self._columns},
        }
        if self._column is not None:
            given[self._column] = [row.reference for row in rows]
        rewards = self._listed(finished(self._function(**given)), len(rows))
        return [self._rewarded(reward) for reward in rewards]

    def _listed(self, found: object, count: int) -> list[object]:
        """Return the rewards as a list, one per completion, from a list, a tuple, or a 1-d tensor or array."""
        shape = getattr(found, "shape", None)
        if shape is not None and len(shape) == 1:
            found = cast("Sequence[object]", found.tolist())  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportOptionalMemberAccess]
        if not isinstance(found, list | tuple) or len(cast("Sequence[object]", found)) != count:
            got = f"{len(cast('Sequence[object]', found))}" if isinstance(found, list | tuple) else str(found)[:80]
            raise BadReturn(
                f"{self._target} must return a list of {count} rewards, one per completion; got {got}. Return one"
                " number (or None for a row without a reward) for each of `completions`, in their order"
            )
        return list(cast("Sequence[object]", found))

    def _message(self, role: str, content: str) -> object:
        return [{"role": role, "content": content}] if self._chat else content

    def _rewarded(self, reward: object) -> Verdict:
        if reward is None:
            return fixed(Outcome.BAD_REFERENCE, f"{self._target} has no reward for this row")
        number = as_number(reward, who=f"{self._target}, for each completion,", wants="a number or None")
        return by_value(number / self._full, f"{self._target} returned {number:g}")
