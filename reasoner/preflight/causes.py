"""Causes of wrong answers that a few more samples can show: answer format, temperature, chat template.

Causes are reported before their symptoms: a model whose answers are not recognised needs no sft stage.
"""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from reasoner.config.stage import StageConfig
from reasoner.data.prompt import render
from reasoner.observe.explain.prompt_rules import ROLE_MARKS
from reasoner.observe.explain.significance import percent
from reasoner.records import Rollout
from reasoner.rollout.grading import grading_row
from reasoner.rollout.round import Sampled, training_params
from reasoner.session.session import Session
from reasoner.storage.history import Row
from verifiers import JSON, Outcome
from verifiers.pool import GradingRequest
from verifiers.registry import verifier_class

UNREAD = 0.3
"""Share of completions without an answer from which on the format is reported as the first thing to fix (our
choice)."""
RARELY = 0.3
"""Share of right answers below which a suspicious template is reported (our choice)."""
REGRADED, GREEDY_PROBLEMS = 128, 48
"""Number of completions graded again leniently; number of problems answered greedily."""
FOREIGN_NATS, FOREIGN_TIMES = 2.0, 5.0
"""Worked solutions with at least this many nats per token, and this many times the nats of the model's own text, are
called foreign (our choice). A model that is only weak at a task finds them about as surprising as its own text."""


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


@dataclass(frozen=True, kw_only=True)
class Causes:
    """Findings from the additional samples; None for what was not tested or not applicable."""

    lenient: Lenient | None = None
    greedy: Greedy | None = None
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
    """Answer the first problems of the rounds at temperature 0; None if nothing could be graded."""
    groups = [group for sampled in rounds for group in sampled.groups][:GREEDY_PROBLEMS]
    params = replace(training_params(session.config), temperature=0.0)
    problems_P = [group.problem for group in groups]
    label = "preflight: greedily"
    with session.producer.progress(label, len(problems_P)) as advance:
        done = session.producer.rounds.sample(
            problems_P, group_size=1, params=params, seed_parts=("preflight", "greedy"), step=0, on_progress=advance
        ).all()
    greedy = [r.verdict for group in done.groups for r in group.rollouts if r.verdict.graded]
    sampled = [r.verdict for group in groups for r in group.rollouts if r.verdict.graded]
    if not greedy or not sampled:
        return None
    shares = [sum(v.outcome is Outcome.CORRECT for v in verdicts) / len(verdicts) for verdicts in (greedy, sampled)]
    return Greedy(len(greedy), shares[0], shares[1])


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


def template_sentences(causes: Causes, template: Mapping[str, float], rows: Sequence[Row]) -> Iterator[str]:
    """Yield advice on prompts that differ from those that the model was trained on.

    Args:
        causes: the findings.
        template: nats per token of worked solutions for each way to render the prompt; the name of the config's own way
            ends with "(the config)".
        rows: the samples.
    """
    ours = next((value for name, value in template.items() if name.endswith("(the config)")), 0.0)
    name, other = min(template.items(), key=lambda pair: pair[1], default=("", 0.0))
    if other < 0.7 * ours:
        yield (
            f"the worked solutions are much likelier after {name} prompts ({other:.2f} nats a token against"
            f" {ours:.2f}): the model was trained on those; set"
            f" prompt.chat={'always' if name == 'chat' else 'never'}."
        )
        return
    tokens = sum(len(row.logprobs) for row in rows)
    own = -sum(float(row.logprobs.sum()) for row in rows) / max(1, tokens)
    foreign = tokens > 0 and other > FOREIGN_NATS and other > FOREIGN_TIMES * own
    rarely_right = sum(row.right for row in rows) < RARELY * len(rows)
    if causes.unused_marks and rarely_right and (foreign or not template):
        yield (
            f"the tokenizer has the turn marks {', '.join(causes.unused_marks[:3])}, and its chat template uses none of"
            " them: it is another model's. Use the tokenizer that belongs to the model (model.tokenizer), or set"
            " prompt.chat=never and write the marks into prompt.template."
        )
    elif foreign:
        yield (
            f"the worked solutions are surprising after every prompt ({other:.2f} nats a token; the model's own text"
            f" {own:.2f}): it was trained with another template, or on answers of another form. Compare the prompts"
            " with those of its model card; set prompt.template or model.tokenizer, or begin with an sft stage on these"
            " solutions."
        )


def form_sentences(config: StageConfig, causes: Causes, rows: Sequence[Row]) -> Iterator[str]:
    """Yield advice on answers that are not recognised, and on a temperature that is too high for the model."""
    unread = [row for row in rows if row.outcome == Outcome.NO_ANSWER]
    if rows and len(unread) > UNREAD * len(rows):
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
    greedy = causes.greedy
    if greedy is not None and _hotter(greedy):
        yield (
            f"temperature {config.rollout.temperature:g} is high for this model: greedily {percent(greedy.greedy)} of"
            f" {greedy.problems} problems are right, sampled {percent(greedy.sampled)}; set"
            f" rollout.temperature={max(0.1, round(0.7 * config.rollout.temperature, 2)):g}."
        )


def _hotter(found: Greedy) -> bool:
    """Return True if greedy answers are right far more often: by half, and by two and a half standard errors."""
    error = (found.greedy * (1 - found.greedy) / found.problems) ** 0.5
    return found.greedy > 1.5 * found.sampled and found.greedy - found.sampled > 2.5 * error > 0
