"""A progress bar shows the count, the total, the rate, and the remaining time."""

from __future__ import annotations

import io

import pytest

from verifiers.terminal.console import plain_console
from verifiers.terminal.progress import work_bar


def drawn(*, done: int, total: int | None, seconds: float) -> str:
    console = plain_console(file=io.StringIO(), force_terminal=False, width=120)
    bar = work_bar(console)
    now = [0.0]
    bar.get_time = lambda: now[0]
    task = bar.add_task("grading", total=total)
    now[0] = seconds / 2
    bar.update(task, completed=done / 2)
    now[0] = seconds
    bar.update(task, completed=done)
    with console.capture() as shown:
        console.print(bar.get_renderable())
    return shown.get()


@pytest.mark.parametrize(
    ("done", "total", "seconds", "says"),
    [
        (500, 2000, 10.0, ("500 of 2000", "50/s", "0:00:30")),
        (20, 100, 10.0, ("20 of 100", "2.0/s", "0:00:40")),
        (2, 4, 60.0, ("2 of 4", "30.0 s each", "0:01:00")),
        (300, None, 3.0, (" 300 ", "100/s")),
    ],
)
def test_total_rate_and_time_left(done: int, total: int | None, seconds: float, says: tuple[str, ...]) -> None:
    shown = drawn(done=done, total=total, seconds=seconds)
    for part in says:
        assert part in shown, shown
