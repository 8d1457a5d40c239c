"""What a person sees while a run goes on: progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reasoner.config import StageConfig

if TYPE_CHECKING:
    from reasoner.evaluate import EvalResult


class Display:
    """Prints one line a step, and a progress bar for what takes long."""

    def __init__(self, config: StageConfig, console: Console | None = None) -> None:
        self._config = config
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar that is gone when it is full; the yielded function takes the number done."""
        if self._progress is None:
            yield lambda done: None
            return
        bar = self._progress
        task = bar.add_task(label, total=total)
        try:
            yield lambda done: bar.update(task, completed=done)
        finally:
            bar.remove_task(task)

    def note(self, text: str) -> None:
        """A line."""
        self._console.print(text, markup=False)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """One step in a line."""
        steps = self._config.steps
        if "reward/mean" not in metrics:
            self.note(f"step {step:>4}/{steps}  loss {metrics['optim/loss']:.4f}  lr {metrics['optim/lr']:.2e}")
            return
        parts = [
            f"step {step:>4}/{steps}",
            f"reward {metrics['reward/mean']:.3f}",
            f"signal {metrics['groups/signal']:.0%}",
            f"length {metrics['completion/length_mean']:.0f}",
        ]
        if metrics["completion/truncated"] > 0:
            parts.append(f"truncated {metrics['completion/truncated']:.0%}")
        if metrics["grading/ungraded"] > 0:
            parts.append(f"ungraded {metrics['grading/ungraded']:.0%}")
        if "policy/entropy" in metrics:
            parts += [f"entropy {metrics['policy/entropy']:.3f}", f"gap {metrics['gap/logprob_abs']:.1e}"]
        split = "+".join(f"{metrics.get(f'time/{part}', 0.0):.1f}" for part in TIME_PARTS)
        parts += [f"{metrics['throughput/tokens_per_second']:.0f} tok/s", f"{metrics['time/step']:.1f} s ({split})"]
        self.note("  ".join(parts))

    def evaluation(self, step: int, result: EvalResult) -> None:
        """One evaluation in a line."""
        figures = "  ".join(
            f"{name} {value.value:.3f} [{value.low:.3f}, {value.high:.3f}]" for name, value in result.estimates.items()
        )
        extra = f"  ungraded {result.ungraded}" if result.ungraded else ""
        self.note(f"eval after step {step}: {result.problems} problems x {result.samples}  {figures}{extra}")


TIME_PARTS = ("generation", "grading_wait", "logprobs", "update", "sync")
