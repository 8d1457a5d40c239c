"""Progress bar: amount done and total, rate, elapsed and remaining time."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Rate(ProgressColumn):
    """Column with units per second, or seconds per unit if slower than one; empty until it is known."""

    def render(self, task: Task) -> Text:
        """Return the column's text for one bar."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


class Done(MofNCompleteColumn):
    """Column `12 of 200`; without the total if it is unknown."""

    def render(self, task: Task) -> Text:
        """Return the column's text for one bar."""
        return super().render(task) if task.total is not None else Text(f"{int(task.completed)}")


def work_bar(console: Console) -> Progress:
    """Return a progress bar that disappears when done; add a task with its label and total (None: unknown)."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        Done(separator=" of "),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)


__all__ = ["work_bar"]
