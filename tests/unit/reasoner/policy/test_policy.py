"""The gradient does not depend on the layout of rows: invariant 4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MethodType

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import PreTrainedModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from reasoner.algorithm.advantage import get_estimator
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.loss import IMPORTANCE, POLICY_LOSSES
from reasoner.algorithm.objective import make_objective
from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.sections import BatchSection
from reasoner.model.families import full_attention
from reasoner.model.forward import UNPADDED, allow_unpadded, hidden_states, takes_unpadded
from reasoner.policy.layout import packed, padded, unpadded
from reasoner.policy.optimizer import rate_of_step, schedule_factor
from reasoner.policy.passes import Planner, Sizes
from reasoner.policy.policy import Policy, TokenScorer, TrainingError

SHAPE = {"hidden_size": 32, "layers": 2, "heads": 2, "max_positions": 128}


def config_with(**algorithm: object):
    return resolve(
        {
            "task": "arithmetic",
            "model": {"from_scratch": SHAPE, "dtype": "float32"},
            "rollout": {"max_tokens": 40},
            "algorithm": algorithm,
        }
    ).stages[0]


def make_batch(config, *, rows: int = 8, seed: int = 0, group: int = 1, longest_prompt: int = 12) -> Batch:
    """Rows of random lengths; `group` consecutive ones have the same prompt."""
    generator = torch.Generator().manual_seed(seed)
    prompts = [int(torch.randint(1, longest_prompt, (1,), generator=generator)) for _ in range(rows)]
    prompts = [prompts[row // group * group] for row in range(rows)]
    lengths = [int(torch.randint(1, 40, (1,), generator=generator)) for _ in range(rows)]
    ids = tuple(torch.randint(0, 256, (p + n,), generator=generator) for p, n in zip(prompts, lengths, strict=True))
    ids = tuple(torch.cat([ids[row // group * group][: prompts[row]], ids[row][prompts[row] :]]) for row in range(rows))
    row_N = torch.repeat_interleave(torch.arange(rows), torch.tensor(lengths))
    count = len(row_N)
    mask_N = torch.rand(count, generator=generator) > 0.1
    batch = Batch(
        input_ids=ids,
        prompt_lengths_B=torch.tensor(prompts),
        row_N=row_N,
        loss_mask_N=mask_N,
        reward_B=torch.rand(rows, generator=generator, dtype=torch.float64),
        group_B=torch.arange(rows) // 4,
        weights_N=torch.zeros(count),
        rollout_logprobs_N=-5.5 + 0.3 * torch.randn(count, generator=generator),
        old_logprobs_N=-5.5 + 0.3 * torch.randn(count, generator=generator),
        ref_logprobs_N=-5.5 + 0.3 * torch.randn(count, generator=generator),
    ).reweighed(config)
    batch = get_estimator("grpo").function(batch)
    doubles = {
        name: getattr(batch, name).double()
        for name in ("weights_N", "rollout_logprobs_N", "old_logprobs_N", "ref_logprobs_N", "advantages_N")
    }
    return replace(batch, **doubles)


def double_policy(config) -> Policy:
    policy = Policy(config, accelerator=Accelerator(cpu=True))
    in_double(policy.model)
    return policy


def in_double(module: torch.nn.Module) -> None:
    """Use float64 for everything, including the norms, which otherwise round to float32 whatever the weights are."""

    def norm(self: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    module.double()
    for part in module.modules():
        if isinstance(part, Qwen2RMSNorm):
            part.forward = MethodType(norm, part)


def gradient(policy: Policy, batch: Batch, objective, *, micro_tokens: int, layout) -> tuple[float, torch.Tensor]:
    policy.scorer.zero_grad()
    scorer: TokenScorer = policy.accelerator.unwrap_model(policy.scorer)
    total = 0.0
    for micro in map(batch.select, batch.micro_rows(micro_tokens)):
        terms = objective(scorer(layout(micro), policy.temperature), micro)
        terms.loss.backward()
        total += terms.loss.item()
    return total, torch.cat([p.grad.flatten() for p in scorer.parameters() if p.grad is not None])


@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant"])
@pytest.mark.parametrize(
    ("loss", "importance"),
    [*((name, "truncated") for name in POLICY_LOSSES), *(("clip", name) for name in IMPORTANCE)],
)
def test_gradient_does_not_change_with_micro_batches_layout_or_order(
    loss: str, importance: str, aggregation: str
) -> None:
    config = config_with(loss=loss, importance=importance, aggregation=aggregation, kl_coef=0.05, entropy_coef=0.01)
    policy, batch, objective = double_policy(config), make_batch(config, group=4), make_objective(config)
    whole = gradient(policy, batch, objective, micro_tokens=100_000, layout=padded)
    shuffled = batch.select([5, 2, 7, 0, 1, 6, 3, 4])
    variants = {
        "one row at a time": gradient(policy, batch, objective, micro_tokens=1, layout=padded),
        "packed": gradient(policy, batch, objective, micro_tokens=100_000, layout=lambda m: packed(m, 64)),
        "one long pack": gradient(policy, batch, objective, micro_tokens=100_000, layout=lambda m: packed(m, None)),
        "other order": gradient(policy, shuffled, objective, micro_tokens=90, layout=padded),
        "unpadded": gradient(policy, batch, objective, micro_tokens=100_000, layout=unpadded),
        "unpadded, other order": gradient(policy, shuffled, objective, micro_tokens=90, layout=unpadded),
    }
    assert whole[1].abs().max() > 1e-6
    for name, (total, flat) in variants.items():
        assert total == pytest.approx(whole[0], abs=1e-9), name
        assert (flat - whole[1]).abs().max().item() < 1e-9, name


def test_every_layout_equals_each_row_alone() -> None:
    config = config_with()
    policy, batch = double_policy(config), make_batch(config, group=2)
    scorer = policy.accelerator.unwrap_model(policy.scorer)
    alone = torch.cat([scorer(padded(batch.select([row])), 0.7).logprobs_N for row in range(len(batch))])
    for layout in (padded(batch), packed(batch, 50), packed(batch, None), unpadded(batch), unpadded(batch, ends=True)):
        assert (scorer(layout, 0.7).logprobs_N - alone).abs().max().item() < 1e-12


def test_a_shared_prompt_is_run_once_and_nothing_is_padding() -> None:
    batch = make_batch(config_with(), group=4)
    for ends in (False, True):
        forward = unpadded(batch, ends=ends)
        assert forward.position_ids is not None
        prompts = sum(int(batch.prompt_lengths_B[row]) for row in (0, 4))
        completions = len(batch.row_N) - (0 if ends else len(batch))
        assert forward.input_ids.shape == forward.position_ids.shape == (1, prompts + completions)
        assert int(forward.position_ids.max()) == max(map(len, batch.input_ids)) - (1 if ends else 2)
    last = [int(ids[-1]) for ids in batch.input_ids]
    assert forward.input_ids[0, forward.ends_B].tolist() == last


def test_rows_without_a_completion_or_with_one_token_are_run_too() -> None:
    config = config_with()
    policy, batch = double_policy(config), make_batch(config, group=4)
    starts = batch.row_starts()
    kept = [batch.prompt_lengths_B[0], batch.prompt_lengths_B[1] + 1, *map(len, batch.input_ids[2:])]
    index_N = torch.cat([torch.tensor([starts[1]]), torch.arange(starts[2], starts[-1])])
    batch = replace(
        batch,
        input_ids=tuple(ids[: int(n)] for ids, n in zip(batch.input_ids, kept, strict=True)),
        row_N=batch.row_N[index_N],
    )
    decoder = policy.model.get_decoder()
    for ends in (False, True):
        one, other = unpadded(batch, ends=ends), padded(batch)
        assert one.targets_N.tolist() == other.targets_N.tolist()
        for places in ("flat_positions_N", "ends_B") if ends else ("flat_positions_N",):
            found = [hidden_states(decoder, forward, getattr(forward, places)) for forward in (one, other)]
            assert (found[0] - found[1]).abs().max().item() < 1e-12


def unpadding_policy(*, batch: dict[str, object] | None = None, **model: object) -> Policy:
    config = config_with()
    changed = {"model": config.model.model_copy(update=model), "batch": BatchSection(**batch or {})}
    return Policy(config.model_copy(update=changed), accelerator=Accelerator(cpu=True))


def test_rows_run_without_padding_where_that_saves_and_the_model_allows_it() -> None:
    long, alone = make_batch(config_with(), group=4, longest_prompt=80), make_batch(config_with(), longest_prompt=80)
    for model in ({}, {"gradient_checkpointing": True}):
        policy = unpadding_policy(**model)
        assert policy.layout(long).spread is not None
        assert policy.layout(alone).spread is not None
        assert policy.layout(alone.select([0])).spread is None
    assert unpadding_policy(batch={"layout": "padded"}).layout(long).spread is None
    assert unpadding_policy(attention="eager").layout(long).spread is None


def test_attention_that_does_not_know_spreads_fails_instead_of_being_wrong() -> None:
    config = config_with()
    policy, batch = double_policy(config), make_batch(config, group=4)
    policy.model.config._attn_implementation = "sdpa"
    forward = unpadded(batch)
    with pytest.raises(RuntimeError, match="must match"):
        hidden_states(policy.model.get_decoder(), forward, forward.flat_positions_N)


SMALL = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {
    **{"num_key_value_heads": 4, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1},
    **{"num_experts_per_tok": 2, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8},
    **{"v_head_dim": 12, "first_k_dense_replace": 1, "moe_intermediate_size": 32},
}


def family(name: str, **shape: object) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **{**SMALL, **shape})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    allow_unpadded(model)
    return model


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, {}) for name in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt2")),
        *((name, {}) for name in ("olmo2", "smollm3", "granite", "cohere2", "glm4", "opt", "gpt_bigcode")),
        *((name, EXPERTS) for name in ("mixtral", "qwen3_moe")),
        ("deepseek_v3", LATENT),
    ],
)
@torch.no_grad()
def test_every_family_of_models_takes_passes_without_padding(name: str, shape: dict[str, object]) -> None:
    model, batch = family(name, **shape), make_batch(config_with(), group=4)
    assert takes_unpadded(model, 256)
    one, other = unpadded(batch), padded(batch)
    found = [hidden_states(model.get_decoder(), forward, forward.flat_positions_N) for forward in (one, other)]
    assert (found[0] - found[1]).abs().max().item() < 1e-4 * found[1].abs().max().item()


def test_a_model_whose_layers_do_not_hand_the_spread_on_says_what_to_set() -> None:
    forward = unpadded(make_batch(config_with(), group=4))
    with pytest.raises(ConfigError, match="layout must be padded"):
        hidden_states(family("nemotron").get_decoder(), forward, forward.flat_positions_N)


def test_the_saved_config_does_not_name_our_attention(tmp_path: Path) -> None:
    policy = unpadding_policy()
    policy.save(tmp_path)
    assert UNPADDED not in (tmp_path / "config.json").read_text()


def test_windows_shorter_than_the_context_are_no_full_attention() -> None:
    from transformers import MistralConfig, Qwen2Config

    assert full_attention(MistralConfig(sliding_window=64), 64)
    assert not full_attention(MistralConfig(sliding_window=64), 65)
    assert full_attention(Qwen2Config(), 100_000)
    assert full_attention(Qwen2Config(sliding_window=64, use_sliding_window=False), 65)


def test_passes_hold_every_row_once_within_the_budget_and_run_fewer_tokens() -> None:
    batch = make_batch(config_with(), rows=48, group=8, longest_prompt=80)
    for budget in (100, 600, 100_000):
        policy = unpadding_policy(batch={"micro_tokens": budget})
        planner = policy.planner()
        sizes, passes = planner.sizes(batch), planner.passes(batch)
        assert sorted(row for rows in passes for row in rows) == list(range(48))
        for rows in passes:
            unpads = planner.unpads(sizes, rows)
            assert len(rows) == 1 or planner.memory_tokens(sizes, rows) <= budget
            forward = policy.layout(batch.select(rows))
            assert (forward.spread is not None) == unpads
            assert forward.input_ids.numel() == (sizes.unpadded(rows) if unpads else sizes.padded(rows))
        assert planner.cost(sizes, passes) <= planner.cost(sizes, list(batch.micro_rows(budget)))
    assert len({sizes.prompt_B[row] for row in Planner(max_tokens=600, gain=0.95).passes(batch)[0]}) <= 3


def test_rows_of_a_prompt_go_to_one_process_where_that_runs_less() -> None:
    batch = make_batch(config_with(), rows=32, group=8, longest_prompt=80)
    prompt_B = Sizes.of(batch).prompt_B

    def processes_of(prompt: int, gain: float | None) -> int:
        dealt = Planner(max_tokens=2048, gain=gain).distribute(batch, 2)
        assert sorted(row for passes in dealt for rows in passes for row in rows) == list(range(32))
        return sum(any(prompt_B[row] == prompt for rows in passes for row in rows) for passes in dealt)

    assert [processes_of(prompt, 0.95) for prompt in range(4)] == [1, 1, 1, 1]
    assert max(processes_of(prompt, None) for prompt in range(4)) == 2


def test_logprobs_and_entropy_against_a_plain_softmax() -> None:
    config = config_with()
    policy, batch = double_policy(config), make_batch(config, rows=1)
    ids, prompt = batch.input_ids[0], int(batch.prompt_lengths_B[0])
    logits = policy.model(ids[None]).logits[0, prompt - 1 : -1] / 0.6
    reference = logits.log_softmax(-1)
    scores = policy.accelerator.unwrap_model(policy.scorer)(padded(batch), 0.6)
    assert torch.allclose(scores.logprobs_N, reference.gather(1, ids[prompt:, None])[:, 0], atol=1e-12)
    assert torch.allclose(scores.entropy_N, -(reference.exp() * reference).sum(-1), atol=1e-12)


def on_policy(policy: Policy, batch: Batch) -> Batch:
    """Return the rows as if this policy had just sampled them: every ratio is 1."""
    logprobs_N = policy.annotate(batch, frozenset({"old_logprobs"})).old_logprobs_N
    assert logprobs_N is not None
    return replace(batch, old_logprobs_N=None, rollout_logprobs_N=logprobs_N.double())


def objective_by_hand(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Return the objective of a step, row by row: the mean of A log p over the trained tokens of the whole step."""
    assert batch.advantages_N is not None
    total, start = torch.zeros((), dtype=torch.float64), 0
    for ids, prompt in zip(batch.input_ids, batch.prompt_lengths_B.tolist(), strict=True):
        logprobs = model(ids[None]).logits[0].log_softmax(-1)
        for at in range(prompt, len(ids)):
            if batch.loss_mask_N[start]:
                total = total + batch.advantages_N[start] * logprobs[at - 1, ids[at]]
            start += 1
    return total / batch.loss_mask_N.sum()


