"""Trial of the user's own reward functions on made-up completions, before anything is sampled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from reasoner.config.sections import OWN
from reasoner.config.stage import StageConfig
from reasoner.records import prompt_as_text
from reasoner.rollout.grading import grading_pool
from tasks import Problem
from verifiers import JSON, GradingRow, get_verifier
from verifiers.compose import Composite
from verifiers.errors import BadReturn
from verifiers.pool import GradingRequest
from verifiers.registry import is_plugin

NO_ANSWER = "I do not know."
"""A completion that is wrong for almost every problem."""


class Trial(NamedTuple):
    """A grading row on which a user's function is tried, with the function's name and options."""

    name: str
    options: Mapping[str, JSON]
    row: GradingRow


def check_plugins(config: StageConfig, problems: Sequence[Problem]) -> list[str]:
    """Grade a correct, a wrong and an empty completion with each of the user's reward functions in a stage.

    Args:
        config: the stage; its grading limits and `watch.scorer` are used.
        problems: problems that are rewarded; each function is tried on the first problem that uses it.
    Returns:
        One sentence per function that graded none of them for some other reason than its return value. This may be
        due to an unusual problem.
    Raises:
        BadReturn: a function returns something that is not a reward; the message says what to return.
    """
    trials = list(_trials(config, problems))
    if not trials:
        return []
    with grading_pool(config) as pool:
        requests = [GradingRequest(trial.name, trial.row, dict(trial.options)) for trial in trials]
        verdicts = list(pool.grade(requests))
    reasons: dict[str, list[str | None]] = {}
    for trial, verdict in zip(trials, verdicts, strict=True):
        kind, _, said = verdict.reason.partition(": ")
        if not verdict.graded and kind == BadReturn.__name__:
            raise BadReturn(
                f"{said.partition(' at ')[0].rstrip('.')}. It was tried on the completion {trial.row.completion[:60]!r}"
                f" with the reference {str(trial.row.reference)[:60]!r}, before anything was sampled. `reasoner"
                f" verifiers check {trial.name}` tries more"
            )
        reasons.setdefault(trial.name, []).append(None if verdict.graded else verdict.reason)
    return [
        f"{name} could not grade any of {len(said)} completions tried: {said[0][:200]}"
        for name, said in reasons.items()
        if said[0] is not None and None not in said
    ]


def _trials(config: StageConfig, problems: Sequence[Problem]) -> Iterator[Trial]:
    seen: set[str] = set()
    scorer = config.watch.scorer
    watched = problems[:1] if scorer is not None and scorer.name != OWN else ()
    named = [(scorer.name, dict(scorer.options), problem) for problem in watched] if scorer is not None else []
    own = ((problem.verifier, dict(problem.verifier_options), problem) for problem in problems)
    for name, options, problem in chain(own, named):
        key = f"{name} {json.dumps(options, sort_keys=True, default=str)}"
        if key in seen:
            continue
        seen.add(key)
        completions = [problem.demonstration or _text(problem.reference), NO_ANSWER, ""]
        prompt = prompt_as_text(problem.prompt)
        for completion in dict.fromkeys(completions):
            row = GradingRow(completion=completion, reference=problem.reference, prompt=prompt, info=problem.info)
            yield from plugin_rows(name, options, row)


def plugin_rows(name: str, options: Mapping[str, JSON], row: GradingRow) -> Iterator[Trial]:
    """Yield the rows that reach user functions: the verifier itself, or its parts at any depth."""
    if is_plugin(name):
        yield Trial(name, options, row)
        return
    made = get_verifier(name, **options) if name in COMPOSED else None
    if isinstance(made, Composite):
        for part in made.parts:
            has_own = part.reference is None or (isinstance(row.reference, dict) and part.reference in row.reference)
            if has_own:
                yield from plugin_rows(part.verifier, part.options, part.row_of(row))


COMPOSED = ("weighted", "all-of", "gate", "per-row")
"""Verifiers composed of parts, which may include user functions."""


def _text(reference: JSON) -> str:
    return reference if isinstance(reference, str) else json.dumps(reference)
