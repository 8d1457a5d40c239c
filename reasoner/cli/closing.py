"""The last lines of a run: what changed, the findings of explain, and the paths of the results."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from reasoner.config.kept_prompt import read_kept_prompt
from reasoner.config.stage import RunConfig
from reasoner.observe.explain import explain
from reasoner.observe.explain.say import print_findings
from reasoner.session.model_card import figure
from verifiers.terminal.console import plain_console
from verifiers.terminal.program import program


def print_closing(run: RunConfig) -> None:
    """Print each stage's metrics before and after, the findings, and the paths of records, report and model."""
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
    command = shlex.join(program())
    console.print(f"report   {command} report {run.output}")
    linked = Path(run.output) / "final"
    model = linked if linked.exists() else last / "final"
    console.print(f"model    {model}")
    kept = read_kept_prompt(model)
    if kept is not None and kept.environment is None:  # chat has no environment
        console.print(f"talk     {command} chat {run.output}")


def _holds_lines(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0
