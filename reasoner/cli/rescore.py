"""`reasoner rescore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors
from reasoner.cli.verify import ROW_CODE
from verifiers.jsonl import json_line
from verifiers.text import one_line

if TYPE_CHECKING:
    from reasoner.observe.analysis.rescore import Rescore


def rescore(
    run: Annotated[Path, typer.Argument(help="A run folder, or one of its stages.", autocompletion=complete.runs)],
    verifier: Annotated[
        str | None,
        typer.Option(
            "--verifier",
            "-v",
            help="Name, module:attribute or file.py:attribute. Default: the run's own.",
            autocompletion=complete.verifiers,
        ),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="Option of the verifier: key=value; repeatable.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Write every changed rollout to this JSONL file.")
    ] = None,
    steps: Annotated[str | None, typer.Option("--steps", help="Only these steps: 10 or 10-20.")] = None,
    workers: Annotated[int, typer.Option("--workers", "-n", min=1, help="Grading processes.")] = 2,
    allow_row_code: Annotated[bool, typer.Option("--allow-row-code", help=ROW_CODE)] = False,
    show: Annotated[int, typer.Option("--show", min=0, help="Changed rollouts to print.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Grade a run's stored rollouts again, and show which rewards, advantages and group filters would have changed.

    Exit status: 0 if no reward changes, 1 if some do.
    """
    with plain_errors():
        from reasoner.cli.verify import parse_pairs
        from reasoner.observe.analysis.rescore import changed_rows, regrade, stage_with_rollouts, summarize
        from reasoner.storage.files import write_text
        from verifiers.terminal.console import plain_console
        from verifiers.terminal.progress import work_bar

        history = stage_with_rollouts(run)
        low, high = _range(steps)
        rows = [row for row in history.rows if low <= row.step <= high]
        if not rows:
            first, last = history.steps[0], history.steps[-1]
            raise typer.BadParameter(f"--steps must meet steps {first} to {last} of the run; got {steps!r}.")
        options = parse_pairs(option or [], "--option")
        screen = plain_console(stderr=True)
        with work_bar(screen) as bar:
            task = bar.add_task("grading", total=len(rows))
            done = regrade(
                rows,
                history.config,
                verifier=verifier,
                options=options,
                any_row=allow_row_code,
                workers=workers,
                on_progress=lambda count: bar.update(task, completed=count),
            )
        found, changed = summarize(done, history.config), changed_rows(done)
        if output is not None:
            write_text(output, "".join(json_line(row) + "\n" for row in changed))
        if as_json:
            typer.echo(json_line(found.to_json()))
        else:
            _print(found, changed[:show], name=verifier or "the same verifier")
        raise typer.Exit(1 if found.changed else 0)


def _print(found: Rescore, changed: list[dict[str, Any]], *, name: str) -> None:
    typer.echo(
        f"{found.changed} of {found.rollouts} rewards change with {name}; mean {found.reward_before:.4f}"
        f" -> {found.reward_after:.4f}"
    )
    for (old, new), count in sorted(found.outcomes.items(), key=lambda pair: -pair[1]):
        typer.echo(f"  {count:>6} x {old} -> {new}")
    typer.echo(
        f"{found.groups} groups: {found.signal_lost} lose their signal, {found.signal_gained} gain one;"
        f" {found.advantages_changed} advantages change, {found.advantages_reversed} change their sign"
    )
    if found.advantages_note:
        typer.echo(found.advantages_note)
    for row in changed:
        before, after = row["before"], row["after"]
        line = (
            f"step {row['step']} group {row['group']} sample {row['sample']}: {before['outcome']} ->"
            f" {after['outcome']}, answer {after['answer']!r} against {str(row['reference'])[:60]!r}"
        )
        typer.echo(one_line(line))


def _range(steps: str | None) -> tuple[int, int]:
    if steps is None:
        return 0, 1 << 60
    low, _, high = steps.partition("-")
    if not low.isdigit() or (high and not high.isdigit()):
        raise typer.BadParameter(f"--steps must be N or N-M; got {steps!r}.")
    return int(low), int(high or low)
