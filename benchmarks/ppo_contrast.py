"""PPO on a learned reward with and without KL control, over seeds: the proxy beside the true score.

Each seed trains its own writer, pairs and reward model (configs/ppo_tiny.yaml); both arms start from them and differ in
`algorithm.kl_coef` alone. A JSON line for each arm of each seed, and one with means, standard deviations and the paired
difference of the last true scores (95 % t interval over the seeds).

    python benchmarks/ppo_contrast.py --output /tmp/contrast                # about ten minutes a seed on one core
"""

from __future__ import annotations

from reasoner.engine.environment import prepare_process

prepare_process()

import argparse  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
from pathlib import Path  # noqa: E402

from planted_faults import train  # noqa: E402
from planted_ppo_faults import prepare, stage  # noqa: E402
from quickstart_controls import lines  # noqa: E402
from scipy.stats import t  # noqa: E402

from reasoner.observe.explain import findings  # noqa: E402
from reasoner.storage.history import read_history  # noqa: E402

ARMS = {"kl 0.25": 0.25, "no kl": 0.0}


def of_reward_model(base: Path) -> dict[str, float]:
    """Return what the last evaluation of the reward model says on held-out pairs, estimates only."""
    last = lines(next(base.glob("*reward_model")) / "evals.jsonl")[-1]
    return {name: value[0] if isinstance(value, list) else value for name, value in last["metrics"].items()}


def of_arm(folder: Path) -> dict[str, object]:
    """Return the true score with its interval at each evaluation, the monitored metrics and the findings."""
    metrics = lines(folder / "metrics.jsonl")
    alarms = lines(folder / "alarms.jsonl") if (folder / "alarms.jsonl").is_file() else []
    true = {row["step"]: next(iter(row["metrics"].values())) for row in lines(folder / "evals.jsonl")}
    names = ("watch/proxy", "watch/held_out", "watch/agreement", "kl/ref")
    ends = {name: [row[name] for row in metrics if row.get(name) is not None] for name in names}
    return {
        "true score": true,
        **{name: [round(statistics.fmean(part), 3) for part in (v[:5], v[-5:])] for name, v in ends.items() if v},
        "alarms": {row["alarm"]: row["step"] for row in alarms},
        "explain": [f"{one.code}:{one.level}" for one in findings(read_history(folder))],
    }


def interval(values: list[float]) -> list[float]:
    """Return a mean and its 95 % t interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return [mean]
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return [round(one, 3) for one in (mean, mean - half, mean + half)]


def main() -> None:
    """Run all arms and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs; finished ones are reused")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=45)
    options = parser.parse_args()
    last: dict[str, list[float]] = {name: [] for name in ARMS}
    before: list[float] = []
    for seed in options.seeds:
        root = options.output / f"seed-{seed}"
        prepare(root, seed=seed)
        print(json.dumps({"seed": seed, "reward model": of_reward_model(root / "base")}), flush=True)
        for name, coef in ARMS.items():
            folder = root / name.replace(" ", "-")
            if not (folder / "done.json").is_file():
                train(stage(root, {"algorithm.kl_coef": coef, "steps": options.steps}, seed=seed), folder)
            found = of_arm(folder)
            print(json.dumps({"seed": seed, "arm": name, **found}), flush=True)
            scores = list(found["true score"].values())  # type: ignore[attr-defined]
            last[name].append(scores[-1][0])
        before.append(scores[0][0])
    difference = [held - free for held, free in zip(*last.values(), strict=True)]
    summary = {name: [statistics.fmean(values), statistics.pstdev(values)] for name, values in last.items()}
    print(json.dumps({"before": statistics.fmean(before), **summary, "difference": interval(difference)}))


if __name__ == "__main__":
    main()
