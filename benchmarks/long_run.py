"""Commands on a run with few and with many rollouts on disk: seconds and memory. Prints one JSON object.

    python benchmarks/long_run.py                           # 10,000 steps of 500 rollouts: 5 million, 7 GB of disk
    python benchmarks/long_run.py --steps 1000 --folder /scratch

A run of two steps is trained. Its records are then repeated until they are those of a run of that many steps, with the
checkpoint of the last one. Each command is timed on both: one more step (`train --resume`), `explain`, and `compare`.
The exit status is 1 if the long run's next step is not the right one, or if a command on it needs LIMIT_MB more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

LIMIT_MB = 1500
"""Most megabytes of a command beyond those on the short run; `explain` reads at most 256 MB of rollouts."""
CONFIG = {
    "method": "grpo",
    "task": {"name": "arithmetic", "options": {"family": "addition", "digits": 1}},
    "prompt": {"chat": "never"},
    "model": {"from_scratch": {"hidden_size": 64, "layers": 2, "heads": 2, "max_positions": 128}},
    "rollout": {"problems_per_step": 4, "group_size": 5, "max_tokens": 12},
    "engine": {"name": "hf"},
    "grading": {"workers": 1},
    "eval": {"problems": 20, "every": 1},
    "checkpoint": {"every": 1, "keep": 2},
}
PER_STEP = ("rollouts.jsonl", "updates.jsonl", "metrics.jsonl")
EVALUATIONS = ("evals.jsonl", "eval_rollouts.jsonl")


def run(*arguments: str) -> dict[str, float]:
    """Run a command of `reasoner`; return its seconds and the peak resident megabytes of its largest process."""
    command = [sys.executable, "-m", "reasoner", *arguments]
    started = time.perf_counter()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(sys.executable, command, os.environ | {"OMP_NUM_THREADS": "1"}, file_actions=quiet)
    _, status, usage = os.wait4(process, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")
    return {"seconds": round(time.perf_counter() - started, 2), "peak_mb": usage.ru_maxrss >> 10}


def repeated(path: Path, *, steps: Sequence[int], copies: int) -> None:
    """Write the lines of a file's last step once for each of these steps, so many times within a step."""
    lines = path.read_bytes().splitlines(keepends=True)
    last = json.loads(lines[-1])["step"]
    mark = f'"step": {last},'.encode()
    kept = [line for line in lines if line.startswith(b"{" + mark)]
    parts = b"".join(kept * copies).split(mark)
    with path.open("wb") as file:
        for step in steps:
            file.write(f'"step": {step},'.encode().join(parts))


def lengthen(folder: Path, *, steps: int, per_step: int) -> None:
    """Make the records and the last checkpoint of a run of two steps those of a run of `steps` steps."""
    copies = per_step // (CONFIG["rollout"]["problems_per_step"] * CONFIG["rollout"]["group_size"])
    for name in PER_STEP:
        repeated(folder / name, steps=range(1, steps + 1), copies=1 if name == "metrics.jsonl" else copies)
    for name in EVALUATIONS:
        repeated(folder / name, steps=range(0, steps + 1, 100), copies=1)
    checkpoint = folder / "checkpoints" / f"step-{steps:06d}"
    shutil.copytree(folder / "checkpoints" / "step-000002", checkpoint)
    progress = json.loads((checkpoint / "progress.json").read_text())
    progress["step"] = steps
    progress["offsets"] = {name: (folder / name).stat().st_size for name in progress["offsets"]}
    (checkpoint / "progress.json").write_text(json.dumps(progress))
    (folder / "done.json").unlink()


def timed(config: Path, folder: Path, *, steps: int) -> dict[str, dict[str, float]]:
    """Time every command on a run that is to be trained for one step more."""
    found = {"one more step": run("train", str(config), f"output={folder}", f"steps={steps + 1}", "--resume")}
    with (folder / "metrics.jsonl").open("rb") as file:
        file.seek(-min(1 << 16, (folder / "metrics.jsonl").stat().st_size), os.SEEK_END)
        last = json.loads(file.read().splitlines()[-1])["step"]
    if last != steps + 1:
        sys.exit(f"the last step is {last}; it must be {steps + 1}")
    found["explain"] = run("explain", str(folder))
    other = folder.with_name(f"{folder.name}-copy")
    other.symlink_to(folder)
    found["compare"] = run("compare", str(folder), str(other))
    found["compare --on train"] = run("compare", "--on", "train", str(folder), str(other))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rollouts", type=int, default=500, help="of a step")
    parser.add_argument("--folder", type=Path, help="where the run is made; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as base:
        config, short, long = Path(base) / "config.yaml", Path(base) / "short", Path(base) / "long"
        config.write_text(json.dumps(CONFIG))
        run("train", str(config), f"output={short}", "steps=2")
        shutil.copytree(short, long)
        lengthen(long, steps=options.steps, per_step=options.rollouts)
        size = sum((long / name).stat().st_size for name in (*PER_STEP, *EVALUATIONS))
        before, after = timed(config, short, steps=2), timed(config, long, steps=options.steps)
    more = {name: round(after[name]["peak_mb"] - before[name]["peak_mb"]) for name in before}
    print(
        json.dumps(
            {
                "rollouts": options.steps * options.rollouts,
                "megabytes": size >> 20,
                "two steps": before,
                f"{options.steps} steps": after,
                "more_mb": more,
            }
        )
    )
    return 0 if max(more.values()) <= LIMIT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