@pytest.mark.parametrize("max_grad_norm", [1e9, 0.05])
def test_an_update_is_one_adamw_step_up_the_objective_by_hand(max_grad_norm: float) -> None:
    config = config_with()
    changed = {"lr": 1e-4, "weight_decay": 0.1, "eps": 1e-3, "max_grad_norm": max_grad_norm}
    config = config.model_copy(update={"optim": config.optim.model_copy(update=changed)})
    policy = double_policy(config)
    batch = on_policy(policy, make_batch(config))
    before = {name: tensor.detach().clone() for name, tensor in policy.named_weights()}
    value = objective_by_hand(policy.model, batch)
    value.backward()
    slopes = {name: parameter.grad.clone() for name, parameter in policy.model.named_parameters()}
    policy.model.zero_grad()
    norm = torch.cat([slope.flatten() for slope in slopes.values()]).norm().item()
    assert (norm > max_grad_norm) == (max_grad_norm < 1)
    stats = policy.update(batch, make_objective(config))
    assert policy.version == 1
    assert stats.lr == 1e-4
    assert stats.grad_norm == pytest.approx(norm, rel=1e-5)
    for name, after in policy.named_weights():
        slope = slopes[name] * min(1.0, max_grad_norm / norm)
        decay = 0.1 if slope.ndim > 1 else 0.0
        # the first step's moments, freed of their bias, are the slope and its square: arXiv:1711.05101, algorithm 2
        expected = before[name] * (1 - 1e-4 * decay) + 1e-4 * slope / (slope.abs() + 1e-3)
        assert (after - expected).abs().max().item() < 1e-9, name
    with torch.no_grad():
        climbed = objective_by_hand(policy.model, batch) - value
    assert climbed.item() > 0


