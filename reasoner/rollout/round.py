"""From prompts to graded completions through the engine; grading overlaps with generation.

Letters: P problems, G group.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner import processes
from reasoner.config.sections import PromptSection
from reasoner.config.stage import StageConfig
from reasoner.data.prompt import Prompt, render
from reasoner.data.turns import Ends
from reasoner.engine.base import Engine, Finished
from reasoner.records import Completion, FinishReason, Request, Rollout, RolloutGroup, SamplingParams
from reasoner.rollout.exchange import pack, unpack
from reasoner.rollout.grading import grading_row
from reasoner.rollout.turns import Player, TurnLimits, Waited
from reasoner.seeds import request_seed
from tasks import Problem
from verifiers import Verdict
from verifiers.pool import GradingPool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Graded groups of a step, or of one portion of it, and the time they took."""

    groups: tuple[RolloutGroup, ...]
    first_group: int = 0
    """Index of the first group of this record among the groups of the step."""
    generation_seconds: float
    grading_wait_seconds: float
    """Seconds spent waiting for verdicts that were not ready: the time that grading adds to the step."""
    tokens: int
    """Sampled by the policy."""
    environment_seconds: float = 0.0
    """Spent on replies of environments, summed over the workers."""
    environment_wait_seconds: float = 0.0
    """Of the generation: waited for replies when there was nothing to sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The completions of one round of sampling, while they are being graded."""

    problems_P: Sequence[Problem]
    prompts_P: Mapping[int, Prompt]
    """Prompts of the problems assigned to this process, by index in `problems_P`."""
    group_size: int
    completions: Mapping[int, Completion]
    """Completions by request index of this process. Request indices run through its groups, one after the other."""
    verdicts: Mapping[int, Future[Verdict]]
    generation_seconds: float
    step: int
    waited: Waited = field(default_factory=Waited)

    def graded(self, portions: int = 1) -> Iterator[Sampled]:
        """Yield the groups in the order of the problems, in `portions` parts, each once it is fully graded.

        Every process receives the groups of all processes. The content of a portion depends only on the order of the
        problems.
        """
        places = list(self.prompts_P)
        most = max(processes.gather(len(places)))
        seconds, first, replied = self.generation_seconds, 0, self.waited
        for part in portion_ranges(most, portions):
            numbers = part[: max(0, len(places) - part.start)]
            started = time.perf_counter()
            for index in (index for number in numbers for index in self._indices(number)):
                self.verdicts[index].result()
            waited = time.perf_counter() - started
            own = Sampled(
                groups=tuple(self._group(places[number], number) for number in numbers),
                generation_seconds=seconds,
                grading_wait_seconds=waited,
                tokens=sum(
                    self.completions[index].policy_tokens for number in numbers for index in self._indices(number)
                ),
                environment_seconds=replied.seconds,
                environment_wait_seconds=replied.wait_seconds,
            )
            seconds, replied = 0.0, Waited()
            whole = replace(self._joined(own, [places[number] for number in numbers]), first_group=first)
            first += len(whole.groups)
            if whole.groups:
                yield whole

    def _joined(self, own: Sampled, places: Sequence[int]) -> Sampled:
        """Combine this process's part with those of the others."""
        if processes.count() == 1:
            return own
        sent = (replace(own, groups=()), pack(list(zip(places, own.groups, strict=True))))
        parts = [
            own if rank == processes.rank() else replace(part, groups=tuple(unpack(packed, self.problems_P)))
            for rank, (part, packed) in enumerate(processes.gather(sent))
        ]
        return joined(parts)

    def all(self) -> Sampled:
        """Return all groups, once all are graded."""
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
                    sample_index=sample,
                    step=self.step,
                )
            )
        return RolloutGroup(problem=problem, rollouts=tuple(rollouts))


def training_params(config: StageConfig) -> SamplingParams:
    """Return the sampling distribution of training."""
    rollout = config.rollout
    return SamplingParams(
        max_tokens=rollout.max_tokens, temperature=rollout.temperature, stop=tuple(config.prompt.stop)
    )


def evaluation_params(config: StageConfig) -> SamplingParams:
    """Return the sampling distribution of evaluations."""
    return SamplingParams(
        max_tokens=config.eval_tokens,
        temperature=config.eval.temperature,
        top_p=config.eval.top_p,
        stop=tuple(config.prompt.stop),
    )


