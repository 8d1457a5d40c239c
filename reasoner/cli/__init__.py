"""`reasoner`: each command lives in a module of its own, imported only when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from reasoner.cli.errors import plain_typer
from verifiers.suggest import did_you_mean
from verifiers.terminal.streams import guard_streams

COMMANDS: Mapping[str, str] = {
    "train": "reasoner.cli.train:train",
    "eval": "reasoner.cli.evaluate:evaluate",
    "chat": "reasoner.cli.chat:chat",
    "serve": "reasoner.cli.serve:serve",
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
    "env": "reasoner.cli.env:env",
}
"""Command to `module:function` or `module:Typer app`. The modules import heavy things inside functions."""


EXAMPLES: Mapping[str, Sequence[str]] = {
    "train": ("reasoner train quickstart output=runs/first", "reasoner train mine.yaml optim.lr=2e-6 --dry-run"),
    "eval": ("reasoner eval runs/first --samples 8", "reasoner eval org/Model --task gsm8k --problems 200"),
    "chat": ("reasoner chat runs/first", "reasoner chat runs/first --prompt 123+456 --temperature 0"),
    "serve": ("reasoner serve runs/first", "reasoner serve runs/first --port 9000 -- --max-model-len 512"),
    "preflight": ("reasoner preflight mine.yaml", "reasoner preflight mine.yaml --problems 64 --json"),
    "doctor": ("reasoner doctor", "reasoner doctor mine.yaml"),
    "verify": (
        "reasoner verify --verifier math --gold 1/2 --completion 'so \\boxed{0.5}'",
        "reasoner verify answers.jsonl --verifier math --output verdicts.jsonl",
    ),
    "label": ("reasoner label pairs.jsonl", "reasoner label blind.jsonl --blind runs/one runs/other"),
    "export": ("reasoner export runs/first plain-model", "reasoner export runs/first best-model --best"),
    "report": ("reasoner report runs/first", "reasoner report runs/first --output page.html"),
    "explain": ("reasoner explain runs/first", "reasoner explain runs/first --json"),
    "rescore": ("reasoner rescore runs/first --verifier math", "reasoner rescore runs/first --steps 10-20"),
    "compare": ("reasoner compare runs/one runs/other", "reasoner compare runs/one runs/other --on train"),
    "env": ("reasoner env", "reasoner --version"),
}
"""What each command's help ends with."""


class Command(TyperCommand):
    """A command that says how settings are given to whoever gives them as options."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the arguments."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = getattr(error, "option_name", None)  # of click's NoSuchOption, which typer keeps to itself
            if option is None or not any(parameter.name == "overrides" for parameter in self.params):
                raise
            setting = option.lstrip("-").replace("-", "_")
            ctx.fail(f"No such option: {option}. Settings are key=value: {setting}=...")


class LazyGroup(TyperGroup):
    """Finds commands in COMMANDS."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command, or name the closest."""
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
        else:
            single = plain_typer()
            examples = "\n\n".join(EXAMPLES.get(cmd_name, ()))
            single.command(cls=Command, epilog=f"Examples:\n\n{examples}" if examples else None)(found)
            command = typer.main.get_command(single)
        command.name = cmd_name
        return command


app = plain_typer(
    cls=LazyGroup,
    add_completion=True,
    no_args_is_help=True,
    help="Train language models to reason, and grade their answers.",
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
    """Entry point of the `reasoner` command."""
    guard_streams()
    app()
