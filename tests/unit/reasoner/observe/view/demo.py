"""A made-up run whose held-out accuracy falls at step 40, with LaTeX, code, thoughts and turns in its completions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reasoner.config.load import dump
from tests.unit.reasoner.runs import stage

EVALUATED = (0, 20, 40, 60)
HELD_OUT = 12
BROKEN = range(3, 8)
"""Held-out problems that are right at step 20 and wrong at step 40."""


def write_demo(folder: Path, *, steps: int = 60, done: bool = True, shift: float = 0.0) -> Path:
    """Write a run of `steps` steps; `shift` is added to its rewards' mean in metrics.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump(stage(steps=60)))
    (folder / "environment.json").write_text(json.dumps({"device": "cpu"}))
    for name in ("rollouts", "updates", "metrics", "evals", "eval_rollouts"):
        (folder / f"{name}.jsonl").write_text("")
    evaluate(folder, 0)
    for step in range(1, steps + 1):
        train(folder, step, shift=shift)
    if done:
        (folder / "done.json").write_text(json.dumps({"steps": steps}))
    return folder


def write_evaluation(folder: Path, step: int) -> Path:
    """Write what `reasoner eval --output` writes, with the demo's completions after a step, and its figure."""
    folder.mkdir(parents=True)
    evaluate(folder, step)
    rows = [json.loads(line) | {"step": 0} for line in (folder / "eval_rollouts.jsonl").read_text().splitlines()]
    (folder / "eval_rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = json.loads((folder / "evals.jsonl").read_text())
    del result["step"]
    model = {"model": f"checkpoints/step-{step}", "task": "products"}
    (folder / "evals.jsonl").write_text(json.dumps(model | result) + "\n")
    return folder


def append(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("a") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row in rows))


def train(folder: Path, step: int, *, shift: float = 0.0) -> None:
    """Append one step, and its evaluation where there is one."""
    rows = [rollout(step, group, sample, f"train/{(step + group) % 8}") for group in range(2) for sample in range(4)]
    append(folder / "rollouts.jsonl", rows)
    changes = [{"step": step, "group": row["group"], "sample": row["sample"]} for row in rows]
    append(folder / "updates.jsonl", [{**place, "advantage": 0.5, "trainer_logprobs": [-0.5] * 4} for place in changes])
    mean = sum(row["reward"] for row in rows) / len(rows) + shift
    measured = {"reward/mean": mean, "reward/std": 0.4, "completion/truncated": 0.0, "optim/loss": 1.0 / step}
    append(folder / "metrics.jsonl", [{"step": step, **measured}])
    if step in EVALUATED:
        evaluate(folder, step)


def evaluate(folder: Path, step: int) -> None:
    """Append one evaluation of HELD_OUT problems, one sample each."""
    rows = [rollout(step, group, 0, f"held/{group}", right=held_out_right(step, group)) for group in range(HELD_OUT)]
    append(folder / "eval_rollouts.jsonl", rows)
    share = sum(row["reward"] for row in rows) / HELD_OUT
    metrics = {"avg@1": [share, max(0.0, share - 0.2), min(1.0, share + 0.2)]}
    append(folder / "evals.jsonl", [{"step": step, "problems": HELD_OUT, "samples": 1, "metrics": metrics}])


def held_out_right(step: int, group: int) -> bool:
    """Return True if a held-out problem is solved at a step: more with time, but for BROKEN at step 40."""
    if step == 40 and group in BROKEN:
        return False
    return group < {0: 3, 20: 9, 40: 9, 60: 10}[step]


def rollout(step: int, group: int, sample: int, problem: str, *, right: bool | None = None) -> dict[str, Any]:
    a, b = 10 + group, 3 + group % 5
    right = (step + group + sample) % 3 != 0 if right is None else right
    answer = str(a * b if right else a + b)
    sign = "\\times" if right else "+"
    thought = f"<think>The product of {a} and {b}: first {a} {sign} {b}.\n\nLet me check it.</think>\n"
    code = f"```python\ndef product(a, b):\n    return a {'*' if right else '+'} b  # {a}, {b}\n```\n"
    text = f"{thought}**Step 1.** We have ${a} {sign} {b} = {answer}$.\n\n{code}\nSo the answer is \\boxed{{{answer}}}."
    outcome = "correct" if right else "incorrect"
    return {
        "step": step, "group": group, "sample": sample, "problem": problem, "task": "products", "difficulty": None,
        "prompt": f"<|user|>What is ${a} \\times {b}$?<|assistant|>", "question": f"What is ${a} \\times {b}$?",
        "completion": text, "tokens": 40 + step % 7 + (0 if right else 11), "finish_reason": "stop",
        "policy_version": max(0, step - 1), "token_ids": [1, 2, 3, 4], "rollout_logprobs": [-0.5] * 4, "turns": None,
        "loss_mask": None, "reference": str(a * b), "info": {}, "verifier": "math", "verifier_options": {},
        "shaping": 0.0, "components": {}, "reward": float(right), "prompt_ids": [1, 2],
        "verdict": {"outcome": outcome, "reward": float(right), "answer": answer, "verifier": "math", "version": "1",
                    "detail": {"reason": "equal" if right else f"{answer} is not {a * b}"}, "seconds": 0.001},
    }  # fmt: skip


__all__ = ["BROKEN", "EVALUATED", "HELD_OUT", "evaluate", "rollout", "train", "write_demo", "write_evaluation"]
