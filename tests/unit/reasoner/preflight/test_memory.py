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


def test_the_parts_by_hand() -> None:
    raw = {"task": "gsm8k", "algorithm": {"kl_coef": 0.1}, "batch": {"micro_tokens": 1000, "logit_megabytes": 10}}

    def parts(*, on_gpu: bool = True, **model: object) -> dict[str, float]:
        found = estimate(resolve(raw | {"model": {"path": "x/Y-7B", **model}}).stages[0], on_gpu=on_gpu)
        assert found is not None
        assert (found.shape.layers, found.shape.hidden) == (43, 85 * 43)  # (7e9 / (12 * 85^2))^(1/3) is 43.2
        return dict(found.parts)

    size, layer, logits = 7e9, 34 * 1000 * 3655, 3 * 10 * 2**20
    whole = {
        "weights": 4 * size,
        "gradients and optimizer": 12 * size,
        "activations": 43 * layer,
        "logits": logits,
        "weights in 16 bits": 2 * size,
        "reference model": 2 * size,
        "engine weights": 2 * size,
    }
    assert parts() == pytest.approx(whole)
    again = {**whole, "activations": 2 * 1000 * 3655 * 43 + layer}
    assert parts(gradient_checkpointing=True) == pytest.approx(again)
    adapters = 16 * 22 * 3655 * 43
    lora = {
        "weights": 2 * size + 4 * adapters,
        "gradients and optimizer": 12 * adapters,
        "activations": 43 * layer,
        "logits": logits,
        "engine weights": 2 * size,
    }
    assert parts(lora={"rank": 16}) == pytest.approx(lora)
    in_4_bits = {**lora, "weights": 4.127 / 8 * size + 4 * adapters}
    assert parts(lora={"rank": 16}, quantization="nf4") == pytest.approx(in_4_bits)
    doubled = {name: 2 * value for name, value in whole.items() if name not in ("weights in 16 bits", "logits")}
    on_cpu = doubled | {"weights": 4 * size, "gradients and optimizer": 12 * size, "logits": logits}
    assert parts(on_gpu=False) == pytest.approx(on_cpu)


def test_the_plan_says_how_much() -> None:
    stage = resolve({"task": "gsm8k", "model": {"path": "x/Y-7B"}, "batch": {"micro_tokens": 1000}}).stages[0]
    found = estimate(stage)
    assert found is not None
    total = sum(found.parts.values()) / 2**30
    (line,) = [line for line in plan(stage) if "7.0 billion" in line]
    assert f"on a GPU about {total:.1f} GiB and its KV cache (weights 26.1, gradients and optimizer 78.2," in line
