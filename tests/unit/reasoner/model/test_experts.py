"""Mixtures of experts: trained, adapted, sampled from, and saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM

from reasoner.algorithm.objective import make_objective
from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig
from reasoner.data.encode import batch_of, encode
from reasoner.engine import open_engine
from reasoner.engine.check import checksum
from reasoner.graders.reward_model import RewardModel
from reasoner.model.load import byte_tokenizer
from reasoner.model.lora import fingerprint, plain_weights
from reasoner.policy.layout import packed, padded, unpadded
from reasoner.policy.policy import Policy
from reasoner.policy.reward import RewardPolicy
from reasoner.preflight.memory import shape_of
from reasoner.records import Request, SamplingParams
from tests.unit.reasoner.model.test_families import alone, tiny
from tests.unit.reasoner.policy.test_policy import gradient, make_batch

MIXTURES = ("qwen3_moe", "mixtral", "qwen2_moe", "olmoe", "deepseek_v3")


@pytest.fixture(scope="module", params=MIXTURES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    tokenizer = byte_tokenizer()
    tiny(request.param, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def stage(folder: Path, **model: object) -> StageConfig:
    return resolve(
        {
            "task": "arithmetic",
            "model": {"path": str(folder), "dtype": "float32", **model},
            "rollout": {"max_tokens": 40},
            "optim": {"lr": 5e-3},
            "algorithm": {"kl_coef": 0.1},
        }
    ).stages[0]


def policy_of(config: StageConfig, checkpoint: Path | None = None) -> Policy:
    return Policy(config, accelerator=Accelerator(cpu=True), checkpoint=checkpoint)


def updated(policy: Policy) -> Policy:
    batch = make_batch(policy.config, group=4)
    names = ("weights_N", "advantages_N", "rollout_logprobs_N", "ref_logprobs_N")
    batch = replace(batch, old_logprobs_N=None, **{name: getattr(batch, name).float() for name in names})
    before = {name: tensor.clone() for name, tensor in policy.named_weights()}
    policy.update(batch, make_objective(policy.config))
    moved = {name for name, tensor in policy.named_weights() if not torch.equal(before[name], tensor)}
    assert any("experts" in name or "shared_expert" in name for name in moved)
    return policy


def test_every_layout_has_the_log_probabilities_and_the_gradient_of_each_row_alone(folder: Path) -> None:
    policy = policy_of(stage(folder))
    batch, objective = make_batch(policy.config, group=4), make_objective(policy.config)
    scorer = policy.accelerator.unwrap_model(policy.scorer)
    plain = alone(policy.model, batch)
    whole = gradient(policy, batch, objective, micro_tokens=1, layout=padded)
    assert whole[1].abs().max() > 1e-4
    for layout in (padded, lambda micro: packed(micro, 64), unpadded):
        with torch.no_grad():
            assert (scorer(layout(batch), 1.0).logprobs_N - plain).abs().max().item() < 1e-4
        loss, flat = gradient(policy, batch, objective, micro_tokens=100_000, layout=layout)
        assert loss == pytest.approx(whole[0], abs=1e-5)
        assert (flat - whole[1]).abs().max().item() < 1e-4 * whole[1].abs().max().item()
    assert policy.layout(make_batch(policy.config, group=4, longest_prompt=80)).spread is not None


@pytest.mark.parametrize("adapted", [False, True])
def test_what_is_trained_is_sampled_from_and_saved(folder: Path, tmp_path: Path, adapted: bool) -> None:
    config = stage(folder, **({"lora": {"rank": 4}} if adapted else {}))
    policy = updated(policy_of(config))
    engine = open_engine("hf", model_path=str(folder), max_model_len=128, model=policy.unwrapped())
    requests = [Request(prompt_ids=tuple(range(20, 20 + length)), seed=length) for length in (3, 30, 7)]
    for done in engine.generate(requests, SamplingParams(max_tokens=20)):
        ids = [*requests[done.index].prompt_ids, *done.completion.token_ids]
        scored = policy.score_tokens(ids)[-len(done.completion.token_ids) :]
        assert done.completion.rollout_logprobs == pytest.approx(scored, abs=1e-4)
    policy.save(tmp_path / "plain")
    ids = torch.randint(0, 256, (2, 30), generator=torch.Generator().manual_seed(0))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32).eval()
    with torch.no_grad():
        assert (plain(ids).logits - policy.model(ids).logits).abs().max().item() < 1e-4
    policy.save_trained(tmp_path / "checkpoint")
    again = policy_of(config, tmp_path / "checkpoint")
    assert checksum(again.named_weights()) == checksum(policy.named_weights())
    other = open_engine("hf", model_path=str(folder), max_model_len=128)
    assert other.load_weights(policy.named_weights(), 1) == checksum(policy.named_weights())
    assert other.score(ids[0].tolist()) == pytest.approx(policy.score_tokens(ids[0].tolist()), abs=1e-4)


def test_a_reward_model_is_saved_and_scores_as_it_was_trained(folder: Path, tmp_path: Path) -> None:
    raw = stage(folder).model_dump(mode="json") | {"method": "reward_model", "preferences": {"train": ["x.jsonl"]}}
    config = resolve({key: raw[key] for key in ("method", "model", "preferences")}).stages[0]
    policy = RewardPolicy(config, accelerator=Accelerator(cpu=True))
    if "olmoe" in folder.name:
        with pytest.raises(ConfigError, match="OlmoeConfig has no sequence-classification model"):
            policy.save(tmp_path)
        return
    policy.save(tmp_path)
    sides = [encode("say", text, policy.tokenizer, config.prompt, name=text) for text in ("yes", "no, not at all")]
    scores = [score for (score,) in RewardModel(str(tmp_path)).score(sides)]
    assert scores == pytest.approx(policy.rewards(batch_of(sides))[:, 0].tolist(), abs=1e-4)
    assert scores[0] != pytest.approx(scores[1], abs=1e-2)


def test_an_adapters_base_is_known_by_its_own_names(folder: Path) -> None:
    plain, adapted = policy_of(stage(folder)), policy_of(stage(folder, lora={"rank": 2}))
    assert {name for name, _ in plain_weights(adapted.model)} == {name for name, _ in plain_weights(plain.model)}
    assert fingerprint(adapted.model) == fingerprint(plain.model)


def test_the_estimate_of_memory_counts_every_expert(folder: Path) -> None:
    model = policy_of(stage(folder)).model
    found = shape_of(stage(folder).model)
    assert found is not None
    count = sum(parameter.numel() for parameter in model.parameters())
    assert 0.7 * count < found.parameters < 1.5 * count
