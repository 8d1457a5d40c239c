"""CPU time of a row, by verifier, over the labelled examples that each one carries. Prints JSON.

    python benchmarks/verifier_costs.py                      # all that are installed and need no model
    python benchmarks/verifier_costs.py math exact logic

first_ms    the first row of a process, in milliseconds: imports, tables, a sandbox or z3 that is started
new_ms      a row that was not graded before, mean over the other examples, in milliseconds
again_us    a row when all have been graded before, mean, in microseconds
slowest_us  the same, of the example that costs most

All of it is CPU time of the process and of those that it started. Each verifier is measured in a process of its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

import psutil

from verifiers import GradingRow, Verifier, get_verifier
from verifiers.errors import VerifierError
from verifiers.registry import BUILTIN, verifier_class

SECONDS = 0.5
"""CPU seconds over which a verifier's examples are graded again and again."""
MOST = 2000
"""Passes over them."""
MODELS = ("judge", "jury", "judge-model", "reward-model")
"""Verifiers that are left out, since their cost is that of their model."""


def cpu_seconds() -> float:
    """CPU time of this process, of those that it started, and of theirs; 10 ms apart for all but this one."""
    total = time.process_time()
    own = psutil.Process()
    total += own.cpu_times().children_user + own.cpu_times().children_system
    for process in own.children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def grade(made: Verifier, row: GradingRow) -> None:
    made.verify(completion=row.completion, reference=row.reference, prompt=row.prompt, info=row.info)


def own_seconds(made: Verifier, rows: list[GradingRow]) -> list[float]:
    """CPU seconds of each row in this process alone: code, z3 and SymPy remember what they were asked."""
    found = []
    for row in rows:
        start = time.process_time()
        grade(made, row)
        found.append(time.process_time() - start)
    return found


def measured(name: str) -> dict[str, float | int]:
    """The figures of one verifier, in this process."""
    kind = verifier_class(name)
    start = cpu_seconds()
    made = get_verifier(name, **kind.example_options)
    rows = [example.row for example in made.examples]
    grade(made, rows[0])
    first = cpu_seconds() - start
    start = cpu_seconds()
    for row in rows[1:]:
        grade(made, row)
    new = (cpu_seconds() - start) / (len(rows) - 1)
    passes: list[list[float]] = []
    while not passes or (sum(map(sum, passes)) < SECONDS and len(passes) < MOST):
        passes.append(own_seconds(made, rows))
    each = [statistics.median(times) for times in zip(*passes, strict=True)]
    return {
        "examples": len(rows),
        "first_ms": round(1e3 * first, 1),
        "new_ms": round(1e3 * new, 3),
        "again_us": round(1e6 * sum(each) / len(each), 1),
        "slowest_us": round(1e6 * max(each), 1),
    }


def main() -> None:
    names = sys.argv[1:] or [name for name in sorted(BUILTIN) if name not in MODELS]
    if len(names) == 1:
        try:
            print(json.dumps({names[0]: measured(names[0])}))
        except VerifierError as error:
            print(json.dumps({names[0]: {"not measured": str(error)}}))
        return
    found: dict[str, object] = {}
    for name in names:
        done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=False)
        found |= json.loads(done.stdout) if done.returncode == 0 else {name: {"not measured": done.stderr[-300:]}}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
