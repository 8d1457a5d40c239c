"""One GRPO step of this trainer compared with TRL 1.16's GRPOTrainer, in one interleaved run. Prints JSON.

Two processes run one trainer each, with the same model (about 3.3M parameters, float32), prompts, batch of 8 prompts x
8 completions, optimizer and kind of engine. They alternate step by step, so that other load on the machine affects
both. On a busy machine the ratio of CPU seconds is more reliable than that of wall-clock seconds. All rewards differ,
so that both train on all 64 rows (this trainer would leave out groups without signal, TRL would not).

fixed      the end token has no probability: every completion has --tokens tokens
varying    the end token's probability gives completions of a third of --tokens on average, as real ones have

Two things are changed in TRL, both in its colocated vLLM. It cannot sync weights on vLLM's CPU build (the packed linear
layers have no weight loader), so `sync_weights` is replaced here by `reload_weights`, which works. And it samples a
float32 model in bfloat16, which is less work, so it is set to float32, like this trainer's.

    python benchmarks/grpo_step.py --engine vllm --lengths varying --tokens 128 --steps 5
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from reasoner.engine.environment import prepare_process

HERE = Path(__file__).resolve()
PROMPTS, GROUP = 8, 8


def hash_reward(text: str) -> float:
    """Return a reward that differs for every completion."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32


def hash_verifier(completion: str, reference: object) -> float:
    """Return `hash_reward`, as a verifier of this trainer."""
    return hash_reward(completion)


# ---------------------------------------------------------------------------------------------- the worker processes


spent_before = 0.0


def cpu_seconds() -> float:
    """Return the CPU seconds of this process, with all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def take_turns() -> None:
    """Report a finished step to the parent, and wait for its next message."""
    global spent_before
    print("@@ ready", flush=True)
    if sys.stdin.readline().strip() != "go":
        os._exit(0)
    spent_before = cpu_seconds()


def report(figures: dict[str, float]) -> None:
    """Send one step's metrics to the parent."""
    figures["cpu_seconds"] = cpu_seconds() - spent_before
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("@@ step " + json.dumps(figures), flush=True)


def run_ours(folder: Path, engine: str, tokens: int) -> None:
    """Run this trainer on the shared model."""
    from reasoner.config.load import resolve
    from reasoner.session.opening import open_session
    from reasoner.train import train

    config = resolve(
        {
            "steps": 1000,
            "model": {"path": str(folder / "model"), "dtype": "float32"},
            "task": {
                "name": "dataset",
                "options": {"path": str(folder / "prompts.jsonl"), "verifier": f"{HERE}:hash_verifier"},
            },
            "prompt": {"chat": "never"},
            "rollout": {"problems_per_step": PROMPTS, "group_size": GROUP, "max_tokens": tokens},
            "optim": {"lr": 1e-6, "schedule": "linear"},
            "engine": {"name": engine, "options": {"kv_cache_gigabytes": 1.0} if engine == "vllm" else {}},
            "eval": {"problems": 0},
            "checkpoint": {"every": 1000},
            "logging": {"tensorboard": False},
        }
    ).stages[0]

    class Turns:
        """Replacement of the display that is called once per step."""

        def __getattr__(self, name: str) -> Callable[..., object]:
            return getattr(session_display, name)

        def step(self, step: int, metrics: dict[str, float]) -> None:
            names = ("generation", "grading_wait", "logprobs", "update", "sync")
            report(
                {name: metrics.get(f"time/{name}", 0.0) for name in names}
                | {"tokens": metrics["completion/length_mean"], "rows": metrics["groups/rows_kept"]}
            )
            take_turns()

    with open_session(config, folder / "run", resume=False) as session:
        session_display = session.display
        session.display = Turns()  # pyright: ignore[reportAttributeAccessIssue]
        take_turns()
        train(session)


def run_trl(folder: Path, engine: str, tokens: int) -> None:
    """Run TRL's trainer on the shared model, with default settings except those that make both comparable."""
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    spent: dict[str, float] = {}

    def timed(owner: object, name: str, label: str) -> None:
        original = getattr(owner, name)

        def call(*given: object, **options: object) -> object:
            started = time.perf_counter()
            try:
                return original(*given, **options)
            finally:
                spent[label] = spent.get(label, 0.0) + time.perf_counter() - started

        setattr(owner, name, call)

    lengths: list[float] = []

    def reward(completions: list[str], completion_ids: list[list[int]], **_: object) -> list[float]:
        lengths[:] = [statistics.fmean(map(len, completion_ids)), float(len(completions))]
        return [hash_reward(text) for text in completions]

    class Turns(TrainerCallback):
        def on_step_begin(self, *_: object, **__: object) -> None:
            take_turns()
            spent.clear()

        def on_step_end(self, *_: object, **__: object) -> None:
            names = ("generation", "prepare", "sync", "backward")
            figures = {name: spent.get(name, 0.0) for name in names}
            figures["prepare"] -= figures["generation"] + figures["sync"]
            report(figures | {"tokens": lengths[0], "rows": lengths[1]})

    if engine == "vllm":
        sample_in_float32()
    rows = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    colocated = {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": 64 + tokens}
    trainer = GRPOTrainer(
        model=str(folder / "model"),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(folder / "trl"),
            max_steps=1000,
            per_device_train_batch_size=PROMPTS * GROUP,
            num_generations=GROUP,
            max_completion_length=tokens,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            logging_steps=1000,
            disable_tqdm=True,
            model_init_kwargs={"dtype": torch.float32},
            **(colocated if engine == "vllm" else {}),
        ),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        callbacks=[Turns()],
    )
    timed(trainer, "_generate_and_score_completions", "prepare")
    timed(trainer, "training_step", "step")
    if engine == "vllm":
        fix_sync(trainer)
        timed(trainer.vllm_generation, "sync_weights", "sync")
        timed(trainer.vllm_generation, "generate", "generation")
    else:
        timed(trainer, "_generate_single_turn", "generation")
    timed(trainer, "compute_loss", "forward")
    timed(trainer.accelerator, "backward", "backward")
    trainer.train()


