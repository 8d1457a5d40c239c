"""The quickstart over several seeds, compared with other explanations of its gain. Prints JSON.

Every variant starts from the same warm-started model of its seed and is evaluated on the same 512 held-out problems:

grpo        the quickstart itself
shuffled    the same, with the rewards of each step shuffled over its rollouts
more-sft    more supervised training on the same demonstrations, for as many seconds as grpo took
rejection   the same time with rejection sampling, which learns only from correct rollouts, with the same verifier

    python benchmarks/quickstart_controls.py --seeds 0 1 2 --output /tmp/controls
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve()


def shuffled(batch):
    """Compute GRPO's advantages from rewards shuffled over the rows of the step: same rewards, no information."""
    from reasoner.algorithm.advantage import get_estimator

    order = list(range(len(batch)))
    random.Random(int(batch.row_N.sum()) + len(batch.row_N)).shuffle(order)
    return get_estimator("grpo").function(replace(batch, reward_B=batch.reward_B[order]))


def train(folder: Path, *overrides: str, config: str = "quickstart") -> float:
    """Run a config with overrides, unless it was run before; return wall-clock seconds."""
    seconds = folder / "seconds.json"
    if not seconds.exists():
        started = time.monotonic()
        folder.parent.mkdir(parents=True, exist_ok=True)
        log = folder.with_suffix(".log").open("wb")
        command = [sys.executable, "-c", "from reasoner.cli import main; main()", "train", config]
        subprocess.run([*command, f"output={folder}", *overrides], check=True, stdout=log, stderr=log)
        seconds.write_text(json.dumps(time.monotonic() - started))
    return json.loads(seconds.read_text())


def lines(path: Path) -> list[dict]:
    """Return the rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def step_seconds(stage: Path) -> float:
    """Return the seconds of the median step, which a temporarily busy machine does not change."""
    return statistics.median(row["time/step"] for row in lines(stage / "metrics.jsonl"))


def figures(stage: Path) -> dict[str, object]:
    """Return the accuracy before and after with its interval, and the final length of completions."""
    evals = lines(stage / "evals.jsonl")
    before, after = evals[0]["metrics"]["avg@1"], evals[-1]["metrics"]["avg@1"]
    return {"before": before[0], "after": after[0], "interval": after[1:], "tokens": evals[-1]["tokens_mean"]}


def one_seed(seed: int, output: Path) -> dict[str, dict[str, object]]:
    """Run every variant of one seed."""
    base = output / f"seed-{seed}"
    wall = train(base / "grpo", f"seed={seed}")
    sft, grpo = base / "grpo" / "0-sft", base / "grpo" / "1-grpo"
    found = {"grpo": figures(grpo) | {"seconds_of_both_stages": round(wall)}}
    steps = len(lines(grpo / "metrics.jsonl")) * step_seconds(grpo) / step_seconds(sft)
    common = [f"seed={seed}", f"stages.1.model.path={sft / 'final'}"]
    arms = {
        "shuffled": ["stages.1.algorithm.advantage=" + f"{HERE}:shuffled"],
        "rejection": ["stages.1.algorithm.advantage=rejection"],
        "more-sft": [
            "stages.1.method=sft",
            f"stages.1.steps={round(steps)}",
            "stages.1.optim.lr=1e-3",
            "stages.1.sft.demonstrations=" + str(demonstrations()),
            "stages.1.sft.rows_per_step=64",
        ],
    }
    for name, overrides in arms.items():
        folder = base / name
        # the first stage is not run again: it is marked as done, and the second stage starts from its model
        (folder / "0-sft").mkdir(parents=True, exist_ok=True)
        for file in ("done.json", "config.yaml"):
            (folder / "0-sft" / file).write_text((sft / file).read_text())
        train(folder, "--resume", *common, *overrides)
        found[name] = figures(folder / ("1-sft" if name == "more-sft" else "1-grpo"))
    return found


def demonstrations() -> int:
    """Return the number of demonstrations in the quickstart's warm start."""
    from reasoner.config.load import load_config

    count = load_config("quickstart").stages[0].sft.demonstrations
    assert count is not None
    return count


def main() -> None:
    """Run all seeds and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs; finished ones are reused")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    print(json.dumps({str(seed): one_seed(seed, arguments.output.resolve()) for seed in arguments.seeds}, indent=1))


if __name__ == "__main__":
    main()
