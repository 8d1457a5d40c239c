"""The `reasoner` command; each subcommand is in its own module, imported only when it is called."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from reasoner.cli.errors import plain_typer
from reasoner.cli.examples import epilog
from verifiers.suggest import did_you_mean
from verifiers.terminal.program import program
from verifiers.terminal.streams import guard_streams

COMMANDS: Mapping[str, str] = {
    "train": "reasoner.cli.train:train",
    "eval": "reasoner.cli.evaluate:evaluate",
    "chat": "reasoner.cli.chat:chat",
    "serve": "reasoner.cli.serve:serve",
    "preflight": "reasoner.cli.preflight:preflight",
    "doctor": "reasoner.cli.doctor:doctor",
    "data": "reasoner.cli.data:app",
    "verify": "reasoner.cli.verify:verify",
    "verifiers": "reasoner.cli.verifiers:app",
    "label": "reasoner.cli.label:label",
    "export": "reasoner.cli.export:export",
    "tasks": "reasoner.cli.tasks:app",
    "suites": "reasoner.cli.suites:suites",
    "environments": "reasoner.cli.environments:app",
    "sandbox": "reasoner.cli.sandbox:app",
    "view": "reasoner.cli.view:view",
    "report": "reasoner.cli.report:report",
    "explain": "reasoner.cli.explain:explain",
    "rescore": "reasoner.cli.rescore:rescore",
    "compare": "reasoner.cli.compare:compare",
    "cluster": "reasoner.cli.cluster:app",
    "env": "reasoner.cli.env:env",
}
"""Command to `module:function` or `module:Typer app`. The modules import heavy packages inside functions."""


class Command(TyperCommand):
    """A command whose error for an unknown option explains that settings are given as key=value."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse the arguments; an unknown option of a command with settings gets the hint."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = getattr(error, "option_name", None)  # of click's NoSuchOption, which typer does not export
            if option is None or not any(parameter.name == "overrides" for parameter in self.params):
                raise
            setting = option.lstrip("-").replace("-", "_")
            ctx.fail(f"No such option: {option}. Settings are key=value: {setting}=...")


class LazyGroup(TyperGroup):
    """Command group that imports the commands of COMMANDS on first use."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; for an unknown one, fail with the closest name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}.{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

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
            for name, part in command.commands.items():
                part.epilog = epilog(f"{cmd_name} {name}")
        else:
            single = plain_typer()
            single.command(cls=Command)(found)
            command = typer.main.get_command(single)
        command.epilog = epilog(cmd_name)
        command.name = cmd_name
        return command


app = plain_typer(
    cls=LazyGroup,
    add_completion=True,
    no_args_is_help=True,
    help="Train language models to reason, and grade their answers.",
    epilog=epilog(""),
)


def _print_version(asked: bool) -> None:
    if asked:
        from reasoner.cli.env import version_line

        typer.echo(version_line())
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the versions and exit.")
    ] = False,
) -> None:
    """Train language models to reason, and grade their answers."""


def main() -> None:
    """Run the `reasoner` command."""
    guard_streams()
    app(prog_name=shlex.join(program()), complete_var="_REASONER_COMPLETE")
