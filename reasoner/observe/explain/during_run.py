"""The rules of `explain` applied during a run to its last steps; each finding is reported once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reasoner.config.stage import StageConfig
from reasoner.observe.explain import Finding, Level, findings
from reasoner.storage.history import History, Row, UpdateRecord, attach_updates, config_before, metrics_of, row_of
from verifiers import JSON

KEEP_STEPS = 6
EVERY_STEPS = 5
"""Steps between two checks. A check takes about a millisecond per ten stored rollouts."""
MAX_ROWS = 4_096


class Watch:
    """Listener that receives every line that the run writes."""

    def __init__(self, config: StageConfig) -> None:
        self._config, self._before = config, config_before(config)
        self._metrics: list[Mapping[str, float | None]] = []
        self._rows: list[Row] = []
        self._said: set[str] = set()

    @property
    def last_rows(self) -> list[Row]:
        """Rollouts of the latest step."""
        return [row for row in self._rows if row.step == self._rows[-1].step] if self._rows else []

    @property
    def metrics(self) -> Sequence[Mapping[str, float | None]]:
        """All lines of metrics so far."""
        return self._metrics

    def heard(self, name: str, rows: Sequence[Mapping[str, JSON]]) -> None:
        """Receive lines that were appended to a record file."""
        if name == "metrics.jsonl":
            self._metrics += map(metrics_of, rows)
        elif name == "rollouts.jsonl":
            self._rows += [row_of(row) for row in rows]
            newest = self._rows[-1].step if self._rows else 0
            self._rows = [row for row in self._rows if row.step > newest - KEEP_STEPS][-MAX_ROWS:]
        elif name == "updates.jsonl" and rows:
            attach_updates(self.last_rows, map(UpdateRecord.model_validate, rows))

    def look(self, step: int) -> list[Finding]:
        """Return new faults and warnings; checks only every EVERY_STEPS steps."""
        if step % EVERY_STEPS or not self._rows:
            return []
        history = History(
            config=self._config,
            before=self._before,
            metrics=[*self._metrics],
            rows=self._rows,
            environment=_machine(),
        )
        new = [f for f in findings(history) if f.level is not Level.NOTE and not f.follows and f.code not in self._said]
        self._said |= {finding.code for finding in new}
        return new


def _machine() -> dict[str, JSON]:
    import torch

    return {"device": "cuda" if torch.cuda.is_available() else "cpu"}
