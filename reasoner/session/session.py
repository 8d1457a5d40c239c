"""What a stage opens before its first step, and closes after its last: model, engine, pool, data, records."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, FullyShardedDataParallelPlugin
from rich.console import Console
from safetensors import SafetensorError
from torch.distributed.fsdp import MixedPrecisionPolicy

from reasoner import processes
from reasoner.algorithm.advantage import get_estimator
from reasoner.config.sections import ConfigError, StageConfig
from reasoner.data.difficulty import Difficulty, DifficultySampler
from reasoner.data.overlap import find_overlaps, overlap_sentence
from reasoner.data.prompt import check_lengths, render
from reasoner.data.sampler import Mixture, ProblemSampler, summary
from reasoner.engine import Engine, NoEngine, open_engine
from reasoner.engine.check import Checksum, check_checksum, check_probe, probe_ids
from reasoner.evaluation.evaluate import Estimate, Evaluation, evaluate
from reasoner.model.load import ModelError
from reasoner.model.sharding import is_sharded
from reasoner.observe.display.display import Display
from reasoner.policy.checkpoint import (
    Progress,
    copy_model,
    damage_told,
    latest_checkpoint,
    load_progress,
    restore_training_state,
    save_checkpoint,
    save_model,
)
from reasoner.policy.policy import Policy
from reasoner.records import Problem, SamplingParams
from reasoner.rollout.round import Round, listed, named_apart, sample_round, with_verifiers
from reasoner.storage.run_folder import RunFolder, rollout_row
from tasks.registry import get_task
from tasks.validate import Verifiers, unusable
from verifiers import JSON
from verifiers.pool.pool import GradingPool, PoolLimits


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after a checkpoint was written."""


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


SAMPLING = ("grpo", "ppo", "pairs", "constitutional")
"""Methods that sample in every step; the others only where there are problems to evaluate on."""


def samples_to_learn(config: StageConfig) -> bool:
    """Whether training problems are sampled; otherwise nothing is, or only what is evaluated."""
    return config.method in SAMPLING or (config.method == "sft" and config.sft.until_accuracy is not None)


def eval_tokens(config: StageConfig) -> int:
    """Most tokens of a completion in an evaluation."""
    return config.eval.max_tokens or config.rollout.max_tokens


@contextmanager
def open_session(config: StageConfig, folder: Path, *, resume: bool) -> Iterator[Session]:
    """Open everything that a stage needs, at the latest checkpoint where there is one and `resume` is asked for.

    Raises:
        ConfigError, ModelError, TaskError, EngineError: before anything was sampled; nothing is lost.
    """
    with ExitStack() as stack:
        accelerator = open_accelerator(config)
        checkpoint = processes.same_everywhere(latest_checkpoint(folder / "checkpoints") if resume else None)
        progress = load_progress(checkpoint) if checkpoint else None
        display = stack.enter_context(_display(config))
        _check_portions(config)
        pool = stack.enter_context(grading_pool(config))
        train, held_out = load_problems(config)
        _check_overlap(config, train, held_out, display)
        with damage_told(checkpoint, (ModelError, SafetensorError)) if checkpoint else nullcontext():
            policy = policy_class(config)(config, accelerator=accelerator, checkpoint=checkpoint)
        if policy.adapter is not None and config.method in SAMPLING and not is_sharded(policy.scorer):
            from reasoner.graders.reward_model import lend_base

            lend_base(policy.adapter, policy.unwrapped(), policy.device)
        for problems, setting, max_tokens in (
            (train if samples_to_learn(config) else [], "rollout.max_tokens", config.rollout.max_tokens),
            (held_out, "eval.max_tokens" if config.eval.max_tokens else "rollout.max_tokens", eval_tokens(config)),
        ):
            flat = [problem for part in problems for problem in part]
            prompts = render(flat, policy.tokenizer, config.prompt)
            check_lengths(flat, prompts, max_tokens=max_tokens, limit=policy.context, setting=setting)
        run = RunFolder(folder, config, writes=processes.is_main())
        stack.callback(run.close)
        engine = _open_engine(config, policy, folder, checkpoint)
        stack.callback(engine.close)
        difficulty = Difficulty(decay=config.rollout.difficulty_decay)
        session = Session(
            config=config,
            run=run,
            policy=policy,
            engine=engine,
            pool=pool,
            sampler=_sampler(config, train, difficulty),
            difficulty=difficulty,
            eval_problems=_spread(held_out, config.eval.problems),
            display=display,
            probe=probe_ids(policy.vocabulary, forbidden=policy.special_ids, limit=policy.context - 1),
        )
        extra = cast("dict[str, dict[str, Any]]", (progress.extra if progress else None) or {})
        session.state = dict(extra.get("state", {}))
        session.same_data("training problems", list(itertools.chain.from_iterable(session.sampler.parts)))
        if checkpoint and progress:
            restore_training_state(policy, checkpoint)
            session.sampler.restore(progress.sampler)
            session.step, session.best, session.fresh = progress.step, progress.best, False
            session.first_eval, session.held_out = (
                {name: Estimate(*value) for name, value in extra.get(key, {}).items()}
                for key in ("first_eval", "held_out")
            )
            difficulty.restore(extra.get("difficulty", difficulty.state()))
            display.note(f"resuming {folder} after step {progress.step}")
        elif config.rollout.difficulty_from:
            difficulty.import_rollouts(Path(config.rollout.difficulty_from))
        run.begin(offsets=progress.offsets if progress else {}, step=session.step)
        session.sync()
        stack.enter_context(_stop_at_step_end(session))
        yield session


