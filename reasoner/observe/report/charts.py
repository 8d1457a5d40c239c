"""Charts of a stage: its metrics in groups, its evaluations, and the pass rate by difficulty."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from reasoner.observe.explain import History
from reasoner.observe.report.evaluations import evaluation_charts, explained
from reasoner.observe.report.records import Columns
from verifiers import Outcome

DIFFICULTY_BINS = 4


def curves(history: History, columns: Columns | None = None) -> list[dict[str, Any]]:
    """Return one entry per chart: title, unit, x, series, and an optional band.

    Args:
        history: the stage; its rollouts are not used.
        columns: its rollouts, for the pass rate by difficulty; None: without that chart.
    """
    wanted: list[tuple[str, str, list[str]]] = [
        ("Reward", "", ["reward/mean"]),
        ("Pass rate", "share", ["reward/pass_rate", *_task_names(history)]),
        ("Groups", "share", ["groups/signal", "groups/all_right", "groups/all_wrong"]),
        ("Length", "tokens", ["completion/length_mean", "completion/length_max"]),
        ("Truncated, no answer, ungraded", "share", ["completion/truncated", "outcome/no_answer", "grading/ungraded"]),
        ("Entropy", "nats a token", ["policy/entropy"]),
        ("KL", "nats a token", ["policy/step_kl", "policy/kl_ref", "policy/approx_kl"]),
        ("KL to the reference", "nats a completion", ["kl/ref"]),
        ("Reverse KL to the teacher", "nats a token", ["teacher/reverse_kl"]),
        ("KL coefficient and penalty", "", ["kl/coef", "kl/penalty"]),
        ("Clipped tokens", "share", ["policy/clip_fraction_low", "policy/clip_fraction_high"]),
        ("Engine-trainer gap", "nats a token", ["gap/logprob_abs", "gap/probe"]),
        ("Ratios", "", ["gap/ratio", "gap/importance", "policy/ratio"]),
        ("Gain of a step", "", ["policy/step_gain"]),
        ("Reward and held-out scorer", "", ["watch/proxy", "watch/held_out"]),
        ("Their agreement", "correlation", ["watch/agreement"]),
        ("Signs of reward hacking", "share", ["watch/repetition", "watch/flattery", "watch/confident_wrong"]),
        ("Length of the monitored rollouts", "tokens", ["watch/length"]),
        ("Pairs of the step in the right order", "share", ["reward_model/accuracy", "dpo/accuracy"]),
        ("Reward difference of a pair", "", ["reward_model/difference"]),
        ("Rewards of a pair", "", ["dpo/reward_chosen", "dpo/reward_rejected", "dpo/margin"]),
        ("Rewards by label", "", ["kto/reward_desirable", "kto/reward_undesirable", "kto/kl"]),
        ("Constitution", "share", ["constitutional/changed", "constitutional/agreed"]),
        ("Loss", "", ["optim/loss"]),
        ("Gradient norm", "", ["optim/grad_norm"]),
        ("Learning rate", "", ["optim/lr"]),
        ("Throughput", "tokens a second", ["throughput/tokens_per_second", "throughput/generated_per_second"]),
        ("Memory", "MB", ["memory/peak_mb"]),
        ("Held-out training problems", "share", ["check/accuracy"]),
        ("Value model", "", ["value/explained_variance", "value/clip_fraction"]),
        ("Value and return", "", ["value/before", "value/returns", "value/error"]),
        ("Squared error of the value", "", ["value/error_squared"]),
        ("Gradient norm of the value", "", ["value/grad_norm_max"]),
    ]
    found = [chart for title, unit, names in wanted if (chart := _chart(history, title, unit, names))]
    for chart in found:
        if chart["title"] == "Reward":
            spread = _values(history, "reward/std")
            mean = chart["series"][0]["values"]
            chart["band"] = [
                [None if m is None or s is None else m - s for m, s in zip(mean, spread, strict=True)],
                [None if m is None or s is None else m + s for m, s in zip(mean, spread, strict=True)],
            ]
    difficulty = None if columns is None else difficulty_chart(graded_of(columns))
    if difficulty:
        found.insert(2, difficulty)
    split = time_chart(history)
    shown = [*evaluation_charts(history), *found, *([split] if split else [])]
    return [
        {**chart, "help": [entry for line in chart["series"] if (entry := explained(line["name"]))]} for chart in shown
    ]


def _task_names(history: History) -> list[str]:
    known = {"reward/mean", "reward/std", "reward/pass_rate"}
    names = {name for row in history.metrics for name in row if name.startswith("reward/")}
    return sorted(names - known)


def _values(history: History, name: str) -> list[float | None]:
    """Return a metric of all steps, rounded to six digits: smaller differences are noise that would fill the axis."""
    return [None if (value := row.get(name)) is None else float(f"{value:.6g}") for row in history.metrics]


def _chart(history: History, title: str, unit: str, names: Sequence[str]) -> dict[str, Any] | None:
    given = {name: _values(history, name) for name in names}
    series = [{"name": name, "values": values} for name, values in given.items() if any(v is not None for v in values)]
    if not series:
        return None
    return {"title": title, "unit": unit, "x": [row["step"] for row in history.metrics], "series": series}


def time_chart(history: History) -> dict[str, Any] | None:
    """Return a stacked chart of the seconds of each part of a step; None without data."""
    parts = ["generation", "grading_wait", "logprobs", "update", "sync"]
    chart = _chart(history, "Time of a step", "seconds", [f"time/{part}" for part in parts])
    return chart and {**chart, "stacked": True}


class Graded(NamedTuple):
    """A graded rollout, for the chart by difficulty."""

    step: int
    difficulty: float | None
    right: bool


def graded_of(columns: Columns) -> list[Graded]:
    """Return the graded rollouts of the columns."""
    right = columns.names["outcome"].get(str(Outcome.CORRECT))
    steps, outcomes = columns.integers["step"], columns.integers["outcome"]
    return [
        Graded(steps[row], columns.difficulty[row], outcomes[row] == right)
        for row, reward in enumerate(columns.reward)
        if reward is not None
    ]


def difficulty_chart(graded: Sequence[Graded]) -> dict[str, Any] | None:
    """Return a chart of the pass rate by difficulty of the problems, in up to four ranges of equal counts; or None."""
    rated = [(row.step, row.difficulty, row.right) for row in graded if row.difficulty is not None]
    values = sorted({difficulty for _, difficulty, _ in rated})
    if len(values) < 2:
        return None
    if len(values) <= DIFFICULTY_BINS:
        edges = [*values, float("inf")]
    else:
        cuts = np.quantile([difficulty for _, difficulty, _ in rated], np.linspace(0, 1, 5))
        edges = [*sorted(set(cuts[:-1].tolist())), float("inf")]
    steps = sorted({row.step for row in graded})
    of_step: dict[int, list[tuple[float, bool]]] = {step: [] for step in steps}
    for step, difficulty, right in rated:
        of_step[step].append((difficulty, right))
    series: list[dict[str, Any]] = []
    for low, high in itertools.pairwise(edges):
        rates: list[float | None] = []
        for step in steps:
            marks = [right for difficulty, right in of_step[step] if low <= difficulty < high]
            rates.append(sum(marks) / len(marks) if marks else None)
        top = "1" if high == float("inf") else f"{high:.2g}"
        series.append(
            {
                "name": f"difficulty {low:.2g}" + ("" if len(values) <= DIFFICULTY_BINS else f" to {top}"),
                "values": rates,
            }
        )
    return {"title": "Pass rate by difficulty", "unit": "share", "x": steps, "series": series}


def metric_lines(history: History) -> dict[str, Any]:
    """Return every metric of the steps and of the evaluations, each with its own steps: {name: [x, values]}."""
    found: dict[str, Any] = {}
    for name in sorted({name for row in history.metrics for name in row} - {"step"}):
        rows = [(row["step"], value) for row in history.metrics if (value := row.get(name)) is not None]
        found[name] = [[step for step, _ in rows], [float(f"{value:.6g}") for _, value in rows]]
    for chart in evaluation_charts(history):
        for line in chart["series"]:
            pairs = [(x, y) for x, y in zip(chart["x"], line["values"], strict=True) if y is not None]
            found[line["name"]] = [[x for x, _ in pairs], [y for _, y in pairs]]
    return {name: [*lines] for name, lines in found.items() if lines[0]}
