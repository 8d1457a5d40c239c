"""The last lines of a run: what changed, over rounds too, the findings of explain, and the paths of the results."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from reasoner.config.kept_prompt import read_kept_prompt
from reasoner.config.stage import RunConfig
from reasoner.observe.analysis.rounds import Round, rounds
from reasoner.observe.explain import explain
from reasoner.observe.explain.say import print_findings
from reasoner.session.model_card import figure
from verifiers.terminal.console import plain_console
from verifiers.terminal.program import program


def print_closing(run: RunConfig) -> None:
    """Print each stage's metrics before and after, a table of rounds, the findings, and where everything lies."""
    console = plain_console()
    for index, stage in enumerate(run.stages):
        folder = run.stage_folder(index)
        done = json.loads((folder / "done.json").read_text())
        for name, after in done["after"].items():
            before = done["before"].get(name)
            was = f"{figure(before, like=after)} -> " if before else ""
            console.print(f"{stage.method}: held-out {name} {was}{figure(after, like=before or after)}")
    for line in rounds_table(rounds(Path(run.output))):
        console.print(line)
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


def rounds_table(found: Sequence[Round]) -> Iterator[str]:
    """Yield the lines of a table: the held-out metric of the start and of each round, and the win rate over the start.

    It has no lines if there are no rounds.
    """
    if not found:
        return
    counts = [one.against_start.problems for one in found if one.against_start]
    rows = [("", found[0].metric, "win rate against the start, ties half")]
    for one in found:
        won = one.against_start
        rows.append(
            (
                one.stage if won else f"before {one.stage}",
                figure(one.estimate, like=one.estimate) if one.estimate else "not recorded",
                figure((won.win_rate, won.win_low, won.win_high), like=(0.0,)) if won else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    yield f"rounds, each on the same {min(counts)} held-out problems:"
    for name, estimate, win in rows:
        yield f"  {name:<{widths[0]}}  {estimate:<{widths[1]}}  {win}".rstrip()


def _holds_lines(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0
