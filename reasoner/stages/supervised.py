"""The loop of the stages that learn from given rows: SFT, reward models, DPO. One step: rows, batch, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.objective import Objective
from reasoner.data.sampler import Item, ProblemSampler
from reasoner.evaluation.estimates import Estimate
from reasoner.monitoring.metrics import mean_stats, peak_memory_mb
from reasoner.policy.checkpoint import save_model
from reasoner.session.session import Clock, Session
from verifiers import JSON

SHOW_EVERY = 20
"""Steps between two lines on the screen."""


class HeldOut(NamedTuple):
    """One evaluation on held-out rows."""

    loss: float
    """Decides which model is best."""
    estimates: Mapping[str, Estimate]
    details: Mapping[str, JSON]
    """Further keys of its line in evals.jsonl."""


@dataclass(frozen=True, kw_only=True)
class Lesson(Generic[Item]):
    """What is learned, from what, and when to stop."""

    items: Sequence[Item]
    items_per_step: int
    batch: Callable[[Sequence[Item]], Batch]
    objective: Callable[[Batch], Objective]
    """Of the step's whole batch: it knows by what to divide."""
    evaluate: Callable[[], HeldOut] | None = None
    patience: int | None = None
    """Evaluations without a better loss after which to stop, and go back to the best model."""
    enough: Callable[[int, dict[str, float]], bool] = lambda step, metrics: False
    """Whether to stop after this step; may add to its metrics."""


def supervise(session: Session, lesson: Lesson[Item]) -> bool:
    """Run the steps that are left; True where `enough` or the patience ended them early."""
    config, policy = session.config, session.policy
    sampler = ProblemSampler(lesson.items, seed=config.seed)
    for _ in range(session.step):
        sampler.take(lesson.items_per_step)
    if session.fresh:
        session.evaluate()
        evaluate_held_out(session, lesson)
        session.checkpoint()
    ended = bool(session.state.get("ended"))
    for step in range(session.step + 1, 0 if ended else config.steps + 1):
        clock = Clock()
        session.engine.sleep()  # an evaluation wakes it
        batch = lesson.batch(sampler.take(lesson.items_per_step))
        stats = policy.update(batch, lesson.objective(batch))
        clock.lap("update")
        metrics = mean_stats([stats]) | clock.metrics()
        metrics |= {"memory/peak_mb": peak_memory_mb(), "data/epoch": sampler.epochs}
        session.step = step
        if step % SHOW_EVERY == 0:
            session.display.step(step, metrics)
        if (config.eval.every and step % config.eval.every == 0) or step == config.steps:
            metrics |= evaluate_held_out(session, lesson)
        ended = lesson.enough(step, metrics) or out_of_patience(session, lesson.patience)
        session.run.log(step, metrics)
        if ended:
            session.state["ended"] = True
            break
        session.end_step()
    if lesson.patience is not None:
        restore_best(session)
    return ended


def evaluate_held_out(session: Session, lesson: Lesson[Item]) -> dict[str, float]:
    """Evaluate, write a line of evals.jsonl, remember the best; returns metrics under eval/."""
    if lesson.evaluate is None:
        return {}
    found = lesson.evaluate()
    figures: dict[str, JSON] = {name: list(value) for name, value in found.estimates.items()}
    session.run.append("evals.jsonl", [{"step": session.step, "metrics": figures, **found.details}])
    shown = "  ".join(f"{name} {e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for name, e in found.estimates.items())
    session.display.note(f"held out after step {session.step}: loss {found.loss:.4f}  {shown}")
    if not session.first_eval:
        session.first_eval = dict(found.estimates)
    session.held_out = dict(found.estimates)
    best = session.state.get("best_loss")
    if not isinstance(best, int | float) or found.loss < best:
        session.state |= {"best_loss": found.loss, "best_step": session.step, "stale": 0}
        if lesson.patience is not None:
            save_model(session.run.path / "checkpoints" / "best", session.policy)
            session.state["best"] = figures
    else:
        session.state["stale"] = int(session.state.get("stale") or 0) + 1  # pyright: ignore[reportArgumentType]
    if not math.isfinite(found.loss):
        session.display.note("the held-out loss is not finite; lower optim.lr.")
    return {"eval/loss": found.loss} | {f"eval/{name}": value.value for name, value in found.estimates.items()}


def out_of_patience(session: Session, patience: int | None) -> bool:
    """Whether the held-out loss has not improved for so many evaluations."""
    if patience is None or int(session.state.get("stale") or 0) < patience:  # pyright: ignore[reportArgumentType]
        return False
    session.display.note(
        f"stopping after step {session.step}: no better held-out loss in {patience} evaluations; the model of step"
        f" {session.state.get('best_step')} is kept"
    )
    return True


def restore_best(session: Session) -> None:
    """Make the best model by held-out loss the stage's final one."""
    best = session.run.path / "checkpoints" / "best"
    if session.state.get("best_step") == session.step or not best.is_dir():
        return
    session.final_model = best
    figures = session.state.get("best")
    if isinstance(figures, dict):
        session.held_out = {name: Estimate(*value) for name, value in figures.items()}  # pyright: ignore


__all__ = ["HeldOut", "Lesson", "evaluate_held_out", "supervise"]
