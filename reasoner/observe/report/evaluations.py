"""Evaluations of a run: held-out metrics over its steps and at its ends, and alarms for reward hacking."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from reasoner.monitoring.glossary import GLOSSARY
from reasoner.storage.history import EvalRecord, History, OpinionRecord, ShiftRecord

PLAIN = {
    "loss": ("Held-out loss", "nats"),
    "perplexity": ("Held-out perplexity", ""),
    "calibration_error": ("Calibration error on held-out pairs", "share"),
    "disagreement": ("Disagreement of the heads on held-out pairs", ""),
}
"""Metrics of evals.jsonl without an interval: (title, unit)."""
_KIND = re.compile(r"(?:(?<=/)|^)(?:component/.*|[^/]*)$")
"""Pattern of a metric's name without that of its evaluation set."""


Figure = tuple[float | None, ...]
"""(value,) or (value, low, high); None for a number that is not finite."""


def figures(record: EvalRecord) -> Mapping[str, Figure]:
    """Return every metric of an evaluation by name."""
    plain = {name: (value,) for name in PLAIN if (value := getattr(record, name)) is not None}
    return {
        name: tuple(value if math.isfinite(value) else None for value in values)
        for name, values in {**plain, **record.metrics}.items()
    }


def before_after(history: History) -> list[dict[str, Any]]:
    """Return each metric at the first and at the last evaluation that has it.

    A stage may have two kinds of evaluation after the same step: a loss on held-out rows, and answers to held-out
    problems.
    """
    seen: dict[str, list[tuple[EvalRecord, Figure]]] = {}
    for record in history.evals:
        for name, figure in figures(record).items():
            seen.setdefault(name, []).append((record, figure))
    return [
        {
            "metric": name,
            "before": found[0][1] if len(found) > 1 else None,
            "after": found[-1][1],
            "behind": found[-1][0].count_behind(name),
            "share": kind_of(name) not in PLAIN
            and all(value is None or 0 <= value <= 1 for _, figure in found for value in figure),
        }
        for name, found in seen.items()
    ]


def probes(history: History) -> list[dict[str, Any]]:
    """Return a reward model's probes: the shift of the score with its interval, and what it does to preferences."""
    found = next((row.probes for row in reversed(history.evals) if row.probes is not None), None)
    if found is None:
        return []
    named: list[tuple[str, Any, float | None, int, ShiftRecord | OpinionRecord]] = [
        (one.probe, one.shift, one.raised, one.rows, one) for one in found.shifts
    ]
    if (opinion := found.opinion) is not None:
        named.append(("opinion (shift of the margin)", opinion.change, None, opinion.pairs, opinion))
    return [
        {
            "probe": name,
            "shift": shift,
            "raised": raised,
            "plain": one.overtakes_plain,
            "changed": one.overtakes,
            "behind": behind,
            "ungraded": one.ungraded,
        }
        for name, shift, raised, behind, one in named
    ]


def kind_of(name: str) -> str:
    """Return a metric's name without that of its evaluation set.

    Example:
        >>> kind_of("gsm8k/avg@1"), kind_of("gsm8k/component/format")
        ('avg@1', 'component/format')
    """
    found = _KIND.search(name)
    return found[0] if found else name


def evaluation_charts(history: History) -> Iterator[dict[str, Any]]:
    """Yield one chart for each kind of metric, with a line for each evaluation set; it includes the evaluation before
    training.
    """
    at: dict[str, dict[str, dict[int, float | None]]] = {}
    for record in history.evals:
        for name, figure in figures(record).items():
            at.setdefault(kind_of(name), {}).setdefault(name, {})[record.step] = figure[0]
    for kind, lines in at.items():
        title, unit = PLAIN.get(kind, (f"Held-out {kind.replace('_', ' ')}", ""))
        steps = sorted({step for values in lines.values() for step in values})
        series = [
            {"name": f"eval/{name}", "values": [values.get(step) for step in steps]} for name, values in lines.items()
        ]
        yield {"title": title, "unit": unit, "x": steps, "series": series}


def explained(series: str) -> tuple[str, str, str] | None:
    """Return (metric, meaning, healthy range) of a chart's line, from the glossary; None if it has no entry."""
    name = "eval/" + re.sub(r"@\d+$", "@K", kind_of(series)) if series.startswith("eval/") else series
    name = "eval/component" if name.startswith("eval/component/") else name
    key = ENTRY_OF.get(name)
    return (series, GLOSSARY[key].meaning, GLOSSARY[key].healthy) if key else None


def _entries() -> dict[str, str]:
    """Map each metric to its entry in the glossary; an entry may cover several, as for `policy/clip_fraction_low`."""
    found: dict[str, str] = {}
    for entry in GLOSSARY:
        first, *others = entry.split(", ")
        found |= {first: entry, **{first + name if name.startswith("_") else name: entry for name in others}}
    return found


ENTRY_OF = _entries()


def alarms(history: History) -> list[dict[str, Any]]:
    """Return the alarms for reward hacking, with the positions of the rollouts concerned."""
    return [
        {
            "step": alarm.step,
            "name": alarm.alarm,
            "sentence": alarm.sentence,
            "evidence": [f"{name} {value:.4g}" for name, value in alarm.evidence.items()],
            "rollouts": [f"{alarm.step}/{row.group}/{row.sample}" for row in alarm.rollouts],
        }
        for alarm in history.alarms
    ]
