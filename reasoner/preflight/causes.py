"""Causes of wrong answers that a few more samples can show: answer format, temperature, chat template.

Causes are reported before their symptoms: a model whose answers are not recognised needs no sft stage.
"""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from reasoner.config.stage import StageConfig
from reasoner.data.prompt import render
from reasoner.observe.explain.pass_rates import FEWEST
from reasoner.observe.explain.prompt_rules import ROLE_MARKS
from reasoner.observe.explain.significance import percent
from reasoner.preflight.surprise import Surprise, surprise_of
from reasoner.records import Rollout
from reasoner.rollout.grading import grading_row
from reasoner.rollout.round import Sampled, training_params
from reasoner.session.session import Session
from reasoner.storage.history import Row
from tasks import Problem
from verifiers import JSON, Outcome, Verdict
from verifiers.pool import GradingRequest
from verifiers.registry import verifier_class
from verifiers.stats import wilson_interval

UNREAD = 0.3
"""Share of completions without an answer from which on the format is reported as the first thing to fix (our
choice)."""
RARELY, SOLVED = 0.3, 0.03
"""Share of right answers below which a suspicious template is reported, unless this share of the problems is right in
half of its samples or more (our choice)."""
REGRADED, GREEDY_PROBLEMS = 128, 48
"""Number of completions graded again leniently; number of problems answered greedily."""


class Lenient(NamedTuple):
    """Completions without an answer, graded again with the verifier's option `lenient`."""

    tried: int
    read: int
    """Number that has an answer when read leniently."""
    right: int
    override: str
    """Setting (`key=value`) that turns the option on."""


class Greedy(NamedTuple):
    """Results on the same problems at temperature 0 and as sampled in training."""

    problems: int
    greedy: float
    sampled: float
    """`greedy` and `sampled` are shares of right answers, 0 .. 1."""
    unread: float = 0.0
    """Share of the greedy completions without an answer."""
    cooler: float | None = None
    """Share of right answers at the temperature that `cooler` gives; None if greedy answers are not far better."""


@dataclass(frozen=True, kw_only=True)
class Causes:
    """Findings from the additional samples; None for what was not tested or not applicable."""

    lenient: Lenient | None = None
    greedy: Greedy | None = None
    surprise: Surprise = field(default_factory=Surprise)
    unused_marks: tuple[str, ...] = ()
    """Turn marks that are tokens of the tokenizer but do not occur in the prompts."""


def find_causes(session: Session, rounds: Sequence[Sampled]) -> Causes:
    """Sample and grade some more completions, with the weights that sampled the rounds."""
    rollouts = [rollout for sampled in rounds for group in sampled.groups for rollout in group.rollouts]
    graded = [rollout for rollout in rollouts if rollout.verdict.graded]
    right = sum(rollout.verdict.outcome is Outcome.CORRECT for rollout in graded)
    weak = graded and right < 0.5 * len(graded)
    return Causes(
        lenient=_read_again(session, rollouts),
        greedy=_greedily(session, rounds) if weak else None,
        surprise=surprise_of(session, rounds),
        unused_marks=_unused_marks(session, rollouts),
    )


