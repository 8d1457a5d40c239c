"""The live view of a run in a terminal: its main metrics with curves, and single rollouts by key."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.control import Control
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from verifiers.text import one_line, visible

if TYPE_CHECKING:
    from reasoner.storage.history import Row

TIME_PARTS = ("generation", "grading_wait", "logprobs", "update", "sync")
"""Parts of a step, in display order."""
BLOCKS = "▁▂▃▄▅▆▇█"
CURVE = 32
"""Number of steps in a curve."""
KEYS = {"b": "best rollout", "w": "worst", "n": "next", "j/k": "scroll", "q": "hide", "s": "stop after this step"}
ARROWS = {"\x1b[A": "k", "\x1b[B": "j"}
"""Escape sequences of the arrow keys (ECMA-48: CUU, CUD) and what they stand for."""
AROUND = 24
"""Rows of the terminal that are kept for everything but the text of a rollout."""
FEWEST_LINES = 8


@dataclass
class View:
    """Content of the live view, as a rich renderable."""

    steps: int
    name: str = ""
    """Name of the run."""
    stop: Callable[[], None] = lambda: None
    """Asks the run to stop after this step, with a checkpoint."""
    evaluation: str = ""
    """Result of the last evaluation."""
    metrics: Sequence[Mapping[str, float | None]] = ()
    """Metrics of every step so far."""
    rollouts: Sequence[Row] = ()
    """Rollouts of the last step."""
    warnings: list[str] = field(default_factory=list[str])
    show: str = ""
    """"best", "worst" or empty: the rollout that is shown."""
    index: int = 0
    first_line: int = 0
    """First line of the rollout's text that is shown."""
    stopping: bool = False
    _width: int = 0
    """Columns of the terminal when the view was drawn last."""

    def press(self, key: str) -> None:
        """Handle a key of KEYS; space is n, the arrows scroll, Esc hides the rollout."""
        if key in "bw":
            wanted = "best" if key == "b" else "worst"
            self.show, self.index, self.first_line = wanted, 0, 0
        elif key in "n ":
            self.index, self.first_line = self.index + 1, 0
        elif key == "j":
            self.first_line += 1
        elif key == "k":
            self.first_line = max(0, self.first_line - 1)
        elif key in "q\x1b":
            self.show = ""
        elif key == "s" and not self.stopping:  # a second signal would stop the run at once
            self.stopping = True
            self.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._width not in (0, console.width):  # lines of the last drawing were wrapped anew by the terminal
            yield Control.home()
            yield Control.clear()
        self._width = console.width
        if self.metrics and "reward/mean" in self.metrics[-1]:
            yield self._metrics_panel()
        if self.show and self.rollouts:
            yield self._rollout(console, max(FEWEST_LINES, console.height - AROUND))

    def _metrics_panel(self) -> Panel:
        last = self.metrics[-1]
        grid = Table.grid(padding=(0, 2))
        for _ in range(3):
            grid.add_column(justify="left")
        for name, value, curve in metric_lines(last):
            grid.add_row(Text(name, style="bold"), Text(one_line(value)), Text(self._curve(curve), style="cyan"))
        if self.evaluation:
            grid.add_row(Text("evaluation", style="bold"), Text(one_line(self.evaluation)), Text(""))
        step = int(last.get("step") or 0)
        title = f"{one_line(self.name)}   " if self.name else ""
        title += f"step {step}/{self.steps}   ETA {self._eta(step)}"
        keys = "   ".join(f"{key} {what}" for key, what in KEYS.items())
        lines: list[RenderableType] = [grid]
        lines += [Text(f"! {one_line(warning)}", style="yellow") for warning in self.warnings[-2:]]
        return Panel(Group(*lines), title=title, subtitle=keys, title_align="left", subtitle_align="left")

    def _curve(self, name: str) -> str:
        return sparkline([row.get(name) for row in self.metrics[-CURVE:]]) if name else ""

    def _eta(self, step: int) -> str:
        seconds = [value for row in self.metrics[-10:] if (value := row.get("time/step")) is not None]
        return clock(sum(seconds) / len(seconds) * (self.steps - step)) if seconds else "?"

    def _rollout(self, console: Console, height: int) -> Panel:
        graded = [row for row in self.rollouts if row.reward is not None]
        ranked = sorted(graded, key=lambda row: row.reward or 0.0, reverse=self.show == "best")
        if not ranked:
            return Panel("no graded rollout in the last step")
        row = ranked[self.index % len(ranked)]
        text = Text()
        text.append(visible(row.prompt) + "\n", style="dim")
        for said, style in spoken(row):
            text.append(said + "\n", style=style)
        text.append(visible(f"answer {row.answer!r}   reference {str(row.reference)[:80]!r}") + "\n", style="bold")
        text.append(one_line(f"{row.outcome}: {row.reason[:200]}"), style="green" if row.right else "red")
        title = f"{self.show} of the last step: reward {row.reward:g}, {row.tokens} tokens, step/group/sample"
        lines = text.wrap(console, max(1, console.width - BORDER))
        self.first_line = min(self.first_line, max(0, len(lines) - height))
        shown = lines[self.first_line : self.first_line + height]
        rest = len(lines) - self.first_line - len(shown)
        below = f"{self.first_line} lines above, {rest} below" if self.first_line or rest else None
        return Panel(
            Text("\n").join(shown),
            title=f"{title} {'/'.join(map(str, row.place))}",
            title_align="left",
            subtitle=below,
            subtitle_align="left",
        )


