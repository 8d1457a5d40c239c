"""`reasoner report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors

DEFAULT_ROLLOUTS = 10_000


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, or stages of runs, for one page; they may still be running.",
            autocompletion=complete.runs,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", help="File of the page. Default: report.html in the first run.")
    ] = None,
    rollouts: Annotated[
        int,
        typer.Option(
            "--rollouts",
            min=0,
            help="Rollouts of each stage whose text the file has, and as many held-out samples; 0: all.",
        ),
    ] = DEFAULT_ROLLOUTS,
    audit: Annotated[
        int, typer.Option("--audit", min=0, help="Rewarded rollouts to grade with a held-out verifier; 0: none.")
    ] = 200,
    held_out: Annotated[
        str | None,
        typer.Option(
            "--held-out",
            help="The held-out verifier. Default: a stricter one for the task.",
            autocompletion=complete.verifiers,
        ),
    ] = None,
) -> None:
    """Write one self-contained HTML page with curves, findings and rollouts of one or several runs."""
    with plain_errors():
        from reasoner.observe.report import write_report

        target = output or runs[0] / "report.html"
        done = write_report(runs, target, audit=audit, held_out=held_out, most=rollouts or None)
        typer.echo(f"{target}  {done.bytes / 1e6:.1f} MB; opens from disk, needs no network")
        if done.kept < done.rollouts:
            typer.echo(
                f"note: it has the text of {done.kept:,} of {done.rollouts:,} rollouts (the last steps, failures and"
                " findings first); --rollouts N keeps more, and `reasoner view` shows all",
                err=True,
            )
