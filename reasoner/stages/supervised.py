"""Training loop of the stages that learn from given rows: SFT, reward models, DPO. One step: rows, batch, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.objective import Objective
from reasoner.data.sampler import Item, ProblemSampler
from reasoner.monitoring.metrics import mean_stats
from reasoner.policy.checkpoint import save_model
from reasoner.policy.progress import BestModel
from reasoner.records import Estimate
from reasoner.session.session import Session
from reasoner.session.step_record import StepRecord
from verifiers import JSON

SHOW_EVERY = 20
"""Number of steps between two displayed lines."""


class Validation(NamedTuple):
    """Result of one evaluation on held-out rows."""

    loss: float
    """Loss by which the best model is selected."""
    estimates: Mapping[str, Estimate]
    details: Mapping[str, JSON]
    """Further keys for the evaluation's line in evals.jsonl."""


@dataclass(frozen=True, kw_only=True)
class Lesson(Generic[Item]):
    """Training items, batch and loss functions, validation, and the early-stopping rule."""

    items: Sequence[Item]
    items_per_step: int
    shuffle: bool = True
    batch: Callable[[Sequence[Item]], Batch]
    objective: Callable[[Batch], Objective]
    """Builds the loss from the step's whole batch, whose counts normalize it."""
    evaluate: Callable[[], Validation] | None = None
    patience: int | None = None
    """Number of evaluations without a better loss after which training stops and the best model is restored."""
    at_last: Callable[[Path | None], Mapping[str, JSON]] = lambda kept: {}
    """Returns further keys for the last evaluation's line; gets the folder of an earlier model that the stage keeps,
    None for the current one."""
    enough: Callable[[int, dict[str, float]], bool] = lambda step, metrics: False
    """Returns True to stop after this step; may add to the step's metrics."""


def supervise(session: Session, lesson: Lesson[Item]) -> bool:
    """Run the remaining steps; return True if `enough` or the patience ended training early."""
    config, policy = session.config, session.policy
    sampler = ProblemSampler(lesson.items, seed=config.seed, shuffle=lesson.shuffle)
    for _ in range(session.step):
        sampler.take(lesson.items_per_step)
    if session.fresh:
        session.evaluate()
        session.run.track(session.step, validate(session, lesson))
        session.checkpoint()
    state = session.state
    for step in range(session.step + 1, 0 if state.ended else config.steps + 1):
        record = StepRecord(session, step)
        policy.begin_step(step)
        with record.part("update"):
            session.engine.sleep()  # the next evaluation wakes it
            batch = lesson.batch(sampler.take(lesson.items_per_step))
            stats = policy.update(batch, lesson.objective(batch))
        metrics = mean_stats([stats]) | {"data/epoch": sampler.epochs}
        session.step = step
        if (config.eval.every and step % config.eval.every == 0) or step == config.steps:
            metrics |= validate(session, lesson)
        state.ended = lesson.enough(step, metrics) or out_of_patience(session, lesson.patience)
        record.finish(metrics, shown=step % SHOW_EVERY == 0)
        if state.ended:
            break
        session.end_step()
    if lesson.patience is not None:
        restore_best(session)
    return state.ended


def validate(session: Session, lesson: Lesson[Item]) -> dict[str, float]:
    """Evaluate, write a line to evals.jsonl, and record or save the best model; return metrics named eval/..."""
    if lesson.evaluate is None:
        return {}
    found = lesson.evaluate()
    shown = "  ".join(f"{name} {e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for name, e in found.estimates.items())
    session.display.note(f"held out after step {session.step}: loss {found.loss:.4f}  {shown}")
    state = session.state
    state.validation = dict(found.estimates)
    if session.step == 0:
        state.first_eval = state.first_eval or state.validation
    if state.best_model is None or found.loss < state.best_model.loss:
        state.best_model = BestModel(loss=found.loss, step=session.step, estimates=state.validation)
        if lesson.patience is not None:
            save_model(session.run.path / "checkpoints" / "best", session.policy)
    else:
        state.best_model.stale += 1
    figures: dict[str, JSON] = {name: list(value) for name, value in found.estimates.items()}
    last = session.step == session.config.steps or exhausted(session, lesson.patience)
    further = lesson.at_last(earlier_model(session) if lesson.patience is not None else None) if last else {}
    session.run.append("evals.jsonl", [{"step": session.step, "metrics": figures, **found.details, **further}])
    if not math.isfinite(found.loss):
        session.display.note("the held-out loss is not finite; lower optim.lr.")
    return {"eval/loss": found.loss} | {f"eval/{name}": value.value for name, value in found.estimates.items()}


def exhausted(session: Session, patience: int | None) -> bool:
    """Return True after `patience` evaluations without a better held-out loss."""
    best = session.state.best_model
    return patience is not None and best is not None and best.stale >= patience


def out_of_patience(session: Session, patience: int | None) -> bool:
    """Return True, and say so, after `patience` evaluations without a better held-out loss."""
    best = session.state.best_model
    if best is None or not exhausted(session, patience):
        return False
    session.display.note(
        f"stopping after step {session.step}: no better held-out loss in {patience} evaluations; the model of step"
        f" {best.step} is kept"
    )
    return True


def earlier_model(session: Session) -> Path | None:
    """Return the folder of the best model by held-out loss; None if it is the current one, or was not saved."""
    best, folder = session.state.best_model, session.run.path / "checkpoints" / "best"
    return None if best is None or best.step == session.step or not folder.is_dir() else folder


def restore_best(session: Session) -> None:
    """Use the best model by held-out loss as the stage's final model."""
    best, folder = session.state.best_model, earlier_model(session)
    if best is not None and folder is not None:
        session.final_model = folder
        session.state.validation = dict(best.estimates)
