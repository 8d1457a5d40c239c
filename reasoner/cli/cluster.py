"""`reasoner cluster`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors, plain_typer
from verifiers.text import one_line

if TYPE_CHECKING:
    from reasoner.storage.cluster_file import Place, Places

app = plain_typer(
    no_args_is_help=True, help="Parts of a run on one machine or several (`cluster.*` of `reasoner train`)."
)
OLD_SECONDS = 30.0
"""Age of cluster.json from which the command that keeps it counts as gone; it writes every few seconds."""


@app.command("status")
def status(
    run: Annotated[Path, typer.Argument(help="A run folder, or a cluster.json.", autocompletion=complete.runs)],
    as_json: Annotated[bool, typer.Option("--json", help="Print cluster.json as it is.")] = False,
) -> None:
    """Show who is alive, on which machine, and with which version of the weights. Exit status 1: something is down."""
    with plain_errors():
        from reasoner.storage.cluster_file import CLUSTER_FILE, CLUSTER_FOLDER, read_places
        from reasoner.storage.files import RunError

        file = run / CLUSTER_FOLDER / CLUSTER_FILE if run.is_dir() else run
        if not file.is_file():
            raise RunError(
                f"{file} must be there; it is not. Name the folder of a run that was started with cluster.trainers,"
                " samplers or graders."
            )
        places = read_places(file)
        if as_json:
            typer.echo(json.dumps(asdict(places)))
        else:
            for line in _table(places):
                typer.echo(one_line(line))
        rows = [place for role in ("trainer", "sampler", "grader") for place in places.of(role)]
        if _gone(places) or any(place.state in ("starting", "down") for place in rows):
            raise typer.Exit(1)


def _table(places: Places) -> list[str]:
    head = ("part", "state", "machine", "process", "address", "version", "restarts", "since")
    rows = [
        (f"{role}-{number}", *map(one_line, _cells(place)))
        for role in ("trainer", "sampler", "grader")
        for number, place in enumerate(places.of(role))
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    lines += [
        f"{role}-{number} {place.why}; its log: {place.log}"
        for role in ("trainer", "sampler", "grader")
        for number, place in enumerate(places.of(role))
        if place.why
    ]
    if places.kept_by is None:
        return [*lines, "written by hand: nobody watches these parts"]
    if places.ended:
        return [*lines, f"ended by {places.kept_by}, {_age(places.time)} ago"]
    if _gone(places):
        return [
            *lines,
            f"nobody has kept this table for {_age(places.time)}: {places.kept_by} is gone. Continue with --resume.",
        ]
    return [*lines, f"kept by {places.kept_by}, {_age(places.time)} ago"]


def _cells(place: Place) -> tuple[str, ...]:
    return (
        place.state,
        place.machine or "",
        "" if place.pid is None else str(place.pid),
        place.url or "",
        place.version or "",
        str(place.restarts),
        "" if place.since is None else f"{_age(place.since)} ago",
    )


def _gone(places: Places) -> bool:
    """Return True if the command that started the parts keeps the file no more, though it has not ended them."""
    return places.kept_by is not None and not places.ended and time.time() - (places.time or 0.0) > OLD_SECONDS


def _age(since: float | None) -> str:
    seconds = max(0, round(time.time() - (since or 0.0)))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
