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
"""Before a metric's name: over the problems of all sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """One evaluation."""

    problems: int
    samples: int
    ungraded: int
    """Completions that could not be graded: left out of every figure."""
    truncated: float
    """Share of completions that hit the token limit."""
    tokens_mean: float
    estimates: Mapping[str, Estimate]
    """avg@K: mean of `Verdict.quality`, so the share right where verdicts are right or wrong. pass@k for k in powers of
    two up to K and maj@K (K > 1, verdicts that are right or wrong; maj@K if the right ones name their answers). reward:
    the mean reward, where it counts more than right and wrong. The mean of each component of the verdicts. Of several
    sets: pooled/NAME of all, and SET/NAME."""
    sets: Mapping[str, EvalResult] = field(default_factory=dict[str, "EvalResult"])
    """Each set by its task's name; empty where there is one."""

    def figure(self, name: str) -> Estimate | None:
        """The estimate of a name; that over all problems where the name is of no set. None: there is none."""
        return self.estimates.get(name) or self.estimates.get(f"{POOLED}/{name}")

    def by_set(self) -> Iterator[tuple[list[str], Mapping[str, Estimate]]]:
        """([words that name it], its figures by their plain names): of all problems, then of each of several sets."""
        if not self.sets:
            yield [], self.estimates
            return
        counts = {POOLED: self.problems} | {name: part.problems for name, part in self.sets.items()}
        for label, count in counts.items():
            own = {k.removeprefix(f"{label}/"): v for k, v in self.estimates.items() if k.startswith(f"{label}/")}
            yield [f"{label} ({count} problems)"], own

    def to_json(self) -> dict[str, JSON]:
        """As one line of evals.jsonl."""
        metrics: dict[str, JSON] = {name: list(estimate) for name, estimate in self.estimates.items()}
        counts: dict[str, JSON] = {name: part.counts() for name, part in self.sets.items()}
        return {**self.counts(), "metrics": metrics, **({"sets": counts} if counts else {})}

    def counts(self) -> dict[str, JSON]:
        """What the figures are of."""
        return {
            "problems": self.problems,
            "samples": self.samples,
            "ungraded": self.ungraded,
            "truncated": self.truncated,
            "tokens_mean": self.tokens_mean,
        }


class Evaluation(NamedTuple):
    """Figures and the completions behind them."""

    result: EvalResult
    sampled: Sampled


def summarize_sets(groups: Sequence[RolloutGroup]) -> EvalResult:
    """The figures of an evaluation; those of each task and the pooled ones where the problems are of several."""
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
    """Every figure of an evaluation; a problem none of whose completions could be graded is left out."""
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

    The seeds depend on the run's seed, the problem's place and the sample alone: evaluations of two models
    on the same problems are paired.
    """
    sampled = rounds.sample(
        problems, group_size=samples, params=params, seed_parts=("eval",), step=step, on_progress=on_progress
    ).all()
    return Evaluation(summarize_sets(sampled.groups), sampled)
