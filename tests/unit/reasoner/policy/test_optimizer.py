"""The optimizers that the config names: their update rules, and their state restored bit for bit from a checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from reasoner.algorithm.objective import make_objective
from reasoner.config.errors import ConfigError
from reasoner.config.stage import StageConfig
from reasoner.policy.checkpoint import restore_training_state, save_checkpoint
from reasoner.policy.optimizer import check_optimizer, load_optimizer_state, make_optimizer
from reasoner.policy.policy import Policy
from reasoner.policy.progress import Progress
from tests.unit.reasoner.model.test_quantized import needs_bitsandbytes
from tests.unit.reasoner.policy.test_policy import make_batch
from tests.unit.reasoner.runs import stage

SHAPE = {"hidden_size": 96, "layers": 1, "heads": 2, "max_positions": 64}
"""Matrices of more than 4,096 numbers: bitsandbytes keeps smaller ones in 32 bits."""
NAMES = ["adamw", "adamw_8bit", "adamw_offload"]


def config_of(name: str, **changes: object) -> StageConfig:
    optim = {"name": name, "lr": 1e-2, "weight_decay": 0.1, "warmup_steps": 3}
    return stage(model={"from_scratch": SHAPE, **changes}, optim=optim)


def learn(policy: Policy, steps: range) -> None:
    objective = make_objective(policy.config, kl_coef=0.0)
    for step in steps:
        policy.begin_step(step + 1)
        policy.update(make_batch(policy.config, rows=4, seed=step), objective)


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in policy.model.state_dict().items()}


@needs_bitsandbytes
@pytest.mark.parametrize("lora", [None, {"rank": 64}])
@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_goes_on_bit_for_bit(name: str, lora: object, tmp_path: Path) -> None:
    config = config_of(name, lora=lora)
    whole = Policy(config, accelerator=Accelerator(cpu=True))
    learn(whole, range(2))
    written = save_checkpoint(tmp_path, whole, Progress(step=2, sampler={}, offsets={}), keep=1)
    learn(whole, range(2, 4))
    resumed = Policy(config, accelerator=Accelerator(cpu=True), checkpoint=written)
    restore_training_state(resumed, written)
    learn(resumed, range(2, 4))
    ours, theirs = weights(resumed), weights(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    forgotten = Policy(config, accelerator=Accelerator(cpu=True), checkpoint=written)
    learn(forgotten, range(2, 4))
    assert any(not torch.equal(value, theirs[key]) for key, value in weights(forgotten).items())


@needs_bitsandbytes
@pytest.mark.parametrize(("name", "close", "state"), [("adamw_8bit", 0.2, 2.1), ("adamw_offload", 1e-4, 8.1)])
def test_they_step_as_adamw_does_with_state_of_their_size(name: str, close: float, state: float) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(256, 256, generator=generator)
    gradients = [torch.randn(256, 256, generator=generator) for _ in range(5)]
    found: dict[str, torch.Tensor] = {}
    for kind in ("adamw", name):
        parameter = nn.Parameter(start.clone())
        groups: list[dict[str, object]] = [{"params": [parameter], "weight_decay": 0.1, "lr": 1e-2}]
        optimizer = make_optimizer(groups, config_of(kind), torch.device("cpu"))
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
        found[kind] = parameter.detach() - start
    held = sum(value.nbytes for value in optimizer.state[parameter].values() if isinstance(value, torch.Tensor))
    assert 0.9 * state < held / parameter.numel() < state
    assert (found[name] - found["adamw"]).norm() < close * found["adamw"].norm()


@needs_bitsandbytes
def test_state_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    policy = Policy(config_of("adamw_8bit"), accelerator=Accelerator(cpu=True))
    written = save_checkpoint(tmp_path, policy, Progress(step=0, sampler={}, offsets={}), keep=1)
    other = Policy(config_of("adamw"), accelerator=Accelerator(cpu=True), checkpoint=written)
    with pytest.raises(ConfigError, match=r"optim\.name must stay adamw_8bit, .*; got adamw\. Set it back"):
        restore_training_state(other, written)


def test_a_missing_package_is_said_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    check_optimizer(config_of("adamw"))
    for name in NAMES[1:]:
        with pytest.raises(ConfigError, match=rf"optim\.name={name} needs bitsandbytes.*reasoner-rl\[optim\]"):
            check_optimizer(config_of(name))


def test_paged_state_is_paged_again_after_it_was_loaded() -> None:
    """As on CUDA, where bitsandbytes loads the state into the device's own memory; the pages are simulated here."""
    parameter = nn.Parameter(torch.zeros(4, 4))
    pages: list[torch.Tensor] = []

    class Paged(torch.optim.SGD):
        is_paged = True

        def get_state_buffer(self, held: nn.Parameter, dtype: torch.dtype) -> torch.Tensor:
            pages.append(torch.zeros_like(held, dtype=dtype))
            return pages[-1]

    saved: dict[str, Any] = Paged([parameter], lr=0.1).state_dict()
    saved["state"] = {0: {"step": 3, "state1": torch.full((4, 4), 1.0), "state2": torch.full((4, 4), 2.0)}}
    optimizer = Paged([parameter], lr=0.1)
    load_optimizer_state(SimpleNamespace(optimizer=optimizer, param_groups=optimizer.param_groups,
                                         load_state_dict=optimizer.load_state_dict), saved)  # type: ignore[arg-type]  # fmt: skip
    assert [float(page[0, 0]) for page in pages] == [1.0, 2.0]
    assert optimizer.state[parameter]["state1"] is pages[0]
    assert optimizer.state[parameter]["state2"] is pages[1]
