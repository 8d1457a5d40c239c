"""Estimates before a run: the signal of the data for this model, the cost of a step, and what to change.

It uses the model, template, engine, verifier and update of the run itself on a few hundred problems; nothing is kept.

Letters: P problems, K samples, G group.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reasoner.algorithm.advantage import get_estimator
from reasoner.algorithm.kl_control import KLControl, KLState
from reasoner.config.errors import ConfigError
from reasoner.config.methods import METHODS
from reasoner.config.no_effect import refuse_no_effect
from reasoner.config.stage import RunConfig, StageConfig
from reasoner.monitoring.metrics import peak_memory_mb
from reasoner.observe.explain import findings
from reasoner.observe.explain.pass_rates import fits, fitted, two_kinds
from reasoner.observe.explain.signal_chance import Belief, signal_chance
from reasoner.preflight.advice import GROUP_SIZES, sentences
from reasoner.preflight.all_rows import count_rows
from reasoner.preflight.causes import find_causes
from reasoner.preflight.fields import (
    Side,
    belief_of,
    facts_of_row,
    hopeless_side,
    separating,
)
from reasoner.preflight.measured import Bin, Preflight, TwoKinds, counts_of
from reasoner.preflight.problem_list import kept_of
from reasoner.rollout.round import Sampled
from reasoner.rollout.selection import select
from reasoner.session.opening import open_session
from reasoner.session.session import Session
from reasoner.session.step_record import StepRecord
from reasoner.storage.history import History, Row, UpdateRecord, attach_updates, config_before, row_of
from reasoner.storage.rows import rollout_row
from reasoner.train import learn
from verifiers import JSON


def preflight(
    run: RunConfig, *, problems: int = 256, samples: int | None = None, seconds: float = 120.0, model: str | None = None
) -> Preflight:
    """Sample and grade problems, and take a step or two, with the config's last stage that samples.

    Args:
        run: the config.
        problems: number of problems to sample; at least those of one step are sampled.
        samples: completions per problem; None: rollout.group_size.
        seconds: no new round of sampling starts after this time.
        model: model instead of the stage's own.
    Raises:
        ConfigError: no stage samples, or its model does not exist yet.
    """
    stage = sampling_stage(run, samples, model)
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="preflight-") as folder,
        open_session(stage, Path(folder), resume=False) as session,
    ):
        rounds: list[Sampled] = []
        sampled = 0
        while sampled < problems and (not rounds or time.monotonic() - started < seconds):
            rounds.append(_round(session, len(rounds)))
            sampled += len(rounds[-1].groups)
        causes = find_causes(session, rounds)
        rows = _rows(rounds)
        split = _step_times(session, rounds, rows)
        history = History(config=stage, before=config_before(stage), rows=rows, environment=_machine(session))
        memory = peak_memory_mb()
        lengths = [row.tokens for row in rows]
        whole, kinds = pass_rates(rows)
        done = Preflight(
            config=stage,
            rows=rows,
            bins=_bins(rows, kinds),
            whole=whole,
            kinds=kinds,
            seconds_per_step=sum(split.values()),
            split=split,
            tokens_per_step=sum(lengths) / len(lengths) * stage.rollout.problems_per_step * stage.rollout.group_size,
            memory_mb=memory,
            seconds=time.monotonic() - started,
            findings=findings(history),
            causes=causes,
            all_rows=count_rows(session.producer.problems.parts, stage, tests=tests_problems(run)),
        )
        done.kept = kept_of(done, session.producer.problems.parts)
        return done


def tests_problems(run: RunConfig) -> bool:
    """Return True if a stage that samples is evaluated on held-out problems."""
    return any(METHODS[stage.method].samples and stage.evaluates for stage in run.stages)


def sampling_stage(run: RunConfig, samples: int | None, model: str | None, *, untrained: bool = False) -> StageConfig:
    """Return the last stage that samples, without settings that a preflight does not need.

    Args:
        run: the config.
        samples: completions per problem; None: rollout.group_size.
        model: model instead of the stage's own.
        untrained: if the stage continues from one that is not trained yet, use the model with which they begin.
    Raises:
        ConfigError: no stage samples, or its model does not exist yet.
    """
    place = next(
        (i for i in reversed(range(len(run.stages))) if METHODS[run.stages[i].method].samples),
        None,
    )
    if place is None:
        raise ConfigError("bad-value", "preflight needs a stage that samples (grpo, ppo); the config has none.")
    stage = run.stages[place]
    section = stage.model
    if model is not None:
        section = section.model_copy(update={"path": model, "from_scratch": None, "tokenizer": None})
    elif place > 0 and not run.starts_fresh[place]:
        before = run.stage_folder(place - 1) / "final"
        if before.is_dir():
            section = section.model_copy(update={"path": str(before), "from_scratch": None, "tokenizer": None})
        elif untrained:
            section = run.stages[max(i for i in range(place) if run.starts_fresh[i])].model
        else:
            raise ConfigError(
                "bad-value",
                f"stage {place} continues from the model of stage {place - 1}, which is not trained yet ({before} does"
                " not exist). Pass --model with a similar model, or train that stage first.",
            )
    refuse_no_effect(stage)
    rollout = stage.rollout if samples is None else stage.rollout.model_copy(update={"group_size": samples})
    return stage.model_copy(
        update={
            "model": section,
            "rollout": rollout,
            "eval": stage.eval.model_copy(update={"problems": 0}),
            "logging": stage.logging.model_copy(update={"tensorboard": False, "trackers": []}),
            "value": stage.value.model_copy(update={"warmup_steps": 0}),
            "grading": stage.grading.model_copy(update={"max_ungraded_share": 1.0}),
        }
    )


def _round(session: Session, turn: int) -> Sampled:
    """Sample the groups of one step."""
    rollout = session.config.rollout
    problems_P = session.producer.problems.take(rollout.problems_per_step)
    label, seed_parts = f"preflight: round {turn + 1}", ("preflight", turn)
    return session.producer.sample(problems_P, label=label, seed_parts=seed_parts, step=turn + 1).all()


def _rows(rounds: Sequence[Sampled]) -> list[Row]:
    records: list[dict[str, Any]] = []
    for sampled in rounds:
        for index, group in enumerate(sampled.groups):
            records += rollout_row(group, index)
    return [row_of(record) for record in records]


def pass_rates(rows: Sequence[Row]) -> tuple[Belief, TwoKinds | None]:
    """Return the distribution of pass rates, and the two kinds of problems if there are two."""
    by_problem = counts_of(rows)
    counts = [*by_problem.values()]
    found = fits(counts)
    whole = min(found, key=lambda fit: fit.bic).belief
    of = {row.problem: facts_of_row(row) for row in rows}
    facts = [of[name] for name in by_problem]
    told = two_kinds(counts, found)
    if told is not None:
        return whole, TwoKinds(told.shares, told.means, separating(facts, counts, told))
    split = hopeless_side(facts, counts, found[0]) if counts else None
    if split is None:
        return whole, None
    total = sum(split.sizes)
    return whole, TwoKinds((split.sizes[0] / total, split.sizes[1] / total), split.means, split)


def _bins(rows: Sequence[Row], kinds: TwoKinds | None = None) -> list[Bin]:
    """Divide the problems by what separates two kinds; else by difficulty into up to four ranges; else by task."""
    if kinds is not None and kinds.split is not None:
        counts = [*counts_of(rows).values()]
        sides = zip(
            (kinds.split.rare, kinds.split.other), kinds.split.sizes, belief_of(kinds.split, counts), strict=True
        )
        return [_bin(str(side), size, belief, side=side) for side, size, belief in sides]
    levels = sorted({row.difficulty for row in rows if row.difficulty is not None})
    named: dict[str, list[Row]] = {}
    for row in rows:
        if row.difficulty is None or len(levels) < 2:
            name = row.task or "all"
        elif len(levels) <= 4:
            name = f"difficulty {row.difficulty:.2g}"
        else:
            quarter = min(3, 4 * levels.index(row.difficulty) // len(levels))
            name = f"difficulty quarter {quarter + 1}"
        named.setdefault(name, []).append(row)
    found: list[Bin] = []
    for name, members in sorted(named.items()):
        counts = counts_of(members)
        belief = fitted([*counts.values()])
        levels_here = [row.difficulty for row in members if row.difficulty is not None]
        ranges = (min(levels_here), max(levels_here)) if levels_here and len(levels) > 1 else None
        found.append(_bin(name, len(counts), belief, difficulties=ranges))
    return found


def _bin(
    name: str,
    problems: int,
    belief: Belief,
    *,
    difficulties: tuple[float, float] | None = None,
    side: Side | None = None,
) -> Bin:
    low, high = belief.quantile(0.05), belief.quantile(0.95)
    return Bin(name=name, problems=problems, belief=belief, low=low, high=high, difficulties=difficulties, side=side)


# ------------------------------------------------------------------------------------------------------ one step


def _step_times(session: Session, rounds: Sequence[Sampled], rows: list[Row]) -> dict[str, float]:
    """Measure the seconds of each part of a step. The update is a real one, on the sampled rows and throwaway weights.

    A step in which no group has signal skips its update, so these parts are multiplied by the share of rounds with
    signal.
    """
    config = session.config
    estimator, kl = get_estimator(config.algorithm.advantage), KLControl(config.algorithm, KLState())
    later = rounds[1:] or rounds
    split = {
        "generation": statistics.median([sampled.generation_seconds for sampled in later]),
        "grading wait": statistics.median([sampled.grading_wait_seconds for sampled in later]),
    }
    signal = [bool(select(sampled, estimator, config).kept) for sampled in rounds]
    records: list[StepRecord] = []
    for number in (-2, -1) if len(rounds) > 1 else (0, 0):
        # a round without signal is measured with all its rows
        rows_of = estimator if signal[number] else replace(estimator, group_relative=False)
        records.append(StepRecord(session, number % len(rounds) + 1))
        learn(session, [rounds[number]], rows_of, kl, records[-1])
    attach_updates(
        rows, map(UpdateRecord.model_validate, records[0].update_lines)
    )  # the first update used the weights that sampled
    largest = max(rounds, key=lambda sampled: sampled.tokens)
    whole = replace(estimator, group_relative=False)
    if len(select(largest, estimator, config).kept) < len(select(largest, whole, config).kept):
        # the peak memory is that of a step whose groups all have signal, when the optimizer's state exists
        learn(session, [largest], whole, kl, StepRecord(session, len(rounds)))
    share = sum(signal) / len(rounds)
    parts = ("logprobs", "update", "sync")
    return split | {name: share * min(record.seconds.get(name, 0.0) for record in records) for name in parts}


def _machine(session: Session) -> dict[str, JSON]:
    return {"device": "cpu" if session.policy.device.type == "cpu" else "cuda"}


def to_json(done: Preflight) -> dict[str, Any]:
    """Return the measurements, advice and findings as a JSON object."""
    lengths = sorted(row.tokens for row in done.rows)
    ungraded = [row for row in done.rows if row.reward is None]
    no_answer = [row for row in done.rows if row.outcome == "no_answer"]
    size = done.config.rollout.group_size
    return {
        "problems": len({row.problem for row in done.rows}),
        "samples": size,
        "shares": {name: round(value, 4) for name, value in done.shares().items()},
        "signal": {str(g): round(signal_chance(done.whole, g), 4) for g in sorted({*GROUP_SIZES, size})},
        "pass_rate": round(done.whole.mean, 4),
        "kinds": None
        if done.kinds is None
        else {
            "shares": [round(share, 4) for share in done.kinds.shares],
            "pass_rates": [round(mean, 4) for mean in done.kinds.means],
            "separated_by": done.kinds.split.rare.field if done.kinds.split else None,
        },
        "all_rows": done.all_rows.to_json() if done.all_rows else None,
        "kept": None if done.kept is None else done.kept._asdict(),
        "bins": [
            {
                "name": b.name,
                "problems": b.problems,
                "pass_rate": round(b.belief.mean, 4),
                "low": round(b.low, 4),
                "high": round(b.high, 4),
                "signal": round(signal_chance(b.belief, size), 4),
            }
            for b in done.bins
        ],
        "tokens": {
            "median": lengths[len(lengths) // 2],
            "p95": lengths[int(0.95 * (len(lengths) - 1))],
            "max": lengths[-1],
            "truncated": round(sum(row.truncated for row in done.rows) / len(done.rows), 4),
        },
        "no_answer": {
            "share": round(len(no_answer) / len(done.rows), 4),
            "examples": [r.completion[-200:] for r in no_answer[:3]],
        },
        "ungraded": {
            "share": round(len(ungraded) / len(done.rows), 4),
            "causes": sorted({r.reason[:160] for r in ungraded})[:3],
        },
        "step": {
            "seconds": round(done.seconds_per_step, 3),
            "split": {name: round(value, 3) for name, value in done.split.items()},
            "sampled_tokens": round(done.tokens_per_step),
            "steps": done.config.steps,
            "hours": round(done.seconds_per_step * done.config.steps / 3600, 3),
        },
        "memory_mb": round(done.memory_mb),
        "template": {name: round(value, 3) for name, value in done.causes.surprise.ways.items()},
        "surprise": {
            "own_text": round(done.causes.surprise.own, 3),
            "ended": round(done.causes.surprise.ended, 3),
            "calmest_half": round(done.causes.surprise.calm, 3),
            "most_at": [*done.causes.surprise.spots],
        },
        "seconds": round(done.seconds, 1),
        "advice": [*sentences(done)],
        "findings": [finding.to_json() for finding in done.findings],
    }
