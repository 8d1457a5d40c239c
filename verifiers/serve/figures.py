"""Metrics of the service for Prometheus."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from verifiers.pool import GradingPool
from verifiers.verdict import Verdict

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Figures:
    """Counters and histograms of the service. Label values are its own verifiers and paths, never a client's input."""

    def __init__(self, pool: GradingPool) -> None:
        self.registry = CollectorRegistry()
        self._verdicts = Counter(
            "reasoner_verdicts_total", "Verdicts given", ["verifier", "outcome"], registry=self.registry
        )
        self._grading = Histogram(
            "reasoner_grading_seconds", "Time of grading a row", ["verifier"], buckets=SECONDS, registry=self.registry
        )
        self._requests = Histogram(
            "reasoner_request_seconds", "Time of a request", ["path", "status"], buckets=SECONDS, registry=self.registry
        )
        self.refused = Counter("reasoner_rows_refused_total", "Rows answered 503", registry=self.registry)
        self.in_flight = Gauge("reasoner_rows_in_flight", "Rows queued or being graded", registry=self.registry)
        workers = Gauge("reasoner_workers", "Grading processes alive", registry=self.registry)
        workers.set_function(lambda: pool.state().workers)

    def count(self, name: str, verdicts: Sequence[Verdict]) -> None:
        """Count the verdicts of one request."""
        for outcome, count in Tally(verdict.outcome for verdict in verdicts).items():
            self._verdicts.labels(name, str(outcome)).inc(count)
        grading = self._grading.labels(name)
        for verdict in verdicts:
            grading.observe(verdict.seconds)

    def time(self, path: str, status: int, seconds: float) -> None:
        """Record the duration of one request."""
        self._requests.labels(path, str(status)).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)