@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant"])
def test_portions_of_a_step_have_the_gradient_of_the_whole(aggregation: str) -> None:
    config = config_with(aggregation=aggregation)
    portioned = config.model_copy(update={"grading": config.grading.model_copy(update={"portions": 3})})
    whole = make_batch(config)
    found: list[tuple[float, torch.Tensor]] = []

    def stepping(policy: Policy, stats) -> None:
        gradient = torch.cat([p.grad.flatten() for p in policy.scorer.parameters() if p.grad is not None])
        found.append((stats, gradient))

    for parts in ([range(8)], [range(3), range(3, 7), range(7, 8)]):
        policy = double_policy(config)
        batches = [whole.select(part) for part in parts]
        if len(parts) > 1:
            batches = [batch.reweighed(config, rows=99, tokens=12_345) for batch in batches]
        for batch in batches:
            policy.accumulate(batch, make_objective(config))
        joined = Batch.joined(batches)
        assert torch.equal(torch.cat(joined.input_ids), torch.cat(whole.input_ids))
        assert torch.equal(joined.row_N, whole.row_N)
        scale = joined.whole_step_scale(portioned if len(parts) > 1 else config)
        policy._clip_gradients = lambda metrics, policy=policy: stepping(policy, metrics) or 1.0
        stats = policy.step(scale=scale)
        found[-1] = (stats.loss, found[-1][1])
        assert all(parameter.grad is None for parameter in policy.scorer.parameters())
    (loss, gradient), (loss_again, gradient_again) = found
    assert loss_again == pytest.approx(loss, rel=1e-6)  # weights are float32
    assert (gradient_again - gradient).abs().max().item() < 1e-6 * gradient.abs().max().item()


