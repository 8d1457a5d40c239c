"""One process of several (or the only one), for test_processes.py: prints what it finds as JSON, from the main process.

gradients: of every loss, importance correction and aggregation on a fixed batch. bfloat16: log-probabilities in mixed
precision. learned FOLDER, resumed FOLDER: updates of every form of policy, and going on from the checkpoints that they
left. train CONFIG: a whole run.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoner.engine.environment import prepare_process

prepare_process()

if TYPE_CHECKING:
    from torch import Tensor

    from reasoner.config.stage import StageConfig
    from reasoner.policy.policy import Policy

SHARDED = os.environ.get("ACCELERATE_USE_FSDP") == "true"


def gradients() -> dict[str, list[float]]:
    """Return loss, squared gradient norm and a weighted sum of the gradient, by variant."""
    import torch
    from accelerate import Accelerator

    from reasoner.algorithm.advantage import ESTIMATORS, get_estimator
    from reasoner.algorithm.importance import IMPORTANCE
    from reasoner.algorithm.loss import POLICY_LOSSES
    from reasoner.algorithm.objective import make_objective
    from reasoner.policy.policy import Policy
    from tests.unit.reasoner.policy.test_policy import config_with, in_double, make_batch

    in_float64()
    variants = [
        *({"loss": loss, "aggregation": how} for loss in POLICY_LOSSES for how in ("token", "sequence", "constant")),
        *({"importance": name} for name in IMPORTANCE),
        *({"advantage": name} for name in ESTIMATORS if name not in ("gae", "reverse_kl")),
        {"kl_coef": 0.05, "entropy_coef": 0.01},
    ]
    shared = {"kl_coef": 0.06}  # of rows that share prompts, so that these are run once
    found: dict[str, list[float]] = {}
    for variant in [*variants, shared]:
        config = config_with(**variant)
        config = config.model_copy(
            update={"batch": config.batch.model_copy(update={"micro_tokens": 200 if variant is shared else 90})}
        )
        policy = Policy(config, accelerator=Accelerator(cpu=True))
        in_double(policy.model)
        batch = make_batch(
            config, **({"rows": 16, "group": 4, "longest_prompt": 60} if variant is shared else {"rows": 7})
        )
        unpadded = [policy.layout(batch.select(part.rows)).spread is not None for part in policy.parts(batch)]
        assert variant is not shared or all(unpadded)
        batch = get_estimator(config.algorithm.advantage).function(batch)
        assert batch.advantages_N is not None
        scored = policy.annotate(batch, frozenset({"old_logprobs"})).old_logprobs_N
        assert scored is not None
        gradient: list[torch.Tensor] = []
        policy._clip_gradients = lambda metrics, gradient=gradient, policy=policy: take(policy, gradient)
        stats = policy.update(batch, make_objective(config))
        flat = gradient[0]
        weights = torch.linspace(-1, 1, len(flat), dtype=torch.float64)
        figures = [stats.metrics[name] for name in sorted(stats.metrics)]
        sums = [(flat**2).sum().item(), (flat * weights).sum().item(), scored.double().sum().item()]
        found["shared prompts" if variant is shared else json.dumps(variant)] = [stats.loss, *sums, *figures]
    return found


def in_float64() -> None:
    """Models are loaded in float64, before DDP lays out its buckets."""
    import torch

    import reasoner.policy.policy

    for name in ("load_model", "load_empty"):
        load = getattr(reasoner.policy.policy, name)
        changed = lambda *given, load=load, **options: load(*given, **options | {"weights_dtype": torch.float64})  # noqa: E731
        setattr(reasoner.policy.policy, name, changed)


SHAPE = {"hidden_size": 32, "layers": 2, "heads": 2, "max_positions": 128}
LORA = {"lora": {"rank": 4}, "gradient_checkpointing": True}
FORMS: dict[str, dict[str, object]] = {
    "whole": {"method": "grpo"},
    "whole, untied": {"method": "grpo", "model": {"from_scratch": SHAPE | {"tie_embeddings": False}}},
    "adapter": {"method": "grpo", "model": LORA},
    "value apart": {"method": "ppo"},
    "value on the trunk": {"method": "ppo", "value": {"trunk": "shared"}},
    "value adapter": {"method": "ppo", "model": LORA},
    "rewards": {"method": "reward_model"},
    "rewards, adapter": {"method": "reward_model", "model": LORA},
}


def every_form(figures: Callable[[StageConfig, Path], Iterator[float]], folder: str) -> dict[str, list[float]]:
    """Compute in float64: sharded, distributed or resumed training differs from one process only in the last bits."""
    import torch

    torch.set_default_dtype(torch.float64)
    in_float64()
    return {form: list(figures(config_of(form), Path(folder) / form)) for form in FORMS}


def config_of(form: str, *, dtype: str = "float32") -> StageConfig:
    from reasoner.config.load import resolve

    raw = {"task": "arithmetic", "rollout": {"max_tokens": 40}, "optim": {"lr": 1e-3}, "engine": {"name": "hf"}}
    raw |= FORMS[form]
    raw["model"] = {"from_scratch": SHAPE, "dtype": dtype, **raw.get("model", {})}
    raw |= {"preferences": {"train": "none"}} if raw["method"] == "reward_model" else {"algorithm": {"kl_coef": 0.05}}
    return resolve(raw).stages[0]


def learned(config: StageConfig, folder: Path) -> Iterator[float]:
    """Run two updates, a checkpoint and a third update; return the third one's metrics, and the files written."""
    from safetensors import safe_open

    from reasoner import processes
    from reasoner.model.sharding import stored_tensors
    from reasoner.policy.checkpoint import save_checkpoint, save_model
    from reasoner.policy.progress import Progress

    policy = opened(config)
    for update in range(2):
        yield from updated(policy, warm_up=update == 0)
    saved = save_checkpoint(folder, policy, Progress(step=2, sampler={}, offsets={}), keep=1)
    then = weights(policy)
    after = [*updated(policy), *weights(policy), *trained(policy)]
    save_model(folder / "model", policy)
    if processes.is_main():
        for name, file in sorted(stored_tensors(folder / "model").items()):
            with safe_open(file, "pt") as written:
                yield weighted(written.get_tensor(name))
    policy.load_trained(saved)
    assert weights(policy) == then
    yield from after


