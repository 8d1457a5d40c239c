"""The quickstart's second stage, trained by this trainer and TRL 1.16's GRPOTrainer from one warm start. Prints JSON.

For each seed: one warm start (the quickstart's first stage), then both trainers for the same number of steps of the
same size, with the same learning-rate schedule, sampling and verifier, through vLLM in process (with TRL's weight sync
fixed and its vLLM set to float32, as in grpo_step.py). Everything else of TRL has its defaults: it also trains on
groups without signal, and scales rewards by the group's std, as this trainer does here. Every --every steps the policy
is evaluated on the same held-out problems by the same code; the stopwatch is paused meanwhile. On a busy machine CPU
seconds are more reliable than wall-clock seconds.
Each piece is run once and stored in --output, so that a run can be interrupted at any time.

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
from typing import Any

from reasoner.engine.environment import prepare_process

ARMS = ("warm", "ours", "trl")
TARGET = 0.8
STEPS = int(os.environ.get("LEARNING_STEPS", "0"))
"""Number of steps if fewer than the quickstart's, for trying the program out."""


def stages(output: Path, seed: int, every: int):
    """Return the quickstart's two stages for a seed; the second starts from the first one's model."""
    from reasoner.config.load import load_config

    warm, learn = load_config("quickstart", [f"seed={seed}"]).stages
    path = str(output / f"warm-{seed}" / "final")
    model = learn.model.model_copy(update={"path": path, "from_scratch": None})
    evaluation = learn.eval.model_copy(update={"every": every})
    learn = learn.model_copy(update={"model": model, "eval": evaluation} | ({"steps": STEPS} if STEPS else {}))
    return warm, learn


def run_stage(stage, folder: Path) -> None:
    """Run one stage of this trainer as a run of its own."""
    from reasoner.config.stage import RunConfig
    from reasoner.stages.pipeline import run_pipeline

    stage = stage.model_copy(update={"output": str(folder)})
    run_pipeline(RunConfig(name=folder.name, output=str(folder), stages=(stage,), starts_fresh=(True,)), resume=True)


