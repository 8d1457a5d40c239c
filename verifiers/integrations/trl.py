"""TRL: a verifier as a reward function of its trainers, and its reward functions as a verifier.

`GRPOTrainer(..., reward_funcs=[reward_function("math", reference="solution")])`
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from verifiers.base import GradingRow, Verifier
from verifiers.compose import by_value
from verifiers.errors import BadReference, BadReturn
from verifiers.integrations import load_function, positive, process_pool
from verifiers.pool import GradingRequest
from verifiers.registry import get_verifier
from verifiers.returned import as_number, finished
from verifiers.verdict import JSON, Outcome, Verdict, fixed

Chat = Sequence[Mapping[str, str]]
NOT_DATA = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")


def reward_function(
    verifier: str, *, reference: str = "reference", options: Mapping[str, JSON] | None = None, workers: int = 2
) -> Callable[..., list[float | None]]:
    """A function that TRL calls with a batch; grades in killable workers.

    A row that could not be graded gets None, which TRL leaves out, and is counted in the metric `ungraded/VERIFIER`.

    Args:
        verifier: name, module:attribute, file or URL.
        reference: column of the data set that holds the gold.
        options: of the verifier.
        workers: grading processes.
    """
    chosen = dict(options or {})
    get_verifier(verifier, **chosen)

    def reward(
        *, prompts: Sequence[str | Chat], completions: Sequence[str | Chat], **columns: object
    ) -> list[float | None]:
        golds = cast("Sequence[JSON] | None", columns.get(reference))
        if not isinstance(golds, Sequence):
            has = ", ".join(name for name in columns if name not in NOT_DATA) or "none"
            raise BadReference(f"the data set must have a column {reference!r}; its columns: {has}.")
        requests = [
            GradingRequest(
                verifier,
                GradingRow(completion=as_text(completion), reference=gold, prompt=as_text(prompt)),
                chosen,
            )
            for prompt, completion, gold in zip(prompts, completions, golds, strict=True)
        ]
        verdicts = list(process_pool(workers).grade(requests))
        log_metric = columns.get("log_metric")
        if callable(log_metric):
            log_metric(f"ungraded/{verifier}", sum(not verdict.graded for verdict in verdicts) / max(1, len(verdicts)))
        if verdicts and not any(verdict.graded for verdict in verdicts):
            (cause, _), *_ = Counter(verdict.reason for verdict in verdicts).most_common(1)
            raise RuntimeError(f"{verifier} could not grade any of {len(verdicts)} completions: {cause}")
        return [verdict.reward for verdict in verdicts]

    reward.__name__ = reward.__qualname__ = verifier.rpartition(":")[2].rpartition("/")[2].replace("-", "_")
    return reward


def as_text(given: str | Chat) -> str:
    """Text as it is; of messages, the contents, one a line."""
    return given if isinstance(given, str) else "\n".join(str(message.get("content") or "") for message in given)


def _named_columns(function: Callable[..., object]) -> frozenset[str] | None:
    """The parameters of a reward function by name; None where it has no signature."""
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


class TrlFunction(Verifier):
    """A TRL reward function as a verifier, called with batches as TRL would call it.

    The reference is given as the column that the function reads; `info` gives further columns. None from the function
    means that it has no reward for this row: `bad_reference`.

    Args:
        function: module:attribute or file.py:attribute, for example trl.rewards:accuracy_reward.
        column: under which the function reads the gold; None: it reads none.
        chat: completions are lists of messages, as in a conversational data set; otherwise text.
        columns: keys of `info` that are handed on as columns.
        full: what the function gives a right answer; the reward is its number divided by that, so that 1 is right.
    """

    name = "trl"
    batch_rows = 16
    grade_seconds = 30.0
    memory_bytes = 4 << 30
    machine_options = frozenset({"function"})

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
        """Whether the function names the gold's column among its parameters: a format function takes no gold."""
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
        """One reward a completion: a list or tuple, or a tensor or array of one dimension."""
        shape = getattr(found, "shape", None)
        if shape is not None and len(shape) == 1:
            found = cast("Sequence[object]", found.tolist())  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportOptionalMemberAccess]
        if not isinstance(found, list | tuple) or len(cast("Sequence[object]", found)) != count:
            got = f"{len(cast('Sequence[object]', found))}" if isinstance(found, list | tuple) else str(found)[:80]
            raise BadReturn(
                f"{self._target} must return a list of {count} rewards, one a completion; got {got}. Return one number"
                " (or None, where a row has no reward) for each of `completions`, in their order"
            )
        return list(cast("Sequence[object]", found))

    def _message(self, role: str, content: str) -> object:
        return [{"role": role, "content": content}] if self._chat else content

    def _rewarded(self, reward: object) -> Verdict:
        if reward is None:
            return fixed(Outcome.BAD_REFERENCE, f"{self._target} has no reward for this row")
        number = as_number(reward, who=f"{self._target}, for each completion,", wants="a number or None")
        return by_value(number / self._full, f"{self._target} returned {number:g}")
