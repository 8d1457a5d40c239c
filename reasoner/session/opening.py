"""Opening of a stage: model, engine, grading pool, data and records."""

from __future__ import annotations

import io
import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

from accelerate import Accelerator
from safetensors import SafetensorError

from reasoner import processes
from reasoner.algorithm.advantage import get_estimator
from reasoner.config.errors import ConfigError
from reasoner.config.load import load_config
from reasoner.config.methods import METHODS
from reasoner.config.stage import StageConfig
from reasoner.data.difficulty import Difficulty, DifficultySampler
from reasoner.data.overlap import find_overlaps, overlap_sentence
from reasoner.data.problems import Loaded, gold_notes, load_problems, spread, with_room
from reasoner.data.sampler import Mixture, ProblemSampler
from reasoner.data.turns import Ends, ends_of
from reasoner.engine import Engine, NoEngine, open_engine
from reasoner.engine.check import probe_ids
from reasoner.model.paths import ModelError
from reasoner.model.random_state import seed_everything
from reasoner.model.sharding import is_sharded
from reasoner.model.shared_base import SharedBase
from reasoner.monitoring.trackers import open_trackers
from reasoner.observe.display.display import Display
from reasoner.policy.checkpoint import as_checkpoint_error, load_progress, prune, restore_training_state, save_model
from reasoner.policy.kinds import policy_class
from reasoner.policy.optimizer import rate_of_step
from reasoner.policy.policy import Policy
from reasoner.policy.progress import Progress, StageState
from reasoner.records import Problem
from reasoner.rollout.ahead import Drawn
from reasoner.rollout.grading import grading_pool
from reasoner.rollout.plugin_check import check_plugins
from reasoner.rollout.producer import Producer, Recorded, window
from reasoner.rollout.round import RoundSampler
from reasoner.rollout.turns import TurnLimits, check_environments
from reasoner.session.accelerator import open_accelerator
from reasoner.session.ahead_file import read_ahead
from reasoner.session.environment import environment, resume_exactness
from reasoner.session.session import Session
from reasoner.session.teacher import ServerTeacher
from reasoner.storage.cluster_file import PlacedParts
from reasoner.storage.files import tidy
from reasoner.storage.find_model import foreign_folders, latest_checkpoint
from reasoner.storage.run_folder import RunFolder
from tasks.inputs.spool import Joined
from verifiers.terminal.console import plain_console


