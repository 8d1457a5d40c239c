"""Speed of the sandbox on this machine, compared with a plain process and with a container per program."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

from sandbox.api import Job, JobOutcome, Limits, Sandbox

PROGRAM = "numbers = list(map(int, input().split()))\nprint(sum(numbers), max(numbers), sorted(numbers)[:3])\n"
STDIN = b"5 3 9 1 7\n"
SAYS = b"25 9 [1, 3, 5]\n"
JOB = Job(argv=("python", "main.py"), files={"main.py": PROGRAM.encode()}, stdin=STDIN)
PLAIN = (sys.executable, "-I", "-c", PROGRAM)


class Rate(TypedDict):
    """Rate and latency of one way to run programs in one round."""

    per_second: float
    p50_ms: float
    p99_ms: float
    runs: int


def measure(once: Callable[[], None], *, seconds: float, at_once: int) -> Rate:
    """Measure the rate and latency of a call, made from `at_once` threads for `seconds`.

    The call has to raise an exception if its result is wrong.
    """
    latencies: list[float] = []
    deadline = time.perf_counter() + seconds

    def caller() -> None:
        while time.perf_counter() < deadline:
            started = time.perf_counter()
            once()
            latencies.append(time.perf_counter() - started)

    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as threads:
        for done in [threads.submit(caller) for _ in range(at_once)]:
            done.result()
    took = time.perf_counter() - started
    latencies.sort()
    return Rate(
        per_second=len(latencies) / took,
        p50_ms=1000 * quantile(latencies, 0.5),
        p99_ms=1000 * quantile(latencies, 0.99),
        runs=len(latencies),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile of sorted values at a fraction `share` (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def pooled(sandbox: Sandbox) -> Callable[[], None]:
    """Return a function that runs one program in a warm sandbox."""

    def once() -> None:
        result = sandbox.run(JOB)
        if result.outcome is not JobOutcome.OK or result.stdout != SAYS:
            raise RuntimeError(f"the sandbox got it wrong: {result}")

    return once


def process(command: Sequence[str]) -> Callable[[], None]:
    """Return a function that runs one program in a new process: PLAIN without a sandbox, or a `docker run`."""

    def once() -> None:
        done = subprocess.run(command, input=STDIN, capture_output=True, check=True)
        if done.stdout != SAYS:
            raise RuntimeError(f"{command[0]} got it wrong: {done.stdout!r}")

    return once


def container_run(image: str) -> list[str]:
    """Return the `docker run` command for one program, with restrictions as tight as those of the pool's containers."""
    return [
        *("docker", "run", "--rm", "-i", "--network", "none", "--read-only", "--pull", "never", "--log-driver", "none"),
        *("--memory", "512m", "--memory-swap", "512m", "--cpus", "1", "--pids-limit", "64", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--user", "10000:10000", "--ulimit", "core=0"),
        *("--tmpfs", "/tmp:rw,size=64m", image, "python3", "-I", "-c", PROGRAM),
    ]


def overruns(sandbox: Sandbox, *, wall_seconds: float, runs: int, at_once: int) -> list[float]:
    """Run sleeping jobs; return the sorted seconds by which each exceeded its wall limit."""
    code = b"import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"
    limits = Limits(wall_seconds=wall_seconds)
    job = Job(argv=("python", "main.py"), files={"main.py": code}, limits=limits)

    def once(_: int) -> float:
        started = time.perf_counter()
        result = sandbox.run(job)
        took = time.perf_counter() - started - result.queue_seconds
        if result.outcome is not JobOutcome.WALL_TIMEOUT:
            raise RuntimeError(f"a sleeping job ended as {result}")
        return took - wall_seconds

    with ThreadPoolExecutor(at_once) as threads:
        return sorted(threads.map(once, range(runs)))
