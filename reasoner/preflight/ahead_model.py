"""Model of samplers and a trainer: what sampling ahead gains. A discrete-event simulation in plain Python.

A replica (a server) decodes its completions together; a token of each takes `base + row * completions` seconds. Each
side has devices of its own.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace


@dataclass
class Replica:
    """Sampler whose rows advance together; `now` and `tokens` are its time and the tokens of each row so far."""

    base: float
    row: float
    most: int
    now: float = 0.0
    tokens: float = 0.0
    active: list[tuple[float, int]] = field(default_factory=list)
    waiting: list[tuple[int, int]] = field(default_factory=list)

    def add(self, number: int, length: int) -> None:
        """Take a completion of `length` tokens."""
        self.waiting.append((number, length))
        self._fill()

    def _fill(self) -> None:
        while self.waiting and len(self.active) < self.most:
            number, length = self.waiting.pop(0)
            heapq.heappush(self.active, (self.tokens + length, number))

    @property
    def pending(self) -> int:
        """Completions not finished."""
        return len(self.active) + len(self.waiting)

    def next_end(self) -> float:
        """Time at which the next completion is finished; infinite without one."""
        if not self.active:
            return math.inf
        return self.now + (self.active[0][0] - self.tokens) * (self.base + self.row * len(self.active))

    def advance(self, until: float) -> list[int]:
        """Decode until a time, at most to the next end; return the completions that are finished."""
        if self.active:
            self.tokens += (until - self.now) / (self.base + self.row * len(self.active))
        self.now = max(self.now, until)
        done: list[int] = []
        while self.active and self.active[0][0] <= self.tokens + 1e-6:
            done.append(heapq.heappop(self.active)[1])
        self._fill()
        return done


@dataclass(frozen=True)
class Setting:
    """Sizes and times of a run. Seconds."""

    rows: int
    replicas: int
    update: float
    sync: float = 0.0
    base: float = 0.006
    row: float = 0.00008
    most: int = 256
    ahead: float = 0.0
    """Batches that may be under way beside that of the present step; half a batch is 0.5."""
    first_finished: bool = False


def simulate(setting: Setting, length: Callable[[], int], steps: int = 12) -> dict[str, float]:
    """Run the steps with samplers of their own; return means over the steps after the first third."""
    replicas = [Replica(setting.base, setting.row, setting.most) for _ in range(setting.replicas)]
    lengths: list[int] = []
    finished_at: dict[int, float] = {}
    order: list[int] = []
    now, trained, ends, waits, used = 0.0, set[int](), [0.0], [], []

    def run_until(ready: Callable[[], bool], limit: float = math.inf) -> float:
        nonlocal now
        while not ready():
            at = min(min(one.next_end() for one in replicas), limit)
            for replica in replicas:
                for number in replica.advance(at):
                    finished_at[number] = at
                    order.append(number)
            now = at
            if at == limit:
                break
        return now

    for step in range(steps):
        allowed = math.ceil((step + 1 + setting.ahead) * setting.rows)
        for number in range(len(lengths), allowed):
            lengths.append(length())
            min(replicas, key=lambda one: one.pending).add(number, lengths[number])
        started = now
        if setting.first_finished:
            before = len(trained)
            run_until(lambda before=before: len(order) - before >= setting.rows)
            batch = [number for number in order if number not in trained][: setting.rows]
        else:
            batch = [*range(step * setting.rows, (step + 1) * setting.rows)]
            wanted = set(batch)
            run_until(lambda wanted=wanted: wanted <= finished_at.keys())
        waits.append(now - started)
        trained |= {*batch}
        used += [lengths[number] for number in batch]
        run_until(lambda: False, limit=now + setting.update)
        for replica in replicas:  # paused while the weights are sent
            replica.now += setting.sync
        now += setting.sync
        ends.append(now)
    skip = steps // 3
    return {
        "step_seconds": (ends[-1] - ends[skip]) / (steps - skip),
        "trainer_wait_seconds": statistics.fmean(waits[skip:]),
        "length_trained_over_drawn": statistics.fmean(used) / statistics.fmean(lengths),
    }


def one_batch(setting: Setting, lengths: Sequence[int]) -> float:
    """Seconds to sample these completions, from the first to the last."""
    alone = replace(setting, rows=len(lengths), update=0.0, sync=0.0)
    return simulate(alone, iter(lengths).__next__, 1)["trainer_wait_seconds"]


def fence_seconds(setting: Setting, sampling: float) -> float:
    """Seconds of a step with `rollout.ahead: 1` and `during_update: wait`, if a batch takes `sampling` seconds."""
    return max(sampling, setting.update) + setting.sync


def sampling_seconds(setting: Setting, length: Callable[[], int], batches: int = 5) -> float:
    """Mean seconds to sample a batch of drawn lengths."""
    return statistics.fmean(one_batch(setting, [length() for _ in range(setting.rows)]) for _ in range(batches))


def log_normal(median: float, sigma: float, cap: int, seed: int) -> Callable[[], int]:
    """Draw lengths; those above the cap are truncated there."""
    source = random.Random(seed)
    return lambda: max(1, min(cap, int(source.lognormvariate(math.log(median), sigma))))


def drawn_from(lengths: Sequence[int], seed: int) -> Callable[[], int]:
    """Draw from recorded lengths."""
    source = random.Random(seed)
    return lambda: source.choice(lengths)
