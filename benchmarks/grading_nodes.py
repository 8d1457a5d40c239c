"""Rows graded by a pool with grading nodes, one of which is killed and started again all the time. Prints JSON.

Two services (`reasoner verifiers serve`) grade beside the pool's stand-in worker. Half of the rows are right answers,
known beforehand. Every row must get one verdict, and none a wrong one; the exit status is 1 otherwise. Before that the
same is timed with each number of nodes and nothing killed, in turns.

    python benchmarks/grading_nodes.py                          # 100,000 rows, a kill every 10 s
    python benchmarks/grading_nodes.py --rows 5000 --every 2
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from verifiers import GradingRow
from verifiers.pool import GradingPool
from verifiers.pool.work_queue import GradingRequest
from verifiers.serve.nodes import Node


class Service:
    """One grading node on this machine, which can be killed and started again on its port."""

    def __init__(self, workers: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url, self._workers = f"http://127.0.0.1:{self.port}", workers
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = ["-m", "reasoner", "verifiers", "serve", "--port", str(self.port), "--workers", str(self._workers)]
        self.process = subprocess.Popen(
            [sys.executable, *command], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"{self.url}/health", timeout=1).close()
                return
            if self.process.poll() is not None:
                raise SystemExit(f"the service ended with status {self.process.returncode}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill it with all its workers, as when a machine is switched off."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def rows(count: int, *, hard: bool) -> Iterator[tuple[GradingRequest, bool]]:
    """Yield different requests, and whether each answer is right. `hard` asks for formulas, which take milliseconds."""
    for number in range(count):
        right = number % 2 == 0
        if hard:
            reference, answer = f"(x+{number})^2", f"x^2+{2 * number}*x+{number * number + (not right)}"
        else:
            reference, answer = str(number), str(number + (not right))
        row = GradingRow(completion=f"So it is \\boxed{{{answer}}}.", reference=reference)
        yield GradingRequest("math", row), right


def graded(pool: GradingPool, count: int, *, hard: bool) -> tuple[Counter[str], float]:
    """Grade so many rows; return what came of them, and the seconds."""
    started = time.perf_counter()
    truth = [right for _, right in rows(count, hard=hard)]
    came: Counter[str] = Counter()
    verdicts = pool.grade(request for request, _ in rows(count, hard=hard))
    for right, verdict in zip(truth, verdicts, strict=True):
        came["ungraded" if not verdict.graded else "right" if verdict.right == right else "wrong"] += 1
    return came, time.perf_counter() - started


def lanes(services: list[Service]) -> list:
    """Return the lanes of services."""
    return [lane for service in services for lane in Node(service.url).lanes]


def main() -> None:
    """Time, then kill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--timed", type=int, default=2_000, help="rows of each timed part")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between kills")
    parser.add_argument("--workers", type=int, default=1, help="of each node")
    options = parser.parse_args()
    services = [Service(options.workers) for _ in range(2)]
    try:
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(3):
            for nodes in seconds:
                with GradingPool(workers=0, nodes=lanes(services[:nodes])) as pool:
                    graded(pool, 200, hard=True)  # imports, and the speed of a row
                    seconds[nodes].append(graded(pool, options.timed, hard=True)[1])
        kills, done = 0, threading.Event()

        def killer() -> None:
            nonlocal kills
            while not done.wait(options.every):
                service = services[kills % 2]
                service.kill()
                kills += 1
                if not done.wait(min(2.0, options.every / 2)):
                    service.start()

        thread = threading.Thread(target=killer)
        with GradingPool(workers=0, nodes=lanes(services)) as pool:
            thread.start()
            came, whole = graded(pool, options.rows, hard=False)
            done.set()
            thread.join()
    finally:
        for service in services:
            with suppress(ProcessLookupError):
                service.kill()
    rates = {nodes: round(options.timed / statistics.median(found), 1) for nodes, found in seconds.items()}
    print(
        json.dumps(
            {
                "rows": options.rows,
                **came,
                "kills": kills,
                "seconds": round(whole, 1),
                "rows a second with one node, with two, nothing killed": rates,
            }
        )
    )
    sys.exit(came["wrong"] + came["ungraded"] > 0 or sum(came.values()) != options.rows)


if __name__ == "__main__":
    main()
