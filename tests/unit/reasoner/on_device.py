"""The trainer's code paths on the CPU and on the pretend accelerator of tests/pretend.py: equal numbers, or the fault.

`python -m tests.unit.reasoner.on_device FILE [CASE ...]` writes {case: fault or null} as JSON, in a process of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from reasoner.algorithm.advantage import ESTIMATORS, get_estimator
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.importance import IMPORTANCE
from reasoner.algorithm.kl import KL
from reasoner.algorithm.loss import POLICY_LOSSES
from reasoner.algorithm.objective import make_objective
from reasoner.algorithm.pairwise import DPO_LOSSES
from reasoner.config.load import resolve
from reasoner.config.sections import DpoSection
from reasoner.config.stage import StageConfig
from reasoner.data.pairs import encode_pairs, pair_batch
from reasoner.engine.check import Checksum, check_checksum, check_probe, probe_ids
from reasoner.engine.hf import HfEngine
from reasoner.graders.judge_model import ForwardBackend
from reasoner.graders.reward_model import RewardModel
from reasoner.model.shared_base import SharedBase
from reasoner.policy.checkpoint import restore_training_state, save_checkpoint
from reasoner.policy.kinds import PairPolicy
from reasoner.policy.policy import Policy, UpdateStats
from reasoner.policy.progress import Progress
from reasoner.policy.reward import RewardPolicy
from reasoner.policy.value import ActorCritic
from reasoner.records import Request, SamplingParams
from reasoner.stages.dpo import dpo_objective
from reasoner.stages.pipeline import run_stage
from reasoner.stages.reward_model import bradley_terry_objective
from reasoner.stages.sft import negative_log_likelihood
from tests.unit.reasoner.policy.test_policy import SHAPE, make_batch
from tests.unit.reasoner.stages.test_reward_model import PAIRS
from verifiers.judge.budget import Meter
from verifiers.judge.chat import ChatRequest, Reply, Turn

LORA = {"rank": 4, "alpha": 8.0}
Numbers = list[Tensor]
Case = Callable[[torch.device, Path], Numbers]


def stage(**changes: Any) -> StageConfig:
    model = {"from_scratch": SHAPE, "dtype": "float32"} | changes.pop("model", {})
    raw = {"method": "grpo", "task": "arithmetic", "rollout": {"max_tokens": 40}, "optim": {"lr": 1e-3, "eps": 1e-4}}
    return resolve(raw | changes | {"model": model}).stages[0]


def accelerator_of(device: torch.device) -> Accelerator:
    found = Accelerator(cpu=True)
    found.state.device = device  # pyright: ignore[reportAttributeAccessIssue]
    return found


def policy_of(device: torch.device, config: StageConfig, kind: type[Policy] = Policy, **more: Any) -> Any:
    torch.manual_seed(0)
    policy = kind(config, accelerator=accelerator_of(device), **more)
    assert {parameter.device for parameter in policy.scorer.parameters()} == {device}
    return policy


def floats(batch: Batch) -> Batch:
    names = ("weights_N", "rollout_logprobs_N", "old_logprobs_N", "ref_logprobs_N", "advantages_N")
    return replace(batch, **{name: getattr(batch, name).float() for name in names})


def rows_of(config: StageConfig, *, rows: int = 8, longest_prompt: int = 60) -> Batch:
    return floats(make_batch(config, rows=rows, group=4, longest_prompt=longest_prompt))


def after(policy: Policy, *stats: UpdateStats) -> Numbers:
    """Return the results of the updates, and the weights sent to the engine."""
    figures = [torch.tensor([one.loss, one.grad_norm, *one.metrics.values()]) for one in stats]
    return figures + [tensor.detach().cpu().clone() for _, tensor in policy.named_weights()]


def updates(policy: Policy, batch: Batch, *, needs: frozenset[str], count: int = 2) -> Numbers:
    batch = policy.annotate(batch, needs)
    numbers = [tensor for tensor in (batch.old_logprobs_N, batch.ref_logprobs_N, batch.values_N) if tensor is not None]
    if "values" in needs:
        batch = get_estimator("gae").function(batch)
    stats = [policy.update(batch, make_objective(policy.config)) for _ in range(count)]
    return numbers + after(policy, *stats)


def the_device(device: torch.device, _: Path) -> Numbers:
    """Distinguish operations that CUDA accepts from those that it refuses, and differentiate as the CPU does."""
    held, here = torch.arange(12.0, device=device).view(3, 4), torch.arange(12.0).view(3, 4)
    index = torch.tensor([2, 0])
    moving = nn.Linear(4, 2)
    before = list(moving.parameters())
    moving.to(device)
    assert all(ours is theirs for ours, theirs in zip(before, moving.parameters(), strict=True))
    held.requires_grad_()
    taken = (held * torch.tensor(2.0))[index].log_softmax(-1).pow(2).sum()
    taken.backward()
    assert held.grad is not None
    refused: list[Callable[[], object]] = [
        lambda: held + here,
        lambda: held @ here.T,
        lambda: torch.cat([held, here]),
        lambda: held.gather(1, torch.zeros(3, 1, dtype=torch.long)),
        lambda: held.index_select(0, index),
        lambda: nn.functional.embedding(index, held),
        lambda: torch.where(here > 0, held, 0.0),
        lambda: here[index.to(device)],
        lambda: here.index_add(0, index, held[:2]),
        lambda: moving(here),
        lambda: held.detach().numpy(),
        lambda: torch.rand(3, device=device, generator=torch.Generator()),
    ]
    for number, refuse in enumerate(refused if device.type != "cpu" else ()):
        try:
            refuse()
        except (RuntimeError, TypeError):
            continue
        raise AssertionError(f"taken, and CUDA would not: {number}")
    return [held.detach().cpu(), held.grad.cpu(), taken.detach().cpu(), torch.tensor(held.tolist())]


# --------------------------------------------------------------------------------------------------- the trainer

BOTH = frozenset({"old_logprobs", "ref_logprobs"})


def grpo(device: torch.device, _: Path, **changes: Any) -> Numbers:
    config = stage(**({"algorithm": {"kl_coef": 0.05, "entropy_coef": 0.01}} | changes))
    return updates(policy_of(device, config), rows_of(config), needs=BOTH)


def many_tokens(device: torch.device, _: Path, **algorithm: Any) -> Numbers:
    """More than the logits of a chunk."""
    config = stage(algorithm=algorithm, batch={"logit_megabytes": 1})
    return updates(policy_of(device, config), rows_of(config, rows=64), needs=BOTH - {"ref_logprobs"}, count=1)


def losses(device: torch.device, _: Path) -> Numbers:
    """Every loss, correction, divergence and estimator by name."""
    found: Numbers = []
    variants = [*({"loss": name} for name in POLICY_LOSSES), *({"importance": name} for name in IMPORTANCE)]
    variants += [{"kl": name} for name in KL]
    policy = policy_of(device, stage(algorithm={"kl_coef": 0.05, "entropy_coef": 0.01}))
    for variant in variants:
        config = stage(algorithm={"kl_coef": 0.05, "entropy_coef": 0.01, **variant})
        stats = policy.update(rows_of(config), make_objective(config))
        found.append(torch.tensor([stats.loss, *stats.metrics.values()]))
    for name, estimator in ESTIMATORS.items():
        batch = rows_of(config := stage())
        zeros_N = torch.zeros_like(batch.weights_N)
        batch = replace(batch, values_N=zeros_N, teacher_logprobs_N=zeros_N)
        stats = policy.update(estimator.function(batch), make_objective(config))
        found.append(torch.tensor([stats.loss, *stats.metrics.values()]))
        assert name
    return found + after(policy)


def adapters(device: torch.device, tmp: Path) -> Numbers:
    config = stage(model={"lora": LORA}, algorithm={"kl_coef": 0.05})
    policy = policy_of(device, config)
    numbers = updates(policy, rows_of(config), needs=BOTH)
    policy.save(tmp / "merged")
    (tmp / "checkpoint").mkdir()
    policy.save_trained(tmp / "checkpoint")
    policy.update(rows_of(config), make_objective(config))
    policy.load_trained(tmp / "checkpoint")
    return numbers + after(policy) + after(policy_of(device, config, checkpoint=tmp / "checkpoint"))


def other_reference(device: torch.device, tmp: Path) -> Numbers:
    policy_of(device, stage(seed=7)).save(tmp / "other")
    return grpo(device, tmp, algorithm={"kl_coef": 0.05, "reference": str(tmp / "other")})


def checkpoint(device: torch.device, tmp: Path) -> Numbers:
    """Resume from a checkpoint as if nothing had happened."""
    config = stage()
    policy, batch = policy_of(device, config), rows_of(config)
    policy.update(batch, make_objective(config))
    written = save_checkpoint(tmp, policy, Progress(step=1, sampler={}, offsets={}), keep=1)
    resumed = policy_of(device, config, checkpoint=written)
    restore_training_state(resumed, written)
    both = [after(one, one.update(batch, make_objective(config))) for one in (policy, resumed)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*both, strict=True))
    policy.load_trained(written)
    return both[1] + after(policy)


def critic(device: torch.device, tmp: Path, *, warm_up: bool = True, **changes: Any) -> Numbers:
    config = stage(method="ppo", algorithm={"kl_coef": 0.05}, **changes)
    policy = policy_of(device, config, ActorCritic)
    batch = rows_of(config)
    numbers = updates(policy, batch, needs=BOTH | {"values"})
    batch = get_estimator("gae").function(policy.annotate(batch, frozenset({"values"})))
    numbers += after(policy, policy.update(batch, None)) if warm_up else []
    (tmp / "checkpoint").mkdir()
    policy.save_trained(tmp / "checkpoint")
    again = policy_of(device, config, ActorCritic, checkpoint=tmp / "checkpoint")
    values = again.annotate(batch, frozenset({"values"})).values_N
    assert values is not None
    return [*numbers, values]


# --------------------------------------------------------------------------------------------- pairs, rewards, SFT


def preference(device: torch.device, _: Path) -> Numbers:
    config = stage(method="dpo", preferences={"train": ["x.jsonl"]})
    policy = policy_of(device, config, PairPolicy)
    batch = pair_batch(encode_pairs(PAIRS, policy.tokenizer, policy.config.prompt, limit=128)[0])
    batch = replace(batch, ref_logprobs_N=policy.annotate(batch, frozenset({"old_logprobs"})).old_logprobs_N)
    stats = [
        policy.update(batch, dpo_objective(DpoSection(loss=name, sft_coef=0.1), pairs=6, chosen_tokens=40))
        for name in DPO_LOSSES
    ]
    return after(policy, *stats)


def rewards(device: torch.device, tmp: Path, *, lora: bool) -> Numbers:
    """Train, save, and score from the folder; also as an adapter on a policy's base."""
    policy_of(device, stage()).save(tmp / "base")
    model = {"path": str(tmp / "base"), "from_scratch": None, **({"lora": LORA} if lora else {})}
    config = stage(
        method="reward_model", model=model, preferences={"train": ["x.jsonl"]}, reward_model={"heads": 2}, batch={}
    )
    policy = policy_of(device, config, RewardPolicy)
    encoded, _ = encode_pairs(PAIRS, policy.tokenizer, policy.config.prompt, limit=128)
    batch = pair_batch(encoded)
    objective = bradley_terry_objective(pairs=6, weights_CK=torch.ones(6, 2), centre_coef=0.01)
    stats = [policy.update(batch, objective) for _ in range(2)]
    policy.save(tmp / "rewards")
    (tmp / "checkpoint").mkdir()
    policy.save_trained(tmp / "checkpoint")
    shared = None
    if lora:
        learner = policy_of(device, stage(model=model))
        shared = SharedBase.of(learner.adapter, learner.unwrapped(), learner.device)
    scorer = RewardModel(str(tmp / "rewards"), shared=shared)
    assert (scorer.shared is not None) == lora
    sides = [side for pair in encoded for side in (pair.first, pair.second)]
    scored = [torch.tensor(scorer.score(sides)) for _ in range(2)]
    again = policy_of(device, config, RewardPolicy, checkpoint=tmp / "checkpoint")
    return [policy.rewards(batch), again.rewards(batch), *scored, *after(policy, *stats)]


