"""Content of the page, from a run's records: curves, tables, and every rollout in compressed pieces."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from reasoner.monitoring.glossary import GLOSSARY
from reasoner.observe.explain import Finding, History, Row
from reasoner.observe.report.evaluations import alarms, before_after, evaluation_charts, explained, probes
from reasoner.storage.history import lines
from reasoner.storage.kept_tokenizer import kept_tokenizer
from verifiers import Outcome
from verifiers.stats import wilson_interval
from verifiers.text import whole

CHUNK = 250
"""Rollouts in one compressed piece, which is decoded to open one of them."""
GAP_UNIT = 1e-3
"""Nats; gaps are stored as integer multiples of it."""
SURPRISAL_UNIT = 1e-2
DIFFICULTY_BINS = 4


def packed(value: object) -> str:
    """Return a value as JSON, gzipped (with equal bytes for equal values) and in base64."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(whole(text).encode(), compresslevel=6, mtime=0)).decode()


# ---------------------------------------------------------------------------------------------------------- curves


def curves(history: History) -> list[dict[str, Any]]:
    """Return one entry per chart: title, unit, x, series, and an optional band."""
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
    difficulty = difficulty_chart(history)
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


def difficulty_chart(history: History) -> dict[str, Any] | None:
    """Return a chart of the pass rate by difficulty of the problems, in up to four ranges of equal counts; or None."""
    rows = [row for row in history.graded if row.difficulty is not None]
    values = sorted({row.difficulty for row in rows if row.difficulty is not None})
    if len(values) < 2:
        return None
    if len(values) <= DIFFICULTY_BINS:
        edges = [*values, float("inf")]
    else:
        cuts = np.quantile([row.difficulty for row in rows if row.difficulty is not None], np.linspace(0, 1, 5))
        edges = [*sorted(set(cuts[:-1].tolist())), float("inf")]
    steps = history.steps
    series: list[dict[str, Any]] = []
    for low, high in itertools.pairwise(edges):
        rates: list[float | None] = []
        for step in steps:
            right = [r.right for r in history.by_step[step] if r.difficulty is not None and low <= r.difficulty < high]
            rates.append(sum(right) / len(right) if right else None)
        top = "1" if high == float("inf") else f"{high:.2g}"
        series.append(
            {
                "name": f"difficulty {low:.2g}" + ("" if len(values) <= DIFFICULTY_BINS else f" to {top}"),
                "values": rates,
            }
        )
    return {"title": "Pass rate by difficulty", "unit": "share", "x": steps, "series": series}


# -------------------------------------------------------------------------------------------------------- rollouts


class Words:
    """Decoder of token ids to text, if the run's tokenizer is available."""

    def __init__(self, history: History) -> None:
        self._tokenizer = kept_tokenizer(history)
        self.table: dict[int, str] = {}

    def pieces(self, ids: Sequence[int]) -> list[str] | None:
        """Return the text of each token; None without a tokenizer."""
        if self._tokenizer is None:
            return None
        for token in set(ids) - self.table.keys():
            self.table[token] = str(self._tokenizer.decode([token], skip_special_tokens=False))
        return [self.table[token] for token in ids]


def index_of(rows: Sequence[Row], held_out: Mapping[tuple[int, int, int], str]) -> dict[str, Any]:
    """Return the table that lists, filters and sorts rollouts: one column per field."""
    problems = {name: i for i, name in enumerate(dict.fromkeys(row.problem for row in rows))}
    tasks = {name: i for i, name in enumerate(dict.fromkeys(row.task for row in rows))}
    outcomes = {name: i for i, name in enumerate(dict.fromkeys(row.outcome for row in rows))}
    return {
        "problems": [*problems],
        "tasks": [*tasks],
        "outcomes": [*outcomes],
        "step": [row.step for row in rows],
        "group": [row.group for row in rows],
        "sample": [row.sample for row in rows],
        "problem": [problems[row.problem] for row in rows],
        "task": [tasks[row.task] for row in rows],
        "outcome": [outcomes[row.outcome] for row in rows],
        "reward": [None if row.reward is None else round(row.reward, 4) for row in rows],
        "tokens": [row.tokens for row in rows],
        "truncated": [int(row.truncated) for row in rows],
        "advantage": [None if row.advantage is None else round(row.advantage, 4) for row in rows],
        "gap": [_gap(row) for row in rows],
        "held_out": [held_out.get(row.place) for row in rows],
        "head": [_end(row.completion) for row in rows],
        "chunk": CHUNK,
    }


def _gap(row: Row) -> float | None:
    """Return the mean |trainer - engine| over the row's trained tokens, in nats; None if not recorded."""
    if row.trainer is None or len(row.trainer) != len(row.logprobs) or not len(row.logprobs):
        return None
    kept = slice(None) if row.mask is None else row.mask
    return float(f"{np.abs(row.trainer[kept] - row.logprobs[kept]).mean():.3g}")


