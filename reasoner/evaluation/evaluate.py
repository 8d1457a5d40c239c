"""pass@k, avg@k and maj@k of a policy on problems, with intervals. Letters: P problems, K samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from reasoner.evaluation.estimates import estimate, maj_at_k, pass_at_k, sample_counts
from reasoner.records import Estimate, Problem, RolloutGroup, SamplingParams
from reasoner.rollout.round import RoundSampler, Sampled
from verifiers import JSON

POOLED = "pooled"
"""Prefix of a metric's name: over the problems of all sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """Result of one evaluation."""

    problems: int
    samples: int
    ungraded: int
    """Number of completions that could not be graded; they are left out of every metric."""
    truncated: float
    """Share of completions that reached the token limit."""
    tokens_mean: float
    estimates: Mapping[str, Estimate]
    """Metrics by name.

    avg@K: mean of `Verdict.quality`, which is the share of correct completions if verdicts are correct or wrong.
    pass@k for k in powers of two up to K, and maj@K: only if K > 1 and verdicts are correct or wrong; maj@K only if the
    correct verdicts name their answers.
    reward: mean reward, if it includes more than correctness.
    component/NAME: mean of each component of the verdicts.
    With several sets, names are pooled/NAME for all problems, and SET/NAME.
    """
    sets: Mapping[str, EvalResult] = field(default_factory=dict[str, "EvalResult"])
    """Result of each set by its task's name; empty if there is only one."""

    def figure(self, name: str) -> Estimate | None:
        """Return the estimate of that name, with several sets that over all problems; None if there is none."""
        return self.estimates.get(name) or self.estimates.get(f"{POOLED}/{name}")

    def by_set(self) -> Iterator[tuple[list[str], Mapping[str, Estimate]]]:
        """Yield ([heading], metrics by plain name): for all problems, then for each set if there are several."""
        if not self.sets:
            yield [], self.estimates
            return
        counts = {POOLED: self.problems} | {name: part.problems for name, part in self.sets.items()}
        for label, count in counts.items():
            own = {k.removeprefix(f"{label}/"): v for k, v in self.estimates.items() if k.startswith(f"{label}/")}
            yield [f"{label} ({count} problems)"], own

    def to_json(self) -> dict[str, JSON]:
        """Return the result as a row of evals.jsonl."""
        metrics: dict[str, JSON] = {name: list(estimate) for name, estimate in self.estimates.items()}
        counts: dict[str, JSON] = {name: part.counts() for name, part in self.sets.items()}
        return {**self.counts(), "metrics": metrics, **({"sets": counts} if counts else {})}

    def counts(self) -> dict[str, JSON]:
        """Return the counts that the metrics are based on."""
        return {
            "problems": self.problems,
            "samples": self.samples,
            "ungraded": self.ungraded,
            "truncated": self.truncated,
            "tokens_mean": self.tokens_mean,
        }


class Evaluation(NamedTuple):
    """Metrics of an evaluation, and the completions they are computed from."""

    result: EvalResult
    sampled: Sampled


def summarize_sets(groups: Sequence[RolloutGroup]) -> EvalResult:
    """Compute the metrics of an evaluation; with problems of several tasks, those of each task and pooled ones."""
    parts: dict[str, list[RolloutGroup]] = {}
    for group in groups:
        parts.setdefault(group.problem.task, []).append(group)
    pooled = summarize(groups)
    if len(parts) == 1:
        return pooled
    sets = {name: summarize(part) for name, part in parts.items()}
    estimates = {
        f"{name}/{metric}": estimate
        for name, result in {POOLED: pooled, **sets}.items()
        for metric, estimate in result.estimates.items()
    }
    return replace(pooled, estimates=estimates, sets=sets)


def summarize(groups: Sequence[RolloutGroup]) -> EvalResult:
    """Compute all metrics of an evaluation. A problem without graded completions is left out."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    samples = max(len(group.rollouts) for group in groups)
    votes = all(rollout.verdict.answer is not None for rollout in rollouts if rollout.verdict.right)
    counts_more = any(rollout.verdict.reward != rollout.verdict.quality for rollout in rollouts)
    per_problem: dict[str, list[float]] = {}
    for group in groups:
        graded = [rollout.verdict for rollout in group.rollouts if rollout.verdict.graded]
        if not graded:
            continue
        right = [verdict.right for verdict in graded]
        per_problem.setdefault(f"avg@{samples}", []).append(sum(v.quality or 0.0 for v in graded) / len(graded))
        if counts_more:
            per_problem.setdefault("reward", []).append(sum(v.reward or 0.0 for v in graded) / len(graded))
        for name in dict.fromkeys(name for verdict in graded for name in verdict.components):
            held = [verdict.components[name] for verdict in graded if name in verdict.components]
            per_problem.setdefault(f"component/{name}", []).append(sum(held) / len(held))
        if samples == 1 or any(verdict.mark is None for verdict in graded):
            continue
        for k in sample_counts(samples):
            if k <= len(graded):
                value = pass_at_k(samples=len(graded), correct=sum(right), k=k)
                per_problem.setdefault(f"pass@{k}", []).append(value)
        if votes:
            majority = maj_at_k([verdict.answer for verdict in graded], right)
            per_problem.setdefault(f"maj@{samples}", []).append(majority)
    lengths = [rollout.completion.policy_tokens for rollout in rollouts]
    return EvalResult(
        problems=len(groups),
        samples=samples,
        ungraded=sum(not rollout.verdict.graded for rollout in rollouts),
        truncated=sum(rollout.completion.finish_reason == "length" for rollout in rollouts) / len(rollouts),
        tokens_mean=sum(lengths) / len(lengths),
        estimates={name: estimate(values) for name, values in per_problem.items()},
    )


def evaluate(
    problems: Sequence[Problem],
    *,
    rounds: RoundSampler,
    params: SamplingParams,
    samples: int,
    step: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Sample K completions per problem, grade them, and summarize.

    Seeds depend only on the run's seed, the problem's index and the sample index, so evaluations of two models on the
    same problems are paired.
    """
    sampled = rounds.sample(
        problems, group_size=samples, params=params, seed_parts=("eval",), step=step, on_progress=on_progress
    ).all()
    return Evaluation(summarize_sets(sampled.groups), sampled)
