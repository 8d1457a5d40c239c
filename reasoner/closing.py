"""The last lines of a run: what changed, what explain says of it, and where everything lies."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from reasoner.config import RunConfig
from reasoner.explain import explain
from reasoner.explain.say import print_findings


def print_closing(run: RunConfig) -> None:
    """Before and after of each stage, and the paths of records, curves and model."""
    console = Console(highlight=False, soft_wrap=True)
    for index, stage in enumerate(run.stages):
        folder = run.stage_folder(index)
        done = json.loads((folder / "done.json").read_text())
        for name, after in done["after"].items():
            before = done["before"].get(name)
            was = f"{before[0]:.1%} [{before[1]:.1%}, {before[2]:.1%}] -> " if before else ""
            console.print(
                f"{stage.method}: {name} on held-out problems {was}{after[0]:.1%} [{after[1]:.1%}, {after[2]:.1%}]",
                markup=False,
            )
    print_findings(explain(Path(run.output)), console)
    last: Path = run.stage_folder(len(run.stages) - 1)
    console.print(f"records  {last}/rollouts.jsonl, metrics.jsonl", markup=False)
    console.print(f"report   reasoner report {run.output}", markup=False)
    console.print(f"model    {last}/final", markup=False)
