"""Grading: rows per second, overhead of the pool and the service, and a soak test under faults. Prints JSON.

    python benchmarks/grading.py                    # everything except the soak test
    python benchmarks/grading.py speed overhead service soak

speed     `math` through the pool with 1 and 2 workers, and `math` and Math-Verify in process, on the same rows
overhead  a trivial row through the pool, minus the same row in process
service   64 concurrent clients on loopback, each row checked; the service's CPU time per single row; batches of 64
          compared with the same rows through the pool
soak      100,000 rows of which 1 % hang, spin, eat memory, crash, exit or raise

Rows for speed are real model outputs from REASONER_DATA_DIR (math_outputs/tora-70b-v1.0_gsm8k.jsonl.gz).
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from verifiers import GradingRow, Outcome, get_verifier
from verifiers.pool import GradingPool, GradingRequest, PoolLimits

ROOT = Path(__file__).parents[1]
FAULTY = f"{ROOT / 'tests' / 'unit' / 'verifiers' / 'faulty.py'}:Faulty"
FAULTS = ("hang", "spin", "eat memory", "segfault", "os._exit", "raise", "kill myself", "abort")
SOAK_ROWS = 100_000
SOAK_WALL = 1.0
"""Wall-clock limit of a row in the soak test, in seconds."""
CLIENTS, CALLS = 64, 40
OVERHEAD_ROWS = 20_000
ALONE_ROWS, BATCH_ROWS = 1000, 12_800


def real_rows() -> list[GradingRow]:
    folder = os.environ.get("REASONER_DATA_DIR")
    if not folder:
        sys.exit("REASONER_DATA_DIR is not set: `speed` needs the folder with the model outputs.")
    path = Path(folder) / "math_outputs" / "tora-70b-v1.0_gsm8k.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        GradingRow(completion=f"The answer is \\boxed{{{row['pred'][0]}}}.", reference=str(row["gt"])) for row in rows
    ]


def timed_pool(name: str, rows: Sequence[GradingRow], workers: int) -> tuple[float, list[float | None]]:
    """Grade rows through a pool with started workers and a loaded verifier; return seconds and rewards."""
    with GradingPool(workers=workers) as pool:
        list(pool.grade(GradingRequest(name, row) for row in rows[: 200 * workers]))
        started = time.perf_counter()
        verdicts = list(pool.grade(GradingRequest(name, row) for row in rows))
        return time.perf_counter() - started, [verdict.reward for verdict in verdicts]


def timed_here(name: str, rows: Sequence[GradingRow]) -> tuple[float, list[float | None]]:
    """Grade rows one by one in this process; return seconds and rewards."""
    made = get_verifier(name)
    made.verify_batch(list(rows[:200]))
    started = time.perf_counter()
    rewards = [made.verify_batch([row])[0].reward for row in rows]
    return time.perf_counter() - started, rewards


def speed() -> Mapping[str, object]:
    rows = real_rows() * 4
    found: dict[str, object] = {"rows": len(rows)}
    here, reference = timed_here("math", rows)
    found["math in process, rows/s"] = round(len(rows) / here)
    for workers in (1, 2):
        seconds, rewards = timed_pool("math", rows, workers)
        assert rewards == reference, "the pool and the process disagree"
        found[f"math through the pool, {workers} worker{'s' * (workers > 1)}, rows/s"] = round(len(rows) / seconds)
    theirs, their_rewards = timed_here("math-verify", rows)
    found["Math-Verify in process, rows/s"] = round(len(rows) / theirs)
    found["verdicts that differ"] = sum(a != b for a, b in zip(reference, their_rewards, strict=True))
    return found


def overhead() -> Mapping[str, object]:
    rows = [GradingRow(completion=f"#### {n}", reference=str(n)) for n in range(OVERHEAD_ROWS)]
    found: dict[str, object] = {"rows": len(rows)}
    here = min(timed_here("exact", rows)[0] for _ in range(3)) / len(rows)
    found["in process, ms/row"] = round(here * 1000, 4)
    for workers in (1, 2):
        seconds = min(timed_pool("exact", rows, workers)[0] for _ in range(3)) / len(rows)
        found[f"overhead with {workers} worker{'s' * (workers > 1)}, ms/row"] = round((seconds - here) * 1000, 4)
    return found


def service() -> Mapping[str, object]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from reasoner.cli import main; main()"
    command = [sys.executable, "-c", code, "verifiers", "serve", "-v", "exact", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health")
        get_verifier(f"http://127.0.0.1:{port}/exact").verify(completion="#### 1", reference="1")
        found = {**_load(f"http://127.0.0.1:{port}/exact")}
        for name in ("first", "second", "third"):
            found[f"beside the pool, {name} time"] = _beside_pool(port, psutil.Process(process.pid))
        return found
    finally:
        process.terminate()
        process.wait()


def _beside_pool(port: int, served: psutil.Process) -> Mapping[str, object]:
    """Send rows singly and in batches over HTTP with a minimal client, and grade the same rows through the pool."""
    rows = [GradingRow(completion=f"#### {n}", reference=str(n)) for n in range(BATCH_ROWS)]
    cpu, alone = _cpu(served), ALONE_ROWS
    _send(port, [_body("exact", [row]) for row in rows[:alone]], at_once=1)
    workers, service = _cpu(served, children=True), _cpu(served) - cpu
    bodies = [_body("exact", rows[at : at + 64]) for at in range(0, len(rows), 64)]
    _send(port, bodies[:8], at_once=4)
    batches = len(rows) / _send(port, bodies, at_once=4)
    busy = _cpu(served, children=True) - workers
    pool, beside = _through_pool(rows)
    return {
        "CPU of the service for one row by itself, ms": round(1000 * service / alone, 3),
        "rows/s in batches of 64": round(batches),
        "rows/s through the pool": round(pool),
        "ratio": round(batches / pool, 2),
        "CPU of workers and service for a row in batches, ms": round(1000 * busy / (len(rows) + 512), 3),
        "CPU of workers and pool for a row, ms": round(1000 * beside / len(rows), 3),
    }


def _through_pool(rows: Sequence[GradingRow]) -> tuple[float, float]:
    """Grade rows through a warm pool; return rows per second and the CPU seconds of this process and its workers."""
    own = psutil.Process()
    with GradingPool(workers=2) as pool:
        list(pool.grade(GradingRequest("exact", row) for row in rows[:512]))
        workers = [child for child in own.children() if child.cmdline()[:2] == [sys.executable, "-c"]]
        grading = [own, *(child for child in workers if "worker_main" in child.cmdline()[2])]
        cpu, started = sum(map(_cpu, grading)), time.perf_counter()
        list(pool.grade(GradingRequest("exact", row) for row in rows))
        return len(rows) / (time.perf_counter() - started), sum(map(_cpu, grading)) - cpu


def _cpu(process: psutil.Process, *, children: bool = False) -> float:
    found = [process, *(process.children(recursive=True) if children else ())]
    return sum(sum(one.cpu_times()[:2]) for one in found)


def _body(name: str, rows: Sequence[GradingRow]) -> bytes:
    given = [{"completion": row.completion, "reference": row.reference} for row in rows]
    return json.dumps({"verifier": name, "rows": given}).encode()


def _send(port: int, bodies: Sequence[bytes], *, at_once: int) -> float:
    """Send requests; return the seconds until all are answered, with every row correct."""

    def client(share: Sequence[bytes]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for body in share:
            connection.request("POST", "/v1/grade_batch", body, {"Content-Type": "application/json"})
            answer = connection.getresponse().read()
            assert answer.count(b"correct") == body.count(b"####"), answer[:300]
        connection.close()

    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as threads:
        list(threads.map(client, [bodies[at::at_once] for at in range(at_once)]))
    return time.perf_counter() - started


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _load(url: str) -> Mapping[str, object]:
    latencies: list[float] = []
    wrong: list[str] = []

    def client(number: int) -> None:
        remote = get_verifier(url)
        for turn in range(CALLS):
            right = (number + turn) % 2 == 0
            started = time.perf_counter()
            verdict = remote.verify(completion=f"#### {number}", reference=str(number if right else -1))
            latencies.append(time.perf_counter() - started)
            if verdict.reward != right:
                wrong.append(verdict.reason)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "clients": CLIENTS,
        "requests": CLIENTS * CALLS,
        "answered": len(latencies),
        "wrong": len(wrong),
        "requests/s": round(len(latencies) / seconds),
        "p50 ms": round(cuts[49] * 1000, 1),
        "p99 ms": round(cuts[98] * 1000, 1),
        "max ms": round(max(latencies) * 1000, 1),
    }


def soak() -> Mapping[str, object]:
    """Run the soak test: every hundredth row is a fault, of each kind in turn; every third of the others is wrong."""

    def text(number: int) -> str:
        if number % 100 == 50:
            return FAULTS[number // 100 % len(FAULTS)]
        return "bad" if number % 3 == 0 else "good"

    expected = {"good": Outcome.CORRECT, "bad": Outcome.INCORRECT}
    limits = PoolLimits(wall_seconds=SOAK_WALL, memory_bytes=300 << 20)
    wrong = 0
    outcomes: Counter[str] = Counter()
    longest = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with GradingPool(workers=2, limits=limits, max_pending=2000) as pool:
        requests = (GradingRequest(FAULTY, GradingRow(completion=text(n), reference="good")) for n in range(SOAK_ROWS))
        started = last = time.perf_counter()
        for number, verdict in enumerate(pool.grade(requests)):
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
            wanted = expected.get(text(number), Outcome.VERIFIER_ERROR)
            wrong += verdict.outcome is not wanted
            outcomes[str(verdict.outcome)] += 1
        seconds = time.perf_counter() - started
        rest = list(
            pool.grade(GradingRequest(FAULTY, GradingRow(completion="good", reference="good")) for _ in range(200))
        )
        state = pool.state()
    return {
        "rows": SOAK_ROWS,
        "faults": outcomes["verifier_error"],
        "rows with another outcome than expected": wrong,
        "workers at the end": state.workers,
        "graded after it": sum(verdict.reward == 1 for verdict in rest),
        "seconds": round(seconds, 1),
        "rows/s": round(SOAK_ROWS / seconds),
        "longest wait between two verdicts, s": round(longest, 2),
        "limit of a row, s": SOAK_WALL,
        "growth of the caller's memory, MiB": round(
            (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1
        ),
    }


SECTIONS: Mapping[str, Callable[[], Mapping[str, object]]] = {
    "speed": speed,
    "overhead": overhead,
    "service": service,
    "soak": soak,
}


def main() -> None:
    wanted = sys.argv[1:] or ["speed", "overhead", "service"]
    unknown = [name for name in wanted if name not in SECTIONS]
    if unknown:
        sys.exit(f"sections must be some of {', '.join(SECTIONS)}; got {unknown[0]}.")
    print(json.dumps({name: SECTIONS[name]() for name in wanted}, indent=1))


if __name__ == "__main__":
    main()