def resumed(config: StageConfig, folder: Path) -> Iterator[float]:
    """Run the third update again, from the checkpoint."""
    policy = opened(config, folder / "step-000002")
    yield from (*updated(policy), *weights(policy), *trained(policy))


def bfloat16() -> dict[str, list[float]]:
    """Return log-probabilities before and after an update in mixed precision, by form."""
    from reasoner.algorithm.objective import make_objective
    from tests.unit.reasoner.policy.test_policy import make_batch

    found: dict[str, list[float]] = {}
    for form in ("whole", "adapter"):
        config = config_of(form, dtype="bfloat16")
        policy, batch = opened(config), make_batch(config, rows=7)
        before = policy.annotate(batch, frozenset({"old_logprobs"})).old_logprobs_N
        stats = policy.update(batch, make_objective(config))
        after = policy.annotate(batch, frozenset({"old_logprobs"})).old_logprobs_N
        assert before is not None
        assert after is not None
        found[form] = [stats.loss, stats.grad_norm, *before.tolist(), *after.tolist()]
    return found


def opened(config: StageConfig, checkpoint: Path | None = None) -> Policy:
    import torch

    from reasoner import processes
    from reasoner.model.sharding import is_sharded
    from reasoner.policy.checkpoint import restore_training_state
    from reasoner.policy.kinds import policy_class
    from reasoner.session.accelerator import open_accelerator
    from tests.unit.reasoner.policy.test_policy import in_double

    policy = policy_class(config)(config, accelerator=open_accelerator(config), checkpoint=checkpoint)
    assert is_sharded(policy.scorer) == (SHARDED and processes.count() > 1)
    if torch.get_default_dtype() == torch.float64:
        for model in (policy.scorer, policy._reference):
            if model is not None:
                in_double(model)
    if checkpoint is not None:
        restore_training_state(policy, checkpoint)
    return policy


