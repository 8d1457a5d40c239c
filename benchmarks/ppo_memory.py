"""Peak memory of PPO on one shared base, of LoRA SFT, and of PPO on four copies of the base. Prints JSON.

    python benchmarks/ppo_memory.py            # 113M parameters, float32, on the CPU

Each variant is a separate process. Its value is the peak of resident memory during a measured step (the kernel's VmHWM,
reset after a warm-up step) minus the resident memory before any model was loaded. All process the same tokens. W is the
size of one model's weights.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

VARIANTS = ("lora_sft", "ppo_shared_base", "ppo_four_copies")
ROWS, PROMPT, COMPLETION = 4, 16, 48
LORA = {"rank": 16, "alpha": 32.0}


def resident_bytes(field: str) -> int:
    """Return VmRSS or VmHWM of this process."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(field))


def forget_peak() -> None:
    """Reset VmHWM to the present value."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def stage_of(base: str, method: str, reference: str | None) -> object:
    """Return the config of a variant."""
    from reasoner.config.load import resolve

    return resolve(
        {
            "method": method,
            "task": "arithmetic",
            "model": {"path": base, "dtype": "float32", "lora": LORA},
            "rollout": {"max_tokens": COMPLETION},
            "algorithm": {"kl_coef": 0.05, "kl_in": "reward", "reference": reference} if method == "ppo" else {},
            "batch": {"micro_tokens": ROWS * (PROMPT + COMPLETION)},
        }
    ).stages[0]


def prepare(folder: Path, shape: dict[str, int]) -> None:
    """Write the base, and a reward model on it: the adapter next to the merged folder."""
    from accelerate import Accelerator

    from reasoner.config.load import resolve
    from reasoner.policy.policy import Policy
    from reasoner.policy.reward import RewardPolicy

    made = resolve({"task": "gsm8k", "model": {"from_scratch": shape, "dtype": "float32"}}).stages[0]
    Policy(made, accelerator=Accelerator(cpu=True)).save(folder / "base")
    reward = resolve(
        {
            "method": "reward_model",
            "model": {"path": str(folder / "base"), "dtype": "float32", "lora": LORA},
            "preferences": {"train": ["none.jsonl"]},
        }
    ).stages[0]
    RewardPolicy(reward, accelerator=Accelerator(cpu=True)).save(folder / "reward")


def measure(variant: str, folder: Path) -> dict[str, float]:
    """Run two steps of a variant; return the peak of the second."""
    import torch  # noqa: F401  (imports count before the models do)
    import transformers  # noqa: F401
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    before = resident_bytes("VmRSS")
    step = sft_step(folder, accelerator) if variant == "lora_sft" else ppo_step(variant, folder, accelerator)
    step()
    forget_peak()
    tokens = step()
    return {"peak_bytes": resident_bytes("VmHWM") - before, "tokens": tokens}


def sft_step(folder: Path, accelerator: object):
    """Return a step of LoRA SFT on the same number of rows and tokens."""
    from reasoner.data.encode import Encoded, batch_of
    from reasoner.policy.policy import Policy
    from reasoner.stages.sft import negative_log_likelihood

    policy = Policy(stage_of(str(folder / "base"), "sft", None), accelerator=accelerator)  # pyright: ignore
    row = Encoded(
        id="row",
        prompt_ids=tuple(range(1, PROMPT + 1)),
        completion_ids=tuple(range(1, COMPLETION + 1)),
        loss_mask=(True,) * COMPLETION,
    )

    def step() -> int:
        policy.update(batch_of([row] * ROWS), negative_log_likelihood)
        return ROWS * (PROMPT + COMPLETION)

    return step


def ppo_step(variant: str, folder: Path, accelerator: object):
    """Return a whole PPO step: sample, score with the reward model, annotate, estimate, update policy and value."""
    from reasoner.algorithm.advantage import get_estimator
    from reasoner.algorithm.batch import Batch
    from reasoner.algorithm.kl_control import KLControl, KLState
    from reasoner.algorithm.objective import make_objective
    from reasoner.engine.hf import HfEngine
    from reasoner.graders.reward_model import RewardModel
    from reasoner.model.shared_base import SharedBase
    from reasoner.policy.value import ActorCritic
    from reasoner.records import Request, SamplingParams

    shared = variant == "ppo_shared_base"
    base = str(folder / "base")
    config = stage_of(base, "ppo", None if shared else base)
    policy = (ActorCritic if shared else copying_critic())(config, accelerator=accelerator)  # pyright: ignore
    shared_base = SharedBase.of(policy.adapter, policy.unwrapped(), policy.device) if shared else None  # pyright: ignore
    reward = RewardModel(str(folder / "reward"), dtype="float32", shared=shared_base)
    assert (reward.shared is not None) == shared
    engine = HfEngine(model_path=base, max_model_len=policy.context, model=policy.unwrapped())
    estimator, control = get_estimator("gae"), KLControl(config.algorithm, KLState())
    objective = make_objective(config, kl_coef=0)

    def step() -> int:
        from reasoner.data.encode import Encoded, batch_of

        requests = [Request(prompt_ids=tuple(range(1, PROMPT + 1)), seed=row) for row in range(ROWS)]
        # no end token: every completion has its full length, so that every variant has the same tokens
        done = dict(engine.generate(requests, SamplingParams(max_tokens=COMPLETION, end_ids=())))
        rows = [
            Encoded(
                id=str(n),
                prompt_ids=requests[n].prompt_ids,
                completion_ids=done[n].token_ids,
                loss_mask=done[n].loss_mask,
            )
            for n in range(ROWS)
        ]
        scores = [sum(values) / len(values) for values in reward.score(rows)]
        batch: Batch = batch_of(rows, rewards=scores)
        logprobs = [value for n in range(ROWS) for value in done[n].rollout_logprobs]
        batch = replace(batch, rollout_logprobs_N=batch.weights_N.new_tensor(logprobs))
        batch = policy.annotate(batch, frozenset({"values", "ref_logprobs", "old_logprobs"}))
        policy.update(control.estimate(batch, estimator), objective)
        return sum(len(row) for row in rows)

    return step


def copying_critic():
    """Context manager in which the value model is LoRA on its own copy of the base."""
    from torch import nn

    from reasoner.model.load import load_model
    from reasoner.model.lora import add_adapter
    from reasoner.policy.value import ActorCritic, ActorCriticScorer

    class CopyingCritic(ActorCritic):
        def _make_scorer(self, checkpoint: Path | None) -> nn.Module:
            trunk = load_model(self.config.model, seed=0).model
            assert self.config.model.lora is not None
            add_adapter(trunk, self.config.model.lora, seed=1)
            head = nn.Linear(self.model.config.hidden_size, 1)
            return ActorCriticScorer(
                self.model,
                head,
                trunk=trunk,
                logit_bytes=self.config.batch.logit_bytes(self.device.type),
                entropy_gradient=False,
            )

        def _valuing(self):
            from contextlib import nullcontext

            return nullcontext()

    return CopyingCritic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", choices=VARIANTS)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    given = parser.parse_args()
    shape = {"hidden_size": given.hidden, "layers": given.layers, "heads": 12, "max_positions": 256}
    if given.measure:
        from reasoner.engine.environment import prepare_process

        prepare_process()
        print(json.dumps(measure(given.measure, given.folder)))
        return
    # freed memory is returned to the system at once, so that resident memory is the memory in use
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        prepare(folder, shape)
        weights = (folder / "base" / "model.safetensors").stat().st_size
        found = {}
        for variant in VARIANTS:
            command = [sys.executable, __file__, "--measure", variant, "--folder", held]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            found[variant] = json.loads(done.stdout.strip().splitlines()[-1])
    sft, shared, four = (found[variant]["peak_bytes"] for variant in VARIANTS)
    print(
        json.dumps(
            {
                "parameters": weights // 4,
                "weights_mb": weights / 2**20,
                "tokens": found["lora_sft"]["tokens"],
                **{f"{variant}_peak_mb": found[variant]["peak_bytes"] / 2**20 for variant in VARIANTS},
                "shared_minus_sft_in_weights": (shared - sft) / weights,
                "shared_over_four_copies": shared / four,
                "within": {
                    "at_most_0.35_W_over_sft": shared - sft <= 0.35 * weights,
                    "at_most_half": shared <= 0.5 * four,
                },
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