@contextmanager
def open_session(
    config: StageConfig, folder: Path, *, resume: bool, recorded: Recorded | None = None
) -> Iterator[Session]:
    """Open everything that a stage needs; close it when the block ends.

    Args:
        config: the stage.
        folder: its run folder.
        resume: continue from the newest checkpoint, if there is one.
        recorded: rollouts of another run to learn from; then no engine is started and nothing is evaluated.

    Raises:
        ConfigError, ModelError, TaskError, EngineError: raised before anything is sampled; nothing is lost.
    """
    with ExitStack() as stack:
        accelerator = open_accelerator(config)
        seed_everything(config.seed)
        display = stack.enter_context(_display(config))
        checkpoint = _newest_checkpoint(config, folder, display) if resume else None
        progress = load_progress(checkpoint) if checkpoint else None
        _check_portions(config)
        loaded = load_problems(config, folder=folder if processes.is_main() else None)
        train, tested, _ = loaded
        for said in loaded.notes if checkpoint is None else ():
            display.note(said)
        if notes := gold_notes(Joined(train)):
            display.note(notes)
        _check_overlap(config, train, tested, display)
        _check_plugins(config, train, tested, display)
        with display.busy("loading the model"):
            policy = _load_policy(config, accelerator, checkpoint)
        teacher = _server_teacher(config, policy)
        if teacher is not None:
            stack.callback(teacher.close)
        for said in check_environments([*train, *tested], config, policy.tokenizer):
            display.note(said)
        pool = stack.enter_context(grading_pool(config, context=_shared_base(config, policy)))
        ends = _end_tokens(config, policy, display, resumed=checkpoint is not None)
        train, tested, _ = _with_room(config, policy, loaded, folder, display)
        run = RunFolder(folder, config, writes=processes.is_main())
        stack.callback(run.close)
        with display.busy(f"starting the engine ({config.engine.name})"):
            engine = NoEngine() if recorded else _open_engine(config, policy, folder, checkpoint)
        stack.callback(engine.close)
        difficulty = Difficulty(decay=config.rollout.difficulty_decay)
        problems = _sampler(config, train, difficulty)
        rounds = RoundSampler(
            engine=engine,
            pool=pool,
            tokenizer=policy.tokenizer,
            prompt=config.prompt,
            seed=config.seed,
            ends=ends,
            limits=TurnLimits.of(config.rollout),
        )
        producer = Producer(
            config=config, rounds=rounds, problems=problems, progress=display.progress, recorded=recorded
        )
        if config.rollout.ahead and not recorded:
            ahead = window(producer)
            stack.callback(ahead.close)
            producer = replace(producer, ahead=ahead)
        session = Session(
            config=config,
            run=run,
            policy=policy,
            engine=engine,
            pool=pool,
            producer=producer,
            eval_problems=[] if recorded else spread(tested, config.eval.problems),
            last=min(config.steps, recorded.last) if recorded else config.steps,
            display=display,
            difficulty=difficulty,
            probe=probe_ids(policy.vocabulary, forbidden=policy.special_ids, limit=policy.context - 1),
            state=progress.state if progress else StageState(),
            teacher=teacher,
        )
        session.same_data("training problems", Joined(problems.parts))
        drawn: list[Drawn] = []
        if checkpoint and progress:
            drawn = _resume(session, checkpoint, progress)
        elif config.rollout.difficulty_from:
            difficulty.import_rollouts(Path(config.rollout.difficulty_from))
        run.begin(
            offsets=progress.offsets if progress else {},
            environment={**environment(), "resume": resume_exactness(config)},
        )
        if processes.is_main():
            purge_step = progress.step + 1 if progress else None
            run.trackers = open_trackers(config, folder, purge_step=purge_step, note=display.note)
        session.sync()
        if producer.ahead:
            producer.ahead.restore(drawn)  # they may sample from here on, with the weights of the checkpoint
        stack.enter_context(_stop_at_step_end(session))
        yield session


def _newest_checkpoint(config: StageConfig, folder: Path, display: Display) -> Path | None:
    """Clean up what a killed process left in the folder, and return its newest checkpoint (None if there is none)."""

    def clear() -> None:
        for root in (folder, folder / "checkpoints"):
            tidy(root)
        prune(folder / "checkpoints", keep=config.checkpoint.keep)
        foreign = foreign_folders(folder / "checkpoints")
        if foreign:
            display.note(
                f"{', '.join(foreign)} in {folder / 'checkpoints'}: not a checkpoint of this run, left as it is"
            )

    processes.on_main(clear)
    return processes.same_everywhere(latest_checkpoint(folder / "checkpoints"))


def _load_policy(config: StageConfig, accelerator: Accelerator, checkpoint: Path | None) -> Policy:
    """Load the policy, with the checkpoint's weights if there is a checkpoint."""
    with as_checkpoint_error(checkpoint, (ModelError, SafetensorError)) if checkpoint else nullcontext():
        return policy_class(config)(config, accelerator=accelerator, checkpoint=checkpoint)


def _server_teacher(config: StageConfig, policy: Policy) -> ServerTeacher | None:
    """Connect to a teacher behind servers, if there is one; the policy's context becomes no longer than the teacher's.

    Raises:
        ConfigError: its tokenizer is another one.
        EngineError: a server does not answer.
    """
    section = config.teacher
    if not section.urls or "teacher" not in METHODS[config.method].sections:
        return None
    teacher = ServerTeacher(section, tokenizer=policy.tokenizer)
    policy.context = min(policy.context, teacher.context)
    return teacher


