"""One process of several (or the only one), for test_processes.py: prints what it finds as JSON, from the main process.

gradients: of every loss, importance correction and aggregation on a fixed batch. train CONFIG: a whole run.
"""

from __future__ import annotations

import json
import sys

from reasoner.engine.environment import prepare_process

prepare_process()


def gradients() -> dict[str, list[float]]:
    """Loss, squared gradient norm and a weighted sum of the gradient, by variant."""
    import torch
    from accelerate import Accelerator

    import reasoner.policy
    from reasoner.advantage import ESTIMATORS, get_estimator
    from reasoner.importance import IMPORTANCE
    from reasoner.loss import POLICY_LOSSES
    from reasoner.policy import Policy
    from reasoner.train import make_objective
    from tests.unit.reasoner.test_policy import config_with, in_double, make_batch

    # in float64 before DDP lays out its buckets
    load = reasoner.policy.load_model
    reasoner.policy.load_model = lambda *given, **options: load(*given, **options | {"weights_dtype": torch.float64})

    variants = [
        *({"loss": loss, "aggregation": how} for loss in POLICY_LOSSES for how in ("token", "sequence", "constant")),
        *({"importance": name} for name in IMPORTANCE),
        *({"advantage": name} for name in ESTIMATORS if name != "gae"),
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


def sharded(folder: str) -> dict[str, list[float]]:
    """Three updates with FSDP2's sharding where there are several processes, a checkpoint after the second.

    accelerate shards on accelerators alone, so that `fully_shard` is called here as it calls it.
    """
    from dataclasses import replace
    from pathlib import Path

    from accelerate import Accelerator

    from reasoner import processes
    from reasoner.checkpoint import Progress, restore_training_state, save_checkpoint
    from reasoner.policy import Policy, make_optimizer, parameter_groups
    from reasoner.train import make_objective
    from tests.unit.reasoner.test_policy import config_with, make_batch

    config = config_with(kl_coef=0.05)

    def opened(checkpoint: Path | None = None) -> Policy:
        policy = Policy(config, accelerator=Accelerator(cpu=True), checkpoint=checkpoint)
        if processes.count() > 1:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            policy.scorer = policy.accelerator.unwrap_model(policy.scorer)
            mesh = init_device_mesh("cpu", (processes.count(),))
            for layer in policy.model.get_decoder().layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(policy.scorer, mesh=mesh)
            optimizer = make_optimizer(parameter_groups(policy.scorer, config), config, policy.device)
            policy.optimizer = policy.accelerator.prepare(optimizer)
            policy.scheduler.optimizer = policy.optimizer.optimizer
        return policy

    policy = opened()
    batch = make_batch(config, rows=7)
    names = ("weights_N", "rollout_logprobs_N", "old_logprobs_N", "ref_logprobs_N", "advantages_N")
    batch = replace(batch, **{name: getattr(batch, name).float() for name in names})
    assert all(policy.layout(batch.select(part.rows)).spread is not None for part in policy.parts(batch))
    found: list[float] = []
    for number in range(3):
        if number == 2:
            progress = Progress(step=2, sampler={}, offsets={})
            saved = save_checkpoint(Path(folder), policy, progress, keep=1)
            policy = opened(saved)
            restore_training_state(policy, saved)
        stats = policy.update(batch, make_objective(config))
        found += [stats.loss, stats.grad_norm]
    found += [weight.double().sum().item() for _, weight in policy.named_weights()]
    return {"sharded": found}


def take(policy, gradient: list) -> float:
    import torch

    gradient.append(torch.cat([p.grad.double().flatten() for p in policy.scorer.parameters() if p.grad is not None]))
    return 1.0


def main() -> None:
    from reasoner import processes

    if sys.argv[1] in ("gradients", "sharded"):
        found = gradients() if sys.argv[1] == "gradients" else sharded(sys.argv[2])
        if processes.is_main():
            print("FOUND " + json.dumps(found))
        return
    from reasoner.config import load_config
    from reasoner.pipeline import run_pipeline

    run_pipeline(load_config(sys.argv[2]), resume=True)


if __name__ == "__main__":
    main()