def demonstrations(device: torch.device, _: Path, **model: Any) -> Numbers:
    config = stage(method="sft", model=model, batch={"layout": "padded", "micro_tokens": 512})
    policy = policy_of(device, config)
    return after(policy, *(policy.update(rows_of(config), negative_log_likelihood) for _ in range(2)))


def judge(device: torch.device, tmp: Path) -> Numbers:
    policy_of(device, stage()).save(tmp / "judge")
    backend = ForwardBackend(
        str(tmp / "judge"), dtype="float32", meter=Meter(tokens=None, prompt_price=0.0, completion_price=0.0)
    )
    schema = {"properties": {"level": {"enum": [1, 2, 3]}}}
    request = ChatRequest(turns=(Turn("user", "Good?"),), schema=cast("Any", schema), max_tokens=8)
    found: Numbers = []
    for _ in range(2):
        (reply,) = backend.answer([request])
        assert isinstance(reply, Reply), reply
        found.append(torch.tensor(list(reply.tokens[1].logprobs.values())))
    return found


# ------------------------------------------------------------------------------------------------------- sampling


def sampling(device: torch.device, tmp: Path, *, own: bool = False, **model: Any) -> Numbers:
    """Sample several waves through few slots in every mode, and check a weight sync."""
    policy = policy_of(device, stage(model=model))
    policy.save(tmp / "model")
    given = {} if own else {"model": policy.unwrapped()}
    engine = HfEngine(model_path=str(tmp / "model"), max_model_len=128, max_batch=3, device=str(device), **given)
    requests = [Request(prompt_ids=tuple(range(1, 2 + n % 5)), seed=n) for n in range(7)]
    found: Numbers = []
    for params in (
        SamplingParams(max_tokens=6, temperature=0.0),
        SamplingParams(max_tokens=6, temperature=0.8),
        SamplingParams(max_tokens=6, temperature=1.0, top_p=0.9, top_k=20, stop=("a", "7")),
    ):
        done = dict(engine.generate(requests, params))
        assert sorted(done) == list(range(7))
        for index in sorted(done):
            found += [torch.tensor(done[index].token_ids), torch.tensor(done[index].rollout_logprobs)]
    sent = Checksum()
    arrived = engine.load_weights(sent.over(policy.named_weights()), 1)
    check_checksum(sent.digest(), arrived)
    probe = probe_ids(policy.vocabulary, forbidden=policy.special_ids, limit=policy.context - 1)
    check_probe(scored := engine.score(probe), policy.score_tokens(probe), torch.float32)
    return [*found, torch.tensor(scored)]


