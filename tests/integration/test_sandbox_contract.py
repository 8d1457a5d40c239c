"""The promises of every isolated backend, tested in the same words for each."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sandbox import Job, JobOutcome, JobResult, Limits, SandboxError
from sandbox import worker as worker_module
from sandbox.pool import PooledSandbox
from tests.backends import ISOLATED, opened, python, said

pytestmark = pytest.mark.integration
MIB = 1 << 20
QUICK = {"cpu_seconds": 1.0, "wall_seconds": 30.0, "memory_bytes": 128 * MIB}


@pytest.fixture(scope="module", params=ISOLATED)
def sandbox(request: pytest.FixtureRequest) -> Iterator[PooledSandbox]:
    with opened(request.param, workers=2, packages=("numpy", "sympy")) as found:
        yield found


@pytest.mark.parametrize(
    ("outcome", "code", "limits"),
    [
        ("ok", "print(1)", {}),
        ("ok", "import sys\nsys.exit(0)", {}),
        ("nonzero_exit", "import sys\nsys.exit(3)", {}),
        ("nonzero_exit", "raise ValueError", {}),
        ("nonzero_exit", "import os\nos._exit(1)", {}),
        ("nonzero_exit", "x = (", {}),
        ("killed", "import os\nos.abort()", {}),
        ("killed", "import os\nos.kill(os.getpid(), 15)", {}),
        ("killed", "import os\nos.kill(os.getpid(), 40)", {}),
        ("wall_timeout", "import time\ntime.sleep(60)", {"wall_seconds": 0.5}),
        ("cpu_limit", "while True: pass", {"cpu_seconds": 0.3}),
        ("cpu_limit", "import os\nfor _ in range(3): os.fork()\nwhile True: pass", {"cpu_seconds": 0.5}),
        ("memory_limit", "x = bytearray(20 << 30)", {}),
        ("memory_limit", "x = []\nwhile True: x.append(b'x' * (1 << 20))", {"memory_bytes": 64 * MIB}),
        (
            "memory_limit",
            "import os, time\nfor _ in range(3): os.fork()\nx = os.urandom(24 << 20)\ntime.sleep(9)",
            {"memory_bytes": 96 * MIB},
        ),
        ("output_limit", "import os\nwhile True: os.write(1, b'x' * 9999)", {"output_bytes": 100_000}),
        ("output_limit", "import os\nwhile True: os.write(2, b'x' * 9999)", {"output_bytes": 100_000}),
        ("output_limit", "import os\nwhile True: os.write(3, b'x' * 9999)", {"output_bytes": 100_000}),
        ("output_limit", "print('x' * 200_000)", {"output_bytes": 100_000}),
        ("nonzero_exit", "open('f', 'wb').write(bytes(2 << 20))", {"file_bytes": MIB}),
        ("nonzero_exit", "x = [open('/dev/null') for _ in range(100)]", {"open_files": 50}),
        (
            "nonzero_exit",
            "import os, time\nwhile True:\n    if not os.fork(): time.sleep(5); os._exit(0)",
            {"processes": 8},
        ),
    ],
)
def test_outcome(sandbox: PooledSandbox, outcome: str, code: str, limits: dict[str, float]) -> None:
    result = sandbox.run(python(code, result_channel=True, **{**QUICK, **limits}))
    assert result.outcome == outcome, result
    assert (result.exit_code == 0) == (outcome == "ok")
    assert (result.detail == "") == (outcome == "ok")
    cap = limits.get("output_bytes", 4 * MIB)
    assert max(len(result.stdout), len(result.stderr), len(result.result)) <= cap


def test_output_up_to_the_cap_is_whole_and_beyond_it_cut(sandbox: PooledSandbox) -> None:
    whole = sandbox.run(
        python("import os\nos.write(1, b'a' * 70_000)\nos.write(2, b'b' * 70_000)", output_bytes=70_000)
    )
    assert (whole.outcome, len(whole.stdout), len(whole.stderr)) == ("ok", 70_000, 70_000)
    cut = sandbox.run(python("print('a' * 70_001, end='')", output_bytes=70_000))
    assert (cut.outcome, cut.stdout) == ("output_limit", b"a" * 70_000)


def test_an_unread_or_large_standard_input(sandbox: PooledSandbox) -> None:
    data = os.urandom(3 << 20)
    code = "import sys, hashlib\nprint(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    assert said(sandbox.run(python(code, stdin=data))).strip() == hashlib.sha256(data).hexdigest()
    assert said(sandbox.run(python("print('never read')", stdin=data))) == "never read\n"
    assert said(sandbox.run(python("import sys\nprint(repr(sys.stdin.read()))"))) == "''\n"


def test_files_environment_and_arguments(sandbox: PooledSandbox) -> None:
    code = b"import os, sys, pkg.mod\nprint(sys.argv[1:], os.environ["
    code += b"'COLOUR'], pkg.mod.x, open('data/a.bin', 'rb').read())"
    files = {"main.py": code, "pkg/mod.py": b"x = 7", "data/a.bin": bytes([0, 255])}
    job = Job(argv=("python", "main.py", "a", "b c"), files=files, env={"COLOUR": "red"})
    assert said(sandbox.run(job)) == "['a', 'b c'] red 7 b'\\x00\\xff'\n"


def test_other_programs_than_python_files(sandbox: PooledSandbox) -> None:
    assert said(sandbox.run(Job(argv=("sh", "-c", "echo $((6 * 7))")))) == "42\n"
    assert said(sandbox.run(Job(argv=("python", "-c", "print(6 * 7)")))) == "42\n"
    missing = sandbox.run(Job(argv=("no-such-program",)))
    assert (missing.outcome, missing.exit_code) == ("nonzero_exit", 127)
    assert b"no-such-program" in missing.stderr


def test_a_traceback_is_that_of_an_ordinary_run(sandbox: PooledSandbox) -> None:
    result = sandbox.run(python("def f():\n    return 1 / 0\nf()"))
    assert result.stderr.decode().splitlines()[0] == "Traceback (most recent call last):"
    assert result.stderr.decode().splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert b'File "main.py", line 3, in <module>' in result.stderr
    assert b"supervisor" not in result.stderr
    assert b"job.py" not in result.stderr


def test_the_result_channel_is_there_when_asked_for(sandbox: PooledSandbox) -> None:
    code = "import os\ntry: os.write(3, b'told')\nexcept OSError as e: print(e.strerror)"
    assert sandbox.run(python(code, result_channel=True)).result == b"told"
    assert said(sandbox.run(python(code))) == "Bad file descriptor\n"


def test_a_helper_in_a_world_of_its_own(sandbox: PooledSandbox) -> None:
    helper = Job(
        argv=("python", "h.py"),
        files={
            "h.py": b"import os, sys\nfor line in sys.stdin:\n    os.write(3, str(int(line) ** 2).encode() + b'\\n')\n"
        },
        result_channel=True,
    )
    code = (
        "import os\nos.write(4, b'12\\n')\nprint(os.read(5, 100), os.listdir('.'),"
        " len([n for n in os.listdir('/proc') if n.isdigit()]))"
    )
    job = Job(argv=("python", "main.py"), files={"main.py": code.encode()}, helper=helper)
    result = sandbox.run(job)
    assert said(result) == "b'144\\n' ['main.py'] 2\n"
    assert result.helper is not None


def test_no_namespace_is_shared(sandbox: PooledSandbox) -> None:
    own = (
        "import os\nmine = [os.stat(f'/proc/self/ns/{name}').st_ino for name in ('net', 'ipc', 'uts', 'pid', 'mnt')]\n"
    )
    helper = python(own + "os.write(3, repr(mine).encode()); os.read(0, 1)")
    for _ in range(3):  # program and helper are forked one after the other, and live at the same time
        job = replace(python(own + "print(mine, os.read(5, 1000).decode())"), helper=helper)
        seen = said(sandbox.run(job))
        assert len(set(seen.replace("[", "").replace("]", "").replace(",", "").split())) == 10, seen


def test_a_helper_that_runs_wild_ends_the_job_with_it(sandbox: PooledSandbox) -> None:
    limits = Limits(cpu_seconds=0.5, wall_seconds=30)
    helper = Job(argv=("python", "h.py"), files={"h.py": b"while True: pass"}, limits=limits)
    job = Job(argv=("python", "m.py"), files={"m.py": b"import os\nos.read(5, 1)"}, helper=helper, limits=limits)
    result = sandbox.run(job)
    assert result.helper is not None
    assert result.helper.outcome == "cpu_limit"


def test_measurements(sandbox: PooledSandbox) -> None:
    code = "import time\nx = bytearray(b'x') * (80 << 20)\nend = time.process_time() + 0.4\n"
    code += "while time.process_time() < end: pass\ntime.sleep(0.3)\n"
    result = sandbox.run(python(code))
    assert result.outcome == "ok", result
    assert 0.4 <= result.cpu_seconds < 1.0
    assert result.wall_seconds >= 0.7
    assert 80 * MIB <= result.peak_memory_bytes < 160 * MIB


def test_packages(sandbox: PooledSandbox) -> None:
    code = "import numpy, sympy\nprint(numpy.dot([1, 2], [3, 4]), sympy.factorint(91))"
    assert said(sandbox.run(python(code, cpu_seconds=20, wall_seconds=80))) == "11 {7: 1, 13: 1}\n"


def test_many_short_lived_threads_at_once(sandbox: PooledSandbox) -> None:
    results: dict[int, str] = {}

    def run(number: int) -> None:
        results[number] = said(sandbox.run(python(f"print({number} ** 2)")))

    for first in range(0, 36, 12):
        threads = [threading.Thread(target=run, args=(first + number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {number: f"{number**2}\n" for number in range(36)}
    assert sandbox.replaced <= 12  # by the limits above, not by the end of a thread


def test_workers_outlive_the_thread_that_started_them(request: pytest.FixtureRequest, sandbox: PooledSandbox) -> None:
    before = sandbox.replaced
    for number in range(6):
        thread = threading.Thread(target=lambda: said(sandbox.run(python("print(1)"))))
        thread.start()
        thread.join()
        time.sleep(0.05)
        assert said(sandbox.run(python(f"print({number})"))) == f"{number}\n"
    assert sandbox.replaced == before


FRESH = """
import json, os, random, sys, threading
streams = (sys.stdin.seekable(), sys.stdout.seekable(), sys.stderr.seekable())
own = threading.main_thread().native_id == threading.get_native_id() == os.getpid()
print(json.dumps([random.random(), sorted(os.environ), os.environ["HOME"] == os.getcwd(), streams, own]))
"""


def test_every_job_is_as_if_freshly_started(sandbox: PooledSandbox) -> None:
    seen = [json.loads(said(sandbox.run(python(FRESH)))) for _ in range(4)]
    assert len({number for number, *_ in seen}) == 4  # random numbers of its own
    names = "HOME LANG OMP_NUM_THREADS OPENBLAS_NUM_THREADS PATH PYTHONDONTWRITEBYTECODE PYTHONHASHSEED TMPDIR"
    assert all(rest == [names.split(), True, [True, False, False], True] for _, *rest in seen)
    code = "import os\nprint(sorted(name for name in os.environ if name != 'LC_CTYPE'))"
    executed = Job(argv=("python", "-c", code))  # a new interpreter
    assert said(sandbox.run(executed)) == f"{names.split()}\n"


WRITER = "import io\nout = io.BufferedWriter(io.FileIO(1, 'wb', closefd=False))\n"


@pytest.mark.parametrize(
    "code",
    [
        "out = open('/dev/stdout', 'w')\nout.write('late')",
        WRITER + "out.write(b'late')",
        WRITER + "out.write(b'late')\nround = [out]\nround.append(round)",  # holds itself
        "import atexit, io, sys\nsys.stdout = io.StringIO()\nprint('late', end='')\n"
        "atexit.register(lambda: sys.__stdout__.write(sys.stdout.getvalue()))",
    ],
)
def test_what_stands_in_a_buffer_at_the_end_is_written(sandbox: PooledSandbox, code: str) -> None:
    assert said(sandbox.run(python(code))) == "late"


@pytest.mark.parametrize("backend", ISOLATED)
def test_modules_are_there_for_jobs_that_ask(backend: str) -> None:
    sources = {"first": "import math\nheld = [math.pi]", "second": "import first\nheld = first.held"}
    code = "import first, second\nassert first.held is second.held\nfirst.held.append(1)\nprint(len(second.held))"
    with opened(backend, workers=1, modules=sources) as found:
        for _ in range(2):  # what a job does to them is gone with it
            assert said(found.run(replace(python(code), modules=("first", "second")))) == "2\n"
        result = found.run(replace(python(code), modules=("first",)))
        assert b"No module named 'second'" in result.stderr
        assert b"No module named 'first'" in found.run(python(code)).stderr
        with pytest.raises(SandboxError, match=r"opened with \(first, second\); got \['third'\]"):
            found.run(replace(python(code), modules=("third",)))


@pytest.mark.parametrize("backend", ISOLATED)
def test_a_job_that_is_over_before_it_is_watched(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = "\nopen_at_once = os.pidfd_open\nos.pidfd_open = lambda pid: (time.sleep(0.3), open_at_once(pid))[1]\n"
    sources = [[name, source + slow * (name == "supervisor")] for name, source in worker_module.guest_sources()]
    monkeypatch.setattr(worker_module, "guest_sources", lambda: sources)
    with opened(backend, workers=1) as found:
        for code, outcome in (("print(1)", "ok"), ("import sys\nsys.exit(3)", "nonzero_exit")):
            result = found.run(python(code))
            assert result.outcome == outcome, result
        assert said(found.run(python("print(2)"))) == "2\n"
        assert found.replaced == 0


def test_coroutines(sandbox: PooledSandbox) -> None:
    async def all_at_once() -> list[JobResult]:
        return await asyncio.gather(*(sandbox.run_async(python(f"print({number})")) for number in range(20)))

    results = asyncio.run(all_at_once())
    assert [said(result) for result in results] == [f"{number}\n" for number in range(20)]


def test_waiting_for_a_place_is_not_the_jobs_time(sandbox: PooledSandbox) -> None:
    job = python("import time\ntime.sleep(0.6)", wall_seconds=2.5)

    async def six() -> list[JobResult]:
        return await asyncio.gather(*(sandbox.run_async(job) for _ in range(6)))

    results = asyncio.run(six())
    assert {result.outcome for result in results} == {JobOutcome.OK}
    assert max(result.queue_seconds for result in results) > 1.0
    assert all(0.6 <= result.wall_seconds < 2.5 for result in results)


def test_a_job_lost_with_its_worker_runs_again(sandbox: PooledSandbox) -> None:
    killed = threading.Event()

    def kill_the_busy_one() -> None:
        while not killed.is_set():
            for worker in list(sandbox._busy):
                worker.process.kill()
                killed.set()
            time.sleep(0.05)

    thread = threading.Thread(target=kill_the_busy_one)
    thread.start()
    before = sandbox.replaced
    assert said(sandbox.run(python("import time\ntime.sleep(1)\nprint('here')"))) == "here\n"
    thread.join()
    assert sandbox.replaced == before + 1


def test_closed_means_closed() -> None:
    found = opened("bubblewrap", workers=1)
    found.close()
    found.close()
    with pytest.raises(RuntimeError, match="closed"):
        found.run(python("print(1)"))
