"""An update without padding (`batch.layout: auto`) compared with padded rows (`padded`). Prints JSON.

64 rows in groups of 8 that share a prompt, a model of about 3.3M parameters in float32. Each variant runs in its own
process, twice, in turns. Seconds are those of the fastest update; memory is the increase of the process's peak during
the updates. Padded rows are batched with rows of similar length.

fixed      completions of 128 tokens: the saving from shared prompts
varying    completions of a third of that on average, at most 128 tokens: also the saving of padding

    python benchmarks/update_layout.py
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time

from reasoner.engine.environment import prepare_process

ROWS, GROUP, LONGEST = 64, 8, 128


def measure(layout: str, prompt: int, lengths: str, updates: int) -> dict[str, float]:
    """Return the seconds of the fastest update and the megabytes of the peak, in this process."""
    from dataclasses import replace

    import torch
    from accelerate import Accelerator

    from reasoner.algorithm.batch import Batch
    from reasoner.algorithm.objective import make_objective
    from reasoner.config.load import resolve
    from reasoner.policy.policy import Policy

    shape = {"hidden_size": 256, "layers": 3, "heads": 4, "tie_embeddings": False}
    stage = resolve(
        {
            "task": "arithmetic",
            "rollout": {"max_tokens": LONGEST},
            "model": {"from_scratch": shape, "dtype": "float32"},
            "batch": {"layout": layout},
        }
    ).stages[0]
    policy, objective = Policy(stage, accelerator=Accelerator(cpu=True)), make_objective(stage)
    torch.manual_seed(0)
    prompts = [torch.randint(0, 256, (prompt,)) for _ in range(ROWS // GROUP)]
    # of a geometric distribution truncated at 128, the mean is a third of that
    drawn = torch.distributions.Geometric(2.82 / LONGEST).sample((ROWS,)).long() + 1
    lengths_B = drawn.clamp(max=LONGEST) if lengths == "varying" else torch.full((ROWS,), LONGEST)
    completions = [torch.randint(0, 256, (int(length),)) for length in lengths_B]
    count = int(lengths_B.sum())
    batch = Batch(
        input_ids=tuple(torch.cat([prompts[row // GROUP], ids]) for row, ids in enumerate(completions)),
        prompt_lengths_B=torch.full((ROWS,), prompt),
        row_N=torch.arange(ROWS).repeat_interleave(lengths_B),
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
    parser.add_argument("--lengths", choices=["fixed", "varying"], nargs="+", default=["fixed", "varying"])
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    options = parser.parse_args()
    prepare_process()
    if options.arm:
        print(json.dumps(measure(options.arm, options.prompts[0], options.lengths[0], options.updates)))
        return
    for lengths, prompt in itertools.product(options.lengths, options.prompts):
        found: dict[str, dict[str, float]] = {}
        for arm in ("padded", "auto") * 2:
            given = ["--arm", arm, "--prompts", str(prompt), "--lengths", lengths, "--updates", str(options.updates)]
            done = subprocess.run([sys.executable, __file__, *given], stdout=subprocess.PIPE, check=True, text=True)
            new: dict[str, float] = json.loads(done.stdout)
            old = found.get(arm, new)
            found[arm] = {name: min(old[name], new[name]) for name in new}
        times = found["padded"]["seconds"] / found["auto"]["seconds"]
        print(json.dumps({"lengths": lengths, "prompt": prompt, "times_faster": round(times, 2), **found}))


if __name__ == "__main__":
    main()