def _end_tokens(config: StageConfig, policy: Policy, display: Display, *, resumed: bool) -> Ends:
    """Find what ends a completion, and write the same end tokens into the policy's generation config.

    Raises:
        ConfigError: prompt.end_tokens or prompt.stop cannot be used.
    """
    ends = ends_of(policy.tokenizer, config.prompt, policy.eos_ids)
    policy.end_with(ends.ids)
    if ends.told and not resumed:
        display.note(ends.told)
    return ends


def _shared_base(config: StageConfig, policy: Policy) -> SharedBase | None:
    """Return the policy's base for graders that are adapters on it; None if there is no adapter or it is sharded."""
    if policy.adapter is None or not METHODS[config.method].samples or is_sharded(policy.scorer):
        return None
    return SharedBase.of(policy.adapter, policy.unwrapped(), policy.device)


def _with_room(config: StageConfig, policy: Policy, loaded: Loaded, folder: Path, display: Display) -> Loaded:
    """Keep the problems whose prompt and longest completion fit into the policy's context."""
    train, tested, room = loaded.train, loaded.tested, partial(with_room, config=config, tokenizer=policy.tokenizer)
    named = folder if processes.is_main() else None
    notes: list[str] = []
    if config.samples_to_learn:
        train, notes = room(train, limit=policy.context, folder=named)
    if tested:
        setting = "eval.max_tokens" if config.eval.max_tokens else "rollout.max_tokens"
        tested, further = room(tested, limit=policy.context, setting=setting, tests=True, folder=named)
        notes = [*notes, *further]
    for said in notes:
        display.note(said)
    return Loaded(train, tested, notes)


def _resume(session: Session, checkpoint: Path, progress: Progress) -> list[Drawn]:
    """Continue at a checkpoint. The weights and the stage's state are already loaded.

    Returns:
        The batches that were drawn ahead, with their finished rollouts.
    """
    drawn: list[Drawn] = []
    restore_training_state(session.policy, checkpoint)
    _report_resume(session, progress)
    if session.config.steps > progress.step and not progress.state.ended_early:
        progress.state.after = None  # the stage was finished; with more steps it continues
    session.producer.problems.restore(progress.sampler)
    if session.producer.ahead:
        with as_checkpoint_error(checkpoint):
            drawn = read_ahead(checkpoint)
    session.step, session.fresh = progress.step, False
    if progress.difficulty is not None:
        session.difficulty.restore(progress.difficulty)
    return drawn


def _report_resume(session: Session, progress: Progress) -> None:
    """Report the step from which the run resumes, and any change of the learning rate against its earlier schedule."""
    config, run, done = session.config, session.run, progress.step
    session.display.note(f"resuming {run.path} after step {done}")
    if METHODS[config.method].learns_from is None:
        return
    if done >= config.steps and progress.state.after is None:
        session.display.note(f"all {config.steps} steps are done: only the end of the run is missing and is done now")
    written = run.path / "config.yaml"
    if not 0 < done < config.steps or not written.is_file():
        return
    before = load_config(str(written)).stages[0]
    planned, now = (rate_of_step(each, done + 1) for each in (before, config))
    if not math.isclose(planned, now, rel_tol=0.01):
        session.display.note(
            f"the learning rate jumps: from {rate_of_step(before, done):.3g} at step {done} of the earlier schedule (to"
            f" step {before.steps}) to {now:.3g} at step {done + 1} of the new one (from step 1 to step {config.steps})"
        )


def _sampler(config: StageConfig, train: Sequence[Sequence[Problem]], difficulty: Difficulty) -> Mixture:
    """Build the sampler that mixes the training problems of the tasks in the config's proportions."""
    rollout = config.rollout
    if rollout.sampling == "difficulty":
        sources = [
            DifficultySampler(part, difficulty, seed=config.seed, group_size=rollout.group_size) for part in train
        ]
    else:
        sources = [ProblemSampler(part, seed=config.seed, shuffle=rollout.shuffle) for part in train]
    return Mixture(sources, [section.weight for section in config.task])


