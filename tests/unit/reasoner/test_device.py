"""No tensor is left behind on the CPU: the trainer on a pretend accelerator gives the CPU's numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from reasoner.engine.base import EngineError
from reasoner.engine.hf import HfEngine
from reasoner.model.random_state import random_state, set_random_state
from reasoner.policy.policy import Policy
from tests.unit.reasoner.on_device import CASES, stage, whole

RUNS = [case for case in CASES if case.startswith("a run of")]


def faults_of(names: list[str], folder: Path) -> dict[str, str]:
    """Faults of some cases, from a separate process, since a device is registered with torch for good."""
    file = folder / "faults.json"
    command = [sys.executable, "-m", "tests.unit.reasoner.on_device", str(file), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(file.read_text())
    assert list(found) == names
    return {name: fault for name, fault in found.items() if fault}


@pytest.mark.parametrize("half", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_path_gives_the_cpus_numbers_on_the_device(half: int, tmp_path: Path) -> None:
    assert faults_of([case for case in CASES if case not in RUNS][half::2], tmp_path) == {}


@pytest.mark.parametrize("case", [pytest.param(run, marks=[] if "ppo" in run else pytest.mark.slow) for run in RUNS])
def test_a_run_gives_the_cpus_numbers_on_the_device(case: str, tmp_path: Path) -> None:
    assert faults_of([case], tmp_path) == {}


def test_random_states_of_more_gpus_than_there_are_now_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[list[torch.Tensor]] = []
    state = random_state() | {"cuda": [torch.zeros(16, dtype=torch.uint8)] * 8}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", taken.append)
    set_random_state(state)
    assert [len(states) for states in taken] == [2]


def test_the_hf_engine_refuses_flash_attention_before_it_samples(tmp_path: Path) -> None:
    policy = Policy(stage(), accelerator=Accelerator(cpu=True))
    policy.save(tmp_path / "model")
    policy.model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(EngineError, match=r"needs model.attention sdpa or eager"):
        HfEngine(model_path=str(tmp_path / "model"), max_model_len=128, model=policy.model)


@pytest.mark.parametrize("method", ["grpo", "sft"])
def test_the_engine_sleeps_while_the_policy_learns(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    for kind, name in ((HfEngine, "sleep"), (HfEngine, "generate"), (Policy, "accumulate")):
        plain = getattr(kind, name)

        def noted(self: object, *given: object, plain: Any = plain, name: str = name) -> object:
            seen.append(name)
            return plain(self, *given)

        monkeypatch.setattr(kind, name, noted)
    section = {"rows_per_step": 8, "held_out": 8}
    whole(torch.device("cpu"), tmp_path, method=method, **({"sft": section} if method == "sft" else {}))
    assert "accumulate" in seen
    states = [name for name in seen if name != "accumulate"]
    assert states[0] == "generate"
    for place, name in enumerate(seen):
        assert name != "accumulate" or [held for held in seen[:place] if held != "accumulate"][-1] == "sleep"
