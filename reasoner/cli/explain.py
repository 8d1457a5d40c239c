"""`reasoner explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors
from verifiers.jsonl import json_line


def explain(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run folder, or one of its stages; it may still be running.", autocompletion=complete.runs
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON array, by stage.")] = False,
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
    fail: Annotated[bool, typer.Option("--fail", help="Exit with status 1 if there is a fault.")] = False,
) -> None:
    """Report what goes wrong in a run and what to change, the costliest problem first, each with its evidence."""
    with plain_errors():
        from reasoner.observe.analysis.audit import explain_and_audit
        from reasoner.observe.explain import Level
        from reasoner.observe.explain.say import print_findings

        explained = explain_and_audit(run, sample=audit, verifier=held_out)
        stages = [(stage.history, stage.findings) for stage in explained]
        if as_json:
            rows = [
                {
                    "stage": str(history.folder),
                    "method": history.config.method,
                    "findings": [f.to_json() for f in found],
                }
                for history, found in stages
            ]
            typer.echo(json_line(rows))
        else:
            print_findings(stages)
        if fail and any(finding.level is Level.FAULT for _, found in stages for finding in found):
            raise typer.Exit(1)
