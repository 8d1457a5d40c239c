"""Peak memory of one update as a function of the vocabulary size, for the same tokens. Prints JSON. Linux.

Each vocabulary has its own process: a small model (hidden size 64, 4 layers, tied embeddings) makes one warm-up update,
so that optimizer state exists, then one that is measured: the highest resident memory during it minus the resident
memory before it. The gradient of the embedding itself, which every trainer stores, is included. glibc is set to return
freed blocks at once (MALLOC_MMAP_THRESHOLD_), so that memory it would retain is in neither value; the smallest of
several processes counts.

    python benchmarks/logprob_memory.py --vocabularies 32000 150000 --tokens 16384 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from reasoner.engine.environment import prepare_process

HIDDEN, LAYERS, ROW = 64, 4, 512


def resident() -> dict[str, int]:
    """Return the present and the highest resident memory of this process, in MiB."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(rows[name].split()[0]) >> 10 for name in ("VmRSS", "VmHWM")}


def measure(vocabulary: int, tokens: int) -> dict[str, int]:
    """Return the MiB of one update for a vocabulary size."""
    import gc
    from dataclasses import replace

    import torch
    from accelerate import Accelerator
    from transformers import AutoModelForCausalLM, Qwen2Config

    import reasoner.policy.policy
    from reasoner.algorithm.batch import Batch
    from reasoner.algorithm.objective import make_objective
    from reasoner.config.load import resolve
    from reasoner.model.load import Loaded, byte_tokenizer
    from reasoner.policy.policy import Policy

    shape = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=ROW,
        tie_word_embeddings=True,
    )
    model = AutoModelForCausalLM.from_config(shape).float().eval()
    reasoner.policy.policy.load_model = lambda *_, **__: Loaded(model, byte_tokenizer())
    config = resolve({"task": "arithmetic", "batch": {"micro_tokens": tokens}, "model": {"from_scratch": {}}}).stages[0]
    policy = Policy(config, accelerator=Accelerator(cpu=True))
    rows = tokens // ROW
    count = rows * (ROW - 1)
    batch = Batch(
        input_ids=tuple(torch.randint(0, vocabulary, (ROW,)) for _ in range(rows)),
        prompt_lengths_B=torch.ones(rows, dtype=torch.long),
        row_N=torch.repeat_interleave(torch.arange(rows), ROW - 1),
        loss_mask_N=torch.ones(count, dtype=torch.bool),
        reward_B=torch.zeros(rows, dtype=torch.float64),
        group_B=torch.zeros(rows, dtype=torch.long),
        weights_N=torch.zeros(count),
        rollout_logprobs_N=torch.full((count,), -float(torch.tensor(float(vocabulary)).log())),
    ).reweighed(config)
    batch = replace(batch, advantages_N=torch.randn(count))
    policy.update(batch, make_objective(config))
    policy.optimizer.zero_grad()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the present value
    before = resident()["VmRSS"]
    policy.update(batch, make_objective(config))
    peak = resident()["VmHWM"]
    return {"resident_mib": before, "peak_mib": peak, "update_mib": peak - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[32_000, 150_000])
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        prepare_process()
        print(json.dumps(measure(options.one, options.tokens)))
        return
    runs: dict[int, list[dict[str, int]]] = {vocabulary: [] for vocabulary in options.vocabularies}
    for vocabulary in options.vocabularies * options.repeats:
        command = [sys.executable, __file__, "--one", str(vocabulary), "--tokens", str(options.tokens)]
        surroundings = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 17)}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=surroundings)
        runs[vocabulary].append(json.loads(done.stdout.splitlines()[-1]))
    least = {v: {name: min(run[name] for run in several) for name in several[0]} for v, several in runs.items()}
    found = {
        vocabulary: figures
        | {"updates_mib": [run["update_mib"] for run in runs[vocabulary]]}
        | {"all_logits_once_mib": vocabulary * options.tokens * 4 >> 20}
        for vocabulary, figures in least.items()
    }
    first, last = (least[vocabulary] for vocabulary in (options.vocabularies[0], options.vocabularies[-1]))
    growth = {f"{name}_growth": round(last[name] / first[name] - 1, 4) for name in ("update_mib", "peak_mib")}
    print(json.dumps({"tokens": options.tokens, "vocabularies": found, **growth}, indent=1))


if __name__ == "__main__":
    main()