def sample_in_float32() -> None:
    """Set the dtype of TRL's colocated vLLM to the model's; by default it uses bfloat16 for a float32 model."""
    from trl.generation import vllm_generation

    vllm_generation.LLM = functools.partial(vllm_generation.LLM, dtype="float32")


def fix_sync(trainer: object) -> None:
    """Give TRL's colocated vLLM a weight sync that works on vLLM's CPU build."""
    from reasoner.engine.vllm_internals import repack_tied_head

    generation = trainer.vllm_generation  # pyright: ignore[reportAttributeAccessIssue]

    def sync_weights() -> None:
        weights = generation._iter_named_params()
        generation.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        generation.llm.collective_rpc(repack_tied_head)
        generation.llm.reset_prefix_cache()

    generation.sync_weights = sync_weights


def make_model(folder: Path, *, tokens: int, lengths: str) -> None:
    """Write the shared model and prompts: random weights, and an end-token probability that gives the mean length."""
    import torch
    from transformers import AutoModelForCausalLM

    from reasoner.config.sections import ScratchConfig
    from reasoner.model.load import byte_tokenizer, scratch_config

    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    shape = ScratchConfig(hidden_size=256, layers=3, heads=4, max_positions=1024, tie_embeddings=False)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(scratch_config(shape, tokenizer)).float().eval()
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = 1.0  # a direction that all hidden states have in common
        hidden = model.model(torch.randint(0, 256, (4, 64))).last_hidden_state[..., 0].mean()
        # the mean of a geometric length truncated at `tokens` is a third of it if chance * tokens = 2.82
        chance = 2.82 / tokens
        logit = math.log(chance * (len(tokenizer) - 1) / (1 - chance)) if lengths == "varying" else -40.0
        head = model.get_output_embeddings().weight
        head[:, 0] = 0.0
        head[tokenizer.eos_token_id] = 0.0
        head[tokenizer.eos_token_id, 0] = logit / hidden
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    with (folder / "prompts.jsonl").open("w") as file:
        for number in range(2048):
            file.write(json.dumps({"prompt": f"question {number:06}?", "reference": "none"}) + "\n")


# ------------------------------------------------------------------------------------------------ the parent process


class Worker:
    """Trainer in a separate process."""

    def __init__(self, kind: str, folder: Path, engine: str, tokens: int) -> None:
        (folder / kind).mkdir()
        self._log = (folder / f"{kind}.log").open("wb")
        self._process = subprocess.Popen(
            [
                *(sys.executable, str(HERE), "--worker", kind),
                *("--folder", str(folder), "--engine", engine, "--tokens", str(tokens)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._until("ready")

    def _until(self, word: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(f"@@ {word}"):
                return line.removeprefix(f"@@ {word}").strip()
        raise SystemExit(f"the worker ended: {Path(self._log.name).read_text()[-3000:]}")

    def step(self) -> dict[str, float]:
        """Let it run one step; return the seconds between its messages, and its own metrics."""
        assert self._process.stdin is not None
        started = time.perf_counter()
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        figures = json.loads(self._until("step"))
        self._until("ready")
        return figures | {"step": time.perf_counter() - started}

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._log.close()


def compare(engine: str, lengths: str, tokens: int, steps: int) -> dict[str, object]:
    """Interleave steps; return medians of each metric, and the ratios of the median and of the fastest step times."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder, tokens=tokens, lengths=lengths)
        workers = {kind: Worker(kind, folder, engine, tokens) for kind in ("ours", "trl")}
        taken: dict[str, list[dict[str, float]]] = {kind: [] for kind in workers}
        try:
            for step in range(steps + 1):
                for kind, worker in workers.items():
                    figures = worker.step()
                    if step:  # the first one is a warm-up
                        taken[kind].append(figures)
        finally:
            for worker in workers.values():
                worker.close()
    medians = {
        kind: {key: round(statistics.median(one[key] for one in rows), 4) for key in rows[0]}
        for kind, rows in taken.items()
    }
    assert medians["ours"]["rows"] == medians["trl"]["rows"] == PROMPTS * GROUP
    ratios = [b["step"] / a["step"] for a, b in zip(taken["ours"], taken["trl"], strict=True)]
    best = {kind: min(row["step"] for row in rows) for kind, rows in taken.items()}
    return {
        "engine": engine,
        "lengths": lengths,
        "max_tokens": tokens,
        "steps": steps,
        "times_faster": round(medians["trl"]["step"] / medians["ours"]["step"], 3),
        "times_faster_best_steps": round(best["trl"] / best["ours"], 3),
        "times_faster_by_step": [round(ratio, 2) for ratio in ratios],
        "times_less_cpu": round(medians["trl"]["cpu_seconds"] / medians["ours"]["cpu_seconds"], 3),
        **medians,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["vllm", "hf"], default="vllm")
    parser.add_argument("--lengths", choices=["fixed", "varying"], default="varying")
    parser.add_argument("--tokens", type=int, default=128, help="longest completion")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each trainer")
    parser.add_argument("--worker", choices=["ours", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    prepare_process()
    if options.worker == "ours":
        run_ours(options.folder, options.engine, options.tokens)
    elif options.worker == "trl":
        run_trl(options.folder, options.engine, options.tokens)
    else:
        print(json.dumps(compare(options.engine, options.lengths, options.tokens, options.steps), indent=1))


if __name__ == "__main__":
    main()
