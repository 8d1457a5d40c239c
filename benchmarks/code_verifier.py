"""Reference solutions of public datasets, graded by the code verifier on every backend: how many pass, how fast.

Run: REASONER_DATA_DIR=... python benchmarks/code_verifier.py [--backend docker] [--task humaneval] [--output FILE]

Prints one JSON object. `seconds` is the wall-clock time of grading the solutions one by one in this process, including
opening the sandbox; `rate` is solutions per second.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from tasks.base import Problem
from tasks.registry import get_task
from tasks.validate import Validation, validate_task
from verifiers import get_verifier
from verifiers.verdict import JSON

GOLDS: dict[str, tuple[str, str, dict[str, JSON], tuple[str, ...]]] = {
    "humaneval": ("humaneval", "humaneval", {}, ("test",)),
    "mbpp": ("mbpp", "mbpp", {}, ("train", "test", "validation", "prompt")),
    "cruxeval_input": ("cruxeval", "cruxeval", {"predict": "input"}, ("test",)),
    "cruxeval_output": ("cruxeval", "cruxeval", {"predict": "output"}, ("test",)),
    "mbpp_evalplus_base": ("mbpp_plus", "mbpp_evalplus_base", {}, ("test",)),
    "mbpp_plus": ("mbpp_plus", "mbpp_plus", {}, ("test",)),
}


def golds(name: str, backend: str, folder: Path) -> dict[str, JSON]:
    """Return counts and times of one dataset's reference solutions."""
    task_name, file, options, splits = GOLDS[name]
    path = str(folder / "code" / f"{file}.jsonl.gz")
    task = get_task(task_name, path=path, verifier_options={"sandbox": backend}, **options)
    started = time.perf_counter()
    found = [validate_task(task, split) for split in splits]
    return summary(found, time.perf_counter() - started)


def summary(found: list[Validation], seconds: float) -> dict[str, JSON]:
    total, accepted = sum(one.total for one in found), sum(one.accepted for one in found)
    faults: list[JSON] = [fault for one in found for fault in one.faults]
    return {
        "total": total,
        "accepted": accepted,
        "seconds": round(seconds, 1),
        "rate": round(total / seconds, 1),
        "faults": faults,
    }


def cruxeval_asserts(backend: str, folder: Path) -> dict[str, JSON]:
    """Grade CRUXEval's functions as programs, each against `assert f(input) == output`."""
    path = str(folder / "code" / "cruxeval.jsonl.gz")
    verifier = get_verifier("code", sandbox=backend, block="whole")
    started = time.perf_counter()
    faults: list[str] = []
    problems = get_task("cruxeval", path=path).problems("test")
    for problem in problems:
        gold = problem.reference
        assert isinstance(gold, dict)
        tests: list[JSON] = [f"assert f({gold['input']}) == {gold['output']}"]
        verdict = verifier.verify(completion=str(gold["code"]), reference={"tests": tests})
        if verdict.reward != 1.0:
            faults.append(f"{problem.id}: {verdict.outcome} ({verdict.reason})")
    found = Validation(len(problems), len(problems) - len(faults), 0, faults, [], [])
    return summary([found], time.perf_counter() - started)


def latency(backend: str, problems: list[Problem]) -> dict[str, JSON]:
    """Measure the milliseconds of grading one small program in a warm sandbox; no program is graded twice."""
    verifier = get_verifier("code", sandbox=backend, block="whole")
    first, *rest = problems
    started = time.perf_counter()
    verifier.verify(completion=str(first.demonstration), reference=first.reference)
    opening = time.perf_counter() - started
    times: list[float] = []
    for problem in rest:
        verdict = verifier.verify(completion=str(problem.demonstration), reference=problem.reference)
        assert verdict.reward == 1.0, verdict
        times.append(1000 * verdict.seconds)
    times.sort()
    return {
        "opening_seconds": round(opening, 2),
        "median_ms": round(times[len(times) // 2], 1),
        "p99_ms": round(times[int(0.99 * len(times))], 1),
        "programs": len(times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", action="append", choices=("docker", "bubblewrap"))
    parser.add_argument("--task", action="append", choices=(*GOLDS, "cruxeval_asserts"))
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    data = os.environ.get("REASONER_DATA_DIR")
    small = list(get_task("functions", train_size=301, demonstrations="mixed").problems("train"))
    report: dict[str, JSON] = {"cores": os.cpu_count()}
    for backend in given.backend or ("docker", "bubblewrap"):
        rows: dict[str, JSON] = {"one_program": latency(backend, small)}
        for name in given.task or (*GOLDS, "cruxeval_asserts") if data else ():
            folder = Path(str(data))
            rows[name] = (
                cruxeval_asserts(backend, folder) if name == "cruxeval_asserts" else golds(name, backend, folder)
            )
        report[backend] = rows
    text = json.dumps(report, indent=1)
    print(text if data else text + "\n(set REASONER_DATA_DIR for the golds of public datasets)")
    if given.output:
        given.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
