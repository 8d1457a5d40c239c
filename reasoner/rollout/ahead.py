"""Batches that are sampled while the policy learns.

Batch n is made of the problems that were drawn for step n. It never depends on which completions finish first, so that
long completions are trained on as often as they are sampled, and none is dropped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from reasoner import processes
from reasoner.records import Problem, RolloutGroup
from reasoner.rollout.round import Round, Sampled
from reasoner.storage.rows import recorded_groups, rollout_row
from verifiers.jsonl import json_line

FILE = "ahead.jsonl"
"""File of a checkpoint with the batches that were sampled ahead."""
LOOK_SECONDS = 0.1
"""Interval at which the displayed progress of a batch is updated."""

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Graded(Protocol):
    """Interface of the groups of one batch."""

    def graded(self, portions: int = 1) -> Iterator[Sampled]:
        """Yield the groups in the order of the problems, in `portions` parts."""
        ...

    def all(self) -> Sampled:
        """Return all groups."""
        ...


@dataclass(frozen=True, slots=True)
class RecordedRound:
    """A batch whose groups are known already: from a checkpoint, or from the records of a run."""

    groups: Sequence[RolloutGroup]
    """Groups of all processes."""

    def graded(self, portions: int = 1) -> Iterator[Sampled]:
        """Yield the groups in the portions that `Round.graded` would make of them."""
        share = processes.count()
        most = -(-len(self.groups) // share)
        for portion in range(portions):
            first, end = (share * (part * most // portions) for part in (portion, portion + 1))
            if part := tuple(self.groups[first:end]):
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
    sampled: Future[Graded]
    done: int = 0
    """Completions of this process that are finished."""


class Ahead:
    """Window of the batches that are drawn and not yet trained on: that of the present step and up to `most` more.

    Batches are sampled one after the other, in a thread. Draws happen only in `admit`, so they never depend on time.

    Example:
        ahead.admit(1, last=2)            # draws the batches of steps 1 and 2
        for sampled in ahead.take(1, progress).graded(): ...
    """

    def __init__(
        self,
        *,
        most: int,
        draw: Callable[[], Sequence[Problem]],
        sample: Callable[[int, Sequence[Problem], Callable[[int], None]], Round],
    ) -> None:
        """Set the size of the window.

        Args:
            most: number of batches that may be sampled ahead of the present step's.
            draw: returns the problems of the next batch.
            sample: (step, problems, on_progress) to the sampled batch; called in the thread.
        """
        self.most = most
        self._draw, self._sample = draw, sample
        self._batches: dict[int, _Batch] = {}
        self._next = 0
        """First step whose batch is not drawn."""
        self._workers = ThreadPoolExecutor(1, thread_name_prefix="reasoner-ahead")
        self._closed = False
        self._idle_seconds = 0.0
        self._idle_since: float | None = None

    def admit(self, step: int, *, last: int) -> None:
        """Draw the batches from `step` to step `last` that are not drawn yet, and sample them in order."""
        for number in range(max(step, self._next), last + 1):
            problems_P = self._draw()
            batch = self._batches[number] = _Batch(problems_P, Future())
            self._workers.submit(self._run, number, batch)
        self._next = max(self._next, last + 1)

    def _run(self, step: int, batch: _Batch) -> None:
        def on_progress(done: int) -> None:
            if self._closed:
                raise _Closed
            batch.done = done

        if self._idle_since is not None:
            self._idle_seconds += time.perf_counter() - self._idle_since
        try:
            batch.sampled.set_result(self._sample(step, batch.problems_P, on_progress))
        except BaseException as error:  # raised where the batch is taken
            batch.sampled.set_exception(error)
        self._idle_since = time.perf_counter()

    def take(self, step: int, progress: Progress, *, size: int) -> Graded:
        """Wait for the batch of a step, and remove it from the window.

        Args:
            step: its number.
            progress: displays the progress while the batch is waited for.
            size: number of completions, for the display.
        """
        batch = self._batches[step]
        if not batch.sampled.done():
            with progress(f"step {step}: sampling", size) as advance:
                while not _ended(batch.sampled, LOOK_SECONDS):
                    advance(batch.done)
        del self._batches[step]
        return batch.sampled.result()

    def settle(self) -> None:
        """Wait until all drawn batches are sampled and graded.

        Raises:
            Exception: one that occurred while a batch was sampled.
        """
        for batch in self._batches.values():
            sampled = batch.sampled.result()
            if isinstance(sampled, Round):
                for verdict in sampled.verdicts.values():
                    verdict.result()

    def idle_seconds(self) -> float:
        """Return the seconds in which the sampler had nothing to do since the last call."""
        found, self._idle_seconds = self._idle_seconds, 0.0
        return found

    def save(self) -> Callable[[Path], None]:
        """Collect the drawn batches, which must be settled, from all processes.

        Returns:
            A function that writes them into the folder of a checkpoint.
        """
        batches = {step: batch.sampled.result().all().groups for step, batch in self._batches.items()}

        def write(folder: Path) -> None:
            with (folder / FILE).open("w") as file:
                for groups in batches.values():
                    for index, group in enumerate(groups):
                        # rollouts.jsonl names no environment; the metrics of turns need to know if there is one
                        for row in rollout_row(group, index):
                            file.write(json_line({**row, "environment": group.problem.environment}) + "\n")

        return write

    def restore(self, folder: Path) -> None:
        """Read the batches that `save` wrote into the folder of a checkpoint.

        Raises:
            OSError, KeyError, TypeError, ValueError: the file is missing or damaged.
        """
        lines: dict[int, list[Mapping[str, Any]]] = {}
        with (folder / FILE).open() as file:
            for line in file:
                row = json.loads(line)
                lines.setdefault(row["step"], []).append(row)
        for step, rows in lines.items():
            groups = recorded_groups(rows)
            batch = self._batches[step] = _Batch([group.problem for group in groups], Future())
            batch.sampled.set_result(RecordedRound(groups))
            self._next = step + 1

    def close(self) -> None:
        """Stop sampling at the next finished completion. Idempotent."""
        self._closed = True
        self._workers.shutdown(wait=False, cancel_futures=True)


def _ended(future: Future[Graded], seconds: float) -> bool:
    """Wait for a future at most that long; return True once it has ended, also with an exception."""
    try:
        future.exception(timeout=seconds)
    except TimeoutError:
        return False
    return True
