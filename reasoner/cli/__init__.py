"""`reasoner`: each command lives in a module of its own, imported only when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from reasoner.cli.errors import plain_typer
from verifiers.terminal.streams import guard_streams

COMMANDS: Mapping[str, str] = {
    "train": "reasoner.cli.train:train",
    "eval": "reasoner.cli.evaluate:evaluate",
    "preflight": "reasoner.cli.preflight:preflight",
    "doctor": "reasoner.cli.doctor:doctor",
    "verify": "reasoner.cli.verify:verify",
    "verifiers": "reasoner.cli.verifiers:app",
    "label": "reasoner.cli.label:label",
    "export": "reasoner.cli.export:export",
    "tasks": "reasoner.cli.tasks:app",
    "sandbox": "reasoner.cli.sandbox:app",
    "report": "reasoner.cli.report:report",
    "explain": "reasoner.cli.explain:explain",
    "rescore": "reasoner.cli.rescore:rescore",
    "compare": "reasoner.cli.compare:compare",
}
"""Command to `module:function` or `module:Typer app`. The modules import heavy things inside functions."""


class LazyGroup(TyperGroup):
    """Finds commands in COMMANDS."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        target = COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer):
            command = typer.main.get_group(found)
        else:
            single = plain_typer()
            single.command()(found)
            command = typer.main.get_command(single)
        command.name = cmd_name
        return command


app = plain_typer(
    cls=LazyGroup,
    no_args_is_help=True,
    help="Train language models to reason, and grade their answers.",
)


@app.callback()
def _root() -> None:
    """Train language models to reason, and grade their answers."""


def main() -> None:
    """Entry point of the `reasoner` command."""
    guard_streams()
    app()