def test_nan_loss_stops_and_leaves_the_weights() -> None:
    config = config_with()
    policy = Policy(config, accelerator=Accelerator(cpu=True))
    batch = make_batch(config)
    broken = replace(batch, advantages_N=torch.full_like(batch.advantages_N, float("nan")))
    before = {name: tensor.clone() for name, tensor in policy.named_weights()}
    with pytest.raises(TrainingError, match=r"must be finite; got loss nan.*was not applied"):
        policy.update(broken, make_objective(config))
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.named_weights())
    assert policy.version == 0


def test_tied_weights_are_named_once() -> None:
    policy = Policy(config_with(), accelerator=Accelerator(cpu=True))
    names = [name for name, _ in policy.named_weights()]
    assert "lm_head.weight" not in names
    assert len(names) == len(set(names))


def test_schedules() -> None:
    config = resolve({"task": "gsm8k", "steps": 10, "optim": {"schedule": "linear", "warmup_steps": 2}}).stages[0]
    assert [schedule_factor(config, update) for update in (0, 1, 2, 6, 10)] == [0.5, 1.0, 1.0, 0.5, 0.0]
    optim = {"schedule": "linear", "warmup_steps": 2, "updates_per_step": 2, "inner_epochs": 2}
    config = resolve({"task": "gsm8k", "steps": 10, "optim": optim}).stages[0]
    # warmup_steps are training steps, of four updates each
    assert [schedule_factor(config, update) for update in (0, 3, 7, 8, 24, 40)] == [0.125, 0.5, 1.0, 1.0, 0.5, 0.0]
    assert [rate_of_step(config, step) / config.optim.lr for step in (1, 3, 7)] == [0.125, 1.0, 0.5]


