"""Findings as text, for a terminal and for a run's log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from reasoner.observe.explain.finding import Finding, Level
from reasoner.storage.history import History
from verifiers.terminal.console import plain_console
from verifiers.terminal.program import as_started
from verifiers.text import one_line

COLOURS = {Level.FAULT: "bold red", Level.WARNING: "yellow", Level.NOTE: "cyan"}


def print_findings(stages: Sequence[tuple[History, Sequence[Finding]]], console: Console | None = None) -> None:
    """Print the findings of every stage, the costliest first."""
    console = console or plain_console()
    for history, found in stages:
        where = history.folder or Path("run")
        console.print(f"{history.config.method} {where}: {_summary(history)}", style="bold", markup=False)
        if not found:
            console.print("  nothing stands out", markup=False)
        for number, finding in enumerate(found, 1):
            _print(console, number, finding)


def _print(console: Console, number: int, finding: Finding) -> None:
    follows = f" (follows from {finding.follows})" if finding.follows else ""
    console.print(f"{number:>2}. ", Text(finding.level, COLOURS[finding.level]), " ", sep="", end="")
    console.print(one_line(f"{finding.title}{follows}"), markup=False)
    for line in finding.evidence:
        console.print(f"      {one_line(line)}", markup=False)
    if finding.change:
        console.print(f"      try: {one_line(as_started(finding.change))}", markup=False)
    if finding.rollouts:
        listed = ", ".join(map(str, finding.rollouts))
        console.print(f"      rollouts (step/group/sample): {listed}   [{finding.code}]", markup=False)
    else:
        console.print(f"      [{finding.code}]", markup=False)


def _summary(history: History) -> str:
    steps = len(history.metrics)
    rollouts = f", {len(history.rows)} rollouts" if history.rows else ""
    if history.steps_left_out:
        rollouts += f" of {len(history.steps)} steps read ({history.steps_left_out} steps between them were not)"
    state = "complete" if history.complete else "stopped" if history.failure else "not complete"
    return f"{steps} of {history.config.steps} steps{rollouts}, {state}"


def sentence(finding: Finding) -> str:
    """Return a finding as one line, for a log."""
    why = f" ({finding.evidence[0]})" if finding.evidence else ""
    change = f" Try: {as_started(finding.change)}" if finding.change else ""
    return f"{finding.level}: {finding.title}{why}.{change}"
