"""Weights that become nan or infinite: the message says whether the policy or the file has them, and how to
continue.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reasoner.config.load import load_config, resolve
from reasoner.config.stage import RunConfig
from reasoner.engine.base import EngineError
from reasoner.engine.check import check_probe
from reasoner.model.load import load_model
from reasoner.model.paths import ModelError
from reasoner.model.soundness import largest
from reasoner.observe.explain import explain
from reasoner.policy.checkpoint import CheckpointError
from reasoner.policy.policy import Diverged
from reasoner.stages.going_on import resume_command
from reasoner.stages.pipeline import run_pipeline

TINY = {
    "name": "r",
    "task": {"name": "arithmetic", "options": {"train_size": 20, "test_size": 4}},
    "model": {"from_scratch": {"hidden_size": 16, "layers": 1, "heads": 2, "max_positions": 64}},
    "prompt": {"chat": "never"},
    "rollout": {"problems_per_step": 2, "group_size": 2, "max_tokens": 4},
    "engine": {"name": "hf"},
    "eval": {"problems": 0, "overlap": "off"},
    "logging": {"tensorboard": False},
    "checkpoint": {"every": 1, "keep": 9},
    "steps": 2,
}
REWARD = f"{Path(__file__).with_name('characters.py')}:characters"


def run_of(folder: Path, **changes: object) -> RunConfig:
    task = {**TINY["task"], "verifier": {"name": REWARD}}  # type: ignore[dict-item]
    return resolve({**TINY, "task": task, "output": str(folder), **changes})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "run"
    run_pipeline(run_of(folder), resume=False)
    return folder


def copied(source: Path, target: Path, **changed: torch.Tensor) -> Path:
    import shutil

    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    save_file({**weights, **changed}, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_a_step_that_throws_the_weights_away_is_the_policys_and_names_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["pytest"])
    with pytest.raises(Diverged) as caught:
        run_pipeline(run_of(folder, optim={"lr": 1e38, "max_grad_norm": 1e30}), resume=False)
    said = str(caught.value)
    assert said.startswith(
        "the policy's weights must stay finite and of ordinary size; update 1, at learning rate 1e+38"
    )
    command = f"reasoner train {folder}/config.yaml output={folder} optim.lr=1e+37 --resume"
    assert said.endswith(f"Continue from the newest checkpoint with a smaller learning rate: `{command}`")
    assert "engine" not in said
    ((_, found),) = explain(folder)
    (stopped,) = [finding for finding in found if finding.code == "stopped"]
    assert stopped.change == f"a smaller learning rate: `{command}`."
    again = load_config(shlex.split(command)[2], shlex.split(command)[3:-1])
    assert (again.output, again.stages[0].optim.lr) == (str(folder), 1e37)


def test_the_way_on_is_the_command_that_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = resolve({"task": "gsm8k"}).stages[0]
    monkeypatch.setattr(sys, "argv", ["reasoner", "train", "e.yaml", "--resume", "output=a b"])
    assert resume_command(stage, Path("a b")) == "reasoner train e.yaml 'output=a b' --resume"
    assert (
        resume_command(stage, Path("a b/2-grpo"), ["optim.lr=1e-07"])
        == "reasoner train e.yaml 'output=a b' stages.2.optim.lr=1e-07 --resume"
    )
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert resume_command(stage, Path("r/1-grpo"), ["steps=3"]) == "reasoner train CONFIG stages.1.steps=3 --resume"
    assert resume_command(stage, Path("r/12-angry")) == "reasoner train CONFIG --resume"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (math.nan, r"model\.norm\.weight contains 1 of 16 values that are not finite"),
        (math.inf, "values that are not finite"),
    ],
)
def test_a_base_with_values_that_are_none_is_named_at_load(tmp_path: Path, base: Path, value: float, says: str) -> None:
    norm = torch.ones(16)
    norm[3] = value
    broken = copied(base / "final", tmp_path / "broken", **{"model.norm.weight": norm})
    with pytest.raises(ModelError, match=f"model '{broken}' is damaged: .*{says}"):
        run_pipeline(run_of(tmp_path / "run", model=str(broken)), resume=False)


def test_a_matrix_of_zeros_is_damage_and_a_bias_of_zeros_is_none(tmp_path: Path, base: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    zeros = torch.zeros_like(load_file(base / "final" / "model.safetensors")[name])
    section = resolve({"task": "gsm8k", "model": str(copied(base / "final", tmp_path / "zeros", **{name: zeros}))})
    with pytest.raises(ModelError, match=r"down_proj\.weight contains only zeros"):
        load_model(section.stages[0].model, seed=0)
    bias = "model.layers.0.self_attn.q_proj.bias"
    biased = copied(base / "final", tmp_path / "biased", **{bias: torch.zeros(16)})
    load_model(resolve({"task": "gsm8k", "model": str(biased)}).stages[0].model, seed=0)


def test_a_checkpoint_whose_optimizer_holds_no_numbers_is_damaged(tmp_path: Path, base: Path) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(base, folder)
    (folder / "done.json").unlink()
    file = folder / "checkpoints" / "step-000002" / "training.pt"
    state = torch.load(file, weights_only=True)
    first = next(iter(state["optimizer"]["state"].values()))
    first["exp_avg"].view(-1)[0] = math.nan
    torch.save(state, file)
    config = run_of(folder, steps=3)
    with pytest.raises(CheckpointError, match=r"exp_avg of the optimizer's state is not finite.*Remove that folder"):
        run_pipeline(config, resume=True)
    shutil.rmtree(file.parent)
    run_pipeline(config, resume=True)
    assert json.loads((folder / "done.json").read_text())["steps"] == 3


def test_an_engine_that_alone_leaves_the_numbers_is_the_engines() -> None:
    with pytest.raises(
        EngineError, match=r"1 of 2 on the probe are not, while the trainer's are.*engine\.dtype=float32"
    ):
        check_probe([math.nan, -1.0], [-1.0, -1.0], torch.float32)
    assert check_probe([-1.0, -1.0], [-1.0, -1.0], torch.float32) == 0.0


def test_the_largest_value_is_not_a_number_where_one_is_not() -> None:
    assert largest([torch.tensor([1.0, -3.0]), torch.tensor([2.0], dtype=torch.bfloat16), torch.tensor([9])]) == 3.0
    assert math.isnan(largest([torch.tensor([1.0]), torch.tensor([2.0, math.nan])]))
    assert largest([]) == 0.0
