"""Prompt to graded completions, through the engine; grading overlaps with generation.

Letters: P problems, G group.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner import processes
from reasoner.algorithm.advantage import overlong_penalty
from reasoner.config.sections import ConfigError, PromptSection, StageConfig, TaskSection
from reasoner.data.prompt import Prompt, render
from reasoner.data.sampler import request_seed
from reasoner.engine.base import Engine
from reasoner.records import Completion, Request, Rollout, RolloutGroup, SamplingParams, prompt_as_text
from tasks import Message, Problem
from verifiers import JSON, GradingRow, Outcome, Verdict
from verifiers.pool.pool import GradingPool


class UngradedError(RuntimeError):
    """More of a step could not be graded than the config allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One round of rollouts and where its time went."""

    groups: tuple[RolloutGroup, ...]
    generation_seconds: float
    grading_wait_seconds: float
    """For verdicts that were not there when they were needed: what grading adds to the step."""
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The completions of one round of sampling, while they are being graded."""

    problems_P: Sequence[Problem]
    prompts_P: Mapping[int, Prompt]
    """Of this process's own places."""
    group_size: int
    completions: Mapping[int, Completion]
    """By place in the order of this process's requests: its groups one after the other."""
    verdicts: Mapping[int, Future[Verdict]]
    generation_seconds: float
    step: int

    def graded(self, portions: int = 1) -> Iterator[Sampled]:
        """The groups in the order of the problems, in so many portions, each as soon as all of it is graded.

        With several processes each brings its own groups, and all get everything. What stands in a portion depends on
        the order of the problems alone.
        """
        places = list(self.prompts_P)
        most = max(processes.gather(len(places)))
        seconds = self.generation_seconds
        for portion in range(portions):
            numbers = range(portion * most // portions, min(len(places), (portion + 1) * most // portions))
            started = time.perf_counter()
            for index in (index for number in numbers for index in self._indices(number)):
                self.verdicts[index].result()
            waited = time.perf_counter() - started
            own = Sampled(
                groups=tuple(self._group(places[number], number) for number in numbers),
                generation_seconds=seconds,
                grading_wait_seconds=waited,
                tokens=sum(
                    len(self.completions[index].token_ids) for number in numbers for index in self._indices(number)
                ),
            )
            seconds = 0.0
            whole = joined(processes.gather(own))
            if whole.groups:
                yield whole

    def all(self) -> Sampled:
        """Everything, once all of it is graded."""
        return merged(list(self.graded()))

    def _indices(self, number: int) -> range:
        return range(number * self.group_size, (number + 1) * self.group_size)

    def _group(self, place: int, number: int) -> RolloutGroup:
        problem, prompt = self.problems_P[place], self.prompts_P[place]
        rollouts: list[Rollout] = []
        for sample, index in enumerate(self._indices(number)):
            verdict = self.verdicts[index].result()
            rollouts.append(
                Rollout(
                    problem=problem,
                    prompt_text=prompt.text,
                    prompt_ids=prompt.ids,
                    completion=self.completions[index],
                    verdict=verdict,
                    components=verdict.components,
                    sample_index=sample,
                    step=self.step,
                )
            )
        return RolloutGroup(problem=problem, rollouts=tuple(rollouts))


def sample_round(
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
) -> Round:
    """Sample group_size completions per problem; each goes to its grader as soon as it is finished.

    With several processes each samples and grades every so-many-th problem.

    Args:
        problems_P: [P] problems; one may stand in the list twice. The first ones are graded first.
        seed_parts: with the place in the batch and the sample index, the seed of each request.
        on_progress: called with the number of finished completions.
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
        place, _ = asked[index]
        problem = problems_P[place]
        completions[index] = completion
        row = grading_row(problem, completion)
        verdicts[index] = pool.submit(problem.verifier, dict(problem.verifier_options), row, rank=place)
        on_progress(len(completions))
    return Round(
        problems_P=problems_P,
        prompts_P=prompts_P,
        group_size=group_size,
        completions=completions,
        verdicts=verdicts,
        generation_seconds=time.perf_counter() - started,
        step=step,
    )


def merged(parts: Sequence[Sampled]) -> Sampled:
    """Several rounds or portions as one."""
    return Sampled(
        groups=tuple(group for part in parts for group in part.groups),
        generation_seconds=sum(part.generation_seconds for part in parts),
        grading_wait_seconds=sum(part.grading_wait_seconds for part in parts),
        tokens=sum(part.tokens for part in parts),
    )


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


def named_apart(problems: Sequence[Problem], config: StageConfig, place: int) -> Sequence[Problem]:
    """The problems of the config's task at `place`, whose task is numbered where earlier ones have that name too.

    So that task and id name one problem in a mixture of several files: `dataset`, `dataset-2`.
    """
    same = sum(other.name == config.task[place].name for other in config.task[:place])
    return [replace(problem, task=f"{problem.task}-{same + 1}") for problem in problems] if same else problems


def with_verifiers(problems: Sequence[Problem], section: TaskSection) -> list[Problem]:
    """The problems, graded by the verifier that the config names instead of the task's own."""
    if section.verifier is None:
        return list(problems)
    name, options = section.verifier.name, section.verifier.options
    return [replace(problem, verifier=name, verifier_options=options) for problem in problems]
