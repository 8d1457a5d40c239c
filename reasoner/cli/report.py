"""`reasoner report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors


def report(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run folder, or one of its stages; it may still be running.", autocompletion=complete.runs
        ),
    ],
    output: Annotated[Path | None, typer.Option("--output", help="File of the page. Default: RUN/report.html.")] = None,
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
    """Write one self-contained HTML page with curves, findings and every rollout."""
    with plain_errors():
        from reasoner.observe.report import write_report

        target = output or run / "report.html"
        size = write_report(run, target, audit=audit, held_out=held_out)
        typer.echo(f"{target}  {size / 1e6:.1f} MB; opens from disk, needs no network")
