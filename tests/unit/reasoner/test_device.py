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


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Faults of every case, from a separate process, since a device is registered with torch for good."""
    file = tmp_path_factory.mktemp("device") / "faults.json"
    command = [sys.executable, "-m", "tests.unit.reasoner.on_device", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(file.read_text())


@pytest.mark.parametrize("case", list(CASES))
def test_a_path_gives_the_cpus_numbers_on_the_device(case: str, faults: dict[str, str | None]) -> None:
    assert faults[case] is None, faults[case]


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
