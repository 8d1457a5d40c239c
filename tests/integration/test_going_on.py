"""Resuming a run: more steps, other settings, one writer, undisturbed by readers, a full disk."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import reasoner.cli
from reasoner.config.load import load_config
from reasoner.policy.policy import Policy
from reasoner.preflight.disk import disk_estimate
from reasoner.stages.pipeline import run_pipeline
from reasoner.storage.find_model import list_checkpoints
from reasoner.storage.run_folder import RECORD_FILES, RunFolder
from reasoner.storage.run_lock import RunLock
from tests.integration.test_resume import PARITY, records

pytestmark = pytest.mark.integration
SHAPE = {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 64}
LORA = {"from_scratch": SHAPE, "lora": {"rank": 4}}


def write(folder: Path, name: str, **changes: object) -> Path:
    """Return a config whose reward is the parity of the completion's length."""
    config = {
        "output": str(folder / name),
        "method": "grpo",
        "steps": 4,
        "seed": 5,
        "task": {"name": "arithmetic", "options": {"digits": 1}, "verifier": {"name": PARITY}},
        "prompt": {"chat": "never"},
        "model": {"from_scratch": SHAPE},
        "rollout": {"problems_per_step": 4, "group_size": 4, "max_tokens": 8},
        "optim": {"lr": 1e-2},
        "engine": {"name": "hf"},
        "eval": {"problems": 4, "every": 4},
        "checkpoint": {"every": 2},
        "logging": {"tensorboard": False},
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def train(config: Path, *overrides: str, resume: bool = False) -> Path:
    return run_pipeline(load_config(str(config), overrides), resume=resume)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Run a command line in this process; return its exit status."""
    monkeypatch.setattr("reasoner.engine.environment.prepare_process", lambda: None)

    def run(line: str) -> int:
        monkeypatch.setattr("sys.argv", shlex.split(line))
        try:
            reasoner.cli.main()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return run


def rates(run: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["optim/lr"] for row in rows if "optim/lr" in row}


def test_a_finished_run_goes_on_as_one_that_had_more_steps_from_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(write(tmp_path, "whole", steps=8))
    config = write(tmp_path, "more")
    run = train(config)
    assert train(config, "steps=8", resume=True) == run
    for name in RECORD_FILES:
        assert records(run, name) == records(whole, name), name
    assert (run / "final" / "model.safetensors").read_bytes() == (whole / "final" / "model.safetensors").read_bytes()
    assert (run / "done.json").read_bytes() == (whole / "done.json").read_bytes()
    capsys.readouterr()
    for steps in ("steps=8", "steps=4"):
        train(config, steps, resume=True)
        finished = f"{run} is finished after 8 steps"
        advice = "pass steps=16 (or any number above 8) to continue"
        assert capsys.readouterr().out == f"{finished}: nothing to do; {advice}\n"
    assert [row["step"] for row in records(run, "metrics.jsonl")] == [*range(1, 9)]


def test_the_rate_follows_one_plan_to_the_new_end_and_its_jump_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optim = {"lr": 1e-3, "schedule": "linear", "warmup_steps": 2}
    config = write(tmp_path, "run", optim=optim, algorithm={"kl_coef": 0.01})
    run = train(config)
    assert rates(run) == pytest.approx({1: 5e-4, 2: 1e-3, 3: 1e-3, 4: 5e-4})
    capsys.readouterr()
    train(config, "steps=8", resume=True)
    assert "the learning rate jumps: from 0.0005 at step 4 of " in capsys.readouterr().out
    assert {step: rate for step, rate in rates(run).items() if step > 4} == pytest.approx(
        {5: 1e-3 * 4 / 6, 6: 1e-3 * 3 / 6, 7: 1e-3 * 2 / 6, 8: 1e-3 / 6}
    )
    train(config, "steps=9", "optim.lr=1e-4", "optim.schedule=constant", resume=True)
    assert rates(run)[9] == pytest.approx(1e-4), "the config's rate counts, not that of the optimizer's state"


def test_the_rate_follows_the_steps_that_have_no_update_too(tmp_path: Path) -> None:
    """In many steps all completions of the one problem have the same reward, and nothing is learned."""
    optim = {"lr": 1e-3, "schedule": "linear", "warmup_steps": 4, "updates_per_step": 2}
    rollout = {"problems_per_step": 1, "group_size": 4, "max_tokens": 8}
    run = train(write(tmp_path, "run", steps=20, rollout=rollout, optim=optim, eval={"problems": 0}))
    found = rates(run)
    assert 3 < len(found) < 17
    for step, rate in found.items():
        update = 2 * step - 1  # of the step's two updates, the second
        plan = (update + 1) / 8 if update < 8 else 1 - (update - 8) / 32
        assert math.isclose(rate, 1e-3 * plan), step


@pytest.mark.parametrize("model", [{"from_scratch": SHAPE}, LORA], ids=["full", "lora"])
def test_what_may_not_change_is_refused_with_commands_that_begin_anew(
    model: dict[str, object], tmp_path: Path, command: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(tmp_path, "run", model=model, eval={"problems": 0})
    assert command(f"reasoner train {config} steps=2") == 0
    (tmp_path / "run" / "done.json").unlink()  # it stopped
    changed = f"reasoner train {config} algorithm.kl_coef=0.1 rollout.max_tokens=6 --resume"
    capsys.readouterr()
    assert command(changed) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "(algorithm.kl_coef: 0.0 then, 0.1 now)" in said
    assert "rollout (problems_per_step, group_size, max_tokens" in said
    printed = re.findall(r"`([^`]+)`", said)
    assert len(printed) == (2 if model is LORA else 1)
    for line in printed:
        assert command(line) == 0, line
    begun = load_config(str(tmp_path / "run-2" / "config.yaml")).stages[0]
    assert (begun.algorithm.kl_coef, begun.rollout.max_tokens, begun.steps) == (0.1, 6, 4)
    assert begun.model.path is not None
    assert begun.model.path.startswith(str(tmp_path / "run"))
    assert command(f"reasoner train {config} rollout.max_tokens=6 batch.micro_tokens=64 --resume") == 0
    assert {row["tokens"] <= 6 for row in records(tmp_path / "run", "rollouts.jsonl") if row["step"] > 2} == {True}


def test_a_stage_that_others_began_from_is_not_given_more_steps(
    tmp_path: Path, command: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    sft = {"method": "sft", "steps": 2, "sft": {"rows_per_step": 4}, "eval": {"problems": 0}}
    task = {"name": "arithmetic", "options": {"digits": 1}}
    config = write(tmp_path, "run", task=task, stages=[sft, {"steps": 2}])
    assert command(f"reasoner train {config}") == 0
    capsys.readouterr()
    assert command(f"reasoner train {config} stages.0.steps=4 --resume") == 2
    assert "stage 1 has already started from its model" in capsys.readouterr().err
    assert command(f"reasoner train {config} stages.1.steps=3 --resume") == 0
    assert len(records(tmp_path / "run" / "1-grpo", "metrics.jsonl")) == 3


def test_sft_with_dropout_repeats_itself_killed_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of(name: str, *, dropout: float = 0.3, seed: int = 5) -> Path:
        model = {"from_scratch": SHAPE, "lora": {"rank": 4, "dropout": dropout}}
        task = {"name": "arithmetic", "options": {"digits": 1}}
        sft, off = {"rows_per_step": 8, "held_out": 8}, {"problems": 0}
        return write(tmp_path, name, method="sft", task=task, model=model, sft=sft, seed=seed, eval=off)

    runs, step = [train(of(name)) for name in ("one", "two")], Policy.step

    def killed(policy: Policy, **options: float) -> object:
        if policy.version == 3:
            raise KeyboardInterrupt
        return step(policy, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Policy, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(of("killed"))
    runs.append(train(of("killed"), resume=True))
    for run in runs[1:]:
        for name in RECORD_FILES:
            assert records(run, name) == records(runs[0], name), name
    weights = [(run / "final" / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1] == weights[2]
    for other in (of("plain", dropout=0.0), of("seed", seed=6)):
        assert records(train(other), "metrics.jsonl") != records(runs[0], "metrics.jsonl")


@pytest.mark.parametrize("method", ["sft", "sft-lora", "ppo"])
def test_checkpoints_and_models_are_as_large_as_foretold(tmp_path: Path, method: str) -> None:
    shape = {"hidden_size": 128, "layers": 2, "heads": 2, "max_positions": 64}
    lora = {"lora": {"rank": 16}} if method == "sft-lora" else {}
    changes: dict[str, object] = {"model": {"from_scratch": shape, **lora}, "eval": {"problems": 0}, "steps": 2}
    if method != "ppo":
        changes |= {"task": {"name": "arithmetic", "options": {"digits": 1}}, "sft": {"rows_per_step": 4}}
    config = write(tmp_path, "run", method=method.partition("-")[0], **changes)
    found = disk_estimate(load_config(str(config)).stages[0])
    assert found is not None
    run = train(config)

    def held(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    sizes = held(run / "checkpoints" / "step-000002"), held(run / "final")
    assert sizes == pytest.approx((sum(found.checkpoint.values()), found.models["final"]), rel=0.1)


def test_a_second_writer_is_refused_with_the_process_that_writes(
    tmp_path: Path, command: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(tmp_path, "run", steps=1, eval={"problems": 0})
    held = RunLock.take(tmp_path / "run")
    for options in ("", "--resume"):
        assert command(f"reasoner train {config} {options}") == 2
        said = capsys.readouterr().err
        assert re.fullmatch(rf"error: {tmp_path}/run is being written by process {os.getpid()} on host .*\n", said)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]
    held.release()
    assert command(f"reasoner train {config}") == 0
    assert not (tmp_path / "run" / "run.lock").exists()
    capsys.readouterr()
    assert command(f"reasoner train {config}") == 2
    assert "exists already. Pass --resume" in capsys.readouterr().err


@pytest.mark.parametrize("model", [{"from_scratch": SHAPE}, LORA], ids=["full", "lora"])
def test_readers_of_a_run_that_goes_on_disturb_nothing(
    model: dict[str, object], tmp_path: Path, command: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every reader works while a checkpoint is half written, and an export works while its checkpoint is removed."""
    run, reads, save = tmp_path / "run", 0, Policy.save_trained

    def read_meanwhile(policy: Policy, folder: Path) -> None:
        nonlocal reads
        save(policy, folder)
        if folder.name.endswith("step-000004"):
            reads += 1
            for line in (f"export {run} {tmp_path}/exported-{reads}", f"explain {run}", f"report {run}"):
                assert command(f"reasoner {line}") == 0, line
            if model is not LORA:
                evaluated = f"eval {run} --task arithmetic --engine hf --problems 2 --max-tokens 4 --allow-row-code"
                assert command(f"reasoner {evaluated}") == 0

    monkeypatch.setattr(Policy, "save_trained", read_meanwhile)
    (run / "checkpoints" / "step-000002-backup").mkdir(parents=True)
    train(write(tmp_path, "run", model=model, checkpoint={"every": 2, "keep": 1}), resume=True)
    assert reads == 2, "the last step's checkpoint, and the one that closes the run"
    names = [path.name for path in list_checkpoints(run / "checkpoints")]
    assert names == ["step-000004"]
    assert (tmp_path / "exported-1" / "model.safetensors").stat().st_size > 10_000
    assert len(records(run, "metrics.jsonl")) == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be mounted by root")
@pytest.mark.parametrize("when", ["begin", "append", "offsets"])
def test_a_disk_that_becomes_full_is_one_line_and_resume(
    when: str,
    tmp_path: Path,
    command: Callable[[str], int],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mount is not allowed here")
    try:
        config = write(tmp_path, "run", output=str(disk / "run"), logging={"tensorboard": True})
        assert command(f"reasoner train {config} steps=2") == 0
        capfd.readouterr()
        original = getattr(RunFolder, when)

        def filled(run: RunFolder, *args: object, **options: object) -> object:
            with (disk / "filler").open("ab", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError:
                    pass
            return original(run, *args, **options)

        with monkeypatch.context() as patched:
            patched.setattr(RunFolder, when, filled)
            assert command(f"reasoner train {config} --resume") == 1
        said = capfd.readouterr().err
        assert re.fullmatch(
            r"error: .* could not be written \(No space left on device; 0 MiB free\)\. .*Free disk space.*\n", said
        )
        assert ("The last good one is " in said) is (when == "offsets"), "full at a checkpoint"
        (disk / "filler").unlink()
        assert command(f"reasoner train {config} --resume") == 0
        assert [row["step"] for row in records(disk / "run", "metrics.jsonl")] == [1, 2, 3, 4]
        evaluated = [json.loads(line)["step"] for line in (disk / "run" / "evals.jsonl").read_text().splitlines()]
        assert evaluated == [0, 2, 4]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
