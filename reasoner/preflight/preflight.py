"""Estimates before a run: the signal of the data for this model, the cost of a step, and what to change.

It uses the model, template, engine, verifier and update of the run itself on a few hundred problems; nothing is kept.

Letters: P problems, K samples, G group.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reasoner.algorithm.advantage import get_estimator
from reasoner.algorithm.kl_control import KLControl, KLState
from reasoner.config.errors import ConfigError
from reasoner.config.methods import METHODS
from reasoner.config.no_effect import little_effect, refuse_no_effect
from reasoner.config.stage import RunConfig, StageConfig
from reasoner.data.prompt import render
from reasoner.monitoring.metrics import peak_memory_mb
from reasoner.observe.explain import Finding, findings
from reasoner.observe.explain.significance import percent
from reasoner.preflight.causes import Causes, find_causes, form_sentences, template_sentences
from reasoner.preflight.signal_chance import Beta, fitted, signal_chance
from reasoner.rollout.round import Sampled
from reasoner.rollout.selection import select
from reasoner.session.opening import open_session
from reasoner.session.session import Session
from reasoner.session.step_record import StepRecord
from reasoner.storage.files import write_text
from reasoner.storage.history import History, Row, UpdateRecord, attach_updates, config_before, row_of
from reasoner.storage.rows import rollout_row
from reasoner.train import learn
from verifiers import JSON
from verifiers.jsonl import json_line

GROUP_SIZES = (2, 4, 8, 16, 32)
TEMPLATE_PROBLEMS = 16
WANTED_SIGNAL = 0.5
"""Share of groups with signal that a suggested group size aims at (our choice); beyond it a larger group costs more in
samples than it gains in groups."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Problems of similar difficulty."""

    name: str
    problems: int
    belief: Beta
    low: float
    high: float
    """`low` and `high`: bounds of the pass rates of 90 % of the problems."""
    difficulties: tuple[float, float] | None = None
    """Lowest and highest difficulty of the problems; None if they are not divided by difficulty."""


@dataclass(kw_only=True)
class Preflight:
    """All measurements."""

    config: StageConfig
    rows: list[Row]
    bins: list[Bin]
    whole: Beta
    seconds_per_step: float
    split: dict[str, float]
    tokens_per_step: float
    memory_mb: float
    seconds: float
    findings: list[Finding]
    template: dict[str, float] = field(default_factory=dict[str, float])
    """Nats per token of worked solutions, for each way to render the prompt."""
    causes: Causes = field(default_factory=Causes)

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """By problem: number of right samples, and number of samples with a verdict of right or wrong."""
        return _counts(self.rows)

    def shares(self) -> dict[str, float]:
        """Return the shares of problems whose samples are all wrong, mixed, and all right."""
        counts = [*self.counts.values()]
        total = max(1, len(counts))
        wrong, right = sum(c == 0 for c, _ in counts) / total, sum(c == n for c, n in counts) / total
        return {"all wrong": wrong, "mixed": sum(0 < c < n for c, n in counts) / total, "all right": right}


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
        template = _template_probe(session)
        causes = find_causes(session, rounds)
        rows = _rows(rounds)
        split = _step_times(session, rounds, rows)
        history = History(config=stage, before=config_before(stage), rows=rows, environment=_machine(session))
        memory = peak_memory_mb()
        lengths = [row.tokens for row in rows]
        return Preflight(
            config=stage,
            rows=rows,
            bins=_bins(rows),
            whole=fitted([*_counts(rows).values()]),
            seconds_per_step=sum(split.values()),
            split=split,
            tokens_per_step=sum(lengths) / len(lengths) * stage.rollout.problems_per_step * stage.rollout.group_size,
            memory_mb=memory,
            seconds=time.monotonic() - started,
            findings=findings(history),
            template=template,
            causes=causes,
        )


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