def updated(policy: Policy, *, warm_up: bool = False) -> Iterator[float]:
    """Run one update, of the value model only during its warm-up; return its metrics."""
    import torch

    from reasoner.algorithm.advantage import get_estimator
    from reasoner.algorithm.objective import make_objective
    from reasoner.policy.reward import RewardPolicy
    from reasoner.stages.reward_model import bradley_terry_objective
    from tests.unit.reasoner.algorithm.test_pairwise import pair_batch, random_pairs
    from tests.unit.reasoner.policy.test_policy import make_batch

    if isinstance(policy, RewardPolicy):
        batch = pair_batch(random_pairs(6))
        objective = bradley_terry_objective(pairs=6, weights_CK=torch.ones(6, 1), centre_coef=0.01)
        yield weighted(policy.rewards(batch))
    else:
        estimator = get_estimator(policy.config.algorithm.advantage)
        needs = estimator.needs | {"old_logprobs", "ref_logprobs"}
        batch = policy.annotate(make_batch(policy.config, rows=7), needs=needs)
        annotated = (batch.old_logprobs_N, batch.ref_logprobs_N, batch.values_N)
        yield from (weighted(found) for found in annotated if found is not None)
        batch = estimator.function(batch)
        objective = None if warm_up and "values" in needs else make_objective(policy.config)
    stats = policy.update(batch, objective)
    yield from (stats.loss, stats.grad_norm, *(stats.metrics[name] for name in sorted(stats.metrics)))


def weights(policy: Policy) -> list[float]:
    """Return sums of the weights that an engine receives."""
    return [weighted(tensor) for _, tensor in policy.named_weights()]


def trained(policy: Policy) -> list[float]:
    """Return sums of the trained weights, including those of a value model."""
    from reasoner.model.sharding import whole

    return [weighted(whole(tensor)) for tensor in policy.scorer.parameters() if tensor.requires_grad]


def weighted(tensor: Tensor) -> float:
    """Return a weighted sum that depends on the position of each number."""
    import torch

    flat = tensor.detach().double().flatten()
    return (flat * torch.linspace(-1, 2, len(flat), dtype=torch.float64)).sum().item()


def shard() -> None:
    """Let accelerate set up FSDP2 as its launcher asks, which it does not do by itself on a machine without a GPU."""
    import accelerate
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    import reasoner.session.accelerator

    def accelerator(**given: Any) -> accelerate.Accelerator:
        made = accelerate.Accelerator(**given)
        plugin = FullyShardedDataParallelPlugin()  # as the environment says
        if made.mixed_precision != "no":
            plugin.set_mixed_precision(made.mixed_precision)
        made.state.distributed_type, made.state.fsdp_plugin = DistributedType.FSDP, plugin
        return made

    reasoner.session.accelerator.Accelerator = accelerator


def take(policy, gradient: list) -> float:
    import torch

    gradient.append(torch.cat([p.grad.double().flatten() for p in policy.scorer.parameters() if p.grad is not None]))
    return 1.0


def main() -> None:
    from reasoner import processes

    if SHARDED and "WORLD_SIZE" in os.environ:
        shard()
    by_name = {"gradients": gradients, "bfloat16": bfloat16}
    of_forms = {"learned": learned, "resumed": resumed}
    if sys.argv[1] != "train":
        found = by_name[sys.argv[1]]() if sys.argv[1] in by_name else every_form(of_forms[sys.argv[1]], sys.argv[2])
        if processes.is_main():
            print("FOUND " + json.dumps(found), flush=True)
        processes.leave()
        os._exit(0)  # the figures count here; how a process of several ends has a test of its own
    else:
        from reasoner.config.load import load_config
        from reasoner.stages.pipeline import run_pipeline

        run_pipeline(load_config(sys.argv[2]), resume=True)
    processes.leave()


if __name__ == "__main__":
    main()
