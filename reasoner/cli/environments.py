"""`reasoner environments`: list, write, check and play environments."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from reasoner.cli.errors import plain_errors, plain_typer
from verifiers.jsonl import json_line
from verifiers.text import one_line

app = plain_typer(no_args_is_help=True, help="List, make, check and play environments (tools and games).")

Name = Annotated[str, typer.Argument(help="The environment: name, module:attribute or file.py[:attribute].")]
Options = Annotated[
    list[str] | None, typer.Option("--option", "-o", help="Option of the environment: key=value; repeatable.")
]
Reference = Annotated[str, typer.Option("--reference", help="Reference answer of the problem that is played.")]


@app.command("list")
def list_environments(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show every installed environment: where it comes from, what it does, its options."""
    with plain_errors():
        from tasks import TaskError
        from tasks.environments.registry import environment_class, installed_environments
        from verifiers.registry import option_names

        for source in installed_environments():
            try:
                cls = environment_class(source.name)
                about, options = (cls.__doc__ or "").strip().partition("\n")[0], option_names(cls)
            except TaskError as error:
                about, options = f"CANNOT BE READ: {error}", []
            if as_json:
                typer.echo(json_line({**source._asdict(), "about": about, "options": [*options]}))
                continue
            typer.echo(f"{source.name:14} {source.origin:16} {source.target}")
            typer.echo(f"               {about}")
            typer.echo(f"               options: {', '.join(options) or 'none'}")


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Name of the environment: lower-case letters, digits, - and _.")],
    file: Annotated[Path | None, typer.Option("--file", help="Where it goes; default: NAME.py.")] = None,
) -> None:
    """Write a working environment and its task into one file."""
    with plain_errors():
        from tasks.environments.scaffold import new_file
        from verifiers.terminal.program import program

        path = new_file(name, file or Path(f"{name.replace('-', '_')}.py"))
        typer.echo(str(path))
        command = shlex.join([*program(), "environments", "check", str(path), "--reference", "plane"])
        typer.echo(f"\nNow: {command}")


@app.command("check")
def check(
    name: Name,
    option: Options = None,
    reference: Reference = "7",
    turn: Annotated[
        list[str] | None, typer.Option("--turn", help="A turn of a sensible policy; repeatable, in order.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
) -> None:
    """Check that an environment is pure, total, bounded and ends; exit 1 if a check fails."""
    with plain_errors():
        from reasoner.cli.verify import parse_pairs
        from tasks.environments.conformance import check_environment

        options = parse_pairs(option, "--option") if option else {}
        report = check_environment(name, options=options, reference=reference, turns=turn)
        if as_json:
            typer.echo(json_line(report.to_json()))
        else:
            for finding in report.findings:
                typer.echo(one_line(f"{finding.result:7}  {finding.check}: {finding.detail}"))
    raise typer.Exit(1 if report.failures else 0)


@app.command("play")
def play(name: Name, option: Options = None, reference: Reference = "7") -> None:
    """Play an environment by hand: each line of the terminal is a turn of the policy."""
    with plain_errors():
        from reasoner.cli.verify import parse_pairs
        from tasks.environments.base import Episode, Turn, checked_reply
        from tasks.environments.registry import get_environment

        made = get_environment(name, **(parse_pairs(option, "--option") if option else {}))
        typer.echo(f"{name}: at most {made.max_turns} turns; an empty line gives up")
        turns: list[Turn] = []
        for _ in range(made.max_turns):
            line = typer.prompt(">", prompt_suffix=" ", default="", show_default=False)
            if not line:
                break
            ends = made.stop[0] if made.stop and made.stop[0].isspace() else ""
            turns.append(Turn("policy", line.replace("\\n", "\n") + ends))
            reply = checked_reply(made.reply(Episode(turns=tuple(turns), reference=reference)), name)
            if reply is None:
                typer.echo("(no reply: this turn is the final answer)")
                return
            typer.echo(reply.text.rstrip("\n"))
            if reply.done:
                typer.echo(f"(over; score {reply.score})")
                return
            turns.append(Turn("environment", reply.text, reply.data))
        typer.echo("(no more turns)")
