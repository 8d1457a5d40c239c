"""Difficulty of each problem for the current policy: a Beta posterior of its pass rate, with older evidence decayed.

Letters: P problems, G group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import AliasPath, BaseModel, Field, ValidationError

from reasoner.config.errors import ConfigError
from reasoner.errors import faults
from reasoner.records import Problem, Rollout
from reasoner.seeds import request_seed
from verifiers import JSON, Outcome, mark_of
from verifiers.jsonl import JsonLinesError, read_jsonl


class Counts(NamedTuple):
    """Evidence on the pass rate of one problem."""

    passes: float
    """Sum of marks (`Verdict.mark`): 1 for a right answer, a fraction for a partly right one."""
    fails: float
    step: int
    """Step at which evidence was last added."""


class _Known(BaseModel):
    step: int
    counts: dict[str, Counts]


class _Drawn(BaseModel):
    draws: int
    taken: int


class _Graded(BaseModel):
    task: str
    problem: str
    reward: float | None = Field(validation_alias=AliasPath("verdict", "reward"))
    outcome: Outcome = Field(validation_alias=AliasPath("verdict", "outcome"))
    components: dict[str, float] = Field(default={}, validation_alias=AliasPath("verdict", "components"))
    decided_by: str | None = Field(default=None, validation_alias=AliasPath("verdict", "decided_by"))


class Difficulty:
    """Posterior Beta(1 + passes, 1 + fails) of each sampled problem's pass rate; evidence decays by `decay` per step.

    Decay lets a problem that was out of reach be sampled again. A problem without evidence has Beta(1, 1).

    Example:
        >>> known = Difficulty(decay=0.5)
        >>> known.add("sums/1", passes=6.0, fails=2.0, step=1)
        >>> known.pass_rate("sums/1"), known.pass_rate("sums/2")
        (0.7, 0.5)
        >>> known.add("sums/1", passes=0.0, fails=8.0, step=3)
        >>> round(known.pass_rate("sums/1"), 3)
        0.208
    """

    def __init__(self, *, decay: float) -> None:
        """`decay`: factor on the evidence for each step of age, in (0, 1]; 0.98 halves it in 34 steps."""
        self._decay = decay
        self._counts: dict[str, Counts] = {}
        self.step = 0

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, key: str, *, passes: float, fails: float, step: int) -> None:
        """Add evidence on a problem, named by its `problem_key`."""
        self.step = max(self.step, step)
        before = self._counts.get(key, Counts(0.0, 0.0, step))
        kept = self._decay ** (step - before.step)
        self._counts[key] = Counts(before.passes * kept + passes, before.fails * kept + fails, step)

    def record(self, rollouts: Iterable[Rollout], *, step: int) -> None:
        """Add the marks of a step's rollouts; rollouts without a mark (learned scores) are ignored."""
        self.step = step
        found: dict[str, list[float]] = {}
        for rollout in rollouts:
            if (mark := rollout.verdict.mark) is not None:
                found.setdefault(problem_key(rollout.problem), []).append(mark)
        for key, marks in found.items():
            self.add(key, passes=sum(marks), fails=len(marks) - sum(marks), step=step)

    def pass_rate(self, key: str) -> float:
        """Return the mean of the posterior; 0.5 for an unknown problem."""
        passes, fails = self._present(key)
        return (1 + passes) / (2 + passes + fails)

    def signal_P(self, keys: Sequence[str], *, group_size: int) -> np.ndarray:
        """Return, [P], the chance that a group has both a pass and a fail: 1 - E[p^G] - E[(1 - p)^G].

        Under Beta(a, b), E[p^G] is the product of (a + k) / (a + b + k) over k = 0 .. G - 1. The criterion is that of
        DAPO's dynamic sampling (arXiv:2503.14476, section 3.2); applying it before sampling is our choice.
        """
        counts = np.array([self._present(key) for key in keys], dtype=np.float64).reshape(-1, 2)
        a_P, b_P = 1 + counts[:, 0], 1 + counts[:, 1]
        all_pass_P = all_fail_P = np.ones(len(counts))
        for k in range(group_size):
            all_pass_P = all_pass_P * (a_P + k) / (a_P + b_P + k)
            all_fail_P = all_fail_P * (b_P + k) / (a_P + b_P + k)
        return 1 - all_pass_P - all_fail_P

    def _present(self, key: str) -> tuple[float, float]:
        counts = self._counts.get(key)
        if counts is None:
            return 0.0, 0.0
        worth = self._decay ** max(0, self.step - counts.step)
        return counts.passes * worth, counts.fails * worth

    def state(self) -> dict[str, JSON]:
        """Return the state for `restore`."""
        return {"step": self.step, "counts": {key: list(counts) for key, counts in self._counts.items()}}

    def restore(self, state: Mapping[str, JSON]) -> None:
        """Restore a state returned by `state`."""
        known = _Known.model_validate(state)
        self.step, self._counts = known.step, known.counts

    def import_rollouts(self, path: Path) -> None:
        """Add the rollouts of an evaluation or an earlier run, from rollouts.jsonl or eval_rollouts.jsonl.

        Raises:
            ConfigError: the file does not exist or is empty, or a line is not a rollout.
        """
        number = 0
        try:
            for number, row in read_jsonl(path):  # noqa: B007  (named in the error below)
                graded = _Graded.model_validate(row)
                mark = mark_of(graded.outcome, graded.components.get(graded.decided_by or "", graded.reward))
                if mark is not None:
                    self.add(f"{graded.task}/{graded.problem}", passes=mark, fails=1 - mark, step=0)
        except JsonLinesError as error:
            raise ConfigError(
                "bad-value" if error.line else "no-file",
                f"rollout.difficulty_from: {error} Give an eval_rollouts.jsonl (`reasoner eval MODEL --task TASK"
                " --output FOLDER` writes one).",
            ) from error
        except ValidationError as error:
            raise ConfigError("bad-value", f"{path} line {number} must be a rollout; {faults(error)}.") from error
        if not number:
            raise ConfigError("bad-value", f"{path} must contain rollouts; it is empty.")


