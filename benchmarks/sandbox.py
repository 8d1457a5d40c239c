"""The sandbox compared with a plain process and a container per program: interleaved, best of rounds, as JSON.

    python benchmarks/sandbox.py --rounds 3 --seconds 4

Every contender runs the same small program, checks its answer, and is called from the same number of threads: one, and
`--at-once`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

# This folder comes first on the path of its programs, and this file has the same name as the package that they import.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
if __name__ != "__main__":
    sys.modules.pop(__name__, None)
    importlib.import_module(__name__)


def main() -> None:
    import argparse
    import json
    import os
    import shutil

    from sandbox import open_sandbox
    from sandbox.bench import PLAIN, container_run, overruns, pooled, process, quantile
    from sandbox.engine import ensure_image

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of each contender in each round")
    parser.add_argument("--at-once", type=int, default=8, help="calling threads, and workers of each pool")
    parser.add_argument("--overruns", type=int, default=100, help="number of sleeping jobs for each backend")
    options = parser.parse_args()
    with (
        open_sandbox("docker", workers=options.at_once) as docker,
        open_sandbox("bubblewrap", workers=options.at_once) as bubblewrap,
    ):
        contenders = {"python": process(PLAIN), "docker": pooled(docker), "bubblewrap": pooled(bubblewrap)}
        if shutil.which("docker"):  # the client program, not needed by the sandbox itself
            contenders["docker run"] = process(container_run(ensure_image()))
        report: dict[str, object] = {"cores": os.cpu_count(), "best_of": options.rounds}
        for at_once in sorted({1, options.at_once}):
            report[f"{at_once} at once"] = compared(
                contenders, rounds=options.rounds, seconds=options.seconds, at_once=at_once
            )
        report["overrun_p99_seconds"] = {
            name: quantile(
                overruns(sandbox, wall_seconds=0.5, runs=options.overruns, at_once=os.cpu_count() or 1), 0.99
            )
            for name, sandbox in (("docker", docker), ("bubblewrap", bubblewrap))
        }
    print(json.dumps(report, indent=1))


def compared(
    contenders: Mapping[str, Callable[[], None]], *, rounds: int, seconds: float, at_once: int
) -> dict[str, object]:
    """Return the best round of each contender, and the ratios of the sandbox to the other two."""
    from sandbox.bench import measure

    for once in contenders.values():  # warm up memory pages, and every worker of a pool
        measure(once, seconds=1.0, at_once=at_once)
    turns = [
        {name: measure(once, seconds=seconds, at_once=at_once) for name, once in contenders.items()}
        for _ in range(rounds)
    ]
    best = {name: max((turn[name] for turn in turns), key=lambda rate: rate["per_second"]) for name in contenders}
    speed = {name: rate["per_second"] for name, rate in best.items()}
    return {
        "contenders": best,
        "docker_vs_docker_run": speed["docker"] / speed["docker run"] if "docker run" in speed else None,
        "docker_vs_python": speed["docker"] / speed["python"],
        "bubblewrap_vs_python": speed["bubblewrap"] / speed["python"],
        "p99_over_p50": {name: best[name]["p99_ms"] / best[name]["p50_ms"] for name in ("docker", "bubblewrap")},
    }


if __name__ == "__main__":
    main()