class Pending(NamedTuple):
    """A finished completion of a round that is being sampled, and its verdict to come."""

    place: int
    """Index of its problem in the round."""
    sample: int
    prompt: Prompt
    completion: Completion
    verdict: Future[Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSampler:
    """Sampler that generates completions with an engine and submits each to the grading pool when it is finished."""

    engine: Engine
    pool: GradingPool
    tokenizer: PreTrainedTokenizerBase
    prompt: PromptSection
    seed: int
    """Seed of the run."""
    ends: Ends | None = None
    """End tokens and stop strings; None: the engine's default for the model, and the stop strings of the params."""
    limits: TurnLimits = field(default_factory=TurnLimits)
    """Limits of episodes with an environment."""

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Finished]:
        """Yield the engine's completions, which stop at the end tokens and stop strings of this sampler."""
        if self.ends is None:
            yield from self.engine.generate(requests, params)
            return
        params = replace(params, stop=self.ends.stop, end_ids=self.ends.ids)
        for index, completion in self.engine.generate(requests, params):
            yield Finished(index, self._without_end(completion))

    def _without_end(self, completion: Completion) -> Completion:
        """Remove the text of the end token. Only needed if it is not a special token, which decoding skips anyway."""
        last = completion.token_ids[-1:]
        if (
            completion.finish_reason is not FinishReason.STOP
            or self.ends is None
            or last[0] not in self.ends.ids
            or last[0] in self.tokenizer.all_special_ids
        ):
            return completion
        text = str(self.tokenizer.decode(list(completion.token_ids[:-1]), skip_special_tokens=True))
        return replace(completion, text=text)

    def sample(
        self,
        problems_P: Sequence[Problem],
        *,
        group_size: int,
        params: SamplingParams,
        seed_parts: tuple[int | str, ...],
        step: int,
        on_progress: Callable[[int], None] = lambda done: None,
        known: Mapping[tuple[int, int], Rollout] | None = None,
        watch: Callable[[Pending], None] = lambda pending: None,
        priority: int = 0,
        version: int | None = None,
    ) -> Round:
        """Sample `group_size` completions per problem and start their grading.

        With n processes, each one samples and grades every n-th problem.

        Args:
            problems_P: [P] problems; a problem may be listed twice. The first ones are graded first.
            group_size: completions per problem.
            params: sampling distribution.
            seed_parts: identify this round; each request's seed also depends on the run's seed, its problem's index in
                `problems_P` and its sample index.
            step: recorded in the rollouts.
            on_progress: called with the number of finished completions.
            known: rollouts by (index in `problems_P`, sample index) that are not sampled again.
            watch: called with each completion once it is finished.
            priority: of rounds that are sampled at the same time, the requests of the lowest go first.
            version: of the adapter that samples them; None: the newest weights.
        """
        started = time.perf_counter()
        places = list(range(len(problems_P)))[processes.rank() :: processes.count()]
        prompts = render([problems_P[place] for place in places], self.tokenizer, self.prompt)
        prompts_P = dict(zip(places, prompts, strict=True))
        pairs = [(place, sample) for place in places for sample in range(group_size)]
        completions: dict[int, Completion] = {}
        verdicts: dict[int, Future[Verdict]] = {}
        for number, pair in enumerate(pairs):
            if known and pair in known:
                completions[number], verdicts[number] = known[pair].completion, settled(known[pair].verdict)
        numbers = [number for number in range(len(pairs)) if number not in completions]
        asked = [pairs[number] for number in numbers]
        requests = [
            Request(
                prompt_ids=prompts_P[place].ids,
                seed=request_seed(self.seed, *seed_parts, place, sample),
                priority=priority,
                version=version,
            )
            for place, sample in asked
        ]
        player = Player(
            generate=self.generate,
            pool=self.pool,
            tokenizer=self.tokenizer,
            prompt=self.prompt,
            ends=self.ends,
            limits=self.limits,
            in_step=self.engine.in_step,
        )
        ranks = [place for place, _ in asked]
        played = player.play(
            [problems_P[place] for place in ranks],
            requests,
            params,
            seed_of=lambda index, *parts: request_seed(self.seed, *seed_parts, *asked[index], *parts),
            ranks=ranks,
        )
        for index, completion, fault in played:
            (place, sample), number = asked[index], numbers[index]
            problem = problems_P[place]
            completions[number] = completion
            if fault is None:
                row = grading_row(problem, completion)
                options = dict(problem.verifier_options)
                verdicts[number] = self.pool.submit(problem.verifier, options, row, rank=place)
            else:
                verdicts[number] = settled(fault)
            watch(Pending(place, sample, prompts_P[place], completion, verdicts[number]))
            on_progress(len(completions))
        return Round(
            problems_P=problems_P,
            prompts_P=prompts_P,
            group_size=group_size,
            completions=completions,
            verdicts=verdicts,
            generation_seconds=time.perf_counter() - started,
            step=step,
            waited=player.waited,
        )


def portion_ranges(count: int, portions: int) -> list[range]:
    """Divide the numbers of `count` groups into `portions` ranges, in order; a range may be empty.

    Example:
        >>> portion_ranges(5, 2)
        [range(0, 2), range(2, 5)]
    """
    return [range(portion * count // portions, (portion + 1) * count // portions) for portion in range(portions)]


def settled(verdict: Verdict) -> Future[Verdict]:
    """Return a verdict that is there already."""
    future: Future[Verdict] = Future()
    future.set_result(verdict)
    return future


def merged(parts: Sequence[Sampled]) -> Sampled:
    """Concatenate several rounds or portions into one; times and tokens are summed."""
    return Sampled(
        groups=tuple(group for part in parts for group in part.groups),
        generation_seconds=sum(part.generation_seconds for part in parts),
        grading_wait_seconds=sum(part.grading_wait_seconds for part in parts),
        tokens=sum(part.tokens for part in parts),
        environment_seconds=sum(part.environment_seconds for part in parts),
        environment_wait_seconds=sum(part.environment_wait_seconds for part in parts),
    )


def joined(parts: Sequence[Sampled]) -> Sampled:
    """Combine the processes' shares of one round, in the order of the problems. Times are those of the slowest one."""
    turns = itertools.zip_longest(*(part.groups for part in parts))
    return Sampled(
        groups=tuple(group for turn in turns for group in turn if group is not None),
        generation_seconds=max(part.generation_seconds for part in parts),
        grading_wait_seconds=max(part.grading_wait_seconds for part in parts),
        tokens=sum(part.tokens for part in parts),
        environment_seconds=sum(part.environment_seconds for part in parts),
        environment_wait_seconds=max(part.environment_wait_seconds for part in parts),
    )
