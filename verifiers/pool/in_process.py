"""Batch grading in threads of the caller's process, for reward models, judges and remote services.

Threads cannot be killed. The rows of a batch that times out are marked as verifier errors; its thread is abandoned and
a new one takes over. After ABANDONED such threads the verifier is no longer called.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from verifiers.errors import VerifierError
from verifiers.pool.work_queue import CLOSED, Item, Kind
from verifiers.pool.worker_main import fault_verdict
from verifiers.pool.worker_process import START_SECONDS
from verifiers.verdict import Verdict

ABANDONED = 3
WATCH_SECONDS = 0.25


class InProcessQueue:
    """Queue of one verifier that grades in the caller's process, and the threads that grade its rows in batches."""

    def __init__(self, kind: Kind) -> None:
        assert kind.in_process is not None
        self._kind = kind
        self._verifier = kind.in_process
        self._changed = threading.Condition()
        self._waiting: deque[Item] = deque()
        self._running: dict[int, tuple[float, Sequence[Item], Sequence[Item]]] = {}
        """Thread number -> (deadline, rows being graded, rows of the same batch that come after them)."""
        self._started = 0
        self._abandoned: set[int] = set()
        self._warm = False
        self._closed = False

    def put(self, item: Item) -> None:
        """Queue one row."""
        with self._changed:
            if self._closed or len(self._abandoned) >= ABANDONED:
                cause = CLOSED if self._closed else f"{self._kind.name} stopped responding and is no longer called"
                item.fault(cause)
                return
            self._waiting.append(item)
            if self._started == 0:
                threading.Thread(target=self._watch, name=f"watching-{self._kind.name}", daemon=True).start()
            if self._started - len(self._abandoned) < min(self._kind.concurrency, len(self._waiting)):
                self._start()
            self._changed.notify()

    def close(self) -> None:
        """Fail all queued rows and the rows being graded."""
        with self._changed:
            self._closed = True
            given_up = [
                *self._waiting,
                *(item for _, batch, rest in self._running.values() for item in (*batch, *rest)),
            ]
            self._waiting.clear()
            self._changed.notify_all()
        for item in given_up:
            item.fault(CLOSED)

    def _start(self) -> None:
        self._started += 1
        number = self._started
        threading.Thread(
            target=self._run, args=(number,), name=f"grading-{self._kind.name}-{number}", daemon=True
        ).start()

    def _run(self, number: int) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed and number not in self._abandoned:
                    self._changed.wait()
                if self._closed or number in self._abandoned:
                    return
                count = min(self._kind.batch_rows or len(self._waiting), len(self._waiting))
                batch = [item for item in (self._waiting.popleft() for _ in range(count)) if item.claim()]
                if not batch:
                    continue
                self._expect(number, batch, (), 0 if self._warm else START_SECONDS)
            try:
                self._grade(number, batch)
            finally:
                with self._changed:
                    self._running.pop(number, None)
                    self._warm = True

    def _expect(self, number: int, batch: Sequence[Item], rest: Sequence[Item], more: float = 0.0) -> None:
        """Set the deadline of a thread's current rows. Lock held."""
        self._running[number] = (time.monotonic() + self._kind.wall_seconds * len(batch) + more, batch, rest)

    def _grade(self, number: int, batch: Sequence[Item]) -> None:
        try:
            verdicts = self._verifier.verify_batch([item.row for item in batch])
        except Exception as error:  # boundary: a failed batch is graded row by row, to find the row at fault
            if len(batch) == 1 or (isinstance(error, VerifierError) and error.of_batch):
                for item in batch:
                    item.settle(Verdict.from_json(fault_verdict(error, item.kind.name)))
                return
            for at, item in enumerate(batch):
                with self._changed:
                    if number in self._abandoned:
                        return
                    self._expect(number, [item], batch[at + 1 :])
                self._grade(number, [item])
            return
        for item, verdict in zip(batch, verdicts, strict=True):
            item.settle(verdict)

    def _watch(self) -> None:
        while not self._closed:
            time.sleep(WATCH_SECONDS)
            late: list[Item] = []
            with self._changed:
                now = time.monotonic()
                for number, (deadline, batch, rest) in list(self._running.items()):
                    if now > deadline:
                        late += batch
                        self._waiting.extendleft(reversed(rest))
                        del self._running[number]
                        self._abandoned.add(number)
                if len(self._abandoned) >= ABANDONED:
                    late += self._waiting
                    self._waiting.clear()
                elif late and self._waiting:
                    self._start()
            for item in late:
                item.fault(
                    f"{self._kind.name} did not respond within {self._kind.wall_seconds:g} s per row; it runs in this"
                    " process, where it cannot be killed, and was abandoned"
                )
