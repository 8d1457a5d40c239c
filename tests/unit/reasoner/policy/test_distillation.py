"""A teacher beside the policy: its log-probabilities, and the divergence from its distributions in parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import PreTrainedModel

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.distillation import generalized_jsd
from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig
from reasoner.model.load import byte_tokenizer
from reasoner.policy.distillation import DistillationPolicy
from reasoner.policy.policy import TrainingError
from reasoner.stages.gkd import divergence
from tests.unit.reasoner.policy.test_policy import SHAPE, make_batch
from tests.unit.reasoner.teachers import config_of, opened, save_teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher"))


def plain_logits(model: PreTrainedModel, batch: Batch, row: int) -> torch.Tensor:
    """Return [T, V] logits of a row's completion tokens by transformers' own forward pass."""
    with torch.no_grad():
        logits = model(batch.input_ids[row][None]).logits[0]
    return logits[int(batch.prompt_lengths_B[row]) - 1 : -1]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_teacher_logprobs_equal_transformers(teacher: Path, temperature: float, lora: dict | None) -> None:
    config = config_of(
        teacher,
        rollout={"temperature": temperature, "max_tokens": 40},
        model={"from_scratch": SHAPE, "dtype": "float32", "lora": lora},
    )
    policy = opened(config)
    batch = make_batch(config, rows=6)
    found = policy.annotate(batch, frozenset({"teacher_logprobs"})).teacher_logprobs_N
    assert found is not None
    plain = AutoModelForCausalLM.from_pretrained(teacher)
    for row, start in enumerate(batch.row_starts()[:-1]):
        logits = plain_logits(plain, batch, row) / temperature
        targets = batch.input_ids[row][int(batch.prompt_lengths_B[row]) :]
        expected = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
        assert found[start : start + len(targets)].tolist() == pytest.approx(expected.tolist(), abs=2e-5)


def test_the_context_is_no_longer_than_the_teachers(teacher: Path) -> None:
    assert opened(config_of(teacher)).context == 96
    config = resolve({"task": "arithmetic", "model": {"from_scratch": SHAPE}}).stages[0]
    policy, batch = opened(config), make_batch(config)
    with pytest.raises(TrainingError, match=r"set teacher\.path"):
        policy.annotate(batch, frozenset({"teacher_logprobs"}))


def test_another_tokenizer_is_refused_before_the_teachers_weights_are_read(teacher: Path, tmp_path: Path) -> None:
    for file in teacher.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    other = byte_tokenizer()
    other.add_tokens(["word"])
    other.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="'word' has no id here, id 259 there"):
        opened(config_of(tmp_path))


def gkd_config(teacher: Path, **changes: object) -> StageConfig:
    return config_of(teacher, method="gkd", rollout={"temperature": 0.8}, **changes)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_divergence_in_parts_equals_that_of_whole_logits(teacher: Path, beta: float) -> None:
    config = gkd_config(teacher, gkd={"beta": beta})
    policy = opened(config)
    assert isinstance(policy, DistillationPolicy)
    batch = replace(make_batch(config, rows=5), reward_B=torch.zeros(5, dtype=torch.float64))
    plain = AutoModelForCausalLM.from_pretrained(teacher)
    expected: list[torch.Tensor] = []
    for row in range(len(batch)):
        ids = batch.input_ids[row][None]
        start = int(batch.prompt_lengths_B[row]) - 1
        own = (policy.model(ids).logits[0, start:-1] / 0.8).log_softmax(-1)
        taught = (plain(ids).logits[0, start:-1, :259] / 0.8).log_softmax(-1).detach()
        expected.append(generalized_jsd(own, taught, beta=beta))
    whole_N = torch.cat(expected)
    (batch.weights_N * whole_N).sum().backward()
    wanted = [p.grad.clone() for p in policy.model.parameters() if p.grad is not None]
    for max_bytes in (1, 2 * 4 * 259 * 7, 1 << 30):
        policy.accelerator.unwrap_model(policy.scorer).logit_bytes = max_bytes
        assert policy.divergences(batch).tolist() == pytest.approx(whole_N.tolist(), abs=2e-5)
        policy.scorer.zero_grad()
        policy.accumulate(batch, divergence)
        found = [p.grad for p in policy.model.parameters() if p.grad is not None]
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert (one - other).abs().max() < 1e-5
    assert max(one.abs().max() for one in wanted) > 1e-4


def test_only_the_student_is_trained_and_saved(teacher: Path) -> None:
    config = gkd_config(teacher, optim={"lr": 1e-2})
    policy = opened(config)
    assert isinstance(policy, DistillationPolicy)
    names = [name for name, _ in policy.scorer.named_parameters()]
    assert len(names) == len(list(policy.model.named_parameters()))
    batch = make_batch(config, rows=5)
    before = policy.divergences(batch)
    taught = policy.annotate(batch, frozenset({"old_logprobs"})).old_logprobs_N
    assert taught is not None
    assert torch.isfinite(taught).all()
    policy.begin_step(1)
    for _ in range(8):
        policy.update(batch, divergence)
    after = policy.divergences(batch)
    assert after[batch.loss_mask_N].mean() < 0.7 * before[batch.loss_mask_N].mean()
    saved, plain = policy._teacher, AutoModelForCausalLM.from_pretrained(teacher)
    assert saved is not None
    for one, other in zip(saved.model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