def problem_key(problem: Problem) -> str:
    """Return a problem's name, the same in every run: `task/id`."""
    return f"{problem.task}/{problem.id}"


class DifficultySampler:
    """Sampler that draws problems in proportion to their chance of a group with signal, none twice in a step.

    Problems without evidence count as Beta(1, 1). Weighted sampling without replacement by the keys u^(1/w)
    (Efraimidis and Spirakis 2006).
    """

    def __init__(self, problems: Sequence[Problem], difficulty: Difficulty, *, seed: int, group_size: int) -> None:
        if not problems:
            raise ValueError("problems must not be empty; the task yields none for this split.")
        self.problems = problems
        self._keys = [problem_key(problem) for problem in problems]
        self._difficulty, self._seed, self._group_size = difficulty, seed, group_size
        self._draws = self._taken = 0
        self._step_drawn: tuple[int, list[int]] = (-1, [])

    @property
    def epochs(self) -> float:
        """Number of problems drawn, divided by the number of problems."""
        return self._taken / len(self.problems)

    def take(self, count: int) -> list[Problem]:
        """Draw the next problems; those drawn since the last step's rewards are excluded until all have been drawn."""
        step, drawn = self._step_drawn
        drawn = drawn if step == self._difficulty.step else []
        drawn_now: list[int] = []
        while len(drawn_now) < count:
            weights_P = self._difficulty.signal_P(self._keys, group_size=self._group_size)
            if len(drawn) == len(self.problems):
                drawn = []
            uniform_P = np.random.default_rng(request_seed(self._seed, "difficulty", self._draws)).random(
                len(weights_P)
            )
            keys_P = np.log(uniform_P) / np.maximum(weights_P, 1e-9)
            keys_P[drawn] = -np.inf
            best = np.argsort(-keys_P, kind="stable")[: min(count - len(drawn_now), len(self.problems) - len(drawn))]
            drawn_now += best.tolist()
            drawn = [*drawn, *best.tolist()]
            self._draws += 1
        self._taken += count
        self._step_drawn = (self._difficulty.step, drawn)
        return [self.problems[place] for place in drawn_now]

    def state(self) -> dict[str, JSON]:
        """Return the state for `restore`; the evidence is saved separately, by `Difficulty.state`."""
        return {"draws": self._draws, "taken": self._taken}

    def restore(self, state: Mapping[str, JSON]) -> None:
        """Restore a state taken at the end of a step, over the same problems.

        Raises:
            ConfigError: the state is that of another kind of sampler.
        """
        if "draws" not in state:
            raise ConfigError(
                "changed",
                f"rollout.sampling must not change when a run resumes; its sampler's state was {dict(state)}. Set it"
                " back, or begin a new run from the checkpoint's model.",
            )
        drawn = _Drawn.model_validate(state)
        self._draws, self._taken = drawn.draws, drawn.taken
