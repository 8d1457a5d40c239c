"""A 4-bit base under adapters: weights in memory, trained weights, weights sent to the engine, and refused settings."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import cast

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import AutoModelForCausalLM

from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.engine import open_engine
from reasoner.engine.check import checksum
from reasoner.model.lora import fingerprint, merge_checkpoint
from reasoner.model.paths import ModelError
from reasoner.model.quantized import plain_weight, quantized_layers
from reasoner.policy.policy import Policy
from tests.unit.reasoner.model.test_lora import lora_config, trained
from tests.unit.reasoner.policy.test_policy import SHAPE

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes (pip install 'reasoner-rl[qlora]')"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A plain model folder."""
    folder = tmp_path_factory.mktemp("base") / "model"
    shape = SHAPE | {"hidden_size": 64}
    made = resolve({"task": "arithmetic", "model": {"from_scratch": shape, "dtype": "float32"}}).stages[0]
    Policy(made, accelerator=Accelerator(cpu=True)).save(folder)
    return str(folder)


def config_of(base: str, *, targets: object = "all-linear", recompute: bool = False):
    lora = {"rank": 4, "targets": targets}
    model = {"path": base, "from_scratch": None, "quantization": "nf4", "gradient_checkpointing": recompute}
    return lora_config(lora=lora, tied=True, **model)


@needs_bitsandbytes
def test_the_base_is_held_in_four_bits_and_only_adapters_are_trained(base: str) -> None:
    config = config_of(base)
    fresh, (policy, _) = Policy(config, accelerator=Accelerator(cpu=True)), trained(config)
    layers = quantized_layers(policy.model)
    assert len(layers) == 7 * SHAPE["layers"]  # q, k, v, o, gate, up, down; not the embeddings, not the output layer
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for name, layer in layers.items():
        was, held = plain.get_parameter(name.removesuffix("base_layer") + "weight"), cast("Tensor", layer.weight)
        assert held.numel() * held.element_size() * 8 == 4 * was.numel()
        # 16 levels of a block's largest number, of which no two neighbours are further apart than 0.304 of it
        assert (plain_weight(layer) - was).abs().max() < 0.16 * was.abs().max()
    for (name, was), (_, now) in zip(fresh.model.state_dict().items(), policy.model.state_dict().items(), strict=True):
        assert (".lora_" in name) == (not torch.equal(was, now)), name
    assert fingerprint(fresh.model) == fingerprint(policy.model)


@needs_bitsandbytes
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"]])
def test_what_leaves_the_trainer_is_a_plain_model_with_the_trainers_own_function(
    base: str, tmp_path: Path, targets: object
) -> None:
    policy, _ = trained(config_of(base, targets=targets))
    policy.save(tmp_path / "plain")
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32).eval()
    assert {name for name, _ in policy.named_weights()} == {name for name, _ in merged.named_parameters()}
    ids = torch.randint(0, 256, (3, 50), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = policy.model(ids).logits
        assert (merged(ids).logits - ours).abs().max().item() < 1e-5
        assert policy.adapter is not None
        with policy.adapter.disable_adapter():
            assert (policy.model(ids).logits - ours).abs().max().item() > 1e-3, "training did nothing"
        unquantized = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        assert (unquantized(ids).logits - ours).abs().max().item() > 1e-3


@needs_bitsandbytes
@pytest.mark.parametrize("shared", [True, False])
def test_an_engine_samples_from_what_is_trained(base: str, shared: bool) -> None:
    policy, _ = trained(config_of(base))
    model = policy.unwrapped() if shared else None
    engine = open_engine("hf", model_path=base, dtype="float32", max_model_len=64, seed=0, model=model)
    arrived = engine.load_weights(policy.named_weights(), 1)
    assert arrived == checksum(policy.named_weights())
    ids = list(range(5, 40))
    assert engine.score(ids) == pytest.approx(policy.score_tokens(ids), abs=1e-5)


@needs_bitsandbytes
def test_a_checkpoint_is_the_adapter_and_resumes_and_merges_to_the_same_function(base: str, tmp_path: Path) -> None:
    config = config_of(base)
    policy, batch = trained(config)
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "step-3"
    checkpoint.mkdir(parents=True)
    policy.save_trained(checkpoint)
    assert [file.name for file in checkpoint.iterdir()] == ["adapter"]
    again = Policy(config, accelerator=Accelerator(cpu=True), checkpoint=checkpoint)
    needs = frozenset({"old_logprobs", "ref_logprobs"})
    ours, theirs = policy.annotate(batch, needs), again.annotate(batch, needs)
    for name in ("old_logprobs_N", "ref_logprobs_N"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    raw = {"method": "grpo", "task": "arithmetic", "model": config.model.model_dump(mode="json")}
    (run / "config.yaml").write_text(json.dumps(raw))
    merge_checkpoint(checkpoint / "adapter", tmp_path / "merged")
    policy.save(tmp_path / "plain")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("merged", "plain")]
    assert weights[0] == weights[1]


@needs_bitsandbytes
def test_gradient_checkpointing_changes_nothing(base: str) -> None:
    plain, _ = trained(config_of(base))
    recomputed, _ = trained(config_of(base, recompute=True))
    for (name, ours), (_, theirs) in zip(plain.named_weights(), recomputed.named_weights(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6), name


def test_without_bitsandbytes_the_message_says_what_to_install(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"reasoner-rl\[qlora\]"):
        Policy(config_of(base), accelerator=Accelerator(cpu=True))


def test_four_bits_without_adapters_or_from_nothing_are_refused(base: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.lora"):
        resolve({"task": "arithmetic", "model": {"path": base, "quantization": "nf4"}})
    with pytest.raises(ConfigError, match=r"model\.path"):
        lora_config(quantization="nf4")
