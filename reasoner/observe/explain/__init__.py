"""`reasoner explain`: problems of a run as sentences, the costliest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from reasoner.observe.explain.ahead_rules import ahead_rules
from reasoner.observe.explain.component_rules import component_rules
from reasoner.observe.explain.evaluation_rules import evaluation_rules
from reasoner.observe.explain.finding import Finding, Level, Place, ordered
from reasoner.observe.explain.gap import gap_rules
from reasoner.observe.explain.grading_rules import grading_rules
from reasoner.observe.explain.machine_rules import machine_rules
from reasoner.observe.explain.pair_rules import pair_rules
from reasoner.observe.explain.plumbing_rules import plumbing_rules
from reasoner.observe.explain.policy_rules import policy_rules
from reasoner.observe.explain.ppo_rules import ppo_rules
from reasoner.observe.explain.prompt_rules import prompt_rules
from reasoner.observe.explain.recomputed_rules import recomputed_rules
from reasoner.observe.explain.record_rules import record_rules
from reasoner.observe.explain.schedule_rules import schedule_rules
from reasoner.observe.explain.signal_rules import signal_rules
from reasoner.observe.explain.turn_rules import turn_rules
from reasoner.observe.explain.written_pair_rules import written_pair_rules
from reasoner.storage.history import History, Most, Row, read_history, stage_folders

MOST = Most(rows=20_000, size=256 << 20)
"""Rollouts that are read; of a longer run the rules see whole steps of its begin, its end, and between."""

RULES: tuple[Callable[[History], Iterator[Finding]], ...] = (
    gap_rules,
    plumbing_rules,
    evaluation_rules,
    schedule_rules,
    policy_rules,
    ppo_rules,
    pair_rules,
    written_pair_rules,
    prompt_rules,
    record_rules,
    recomputed_rules,
    signal_rules,
    grading_rules,
    component_rules,
    turn_rules,
    ahead_rules,
    machine_rules,
)


def findings(history: History) -> list[Finding]:
    """Apply every rule to the records of a stage; return one finding per code, the costliest first."""
    found: dict[str, Finding] = {}
    for rule in RULES:
        for finding in rule(history):
            if finding.code not in found or finding.cost > found[finding.code].cost:
                found[finding.code] = finding
    return ordered(found.values())


def explain(run: Path) -> list[tuple[History, list[Finding]]]:
    """Return every stage of a run with its findings.

    Raises:
        RunError: there is no run in that folder.
    """
    histories = [read_history(folder, most=MOST) for folder in stage_folders(run)]
    return [(history, findings(history)) for history in histories]


__all__ = [
    "RULES",
    "Finding",
    "History",
    "Level",
    "Place",
    "Row",
    "explain",
    "findings",
    "ordered",
    "read_history",
    "stage_folders",
]
