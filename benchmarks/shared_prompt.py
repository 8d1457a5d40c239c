"""An update whose prompts are run once for all rows that share them, beside one that runs them with every row.

64 rows in groups of 8, completions of 128 tokens, a model of about 3.3M parameters in float32; each arm is a process of
its own, twice and in turns. Seconds are the best update's, memory is what the process's peak grew by in the updates.

    python benchmarks/shared_prompt.py
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

from reasoner.engine.environment import prepare_process

ROWS, GROUP, COMPLETION = 64, 8, 128


def measure(layout: str, prompt: int, updates: int) -> dict[str, float]:
    """Seconds of the best update and megabytes of the peak, in this process."""
    from dataclasses import replace

    import torch
    from accelerate import Accelerator

    from reasoner.batch import Batch
    from reasoner.config import resolve
    from reasoner.policy import Policy
    from reasoner.train import make_objective

    shape = {"hidden_size": 256, "layers": 3, "heads": 4, "tie_embeddings": False}
    stage = resolve(
        {
            "task": "arithmetic",
            "rollout": {"max_tokens": COMPLETION},
            "model": {"from_scratch": shape, "dtype": "float32"},
            "batch": {"layout": layout},
        }
    ).stages[0]
    policy, objective = Policy(stage, accelerator=Accelerator(cpu=True)), make_objective(stage)
    prompts = [torch.randint(0, 256, (prompt,)) for _ in range(ROWS // GROUP)]
    count = ROWS * COMPLETION
    batch = Batch(
        input_ids=tuple(torch.cat([prompts[r // GROUP], torch.randint(0, 256, (COMPLETION,))]) for r in range(ROWS)),
        prompt_lengths_B=torch.full((ROWS,), prompt),
        row_N=torch.arange(ROWS).repeat_interleave(COMPLETION),
        loss_mask_N=torch.ones(count, dtype=torch.bool),
        reward_B=torch.zeros(ROWS, dtype=torch.float64),
        group_B=torch.arange(ROWS) // GROUP,
        weights_N=torch.zeros(count),
        rollout_logprobs_N=torch.full((count,), -5.5),
    ).reweighed(stage)
    batch = replace(batch, advantages_N=torch.randn(count))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds: list[float] = []
    for _ in range(updates):
        started = time.perf_counter()
        policy.update(batch, objective)
        seconds.append(time.perf_counter() - started)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": round(min(seconds), 3), "peak_mb": round(grown)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, nargs="+", default=[16, 64, 256], help="tokens of the prompt")
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    options = parser.parse_args()
    prepare_process()
    if options.arm:
        print(json.dumps(measure(options.arm, options.prompts[0], options.updates)))
        return
    for prompt in options.prompts:
        found: dict[str, dict[str, float]] = {}
        for arm in ("padded", "auto") * 2:
            given = ["--arm", arm, "--prompts", str(prompt), "--updates", str(options.updates)]
            done = subprocess.run([sys.executable, __file__, *given], stdout=subprocess.PIPE, check=True, text=True)
            new = json.loads(done.stdout)
            old = found.get(arm, new)
            found[arm] = {name: min(old[name], new[name]) for name in new}
        times = found["padded"]["seconds"] / found["auto"]["seconds"]
        print(json.dumps({"prompt": prompt, "completion": COMPLETION, "times_faster": round(times, 2), **found}))


if __name__ == "__main__":
    main()
