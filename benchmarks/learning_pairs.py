"""Learning test of every estimator with every policy loss, on a task of seconds. Prints JSON; exit 1 if a pair fails.

The model has random weights and writes bytes. The reward is the fraction of lowercase letters among a completion's
characters, so it is partial from the first step on, and no completion gets the full reward. A pair has learned if the
mean reward of the last third of the steps is above that of the first steps by more than three standard errors, in
every seed. Rejection sampling learns from rewards of at least `algorithm.advantage_options.threshold`. With its default
of 1, the full reward, it cannot learn here, and the run must say so; it is also tried with a lower threshold. With one
update per step every ratio is 1 and all losses have the same gradient (up to rounding); with --updates 2 they differ.

    python benchmarks/learning_pairs.py --seeds 0 1 2                    every pair
    python benchmarks/learning_pairs.py --pairs grpo-clip gae-gspo       some of them
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from reasoner.engine.environment import prepare_process
from tasks import Problem, Task

THRESHOLD = 0.2
"""Threshold of rejection sampling: about one rollout in ten reaches it at the start."""
STEPS = 12


class Letters(Task):
    """Task of writing lowercase letters, whatever the prompt."""

    name = "letters"

    def problems(self, split: str) -> Sequence[Problem]:
        """Return problems with prompts of two letters."""
        pairs = itertools.islice(itertools.product("abcdefgh", repeat=2), 64)
        return [
            Problem(
                id=f"{split}/{a}{b}",
                prompt=f"{a}{b}:",
                reference="",
                verifier=f"{__file__}:share_of_letters",
                task=self.name,
            )
            for a, b in pairs
        ]


def share_of_letters(*, completion: str) -> float:
    """Return the fraction of the characters that are lowercase letters."""
    return sum("a" <= character <= "z" for character in completion) / max(1, len(completion))


def pairs() -> list[tuple[str, str, dict[str, object]]]:
    """Return (estimator, loss, options) of every pair, and rejection sampling with its default threshold."""
    from reasoner.algorithm.advantage import ESTIMATORS
    from reasoner.algorithm.loss import POLICY_LOSSES

    found = [
        (advantage, loss, {"threshold": THRESHOLD} if advantage == "rejection" else {})
        for advantage in ESTIMATORS
        for loss in POLICY_LOSSES
    ]
    return [*found, ("rejection", "reinforce", {})]


def rewards_of(
    advantage: str, loss: str, options: dict[str, object], seed: int, given: argparse.Namespace
) -> tuple[list[float], list[float], str]:
    """Train one pair; return the mean reward and its standard error of each step, and the run's messages."""
    from reasoner.config.load import resolve
    from reasoner.stages.pipeline import run_pipeline

    with tempfile.TemporaryDirectory(prefix="learning-pairs-") as folder:
        config = resolve(
            {
                "method": "ppo" if advantage == "gae" else "grpo",
                "name": "pair",
                "output": f"{folder}/run",
                "seed": seed,
                "steps": given.steps,
                "task": f"{__file__}:Letters",
                "model": {"from_scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 64}},
                "prompt": {"chat": "never"},
                "rollout": {"problems_per_step": 8, "group_size": 8, "max_tokens": 16},
                "algorithm": {
                    "advantage": advantage,
                    "loss": loss,
                    "advantage_options": options,
                    "aggregation": "sequence",
                },
                "optim": {"lr": 1.5e-2, "updates_per_step": given.updates},
                "value": {"lr": 1.5e-2},
                "engine": {"name": "hf"},
                "eval": {"problems": 0, "overlap": "off"},
                "checkpoint": {"every": 1000},
                "logging": {"tensorboard": False},
            }
        )
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            last = run_pipeline(config, resume=False)
        rows = [json.loads(line) for line in (last / "metrics.jsonl").read_text().splitlines()]
    errors = [row["reward/std"] / 64**0.5 for row in rows]
    return [row["reward/mean"] for row in rows], errors, said.getvalue()


def tried(advantage: str, loss: str, options: dict[str, object], given: argparse.Namespace) -> dict[str, Any]:
    """Try one pair in every seed; return the reward at the start and at the end, and if it rose."""
    starts, ends, rose = list[float](), list[float](), list[bool]()
    told = ""
    for seed in given.seeds:
        means, errors, said = rewards_of(advantage, loss, options, seed, given)
        part = max(1, given.steps // 3)
        first, last = means[: max(1, part // 2)], means[-part:]
        error = max(errors) * (1 / len(first) + 1 / len(last)) ** 0.5
        starts.append(round(statistics.fmean(first), 4))
        ends.append(round(statistics.fmean(last), 4))
        rose.append(ends[-1] - starts[-1] > 3 * error)
        told = told or next((line for line in said.splitlines() if line.startswith("no rollout reaches")), "")
    return {
        "advantage": advantage,
        "loss": loss,
        "options": options,
        "start": starts,
        "end": ends,
        "rose": rose,
        "said": told,
    }


def main() -> int:
    """Try the pairs and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--updates", type=int, default=1, help="optimizer steps per step; 1: every ratio is 1")
    parser.add_argument("--pairs", nargs="+", help="estimator-loss, such as grpo-clip; default: every pair")
    given = parser.parse_args()
    prepare_process()
    started = time.perf_counter()
    rows = [
        tried(advantage, loss, options, given)
        for advantage, loss, options in pairs()
        if given.pairs is None or f"{advantage}-{loss}" in given.pairs
    ]
    good = [row for row in rows if all(row["rose"]) or row["said"]]
    print(
        json.dumps(
            {
                "steps": given.steps,
                "updates": given.updates,
                "seeds": given.seeds,
                "seconds": round(time.perf_counter() - started, 1),
                "pairs": rows,
                "rose_in_every_seed": sum(all(row["rose"]) for row in rows),
                "said_why_not": sum(bool(row["said"]) for row in rows),
                "silent": [f"{row['advantage']}-{row['loss']}" for row in rows if row not in good],
            },
            indent=1,
        )
    )
    return 0 if len(good) == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