def lines(path: Path) -> list[dict]:
    """Return the rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def learn_ours(output: Path, seed: int, every: int) -> dict[str, object]:
    """Run this trainer; return accuracy against seconds of training."""
    from reasoner.session.session import Session

    folder = output / f"ours-{seed}"
    clock, at = Stopwatch(), {0: (0.0, 0.0)}
    evaluate, end_step = Session.evaluate, Session.end_step

    def timed_evaluate(session: Session, *given: object, **options: object) -> object:
        at[session.step] = clock.stop()
        try:
            return evaluate(session, *given, **options)  # pyright: ignore[reportArgumentType]
        finally:
            clock.start()

    def timed_end_step(session: Session) -> None:
        at[session.step] = clock.read()
        end_step(session)

    Session.evaluate, Session.end_step = timed_evaluate, timed_end_step  # pyright: ignore[reportAttributeAccessIssue]
    run_stage(stages(output, seed, every)[1], folder)
    curve = [[row["step"], *at[row["step"]], row["metrics"]["avg@1"][0]] for row in lines(folder / "evals.jsonl")]
    return {"curve": curve}


class Stopwatch:
    """Wall-clock and CPU seconds of this process without those of evaluations; starts after the first evaluation."""

    def __init__(self) -> None:
        self._spent = (0.0, 0.0)
        self._since: tuple[float, float] | None = None

    def read(self) -> tuple[float, float]:
        """Return the seconds so far."""
        if self._since is None:
            return self._spent
        wall, cpu = self._since
        return self._spent[0] + time.perf_counter() - wall, self._spent[1] + time.process_time() - cpu

    def stop(self) -> tuple[float, float]:
        """Pause; return the seconds so far."""
        self._spent, self._since = self.read(), None
        return self._spent

    def start(self) -> None:
        """Continue."""
        self._since = (time.perf_counter(), time.process_time())


def learn_trl(output: Path, seed: int, every: int) -> dict[str, object]:
    """Run TRL; return the same, recorded by a callback."""
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    import torch
    from datasets import Dataset
    from grpo_step import mend_sync, sample_in_float32
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from reasoner.data.problems import load_problems
    from verifiers import get_verifier

    stage = stages(output, seed, every)[1]
    (train,), (held_out,), _ = load_problems(stage)
    rows = [{"prompt": str(p.prompt), "reference": str(p.reference)} for p in train]
    verifier = get_verifier(train[0].verifier, **train[0].verifier_options)

    def reward(completions: list[str], reference: list[str], **_: object) -> list[float]:
        verdicts = [verifier.verify(completion=c, reference=r) for c, r in zip(completions, reference, strict=True)]
        return [verdict.reward or 0.0 for verdict in verdicts]

    sample_in_float32()
    evaluated = evaluator(stage, held_out)
    rollout, optim = stage.rollout, stage.optim
    curve: list[list[float]] = []
    clock = Stopwatch()

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: object, **__: object) -> None:
            self.note(0)

        def on_step_end(self, args: object, state, control: object, **__: object) -> None:
            if state.global_step % every == 0 or state.global_step == stage.steps:
                self.note(state.global_step)

        def note(self, step: int) -> None:
            curve.append([step, *clock.stop(), evaluated(trainer.model)])
            clock.start()

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
    """Return a function for a transformers model's accuracy on the held-out problems, by this trainer's evaluation."""
    from reasoner.engine import open_engine
    from reasoner.evaluation.evaluate import evaluate
    from reasoner.model.load import load_tokenizer
    from reasoner.records import SamplingParams
    from reasoner.rollout.grading import grading_pool
    from reasoner.rollout.round import RoundSampler

    tokenizer = load_tokenizer(stage.model.path)

    def accuracy(model) -> float:
        engine = open_engine("hf", model_path=stage.model.path, max_model_len=256, model=model)
        training = model.training
        model.eval()
        with grading_pool(stage) as pool:
            done = evaluate(
                held_out,
                rounds=RoundSampler(
                    engine=engine, pool=pool, tokenizer=tokenizer, prompt=stage.prompt, seed=stage.seed
                ),
                params=SamplingParams(max_tokens=stage.rollout.max_tokens, temperature=stage.eval.temperature),
                samples=1,
            )
        model.train(training)
        return done.result.estimates["avg@1"].value

    return accuracy


def run_piece(arm: str, seed: int, output: Path, every: int) -> None:
    """Run one trainer with one seed, and store the result when it is complete."""
    prepare_process()
    found: dict[str, object] = {}
    if arm == "warm":
        run_stage(stages(output, seed, every)[0], output / f"warm-{seed}")
    else:
        found = (learn_ours if arm == "ours" else learn_trl)(output, seed, every)
    (output / f"{arm}-{seed}.json").write_text(json.dumps(found))


def figures(output: Path, seeds: list[int]) -> dict[str, object]:
    """Return final accuracy and seconds to the target by trainer and seed, and ratios of means (wall clock, CPU)."""
    table: dict[str, dict[str, list[Any]]] = {}
    for arm in ("ours", "trl"):
        curves = [json.loads((output / f"{arm}-{seed}.json").read_text())["curve"] for seed in seeds]
        table[arm] = {"start": [curve[0][-1] for curve in curves], "final": [curve[-1][-1] for curve in curves]}
        for place, kind in ((1, "seconds"), (2, "cpu_seconds")):
            table[arm][kind] = [round(curve[-1][place], 1) for curve in curves]
            table[arm][f"{kind}_to_target"] = [
                next((round(row[place], 1) for row in curve if row[-1] >= TARGET), None) for curve in curves
            ]
    shares: dict[str, float] = {}
    for kind in ("seconds_to_target", "cpu_seconds_to_target"):
        ours, trl = (table[arm][kind] for arm in ("ours", "trl"))
        if None not in ours + trl:
            shares[f"share_of_trls_{kind}"] = round(statistics.fmean(ours) / statistics.fmean(trl), 3)
    return {"seeds": seeds, "target": TARGET, **table, **shares}


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
