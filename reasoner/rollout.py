"""Prompt to graded completions, through the engine; grading overlaps with generation.

Letters: P problems, G group.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner import processes
from reasoner.advantage import overlong_penalty
from reasoner.config import ConfigError, PromptSection, TaskSection
from reasoner.engine.base import Engine
from reasoner.prompt import render
from reasoner.records import Completion, Request, Rollout, RolloutGroup, SamplingParams, prompt_as_text
from reasoner.sampler import request_seed
from tasks import Message, Problem
from verifiers import JSON, GradingRow, Outcome, Verdict
from verifiers.pool import GradingPool


class UngradedError(RuntimeError):
    """More of a step could not be graded than the config allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One round of rollouts and where its time went."""

    groups: tuple[RolloutGroup, ...]
    generation_seconds: float
    grading_wait_seconds: float
    """From the last completion to the last verdict: what grading adds to the step."""
    tokens: int


def rollout_groups(
    problems_P: Sequence[Problem],
    *,
    group_size: int,
    engine: Engine,
    pool: GradingPool,
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptSection,
    params: SamplingParams,
    seed_parts: tuple[int | str, ...],
    step: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Sampled:
    """Sample group_size completions per problem and grade each as soon as it is finished.

    With several processes each samples and grades every so-many-th problem, and all get everything.

    Args:
        problems_P: [P] problems; one may stand in the list twice.
        seed_parts: with the place in the batch and the sample index, the seed of each request.
        on_progress: called with the number of finished completions.
    Returns:
        P groups in the order of the problems, rollouts in sample order, whatever finished first.
    """
    started = time.perf_counter()
    places = list(range(len(problems_P)))[processes.rank() :: processes.count()]
    prompts_P = dict(zip(places, render([problems_P[place] for place in places], tokenizer, prompt), strict=True))
    asked = [(place, sample) for place in places for sample in range(group_size)]
    requests = [
        Request(prompt_ids=prompts_P[place].ids, seed=request_seed(*seed_parts, place, sample))
        for place, sample in asked
    ]
    completions: dict[int, Completion] = {}
    verdicts: dict[int, Future[Verdict]] = {}
    for index, completion in engine.generate(requests, params):
        problem = problems_P[asked[index][0]]
        completions[index] = completion
        verdicts[index] = pool.submit(
            problem.verifier, dict(problem.verifier_options), grading_row(problem, completion)
        )
        on_progress(len(completions))
    generated = time.perf_counter()
    graded = {index: future.result() for index, future in verdicts.items()}
    waited = time.perf_counter() - generated

    def rollout(index: int) -> Rollout:
        place, sample = asked[index]
        return Rollout(
            problem=problems_P[place],
            prompt_text=prompts_P[place].text,
            prompt_ids=prompts_P[place].ids,
            completion=completions[index],
            verdict=graded[index],
            components=graded[index].components,
            sample_index=sample,
            step=step,
        )

    own = Sampled(
        groups=tuple(
            RolloutGroup(
                problem=problems_P[place],
                rollouts=tuple(rollout(number * group_size + sample) for sample in range(group_size)),
            )
            for number, place in enumerate(places)
        ),
        generation_seconds=generated - started,
        grading_wait_seconds=waited,
        tokens=sum(len(completion.token_ids) for completion in completions.values()),
    )
    return joined(processes.gather(own))


def joined(parts: Sequence[Sampled]) -> Sampled:
    """Every process's share of one round, in the order of the problems; the slowest decides the times."""
    if len(parts) == 1:
        return parts[0]
    turns = itertools.zip_longest(*(part.groups for part in parts))
    return Sampled(
        groups=tuple(group for turn in turns for group in turn if group is not None),
        generation_seconds=max(part.generation_seconds for part in parts),
        grading_wait_seconds=max(part.grading_wait_seconds for part in parts),
        tokens=sum(part.tokens for part in parts),
    )


def grading_row(problem: Problem, completion: Completion) -> GradingRow:
    """What the verifier is given."""
    return GradingRow(
        completion=completion.text,
        reference=problem.reference,
        prompt=prompt_as_text(problem.prompt),
        info=problem.info if isinstance(problem.prompt, str) else {**problem.info, "messages": turns(problem.prompt)},
    )


def turns(prompt: Sequence[Message]) -> list[JSON]:
    """A chat as JSON, for verifiers that read it with its roles (a reward model)."""
    return [{"role": turn["role"], "content": turn["content"]} for turn in prompt]


def check_graded(groups: Sequence[RolloutGroup], *, max_share: float) -> float:
    """The share of rollouts without a reward.

    Raises:
        UngradedError: it is above max_share; names the commonest causes.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    ungraded = [rollout.verdict for rollout in rollouts if not rollout.verdict.graded]
    share = len(ungraded) / len(rollouts)
    if share > max_share:
        causes: dict[str, int] = {}
        for verdict in ungraded:
            cause = f"{verdict.outcome} by {verdict.verifier}: {verdict.reason}"
            causes[cause] = causes.get(cause, 0) + 1
        common = sorted(causes.items(), key=lambda item: -item[1])[:3]
        listed = "; ".join(f"{count} x {cause}" for cause, count in common)
        gold = any(verdict.outcome is Outcome.BAD_REFERENCE for verdict in ungraded)
        fix = "Mend the references (`reasoner tasks validate`)" if gold else "Mend the verifier"
        raise UngradedError(
            f"{len(ungraded)} of {len(rollouts)} rollouts ({share:.0%}) could not be graded, above"
            f" grading.max_ungraded_share={max_share:.0%}: {listed}. They are in rollouts.jsonl. {fix}, then --resume."
        )
    return share


def shape(groups: Sequence[RolloutGroup], *, max_tokens: int, penalty_tokens: int) -> list[RolloutGroup]:
    """Add the soft overlong penalty (DAPO, arXiv:2503.14476, equation 13); 0 penalty tokens: as they are."""
    if penalty_tokens == 0:
        return list(groups)
    return [
        replace(
            group,
            rollouts=tuple(
                replace(
                    rollout,
                    shaping=overlong_penalty(
                        len(rollout.completion.token_ids), max_tokens=max_tokens, penalty_tokens=penalty_tokens
                    ),
                )
                if rollout.verdict.graded
                else rollout
                for rollout in group.rollouts
            ),
        )
        for group in groups
    ]


def listed(problems: Sequence[Problem], section: TaskSection) -> Sequence[Problem]:
    """The problems that the config's problems_file lists, in their own order; all where there is none.

    Raises:
        ConfigError: the file cannot be read, or lists no problem of this task.
    """
    if section.problems_file is None:
        return problems
    try:
        lines = Path(section.problems_file).read_text(encoding="utf-8").splitlines()
        wanted = {str(json.loads(line)["id"]) for line in lines if line.strip()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "bad-value",
            f"task.problems_file {section.problems_file} must hold JSON lines with an id: {error!r}."
            " `reasoner preflight CONFIG --write-problems FILE` writes one.",
        ) from error
    kept = [problem for problem in problems if problem.id in wanted]
    if not kept:
        raise ConfigError(
            "bad-value",
            f"task.problems_file {section.problems_file} lists {len(wanted)} problems, none of which task"
            f" {section.name} has. Write it with the same task and options.",
        )
    return kept


def with_verifiers(problems: Sequence[Problem], section: TaskSection) -> list[Problem]:
    """The problems, graded by the verifier that the config names instead of the task's own."""
    if section.verifier is None:
        return list(problems)
    name, options = section.verifier.name, section.verifier.options
    return [replace(problem, verifier=name, verifier_options=options) for problem in problems]
