"""`reasoner environments`: list, write, check and play environments."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasoner.cli.errors import plain_errors, plain_typer
from verifiers.jsonl import json_line
from verifiers.text import one_line

if TYPE_CHECKING:
    from verifiers import JSON
    from verifiers.kit.conformance import Finding

app = plain_typer(no_args_is_help=True, help="List, make, check and play environments (tools and games).")

Name = Annotated[str, typer.Argument(help="The environment: name, module:attribute or file.py[:attribute].")]
Options = Annotated[
    list[str] | None, typer.Option("--option", "-o", help="Option of the environment: key=value; repeatable.")
]
Info = Annotated[list[str] | None, typer.Option("--info", help="Info of the problem: key=value; repeatable.")]
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
    """Write a working game: its environment and its task in one file, and the config of a run next to it."""
    with plain_errors():
        from tasks.environments.scaffold import new_file
        from verifiers.terminal.program import program

        path = new_file(name, file or Path(f"{name.replace('-', '_')}.py"))
        config = path.with_suffix(".yaml")
        typer.echo(f"{path} (environment and task), {config} (a run)\n\nNow:")
        for words in (
            ("environments", "check", path),
            ("environments", "play", path, "--reference", "21"),
            ("tasks", "validate", path),
            ("train", config),
        ):
            typer.echo(f"  {shlex.join([*program(), *map(str, words)])}")


@app.command("check")
def check(
    name: Name,
    option: Options = None,
    reference: Reference = "7",
    info: Info = None,
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

        def told(finding: Finding) -> None:
            if not as_json:
                typer.echo(one_line(f"{finding.result:7}  {finding.check}: {finding.detail}"))

        report = check_environment(
            name, options=options, reference=reference, info=info_of(info), turns=turn, told=told
        )
        if as_json:
            typer.echo(json_line(report.to_json()))
    raise typer.Exit(1 if report.failures else 0)


@app.command("play")
def play(
    name: Name,
    option: Options = None,
    reference: Reference = "7",
    info: Info = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the replies.")] = 0,
) -> None:
    """Play an environment by hand: each line of the terminal is a turn of the policy; the end of input gives up."""
    with plain_errors():
        from reasoner.cli.verify import parse_pairs
        from tasks.environments.base import Episode, Turn, asked_here
        from tasks.environments.registry import get_environment

        made = get_environment(name, **(parse_pairs(option, "--option") if option else {}))
        typer.echo(f"{name}: at most {made.max_turns} turns; Ctrl-D gives up")
        turns: list[Turn] = []
        given = info_of(info)
        for number in range(made.max_turns):
            try:
                line = input("> ")
            except EOFError:
                typer.echo("\n(given up)")
                return
            ends = made.stop[0] if made.stop and made.stop[0].isspace() else ""
            turns.append(Turn("policy", line.replace("\\n", "\n") + ends))
            episode = Episode(turns=tuple(turns), reference=reference, info=given, seed=seed + number)
            reply = asked_here(made, episode)
            if reply is None:
                typer.echo("(no reply: this turn is the final answer)")
                return
            typer.echo(reply.text.rstrip("\n"))
            if reply.done:
                typer.echo(f"(over; score {reply.score})")
                return
            turns.append(Turn("environment", reply.text, reply.data))
        typer.echo("(no more turns)")


def info_of(pairs: list[str] | None) -> dict[str, JSON]:
    """The info of a problem from key=value pairs."""
    from reasoner.cli.verify import parse_pairs

    return parse_pairs(pairs, "--info") if pairs else {}
