"""Judged completions per second with a scripted server of fixed latency, and the effect of the cache on a second run.

    python -m benchmarks.judge [--completions 1000] [--latency 0.05] [--concurrency 16]

The server is a separate process. The ideal is ceil(completions / concurrency) x latency: the server is never idle, and
nothing else takes time. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from verifiers import GradingRow
from verifiers.pool import GradingPool, GradingRequest

QUESTION = {"question": "Is it polite?", "levels": [{"level": at, "description": f"level {at}"} for at in range(1, 6)]}


def serve(latency: float) -> None:
    from tests.unit.verifiers import scripted_judge as scripted

    def script(body: scripted.Body, number: int) -> scripted.Sent:
        return scripted.Sent(content=scripted.level(body, 1 + number % 5).content, delay=latency)

    with scripted.ScriptedJudge(script) as server:
        print(server.url, flush=True)
        sys.stdin.read()


def measure(url: str, *, completions: int, concurrency: int, cache: str, kind: str) -> dict[str, float]:
    judge = {"url": url, "model": f"scripted-{kind}", "cache": cache, "concurrency": concurrency}
    options = judge if kind == "judge" else {"judge": {"verifier": "judge", "options": judge}}
    reference = QUESTION if kind == "judge" else [{"judged": QUESTION}, {"length": {"max": 50}}]
    rows = [
        GradingRow(completion=f"Good day to you, number {at}. How may I help?", reference=reference, prompt="Greet.")
        for at in range(completions)
    ]
    with GradingPool(workers=1) as pool:
        list(pool.grade([GradingRequest(kind, GradingRow(completion="warm up", reference=reference), options)]))
        found = {}
        for run in ("first", "cached"):
            started = time.perf_counter()
            verdicts = list(pool.grade(GradingRequest(kind, row, options) for row in rows))
            found[f"{run}_seconds"] = time.perf_counter() - started
            ungraded = sum(not verdict.graded for verdict in verdicts)
            if ungraded:
                raise SystemExit(f"{ungraded} rows could not be graded: {verdicts[0].reason}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--completions", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.latency)
        return
    command = [sys.executable, "-m", "benchmarks.judge", "--serve", "--latency", str(given.latency)]
    root = Path(__file__).parents[1]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as server,
    ):
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        ideal = math.ceil(given.completions / given.concurrency) * given.latency
        for kind in ("judge", "rubric"):
            found = measure(
                url,
                completions=given.completions,
                concurrency=given.concurrency,
                cache=str(Path(folder) / "cache.sqlite3"),
                kind=kind,
            )
            row = {
                "verifier": kind,
                "completions": given.completions,
                "latency": given.latency,
                "concurrency": given.concurrency,
                "ideal_seconds": ideal,
                "times_ideal": round(found["first_seconds"] / ideal, 3),
                **{key: round(value, 3) for key, value in found.items()},
            }
            print(json.dumps(row))
        server.stdin.close()  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
