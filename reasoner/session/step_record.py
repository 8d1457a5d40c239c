"""Record of one step: time of its parts, its rollouts, its metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from reasoner.monitoring.judging import judge_metrics, usage_of
from reasoner.monitoring.metrics import peak_memory_mb, rollout_metrics
from reasoner.policy.step_probe import StepProbe
from reasoner.policy.step_update import Updated
from reasoner.records import Dropped, Kept, RolloutGroup
from reasoner.rollout.round import Sampled
from reasoner.rollout.selection import Selection
from reasoner.session.session import Session
from reasoner.storage.rows import RowMetrics, update_rows
from verifiers import JSON


class StepRecord:
    """Recorder of one step: measures it and writes its files.

    Example:
        record = StepRecord(session, step)
        with record.part("update"):
            stats = policy.update(batch, objective)
        record.finish(mean_stats([stats]))
    """

    def __init__(self, session: Session, step: int) -> None:
        self.step = step
        self.groups: list[RolloutGroup] = []
        """Groups sampled so far."""
        self._session = session
        self._portions: list[Sampled] = []
        self.kept: Kept = []
        """Rows of the update."""
        self._dropped: list[Dropped] = []
        self.seconds: dict[str, float] = {}
        """Seconds spent in each part."""
        self.update_lines: list[dict[str, JSON]] = []
        """Rows written to updates.jsonl."""
        self._started = time.perf_counter()
        self._judged = usage_of(session.pool.made_here)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the seconds spent in the block to the part `name` of the step."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def rollouts(self, portions: Iterable[Sampled]) -> Iterator[Sampled]:
        """Yield the portions, after writing each to rollouts.jsonl. The waiting time counts as the part `rollout`."""
        waiting = iter(portions)
        while True:
            with self.part("rollout"):
                portion = next(waiting, None)
                if portion is None:
                    return
                self._session.run.write_rollouts(portion.groups, first_group=portion.first_group)
                self.groups += portion.groups
                self._portions.append(portion)
            yield portion

    def selected(self, selection: Selection) -> Kept:
        """Record which rollouts of a portion enter the update, and return those that do."""
        self.kept += selection.kept
        self._dropped += selection.dropped
        return selection.kept

    def updates(self, updated: Updated | None, probe: StepProbe) -> None:
        """Write updates.jsonl: every rollout's advantage and log-probabilities, or the reason why it was left out."""
        rows = row_metrics(self.kept, updated, probe) if updated else []
        self.update_lines = update_rows(self.step, rows, self._dropped)
        self._session.run.append("updates.jsonl", self.update_lines)

    def finish(self, metrics: Mapping[str, float], *, shown: bool = True) -> dict[str, float]:
        """Count the step as done. Write its metrics together with those of its rollouts and times, and display them."""
        session = self._session
        session.step = self.step
        judging = judge_metrics(self.groups, self._judged, usage_of(session.pool.made_here))
        cap = session.config.rollout.turn_tokens
        sampled = rollout_metrics(self.groups, turn_tokens=cap) if self.groups else {}
        found = {**metrics, **sampled, **judging, **self.measurements()}
        session.run.log(self.step, found)
        if shown:
            session.display.step(self.step, found)
        return found

    def measurements(self) -> dict[str, float]:
        """Return the seconds of the parts and of the whole step, the throughput, and the peak memory."""
        found = {f"time/{name}": seconds for name, seconds in self.seconds.items()}
        found["time/step"] = time.perf_counter() - self._started
        found["memory/peak_mb"] = peak_memory_mb()
        if self._portions:
            tokens = sum(portion.tokens for portion in self._portions)
            generation = sum(portion.generation_seconds for portion in self._portions)
            found |= {
                "time/generation": generation,
                "time/grading_wait": sum(portion.grading_wait_seconds for portion in self._portions),
                "throughput/tokens_per_second": tokens / max(1e-9, found["time/step"]),
                "throughput/generated_per_second": tokens / max(1e-9, generation),
                "data/epoch": self._session.producer.problems.epochs,
            }
            replied = sum(portion.environment_seconds for portion in self._portions)
            if replied:
                waited = sum(portion.environment_wait_seconds for portion in self._portions)
                found |= {"time/environment": replied, "time/environment_wait": waited}
        return found

    def training_metrics(self) -> dict[str, float]:
        """Return the number of rows in the update, the number of problems seen, and the policy's version."""
        return {
            "groups/rows_kept": float(len(self.kept)),
            "data/problems_seen": float(len(self._session.difficulty)),
            "policy/version": float(self._session.policy.version),
        }


def row_metrics(kept: Kept, updated: Updated, probe: StepProbe) -> list[RowMetrics]:
    """Return the advantage and the trainer log-probabilities of each row of an update."""
    batch = updated.batch
    if batch.advantages_N is None:
        return []
    advantages = batch.advantages_N.tolist()
    return [
        RowMetrics(group, rollout, advantages[start], probe.trainer_logprobs(row))
        for row, ((group, rollout), start) in enumerate(zip(kept, batch.row_starts()[:-1], strict=True))
    ]
