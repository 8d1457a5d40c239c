"""The owner's side against supervisors that lie, die, or say nothing; no isolation is needed for that."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from sandbox import Job, JobOutcome, JobTooLarge, Limits, Sandbox, SandboxError, open_sandbox
from sandbox import worker as worker_module
from sandbox.connection import Pipes
from sandbox.pool import LONGER, Launcher, PooledSandbox
from sandbox.worker import GuestConfig, Worker

READ = (
    "import json, os, sys, time\n"
    "def take(n):\n    b = b''\n    while len(b) < n:\n        p = os.read(0, n - len(b))\n"
    "        if not p: os._exit(0)\n        b += p\n    return b\n"
    "def get():\n    h = json.loads(take(int.from_bytes(take(8), 'big')))\n"
    "    for n in h.get('sizes', []): take(n)\n    return h\n"
    "def put(h, *blobs):\n    h = json.dumps({**h, 'sizes': [len(b) for b in blobs]}).encode()\n"
    "    os.write(1, len(h).to_bytes(8, 'big') + h + b''.join(blobs))\n"
    "ANSWER = dict(outcome='ok', exit_code=0, cpu_seconds=0.1, job_seconds=0.1, peak_memory_bytes=1, detail='',"
    " anomaly='', starved=False)\n"
    "get()\nput({'python': '3'})\n"
)
GOOD = "while True:\n    get(); put(ANSWER, b'good', b'', b'')\n"


class Scripted(Launcher):
    """Workers that run these scripts, one after the other; the last one again and again."""

    def __init__(self, *scripts: str) -> None:
        self.limits = Limits()
        self.scripts = list(scripts)
        self.started = 0
        self.discarded: list[Worker] = []

    def start(self) -> Worker:
        script = self.scripts[min(self.started, len(self.scripts) - 1)]
        self.started += 1
        config = GuestConfig(mode="none", uid=None, tmpfs_bytes=0, inodes=0)
        return Worker(Pipes([sys.executable, "-I", "-c", READ + script]), config, name="scripted worker")

    def discard(self, worker: Worker) -> None:
        super().discard(worker)
        self.discarded.append(worker)


def pool(*scripts: str, workers: int = 1, recycle_after: int = 1000) -> tuple[PooledSandbox, Scripted]:
    launcher = Scripted(*scripts)
    return PooledSandbox(launcher, workers=workers, recycle_after=recycle_after), launcher


JOB = Job(argv=("python", "x.py"), files={"x.py": b""}, limits=Limits(wall_seconds=0.3))
LIES = {
    "dies": "get()\n",
    "closes its output": "get(); os.close(1); time.sleep(60)\n",
    "no frame": "get(); os.write(1, b'OK, all tests passed' * 10)\n",
    "a huge header": "get(); os.write(1, (1 << 40).to_bytes(8, 'big'))\n",
    "huge byte strings": "get(); h = json.dumps({**ANSWER, 'sizes': [1 << 40, 0, 0]}).encode()\n"
    "os.write(1, len(h).to_bytes(8, 'big') + h)\n",
    "negative byte strings": "get(); h = json.dumps({**ANSWER, 'sizes': [-1, 0, 0]}).encode()\n"
    "os.write(1, len(h).to_bytes(8, 'big') + h)\n",
    "too few byte strings": "get(); put(ANSWER, b'x')\n",
    "no outcome": "get(); put({'exit_code': 0}, b'', b'', b'')\n",
    "an unknown outcome": "get(); put({**ANSWER, 'outcome': 'correct'}, b'', b'', b'')\n",
    "an exit code of words": "get(); put({**ANSWER, 'exit_code': 'zero'}, b'', b'', b'')\n",
    "a list for a header": "get(); os.write(1, (2).to_bytes(8, 'big') + b'[]')\n",
    "nothing": "get(); time.sleep(60)\n",
}


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "ANSWER_GRACE", 0.2)


@pytest.mark.parametrize("script", LIES.values(), ids=list(LIES))
def test_a_supervisor_that_lies_is_replaced_and_the_job_run_again(script: str) -> None:
    sandbox, launcher = pool(script, GOOD)
    with sandbox:
        assert sandbox.run(JOB).stdout == b"good"
        assert sandbox.replaced == 1
    assert len(launcher.discarded) == 2
    assert all(worker.process.poll() is not None for worker in launcher.discarded)


def test_two_lost_workers_are_an_infrastructure_fault_that_says_why() -> None:
    sandbox, launcher = pool("get(); print('no space left', file=sys.stderr); sys.exit(1)\n")
    with sandbox:
        result = sandbox.run(JOB)
    assert result.outcome is JobOutcome.INFRASTRUCTURE_FAULT
    assert "no space left" in result.detail
    assert launcher.started == 2


def test_a_starved_job_runs_again_and_is_then_nobodys_fault() -> None:
    starved = "get(); put({**ANSWER, 'outcome': 'wall_timeout', 'starved': True}, b'', b'', b'')\n"
    told = "head = get(); put(ANSWER, json.dumps(head).encode(), b'', b'')\n"
    sandbox, launcher = pool(starved + told)
    with sandbox:
        limits = json.loads(sandbox.run(JOB).stdout)["limits"]
        assert limits["wall_seconds"] == LONGER * JOB.limits.wall_seconds
        assert limits["cpu_seconds"] == JOB.limits.cpu_seconds
    sandbox, launcher = pool("get(); sys.exit(1)\n", told)
    with sandbox:  # no more time for one that was lost
        assert json.loads(sandbox.run(JOB).stdout)["limits"]["wall_seconds"] == JOB.limits.wall_seconds
    sandbox, launcher = pool(starved * 2 + GOOD)
    with sandbox:
        result = sandbox.run(JOB)
        assert result.outcome is JobOutcome.INFRASTRUCTURE_FAULT
        assert "too busy" in result.detail
        assert launcher.started == 1


def test_workers_are_replaced_after_so_many_jobs_and_after_an_anomaly() -> None:
    sandbox, launcher = pool(GOOD, recycle_after=2)
    with sandbox:
        for _ in range(5):
            sandbox.run(JOB)
        assert launcher.started == 3
    odd = "get(); put({**ANSWER, 'outcome': 'memory_limit', 'anomaly': 'out of memory'}, b'', b'', b'')\n"
    sandbox, launcher = pool(odd + GOOD, GOOD)
    with sandbox:
        assert sandbox.run(JOB).outcome is JobOutcome.MEMORY_LIMIT  # the program's doing: not run again
        assert sandbox.run(JOB).stdout == b"good"
        assert launcher.started == 2


def test_callers_wait_their_turn_and_the_wait_is_not_the_jobs() -> None:
    slow = "while True:\n    get(); time.sleep(0.2); put(ANSWER, b'good', b'', b'')\n"
    sandbox, launcher = pool(slow, workers=2)
    with sandbox:
        results = []
        threads = [threading.Thread(target=lambda: results.append(sandbox.run(JOB))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert launcher.started == 2
        waits = sorted(result.queue_seconds for result in results)
        assert waits[0] < waits[-1] - 0.1
        assert 0.35 < waits[-1] < 10
        assert {result.wall_seconds for result in results} == {0.1}  # what the supervisor measured


def test_coroutines_wait_too() -> None:
    slow = "while True:\n    get(); time.sleep(0.1); put(ANSWER, b'good', b'', b'')\n"
    sandbox, _ = pool(slow, workers=1)

    async def three() -> list[float]:
        return [result.queue_seconds for result in await asyncio.gather(*(sandbox.run_async(JOB) for _ in range(3)))]

    with sandbox:
        waits = sorted(asyncio.run(three()))
    assert waits[1] > 0.08
    assert waits[2] > 0.16

    async def late() -> None:
        await sandbox.run_async(JOB)

    with pytest.raises(SandboxError, match="closed"):
        asyncio.run(late())


def test_closing_ends_running_jobs_and_wakes_whoever_waits() -> None:
    sandbox, launcher = pool("get(); time.sleep(60)\n")
    outcomes: list[object] = []

    def run() -> None:
        try:
            outcomes.append(sandbox.run(Job(argv=("python", "x"), limits=Limits(wall_seconds=50))))
        except SandboxError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    started = time.monotonic()
    sandbox.close()
    sandbox.close()
    for thread in threads:
        thread.join(5)
    assert time.monotonic() - started < 3
    assert outcomes == ["the sandbox is closed."] * 3
    assert launcher.discarded[0].process.poll() is not None


def test_a_worker_that_cannot_start_shows_when_the_sandbox_opens() -> None:
    class Refusing(Scripted):
        def start(self) -> Worker:
            raise SandboxError("nothing works here: install something.")

    with pytest.raises(SandboxError, match="install something"):
        PooledSandbox(Refusing(GOOD), workers=1, recycle_after=1)


def test_an_interrupt_gives_the_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox, launcher = pool(GOOD)
    with sandbox:
        run = Worker.run

        def interrupted(self: Worker, job: Job) -> object:
            raise KeyboardInterrupt

        monkeypatch.setattr(Worker, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sandbox.run(JOB)
        monkeypatch.setattr(Worker, "run", run)
        assert sandbox.run(JOB).stdout == b"good"
        assert launcher.started == 2


@pytest.mark.parametrize(
    ("job", "error", "says"),
    [
        (Job(argv=()), SandboxError, "argv"),
        (Job(argv=("x",), stdin=b"x" * 101, limits=Limits(input_bytes=100)), JobTooLarge, "100 bytes"),
        (
            Job(argv=("x",), files={"a": b"x" * 101}, limits=Limits(file_bytes=100)),
            JobTooLarge,
            "a may have at most 100",
        ),
        (Job(argv=("x", "y" * 1_000_000)), JobTooLarge, "arguments"),
        (Job(argv=("x",), files={"/etc/passwd": b""}), SandboxError, "relative"),
        (Job(argv=("x",), files={"a/../../b": b""}), SandboxError, "relative"),
        (Job(argv=("x",), files={"": b""}), SandboxError, "relative"),
        (Job(argv=("x",), files={"a\0b": b""}), SandboxError, "relative"),
        (Job(argv=("x",), limits=Limits(memory_bytes=1 << 40)), SandboxError, "memory_bytes must be at most"),
        (Job(argv=("x",), limits=Limits(processes=10_000)), SandboxError, "processes must be at most"),
        (Job(argv=("x",), helper=Job(argv=())), SandboxError, "argv"),
    ],
)
def test_jobs_that_cannot_be_run(job: Job, error: type[Exception], says: str) -> None:
    sandbox, launcher = pool(GOOD)
    with sandbox:
        with pytest.raises(error, match=says):
            sandbox.run(job)
        assert sandbox.run(JOB).stdout == b"good"
        assert launcher.started == 1


@pytest.mark.parametrize("field", ["cpu_seconds", "wall_seconds", "memory_bytes", "processes", "output_bytes"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_there_is_no_such_thing_as_no_limit(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be above 0"):
        Limits(**{field: value})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def host() -> Iterator[Sandbox]:
    with open_sandbox("unsafe-host", workers=1) as sandbox:
        yield sandbox


def test_unsafe_host_runs_programs(host: Sandbox) -> None:
    code = b"import sys, os\nprint(sys.stdin.read().upper(), os.listdir('.'))\nos.write(3, b'said')\nsys.exit(7)"
    result = host.run(Job(argv=("python", "m.py"), files={"m.py": code}, stdin=b"abc", result_channel=True))
    assert result.outcome is JobOutcome.NONZERO_EXIT
    assert (result.exit_code, result.stdout, result.result) == (7, b"ABC ['m.py']\n", b"said")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # what is tested here
def test_a_forked_child_of_the_owner_has_no_part_in_it(host: Sandbox) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            host.run(Job(argv=("python", "m.py"), files={"m.py": b""}))
        except SandboxError as error:
            os.write(write, str(error).encode())
        host.close()
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    assert b"belongs to the process that opened it" in os.read(read, 1000)
    os.close(read)
    assert host.run(Job(argv=("python", "m.py"), files={"m.py": b"print(1)"})).stdout == b"1\n"


def test_whoever_has_waited_longest_is_next(host: Sandbox) -> None:
    turns: list[int] = []
    over = threading.Event()

    def caller(number: int) -> None:
        while not over.is_set():
            host.run(Job(argv=("python", "m.py"), files={"m.py": b""}))
            turns.append(number)

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    over.set()
    for thread in threads:
        thread.join()
    shares = [turns.count(number) for number in range(4)]
    assert min(shares) >= max(shares) - 2, shares


def test_unknown_names_are_refused() -> None:
    with pytest.raises(SandboxError, match="one of docker, bubblewrap, unsafe-host"):
        open_sandbox("host")
    with pytest.raises(SandboxError, match="colour"):
        open_sandbox("unsafe-host", colour="red")
