"""The estimate against models that are really there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from reasoner.config.load import resolve
from reasoner.config.sections import ModelSection, ScratchConfig
from reasoner.model.load import load_model
from reasoner.policy.policy import Policy
from reasoner.preflight.dry_run import plan
from reasoner.preflight.memory import estimate, memory_line, shape_of
from tests.unit.reasoner.policy.test_policy import make_batch


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_parameters_of_a_real_model(tied: bool, kv_heads: int | None, tmp_path: Path) -> None:
    scratch = ScratchConfig(hidden_size=128, layers=3, heads=4, kv_heads=kv_heads, tie_embeddings=tied)
    model, tokenizer = load_model(ModelSection(from_scratch=scratch), seed=0)
    real = sum(parameter.numel() for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for section in (ModelSection(from_scratch=scratch), ModelSection(path=str(tmp_path))):
        found = shape_of(section)
        assert found is not None
        assert found.parameters == pytest.approx(real, rel=0.01)  # norms and biases are left out


def test_adapters_of_a_real_model() -> None:
    from reasoner.model.lora import add_adapter

    raw = {"task": "gsm8k", "model": {"from_scratch": {"hidden_size": 128, "layers": 3}, "lora": {"rank": 4}}}
    stage = resolve(raw).stages[0]
    model, _ = load_model(stage.model, seed=0)
    assert stage.model.lora is not None
    add_adapter(model, stage.model.lora, seed=0)
    real = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    found = estimate(stage)
    assert found is not None
    assert found.parts["gradients and optimizer"] == pytest.approx(12 * real, rel=0.01)


def test_a_pass_in_bfloat16_keeps_copies_of_the_float32_weights() -> None:
    model = {"from_scratch": {"hidden_size": 128, "layers": 3, "heads": 4}, "dtype": "bfloat16"}
    stage = resolve({"task": "gsm8k", "model": model}).stages[0]
    policy = Policy(stage, accelerator=Accelerator(cpu=True))
    matrices = {tuple(sorted(weight.shape)) for weight in policy.model.parameters() if weight.ndim == 2}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.bfloat16 and tuple(sorted(tensor.shape)) in matrices:
            kept[tensor.untyped_storage().data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        policy.trainer_logprobs(make_batch(stage, rows=4, group=4))
    found = estimate(stage)
    assert found is not None
    assert found.parts["weights in 16 bits"] == pytest.approx(sum(kept.values()), rel=0.02)


def test_size_in_a_name_and_unknown_sizes() -> None:
    assert [shape_of(ModelSection(path=name)) for name in ("org/no-size", "gpt2")] == [None, None]
    found = shape_of(ModelSection(path="Qwen/Qwen2.5-0.5B-Instruct"))
    assert found is not None
    assert found.parameters == 0.5e9
    stage = resolve({"task": "gsm8k", "model": "org/no-size"}).stages[0]
    assert memory_line(stage).startswith("memory: unknown")


def test_what_saves_memory_saves_it() -> None:
    raw = {"task": "gsm8k", "model": {"path": "x/Y-7B"}, "algorithm": {"kl_coef": 0.1}}

    def total(**model: object) -> float:
        found = estimate(resolve(raw | {"model": {"path": "x/Y-7B", **model}}).stages[0])
        assert found is not None
        return sum(found.parts.values())

    assert total(lora={"rank": 16}) < 0.5 * total()
    assert total(gradient_checkpointing=True) < total()
    assert any("7.0 billion" in line for line in plan(resolve(raw).stages[0]))
