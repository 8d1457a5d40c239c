"""PPO's value model in its three forms, its gradients, its warm-up; KL control of the policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from reasoner.algorithm.advantage import get_estimator
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.group_baselines import gae_row
from reasoner.algorithm.kl_control import KLControl, KLState, row_kl
from reasoner.algorithm.loss import value_loss
from reasoner.algorithm.objective import loss_needs, make_objective
from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig
from reasoner.policy.layout import packed, padded, unpadded
from reasoner.policy.policy import Policy
from reasoner.policy.value import ActorCritic, value_metrics
from reasoner.train import with_reference
from tests.unit.reasoner.policy.test_policy import in_double, make_batch

SHAPE = {"hidden_size": 32, "layers": 2, "heads": 2, "max_positions": 128}
LORA = {"rank": 4, "alpha": 8.0}
FORMS = {
    "separate": {},
    "shared": {"value": {"trunk": "shared"}},
    "adapter": {"model": {"from_scratch": SHAPE, "dtype": "float32", "lora": LORA}},
}


def stage(form: str = "separate", **extra: object) -> StageConfig:
    raw: dict[str, object] = {
        "method": "ppo",
        "task": "arithmetic",
        "model": {"from_scratch": SHAPE, "dtype": "float32"},
        "rollout": {"max_tokens": 40},
    }
    return resolve({**raw, **FORMS[form], **extra}).stages[0]


def policy_of(form: str, **extra: object) -> ActorCritic:
    return ActorCritic(stage(form, **extra), accelerator=Accelerator(cpu=True))


def ready(policy: ActorCritic, *, double: bool = False) -> Batch:
    batch = replace(make_batch(policy.config), advantages_N=None)
    if not double:
        fields = ("weights_N", "rollout_logprobs_N", "old_logprobs_N", "ref_logprobs_N")
        batch = replace(batch, **{name: getattr(batch, name).float() for name in fields})
    batch = policy.annotate(batch, frozenset({"values"}))
    batch = get_estimator("gae").function(batch)
    if double:
        names = ("values_N", "returns_N", "advantages_N")
        batch = replace(batch, **{name: getattr(batch, name).double() for name in names})
    return batch


def test_ppo_is_grpo_with_other_defaults() -> None:
    found = stage()
    assert (found.algorithm.advantage, found.rollout.group_size) == ("gae", 1)
    kept = resolve({"method": "ppo", "task": "gsm8k", "rollout": {"group_size": 4}, "algorithm": {"advantage": "rloo"}})
    assert (kept.stages[0].algorithm.advantage, kept.stages[0].rollout.group_size) == ("rloo", 4)


def test_gae_equals_a_double_sum_in_numpy() -> None:
    generator = np.random.default_rng(0)
    rewards, values, gamma, lam = generator.normal(size=9), generator.normal(size=9), 0.97, 0.9
    following = np.append(values[1:], 0.0)
    delta = rewards + gamma * following - values
    expected = [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, 9)) for t in range(9)]
    found = gae_row(rewards.tolist(), values.tolist(), gamma=gamma, lam=lam)
    assert found.advantages == pytest.approx(expected, abs=1e-12)
    assert found.returns == pytest.approx((np.array(expected) + values).tolist(), abs=1e-12)


def test_clipped_value_loss_equals_numpy_in_value_and_gradient() -> None:
    policy = policy_of("shared")
    batch = ready(policy, double=True)
    generator = torch.Generator().manual_seed(5)
    assert batch.values_N is not None
    assert batch.returns_N is not None
    now_N = (batch.values_N + 0.6 * torch.randn(len(batch.row_N), generator=generator).double()).requires_grad_()
    found = value_loss(now_N, batch, clip_range=0.2).loss
    v, old, r, w = (t.detach().numpy() for t in (now_N, batch.values_N, batch.returns_N, batch.weights_N))
    bounded = old + np.clip(v - old, -0.2, 0.2)
    plain, clipped = (v - r) ** 2, (bounded - r) ** 2
    assert found.item() == pytest.approx((w * 0.5 * np.maximum(plain, clipped)).sum(), abs=1e-12)
    found.backward()
    inside = np.abs(v - old) < 0.2
    expected = np.where(plain >= clipped, v - r, np.where(inside, bounded - r, 0.0)) * w
    assert now_N.grad is not None
    assert now_N.grad.numpy() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("form", list(FORMS))
def test_gradients_do_not_change_with_micro_batches_or_layout(form: str) -> None:
    policy = policy_of(form)
    in_double(policy.scorer)
    with torch.no_grad():
        policy.scorer.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    batch, objective = ready(policy, double=True), make_objective(policy.config)

    def gradient(micro_tokens: int) -> torch.Tensor:
        policy.scorer.zero_grad()
        for micro in map(batch.select, batch.micro_rows(micro_tokens)):
            for terms in policy._losses(micro, objective):
                terms.loss.backward()
        return torch.cat([p.grad.flatten() for p in policy.scorer.parameters() if p.grad is not None])

    policy.layout = padded
    whole = gradient(100_000)
    assert whole.abs().max() > 1e-6
    assert (gradient(1) - whole).abs().max().item() < 1e-9
    policy.layout = lambda micro: packed(micro, 64)
    assert (gradient(100_000) - whole).abs().max().item() < 1e-9
    policy.layout = unpadded
    assert (gradient(100_000) - whole).abs().max().item() < 1e-9


@pytest.mark.parametrize("form", list(FORMS))
def test_values_are_read_where_the_token_is_predicted(form: str) -> None:
    policy = policy_of(form)
    with torch.no_grad():
        policy.scorer.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    batch = ready(policy)
    ids, prompt = batch.input_ids[0], int(batch.prompt_lengths_B[0])
    trunk = policy.scorer.trunk or policy.model
    with torch.no_grad():
        hidden = trunk.get_decoder()(input_ids=ids[None], use_cache=False).last_hidden_state[0]
        expected = policy.scorer.head(hidden[prompt - 1 : -1])[:, 0]
    assert batch.values_N is not None
    assert batch.values_N[: len(expected)].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("form", list(FORMS))
def test_the_warm_up_moves_the_value_alone(form: str) -> None:
    policy = policy_of(form, optim={"lr": 1e-2})
    batch = ready(policy)
    before = {name: tensor.clone() for name, tensor in policy.named_weights()}
    head = policy.scorer.head.bias.clone()
    stats = policy.update(batch, None)
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.named_weights())
    assert not torch.equal(head, policy.scorer.head.bias)
    assert stats.metrics["tokens"] == batch.loss_mask_N.sum()
    policy.update(ready(policy), make_objective(policy.config))
    assert any(not torch.equal(before[name], tensor) for name, tensor in policy.named_weights())


def test_an_adapter_of_the_value_leaves_policy_and_reference_alone() -> None:
    policy = policy_of("adapter", algorithm={"kl_coef": 0.1}, optim={"lr": 1e-2})
    batch = ready(policy)
    needs = frozenset({"old_logprobs", "ref_logprobs", "values"})
    first = policy.annotate(batch, needs)
    for _ in range(3):
        policy.update(ready(policy), None)
    after = policy.annotate(batch, needs)
    assert torch.equal(first.old_logprobs_N, after.old_logprobs_N)
    assert torch.equal(first.ref_logprobs_N, after.ref_logprobs_N)
    assert not torch.equal(first.values_N, after.values_N)


@pytest.mark.parametrize("form", list(FORMS))
def test_a_checkpoint_brings_the_value_back(form: str, tmp_path: Path) -> None:
    policy = policy_of(form, optim={"lr": 1e-2})
    policy.update(ready(policy), make_objective(policy.config))
    policy.save_trained(tmp_path)
    back = ActorCritic(policy.config, accelerator=Accelerator(cpu=True), checkpoint=tmp_path)
    for name, tensor in policy.scorer.state_dict().items():
        assert torch.equal(tensor, back.scorer.state_dict()[name]), name


def test_values_cost_no_second_pass_on_a_shared_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of("shared")
    batch = ready(policy)
    passes: list[str] = []
    original = policy._pass
    monkeypatch.setattr(policy, "_pass", lambda micro, part: passes.append(part) or original(micro, part))
    annotated = policy.annotate(batch, frozenset({"values", "old_logprobs"}))
    assert passes == ["both"] * len(policy.planner().passes(batch))
    plain = Policy(policy.config, accelerator=Accelerator(cpu=True)).annotate(batch, frozenset({"old_logprobs"}))
    assert torch.allclose(annotated.old_logprobs_N, plain.old_logprobs_N, atol=1e-6)


def test_explained_variance_of_the_values_before_the_step() -> None:
    batch = ready(policy_of("shared"))
    assert batch.returns_N is not None
    perfect = value_metrics(replace(batch, values_N=batch.returns_N.clone()))
    assert perfect["value/explained_variance"] == pytest.approx(1.0)
    constant = value_metrics(replace(batch, values_N=torch.zeros_like(batch.returns_N)))
    assert constant["value/explained_variance"] == pytest.approx(0.0, abs=1e-6)


# ------------------------------------------------------------------------------------------------------ the control


def kl_batch() -> Batch:
    return make_batch(stage())


def slow_row_kl(batch: Batch) -> list[float]:
    sums = [0.0] * len(batch)
    for row, old, ref, kept in zip(
        batch.row_N.tolist(), batch.old_logprobs_N, batch.ref_logprobs_N, batch.loss_mask_N, strict=True
    ):
        sums[row] += float(old - ref) if kept else 0.0
    return sums


def test_kl_in_the_reward_of_a_group_estimator_is_taken_off_each_completion() -> None:
    algorithm = {"advantage": "rloo", "kl_coef": 0.3, "kl_in": "reward"}
    section = stage(algorithm=algorithm, rollout={"group_size": 2}).algorithm
    batch = kl_batch()
    assert row_kl(batch).tolist() == pytest.approx(slow_row_kl(batch), abs=1e-6)
    found = KLControl(section, KLState()).estimate(batch, get_estimator("rloo"))
    shifted = batch.reward_B - 0.3 * torch.tensor(slow_row_kl(batch), dtype=torch.float64)
    expected = get_estimator("rloo").function(replace(batch, reward_B=shifted))
    assert found.advantages_N.tolist() == pytest.approx(expected.advantages_N.tolist(), abs=1e-5)
    assert KLControl(section, KLState()).loss_coef == 0.0


def test_kl_in_the_reward_of_gae_is_taken_off_each_token() -> None:
    section = stage(algorithm={"kl_coef": 0.3, "kl_in": "reward"}).algorithm
    batch = replace(kl_batch(), values_N=torch.zeros(len(kl_batch().row_N)))
    found = KLControl(section, KLState()).estimate(batch, get_estimator("gae"))
    expected = get_estimator("gae").function(batch, kl_coef=0.3)
    assert torch.equal(found.advantages_N, expected.advantages_N)
    assert not torch.equal(found.advantages_N, get_estimator("gae").function(batch).advantages_N)


def test_the_coefficient_follows_its_target_and_survives_a_checkpoint() -> None:
    section = stage(algorithm={"kl_coef": 0.1, "kl_target": 1e-6, "kl_horizon": 8}).algorithm
    control, batch = KLControl(section, KLState()), kl_batch()
    shifted = replace(batch, ref_logprobs_N=batch.old_logprobs_N - 1.0)
    figures = control.update(shifted, step=1)
    assert figures["kl/coef"] == 0.1
    assert control.coef == pytest.approx(0.1 * (1 + 0.2 * len(batch) / 8))
    assert KLControl(section, replace(control.state)).coef == control.coef


@pytest.mark.parametrize("coef", [0.1, 0.0])
def test_a_budget_knows_the_last_policy_within_it(coef: float) -> None:
    config = stage(algorithm={"kl_coef": coef, "kl_budget": 5.0})
    assert "ref_logprobs" in loss_needs(config)
    section = config.algorithm
    control, batch = KLControl(section, KLState()), kl_batch()
    near = replace(batch, ref_logprobs_N=batch.old_logprobs_N - 0.01)
    far = replace(batch, ref_logprobs_N=batch.old_logprobs_N - 9.0)
    figures = control.update(near, step=4)
    assert figures["kl/ref"] == pytest.approx(0.01 * float(batch.loss_mask_N.sum()) / len(batch), rel=1e-3)
    assert (control.state.over_budget, control.state.last_within) == (False, 3)
    control.update(far, step=5)
    assert (control.state.over_budget, control.state.last_within) == (True, 3)


def test_a_leash_with_nothing_to_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="kl_target adapts a coefficient"):
        stage(algorithm={"kl_target": 5.0})
    with pytest.raises(ConfigError, match=r"set by algorithm\.kl_coef with kl_in: reward"):
        stage(algorithm={"advantage_options": {"kl_coef": 0.1}})


@pytest.mark.parametrize("form", list(FORMS))
def test_the_kl_of_an_unpenalised_policy_is_measured_on_some_rows_if_the_reward_is_learned(form: str) -> None:
    """At the start it is 0 on exactly the sampled rows; nothing else of the batch is scored with the reference."""
    parts = {"parts": [{"verifier": "reward-model", "options": {"model": "rm"}}, {"verifier": "math"}]}
    policy = policy_of(form, reward={"name": "weighted", "options": parts}, watch={"kl_rows": 2})
    assert policy.config.watched_kl_rows == 2
    assert "ref_logprobs" not in loss_needs(policy.config)
    batch = replace(make_batch(policy.config), old_logprobs_N=None, ref_logprobs_N=None)
    batch = policy.annotate(batch, frozenset({"old_logprobs"}))
    sample = with_reference(batch, policy, rows=2)
    assert len(sample) == 2 < len(batch)
    assert sample.ref_logprobs_N is not None
    assert float((sample.ref_logprobs_N - sample.old_logprobs_N).abs().max()) < 1e-5
    control = KLControl(policy.config.algorithm, KLState())
    assert control.update(sample, step=1)["kl/ref"] == pytest.approx(0.0, abs=1e-4)
    nothing = replace(batch, loss_mask_N=torch.zeros_like(batch.loss_mask_N))
    assert control.update(with_reference(nothing, policy, rows=2), step=1) == {}


@pytest.mark.parametrize(
    "changed",
    [
        {"reward": {"name": "math"}},
        {"reward": None},
        {"reward": {"name": "reward-model"}, "watch": {"kl_rows": 0}},
        {"reward": {"name": "reward-model"}, "algorithm": {"kl_coef": 0.1}},
    ],
)
def test_no_rows_are_taken_where_nothing_is_learned_or_all_rows_are_measured(changed: dict[str, object]) -> None:
    assert stage(**changed).watched_kl_rows == 0
