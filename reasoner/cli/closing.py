"""The last lines of a run: what changed, what explain says of it, and where everything lies."""

from __future__ import annotations

import json
from pathlib import Path

from reasoner.config.stage import RunConfig
from reasoner.observe.explain import explain
from reasoner.observe.explain.say import print_findings
from verifiers.terminal.console import plain_console


def figure(estimate: list[float], *, like: list[float]) -> str:
    """An estimate and its interval: shares in percent, anything else (losses, scores of any size) as it is.

    Example:
        >>> figure([0.5, 0.4, 0.6], like=[0.2, 0.1, 0.3]), figure([-0.5, -0.6, -0.4], like=[0.2, 0.1, 0.3])
        ('50.0% [40.0%, 60.0%]', '-0.500 [-0.600, -0.400]')
    """
    share = all(0 <= value <= 1 for value in (*estimate, *like))
    value, low, high = (f"{number:.1%}" if share else f"{number:.3f}" for number in estimate)
    return f"{value} [{low}, {high}]"


def print_closing(run: RunConfig) -> None:
    """Before and after of each stage, and the paths of records, curves and model."""
    console = plain_console()
    for index, stage in enumerate(run.stages):
        folder = run.stage_folder(index)
        done = json.loads((folder / "done.json").read_text())
        for name, after in done["after"].items():
            before = done["before"].get(name)
            was = f"{figure(before, like=after)} -> " if before else ""
            console.print(f"{stage.method}: held-out {name} {was}{figure(after, like=before or after)}")
    print_findings(explain(Path(run.output)), console)
    last: Path = run.stage_folder(len(run.stages) - 1)
    records = [name for name in ("rollouts.jsonl", "metrics.jsonl") if _holds_lines(last / name)]
    console.print(f"records  {last}/{', '.join(records)}")
    console.print(f"report   reasoner report {run.output}")
    console.print(f"model    {last}/final")


def _holds_lines(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0
