"""`reasoner data`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasoner.cli.errors import plain_errors, plain_typer

if TYPE_CHECKING:
    from reasoner.config.stage import RunConfig, StageConfig
    from reasoner.data.check import Report, Watch
    from reasoner.data.check_text import Tokens
    from reasoner.data.propose import Proposal
    from tasks import BadRow

app = plain_typer(no_args_is_help=True, help="Show the content of data, and check that it can be used.")
LINE_EVERY = 30.0
"""Seconds between progress lines without a terminal."""


@app.callback()
def _group() -> None:
    """Show the content of data, and check that it can be used."""


@app.command()
def check(
    path: Annotated[str, typer.Argument(help="A file, a folder, a hub name; or a config (YAML), for all its data.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="key=value: options of the dataset task, or keys of sft or preferences, or of the config."),
    ] = None,
    use: Annotated[
        str | None,
        typer.Option("--for", help="problems, demonstrations, preferences or unpaired. Default: by the rows."),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="A model; counts tokens and shows rows as the model sees them.")
    ] = None,
    bad_rows: Annotated[
        Path | None, typer.Option("--bad-rows", help="Write every unusable row to this file (TSV).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Report how data is read, how much of it can be used, what is repeated, and a config to paste.

    Exit status: 0 if it can be used, 1 if it cannot, 2 if it cannot be read at all.
    """
    with plain_errors():
        from reasoner.data.check import check_stage
        from reasoner.data.propose import stages_of

        found = stages_of(path, settings or [], use=use, model=tokenizer)
        with _written(bad_rows) as on_bad, watched(on_bad) as watch:
            reports = [(stage, report) for stage in found.stages for report in check_stage(stage, watch)]
        if not reports:
            typer.echo(f"{path} names no data that is read from files or the hub", err=True)
        tokens = [_tokens(stage, report, tokenizer) if tokenizer else None for stage, report in reports]
        _print([report for _, report in reports], tokens, found, as_json=as_json)
        raise typer.Exit(1 if any(report.fault for _, report in reports) else 0)


def _print(reports: list[Report], tokens: list[Tokens | None], found: Proposal, *, as_json: bool) -> None:
    from reasoner.data.check_text import lines, to_json
    from verifiers.jsonl import json_line

    if as_json:
        rows = [to_json(report, counted, found.yaml) for report, counted in zip(reports, tokens, strict=True)]
        usable = all(report.fault is None for report in reports)
        recognised = {"columns": [*found.columns], "recognised": found.told}
        typer.echo(json_line({"usable": usable, **recognised, "data": rows}))
        return
    if found.told:
        typer.echo(f"recognised as {found.told}; columns: {', '.join(found.columns)}")
    for report, counted in zip(reports, tokens, strict=True):
        for line in lines(report, counted):
            typer.echo(line)
    if found.yaml:
        typer.echo(
            "\n# a config that reads it in this way; `reasoner train FILE.yaml --dry-run` shows what it would do"
        )
        typer.echo(found.yaml)


def print_data(run: RunConfig) -> None:
    """Print a report on each local data source of every stage; the same report is printed once.

    Raises:
        ConfigError: a source cannot be used.
    """
    from reasoner.config.errors import ConfigError
    from reasoner.data.check import check_stage
    from reasoner.data.check_text import lines
    from reasoner.stages.references import stage_of

    printed: set[str] = set()
    for index in range(len(run.stages)):
        with watched() as watch:
            reports = [*check_stage(stage_of(run, index), watch, hub=False, output=Path(run.output))]
        for report in reports:
            text = "\n".join(f"# {line}" for line in lines(report, examples=False))
            if text not in printed:
                typer.echo(text)
            printed.add(text)
            if report.fault:
                raise ConfigError("bad-value", f"{report.where}: {report.fault}")


def _tokens(stage: StageConfig, report: Report, name: str) -> Tokens:
    from reasoner.cli.loading import loading_told

    with loading_told("the tokenizer"):
        from reasoner.data.measure import measure
        from reasoner.model.load import load_tokenizer
    return measure(report, load_tokenizer(name), stage.prompt)


@contextmanager
def _written(path: Path | None) -> Iterator[object]:
    """Yield a function that writes bad rows to a file as they are found; None without a file."""
    if path is None:
        yield None
        return
    from verifiers.own_files import open_own
    from verifiers.text import one_line, whole

    with os.fdopen(open_own(path, "write"), "w", encoding="utf-8") as file:

        def write(row: BadRow) -> None:
            file.write(f"{one_line(whole(row.where))}\t{one_line(whole(row.reason))}\n")

        yield write


@contextmanager
def watched(on_bad: object = None) -> Iterator[Watch]:
    """Report on standard error how many rows were read: continuously in a terminal, otherwise every 30 seconds.

    Yields callbacks for the reading functions.

    Args:
        on_bad: called with every bad row; None: nothing is.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from reasoner.data.check import Watch
    from verifiers.terminal.console import plain_console

    console = plain_console(stderr=True)
    callbacks = Watch() if on_bad is None else Watch(on_bad=on_bad)  # pyright: ignore[reportArgumentType]
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} rows"), TimeElapsedColumn())
    live = console.is_terminal
    with Progress(
        *columns, console=console, transient=True, disable=not live, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        task, rows, last_line = bar.add_task("rows"), 0, time.monotonic()

        def on_row() -> None:
            nonlocal rows, last_line
            rows += 1
            if rows % 1000:
                return
            if live:
                bar.update(task, completed=rows)
            elif time.monotonic() - last_line > LINE_EVERY:
                last_line = time.monotonic()
                typer.echo(f"{rows:,} rows read", err=True)

        yield callbacks._replace(on_row=on_row)


__all__ = ["app", "print_data", "watched"]
