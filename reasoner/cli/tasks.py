"""`reasoner tasks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors, plain_typer

if TYPE_CHECKING:
    from verifiers import JSON

app = plain_typer(no_args_is_help=True, help="List tasks, show their problems, check their reference answers.")
Name = Annotated[
    str, typer.Argument(help="The task: name, module:Class or file.py[:Class].", autocompletion=complete.tasks)
]
Options = Annotated[list[str] | None, typer.Option("--option", "-o", help="Option of the task: key=value; repeatable.")]


@app.command("list")
def list_tasks() -> None:
    """Show every installed task: its origin, a description, its options."""
    from tasks.base import TaskError
    from tasks.registry import installed_tasks, task_class
    from verifiers.registry import option_names

    for source in installed_tasks():
        typer.echo(f"{source.name:14} {source.origin:16} {source.target}")
        try:
            cls = task_class(source.name)
        except TaskError as error:
            typer.echo(f"               CANNOT BE READ: {error}")
            continue
        typer.echo(f"               {(cls.__doc__ or '').partition(chr(10))[0]}")
        typer.echo(f"               options: {', '.join(option_names(cls))}")


def task_options(pairs: list[str] | None, *, flag: str = "--option") -> dict[str, JSON]:
    """Parse key=value pairs; values are read as YAML, as in a config."""
    import yaml

    from verifiers.plain_yaml import read_yaml

    found: dict[str, Any] = {}
    for pair in pairs or []:
        key, sign, value = pair.partition("=")
        if not sign:
            raise typer.BadParameter(f"{flag} must be key=value; got {pair!r}.")
        try:
            found[key] = read_yaml(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"{flag} {key} must be YAML; got {value!r}: {error}") from error
    return found


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="The task: name, module:Class or file.py[:Class].", autocompletion=complete.tasks)
    ],
    split: Annotated[str, typer.Option("--split")] = "train",
    count: Annotated[int, typer.Option("--count", "-n", min=1)] = 3,
    option: Options = None,
) -> None:
    """Print the first problems of a split."""
    with plain_errors():
        from tasks.registry import get_task

        problems = get_task(name, **task_options(option)).problems(split)
        typer.echo(f"{name} {split}: {len(problems)} problems")
        for problem in problems[:count]:
            typer.echo(f"\n[{problem.id}]  verifier {problem.verifier}")
            typer.echo(f"prompt      {problem.prompt}")
            typer.echo(f"reference   {problem.reference}")
            if problem.environment:
                typer.echo(f"environment {problem.environment}")
            for turn in problem.demonstration_turns:
                typer.echo(f"{turn.origin:11} {turn.text!r}")
            if problem.demonstration:
                shown = repr(problem.demonstration) if problem.demonstration_turns else problem.demonstration
                typer.echo(f"worked      {shown}")


@app.command()
def validate(
    name: Annotated[
        str, typer.Argument(help="The task: name, module:Class or file.py[:Class].", autocompletion=complete.tasks)
    ],
    split: Annotated[list[str] | None, typer.Option("--split", help="Default: every split; repeatable.")] = None,
    option: Options = None,
) -> None:
    """Check every reference answer and demonstration with its verifier; exit with 1 if one fails.

    Reference answers that are usable but graded in a way that may surprise are listed; they do not count as failures.
    """
    with plain_errors():
        from tasks.registry import get_task
        from tasks.validate import grouped, validate_task

        task = get_task(name, **task_options(option))
        failed = 0
        for each in split or task.splits:
            report = validate_task(task, each)
            typer.echo(
                f"{name} {each}: {report.accepted} of {report.total} reference answers accepted;"
                f" {report.demonstrations or 'no'} demonstrations checked with them"
            )
            for line in grouped(report.faults):
                typer.echo(f"  {line}")
            if report.notes:
                typer.echo(f"  {len(report.notes)} reference answers are graded in a way that may surprise:")
            for line in grouped(report.notes):
                typer.echo(f"  {line}")
            if report.stops:
                typer.echo(
                    f"  {len(report.stops)} demonstrations teach the policy to end the episode early where replies are"
                    " plain text (prompt.reply: inline):"
                )
            for line in grouped(report.stops):
                typer.echo(f"  {line}")
            failed += len(report.faults)
        raise typer.Exit(1 if failed else 0)