# ----------------------------------------------------------------------------------------------------- whole stages


def whole(device: torch.device, tmp: Path, **changes: Any) -> Numbers:
    """Run a stage from the config to the final model, and return its records."""
    rows = [
        {"prompt": f"ask {n}:", "chosen": "good " * (1 + n % 4), "rejected": "bad", "id": str(n)} for n in range(20)
    ]
    (tmp / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = stage(
        **{
            "seed": 3,
            "steps": 3,
            "prompt": {"chat": "never"},
            "task": {"name": "covering", "options": {"train_size": 40, "test_size": 8}},
            "rollout": {"problems_per_step": 3, "group_size": 4, "max_tokens": 8},
            "engine": {"name": "hf"},
            "checkpoint": {"every": 2},
            "eval": {"every": 2, "problems": 4},
            "grading": {"workers": 1},
            "logging": {"tensorboard": False},
            "preferences": {"train": str(tmp / "pairs.jsonl"), "held_out_share": 0.2},
            **changes,
        }
    )
    if config.method in ("dpo", "kto", "reward_model"):
        config = config.model_copy(update={"task": []})
    with patch("reasoner.session.opening.open_accelerator", lambda _: accelerator_of(device)):
        run_stage(config, tmp / "run", resume=False)
    metrics = [json.loads(line) for line in (tmp / "run" / "metrics.jsonl").read_text().splitlines()]
    names = sorted(name for name in metrics[-1] if not name.startswith(("time/", "throughput/", "memory/")))
    assert len(metrics) == 3, metrics
    rollouts = tmp / "run" / "rollouts.jsonl"
    said = (
        [row["completion"] for row in map(json.loads, rollouts.read_text().splitlines())] if rollouts.exists() else []
    )
    from safetensors.torch import load_file

    weights = load_file(tmp / "run" / "final" / "model.safetensors")
    figures = [torch.tensor([float(row[name]) for name in names if name in row]) for row in metrics]
    return [*figures, torch.tensor([ord(c) for text in map(str, said) for c in text]), *weights.values()]


SHARED = {"value": {"trunk": "shared"}}
PPO = {
    "algorithm": {"kl_coef": 0.1, "kl_in": "reward", "kl_target": 0.5, "kl_horizon": 20},
    "optim": {"lr": 1e-3, "inner_epochs": 2, "updates_per_step": 2},
    "value": {"warmup_steps": 1},
}
CASES: Mapping[str, Case] = {
    "the device itself": the_device,
    "update, prompts shared": grpo,
    "update, padded": partial(grpo, batch={"layout": "padded"}),
    "update, packed": partial(grpo, batch={"layout": "packed"}),
    "update, eager attention": partial(grpo, model={"attention": "eager"}),
    "update, layers recomputed": partial(grpo, model={"gradient_checkpointing": True}),
    "update, many micro-batches": partial(grpo, batch={"micro_tokens": 100}),
    "update, logits in chunks": many_tokens,
    "update, logits in chunks, entropy bonus": partial(many_tokens, entropy_coef=0.01),
    "every loss and estimator": losses,
    "adapters": adapters,
    "another model as reference": other_reference,
    "checkpoint": checkpoint,
    "value model": critic,
    "value model, shared trunk": partial(critic, value={"trunk": "shared"}),
    "value model, adapter": partial(critic, model={"lora": LORA}),
    "preferences": preference,
    "reward model": partial(rewards, lora=False),
    "reward model, adapter": partial(rewards, lora=True),
    "judge": judge,
    "demonstrations": demonstrations,
    "demonstrations, adapters with dropout": partial(
        demonstrations, lora=LORA | {"dropout": 0.2}, gradient_checkpointing=True
    ),
    "sampling from the trainer's model": sampling,
    "sampling, eager attention": partial(sampling, attention="eager"),
    "sampling from a model of its own": partial(sampling, own=True),
    "a run of grpo": partial(whole, model={"lora": LORA}, algorithm={"kl_coef": 0.05}),
    "a run of ppo": partial(whole, method="ppo", **PPO),
    "a run of sft": partial(whole, method="sft", sft={"rows_per_step": 8, "held_out": 8}),
    "a run of dpo": partial(whole, method="dpo", dpo={"pairs_per_step": 8}),
    "a run of kto": partial(whole, method="kto", kto={"rows_per_step": 8, "split_pairs": True}),
    "a run of reward_model": partial(whole, method="reward_model", reward_model={"pairs_per_step": 8, "heads": 2}),
}


def fault_of(case: Case, device: torch.device) -> str | None:
    """Return the fault on the device, or the largest difference from the CPU if it is more than rounding."""
    found: list[Numbers] = []
    for place in (torch.device("cpu"), device):
        with tempfile.TemporaryDirectory() as folder, patched_default(place):
            try:
                found.append(case(place, Path(folder)))
            except Exception:
                return f"on {place}: {traceback.format_exc()}"
    if [tensor.shape for tensor in found[0]] != [tensor.shape for tensor in found[1]]:
        return "other shapes"
    pairs = zip(*found, strict=True)
    gap = max(gap_of(ours.double(), theirs.double()) for ours, theirs in pairs if ours.numel())
    return None if gap < 1e-4 else f"differs from the CPU by {gap:.3g}"


def gap_of(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, relative to numbers above 1; inf if only one side is nan."""
    if not torch.equal(ours.isnan(), theirs.isnan()):
        return float("inf")
    return ((ours - theirs).abs() / ours.abs().clamp(min=1)).nan_to_num().max().item()


@contextmanager
def patched_default(device: torch.device) -> Iterator[None]:
    """Let models other than the policy choose this device."""
    with (
        patch("reasoner.graders.reward_model.default_device", lambda: device),
        patch("reasoner.graders.judge_model.default_device", lambda: device),
    ):
        yield


def main(file: str, names: list[str]) -> None:
    from tests.pretend import install

    device = install()
    Path(file).write_text(json.dumps({name: fault_of(CASES[name], device) for name in names or CASES}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