def _counts(rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        if row.mark is not None:
            right, total = found.get(row.problem, (0, 0))
            found[row.problem] = (right + row.right, total + 1)
    return found


def _bins(rows: Sequence[Row]) -> list[Bin]:
    """Divide the problems by difficulty into up to four ranges; by task if no difficulty is known."""
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
        counts = _counts(members)
        belief = fitted([*counts.values()])
        levels_here = [row.difficulty for row in members if row.difficulty is not None]
        found.append(
            Bin(
                name=name,
                problems=len(counts),
                belief=belief,
                low=belief.quantile(0.05),
                high=belief.quantile(0.95),
                difficulties=(min(levels_here), max(levels_here)) if levels_here and len(levels) > 1 else None,
            )
        )
    return found


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


def _template_probe(session: Session) -> dict[str, float]:
    """Return the nats per token of worked solutions, for the config's prompts and the other ways to render them.

    A solution is far likelier after prompts like those that the model was trained on.
    """
    tokenizer, section = session.policy.tokenizer, session.config.prompt
    problems = [p for part in session.producer.problems.parts for p in part[:TEMPLATE_PROBLEMS] if p.demonstration]
    if not problems or not all(isinstance(p.prompt, str) for p in problems) or not tokenizer.chat_template:
        return {}
    uses = "chat" if section.chat != "never" else "plain"
    found: dict[str, float] = {}
    for name in ("chat", "plain"):
        own = name == uses
        other = section if own else section.model_copy(update={"chat": "always" if name == "chat" else "never"})
        total = count = 0.0
        try:
            prompts = render(problems, tokenizer, other)
        except ConfigError:  # for example, the chat template rejects the system message
            continue
        for problem, prompt in zip(problems, prompts, strict=True):
            answer = tokenizer(problem.demonstration, add_special_tokens=False)["input_ids"]
            ids = [*prompt.ids, *answer][: session.policy.context]
            scored = session.policy.score_tokens(ids)[len(prompt.ids) - 1 :]
            total, count = total - sum(scored), count + len(scored)
        found[f"{name}{' (the config)' if own else ''}"] = total / max(1.0, count)
    return found


# ----------------------------------------------------------------------------------------------------- sentences


def sentences(done: Preflight) -> Iterator[str]:
    """Yield advice on what to change, with numbers, causes before symptoms; nothing if the config is fine."""
    rollout = done.config.rollout
    yield from template_sentences(done.causes, done.template, done.rows)
    yield from form_sentences(done.config, done.causes, done.rows)
    yield from (f"{sentence}." for sentence in little_effect(done.config))
    now = signal_chance(done.whole, rollout.group_size)
    chances = {size: signal_chance(done.whole, size) for size in GROUP_SIZES}
    shares = done.shares()
    if done.counts and now < WANTED_SIGNAL:
        larger = next(
            (size for size in GROUP_SIZES if size > rollout.group_size and chances[size] >= WANTED_SIGNAL), None
        )
        if larger is not None and shares["all wrong"] < 0.9:
            yield (
                f"group_size={larger} would give {percent(chances[larger])} of the groups signal, {rollout.group_size}"
                f" gives {percent(now)}: set rollout.group_size={larger} and"
                f" rollout.problems_per_step={max(1, rollout.problems_per_step * rollout.group_size // larger)} for the"
                " same number of samples per step."
            )
    if shares["all wrong"] > 0.8:
        yield (
            f"{percent(shares['all wrong'])} of the problems were never solved in {rollout.group_size} samples: begin"
            f" with an sft stage or a stronger model, or with easier problems{_one_of(done.bins, max)}."
        )
    if shares["all right"] > 0.8:
        yield (
            f"{percent(shares['all right'])} of the problems are solved every time: use harder"
            f" ones{_one_of(done.bins, min)}."
        )
    useful = [b for b in done.bins if signal_chance(b.belief, rollout.group_size) > 2 * now and b.problems >= 8]
    for each in useful:
        yield (
            f"{each.name} gives {percent(signal_chance(each.belief, rollout.group_size))} of its groups signal, the"
            f" whole data {percent(now)}: --write-problems FILE keeps the problems that are likely to have some."
        )
    distinct = _distinct(done.rows)
    if distinct < 0.3:
        yield (
            f"of problems that are not always solved, only {percent(distinct)} of the completions differ from each"
            f" other: raise rollout.temperature above {rollout.temperature:g}."
        )
    for finding in done.findings:
        if (
            finding.level != "note"
            and finding.code not in ("all-wrong", "all-right", "no-diversity", "no-answer")
            and not finding.follows
        ):
            yield f"{finding.title}. Try: {finding.change}"


def _one_of(bins: Sequence[Bin], pick: Callable[..., Bin]) -> str:
    """Name the easiest (max) or hardest (min) problems in parentheses; "" if there is only one kind."""
    if len(bins) < 2:
        return ""
    found = pick(bins, key=lambda each: each.belief.mean)
    return f" ({found.name}: {percent(found.belief.mean)} right)"


def _distinct(rows: Sequence[Row]) -> float:
    """Return the mean share of distinct texts among the samples of problems that are not all right; 1 without any."""
    groups: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.step, row.group), []).append(row)
    shares = [len({r.completion for r in g}) / len(g) for g in groups.values() if not all(r.right for r in g)]
    return sum(shares) / len(shares) if shares else 1.0


def problem_list(
    done: Preflight, known: Sequence[tuple[str, float | None]], *, least: float = 0.5
) -> list[dict[str, JSON]]:
    """Return the problems that are likely enough to have signal, as rows for task.problems_file.

    Args:
        done: the measurement.
        known: (id, difficulty) of all training problems.
        least: a problem is kept if its chance of signal is at least this share of the mean chance.
    Returns:
        rows {"id", "signal", "pass_rate", "samples"}.
    """
    size = done.config.rollout.group_size
    counts = done.counts
    mean = signal_chance(done.whole, size)
    found: list[dict[str, JSON]] = []
    for name, difficulty in known:
        right, total = counts.get(name, (0, 0))
        prior = _prior(done, difficulty)
        belief = Beta(prior.a + right, prior.b + total - right)
        chance = signal_chance(belief, size)
        if chance >= least * mean:
            found.append({"id": name, "signal": round(chance, 4), "pass_rate": round(belief.mean, 4), "samples": total})
    return found


def _prior(done: Preflight, difficulty: float | None) -> Beta:
    """Return the distribution of pass rates at this difficulty: that of the nearest bin, or of all problems."""
    near = [
        (max(b.difficulties[0] - difficulty, difficulty - b.difficulties[1], 0.0), b.belief)
        for b in done.bins
        if b.difficulties is not None and difficulty is not None
    ]
    return min(near, key=lambda pair: pair[0])[1] if near else done.whole


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
        "template": {name: round(value, 3) for name, value in done.template.items()},
        "seconds": round(done.seconds, 1),
        "advice": [*sentences(done)],
        "findings": [finding.to_json() for finding in done.findings],
    }


def write_problems(path: Path, rows: Sequence[dict[str, JSON]]) -> None:
    """Write one JSON line per problem."""
    write_text(path, "".join(json_line(row) + "\n" for row in rows))