def spoken(row: Row) -> Iterable[tuple[str, str]]:
    """Yield (text, style) of the completion, or of each of its turns: replies of the environment in grey."""
    if row.turns is None:
        yield visible(row.completion), ""
        return
    for turn in row.turns:
        replied = turn.get("origin") == "environment"
        mark = ("! " if turn.get("errors") else "< ") if replied else "> "
        yield mark + visible(str(turn.get("text", "")).rstrip("\n")), "bright_black" if replied else ""


BORDER = 4
"""Columns that a panel takes."""


def metric_lines(last: Mapping[str, float | None]) -> Iterable[tuple[str, str, str]]:
    """Yield (name, value, metric of the curve) for each line of the view."""

    def get(name: str) -> float:
        value = last.get(name)
        return float("nan") if value is None else value

    tasks = [(n.removeprefix("reward/"), v) for n, v in last.items() if n.startswith("reward/") and n not in REWARD]
    by_task = "   " + "  ".join(f"{name} {value:.2f}" for name, value in tasks if value is not None) if tasks else ""
    yield "reward", f"{get('reward/mean'):.3f} ± {get('reward/std'):.3f}", "reward/mean"
    if last.get("reward/pass_rate") is not None:
        yield "pass rate", f"{get('reward/pass_rate'):.1%}{by_task}", "reward/pass_rate"
    yield (
        "groups",
        f"{get('groups/signal'):.0%} with signal, {get('groups/all_right'):.0%} all right,"
        f" {get('groups/all_wrong'):.0%} all wrong",
        "groups/signal",
    )
    yield (
        "length",
        f"{get('completion/length_mean'):.0f} tokens, {get('completion/truncated'):.1%} truncated"
        + (f" ({get('turns/cut'):.1%} at turn_tokens)" if last.get("turns/cut") else ""),
        "completion/length_mean",
    )
    if last.get("turns/mean") is not None:
        yield (
            "turns",
            f"{get('turns/mean'):.1f}, {get('calls/share'):.0%} call, {get('calls/error'):.0%} of the calls fail,"
            f" {get('turns/limit'):.0%} end at the limit",
            "calls/share",
        )
    if "policy/entropy" in last:
        reference = f", to reference {get('policy/kl_ref'):.2g}" if "policy/kl_ref" in last else ""
        reference += f", to teacher {get('teacher/reverse_kl'):.2g}" if "teacher/reverse_kl" in last else ""
        yield "entropy", f"{get('policy/entropy'):.3f} nats a token", "policy/entropy"
        yield "KL", f"{get('policy/step_kl'):.2g} a step{reference}", "policy/step_kl"
        yield "clipped", f"{get('policy/clip_fraction'):.2%}   ratio {get('policy/ratio'):.4f}", "policy/clip_fraction"
        yield "engine gap", f"{get('gap/logprob_abs'):.1e} nats   ratio {get('gap/ratio'):.4f}", "gap/logprob_abs"
    yield "ungraded", f"{get('grading/ungraded'):.1%}", ""
    split = "  ".join(
        f"{part.replace('_', ' ')} {get('time/' + part) / get('time/step'):.0%}"
        for part in TIME_PARTS
        if f"time/{part}" in last
    )
    yield "speed", f"{get('throughput/tokens_per_second'):.0f} tok/s   {get('time/step'):.1f} s a step", "time/step"
    yield "time", split, ""


REWARD = frozenset({"reward/mean", "reward/std", "reward/pass_rate"})


def sparkline(values: Sequence[float | None]) -> str:
    """Draw values as a row of block characters whose height grows with the value; a missing value is a space.

    Example:
        >>> sparkline([0.0, 0.5, 1.0, None])
        '▁▄█ '
    """
    known = [value for value in values if value is not None and value == value]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    return "".join(
        " " if value is None or value != value else BLOCKS[int((value - low) / span * 7) if span > 0 else 0]
        for value in values
    )


def clock(seconds: float) -> str:
    """Format seconds as 1:02:03 or 02:03.

    Example:
        >>> clock(3723), clock(65.4)
        ('1:02:03', '01:05')
    """
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60:02}:{rest % 60:02}"


class Keys:
    """Reader of single keys from the terminal during a block; reads nothing if standard input is not a terminal."""

    def __init__(self, pressed: Callable[[str], None]) -> None:
        self._pressed = pressed
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        if not sys.stdin.isatty():
            return self
        import termios
        import tty

        self._before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin.fileno())  # in this mode Ctrl-C still interrupts
        self._thread = threading.Thread(target=self._read, name="keys", daemon=True)
        self._thread.start()
        return self

    def _read(self) -> None:
        descriptor = sys.stdin.fileno()
        while not self._stop.is_set():
            if select.select([descriptor], [], [], 0.2)[0]:
                typed = os.read(descriptor, 32).decode(errors="ignore")
                for arrow, key in ARROWS.items():
                    typed = typed.replace(arrow, key)
                for key in typed:
                    self._pressed(key)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1)
        if self._before is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
