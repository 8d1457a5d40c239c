"""The quickstart's second stage, learned by ours and by TRL 1.16's GRPOTrainer from the same warm start. Prints JSON.

For each seed: one warm start (the quickstart's first stage), then both trainers for the same steps of the same size,
with the same learning-rate schedule, sampling and verifier, through vLLM in process (TRL's weight sync mended as in
grpo_step.py). Everything else of TRL is at its defaults: it trains on groups without signal as well, and scales
rewards by the group's std as ours does here. Every --every steps the policy is evaluated on the same held-out
problems by the same code; the clock stands still meanwhile. Each piece is done once and kept in --output: a run may
be cut off anywhere.

    python benchmarks/learning_vs_trl.py --output /tmp/learning                      what is missing, then the figures
    python benchmarks/learning_vs_trl.py --output /tmp/learning --arm trl --seed 1   one piece
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from reasoner.engine.environment import prepare_process

ARMS = ("warm", "ours", "trl")
TARGET = 0.8
STEPS = int(os.environ.get("LEARNING_STEPS", "0"))
"""Fewer steps than the quickstart's, to try the program out."""


def stages(output: Path, seed: int, every: int):
    """The quickstart's two stages for a seed; the second from the first one's model."""
    from reasoner.config import load_config

    warm, learn = load_config("quickstart", [f"seed={seed}"]).stages
    path = str(output / f"warm-{seed}" / "final")
    model = learn.model.model_copy(update={"path": path, "from_scratch": None})
    evaluation = learn.eval.model_copy(update={"every": every})
    learn = learn.model_copy(update={"model": model, "eval": evaluation} | ({"steps": STEPS} if STEPS else {}))
    return warm, learn


def run_stage(stage, folder: Path) -> None:
    """A stage of ours as a run of its own."""
    from reasoner.config import RunConfig
    from reasoner.pipeline import run_pipeline

    stage = stage.model_copy(update={"output": str(folder)})
    run_pipeline(RunConfig(name=folder.name, output=str(folder), stages=(stage,), starts_fresh=(True,)), resume=True)


def lines(path: Path) -> list[dict]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def learn_ours(output: Path, seed: int, every: int) -> dict[str, object]:
    """Ours: accuracy against seconds of training, from the run's own records."""
    folder = output / f"ours-{seed}"
    run_stage(stages(output, seed, every)[1], folder)
    seconds, at = 0.0, {0: 0.0}
    for row in lines(folder / "metrics.jsonl"):
        seconds += row["time/step"]
        at[row["step"]] = seconds
    curve = [[row["step"], at[row["step"]], row["metrics"]["avg@1"][0]] for row in lines(folder / "evals.jsonl")]
    return {"curve": curve}


def learn_trl(output: Path, seed: int, every: int) -> dict[str, object]:
    """TRL: the same, from a callback."""
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    import torch
    from datasets import Dataset
    from grpo_step import mend_sync
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from reasoner.session import load_problems
    from verifiers import get_verifier

    stage = stages(output, seed, every)[1]
    (train,), (held_out,) = load_problems(stage)
    rows = [{"prompt": str(p.prompt), "reference": str(p.reference)} for p in train]
    verifier = get_verifier(train[0].verifier, **train[0].verifier_options)

    def reward(completions: list[str], reference: list[str], **_: object) -> list[float]:
        verdicts = [verifier.verify(completion=c, reference=r) for c, r in zip(completions, reference, strict=True)]
        return [verdict.reward or 0.0 for verdict in verdicts]

    evaluated = evaluator(stage, held_out)
    rollout, optim = stage.rollout, stage.optim
    curve: list[list[float]] = []

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds = 0.0
            self.started = time.perf_counter()

        def on_train_begin(self, *_: object, **__: object) -> None:
            self.note(0)

        def on_step_end(self, args: object, state, control: object, **__: object) -> None:
            if state.global_step % every == 0 or state.global_step == stage.steps:
                self.note(state.global_step)

        def note(self, step: int) -> None:
            self.seconds += time.perf_counter() - self.started if step else 0.0
            curve.append([step, self.seconds, evaluated(trainer.model)])
            self.started = time.perf_counter()

    trainer = GRPOTrainer(
        model=stage.model.path,
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(output / f"trl-{seed}"),
            max_steps=stage.steps,
            per_device_train_batch_size=rollout.problems_per_step * rollout.group_size,
            num_generations=rollout.group_size,
            max_completion_length=rollout.max_tokens,
            temperature=rollout.temperature,
            learning_rate=optim.lr,
            lr_scheduler_type=optim.schedule,
            warmup_steps=optim.warmup_steps,
            max_grad_norm=optim.max_grad_norm,
            seed=seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            use_vllm=True,
            vllm_mode="colocate",
            vllm_max_model_length=256,
            report_to=[],
            save_strategy="no",
            logging_steps=1000,
            disable_tqdm=True,
            model_init_kwargs={"dtype": torch.float32},
        ),
        train_dataset=Dataset.from_list(rows),
        callbacks=[Clock()],
    )
    mend_sync(trainer)
    trainer.train()
    return {"curve": curve}


