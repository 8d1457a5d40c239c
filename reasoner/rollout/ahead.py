"""Batches that are sampled while the policy learns.

Batch n is made of the problems that were drawn for step n. It never depends on which completions finish first, so that
long completions are trained on as often as they are sampled, and none is dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from reasoner import processes
from reasoner.records import Problem, Rollout, RolloutGroup
from reasoner.rollout.round import Pending, Round, Sampled, portion_ranges

LOOK_SECONDS = 0.1
"""Interval at which the displayed progress of a batch is updated."""

Known = Mapping[tuple[int, int], Rollout]
"""Rollouts by (index of the problem in its batch, sample index)."""
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Drawn(NamedTuple):
    """A batch that is drawn and not yet trained on, as a checkpoint keeps it."""

    step: int
    problems_P: Sequence[Problem]
    known: Known
    """Graded rollouts of all processes."""


class Graded(Protocol):
    """Interface of the groups of one batch."""

    def graded(self, portions: int = 1) -> Iterator[Sampled]:
        """Yield the groups in the order of the problems, in `portions` parts."""
        ...

    def all(self) -> Sampled:
        """Return all groups."""
        ...


class Sample(Protocol):
    """Interface of the function that samples a batch. It is called in a thread."""

    def __call__(
        self,
        step: int,
        problems_P: Sequence[Problem],
        *,
        known: Known,
        watch: Callable[[Pending], None],
        version: int | None,
    ) -> Round:
        """Sample the batch of a step, but for the rollouts in `known`.

        `watch` receives each completion; `version` is that of the adapter which samples them, None: the newest weights.
        """
        ...


@dataclass(frozen=True, slots=True)
class RecordedRound:
    """A batch whose groups are known already: from the records of a run."""

    groups: Sequence[RolloutGroup]
    """Groups of all processes."""

    def graded(self, portions: int = 1) -> Iterator[Sampled]:
        """Yield the groups in the portions that `Round.graded` would make of them."""
        share = processes.count()
        most = -(-len(self.groups) // share)
        for numbers in portion_ranges(most, portions):
            first = share * numbers.start
            if part := tuple(self.groups[first : share * numbers.stop]):
                tokens = sum(one.completion.policy_tokens for group in part for one in group.rollouts)
                yield Sampled(
                    groups=part, first_group=first, generation_seconds=0.0, grading_wait_seconds=0.0, tokens=tokens
                )

    def all(self) -> Sampled:
        """Return all groups."""
        (whole,) = self.graded()
        return whole


class _Closed(Exception):
    """The window was closed while a batch was being sampled."""


@dataclass(slots=True)
class _Batch:
    """A batch that is drawn and not yet trained on."""

    problems_P: Sequence[Problem]
    known: Known
    """Rollouts of a checkpoint."""
    version: int | None
    """Version of the adapter that samples it; None: the newest weights."""
    finished: list[Pending] = field(default_factory=list[Pending])
    """Completions of this process that are finished, in the order in which they finished."""
    sampled: Future[Round] = field(default_factory=Future[Round])

    def graded(self, step: int) -> dict[tuple[int, int], Rollout]:
        """The rollouts of this process that are graded by now, and those of a checkpoint."""
        found = {**self.known}
        for place, sample, prompt, completion, verdict in [*self.finished]:
            if verdict.done():
                found[place, sample] = Rollout(
                    problem=self.problems_P[place],
                    prompt_text=prompt.text,
                    prompt_ids=prompt.ids,
                    completion=completion,
                    verdict=verdict.result(),
                    sample_index=sample,
                    step=step,
                )
        return found


class Ahead:
    """Window of the batches that are drawn and not yet trained on: that of the present step and up to `most` more.

    Draws happen only in `admit`, so they never depend on time.

    Example:
        ahead.admit(1, last=2)            # draws the batches of steps 1 and 2
        for sampled in ahead.take(1, progress, size=64).graded(): ...
    """

    def __init__(
        self,
        *,
        most: int,
        draw: Callable[[], Sequence[Problem]],
        sample: Sample,
        together: bool = False,
        pinned: Callable[[], int] | None = None,
    ) -> None:
        """Set the size of the window.

        Args:
            most: number of batches that may be sampled ahead of the present step's.
            draw: returns the problems of the next batch.
            sample: samples a batch.
            together: False samples one batch after the other; True begins with a batch as soon as it is drawn.
            pinned: returns the version of the newest adapter, with which a batch that begins is sampled to its end;
                None: each completion has the newest weights.
        """
        self.most = most
        self._draw, self._sample, self._pinned = draw, sample, pinned
        self._batches: dict[int, _Batch] = {}
        self._next = 0
        """First step whose batch is not drawn."""
        self._workers = ThreadPoolExecutor(1 + most if together else 1, thread_name_prefix="reasoner-ahead")
        self._closed = False
        self._lock = threading.Lock()
        self._running = 0
        self._idle_seconds = 0.0
        self._idle_since: float | None = None

    def admit(self, step: int, *, last: int) -> None:
        """Draw the batches from `step` to step `last` that are not drawn yet, and sample them in order."""
        for number in range(max(step, self._next), last + 1):
            self._begin(number, self._draw(), {})

    def _begin(self, step: int, problems_P: Sequence[Problem], known: Known) -> None:
        batch = self._batches[step] = _Batch(problems_P, known, self._pinned() if self._pinned else None)
        self._next = step + 1
        self._workers.submit(self._run, step, batch)

    def _run(self, step: int, batch: _Batch) -> None:
        def watch(pending: Pending) -> None:
            if self._closed:
                raise _Closed
            batch.finished.append(pending)

        with self._busy():
            try:
                sampled = self._sample(step, batch.problems_P, known=batch.known, watch=watch, version=batch.version)
                batch.sampled.set_result(sampled)
            except BaseException as error:  # raised where the batch is taken
                batch.sampled.set_exception(error)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """Count the time between batches as idle."""
        with self._lock:
            self._running += 1
            if self._idle_since is not None:
                self._idle_seconds += time.perf_counter() - self._idle_since
                self._idle_since = None
        yield
        with self._lock:
            self._running -= 1
            if not self._running:
                self._idle_since = time.perf_counter()

    def take(self, step: int, progress: Progress, *, size: int) -> Round:
        """Wait for the batch of a step, and remove it from the window.

        Args:
            step: its number.
            progress: displays the progress while the batch is waited for.
            size: number of completions, for the display.
        Raises:
            Exception: one that occurred while the batch was sampled.
        """
        batch = self._batches[step]
        if not batch.sampled.done():
            with progress(f"step {step}: sampling", size) as advance:
                while not _ended(batch.sampled, LOOK_SECONDS):
                    advance(len(batch.finished))
        del self._batches[step]
        return batch.sampled.result()

    def versions(self) -> set[int]:
        """Return the versions of the adapters with which the batches in the window are sampled."""
        return {batch.version for batch in self._batches.values() if batch.version is not None}

    def settle(self) -> None:
        """Wait until all drawn batches are sampled and graded.

        Raises:
            Exception: one that occurred while a batch was sampled.
        """
        for batch in self._batches.values():
            for verdict in batch.sampled.result().verdicts.values():
                verdict.result()

    def idle_seconds(self) -> float:
        """Return the seconds in which the sampler had nothing to do since the last call."""
        with self._lock:
            found, self._idle_seconds = self._idle_seconds, 0.0
        return found

    def state(self) -> list[Drawn]:
        """Return the drawn batches with the rollouts of all processes that are graded by now."""
        found: list[Drawn] = []
        for step, batch in self._batches.items():
            shares = processes.gather(batch.graded(step))
            found.append(Drawn(step, batch.problems_P, {pair: one for share in shares for pair, one in share.items()}))
        return found

    def restore(self, drawn: Sequence[Drawn]) -> None:
        """Continue with the batches of a checkpoint; what is missing in them is sampled."""
        for step, problems_P, known in drawn:
            self._begin(step, problems_P, known)

    def close(self) -> None:
        """Stop sampling at the next finished completion. Idempotent."""
        self._closed = True
        self._workers.shutdown(wait=False, cancel_futures=True)


def _ended(future: Future[Round], seconds: float) -> bool:
    """Wait for a future at most that long; return True once it has ended, also with an exception."""
    try:
        future.exception(timeout=seconds)
    except TimeoutError:
        return False
    return True
