"""The code verifier in real sandboxes: forgeries, pools, and the reference answers of public data sets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks.registry import get_task
from tasks.validate import validate_task
from tests.backends import ISOLATED, containers, opened
from verifiers import GradingRow, Verifier, get_verifier
from verifiers.pool import GradingPool, GradingRequest
from verifiers.verdict import JSON

pytestmark = pytest.mark.integration
CASES = Path(__file__).parents[1] / "cases"
CORE = 8
"""The short suite tries one forgery out of this number."""


def rows(name: str) -> list[dict[str, JSON]]:
    return [json.loads(line) for line in (CASES / name).read_text().split("\n") if line]


REFERENCES = {str(row["id"]): row for row in rows("code_references.jsonl")}
FORGERIES = rows("code_forgeries.jsonl")


@pytest.fixture(scope="module", params=ISOLATED)
def verifier(request: pytest.FixtureRequest) -> Verifier:
    opened(request.param, workers=1).close()
    return get_verifier("code", sandbox=request.param, cpu_seconds=1.0, block="whole")


@pytest.mark.parametrize("kind", list(REFERENCES))
def test_an_honest_program_passes(verifier: Verifier, kind: str) -> None:
    row = REFERENCES[kind]
    assert verifier.verify(completion=str(row["honest"]), reference=row["reference"]).reward == 1


@pytest.mark.parametrize(
    "forgery",
    [
        pytest.param(row, id=str(row["id"]), marks=() if number % CORE == 1 else pytest.mark.slow)
        for number, row in enumerate(FORGERIES)
    ],
)
def test_no_forgery_passes(verifier: Verifier, forgery: dict[str, JSON]) -> None:
    kinds = forgery["kinds"]
    assert isinstance(kinds, list)
    for kind in kinds:
        verdict = verifier.verify(completion=str(forgery["program"]), reference=REFERENCES[str(kind)]["reference"])
        busy = (
            verdict.outcome == "verifier_error" and "too busy" in verdict.reason
        )  # of a test machine, not of its doing
        assert verdict.reward == 0 or busy, (kind, verdict)


def descendants(pid: int) -> list[psutil.Process]:
    """Return every process below one, except those of containers."""
    return psutil.Process(pid).children(recursive=True)


def clients(processes: list[psutil.Process]) -> set[str]:
    """Return a name for each sandbox among processes: its container's, or the pid of the outermost bubblewrap."""
    found = set(containers({process.pid for process in processes}))
    outer: set[int] = set()
    for process in processes:
        try:
            command, parent = process.cmdline(), process.ppid()
        except psutil.NoSuchProcess:
            continue
        if command and Path(command[0]).name == "bwrap":
            outer.add(process.pid)
            if parent not in outer:
                found.add(str(process.pid))
    return found


def gone(processes: list[psutil.Process], names: set[str], *, seconds: float = 15.0) -> bool:
    """Return True if processes and containers end in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        left = names & set(containers({process.pid for process in processes}))
        alive = [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        if not left and not alive:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("backend", ISOLATED)
def test_a_thousand_gradings_take_one_sandbox_for_each_worker_of_the_pool(backend: str) -> None:
    opened(backend, workers=1).close()
    reference: JSON = {"entry_point": "f", "calls": [{"args": [1], "expected": 2}]}
    completions = [f"def f(x): return x + {number % 10}" for number in range(1000)]
    requests = [
        GradingRequest("code", GradingRow(completion=code, reference=reference), {"sandbox": backend, "block": "whole"})
        for code in completions
    ]
    earlier = {process.pid for process in descendants(os.getpid())}  # of other tests' own
    names: set[str] = set()
    processes: dict[int, psutil.Process] = {}
    with GradingPool(workers=2) as pool:
        right = 0
        for number, verdict in enumerate(pool.grade(requests)):
            assert verdict.graded, verdict
            right += verdict.reward == 1
            if number % 200 == 199:
                below = [process for process in descendants(os.getpid()) if process.pid not in earlier]
                names |= clients(below)
                processes |= {process.pid: process for process in below}
    assert right == 100
    assert 1 <= len(names) <= 2
    assert gone(list(processes.values()), names)


OWNER = """
import sys
from verifiers import GradingRow
from verifiers.pool import GradingPool
pool = GradingPool(workers=1)
row = GradingRow(completion="def f(x):\\n import time\\n time.sleep(60)", reference={"tests": ["assert f(1) == 1"]})
first = GradingRow(completion="def f(x): return 1", reference={"tests": ["assert f(1) == 1"]})
options = {"sandbox": sys.argv[1], "block": "whole", "cpu_seconds": 30.0}
assert pool.submit("code", options, first).result().reward == 1
pool.submit("code", options, row)
print("busy", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("backend", ISOLATED)
def test_sandboxes_die_with_a_killed_owner_of_the_pool(backend: str) -> None:
    opened(backend, workers=1).close()
    command = [sys.executable, "-c", OWNER, backend]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == "busy\n"
        time.sleep(0.5)
        below = descendants(owner.pid)
        names = clients(below)
        assert len(names) == 1
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    assert gone(below, names)


GOLDS: list[tuple[str, str, dict[str, JSON], dict[str, int]]] = [
    ("humaneval", "humaneval", {}, {"test": 164}),
    ("mbpp", "mbpp", {}, {"train": 374, "test": 500, "validation": 90, "prompt": 10}),
    ("cruxeval", "cruxeval", {"predict": "input"}, {"test": 800}),
    ("cruxeval", "cruxeval", {"predict": "output"}, {"test": 800}),
    ("mbpp_plus", "mbpp_evalplus_base", {}, {"test": 409}),
    ("code_contests", "code_contests_test", {}, {"test": 165}),
]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ISOLATED)
@pytest.mark.parametrize(("name", "file", "options", "sizes"), GOLDS, ids=[f"{g[0]} {g[2] or g[1]}" for g in GOLDS])
def test_golds(
    data_dir: Path, backend: str, name: str, file: str, options: dict[str, JSON], sizes: dict[str, int]
) -> None:
    opened(backend, workers=1).close()
    path = str(data_dir / "code" / f"{file}.jsonl.gz")
    task = get_task(name, path=path, verifier_options={"sandbox": backend}, **options)
    for split, size in sizes.items():
        found = validate_task(task, split)
        assert (found.total, found.faults) == (size, [])
