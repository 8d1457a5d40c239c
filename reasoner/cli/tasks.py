"""`reasoner tasks`."""

from __future__ import annotations

from typing import Annotated

import typer

from reasoner.cli.errors import plain_errors

app = typer.Typer(no_args_is_help=True, help="List tasks, show their problems, check their golds.")
Options = Annotated[list[str] | None, typer.Option("--option", "-o", help="Option of the task: key=value; repeatable.")]


@app.command("list")
def list_tasks() -> None:
    """Show every installed task, where it comes from and its options."""
    import inspect

    from tasks.registry import installed_tasks, task_class

    with plain_errors():
        for source in installed_tasks():
            takes = ", ".join(str(p) for p in inspect.signature(task_class(source.name)).parameters.values())
            typer.echo(f"{source.name:14} {source.origin:12} {takes.replace('typing.', '')}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a task, or module:Class.")],
    split: Annotated[str, typer.Option("--split")] = "train",
    count: Annotated[int, typer.Option("--count", "-n", min=1)] = 3,
    option: Options = None,
) -> None:
    """Print the first problems of a split."""
    with plain_errors():
        from reasoner.cli.evaluate import _options
        from tasks.registry import get_task

        problems = get_task(name, **_options(option or [])).problems(split)  # pyright: ignore[reportArgumentType]
        typer.echo(f"{name} {split}: {len(problems)} problems")
        for problem in problems[:count]:
            typer.echo(f"\n[{problem.id}]  verifier {problem.verifier}")
            typer.echo(f"prompt      {problem.prompt}")
            typer.echo(f"reference   {problem.reference}")
            if problem.demonstration:
                typer.echo(f"worked      {problem.demonstration}")


@app.command()
def validate(
    name: Annotated[str, typer.Argument(help="Name of a task, or module:Class.")],
    split: Annotated[list[str] | None, typer.Option("--split", help="Default: every split; repeatable.")] = None,
    option: Options = None,
) -> None:
    """Check every gold against its verifier, and every demonstration; exit 1 where one fails."""
    with plain_errors():
        from reasoner.cli.evaluate import _options
        from tasks.registry import get_task
        from tasks.validate import validate_task

        task = get_task(name, **_options(option or []))  # pyright: ignore[reportArgumentType]
        failed = 0
        for each in split or task.splits:
            report = validate_task(task, each)
            typer.echo(f"{name} {each}: {report.accepted} of {report.total} golds accepted")
            for line in report.faults[:20]:
                typer.echo(f"  {line}")
            failed += len(report.faults)
        raise typer.Exit(1 if failed else 0)
