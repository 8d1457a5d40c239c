"""Run folders and histories whose tokens are really drawn from known distributions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reasoner.config.load import dump, resolve
from reasoner.config.mappings import deep_merge
from reasoner.config.stage import StageConfig
from reasoner.storage.history import History, UpdateRecord, attach_updates, row_of
from verifiers import all_right, all_wrong

VOCABULARY = 12


def stage(**changes: object) -> StageConfig:
    raw: dict[str, object] = {"method": "grpo", "steps": 20, "task": "arithmetic", "model": "somewhere"}
    own = {"optim": {"lr": 1e-5}, "rollout": {"max_tokens": 12}}
    return resolve(deep_merge({**raw, **own}, changes)).stages[0]


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    scaled = np.exp((logits - logits.max(-1, keepdims=True)) / temperature)
    return scaled / scaled.sum(-1, keepdims=True)


def nucleus(p: np.ndarray, top_p: float) -> np.ndarray:
    order = np.argsort(-p, axis=-1)
    ranked = np.take_along_axis(p, order, -1)
    kept = (ranked.cumsum(-1) - ranked) < top_p
    mask = np.zeros_like(p, dtype=bool)
    np.put_along_axis(mask, order, kept, -1)
    cut = np.where(mask, p, 0)
    return cut / cut.sum(-1, keepdims=True)


@dataclass
class Tokens:
    """[rows, T] numbers of one step: the sampled tokens, and each side's log-probabilities of them."""

    ids: np.ndarray
    engine: np.ndarray
    trainer: np.ndarray
    entropy: float


def sample_tokens(
    rng: np.random.Generator,
    rows: int,
    length: int,
    *,
    sampled: Callable[[np.ndarray], np.ndarray] = softmax,
    reported: Callable[[np.ndarray], np.ndarray] | None = None,
    drift: float = 0.0,
) -> Tokens:
    """Draw from `sampled(logits)`; the engine reports `reported(logits)`, the trainer softmax(logits + drift)."""
    logits = rng.normal(0, 2.0, (rows, length, VOCABULARY))
    q = sampled(logits)
    ids = (rng.random((rows, length, 1)) > q.cumsum(-1)).sum(-1).clip(max=VOCABULARY - 1)
    p = softmax(logits + drift * rng.normal(0, 1, logits.shape))
    told = q if reported is None else reported(logits)

    def of(distribution: np.ndarray) -> np.ndarray:
        return np.log(np.take_along_axis(distribution, ids[..., None], -1)[..., 0])

    return Tokens(ids, of(told), of(p) + rng.normal(0, 1e-6, ids.shape), float(-(p * np.log(p)).sum(-1).mean()))


@dataclass
class Made:
    """Records of a run as dictionaries, as they are written."""

    rollouts: list[dict]
    updates: list[dict]
    metrics: list[dict]


def make_records(
    *,
    steps: int = 12,
    problems: int = 6,
    group_size: int = 8,
    length: int = 12,
    seed: int = 0,
    accuracy: Callable[[int], float] = lambda step: 0.3 + 0.03 * step,
    change: Callable[[dict, np.random.Generator], None] = lambda row, rng: None,
    flip: bool = False,
    **tokens: object,
) -> Made:
    """A run that learns additions; `change` edits each rollout before advantages are computed."""
    rng = np.random.default_rng(seed)
    made = Made([], [], [])
    drift = tokens.pop("drift", None)
    for step in range(1, steps + 1):
        drawn = sample_tokens(
            rng, problems * group_size, length, drift=drift(step) if callable(drift) else 0.0, **tokens
        )  # type: ignore[arg-type]
        rows: list[dict] = []
        for place in range(problems * group_size):
            group, sample = divmod(place, group_size)
            rows.append(rollout(rng, step, group, sample, drawn, place, accuracy(step)))
            change(rows[-1], rng)
        made.rollouts += rows
        made.updates += [
            update for group in range(problems) for update in updates(rows, group, drawn, group_size, flip)
        ]
        made.metrics.append(metrics(rng, step, rows, drawn, group_size))
    return made


def rollout(
    rng: np.random.Generator, step: int, group: int, sample: int, drawn: Tokens, place: int, accuracy: float
) -> dict:
    a, b = 10 + (7 * step + 13 * group) % 90, 10 + (11 * step + 29 * group) % 90
    right = bool(rng.random() < accuracy)
    answer = str(a + b if right else a + b + 1 + int(rng.integers(9)))
    return {
        "step": step, "group": group, "sample": sample, "problem": f"add/{a}+{b}", "task": "arithmetic",
        "difficulty": (a + b) % 4 / 3, "prompt": f"{a}+{b}=?\n", "question": None,
        "completion": f"{a} and {b} make #### {answer}", "tokens": drawn.ids.shape[1], "finish_reason": "stop",
        "policy_version": step - 1, "token_ids": drawn.ids[place].tolist(),
        "rollout_logprobs": drawn.engine[place].tolist(), "loss_mask": None, "reference": str(a + b), "info": {},
        "verifier": "exact", "verifier_options": {}, "shaping": 0.0, "components": {}, "reward": float(right),
        "prompt_ids": [1, 2, 3 + a, 3 + b],
        "verdict": {
            "outcome": "correct" if right else "incorrect", "reward": float(right), "answer": answer,
            "detail": {"reason": "equal to the reference" if right else "not the reference"}, "seconds": 0.001,
            "verifier": "exact", "version": "1",
        },
    }  # fmt: skip


