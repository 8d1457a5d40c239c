"""What a stage opens before its first step, and closes after its last: model, engine, pool, data, records."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reasoner import processes
from reasoner.config.errors import ConfigError
from reasoner.config.methods import eval_tokens
from reasoner.config.stage import StageConfig
from reasoner.data.difficulty import Difficulty
from reasoner.data.sampler import Mixture, summary
from reasoner.engine import Engine, NoEngine
from reasoner.engine.check import Checksum, check_checksum, check_probe
from reasoner.errors import Interrupted
from reasoner.evaluation.estimates import Estimate
from reasoner.evaluation.evaluate import Evaluation, evaluate
from reasoner.observe.display.display import Display
from reasoner.policy.checkpoint import (
    Progress,
    copy_model,
    save_checkpoint,
    save_model,
)
from reasoner.policy.policy import Policy
from reasoner.records import Problem, SamplingParams
from reasoner.rollout.round import Round, sample_round
from reasoner.storage.rows import rollout_row
from reasoner.storage.run_folder import RunFolder
from verifiers import JSON
from verifiers.pool import GradingPool


@dataclass
class Session:
    """One stage at work."""

    config: StageConfig
    run: RunFolder
    policy: Policy
    engine: Engine
    pool: GradingPool
    sampler: Mixture
    eval_problems: list[Problem]
    display: Display
    step: int = 0
    """Steps done."""
    best: float | None = None
    fresh: bool = True
    """No checkpoint yet: the model as it came has still to be evaluated and saved."""
    interrupted: bool = False
    probe: list[int] = field(default_factory=list[int])
    in_engine: int | None = None
    """Version of the weights that the engine holds."""
    last_eval: Evaluation | None = None
    first_eval: dict[str, Estimate] = field(default_factory=dict[str, Estimate])
    held_out: dict[str, Estimate] = field(default_factory=dict[str, Estimate])
    """Latest held-out figures of a stage that samples nothing."""
    state: dict[str, JSON] = field(default_factory=dict[str, JSON])
    """A method's own state, kept in checkpoints."""
    difficulty: Difficulty = field(default_factory=lambda: Difficulty(decay=1.0))
    """How often each training problem is solved, as last seen."""
    final_model: Path | None = None
    """A model folder to end with instead of the policy as it stands."""

    @property
    def params(self) -> SamplingParams:
        """The sampling distribution of training."""
        rollout = self.config.rollout
        return SamplingParams(
            max_tokens=rollout.max_tokens, temperature=rollout.temperature, stop=tuple(self.config.prompt.stop)
        )

    def sample(
        self,
        problems_P: Sequence[Problem],
        *,
        seed_parts: tuple[int | str, ...],
        step: int,
        group_size: int | None = None,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> Round:
        """`sample_round` as training samples; seed_parts stand behind the config's seed, group_size None: its own."""
        return sample_round(
            problems_P,
            group_size=group_size or self.config.rollout.group_size,
            engine=self.engine,
            pool=self.pool,
            tokenizer=self.policy.tokenizer,
            prompt=self.config.prompt,
            params=self.params,
            seed_parts=(self.config.seed, *seed_parts),
            step=step,
            on_progress=on_progress,
        )

    def same_data(self, name: str, data: Sequence[object]) -> None:
        """Note in the checkpoints what data the stage learns from; on a resumed stage, hold it against what was noted.

        Raises:
            ConfigError: it is other data.
        """
        now = summary(data)
        then = self.state.setdefault(f"data/{name}", now)
        if then != now:
            raise ConfigError(
                "changed",
                f"{name} must be what they were when the run began: {then} then; {now} now. Restore the data, or begin"
                " a new run from the checkpoint's model.",
            )

    def sync(self) -> float:
        """Give the engine the policy's weights and prove that they took effect; returns the probe's gap in nats."""
        if isinstance(self.engine, NoEngine):
            return float("nan")
        sent = Checksum()
        arrived = self.engine.load_weights(sent.over(self.policy.named_weights()), self.policy.version)
        self.in_engine = self.policy.version
        if not self.config.engine.sync_check:
            return float("nan")
        check_checksum(sent.digest(), arrived)
        processes.wait()  # servers that all share are given their weights by one
        return check_probe(self.engine.score(self.probe), self.policy.score_tokens(self.probe), self.policy.dtype)

    def evaluate(self) -> Evaluation | None:
        """Evaluate on the held-out problems, write the records, remember the best."""
        section = self.config.eval
        if not self.eval_problems:
            return None
        if self.in_engine != self.policy.version:  # stages that do not sample to learn sync only here
            self.sync()
        total = len(self.eval_problems) * section.samples
        with self.display.progress(f"evaluating {len(self.eval_problems)} problems", total) as advance:
            done = evaluate(
                self.eval_problems,
                engine=self.engine,
                pool=self.pool,
                tokenizer=self.policy.tokenizer,
                prompt=self.config.prompt,
                params=SamplingParams(
                    max_tokens=eval_tokens(self.config),
                    temperature=section.temperature,
                    top_p=section.top_p,
                    stop=tuple(self.config.prompt.stop),
                ),
                samples=section.samples,
                seed=self.config.seed,
                step=self.step,
                on_progress=advance,
            )
        self.run.append("evals.jsonl", [{"step": self.step, **done.result.to_json()}])
        rows = [row for index, group in enumerate(done.sampled.groups) for row in rollout_row(group, index)]
        self.run.append("eval_rollouts.jsonl", rows)
        self.display.evaluation(self.step, done.result)
        self.last_eval = done
        if not self.first_eval:
            self.first_eval = dict(done.result.estimates)
        self._remember_best(done)
        return done

    def _remember_best(self, done: Evaluation) -> None:
        metric = self.config.eval.deciding
        found = done.result.estimates.get(metric)
        if found is None:
            known = ", ".join(done.result.estimates)
            raise ConfigError("bad-value", f"eval.metric must be one of {known}; got {metric!r}.")
        if self.step > 0 and (self.best is None or found.value > self.best):
            self.best = found.value
            save_model(self.run.path / "checkpoints" / "best", self.policy)

    def checkpoint(self) -> None:
        """Write a checkpoint of this step."""
        progress = Progress(
            step=self.step,
            sampler=self.sampler.state(),
            offsets=self.run.offsets(),
            best=self.best,
            extra={
                "first_eval": {name: list(value) for name, value in self.first_eval.items()},
                "held_out": {name: list(value) for name, value in self.held_out.items()},
                "state": self.state,
                "difficulty": self.difficulty.state(),
            },
        )
        save_checkpoint(self.run.path / "checkpoints", self.policy, progress, keep=self.config.checkpoint.keep)

    def end_step(self) -> None:
        """Evaluate and write a checkpoint where they are due; stop here where the user asked to.

        Raises:
            Interrupted: after the checkpoint.
        """
        config = self.config
        last = self.step == config.steps
        if config.eval.every and self.step % config.eval.every == 0 and not last:
            self.evaluate()
        interrupted = any(processes.gather(self.interrupted))
        if interrupted or self.step % config.checkpoint.every == 0:
            self.checkpoint()
        if interrupted:
            raise Interrupted

    def roll_back(self, checkpoint: Path) -> None:
        """Take the policy's weights from a checkpoint; nothing more is trained after it."""
        self.policy.load_trained(checkpoint)
        self.sync()

    def finish(self) -> None:
        """Evaluate once more, write the final model and the closing mark."""
        if self.config.method in ("pairs", "constitutional"):  # the model is as it was
            return self.run.finish({"steps": self.step, "before": {}, "after": {}})
        done = self.evaluate()
        self.checkpoint()
        final = self.run.path / "final"
        if self.final_model is None:
            save_model(final, self.policy)
        else:
            shutil.rmtree(final, ignore_errors=True)
            copy_model(self.final_model, final)
        estimates = {name: list(value) for name, value in (done.result.estimates if done else self.held_out).items()}
        first = {name: list(value) for name, value in self.first_eval.items()}
        summary: dict[str, JSON] = {"steps": self.step, "before": first, "after": estimates}  # pyright: ignore
        self.run.finish(summary)


class Clock:
    """Seconds of the parts of a step."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Add the time since the last lap to a part."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def metrics(self) -> dict[str, float]:
        """time/<part> and time/step, in seconds."""
        return {f"time/{name}": value for name, value in self.seconds.items()} | {
            "time/step": time.perf_counter() - self._start
        }
