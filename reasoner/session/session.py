"""The session of one stage, from before its first step until after its last: model, engine, pool, data, records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reasoner import processes
from reasoner.algorithm.batch import Batch
from reasoner.config.errors import ConfigError
from reasoner.config.methods import METHODS
from reasoner.config.stage import StageConfig
from reasoner.data.difficulty import Difficulty
from reasoner.data.sampler import summary
from reasoner.engine import Engine, NoEngine
from reasoner.engine.base import Adapter
from reasoner.engine.sync import sync
from reasoner.errors import Interrupted
from reasoner.evaluation.evaluate import Evaluation, evaluate
from reasoner.model.lora import peft_config, peft_weights, plain_weights
from reasoner.observe.display.display import Display
from reasoner.policy.checkpoint import GO_ON, copy_model, save_checkpoint, save_model
from reasoner.policy.policy import Policy
from reasoner.policy.progress import Progress, StageState
from reasoner.records import Estimate, Problem
from reasoner.rollout.producer import Producer
from reasoner.rollout.round import evaluation_params
from reasoner.session.ahead_file import write_ahead
from reasoner.session.kept_model import write_companions
from reasoner.session.teacher import ServerTeacher
from reasoner.storage.files import write_folder
from reasoner.storage.rows import rollout_row
from reasoner.storage.run_folder import RunFolder
from verifiers.pool import GradingPool


@dataclass
class Session:
    """Open parts and current state of one running stage."""

    config: StageConfig
    run: RunFolder
    policy: Policy
    engine: Engine
    pool: GradingPool
    producer: Producer
    eval_problems: list[Problem]
    display: Display
    difficulty: Difficulty
    """Solve rate of each training problem."""
    probe: list[int]
    """Token ids that engine and policy score after each sync."""
    state: StageState
    """State saved in checkpoints."""
    last: int
    """Step to end after: that of the config, or the last one that a replay has rollouts of."""
    step: int = 0
    """Number of finished steps."""
    fresh: bool = True
    """True until the first checkpoint: the initial model must still be evaluated and saved."""
    interrupted: bool = False
    in_engine: int | None = None
    """Version of the weights loaded in the engine; None before the first sync."""
    last_eval: Evaluation | None = None
    teacher: ServerTeacher | None = None
    """A teacher behind servers."""
    final_model: Path | None = None
    """Model folder to use as the final model; None: the policy as it is at the end."""

    def same_data(self, name: str, data: Sequence[object]) -> None:
        """Record a summary of the stage's data in the checkpoints; in a resumed stage, compare with the recorded one.

        Raises:
            ConfigError: the data has changed.
        """
        now = summary(data)
        then = self.state.data.setdefault(name, now)
        if then != now:
            raise ConfigError(
                "changed",
                f"{name} must be the same as at the start of the run: {then} then; {now} now. Restore the data, or"
                " start a new run from the checkpoint's model.",
            )

    def annotate(self, batch: Batch, needs: frozenset[str]) -> Batch:
        """Add the tensors that the estimator and the loss need: the policy's, and those of a teacher behind servers."""
        if self.teacher is not None and "teacher_logprobs" in needs:
            batch = self.teacher.annotate(batch)
        return self.policy.annotate(batch, needs)

    def sync(self) -> float:
        """Load the policy's weights into the engine and check that they took effect.

        Returns:
            Mean absolute log-probability difference on the probe in nats per token; NaN without an engine or a check.
        """
        if isinstance(self.engine, NoEngine):
            return float("nan")
        gap = sync(
            self.engine,
            self.policy.named_weights(),
            self.policy.version,
            probe=self.probe,
            score=self.policy.finite_scores,
            dtype=self.policy.dtype,
            check=self.config.engine.sync_check,
            adapter=self._adapter(),
        )
        self.in_engine = self.policy.version
        self.show_notes()
        return gap

    def _adapter(self) -> Adapter | None:
        """Return the policy's adapter apart from its base model, for an engine that applies it itself."""
        adapted = self.policy.adapter
        if adapted is None:
            return None
        base, ahead = partial(plain_weights, self.policy.unwrapped(), merged=False), self.producer.ahead
        keep = ahead.versions() if ahead else ()
        return Adapter(tensors=peft_weights(adapted), config=peft_config(adapted), base=base, keep=keep)

    def show_notes(self) -> None:
        """Print what the engine has to say."""
        for said in self.engine.take_notes():
            self.display.note(said)

    def evaluate(self) -> Evaluation | None:
        """Evaluate on the held-out problems, write the records, and save the model if it is the best so far.

        Returns:
            The evaluation; None if the stage has no held-out problems.
        """
        section = self.config.eval
        if not self.eval_problems:
            return None
        if self.in_engine != self.policy.version:  # stages that train without sampling sync only here
            self.sync()
        total = len(self.eval_problems) * section.samples
        with self.display.progress(f"evaluating {len(self.eval_problems)} problems", total) as advance:
            done = evaluate(
                self.eval_problems,
                rounds=self.producer.rounds,
                params=evaluation_params(self.config),
                samples=section.samples,
                step=self.step,
                on_progress=advance,
            )
        self.run.append("evals.jsonl", [{"step": self.step, **done.result.to_json()}])
        rows = [row for index, group in enumerate(done.sampled.groups) for row in rollout_row(group, index)]
        self.run.append("eval_rollouts.jsonl", rows)
        self.run.track(self.step, {f"eval/{name}": value.value for name, value in done.result.estimates.items()})
        self.display.evaluation(self.step, done.result)
        self.last_eval = done
        if not self.state.first_eval:
            self.state.first_eval = dict(done.result.estimates)
        self._remember_best(done)
        return done

    def _remember_best(self, done: Evaluation) -> None:
        if not done.result.estimates:  # nothing was graded: grading.max_ungraded_share reports that
            return
        metric = self.config.eval.deciding
        found = done.result.figure(metric)
        if found is None:
            known = ", ".join(done.result.estimates)
            raise ConfigError("bad-value", f"eval.metric must be one of {known}; got {metric!r}.")
        if self.step > 0 and (self.state.best is None or found.value > self.state.best):
            self.state.best = found.value
            companions = self._companions(self.step, done.result.estimates)
            save_model(self.run.path / "checkpoints" / "best", self.policy, companions)

    def _companions(
        self, step: int, after: Mapping[str, Estimate], *, with_example: bool = True
    ) -> Callable[[Path], None]:
        """Return a function that writes model card and prompt format into a folder with this stage's model."""
        return partial(
            write_companions,
            tokenizer=self.policy.tokenizer,
            stage=self.config,
            run=self.run.path,
            step=step,
            before=self.state.first_eval,
            after=after,
            with_example=with_example,
        )

    def checkpoint(self) -> None:
        """Write a checkpoint of this step.

        Batches with pinned adapters are finished before: it has their rollouts, and no older adapter is needed again.
        """
        ahead = self.producer.ahead
        if ahead and self.config.rollout.pins:
            ahead.settle()
        progress = Progress(
            step=self.step,
            sampler=self.producer.problems.state(),
            offsets=self.run.offsets(),
            difficulty=self.difficulty.state(),
            state=self.state,
        )
        further: list[Callable[[Path], None]] = []
        if ahead:
            drawn = ahead.state()
            further.append(lambda folder: write_ahead(folder, drawn))
        save_checkpoint(
            self.run.path / "checkpoints",
            self.policy,
            progress,
            keep=self.config.checkpoint.keep,
            further=further,
        )

    def end_step(self) -> None:
        """Evaluate and write a checkpoint if they are due; stop if the user asked to.

        Raises:
            Interrupted: the user asked to stop; a checkpoint was written before.
        """
        self.show_notes()
        config = self.config
        last = self.step == self.last
        if config.eval.every and self.step % config.eval.every == 0 and not last:
            self.evaluate()
        interrupted = any(processes.gather(self.interrupted))
        if interrupted or self.step % config.checkpoint.every == 0:
            self.checkpoint()
        if interrupted:
            raise Interrupted

    def roll_back(self, checkpoint: Path) -> None:
        """Load the policy's weights from a checkpoint and sync the engine. No training may follow."""
        self.policy.load_trained(checkpoint)
        self.sync()

    def finish(self) -> None:
        """Evaluate once more, then write the final model and mark the run as finished."""
        if METHODS[self.config.method].learns_from is None:  # the model is unchanged
            return self.run.finish({"steps": self.step, "before": {}, "after": {}})
        state = self.state
        if state.after is None:  # otherwise the stage was killed while finishing, after this checkpoint
            done = self.evaluate()
            state.after = dict(done.result.estimates if done else state.validation)
            self.checkpoint()
        final = self.run.path / "final"
        if self.final_model is None:
            save_model(final, self.policy, self._companions(self.step, state.after))
        else:
            processes.on_main(partial(self._finish_with, self.final_model, final))
        self.run.finish(
            {
                "steps": self.step,
                "before": {name: list(value) for name, value in state.first_eval.items()},
                "after": {name: list(value) for name, value in state.after.items()},
            }
        )

    def _finish_with(self, source: Path, final: Path) -> None:
        """Write the final model as a copy of another model folder of this stage."""
        step = self.state.best_model.step if self.state.best_model else self.step
        companions = self._companions(step, self.state.after or {}, with_example=False)

        def fill(folder: Path) -> None:
            copy_model(source, folder)
            companions(folder)

        write_folder(final, fill, what=f"model {final}", advice=GO_ON)
