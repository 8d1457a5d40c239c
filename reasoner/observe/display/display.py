"""Output for the user during a run: the live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import Progress

from reasoner.config.estimators import traits_of
from reasoner.config.stage import StageConfig
from reasoner.observe.display.live_view import TIME_PARTS, Keys, View
from reasoner.observe.explain.during_run import Watch
from reasoner.observe.explain.finding import Level
from reasoner.observe.explain.say import sentence
from reasoner.observe.explain.significance import percent
from reasoner.storage.run_folder import RunFolder
from verifiers.terminal.console import lines_above, plain_console
from verifiers.terminal.progress import work_bar

if TYPE_CHECKING:
    from reasoner.evaluation.evaluate import EvalResult


class Display:
    """Printer of a run's progress: one line per step; in a terminal a live view and progress bars for long tasks."""

    def __init__(self, config: StageConfig, console: Console | None = None) -> None:
        self._config = config
        self._console = console or plain_console()
        self._progress: Progress | None = None
        self._watch: Watch | None = None
        self._run: RunFolder | None = None
        self._view = View(steps=config.steps, name=config.name, stop=lambda: signal.raise_signal(signal.SIGINT))
        self._open = ExitStack()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress = work_bar(self._console)
            shown = Group(self._view, self._progress)
            self._open.enter_context(lines_above(self._console))
            self._open.enter_context(
                Live(
                    shown,
                    console=self._console,
                    refresh_per_second=4,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
            )
            self._open.enter_context(Keys(self._view.press))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        self._progress = None

    def watch(self, run: RunFolder) -> None:
        """Follow the run's records, for the live view and for warnings by the rules of `explain`."""
        self._watch, self._run = Watch(self._config), run
        run.listener = self._watch.heard

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a progress bar during the block; the yielded function takes the number of items done."""
        if self._progress is None:
            yield lambda done: None
            return
        bar = self._progress
        task = bar.add_task(label, total=total)
        try:
            yield lambda done: bar.update(task, completed=done)
        finally:
            bar.remove_task(task)

    @contextmanager
    def busy(self, label: str) -> Iterator[None]:
        """Show in a terminal that a task of unknown length is running, until the block ends."""
        if self._progress is None:
            yield
            return
        task = self._progress.add_task(label, total=None)
        try:
            yield
        finally:
            self._progress.remove_task(task)

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the metrics of a step: in the live view, or as a line."""
        if self._watch is not None:
            self._view.metrics, self._view.rollouts = self._watch.metrics, self._watch.last_rows
            for finding in self._watch.look(step):
                self.note(sentence(finding))
                if self._run is not None:
                    self._run.alert(finding.title, sentence(finding), is_fault=finding.level is Level.FAULT)
                self._view.warnings.append(finding.title)
        steps = self._config.steps
        if "reward/mean" not in metrics:
            self.note(f"step {step:>4}/{steps}  loss {metrics['optim/loss']:.4f}  lr {metrics['optim/lr']:.2e}")
            return
        if self._progress is not None and self._watch is not None:
            return  # the view shows it
        composed = any(name.startswith("component/") for name in metrics)
        parts = [
            f"step {step:>4}/{steps}",
            f"reward {metrics['reward/mean']:.3f}",
            f"right {percent(metrics['reward/pass_rate'])}" if composed and "reward/pass_rate" in metrics else "",
            self._signal(metrics),
            f"kl {metrics['kl/ref']:.2f}" if "kl/ref" in metrics else "",
            f"teacher kl {metrics['teacher/reverse_kl']:.3f}" if "teacher/reverse_kl" in metrics else "",
            f"length {metrics['completion/length_mean']:.0f}",
        ]
        parts = [part for part in parts if part]
        if metrics["completion/truncated"] > 0:
            cut = metrics.get("turns/cut", 0.0)
            cause = f" ({percent(cut)} at turn_tokens)" if cut else ""
            parts.append(f"truncated {percent(metrics['completion/truncated'])}{cause}")
        if metrics["grading/ungraded"] > 0:
            parts.append(f"ungraded {percent(metrics['grading/ungraded'])}")
        if "policy/entropy" in metrics:
            parts += [f"entropy {metrics['policy/entropy']:.3f}", f"gap {metrics['gap/logprob_abs']:.1e}"]
        seconds = {part.replace("_", " "): metrics.get(f"time/{part}", 0.0) for part in TIME_PARTS}
        split = ", ".join(f"{part} {taken:.1f}" for part, taken in seconds.items() if taken >= 0.05)
        parts += [f"{metrics['throughput/tokens_per_second']:.0f} tok/s", f"{metrics['time/step']:.1f} s ({split})"]
        self.note("  ".join(parts))

    def _signal(self, metrics: Mapping[str, float]) -> str:
        """Return the share of samples that the update learns from, as text; "" if every rollout counts."""
        if traits_of(self._config.algorithm.advantage).baseline is None:
            accepted = metrics.get("groups/rows_acting", 0.0) / max(1.0, metrics.get("groups/rows_kept", 0.0))
            return f"accepted {percent(accepted)}"
        return f"signal {percent(metrics['groups/signal'])}" if self._config.rollout.group_size > 1 else ""

    def evaluation(self, step: int, result: EvalResult) -> None:
        """Print an evaluation: its metrics with intervals, and with several sets one more line for each of them."""
        extra = f"  ungraded {result.ungraded}" if result.ungraded else ""
        lines = [
            "  ".join([*label, *(f"{n} {e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for n, e in estimates.items())])
            for label, estimates in result.by_set()
        ]
        if not result.sets:
            extra, lines = f"  {lines[0]}{extra}", []
        self.note(f"eval after step {step}: {result.problems} problems x {result.samples}{extra}")
        self._view.evaluation = f"after step {step}:{extra or '  ' + lines[0]}"
        for line in lines:
            self.note(f"  {line}")