def chunks(rows: Sequence[Row], words: Words) -> Iterator[list[dict[str, Any]]]:
    """Yield the rollouts in pieces of CHUNK."""
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        prompts: dict[str, int] = {}
        yield [_rollout(row, words, prompts) for row in part]


def _rollout(row: Row, words: Words, prompts: dict[str, int]) -> dict[str, Any]:
    ids = row.token_ids.tolist()
    pieces = words.pieces(ids)
    found: dict[str, Any] = {
        "completion": row.completion,
        "reference": row.reference,
        "answer": row.answer,
        "reason": row.reason,
        "verifier": row.verifier,
        "version": row.policy_version,
    }
    # a prompt is stored once per chunk; other rollouts with it refer to it by number
    if row.prompt in prompts:
        found["same_prompt"] = prompts[row.prompt]
    else:
        prompts[row.prompt] = len(prompts)
        found["prompt"] = row.prompt
    if pieces is not None and len(row.logprobs) == len(ids):
        found["ids"] = ids
        found["surprisal"] = np.rint(-row.logprobs / SURPRISAL_UNIT).astype(int).tolist()
        if row.trainer is not None and len(row.trainer) == len(ids):
            found["gap"] = np.rint((row.trainer - row.logprobs) / GAP_UNIT).astype(int).tolist()
        if row.mask is not None:
            found["mask"] = row.mask.astype(int).tolist()
    if row.turns:
        found["turns"] = [[turn.get("origin"), turn.get("text"), turn.get("errors", 0)] for turn in row.turns]
    if row.dropped:
        found["dropped"] = row.dropped
    if row.components:
        found["components"] = dict(row.components)
    if row.shaping:
        found["shaping"] = row.shaping
    if row.info:
        found["info"] = dict(row.info)
    return found


# ----------------------------------------------------------------------------------------------------- transcripts


def transcripts(history: History) -> list[list[dict[str, Any]]]:
    """Return the answers, critiques, revisions and comparisons of a constitutional stage, in pieces of CHUNK."""
    rows = [*lines(history.folder / "transcripts.jsonl", like=dict)] if history.folder else []
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]


# ------------------------------------------------------------------------------------------------------ everything


def stage_data(
    history: History, found: Sequence[Finding], held_out: Mapping[tuple[int, int, int], str], name: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the data of a stage: (summary that the page reads at once, packed pieces that it reads on demand)."""
    words = Words(history)
    pieces = [packed(part) for part in chunks(history.rows, words)]
    transcript_pieces = transcripts(history)
    summary = {
        "name": name,
        "method": history.config.method,
        "steps": len(history.metrics),
        "of": history.config.steps,
        "complete": history.complete,
        "rollouts": len(history.rows),
        "ungraded": sum(row.reward is None for row in history.rows),
        "environment": history.environment,
        "config": (history.folder / "config.yaml").read_text() if history.folder else "",
        "findings": [finding.to_json() for finding in found],
        "before_after": before_after(history),
        "probes": probes(history),
        "alarms": alarms(history),
        "curves": curves(history),
        "transcripts": {
            "count": sum(map(len, transcript_pieces)),
            "first": 1 + len(pieces),
            "pieces": len(transcript_pieces),
        },
        "audit": audit_table(history, held_out),
        "words": {str(token): text for token, text in words.table.items()},
        "units": {"gap": GAP_UNIT, "surprisal": SURPRISAL_UNIT},
    }
    return summary, [packed(index_of(history.rows, held_out)), *pieces, *map(packed, transcript_pieces)]


def _end(completion: str, *, length: int = 70) -> str:
    """Return the last characters of a completion on one line, where its answer usually is."""
    line = " ".join(completion[-2 * length :].split())
    return line if len(line) <= length and len(completion) <= 2 * length else "…" + line[-length:]


def audit_table(history: History, held_out: Mapping[tuple[int, int, int], str]) -> list[dict[str, Any]]:
    """Compare the held-out verifier with the training reward, in sixths of the run.

    Each row has the number of audited rollouts, the number rejected, and the interval of the rejected share.
    """
    if not held_out:
        return []
    found: list[dict[str, Any]] = []
    steps = history.steps
    for part in np.array_split(np.asarray(steps), min(6, len(steps))):
        inside = {int(step) for step in part}
        outcomes = [outcome for place, outcome in held_out.items() if place[0] in inside]
        if outcomes:
            rejected = sum(outcome != Outcome.CORRECT for outcome in outcomes)
            interval = wilson_interval(rejected, len(outcomes))
            found.append(
                {
                    "steps": [int(part[0]), int(part[-1])],
                    "sampled": len(outcomes),
                    "rejected": rejected,
                    "low": interval.low,
                    "high": interval.high,
                }
            )
    return found


def glossary() -> dict[str, list[str]]:
    """Return the meaning and healthy range of each metric."""
    return {name: [entry.meaning, entry.healthy] for name, entry in GLOSSARY.items()}
