"""Online DPO against offline DPO with as many pairs and steps: configs/online_dpo.yaml, one warm start for each seed.

Arms of a seed, all from its warm start, all with the config's settings:

    online          each round trains on the pairs of its own policy; the reference is the start of the round
    all pairs       the same, on the pairs of all rounds so far
    offline         one stage of as many steps, on as many pairs sampled at once from the warm start
    offline, reset  the same pairs and steps, in stages: reference and optimizer start anew in each, as online

A JSON line for each round of each arm (held-out metrics, win rate against the warm start), for each arm's end against
online's on the same problems, and at last the means over the seeds (95 % t interval).

    python benchmarks/online_dpo.py --output /tmp/online            # about a minute of CPU a seed
"""

from __future__ import annotations

from reasoner.engine.environment import prepare_process

prepare_process()

import argparse  # noqa: E402
import copy  # noqa: E402
import json  # noqa: E402
from collections.abc import Mapping  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ppo_contrast import interval  # noqa: E402

from reasoner.config.load import find_config, resolve  # noqa: E402
from reasoner.data.preferences import load_pairs  # noqa: E402
from reasoner.observe.analysis.compare import Comparison, compare, evaluated_rows, problem_values  # noqa: E402
from reasoner.stages.pipeline import run_pipeline  # noqa: E402
from reasoner.storage.history import lines, read_history, stage_folders  # noqa: E402
from verifiers.plain_yaml import read_yaml_file  # noqa: E402

ARMS = ("online", "all pairs", "offline", "offline, reset")


def run(raw: Mapping[str, Any], folder: Path, *, seed: int) -> Path:
    """Run a config into a folder, or continue there; return the folder."""
    run_pipeline(resolve({**raw, "seed": seed, "output": str(folder)}), resume=True)
    return folder


def stages_of(arm: str, rounds: Mapping[str, Any], *, pairs: int) -> list[dict[str, Any]]:
    """Return the stages of an arm; the offline ones train on the first `pairs` pairs."""
    count = int(rounds["repeat"])
    sample, learn = copy.deepcopy(rounds["stages"])
    if arm == "online":
        return [{**rounds}]
    if arm == "all pairs":
        learn["preferences"]["train"] = ["stages:pairs"]
        return [{"repeat": count, "stages": [sample, learn]}]
    sample["steps"] *= count
    learn["preferences"]["limit"] = pairs
    if arm == "offline, reset":
        return [sample, {"repeat": count, "stages": [learn]}]
    learn["eval"] = {"every": learn["steps"]}
    return [sample, {**learn, "steps": count * learn["steps"]}]


def trained_pairs(folder: Path) -> list[int]:
    """Return the number of training pairs of each DPO stage of a run."""
    histories = [read_history(stage) for stage in stage_folders(folder) if stage.name.endswith("-dpo")]
    return [len(load_pairs(history.config.preferences).train.pairs) for history in histories]


def evaluations(folder: Path) -> list[tuple[Path, int]]:
    """Return stage and step of the start and of each round's end."""
    found: list[tuple[Path, int]] = []
    for stage in (stage for stage in stage_folders(folder) if stage.name.endswith("-dpo")):
        steps = {int(str(row["step"])) for row in lines(stage / "eval_rollouts.jsonl", like=dict)}
        found += [(stage, step) for step in sorted(steps) if step or not found]
    return found


def values_of(stage: Path, step: int) -> dict[str, float]:
    """Return the reward of each problem in an evaluation."""
    return problem_values(evaluated_rows(stage, step=step), "reward")


def metric_of(stage: Path, step: int) -> Any:
    """Return the evaluation's share of clean answers, with its Wilson interval."""
    rows = [row for row in lines(stage / "evals.jsonl", like=dict) if row["step"] == step and "problems" in row]
    metrics: Any = rows[-1]["metrics"]
    return {name: [round(value, 4) for value in metrics[name]] for name in ("avg@1", "component/clean")}


def rate(found: Comparison) -> list[float]:
    """Return a win rate with its interval."""
    return [round(value, 4) for value in (found.win_rate, found.win_low, found.win_high)]


def main() -> None:
    """Run all arms and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs; finished ones are reused")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=[*ARMS])
    options = parser.parse_args()
    if options.arms[0] != "online":
        parser.error("--arms must begin with online, whose pairs are counted for the offline arms.")
    raw: Any = read_yaml_file(find_config("online_dpo"))
    warm, rounds = raw["stages"]
    wins: dict[str, list[float]] = {}
    for seed in options.seeds:
        root = options.output / f"seed-{seed}"
        start = run({**raw, "stages": [warm]}, root / "start", seed=seed) / "final"
        ends: dict[str, dict[str, float]] = {}
        pairs = 0
        for arm in options.arms:
            written = {**raw, "model": str(start), "stages": stages_of(arm, rounds, pairs=pairs)}
            folder = run(written, root / arm.replace(", ", "-").replace(" ", "-"), seed=seed)
            if arm == "online":
                pairs = sum(trained_pairs(folder))
            places = evaluations(folder)
            before = values_of(*places[0])
            for number, place in enumerate(places):
                ends[arm] = values_of(*place)
                (found,) = compare({"start": before, arm: ends[arm]})
                figures = {"metrics": metric_of(*place), "win rate against start": rate(found)}
                print(json.dumps({"seed": seed, "arm": arm, "round": number, **figures}), flush=True)
                wins.setdefault(f"{arm}, round {number}, against start", []).append(found.win_rate)
            print(json.dumps({"seed": seed, "arm": arm, "pairs": trained_pairs(folder)}), flush=True)
        for arm in [arm for arm in ends if arm != "online"]:
            (found,) = compare({arm: ends[arm], "online": ends["online"]})
            figures = {"win rate": rate(found), "difference": round(found.difference, 4), "p": found.p}
            print(json.dumps({"seed": seed, "online against": arm, **figures}), flush=True)
            wins.setdefault(f"online against {arm}", []).append(found.win_rate)
    print(json.dumps({"win rates, mean and 95 % t interval over seeds": {k: interval(v) for k, v in wins.items()}}))


if __name__ == "__main__":
    main()
