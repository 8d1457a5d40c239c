"""Adapters: the trained weights, the weights sent to the engine, and the weights that stay in the trainer."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.objective import make_objective
from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.engine import open_engine
from reasoner.model.lora import ADAPTER, another_adapter, is_adapter, using_adapter
from reasoner.model.paths import ModelError
from reasoner.policy.layout import packed, padded, unpadded
from reasoner.policy.policy import Policy
from tests.unit.reasoner.policy.test_policy import SHAPE, config_with, gradient, in_double, make_batch


def lora_config(*, tied: bool = True, lora: dict | None = None, **model: object):
    return resolve(
        {
            "task": "arithmetic",
            "model": {
                "from_scratch": SHAPE | {"tie_embeddings": tied},
                "dtype": "float32",
                "lora": lora or {"rank": 4},
                **model,
            },
            "rollout": {"max_tokens": 40},
            "optim": {"lr": 1e-2},
            "algorithm": {"kl_coef": 0.1},
        }
    ).stages[0]


def trained(config, *, updates: int = 3) -> tuple[Policy, Batch]:
    policy = Policy(config, accelerator=Accelerator(cpu=True))
    batch = make_batch(config)
    names = ("weights_N", "advantages_N", "rollout_logprobs_N", "ref_logprobs_N")
    batch = replace(batch, old_logprobs_N=None, **{n: getattr(batch, n).float() for n in names})
    for _ in range(updates):
        policy.update(batch, make_objective(config))
    return policy, batch


@pytest.mark.parametrize("tied", [True, False])
def test_merging_for_an_engine_is_exact_and_leaves_the_trainer_alone(tied: bool, tmp_path: Path) -> None:
    policy, _ = trained(lora_config(tied=tied))
    before = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    policy.save(tmp_path / "plain")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32).eval()
    ids = torch.randint(0, 256, (3, 50), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        with_adapter = policy.model(ids).logits
        assert (merged(ids).logits - with_adapter).abs().max().item() < 1e-5
        assert policy.adapter is not None
        with policy.adapter.disable_adapter():
            assert (policy.model(ids).logits - with_adapter).abs().max().item() > 1e-3, "training did nothing"
    names = {name for name, _ in policy.named_weights()}
    assert names == {name for name, _ in merged.named_parameters()}
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.model.state_dict().items())


def test_only_adapters_are_trained() -> None:
    config = lora_config()
    fresh, (policy, _) = Policy(config, accelerator=Accelerator(cpu=True)), trained(config)
    for (name, was), (_, now) in zip(fresh.model.state_dict().items(), policy.model.state_dict().items(), strict=True):
        assert (".lora_" in name) == (not torch.equal(was, now)), name
    held = sum(p.numel() for group in policy.optimizer.param_groups for p in group["params"])
    assert held == sum(p.numel() for name, p in policy.model.named_parameters() if ".lora_" in name)


def test_the_reference_is_the_model_without_its_adapter() -> None:
    config = lora_config()
    untouched = Policy(config, accelerator=Accelerator(cpu=True))
    policy, batch = trained(config)
    needs = frozenset({"ref_logprobs", "old_logprobs"})
    as_it_came = untouched.annotate(batch, frozenset({"old_logprobs"})).old_logprobs_N
    found = policy.annotate(batch, needs)
    assert found.ref_logprobs_N is not None
    assert found.old_logprobs_N is not None
    assert torch.equal(found.ref_logprobs_N, as_it_came)
    assert not torch.allclose(found.old_logprobs_N, as_it_came, atol=1e-3)


def test_a_checkpoint_holds_the_adapter_alone_and_restores_it(tmp_path: Path) -> None:
    config = lora_config()
    policy, _ = trained(config)
    policy.save_trained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    restored = Policy(config, accelerator=Accelerator(cpu=True), checkpoint=tmp_path)
    for (name, was), (_, now) in zip(policy.named_weights(), restored.named_weights(), strict=True):
        assert torch.equal(was, now), name


def test_another_adapter_is_refused(tmp_path: Path) -> None:
    trained(lora_config(), updates=0)[0].save_trained(tmp_path)
    with pytest.raises(ModelError, match=r"does not fit the model.*model\.lora\.rank"):
        Policy(lora_config(lora={"rank": 8}), accelerator=Accelerator(cpu=True), checkpoint=tmp_path)
    with pytest.raises(ModelError, match=r"model\.lora\.targets"):
        Policy(lora_config(lora={"targets": ["no_such_layer"]}), accelerator=Accelerator(cpu=True))


def test_gradient_does_not_change_with_micro_batches_or_layout() -> None:
    config = lora_config()
    policy, _ = trained(config)
    in_double(policy.model)
    batch, objective = make_batch(config, group=4), make_objective(config)
    whole = gradient(policy, batch, objective, micro_tokens=100_000, layout=padded)
    for layout in (padded, lambda micro: packed(micro, 64), unpadded):
        total, flat = gradient(policy, batch, objective, micro_tokens=100, layout=layout)
        assert total == pytest.approx(whole[0], abs=1e-9)
        assert (flat - whole[1]).abs().max().item() < 1e-9


def test_the_hf_engine_samples_with_the_adapter(tmp_path: Path) -> None:
    policy, _ = trained(lora_config())
    policy.save(tmp_path)
    engine = open_engine("hf", model_path=str(tmp_path), max_model_len=128, model=policy.unwrapped())
    probe = list(range(40, 100))
    assert engine.score(probe) == pytest.approx(policy.score_tokens(probe), abs=1e-5)


def test_dropout_belongs_to_sft() -> None:
    with pytest.raises(ConfigError, match=r"dropout must be 0"):
        lora_config(lora={"dropout": 0.1})


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_gradient_checkpointing_recomputes_and_changes_no_gradient(lora: dict | None) -> None:
    stats, passes = [], []
    for wanted in (False, True):
        config = config_with()
        model = config.model.model_copy(update={"gradient_checkpointing": wanted})
        if lora:
            model = model.model_copy(update={"lora": lora_config(lora=lora).model.lora})
        policy = Policy(config.model_copy(update={"model": model}), accelerator=Accelerator(cpu=True))
        count = [0]
        policy.model.get_decoder().layers[0].self_attn.register_forward_hook(
            lambda *_, count=count: count.__setitem__(0, count[0] + 1)
        )
        batch = make_batch(config)
        batch = replace(batch, **{n: getattr(batch, n).float() for n in ("weights_N", "advantages_N")})
        stats.append(policy.update(batch, make_objective(config)))
        passes.append(count[0])
        assert not any(module.training for module in policy.model.modules()), "sampling stays in evaluation mode"
    assert passes[1] == 2 * passes[0] > 0
    assert stats[0].loss == pytest.approx(stats[1].loss, abs=1e-6)
    assert stats[0].grad_norm == pytest.approx(stats[1].grad_norm, rel=1e-5)


def test_another_threads_adapter_never_gets_between() -> None:
    policy, batch = trained(lora_config())
    assert policy.adapter is not None
    another_adapter(policy.adapter, "other", seed=5)
    with torch.no_grad():
        for name, parameter in policy.adapter.named_parameters():
            if is_adapter(name, "other"):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    needs, objective, probe = frozenset({"old_logprobs", "ref_logprobs"}), make_objective(policy.config), range(40, 60)

    def read() -> list[object]:
        annotated = policy.annotate(batch, needs)
        policy.accumulate(batch, objective)
        found = [p.grad.clone() for name, p in policy.model.named_parameters() if is_adapter(name, ADAPTER)]
        policy.optimizer.zero_grad()
        return [annotated.old_logprobs_N, annotated.ref_logprobs_N, torch.tensor(policy.score_tokens(probe)), *found]

    alone, switched, done = read(), threading.Event(), threading.Event()

    def switch() -> None:
        while not done.is_set():
            with using_adapter(policy.adapter, "other"):
                switched.set()
                time.sleep(0.02)
            time.sleep(0.001)

    thread = threading.Thread(target=switch)
    thread.start()
    assert switched.wait(5)
    try:
        beside = read()
    finally:
        done.set()
        thread.join()
    assert all(torch.equal(one, other) for one, other in zip(alone, beside, strict=True))