def _sampler(config: StageConfig, train: Sequence[Sequence[Problem]], difficulty: Difficulty) -> Mixture:
    """The training problems of each task in the config's proportions."""
    rollout = config.rollout
    if rollout.sampling == "difficulty":
        sources = [
            DifficultySampler(part, difficulty, seed=config.seed, group_size=rollout.group_size) for part in train
        ]
    else:
        sources = [ProblemSampler(part, seed=config.seed) for part in train]
    return Mixture(sources, [section.weight for section in config.task])


def _check_portions(config: StageConfig) -> None:
    """Raise where advantages want every row of a step, and the config would begin on some of them."""
    if config.grading.portions > 1 and not get_estimator(config.algorithm.advantage).by_group:
        raise ConfigError(
            "bad-value",
            f"grading.portions must be 1 with algorithm.advantage={config.algorithm.advantage}, which compares the rows"
            f" of a whole step; got {config.grading.portions}.",
        )


def policy_class(config: StageConfig) -> type[Policy]:
    """The policy of a method: with a reward head, with a value model, or neither."""
    if config.method == "reward_model":
        from reasoner.stages.reward_model import RewardPolicy

        return RewardPolicy
    if config.method == "dpo":
        from reasoner.stages.dpo import PairPolicy

        return PairPolicy
    if "values" in get_estimator(config.algorithm.advantage).needs:
        from reasoner.policy.value import ActorCritic

        return ActorCritic
    return Policy


def load_problems(config: StageConfig) -> tuple[list[list[Problem]], list[list[Problem]]]:
    """Training and evaluation problems of each task of the config, their golds checked.

    Raises:
        TaskError: the data cannot be read. ConfigError: a gold that can never be matched, an empty prompt.
    """
    train: list[list[Problem]] = []
    held_out: list[list[Problem]] = []
    for place, section in enumerate(config.task):
        task = get_task(section.name, **section.options)
        own = named_apart(listed(task.problems(section.train_split), section), config, place)
        own = with_verifiers(own, section)[: section.limit]
        problems = with_verifiers(own, section.model_copy(update={"verifier": config.reward or section.verifier}))
        check_problems(problems, where=f"{section.name} {section.train_split}")
        train.append(problems)
        if config.evaluates:
            held = named_apart(task.problems(section.eval_split), config, place)
            held = with_verifiers(held, section)[: config.eval.problems]
            check_problems(held, where=f"{section.name} {section.eval_split}")
            held_out.append(held)
    return train, held_out


def _check_overlap(
    config: StageConfig, train: list[list[Problem]], held_out: list[list[Problem]], display: Display
) -> None:
    """Say where evaluation problems stand in the training data.

    Raises:
        ConfigError: they do, and eval.overlap is "error".
    """
    learned, tested = ([problem for part in parts for problem in part] for parts in (train, held_out))
    if config.eval.overlap == "off" or not learned or not tested:
        return
    overlaps = find_overlaps(learned, tested)
    if not overlaps:
        return
    sentence = overlap_sentence(overlaps, held_out=len(tested), train=len(learned))
    if config.eval.overlap == "error":
        raise ConfigError("bad-value", f"{sentence} Or set eval.overlap to warn.")
    display.note(sentence)


def check_problems(problems: Sequence[Problem], *, where: str) -> None:
    """Raise for problems that no run can use: an empty prompt, an id that stands twice, a gold that nothing matches.

    Raises:
        ConfigError: names the first of them and what to do.
    """
    if not problems:
        raise ConfigError("bad-value", f"{where}: there must be at least one problem; there is none.")
    bad = list(unusable(problems, Verifiers()).values())
    if bad:
        raise ConfigError(
            "bad-value",
            f"{where}: {len(bad)} of {len(problems)} problems cannot be used: {'; '.join(bad[:3])}."
            " Mend or remove them (`reasoner tasks validate` lists them all).",
        )


def _spread(parts: list[list[Problem]], count: int) -> list[Problem]:
    """The first problems of each part, in turn, up to count."""
    turns = [problem for turn in range(count) for part in parts for problem in part[turn : turn + 1]]
    return turns[:count]