def _read_again(session: Session, rollouts: Sequence[Rollout]) -> Lenient | None:
    unread = [rollout for rollout in rollouts if rollout.verdict.outcome is Outcome.NO_ANSWER]
    if len(unread) < UNREAD * len(rollouts):
        return None
    kinds = {(r.problem.verifier, json.dumps(dict(r.problem.verifier_options), sort_keys=True)) for r in unread}
    name, options = unread[0].problem.verifier, dict(unread[0].problem.verifier_options)
    if len(kinds) > 1 or options.get("lenient") or not _takes_lenient(name):
        return None
    options = {**options, "lenient": True}
    step = max(1, len(unread) // REGRADED)
    again = [
        GradingRequest(name, grading_row(rollout.problem, rollout.completion), options)
        for rollout in unread[::step][:REGRADED]
    ]
    verdicts = list(session.pool.grade(again))
    return Lenient(
        tried=len(verdicts),
        read=sum(verdict.graded and verdict.outcome is not Outcome.NO_ANSWER for verdict in verdicts),
        right=sum(verdict.outcome is Outcome.CORRECT for verdict in verdicts),
        override=_verifier_override(session.config, unread[0], name, options),
    )


def _takes_lenient(name: str) -> bool:
    return "lenient" in inspect.signature(verifier_class(name).__init__).parameters


def _verifier_override(config: StageConfig, rollout: Rollout, name: str, options: Mapping[str, JSON]) -> str:
    """Return the setting (`key=value`, quoted for a shell) that gives a rollout's task this verifier."""
    value = json.dumps({"name": name, "options": options})
    if config.reward is not None:
        return shlex.quote(f"reward={value}")
    names = [section.name for section in config.task]
    place = names.index(rollout.problem.task) if rollout.problem.task in names else 0
    return shlex.quote(f"task.{place}.verifier={value}")


def _greedily(session: Session, rounds: Sequence[Sampled]) -> Greedy | None:
    """Answer the first problems of the rounds at temperature 0; if that is far better, also at a lower temperature.

    Returns:
        None if nothing could be graded.
    """
    groups = [group for sampled in rounds for group in sampled.groups][:GREEDY_PROBLEMS]
    problems_P = [group.problem for group in groups]
    greedy = _answered(session, problems_P, temperature=0.0)
    sampled = [r.verdict for group in groups for r in group.rollouts if r.verdict.graded]
    if not greedy or not sampled:
        return None
    unread = sum(verdict.outcome is Outcome.NO_ANSWER for verdict in greedy) / len(greedy)
    found = Greedy(len(greedy), _right(greedy), _right(sampled), unread)
    temperature = cooler(session.config.rollout.temperature)
    if not _hotter(found) or not (again := _answered(session, problems_P, temperature=temperature)):
        return found
    return found._replace(cooler=_right(again))


def _answered(session: Session, problems_P: Sequence[Problem], *, temperature: float) -> list[Verdict]:
    """Return the graded verdicts of one completion of each problem."""
    params = replace(training_params(session.config), temperature=temperature)
    label = "preflight: greedily" if temperature == 0 else f"preflight: at temperature {temperature:g}"
    with session.producer.progress(label, len(problems_P)) as advance:
        done = session.producer.rounds.sample(
            problems_P, group_size=1, params=params, seed_parts=("preflight", label), step=0, on_progress=advance
        ).all()
    return [r.verdict for group in done.groups for r in group.rollouts if r.verdict.graded]


def _right(verdicts: Sequence[Verdict]) -> float:
    return sum(verdict.outcome is Outcome.CORRECT for verdict in verdicts) / len(verdicts)


def cooler(temperature: float) -> float:
    """Return the temperature to try instead of one that is too high: 1, or 0.7 of it (our choice)."""
    return 1.0 if temperature > 1 else max(0.1, round(0.7 * temperature, 2))


def _unused_marks(session: Session, rollouts: Sequence[Rollout]) -> tuple[str, ...]:
    """Return the turn marks among the tokenizer's special tokens, if its template uses none of them in prompts."""
    tokenizer, section = session.policy.tokenizer, session.config.prompt
    if not tokenizer.chat_template or section.chat == "never" or session.config.model.from_scratch is not None:
        return ()
    marks = sorted(str(token) for token in tokenizer.all_special_tokens if ROLE_MARKS.fullmatch(str(token)))
    problems = [rollout.problem for rollout in rollouts[:1]]
    prompts = [prompt.text for prompt in render(problems, tokenizer, section)]
    return tuple(marks) if marks and not any(mark in text for text in prompts for mark in marks) else ()


# ----------------------------------------------------------------------------------------------------- sentences


def template_sentences(causes: Causes, rows: Sequence[Row]) -> Iterator[str]:
    """Yield advice on prompts that differ from those that the model was trained on."""
    surprise = causes.surprise
    ours, (name, least) = surprise.ours, surprise.best
    if ours is not None and least < 0.7 * ours:
        yield (
            f"the worked solutions are much likelier after {name} prompts ({least:.2f} nats a token against"
            f" {ours:.2f}): the model was trained on those; set"
            f" prompt.chat={'always' if name == 'chat' else 'never'}."
        )
        return
    if _knows_its_prompts(rows):
        return  # its answers may have another form than the solutions, and other problems may be too hard
    measured = f"{least:.2f} nats a token; the model's own text {surprise.own:.2f}"
    if causes.unused_marks and (surprise.foreign or not surprise.ways):
        yield (
            f"the tokenizer has the turn marks {', '.join(causes.unused_marks[:3])}, and its chat template uses none of"
            " them: it is another model's. Use the tokenizer that belongs to the model (model.tokenizer), or set"
            " prompt.chat=never and write the marks into prompt.template."
            + (f" The worked solutions are surprising after every prompt ({measured})." if surprise.ways else "")
        )
    elif surprise.foreign and not surprise.of_form:
        yield (
            f"the worked solutions are surprising after every prompt ({measured}) and all along: the model was"
            " trained with another template, or on answers of another kind. Compare the prompts with those of its model"
            " card; set prompt.template or model.tokenizer, or begin with an sft stage on these solutions."
        )


def _knows_its_prompts(rows: Sequence[Row]) -> bool:
    """Return True if answers are not rarely right, or some problems are mostly solved: that needs the right prompts."""
    found: dict[str, list[bool]] = {}
    for row in rows:
        found.setdefault(row.problem, []).append(row.right)
    solved = sum(2 * sum(rights) >= len(rights) for rights in found.values())
    return sum(row.right for row in rows) >= RARELY * len(rows) or solved >= max(FEWEST, SOLVED * len(found))


def form_sentences(config: StageConfig, causes: Causes, rows: Sequence[Row]) -> Iterator[str]:
    """Yield advice on a temperature that is too high for the model, and on answers that are not recognised.

    Answers that are recognised in greedy completions, but not in the samples, are lost by the temperature.
    """
    greedy = causes.greedy
    hot = greedy is not None and _hotter(greedy)
    if greedy is not None and hot:
        lower = cooler(config.rollout.temperature)
        at_lower = "" if greedy.cooler is None else f", at temperature {lower:g} {percent(greedy.cooler)}"
        yield (
            f"temperature {config.rollout.temperature:g} is high for this model: greedily {percent(greedy.greedy)} of"
            f" {greedy.problems} problems are right, sampled {percent(greedy.sampled)}{at_lower}; set"
            f" rollout.temperature={lower:g}."
        )
    if not (greedy is not None and hot and greedy.unread < UNREAD):
        yield from _unread_sentences(causes, rows)
    surprise = causes.surprise
    if surprise.foreign and surprise.of_form and not hot and not _knows_its_prompts(rows):
        yield (
            f"the worked solutions have another form than the model's answers: they are surprising in one part, as at"
            f" {' and '.join(map(repr, surprise.spots))} ({surprise.best[1]:.2f} nats a token; the calmest half"
            f" {surprise.calm:.2f}, the model's own text {surprise.own:.2f}), so it knows these prompts. Say in"
            " prompt.system or prompt.template how answers must be written, set the verifier to what the model writes,"
            " or begin with an sft stage on these solutions."
        )


def _unread_sentences(causes: Causes, rows: Sequence[Row]) -> Iterator[str]:
    """Yield advice on answers that the verifier does not find."""
    unread = [row for row in rows if row.outcome == Outcome.NO_ANSWER]
    if not rows or len(unread) <= UNREAD * len(rows):
        return
    text = (
        f"in {percent(len(unread) / len(rows))} of the completions the verifier finds no answer, as in"
        f" {unread[0].completion[-60:]!r}"
    )
    found = causes.lenient
    if found is not None and found.read > 0.2 * found.tried:
        yield (
            f"{text}: read leniently {percent(found.read / found.tried)} of them have one, and"
            f" {percent(found.right / found.tried)} are right. Set {found.override}, or say in prompt.system how"
            " the answer must be written."
        )
    else:
        yield f"{text}: say in prompt.system or prompt.template how the answer must be written."


def _hotter(found: Greedy) -> bool:
    """Return True if greedy answers are right twice as often, even at the lower end of their 95 % interval."""
    interval = wilson_interval(round(found.greedy * found.problems), found.problems)
    return interval.low > max(2 * found.sampled, 0.02)
