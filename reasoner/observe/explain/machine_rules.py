"""Rules on what stopped the run, where its time went, and its result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reasoner.config.methods import METHODS
from reasoner.config.sections import LEARNED
from reasoner.observe.explain.finding import Finding, Level
from reasoner.observe.explain.policy_rules import progress
from reasoner.observe.explain.significance import percent
from reasoner.storage.history import EvalRecord, History


def machine_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules."""
    yield from _failed(history)
    yield from _grading_wait(history)
    yield from _outcome(history)


def _failed(history: History) -> Iterator[Finding]:
    failure = history.failure
    if failure is None or history.complete:
        return
    command = str(failure.get("command", "reasoner train CONFIG --resume"))
    diverged = failure.get("error") == "Diverged"
    yield Finding(
        code="stopped",
        level=Level.WARNING,
        cost=0.3,
        title=f"The run stopped after step {failure.get('step')}: {failure.get('error')}",
        evidence=(str(failure.get("message", ""))[:400],),
        change=f"fix the cause, then `{command}`." if not diverged else f"a smaller learning rate: `{command}`.",
    )


def _grading_wait(history: History) -> Iterator[Finding]:
    wait, step = history.series("time/grading_wait"), history.series("time/step")
    if len(wait) < 3 or len(wait) != len(step):
        return
    share = float(wait.sum() / max(1e-9, step.sum()))
    if share < 0.1 or wait.mean() < 0.5:
        return
    slow = sorted(history.rows, key=lambda row: -row.seconds)[:3]
    in_process = all(row.verifier in LEARNED for row in slow)
    yield Finding(
        code="grading-slow",
        level=Level.NOTE if in_process else Level.WARNING,
        cost=share,
        title=f"The trainer waits for grading {percent(share)} of the time ({wait.mean():.1f} s per step)",
        evidence=("single rows have no time of their own: a reward model or a judge grades them in batches",)
        if in_process
        else tuple(f"{row.seconds:.1f} s for rollout {row.step}/{row.group}/{row.sample}" for row in slow),
        change="raise grading.portions: the update begins while others are still graded."
        if in_process
        else "raise grading.workers, or grading.portions (the update begins while others are still graded), or lower"
        " grading.wall_seconds.",
    )


def _outcome(history: History) -> Iterator[Finding]:
    """Yield a finding on whether rewards rose over the run, with the evaluations; none for a stage without training."""
    if METHODS[history.config.method].learns_from is None:
        return
    risen = progress(history)
    reward = history.series("reward/mean")
    judged = any(row.mark is not None for row in history.rows)
    level = history.series("reward/pass_rate") if judged else reward
    # full marks are 1, unless nothing decides correctness and the reward leaves 0 .. 1
    bounded = judged or all(0 <= row.reward <= 1 for row in history.graded if row.reward is not None)
    evidence = [*_evaluations(history.evals)]
    if (
        risen is not None
        and len(reward) >= 12
        and abs(risen) < 2
        and history.complete
        and (not bounded or 0.02 < level.mean() < 0.9)
    ):
        yield Finding(
            code="no-progress",
            level=Level.NOTE,
            cost=0.2,
            title=f"The training reward does not rise: {reward[: len(reward) // 4].mean():.3f} in the first quarter,"
            f" {reward[-(len(reward) // 4) :].mean():.3f} in the last",
            evidence=tuple(evidence),
            change="give it more steps, a higher optim.lr (policy/step_kl shows the size of a step) or more"
            " groups per step.",
        )
    elif risen is not None and risen >= 2:
        yield Finding(
            code="solved" if bounded and len(level) and level[-1] > 0.9 else "rises",
            level=Level.NOTE,
            cost=0.0,
            title=f"The reward rises from {reward[: max(1, len(reward) // 4)].mean():.3f} to"
            f" {reward[-max(1, len(reward) // 4) :].mean():.3f}",
            evidence=tuple(evidence),
        )


def _evaluations(evals: Sequence[EvalRecord]) -> Iterator[str]:
    if len(evals) < 2:
        return
    first, last = evals[0].metrics, evals[-1].metrics
    for name in first:
        if name in last:
            (a, al, ah), (b, bl, bh) = first[name], last[name]
            overlap = "the intervals overlap (see `reasoner compare RUN OTHER`)"
            verdict = "better" if bl > ah else "worse" if bh < al else overlap
            form = ".1%" if "@" in name or name == "accuracy" else ".3f"  # rewards and losses are not shares
            values = f"{a:{form}} [{al:{form}}, {ah:{form}}] -> {b:{form}} [{bl:{form}}, {bh:{form}}]"
            yield f"evaluation {name}: {values}: {verdict}"
