"""Faults specific to PPO, planted in real small runs at two strengths, and healthy runs: test of `explain`.

Every run is the last stage of configs/ppo_tiny.yaml with one wrong setting; the stages before it (demonstrations,
pairs, reward model) are trained once. Prints one JSON object. The exit status is 1 if a fault is not named as a fault
or warning, or if a healthy run raises an alarm.

    python benchmarks/planted_ppo_faults.py --output /tmp/planted-ppo             # about 15 minutes on one core
    python benchmarks/planted_ppo_faults.py --output /tmp/planted-ppo --judge     # explain the stored runs again
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

from reasoner.config.load import load_config  # noqa: E402
from reasoner.stages.pipeline import run_pipeline  # noqa: E402
from reasoner.stages.references import with_references  # noqa: E402

HACKED = ("reward-model-hacked",)
LOOSE = ("kl-coef-too-small",)
TIGHT = ("kl-coef-too-large",)
COLLAPSED = ("rewards-collapsed",)
TOO_LARGE = ("learning-rate-too-high", "rewards-collapsed")
DIVERGES = ("value-diverging",)
LARGE = {"optim.inner_epochs": 4, "optim.stop_kl": None, "steps": 16}
UNSEEN = {"watch.scorer": None, "eval.problems": 0}
"""Overrides without a true score: only the records of training itself are available."""


def kl(coef: float, **changes: object) -> dict[str, object]:
    return {"algorithm.kl_coef": coef, **changes}


RUNS = (
    Run("value lr 0.3", {"value.lr": 0.3, "value.clip_range": None}, DIVERGES),
    Run("value lr 0.05", {"value.lr": 0.05, "value.clip_range": None}, DIVERGES),
    Run("KL coefficient 0.0001", kl(1e-4, **UNSEEN), LOOSE),
    Run("KL coefficient 0.003", kl(3e-3, **UNSEEN), LOOSE),
    Run("KL coefficient 25", kl(25.0), TIGHT),
    Run("KL coefficient 8", kl(8.0), TIGHT),
    Run("entropy coefficient 3", {"reward": None, "algorithm.entropy_coef": 3.0, "steps": 20}, COLLAPSED),
    Run("entropy coefficient 1", {"reward": None, "algorithm.entropy_coef": 1.0, "steps": 20}, COLLAPSED),
    Run("lr 0.01, four epochs", {**LARGE, "optim.lr": 1e-2}, TOO_LARGE),
    Run("lr 0.004, four epochs", {**LARGE, "optim.lr": 4e-3}, TOO_LARGE),
    Run("entropy coefficient 3, learned reward", {"algorithm.entropy_coef": 3.0, "steps": 20}, HACKED),
    Run("no KL control", kl(0.0, steps=25), HACKED),
    Run("hardly any KL control", kl(0.03), HACKED),
    Run("healthy: as shipped"),
    Run("healthy: kl_target", kl(0.25, **{"algorithm.kl_target": 1.0, "algorithm.kl_horizon": 1000})),
    Run("healthy: another seed", {"seed": 5}),
    Run("healthy: the true rule for reward", {"reward": None}),
)


def stage(root: Path, change: Mapping[str, object], *, seed: int = 0) -> dict[str, object]:
    """Return the last stage of ppo_tiny, applied to the output of the stages before it, with a change."""
    changes = [f"ppo.{key}={json.dumps(value)}" for key, value in change.items()]
    run = load_config("ppo_tiny", [f"output={root / 'base'}", f"seed={seed}", *changes])
    last = with_references(run, len(run.stages) - 1).stages[-1].model_dump(mode="json")
    return {**last, "model": {**last["model"], "path": str(run.stage_folder(0) / "final")}}


def prepare(root: Path, *, seed: int = 0) -> None:
    """Train the stages before the last one, once."""
    run = load_config("ppo_tiny", [f"output={root / 'base'}", f"seed={seed}"])
    before = run.model_copy(update={"stages": run.stages[:-1], "starts_fresh": run.starts_fresh[:-1]})
    run_pipeline(before, resume=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", default=[""], nargs="+", help="runs whose name contains one of these")
    parser.add_argument("--judge", action="store_true", help="train nothing; explain the stored runs")
    options = parser.parse_args()
    if not options.judge:
        prepare(options.output)
    results: list[dict[str, object]] = []
    for run in RUNS:
        folder = options.output / "runs" / run.name.replace(" ", "-").replace(":", "")
        if not any(part in run.name for part in options.only):
            continue
        if not options.judge:
            train(stage(options.output, run.change), folder)
        elif not (folder / "config.yaml").is_file():
            continue
        judged = judge(run, folder)  # good: named first, or no alarm
        alarms = {str(code).partition(":")[0] for code in judged["codes"] if not str(code).endswith(":note")}  # type: ignore
        results.append({**judged, "named": bool(alarms & {*run.expected}) if run.expected else not alarms})
        print(json.dumps(results[-1]), file=sys.stderr)
    faults, healthy = ([row for row in results if bool(row["expected"]) == planted] for planted in (True, False))
    figures = {
        "faults": len(faults),
        "named": sum(bool(row["named"]) for row in faults),
        "named_first": sum(bool(row["good"]) for row in faults),
        "healthy": len(healthy),
        "quiet": sum(bool(row["good"]) for row in healthy),
    }
    print(json.dumps({**figures, "runs": results}, indent=1))
    return 0 if figures["named"] == len(faults) and figures["quiet"] == len(healthy) else 1


if __name__ == "__main__":
    sys.exit(main())
