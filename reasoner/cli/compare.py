"""`reasoner compare`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors
from verifiers.jsonl import json_line
from verifiers.text import one_line


class On(StrEnum):
    """The completions to compare: of evaluations or of training."""

    EVAL = "eval"
    TRAIN = "train"


class Metric(StrEnum):
    """The value of a completion."""

    CORRECT = "correct"
    REWARD = "reward"


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Run folders or folders of `reasoner eval --output`; RUN@STEP for one step.",
            autocompletion=complete.runs,
        ),
    ],
    on: Annotated[
        On, typer.Option("--on", help="The last evaluation, or the last quarter of the training steps.")
    ] = On.EVAL,
    metric: Annotated[
        Metric, typer.Option("--metric", help="Per problem: share of right answers, or mean reward.")
    ] = Metric.CORRECT,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
) -> None:
    """Compare runs on their common problems: paired differences with intervals and exact tests.

    Every run is compared with the first; `compare RUN@0 RUN` compares a run with its own start.
    """
    with plain_errors():
        from reasoner.observe.analysis.compare import compare as compare_values
        from reasoner.observe.analysis.compare import evaluated_rows, problem_values, trained_rows

        if len(runs) < 2:
            raise typer.BadParameter("give two runs or more.")
        values: dict[str, dict[str, float]] = {}
        for place, name in enumerate(runs):
            path, _, step = name.partition("@")
            if step and not step.isdigit():
                raise typer.BadParameter(f"the step of RUN@STEP must be a number; got {name!r}.")
            rows = (
                evaluated_rows(Path(path), step=int(step) if step else None)
                if on is On.EVAL
                else trained_rows(Path(path))
            )
            values[name if name not in values else f"{name} ({place})"] = problem_values(rows, metric)
        found = compare_values(values)
        if as_json:
            typer.echo(json_line([comparison.to_json() for comparison in found]))
            return
        for c in found:
            typer.echo(one_line(f"{c.b} against {c.a}: {c.verdict}"))
            typer.echo(
                f"  {c.mean_a:.1%} -> {c.mean_b:.1%}, difference {c.difference:+.1%} [{c.low:+.1%}, {c.high:+.1%}],"
                f" p = {c.p:.2g} ({c.test}), {c.problems} problems, {c.unequal} with a difference;"
                f" win rate {c.win_rate:.1%} [{c.win_low:.1%}, {c.win_high:.1%}], ties half"
            )
            if c.only_a or c.only_b:
                typer.echo(f"  not compared: {c.only_a} problems only in the first run, {c.only_b} only in the second")
