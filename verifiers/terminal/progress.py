"""The bar of long work: how much is done of how much, how fast, and the time that it still takes."""

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
    """Units a second, or seconds a unit where they are slow; empty until it is known."""

    def render(self, task: Task) -> Text:
        """The column of one bar."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


class Done(MofNCompleteColumn):
    """`12 of 200`; without the total where it is not known."""

    def render(self, task: Task) -> Text:
        """The column of one bar."""
        return super().render(task) if task.total is not None else Text(f"{int(task.completed)}")


def work_bar(console: Console) -> Progress:
    """A bar that is gone when the work is done; add a task with its label and total (None: not known)."""
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
