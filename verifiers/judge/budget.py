"""Token usage, cost and token budget of a judge."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields, replace

from verifiers.judge.errors import BudgetSpent


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Sums over the calls of a judge."""

    calls: int = 0
    """Calls of the model, retries included."""
    hits: int = 0
    """Answers from the cache, or shared with an equal question that was being asked; they cost nothing."""
    faults: int = 0
    """Questions that ended without an answer."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """In the currency of the prices."""

    def __add__(self, other: Usage) -> Usage:
        """Return the sums of both."""
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in FIELDS})

    def __sub__(self, other: Usage) -> Usage:
        """Return the usage since `other`, an earlier state of the same meters."""
        return Usage(**{name: getattr(self, name) - getattr(other, name) for name in FIELDS})


FIELDS = tuple(field.name for field in fields(Usage))


class Meter:
    """Token counter of one judge, which refuses a call that could exceed the budget. Thread-safe.

    Args:
        tokens: budget of prompt and completion tokens in this process; None: unlimited.
        prompt_price, completion_price: price of a million tokens.
    """

    def __init__(self, *, tokens: int | None, prompt_price: float, completion_price: float) -> None:
        self._limit = tokens
        self._prices = prompt_price, completion_price
        self._changed = threading.Condition()
        self._reserved = 0
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        """The usage so far."""
        with self._changed:
            return self._usage

    def cost_of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the cost of one call."""
        return (prompt_tokens * self._prices[0] + completion_tokens * self._prices[1]) / 1e6

    def reserve(self, most: int) -> None:
        """Reserve the most tokens that a call could use; wait while running calls may return some of theirs.

        Raises:
            BudgetSpent: the call could exceed the budget even if the running calls returned all of theirs.
        """
        if self._limit is None:
            return
        with self._changed:
            while self._used() + self._reserved + most > self._limit:
                if self._used() + most > self._limit or self._reserved == 0:
                    raise BudgetSpent(
                        f"the judge's budget of {self._limit} tokens is spent: {self._used()} used, and the next call"
                        f" may take {most}. Raise token_budget, or judge fewer completions"
                    )
                self._changed.wait()
            self._reserved += most

    def reserve_now(self, most: int) -> bool:
        """Reserve without waiting; return False, and reserve nothing, if the budget has no room at present."""
        with self._changed:
            if self._limit is not None:
                if self._used() + self._reserved + most > self._limit:
                    return False
                self._reserved += most
            return True

    def settle(self, most: int, *, prompt_tokens: int, completion_tokens: int) -> None:
        """Replace the reservation of a call by the tokens that it used, and count the call."""
        with self._changed:
            if self._limit is not None:
                self._reserved -= most
            now = self._usage
            self._usage = replace(
                now,
                calls=now.calls + 1,
                prompt_tokens=now.prompt_tokens + prompt_tokens,
                completion_tokens=now.completion_tokens + completion_tokens,
                cost=now.cost + self.cost_of(prompt_tokens, completion_tokens),
            )
            self._changed.notify_all()

    def count(self, *, hits: int = 0, faults: int = 0) -> None:
        """Count answers that cost nothing (`hits`) and questions without an answer (`faults`)."""
        with self._changed:
            self._usage = replace(self._usage, hits=self._usage.hits + hits, faults=self._usage.faults + faults)

    def _used(self) -> int:
        return self._usage.prompt_tokens + self._usage.completion_tokens


__all__ = ["Meter", "Usage"]