def updates(rows: list[dict], group: int, drawn: Tokens, group_size: int, flip: bool) -> list[dict]:
    mine = rows[group * group_size : (group + 1) * group_size]
    rewards = [row["reward"] for row in mine if row["reward"] is not None]
    found = []
    for offset, row in enumerate(mine):
        base = {"step": row["step"], "group": group, "sample": row["sample"]}
        if row["reward"] is None or max(rewards) == min(rewards):
            found.append({**base, "dropped": "no signal in its group"})
            continue
        centred = row["reward"] - float(np.mean(rewards))
        advantage = centred / (float(np.std(rewards)) + 1e-6) * (-1 if flip else 1)
        scored = drawn.trainer[group * group_size + offset].round(5).tolist()
        found.append({**base, "advantage": advantage, "trainer_logprobs": scored})
    return found


def metrics(rng: np.random.Generator, step: int, rows: list[dict], drawn: Tokens, group_size: int) -> dict:
    graded = [row["reward"] for row in rows if row["reward"] is not None]
    groups = [graded[i : i + group_size] for i in range(0, len(graded), group_size)]
    marks = [row_of(row).mark for row in rows if row["reward"] is not None]
    starts = range(0, len(marks), group_size)
    gap = drawn.trainer - drawn.engine
    shares = {
        "groups/signal": np.mean([max(g) > min(g) for g in groups]),
        "groups/all_right": np.mean([all_right(marks[i : i + group_size]) for i in starts]),
        "groups/all_wrong": np.mean([all_wrong(marks[i : i + group_size]) for i in starts]),
        "completion/truncated": np.mean([row["finish_reason"] == "length" for row in rows]),
        "outcome/no_answer": np.mean([row["verdict"]["outcome"] == "no_answer" for row in rows]),
        "grading/ungraded": np.mean([row["reward"] is None for row in rows]),
    }
    return {
        "step": step, "reward/mean": float(np.mean(graded)), "reward/std": float(np.std(graded)),
        "reward/pass_rate": float(np.mean([mark == 1 for mark in marks])),
        "completion/length_mean": float(drawn.ids.shape[1]),
        "completion/length_max": float(drawn.ids.shape[1]), "policy/entropy": drawn.entropy,
        "policy/step_kl": 1e-3, "policy/step_gain": 0.01 + 0.005 * float(rng.normal()), "policy/ratio": 1.0,
        "policy/clip_fraction": 0.0, "gap/logprob_abs": float(np.abs(gap).mean()),
        "gap/ratio": float(np.exp(gap).mean()), "gap/probe": 1e-6, "optim/loss": None, "optim/grad_norm": 1.0,
        "optim/lr": 1e-5, "time/step": 2.0, "time/generation": 1.0, "time/grading_wait": 0.0, "time/update": 0.8,
        "time/logprobs": 0.1, "time/sync": 0.1, "throughput/tokens_per_second": 100.0,
        "groups/rows_kept": float(len(graded)),
        **{name: float(value) for name, value in shares.items()},
    }  # fmt: skip


def with_losses(made: Made) -> Made:
    """Set the losses that are None: minus the mean advantage over the trained tokens of the step."""
    tokens = {
        (row["step"], row["group"], row["sample"]): sum(row["loss_mask"] or []) or row["tokens"]
        for row in made.rollouts
    }
    for row in made.metrics:
        if row.get("optim/loss", 0.0) is None:
            used = [
                update
                for update in made.updates
                if update["step"] == row["step"] and update.get("advantage") is not None
            ]
            weights = [tokens[one["step"], one["group"], one["sample"]] for one in used]
            total = sum(weight * one["advantage"] for weight, one in zip(weights, used, strict=True))
            row["optim/loss"] = -total / max(1, sum(weights))
    return made


def make_history(made: Made, **config: object) -> History:
    with_losses(made)
    history = History(config=stage(**config), metrics=made.metrics, rows=[row_of(row) for row in made.rollouts])
    attach_updates(history.rows, map(UpdateRecord.model_validate, made.updates))
    history.complete = True
    return history


def write_run(folder: Path, made: Made, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with_losses(made)
    (folder / "config.yaml").write_text(dump(stage(**config)))
    (folder / "environment.json").write_text(json.dumps({"device": "cpu", "python": "3.11"}))
    for name, rows in (("rollouts", made.rollouts), ("updates", made.updates), ("metrics", made.metrics)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evals = [
        {"step": step, "problems": 64, "samples": 1, "ungraded": 0, "truncated": 0.0, "tokens_mean": 12.0,
         "metrics": {"avg@1": value}}
        for step, value in ((0, [0.3, 0.2, 0.42]), (made.metrics[-1]["step"], [0.7, 0.58, 0.8]))
    ]  # fmt: skip
    (folder / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evals))
    (folder / "done.json").write_text("{}")
    return folder
