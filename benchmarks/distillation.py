"""On-policy distillation against SFT on the teacher's samples, with as many trained tokens: configs/distill_tiny.yaml.

One teacher; a student's warm start for each seed, from which all arms of the seed begin:

    on-policy      the config's last stage: samples of the student, reverse KL to the teacher as advantages
    sft            as many trained tokens of completions that the teacher sampled for training problems
    gkd            the same completions, with the teacher's whole distributions (gkd.lmbda 0, beta 0.5)
    gkd on-policy  as many trained tokens of the student's own samples, with whole distributions (gkd.lmbda 1, beta 0.5)

A JSON line for the teacher, for each arm of each seed (accuracy on 512 held-out problems with its 95 % Wilson interval
after so many trained tokens), and at last the means of each arm over the seeds and the paired differences to SFT (95 %
t intervals).

    python benchmarks/distillation.py --output /tmp/distillation
"""

from __future__ import annotations

from reasoner.engine.environment import prepare_process

prepare_process()

import argparse  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Mapping  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ppo_contrast import interval  # noqa: E402
from quickstart_controls import lines  # noqa: E402

from reasoner.config.load import find_config, resolve  # noqa: E402
from reasoner.session.evaluate_model import evaluate_model  # noqa: E402
from reasoner.stages.pipeline import run_pipeline  # noqa: E402
from verifiers.plain_yaml import read_yaml_file  # noqa: E402

ARMS = ("on-policy", "sft", "gkd", "gkd on-policy")
SPARE = 2.25
"""Completions of the teacher, over those that the tokens of the on-policy arm need at its own mean length."""


def run(raw: Mapping[str, Any], stage: Mapping[str, Any], folder: Path, *, seed: int) -> Path:
    """Run one stage into a folder, or continue there; return the folder."""
    run_pipeline(resolve({**raw, "stages": [stage], "seed": seed, "output": str(folder)}), resume=True)
    return folder


def curve(folder: Path) -> list[dict[str, Any]]:
    """Return the evaluations of a stage: step, trained tokens until then, accuracy with its interval."""
    tokens = [0.0, *itertools.accumulate(row["optim/tokens"] for row in lines(folder / "metrics.jsonl"))]
    found = {row["step"]: row["metrics"]["avg@1"] for row in lines(folder / "evals.jsonl") if "avg@1" in row["metrics"]}
    return [
        {"step": step, "tokens": int(tokens[step]), "accuracy": [round(value, 4) for value in accuracy]}
        for step, accuracy in sorted(found.items())
    ]


def teacher_samples(raw: Mapping[str, Any], teacher: Path, folder: Path, *, problems: int, seed: int) -> Path:
    """Sample one completion of the teacher for each of the first training problems; return the file."""
    file = folder / "eval_rollouts.jsonl"
    if not file.is_file():
        task = {**raw["task"], "eval_split": "train"}
        given = {**raw, "task": task, "model": str(teacher), "eval": {**raw["eval"], "problems": problems}}
        (stage,) = resolve(
            {**given, "stages": [{"method": "grpo"}], "rollout": {"max_tokens": 40}, "seed": seed}
        ).stages
        evaluate_model(stage, output=folder, as_json=True)
    return file


def arm_stage(
    arm: str, *, samples: Path, teacher: Path, student: Path, rows: int, steps: int, rate: float
) -> dict[str, Any]:
    """Return the stage of an arm other than on-policy."""
    common = {
        "model": str(student),
        "steps": steps,
        "optim": {"lr": rate},
        "eval": {"every": max(1, round(steps / 2))},
        "sft": {"data": [str(samples)], "format": "trl", "rows_per_step": rows},
    }
    if arm == "sft":
        return {"method": "sft", **common}
    return {"method": "gkd", "teacher": str(teacher), "gkd": {"lmbda": float(arm == "gkd on-policy")}, **common}


def main() -> None:
    """Run all arms and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs; finished ones are reused")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=[*ARMS])
    parser.add_argument("--rates", type=float, nargs="+", help="learning rate of each arm; default: the config's")
    options = parser.parse_args()
    if options.arms[0] != "on-policy":
        parser.error("--arms must begin with on-policy, whose trained tokens are counted for the others.")
    rates = dict(zip(options.arms, options.rates or [None] * len(options.arms), strict=True))
    raw: Any = read_yaml_file(find_config("distill_tiny"))
    teach, warm, learn = raw["stages"]
    teacher = run(raw, teach, options.output / "teacher", seed=0)
    print(json.dumps({"teacher": curve(teacher)}), flush=True)
    teacher /= "final"
    last: dict[str, list[float]] = {}
    rows = raw["rollout"]["problems_per_step"]
    samples = teacher_samples(
        raw, teacher, options.output / "samples", problems=int(SPARE * rows * learn["steps"]), seed=0
    )
    length = statistics.fmean(row["tokens"] for row in lines(samples))
    print(json.dumps({"completions of the teacher": len(lines(samples)), "tokens of each": round(length, 1)}))
    for seed in options.seeds:
        root = options.output / f"seed-{seed}"
        student = run(raw, warm, root / "student", seed=seed) / "final"
        tokens = 0.0
        for arm in options.arms:
            began = time.process_time()
            folder, rate = root / arm.replace(" ", "-"), rates[arm] or learn["optim"]["lr"]
            if arm == "on-policy":
                stage = {**learn, "optim": {"lr": rate}, "model": str(student), "teacher": str(teacher)}
            else:
                steps = max(3, round(tokens / (rows * length)))
                stage = arm_stage(
                    arm, samples=samples, teacher=teacher, student=student, rows=rows, steps=steps, rate=rate
                )
            found = curve(run(raw, stage, folder, seed=seed))
            tokens = tokens or found[-1]["tokens"]
            last.setdefault(arm, []).append(found[-1]["accuracy"][0])
            seconds = round(time.process_time() - began)
            print(json.dumps({"seed": seed, "arm": arm, "curve": found, "cpu seconds": seconds}), flush=True)
    print(
        json.dumps(
            {"accuracy at the end, mean and 95 % t interval over seeds": {k: interval(v) for k, v in last.items()}}
        )
    )
    if "sft" in last:
        gaps = {
            arm: interval([one - other for one, other in zip(values, last["sft"], strict=True)])
            for arm, values in last.items()
            if arm != "sft"
        }
        print(json.dumps({"difference to sft": gaps}))


if __name__ == "__main__":
    main()
