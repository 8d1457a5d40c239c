"""Faults of environments planted in real small runs, and healthy runs: test of what `explain` names first.

A small model learns from demonstrations to multiply two-digit numbers, half of the time with a calculator, and is then
trained with one thing broken. Prints one JSON object. The exit status is 1 if a fault is not named first, or if a
healthy run raises an alarm.

    python benchmarks/planted_turn_faults.py --output /tmp/planted-turns             # four CPU minutes
    python benchmarks/planted_turn_faults.py --output /tmp/planted-turns --judge     # explain the stored runs again
"""

from __future__ import annotations

from reasoner.engine.environment import prepare_process

prepare_process()

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import Mapping  # noqa: E402
from pathlib import Path  # noqa: E402

from planted_faults import Run, judge, train  # noqa: E402

from reasoner.config.mappings import deep_merge  # noqa: E402

PARTS = str(Path(__file__).resolve().parent / "planted" / "environments.py")
MARKS = {"opening": "<", "closing": ">"}


def task(environment: str = "calculator", *, verifier: str | None = None, **options: object) -> dict[str, object]:
    """The products, with the calculator under these options, or another environment of PARTS."""
    name = environment if environment == "calculator" else f"{PARTS}:{environment}"
    return {
        "name": "tool_problems",
        "options": {"family": "product", "digits": 2},
        "environment": {"name": name, "options": {**MARKS, **options}},
        **({} if verifier is None else {"verifier": {"name": f"{PARTS}:{verifier}"}}),
    }


GAME = {"name": "guessing", "options": {"numbers": 8, "guesses": 3}}
GAME_LIMITS = {"max_tokens": 40, "max_turns": 3, "turn_tokens": 4}
COMMON: dict[str, object] = {
    "seed": 1,
    "method": "grpo",
    "steps": 12,
    "task": task(),
    "prompt": {"chat": "never"},
    "rollout": {"problems_per_step": 8, "group_size": 8, "max_tokens": 32},
    "engine": {"name": "hf"},
    "grading": {"workers": 1},
    "optim": {"lr": 3e-4, "warmup_steps": 2},
    "eval": {"problems": 0},
    "checkpoint": {"every": 100, "keep": 1},
    "logging": {"tensorboard": False},
}
SFT: dict[str, object] = {
    "method": "sft",
    "model": {"from_scratch": {"hidden_size": 96, "layers": 2, "heads": 4, "max_positions": 96}},
    "optim": {"lr": 2e-3, "schedule": "constant", "warmup_steps": 20},
    "sft": {"demonstrations": 2000, "rows_per_step": 64, "check_every": 50, "check_problems": 128},
}
WARM: dict[str, dict[str, object]] = {
    "mixed": {"steps": 800, "sft": {"until_accuracy": 0.4}},
    "direct": {
        "steps": 120,
        "sft": {"until_accuracy": None},
        "task": {**task(), "options": {"family": "product", "digits": 2, "demonstrations": "direct"}},
    },
    "game": {"steps": 150, "task": GAME, "rollout": GAME_LIMITS, "sft": {"until_accuracy": 0.3}},
}
RUNS = (
    Run("tool down", {"task": task(fails=True)}, ("tool-down",)),
    Run("tool wrong", {"task": task(add=1)}, ("tool-wrong",)),
    Run("replies cut", {"task": task("Wordy"), "rollout": {"reply_tokens": 12, "max_tokens": 48}}, ("replies-cut",)),
    Run("one turn", {"rollout": {"max_turns": 1}}, ("turn-limit",)),
    Run("fails ever more often", {"task": task("Leaking")}, ("environment-fault",)),
    Run("slow", {"task": task("Slow")}, ("environment-slow",)),
    Run(
        "calls are punished",
        {"task": task(verifier="AgainstCalls"), "optim": {"lr": 1e-3}, "steps": 16},
        ("calls-collapse",),
    ),
    Run("no calls in the demonstrations", {}, ("no-calls",), warm="direct"),
    Run("closing mark never written", {"task": task(closing="]")}, ("calls-not-read",)),
    Run("healthy: calculator"),
    Run("healthy: another seed, groups of four", {"seed": 2, "rollout": {"group_size": 4, "problems_per_step": 16}}),
    Run("healthy: RLOO, larger steps", {"seed": 3, "algorithm": {"advantage": "rloo"}, "optim": {"lr": 6e-4}}),
    Run("healthy: calculator, long enough to learn", {"seed": 4, "steps": 20}),
    Run("healthy: a game", {"task": GAME, "rollout": GAME_LIMITS}, warm="game"),
)


def settings(*parts: Mapping[str, object]) -> dict[str, object]:
    """Merge settings; a later task replaces an earlier one whole, since its options are others."""
    merged: dict[str, object] = {}
    for part in parts:
        merged = {**deep_merge(merged, part), **({"task": part["task"]} if "task" in part else {})}
    return merged


def warm_model(name: str, root: Path) -> str:
    """Return the folder of a model that was trained on demonstrations, on first use."""
    folder = root / "warm" / name
    train(settings(COMMON, SFT, WARM[name]), folder)
    if not (folder / "final").is_dir():
        raise SystemExit(f"the warm start {name!r} did not finish: see {folder}, remove the folder, and try again")
    return str(folder / "final")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", default=[""], nargs="+", help="runs whose name contains one of these")
    parser.add_argument("--judge", action="store_true", help="train nothing; explain the stored runs")
    options = parser.parse_args()
    results: list[dict[str, object]] = []
    for run in RUNS:
        folder = options.output / "runs" / run.name.replace(" ", "-").replace(":", "").replace(",", "")
        if not any(part in run.name for part in options.only):
            continue
        seconds = 0.0
        if not options.judge:
            model = {"model": {"path": warm_model(run.warm if run.warm in WARM else "mixed", options.output)}}
            seconds = train(settings(COMMON, model, run.change), folder)
        elif not (folder / "config.yaml").is_file():
            continue
        results.append({**judge(run, folder), "seconds": round(seconds, 1)})
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    faults, healthy = ([row for row in results if bool(row["expected"]) == planted] for planted in (True, False))
    named, quiet = (sum(bool(row["good"]) for row in rows) for rows in (faults, healthy))
    figures = {"faults": len(faults), "named_first": named, "healthy": len(healthy), "quiet": quiet}
    print(json.dumps({**figures, "runs": results}, indent=1))
    return 0 if named == len(faults) and quiet == len(healthy) else 1


if __name__ == "__main__":
    sys.exit(main())
