"""Rules on the evaluation: is it measured as the policy is trained, on problems and weights that it should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from reasoner.config.methods import METHODS
from reasoner.observe.explain.finding import Finding, Level, places
from reasoner.observe.explain.ppo_rules import evaluation_fell
from reasoner.observe.explain.significance import percent
from reasoner.storage.history import History, Row
from verifiers.stats import wilson_interval

USUAL = 0.9
"""Share of the prompts with one form from which on it is the form of the task."""
OVERLAP = 0.05
"""Share of the evaluation problems that may stand in the training data (our choice)."""
BEHIND = 0.15
"""Difference of pass rates between training and evaluation that is worth a finding (our choice)."""


def evaluation_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules."""
    yield from _falls(history)
    if not history.eval_rows or not history.rows:
        return
    yield from _otherwise(history)
    yield from _other_form(history)
    yield from _seen_in_training(history)
    yield from _cut_short(history)
    yield from _behind(history)


def _falls(history: History) -> Iterator[Finding]:
    """A sampled evaluation that ends below an earlier one, with intervals apart, in a stage that trains on rows."""
    if METHODS[history.config.method].learns_from in (None, "rewards"):
        return  # other rules compare the evaluation with the reward
    fell = evaluation_fell(history)
    if not fell:
        return
    last, best = history.evals[-1].metrics, history.evals[0].metrics
    name = history.config.eval.deciding
    halved = name in last and name in best and last[name][0] < best[name][0] / 2
    yield Finding(
        code="evaluation-falls",
        level=Level.WARNING if halved else Level.NOTE,
        cost=0.5,
        title=f"The stage makes the policy worse on held-out problems: {fell}",
        change="read what it is trained on (`reasoner data`): rows that are cut, columns that are swapped, answers to"
        " other questions; else lower optim.lr or stop earlier.",
        explains=frozenset({"overfitted"}),
    )


def _otherwise(history: History) -> Iterator[Finding]:
    """Evaluation samples that are far more, or less, surprising than those of training at the same temperature."""
    config = history.config
    last = max(row.step for row in history.eval_rows)
    if config.eval.temperature != config.rollout.temperature or config.eval.top_p != 1 or last < history.steps[-1]:
        return
    sides = [row for row in history.eval_rows if row.step == last], _late(history)
    tested, trained = map(_surprisal, sides)
    right = [_surprisal([row for row in rows if row.right]) for rows in sides]
    if min(right) >= 0 and max(right) < 2 * min(right):
        return  # as sure of what it solves: the problems differ, not the sampling
    if min(tested, trained) < 0 or max(tested, trained) < 0.05:
        return
    if 0.3 * max(tested, trained) < min(tested, trained):
        return
    yield Finding(
        code="evaluation-sampled-otherwise",
        level=Level.FAULT,
        cost=0.6,
        title="The evaluation does not sample as training does, though both are set to temperature"
        f" {config.eval.temperature:g}",
        evidence=(
            f"a sampled token has {tested:.3f} nats of surprisal in the last evaluation, {trained:.3f} in the last"
            " steps of training",
        ),
        change="check the temperature and the limits of the distribution that the evaluation passes to the engine, and"
        " whether its prompts are of the same kind.",
        explains=EVALUATION,
    )


def _surprisal(rows: Sequence[Row]) -> float:
    """Return the mean of minus the log-probabilities of the policy's tokens, in nats; -1 for fewer than 200 tokens."""
    parts = [-row.policy_logprobs for row in rows]
    whole = np.concatenate(parts) if parts else np.zeros(0)
    return float(whole.mean()) if len(whole) >= 200 else -1.0


def _other_form(history: History) -> Iterator[Finding]:
    """Evaluation prompts with other text around the question than training prompts of the same task."""
    for task in dict.fromkeys(row.task for row in history.eval_rows):
        trained, tested = (
            Counter(form for row in rows if row.task == task and (form := _form(row)) is not None)
            for rows in (history.rows, history.eval_rows)
        )
        if min(trained.total(), tested.total()) < 8:
            continue
        (usual, often), (other, times) = trained.most_common(1)[0], tested.most_common(1)[0]
        if usual == other or often < USUAL * trained.total() or times < USUAL * tested.total():
            continue
        yield Finding(
            code="evaluation-prompts-differ",
            level=Level.FAULT,
            cost=0.7,
            title="The evaluation prompts have another form than the training prompts: the policy is measured on"
            " something that it is not trained on",
            evidence=(f"around the question: {_around(usual)} in training, {_around(other)} in the evaluation",),
            change="use one prompt section for both: the same template, system prompt and chat setting.",
            rollouts=places([row for row in history.rows if row.task == task]),
            explains=EVALUATION,
        )
        return


