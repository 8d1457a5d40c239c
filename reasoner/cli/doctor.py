"""`reasoner doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors
from verifiers.jsonl import json_line

if TYPE_CHECKING:
    from reasoner.preflight.doctor import Check

COLOURS = {"ok": "green", "missing": "yellow", "failed": "bold red"}


def doctor(
    config: Annotated[
        str | None,
        typer.Argument(help="A YAML file, or the name of a shipped config.", autocompletion=complete.configs),
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key.key=value, as for `reasoner train`.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model to check instead of the stage's own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Every check as one JSON array.")] = False,
) -> None:
    """Check what works on this machine; with a config, also its references, sandbox, weight sync and engine.

    Exit status: 0 if nothing failed, 1 if something did. A missing part that the config does not need is not a
    failure.
    """
    with plain_errors():
        from reasoner.config.load import load_config

        run = load_config(config, overrides or []) if config is not None else None
        from reasoner.preflight.doctor import State, config_checks, machine_checks

        found: list[Check] = []
        for check in machine_checks():
            found.append(check)
            _show(check, quiet=as_json)
        if run is not None:
            from reasoner.engine.environment import prepare_process

            prepare_process()
            for check in config_checks(run, model=model):
                found.append(check)
                _show(check, quiet=as_json)
        if as_json:
            typer.echo(json_line([check.to_json() for check in found]))
        raise typer.Exit(1 if any(check.state is State.FAILED for check in found) else 0)


def _show(check: Check, *, quiet: bool) -> None:
    if quiet:
        return
    from rich.text import Text

    from verifiers.terminal.console import plain_console
    from verifiers.terminal.program import as_started

    console = plain_console()
    console.print(Text(f"{check.state:<7}", COLOURS[check.state]), f"{check.name:<19}", end="")
    console.print(check.found)
    if check.state != "ok":
        for label, text in (("without it", check.costs), ("to get it", check.command)):
            if text:
                console.print(as_started(f"        {label}: {text}"))