def evaluator(stage, held_out: list) -> Callable[[object], float]:
    """Accuracy of a transformers model on the held-out problems, by the evaluation that ours uses."""
    from reasoner.engine import open_engine
    from reasoner.evaluate import evaluate
    from reasoner.model import load_tokenizer
    from reasoner.records import SamplingParams
    from reasoner.session import grading_pool

    tokenizer = load_tokenizer(stage.model.path)

    def accuracy(model) -> float:
        engine = open_engine("hf", model_path=stage.model.path, max_model_len=256, model=model)
        training = model.training
        model.eval()
        with grading_pool(stage) as pool:
            done = evaluate(
                held_out,
                engine=engine,
                pool=pool,
                tokenizer=tokenizer,
                prompt=stage.prompt,
                params=SamplingParams(max_tokens=stage.rollout.max_tokens, temperature=stage.eval.temperature),
                samples=1,
                seed=stage.seed,
            )
        model.train(training)
        return done.result.estimates["avg@1"].value

    return accuracy


def run_piece(arm: str, seed: int, output: Path, every: int) -> None:
    """One arm of one seed, kept as a file when it is complete."""
    prepare_process()
    found: dict[str, object] = {}
    if arm == "warm":
        run_stage(stages(output, seed, every)[0], output / f"warm-{seed}")
    else:
        found = (learn_ours if arm == "ours" else learn_trl)(output, seed, every)
    (output / f"{arm}-{seed}.json").write_text(json.dumps(found))


def figures(output: Path, seeds: list[int]) -> dict[str, object]:
    """Final accuracy and seconds to the target, by arm and seed, and the ratio of the means."""
    table: dict[str, dict[str, list[float | None]]] = {}
    for arm in ("ours", "trl"):
        curves = [json.loads((output / f"{arm}-{seed}.json").read_text())["curve"] for seed in seeds]
        reached = [next((seconds for _, seconds, value in curve if value >= TARGET), None) for curve in curves]
        table[arm] = {
            "start": [curve[0][2] for curve in curves],
            "final": [curve[-1][2] for curve in curves],
            "seconds": [round(curve[-1][1], 1) for curve in curves],
            f"seconds_to_{TARGET:.0%}": [None if value is None else round(value, 1) for value in reached],
        }
    times = {arm: table[arm][f"seconds_to_{TARGET:.0%}"] for arm in table}
    ratio = None
    if all(value is not None for arm in times for value in times[arm]):
        ours, trl = (statistics.fmean(value for value in times[arm] if value is not None) for arm in ("ours", "trl"))
        ratio = round(ours / trl, 3)
    return {"seeds": seeds, **table, "our_share_of_trls_time_to_target": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--every", type=int, default=5, help="steps between evaluations")
    parser.add_argument("--arm", choices=ARMS)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.arm:
        run_piece(options.arm, options.seed, options.output, options.every)
        return
    for seed in options.seeds:
        for arm in ARMS:
            if not (options.output / f"{arm}-{seed}.json").exists():
                piece = ["--arm", arm, "--seed", str(seed), "--every", str(options.every)]
                with (options.output / f"{arm}-{seed}.log").open("wb") as log:
                    command = [sys.executable, __file__, "--output", str(options.output), *piece]
                    subprocess.run(command, check=True, stdout=log, stderr=log)
    print(json.dumps(figures(options.output, options.seeds), indent=1))


if __name__ == "__main__":
    main()