def test_select_renumbers_rows_and_keeps_tokens() -> None:
    batch = make_batch(config_with())
    part = batch.select([3, 1])
    starts = batch.row_starts()
    assert part.row_N.unique().tolist() == [0, 1]
    assert torch.equal(part.rollout_logprobs_N[part.row_N == 0], batch.rollout_logprobs_N[starts[3] : starts[4]])
    assert torch.equal(part.input_ids[1], batch.input_ids[1])
    assert part.group_B.tolist() == [0, 0]


def test_micro_batches_hold_every_row_once_within_the_budget() -> None:
    batch = make_batch(config_with())
    parts = list(batch.micro_rows(90))
    assert sorted(row for part in parts for row in part) == list(range(len(batch)))
    for part in parts:
        longest = max(len(batch.input_ids[row]) for row in part)
        assert len(part) == 1 or longest * len(part) <= 90


def test_loaded_weights_lie_as_fresh_ones_do(tmp_path: Path) -> None:
    config = config_with()
    policy = Policy(config, accelerator=Accelerator(cpu=True))
    policy.save_trained(tmp_path)
    back = Policy(config, accelerator=Accelerator(cpu=True), checkpoint=tmp_path)
    assert {parameter.data_ptr() % 64 for parameter in back.model.parameters()} == {0}
