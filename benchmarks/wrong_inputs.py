"""Seconds from Enter to the error message, for twelve wrong inputs of train, eval and export: a table.

    python benchmarks/wrong_inputs.py

Each is a fresh process of the command; CPU seconds are valid on a machine with other work. The exit status is 1 if one
takes more than a second of CPU, prints another message than expected, or imports torch.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST = 1.0
"""Most CPU seconds until a message."""
WRONG: Mapping[str, str] = {
    "train gone.yaml": "no config 'gone.yaml'",
    "train quickstrt": "Did you mean 'quickstart'",
    "train rows.yaml output=taken": "exists already",
    "train rows.yaml task.options.path=gone.jsonl": "no file or folder 'gone.jsonl'",
    "train rows.yaml task.options.reference_column=anser": "anser",
    "train rows.yaml task.options.verifier=mth": "Did you mean 'math'",
    "train rows.yaml engine.name=vlm": "Did you mean 'vllm'",
    "train rows.yaml model.path=./gone --dry-run": "does not exist",
    "train rows.yaml method=dpo preferences.train=gone.jsonl": "gone.jsonl",
    "eval ./gone": "does not exist",
    "eval org/name --task arithmetc": "Did you mean 'arithmetic'",
    "export gone out": "must hold a model",
}
PROGRAM = (
    "import atexit, sys; atexit.register(lambda: print('TORCH' if 'torch' in sys.modules else '', file=sys.stderr));"
    "from reasoner.__main__ import main; main()"
)


def prepare(folder: Path) -> None:
    """Create the files that the commands name."""
    (folder / "taken").mkdir()
    (folder / "taken" / "config.yaml").touch()
    rows = [json.dumps({"prompt": f"{number}+1=", "reference": str(number + 1)}) for number in range(1000)]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    task = "task: {name: dataset, options: {path: rows.jsonl, verifier: math}}"
    (folder / "rows.yaml").write_text(f"{task}\nmodel: org/name\noutput: new\n")


def measured(command: str, folder: Path) -> tuple[float, float, str]:
    """Run a command; return CPU seconds, wall-clock seconds, and its output."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall, done.stderr


def main() -> None:
    """Run all commands and print the table."""
    slow = 0
    print(f"{'CPU s':>6} {'wall s':>6}  command")
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for command, says in WRONG.items():
            cpu, wall, said = measured(command, Path(folder))
            fault = "" if says in said else "  SAYS SOMETHING ELSE"
            fault += "  IMPORTS TORCH" if "TORCH" in said.splitlines() else ""
            slow += bool(fault) or cpu > MOST
            print(f"{cpu:6.2f} {wall:6.2f}  reasoner {command}{fault}", flush=True)
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