def grading_pool(config: StageConfig) -> GradingPool:
    """The pool of the config's grading section."""
    grading = config.grading
    return GradingPool(
        workers=grading.workers,
        limits=PoolLimits(wall_seconds=grading.wall_seconds, memory_bytes=grading.memory_megabytes << 20),
    )


def open_accelerator(config: StageConfig) -> Accelerator:
    """One process or several, as `accelerate launch` or torchrun set them up.

    Raises:
        ConfigError: what the config asks for does not go with them.
    """
    wanted = _mixed_precision(config)
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != wanted:  # pyright: ignore[reportPrivateUsage]
        AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage]  # a stage before had another dtype
    accelerator = Accelerator(
        mixed_precision=wanted,
        kwargs_handlers=[
            DistributedDataParallelKwargs(
                broadcast_buffers=False,  # ours never change
                find_unused_parameters=policy_class(config).passes_leave_out,
            )
        ],
    )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > processes.count():
        raise ConfigError(
            "bad-value",
            f"the {launched} processes that were launched must be joined by accelerate; it left each alone. Where there"
            " is no GPU, set ACCELERATE_USE_CPU=true in the environment.",
        )
    plugin = accelerator.state.fsdp_plugin if accelerator.distributed_type == DistributedType.FSDP else None
    if plugin is not None:
        check_sharding(plugin, config)
        if wanted == "bf16":  # accelerate's own policy would round log-probabilities and gradients to bfloat16
            plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    if processes.count() > 1 and config.engine.name == "vllm" and _samples(config):
        raise ConfigError(
            "bad-value",
            "engine.name=vllm samples in the trainer's own single process; with several use engine.name=vllm-server,"
            " on devices of its own.",
        )
    return accelerator


def check_sharding(plugin: FullyShardedDataParallelPlugin, config: StageConfig) -> None:
    """Raise where accelerate's set-up of sharding does not go with the trainer or the config.

    Raises:
        ConfigError: says what to set instead.
    """
    if plugin.fsdp_version != 2:
        raise ConfigError(
            "bad-value",
            f"fsdp_version of accelerate's config file must be 2; got {plugin.fsdp_version}. Start from"
            " configs/accelerate/fsdp2.yaml.",
        )
    if plugin.cpu_ram_efficient_loading:
        raise ConfigError(
            "bad-value",
            "fsdp_cpu_ram_efficient_loading of accelerate's config file must be false; got true, which leaves reference"
            " and reward models empty in all processes but the first. Start from configs/accelerate/fsdp2.yaml.",
        )
    if config.model.quantization is not None:
        raise ConfigError(
            "bad-value",
            f"model.quantization does not go with sharding; got {config.model.quantization}. Leave it out, or use"
            " configs/accelerate/ddp.yaml, where the base fits.",
        )


def _display(config: StageConfig) -> Display:
    """What a person sees comes from the main process."""
    return Display(config, None if processes.is_main() else Console(file=io.StringIO(), quiet=True))


def _mixed_precision(config: StageConfig) -> str:
    wanted = config.model.dtype
    if wanted == "auto":
        return "bf16" if torch.cuda.is_available() else "no"
    return "bf16" if wanted == "bfloat16" else "no"


def _samples(config: StageConfig) -> bool:
    """Whether a stage needs an engine, if only to evaluate."""
    return samples_to_learn(config) or config.evaluates


def _open_engine(config: StageConfig, policy: Policy, folder: Path, checkpoint: Path | None) -> Engine:
    """Start the engine on a folder that holds this architecture and tokenizer; weights follow by sync."""
    if not _samples(config):
        return NoEngine()
    path = config.model.path
    if config.model.from_scratch is not None or path is None:
        start = folder / "start"
        if not processes.same_everywhere(start if (start / "config.json").is_file() else None):
            save_model(start, policy)
        path = str(start)
    name = config.engine.dtype
    dtype = str(policy.dtype).removeprefix("torch.") if name == "auto" else name
    shared = policy.unwrapped() if config.engine.name == "hf" and not is_sharded(policy.scorer) else None

    def opened(**further: object) -> Engine:
        return open_engine(
            config.engine.name,
            model_path=path,
            dtype=dtype,
            max_model_len=policy.context,
            seed=config.seed,
            model=shared,
            **(config.engine.options | further),
        )

    if config.engine.name != "vllm-server" or processes.count() == 1:
        return opened()
    # the main process starts the servers and gives them their weights; every process samples from them
    engine = opened() if processes.is_main() else None
    urls = processes.gather([server.url for server in getattr(engine, "servers", [])])[0]
    return engine or opened(urls=urls, loads=False)


@contextmanager
def _stop_at_step_end(session: Session) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: finish the step, write a checkpoint. Second: stop at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        if session.interrupted:
            raise KeyboardInterrupt
        session.interrupted = True
        session.display.note("stopping after this step, with a checkpoint (again: at once)")

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever embeds us keeps the signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