def _form(row: Row) -> tuple[str, str] | None:
    """Return the text before and after the question in the prompt; None if the question is not found in it."""
    question = row.question.strip()
    if not question or row.prompt.count(question) != 1:
        return None
    before, _, after = row.prompt.partition(question)
    return before, after


def _around(form: tuple[str, str]) -> str:
    return f"{form[0][-40:]!r} ... {form[1][:40]!r}"


EVALUATION = frozenset({"evaluation-below-training", "evaluation-cut"})


def _seen_in_training(history: History) -> Iterator[Finding]:
    """Evaluation problems whose prompt is a training prompt of this run."""
    trained = {row.question.strip() for row in history.rows}
    tested = {row.question.strip(): row for row in history.eval_rows}
    seen = [row for question, row in tested.items() if question in trained]
    if len(seen) < 3 or len(seen) < OVERLAP * len(tested):
        return
    yield Finding(
        code="evaluation-overlaps",
        level=Level.WARNING,
        cost=0.3 + 0.4 * len(seen) / len(tested),
        title=f"{percent(len(seen) / len(tested))} of the evaluation problems are trained on: their results do not show"
        " what the policy does on new problems",
        evidence=(f"{len(seen)} of {len(tested)}, such as {seen[0].question.strip()[-80:]!r}",),
        change="split by problem, and set eval.overlap=error so that a run does not begin with such data.",
        explains=frozenset({"solved"}),
    )


def _cut_short(history: History) -> Iterator[Finding]:
    """Evaluation completions that are truncated much more often than those of training."""
    last = max(row.step for row in history.eval_rows)
    tested = [row for row in history.eval_rows if row.step == last]
    trained = _late(history)
    there, here = (sum(row.truncated for row in rows) for rows in (tested, trained))
    if len(tested) < 16 or len(trained) < 16:
        return
    low = wilson_interval(there, len(tested)).low
    if low < wilson_interval(here, len(trained)).high + 0.1:
        return
    limit = history.config.eval.max_tokens or history.config.rollout.max_tokens
    yield Finding(
        code="evaluation-cut",
        level=Level.WARNING,
        cost=0.4 * there / len(tested),
        title=f"{percent(there / len(tested))} of the evaluation completions are truncated,"
        f" {percent(here / len(trained))} in training",
        evidence=(f"evaluation at {limit} tokens, training at {history.config.rollout.max_tokens}",),
        change="give the evaluation the token limit of training (leave eval.max_tokens out), and compare the prompts.",
        explains=frozenset({"evaluation-below-training"}),
    )


def _late(history: History) -> list[Row]:
    """Return the rollouts of the last third of the steps."""
    steps = history.steps[-max(1, len(history.steps) // 3) :]
    return [row for step in steps for row in history.by_step[step]]


def _behind(history: History) -> Iterator[Finding]:
    """A last evaluation far below the pass rate of the last steps, both sampled in the same way."""
    config = history.config
    alike = config.eval.temperature == config.rollout.temperature and config.eval.top_p == 1
    chosen = config.rollout.sampling != "epoch" or config.rollout.dynamic_sampling_rounds
    last = max(row.step for row in history.eval_rows)
    if not alike or chosen or last < history.steps[-1] - max(1, len(history.steps) // 10):
        return
    for task in dict.fromkeys(row.task for row in history.eval_rows):
        trained = _marks([row for row in _late(history) if row.task == task])
        tested = _marks([row for row in history.eval_rows if row.step == last and row.task == task])
        if min(len(trained), len(tested)) < 32:
            continue
        high, low = (wilson_interval(sum(mark > 0.5 for mark in marks), len(marks)) for marks in (trained, tested))
        if high.low - low.high < BEHIND:
            continue
        yield Finding(
            code="evaluation-below-training",
            level=Level.WARNING,
            cost=min(0.6, float(np.mean(trained) - np.mean(tested))),
            title=f"{percent(float(np.mean(trained)))} of the completions are right in the last steps of training, and"
            f" {percent(float(np.mean(tested)))} in the evaluation, at the same temperature",
            evidence=(
                f"{len(trained)} and {len(tested)} completions of {task!r}; the problems differ in kind, or the policy"
                " has learned the training problems by heart",
            ),
            change="read both beside each other (`reasoner report RUN`); compare prompts, limits and the two splits.",
        )
        return


def _marks(rows: Sequence[Row]) -> list[float]:
    return [row.mark for row in rows if row.mark is not None]
