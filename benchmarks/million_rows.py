"""A million answers graded from a file by `reasoner verify`: rows per second, memory. Prints one JSON object.

    python benchmarks/million_rows.py                                # a million rows, `math`, 2 workers
    python benchmarks/million_rows.py --rows 100000 --kill 0.5       # killed in the middle, then --resume

Every ten rows are different: right and wrong answers in several forms, texts without an answer, of a few hundred
characters. The right verdict of each is known. The exit status is 1 after a wrong or missing verdict, a verdict out of
order, or if the resident memory of the command and its workers in the last tenth of the rows is more than a tenth above
that after the first tenth.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

GROWTH = 1.1
"""Most memory at the end over memory after the first tenth."""
WORDS = (
    "we note that the sum of both parts is found by counting each of them once more and then adding what is left"
).split()


class Answer(NamedTuple):
    """Row to grade, with its known verdict."""

    completion: str
    reference: str
    right: bool


def answers(seed: int) -> Iterator[Answer]:
    """Yield answers without end: numbers, fractions, intervals, sets, matrices, units, and texts without an answer."""
    draw = random.Random(seed)
    while True:
        a, b, c = draw.randrange(2, 10**6), draw.randrange(2, 10**4), draw.randrange(2, 10**4)
        said = " ".join(draw.choices(WORDS, k=60))
        forms = [
            (rf"{said}. So the answer is \boxed{{{a}}}.", str(a), True),
            (rf"{said}. So the answer is \boxed{{{a + 1}}}.", str(a), False),
            (rf"{said}: \boxed{{\frac{{{2 * b}}}{{{2 * c}}}}}", rf"\frac{{{b}}}{{{c}}}", True),
            (rf"{said}: \boxed{{\frac{{{b}}}{{{c}}}}}", rf"\frac{{{b + 1}}}{{{c}}}", False),
            (rf"{said}. \boxed{{[{b}, {b + c})}}", rf"[{b},{b + c})", True),
            (rf"{said}. \boxed{{({b}, {b + c})}}", rf"[{b},{b + c})", False),
            (rf"{said}. \boxed{{{c}x^2+{b}x}}", rf"x({c}x+{b})", True),
            (rf"{said}. \boxed{{{a:,}\text{{ km}}}}", rf"{a}", True),
            (rf"{said}. \boxed{{\{{{b}, {b + c}\}}}}", rf"\{{{b + c},{b}\}}", True),
            (said, str(a), False),
        ]
        yield from (Answer(*form) for form in forms)


def write_rows(path: Path, rows: int, seed: int) -> None:
    with path.open("w") as file:
        for number, answer in zip(range(rows), answers(seed), strict=False):
            row = {"id": number, "completion": answer.completion, "reference": answer.reference}
            file.write(json.dumps(row) + "\n")


def resident(process: psutil.Process) -> int:
    """Return the bytes of memory of a process and its descendants, shared pages counted once for each."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.Error:
            continue
    return total


def lines(path: Path) -> int:
    """Return the number of lines so far, estimated from the size once there are many."""
    if not path.exists():
        return 0
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1 << 20)
    return int(size * head.count(b"\n") / len(head)) if head else 0


def grade(command: list[str], output: Path, rows: int, kill_at: int | None) -> tuple[float, list[tuple[int, int]]]:
    """Run the command; return its seconds, and (rows so far, resident bytes) every second."""
    started, seen = time.perf_counter(), list[tuple[int, int]]()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            seen.append((min(rows, lines(output)), resident(watched)))
            if kill_at is not None and seen[-1][0] >= kill_at:
                process.send_signal(signal.SIGKILL)
            time.sleep(1.0)
        if process.returncode not in (0, -signal.SIGKILL):
            sys.exit(f"{' '.join(command)} ended with status {process.returncode}")
    return time.perf_counter() - started, seen


def faults(output: Path, rows: int, seed: int) -> list[str]:
    """Compare every verdict with the known one."""
    found: list[str] = []
    count = 0
    with output.open() as file:
        for number, (line, answer) in enumerate(zip(file, answers(seed), strict=False)):
            verdict = json.loads(line)
            count += 1
            if str(verdict["id"]) != str(number):
                return [f"line {number + 1} has the id {verdict['id']}"]
            if (verdict["reward"] == 1.0) is not answer.right:
                found.append(f"{answer.completion[-60:]} / {answer.reference}: {verdict}")
    return found if count == rows else [*found, f"{count} verdicts of {rows} rows"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kill", type=float, help="fraction of the rows after which the command is killed and resumed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows, output = Path(folder) / "rows.jsonl", Path(folder) / "verdicts.jsonl"
        write_rows(rows, options.rows, options.seed)
        command = [sys.executable, "-m", "reasoner", "verify", str(rows), "--verifier", "math"]
        command += ["--output", str(output), "--workers", str(options.workers)]
        kill_at = None if options.kill is None else int(options.kill * options.rows)
        seconds, seen = grade(command, output, options.rows, kill_at)
        if kill_at is not None:
            more, later = grade([*command, "--resume"], output, options.rows, None)
            seconds, seen = seconds + more, later
        begin = [held for done, held in seen if done >= 0.1 * options.rows][:5]
        end = [held for done, held in seen if done >= 0.9 * options.rows]
        wrong = faults(output, options.rows, options.seed)
        sizes = [path.stat().st_size >> 20 for path in (rows, output)]
    flat = bool(begin and end) and max(end) <= GROWTH * max(begin)
    print(
        json.dumps(
            {
                "rows": options.rows,
                "workers": options.workers,
                "processors": os.cpu_count(),
                "seconds": round(seconds, 1),
                "rows_per_second": round(options.rows / seconds, 1),
                "file_mb": sizes,
                "resident_mb_after_a_tenth": max(begin, default=0) >> 20,
                "resident_mb_in_the_last_tenth": max(end, default=0) >> 20,
                "resident_mb_most": max((held for _, held in seen), default=0) >> 20,
                "memory_is_flat": flat,
                "wrong": len(wrong),
                "such_as": wrong[:8],
            }
        )
    )
    return 0 if flat and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
