"""Preflight of GSM8K and countdown with a small model: its duration, and how well it predicts a step.

The model is randomly initialized, so the reward is one that any model gets sometimes: 1 if a completion's length is
even. Every step has its update. Each repeat runs `reasoner preflight --json` and then a few steps of the same run.
Prints one JSON object. The exit status is 1 if a preflight takes longer than three minutes or the median prediction is
off by more than 40 %. GSM8K is read from REASONER_DATA_DIR (a folder with math/gsm8k_train.jsonl.gz); without it only
countdown runs.

    REASONER_DATA_DIR=/path/to/data python benchmarks/preflight.py --repeats 3
    ... --repeats 1 --task countdown --store rows.jsonl        # in parts: the summary covers all stored repeats
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS = 5
PARITY = f"{Path(__file__).resolve().parent}/planted/parts.py:parity"
COMMON = [
    "method=grpo", f"steps={STEPS}", "rollout.problems_per_step=16", "rollout.group_size=8", "eval.problems=0",
    "logging.tensorboard=false", "optim.lr=1e-4", "checkpoint.every=1000",
    "model={from_scratch: {hidden_size: 128, layers: 2, heads: 4, max_positions: 2048}}",
]  # fmt: skip


def tasks() -> dict[str, list[str]]:
    found = {
        "countdown": [
            f"task={{name: countdown, verifier: {{name: '{PARITY}'}}}}",
            "prompt.chat=never",
            "rollout.max_tokens=64",
        ],
    }
    data = os.environ.get("REASONER_DATA_DIR")
    if data:
        options = f"options: {{path: {data}/math}}"
        found["gsm8k"] = [f"task={{name: gsm8k, {options}, verifier: {{name: '{PARITY}'}}}}", "rollout.max_tokens=128"]
    else:
        print("REASONER_DATA_DIR is not set: gsm8k is left out", file=sys.stderr)
    return found


def reasoner(*arguments: str) -> str:
    command = [sys.executable, "-c", "from reasoner.cli import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return done.stdout


def once(overrides: list[str], engine: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "empty.yaml"
        config.write_text("name: preflight\ntask: countdown\n")
        run = Path(folder) / "run"
        given = [*COMMON, *overrides, f"engine.name={engine}", f"output={run}"]
        started = time.monotonic()
        said = json.loads(reasoner("preflight", str(config), *given, "--json").strip().splitlines()[-1])
        seconds = time.monotonic() - started
        reasoner("train", str(config), *given)
        steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    real = statistics.median(step["time/step"] for step in steps[1:])
    return {
        "seconds": seconds,
        "predicted": said["step"]["seconds"],
        "real": real,
        "problems": said["problems"],
        "split": said["step"]["split"],
        "real_steps": [{k: v for k, v in step.items() if k.startswith("time/")} for step in steps],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--task", choices=["countdown", "gsm8k"], help="default: both")
    parser.add_argument("--store", type=Path, help="JSON lines to which each repeat is added; all of them count")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if options.store and options.store.is_file():
        rows = [json.loads(line) for line in options.store.read_text().splitlines()]
    for name, overrides in tasks().items():
        for _ in range(options.repeats if options.task in (None, name) else 0):
            rows.append({"task": name, "engine": options.engine, **once(overrides, options.engine)})
            if options.store:
                with options.store.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    result: dict[str, object] = {}
    good = True
    for name in tasks():
        own = [row for row in rows if row["task"] == name and row["engine"] == options.engine]
        if own:
            error = statistics.median(row["predicted"] / row["real"] - 1 for row in own)
            longest = max(row["seconds"] for row in own)
            good &= abs(error) <= 0.4 and longest < 180
            result[name] = {"error_median": round(error, 3), "seconds_longest": round(longest, 1), "repeats": own}
    print(json.dumps(result))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