def _check_portions(config: StageConfig) -> None:
    """Raise ConfigError if the advantages need all rows of a step but the config splits the step into portions."""
    if config.grading.portions > 1 and not get_estimator(config.algorithm.advantage).by_group:
        raise ConfigError(
            "bad-value",
            f"grading.portions must be 1 with algorithm.advantage={config.algorithm.advantage}, which compares the rows"
            f" of a whole step; got {config.grading.portions}.",
        )


def _check_overlap(
    config: StageConfig, train: list[Sequence[Problem]], evaluation: list[Sequence[Problem]], display: Display
) -> None:
    """Report evaluation problems that also appear in the training data.

    Raises:
        ConfigError: there are some, and eval.overlap is "error".
    """
    learned, tested = Joined(train), Joined(evaluation)
    if config.eval.overlap == "off" or not learned or not tested:
        return
    overlaps = find_overlaps(learned, tested)
    if not overlaps:
        return
    sentence = overlap_sentence(overlaps, held_out=len(tested), train=len(learned))
    if config.eval.overlap == "error":
        raise ConfigError("bad-value", f"{sentence} Or set eval.overlap to warn.")
    display.note(sentence)


def _check_plugins(
    config: StageConfig, train: list[Sequence[Problem]], evaluation: list[Sequence[Problem]], display: Display
) -> None:
    """Try the user's own reward functions, and report those that cannot grade anything.

    Raises:
        BadReturn: a function returns something that is not a reward.
    """
    graded = [*train, *evaluation] if config.samples_to_learn else evaluation
    for sentence in check_plugins(config, Joined(graded)):
        display.note(f"note: {sentence}")


def _display(config: StageConfig) -> Display:
    """Return the display; it is silent on every process but the main one."""
    return Display(config, None if processes.is_main() else plain_console(file=io.StringIO(), quiet=True))


def _open_engine(config: StageConfig, policy: Policy, folder: Path, checkpoint: Path | None) -> Engine:
    """Start the engine on a folder with this architecture and tokenizer; the weights follow in the first sync."""
    if not config.needs_engine:
        return NoEngine()
    path = config.model.path
    start = folder / "start"
    if config.model.from_scratch is not None or path is None or policy.reshaped:
        if not processes.same_everywhere(start if (start / "config.json").is_file() else None):
            save_model(start, policy)
        path = str(start)
    name = config.engine.dtype
    dtype = str(policy.dtype).removeprefix("torch.") if name == "auto" else name
    own_copy = is_sharded(policy.scorer) or config.rollout.ahead > 0  # the policy must not change under the sampler
    shared = None if own_copy else policy.unwrapped()
    servers = config.engine.name == "vllm-server"
    of_run: dict[str, object] = (
        {"lora_rank": config.model.lora.rank} if servers and config.model.lora is not None else {}
    )
    if servers and config.rollout.goes_on:
        of_run["spans"] = True
    if servers and config.rollout.pins:
        of_run["pinned"] = config.rollout.ahead
    if servers and config.cluster.file is not None:
        parts = PlacedParts(Path(config.cluster.file))
        if parts.count("sampler"):
            of_run["placed"] = parts

    def opened(**further: object) -> Engine:
        return open_engine(
            config.engine.name,
            model_path=path,
            dtype=dtype,
            max_model_len=policy.context,
            seed=config.seed,
            model=shared,
            **(config.engine.options | of_run | further),
        )

    if not servers or processes.count() == 1:
        return opened()
    # The main process starts the servers and sends them their weights; every process samples from them.
    engine = opened() if processes.is_main() else None
    urls, key = processes.gather(([s.url for s in getattr(engine, "servers", [])], getattr(engine, "key", "")))[0]
    return engine or opened(urls=urls, loads=False, key=key)


@contextmanager
def _stop_at_step_end(session: Session) -> Iterator[None]:
    """Handle signals: the first Ctrl-C or SIGTERM stops after this step with a checkpoint, the second at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        if session.interrupted:
            raise KeyboardInterrupt
        session.interrupted = True
        session.display.note("stopping after this step, with a checkpoint (again: at once)")

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the embedding program keeps its own signal handlers
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
