"""Attempts to escape or evade a limit, each with honest programs that the countermeasure must not hurt."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import JobOutcome
from sandbox.guest import kernel
from sandbox.pool import PooledSandbox
from tests.backends import ISOLATED, containers, opened, python, said
from verifiers import Verifier, get_verifier
from verifiers.verdict import JSON

pytestmark = pytest.mark.integration
MIB = 1 << 20
DEAD_LEADER = """
import ctypes, os, threading, time
EXIT = 60 if os.uname().machine == "x86_64" else 93
def hold():
    kept = []
    for number in range({mib}):
        kept.append(bytearray(b"x") * (1 << 20))
        number % 50 or time.sleep(0.01)
    time.sleep({seconds})
    os.write(1, b"done")
    os._exit(0)
{before}
threading.Thread(target=hold).start()
ctypes.CDLL(None).syscall(EXIT, 0)
"""


@pytest.fixture(scope="module", params=ISOLATED)
def sandbox(request: pytest.FixtureRequest) -> Iterator[PooledSandbox]:
    with opened(request.param, workers=2) as found:
        yield found


@pytest.mark.parametrize(
    ("mib", "before", "limit"),
    [
        (900, "", 64),
        (300, "os.fork(); os.fork()", 256),  # together
        (500, "for _ in range(3): os.fork() and os._exit(0)", 256),  # an orphan
    ],
)
def test_memory_is_seen_when_the_main_thread_is_gone(sandbox: PooledSandbox, mib: int, before: str, limit: int) -> None:
    code = DEAD_LEADER.format(mib=mib, before=before, seconds=1.5)
    result = sandbox.run(python(code, memory_bytes=limit * MIB))
    assert result.stdout == b""
    if "_exit" not in before:  # there its parent's end ends it
        assert result.outcome is JobOutcome.MEMORY_LIMIT


def test_memory_that_was_held_between_two_looks_is_seen_at_the_end(sandbox: PooledSandbox) -> None:
    code = "import mmap\nm = mmap.mmap(-1, 90 << 20, flags=2 | 32 | 0x8000)\nprint('quick')\nimport os; os._exit(0)"
    assert sandbox.run(python(code, memory_bytes=64 * MIB)).outcome is JobOutcome.MEMORY_LIMIT  # MAP_POPULATE


@pytest.mark.parametrize("mib", [40, 480])
def test_honest_memory_up_to_the_limit(sandbox: PooledSandbox, mib: int) -> None:
    code = f"x = bytearray(b'x') * ({mib} << 20)\nprint(len(x) >> 20)"
    assert said(sandbox.run(python(code, memory_bytes=(mib + 24) * MIB))) == f"{mib}\n"
    code = DEAD_LEADER.format(mib=mib // 2, before="", seconds=0.2)
    assert said(sandbox.run(python(code, memory_bytes=(mib + 24) * MIB))) == "done"


def test_the_container_holds_the_limit_of_its_job() -> None:
    others = set(containers({os.getpid()}))
    with opened("docker", workers=1) as found:
        for limit in (64, 512, 64):
            said(found.run(python("print(1)", memory_bytes=limit * MIB)))
            (mine,) = (one for name, one in containers({os.getpid()}).items() if name not in others)
            assert mine["HostConfig"]["Memory"] >> 20 == limit + 160  # the supervisor's part, and a folder's
        assert found.replaced == 0


STANDING_BACK = {
    "in the idle class": "import os, time\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
    "while True: time.sleep(0.0001)",
    "in the idle class, yielding": "import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
    "while True: os.sched_yield()",
    "nice": "import os, time\nos.nice(19)\nwhile True: time.sleep(0.0001)",
    "its session": "import time\ntry: open('/proc/self/autogroup', 'w').write('19')\nexcept OSError: pass\n"
    "while True: time.sleep(0.0001)",
    "its threads": "import os, threading, time\nos.nice(15)\ndef f():\n    while True: time.sleep(0.001)\n"
    "for _ in range(8): threading.Thread(target=f).start()",
}


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Start this number of endless programs in addition, each in its own session."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command, start_new_session=True) for _ in range(processes)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


@pytest.mark.parametrize("code", STANDING_BACK.values(), ids=list(STANDING_BACK))
def test_who_stands_back_of_its_own_accord_is_not_starved(sandbox: PooledSandbox, code: str) -> None:
    with busy(os.cpu_count() or 1):
        result = sandbox.run(python(code, cpu_seconds=0.8, wall_seconds=3.2))
    assert result.outcome in (JobOutcome.WALL_TIMEOUT, JobOutcome.CPU_LIMIT), result
    assert result.wall_seconds < 6.4  # it did not run again


@pytest.mark.parametrize("code", ["while True: pass", "import os\nfor _ in range(2): os.fork()\nwhile True: pass"])
def test_an_endless_loop_is_over_its_cpu_limit_on_a_crowded_machine_too(sandbox: PooledSandbox, code: str) -> None:
    with busy(4 * (os.cpu_count() or 1)):
        assert sandbox.run(python(code, cpu_seconds=0.8, wall_seconds=3.2)).outcome is JobOutcome.CPU_LIMIT


UNWAITED = {
    "ignored": "import os, signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    "while True:\n    try: os.posix_spawn('/proc/self/exe', ['python', '-c', ''], {})\n    except OSError: pass",
    "orphans": "import os\nwhile True:\n    pid = os.fork()\n    if not pid:\n"
    "        if not os.fork(): sum(range(10**5))\n        os._exit(0)\n    os.waitpid(pid, 0)",
}
WAITED = (
    "import os\nfor _ in range(40):\n    pid = os.fork()\n    if not pid:\n"
    "        while sum(os.times()[:2]) < 0.02: pass\n        os._exit(0)\n    os.waitpid(pid, 0)\nprint('done')"
)


@pytest.mark.parametrize("code", UNWAITED.values(), ids=list(UNWAITED))
def test_children_that_nobody_waits_for_count(sandbox: PooledSandbox, code: str) -> None:
    if kernel.cpu_clock(os.getpid()) is None:
        pytest.skip("this kernel keeps its clocks to itself: sysctl kernel.perf_event_paranoid=2")
    result = sandbox.run(python(code, cpu_seconds=0.8, wall_seconds=30))
    assert result.outcome is JobOutcome.CPU_LIMIT, result


def test_children_that_are_waited_for_count_once(sandbox: PooledSandbox) -> None:
    result = sandbox.run(python(WAITED, cpu_seconds=1.6, wall_seconds=30))
    assert said(result) == "done\n"
    assert 0.6 < result.cpu_seconds < 1.4


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.nice(5)\nprint(sum(range(10**5)))",
        "import os\nfor _ in range(2000): os.sched_yield()\nprint(sum(range(10**5)))",
        "import os\nos.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))\nprint(sum(range(10**5)))",
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(20) as e:\n"
        "    print(max(e.map(lambda n: sum(range(10**5)), range(40))))",
    ],
    ids=["nice", "yields", "batch", "threads"],
)
def test_honest_programs_that_touch_the_scheduler(sandbox: PooledSandbox, code: str) -> None:
    assert said(sandbox.run(python(code, cpu_seconds=5, wall_seconds=60))) == "4999950000\n"


SHARED = ("/opt/python/lib/python3.11/os.py", "/proc/self/exe", "/usr", "/etc/passwd", "/dev/null", "/dev/zero", "/")
LOCKS = f"""
import fcntl, os, struct, sys, time
os_file = os.__file__
said = []
for path in (os_file, *{SHARED[1:]!r}):
    fd = os.open(path, os.O_RDONLY)
    for lock in (fcntl.LOCK_EX, fcntl.LOCK_SH):
        try: fcntl.flock(fd, lock | fcntl.LOCK_NB); said.append((path, lock))
        except OSError: pass
    ask = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0)
    said.append((path, struct.unpack("hhqqi", fcntl.fcntl(fd, fcntl.F_GETLK, ask))[0]))
    fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack("hhqqi", fcntl.F_RDLCK, 0, 0, 0, 0))
print(said)
sys.stdout.flush()
time.sleep(float(sys.stdin.read()))
"""
WATCH = """
import ctypes, fcntl, os, time
libc = ctypes.CDLL(None)
print(libc.inotify_init1(0), libc.inotify_init())
try: fcntl.fcntl(os.open(os.path.dirname(os.__file__), os.O_RDONLY), fcntl.F_NOTIFY, 0x80000001); print("watched")
except OSError: print("refused")
"""


def test_locks_tell_nothing_of_other_jobs(sandbox: PooledSandbox) -> None:
    alone = said(sandbox.run(python(LOCKS, stdin=b"0")))
    beside: list[str] = []
    thread = threading.Thread(target=lambda: beside.append(said(sandbox.run(python(LOCKS, stdin=b"2")))))
    thread.start()
    time.sleep(1.0)
    assert said(sandbox.run(python(LOCKS, stdin=b"0"))) == alone
    thread.join()
    assert beside == [alone]


def test_nothing_can_be_watched(sandbox: PooledSandbox) -> None:
    assert said(sandbox.run(python(WATCH))) == "-1 -1\nrefused\n"


def test_a_programs_own_locks_work(sandbox: PooledSandbox) -> None:
    code = "import fcntl, sqlite3\na, b = open('x', 'w'), open('x')\nfcntl.flock(a, fcntl.LOCK_EX)\n"
    code += "try: fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)\nexcept BlockingIOError: print('held')\n"
    code += "c = sqlite3.connect('d'); c.execute('create table t(x)'); c.commit(); print('kept')"
    assert said(sandbox.run(python(code))) == "held\nkept\n"


ROW: JSON = {"entry_point": "f", "calls": [{"args": [3], "expected": 10}]}
GRADE = """
import sys, threading, time
from verifiers import GradingRow, get_verifier
verifier = get_verifier("code", sandbox=sys.argv[1], block="whole", workers=2)
reference = {"entry_point": "f", "calls": [{"args": [3], "expected": 10}]}
def grade():
    time.sleep(0.5)
    rows = [GradingRow(completion=f"def f(x): return {value}", reference=reference) for value in (10, 11)]
    print(*(verdict.outcome for verdict in [*verifier.grade_batch(rows[:1]), *verifier.grade_batch(rows)]))
threading.Thread(target=grade).start()
"""


@pytest.mark.parametrize("backend", ISOLATED)
def test_a_thread_grades_when_the_main_thread_has_ended(backend: str) -> None:
    opened(backend, workers=1).close()
    done = subprocess.run([sys.executable, "-c", GRADE, backend], capture_output=True, text=True, timeout=120)
    assert done.stdout == "correct correct incorrect\n", done.stderr


@pytest.mark.parametrize("flag", ["-f 1000", "-n 40", "-u 20"])
def test_a_ulimit_around_bubblewrap_is_named_before_the_first_row(flag: str) -> None:
    opened("bubblewrap", workers=1).close()
    script = "from verifiers import get_verifier\nget_verifier('code', sandbox='bubblewrap')"
    command = f'ulimit {flag} && exec {sys.executable} -c "{script}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert f"`ulimit {flag[:2]}` allows" in done.stderr.splitlines()[-1]


@pytest.fixture
def small_group(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Make a version 1 control group with one limit, given by the parameter."""
    kind, file, value = request.param
    folder = Path("/sys/fs/cgroup", kind, f"reasoner-test-{os.getpid()}")
    try:
        folder.mkdir()
        (folder / file).write_text(value)
    except OSError as error:
        pytest.skip(f"no control group of our own can be made here: {error}")
    yield folder
    for _ in range(50):
        try:
            folder.rmdir()
            return
        except OSError:
            time.sleep(0.1)


IN_A_GROUP = """
import sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text("0")
from sandbox import SandboxUnavailable, bubblewrap
from verifiers import get_verifier
try: get_verifier("code", sandbox="bubblewrap")
except SandboxUnavailable as error: print(error)
bubblewrap.shortages = lambda limits: []  # a group that becomes too small later
verifier = get_verifier("code", sandbox="bubblewrap", block="whole")
row = {"entry_point": "f", "calls": [{"args": [3], "expected": 10}]}
for code in sys.argv[2:]:
    verdict = verifier.verify(completion=code, reference=row)
    print(verdict.outcome, verdict.reason)
"""
BIG = "def f(x):\n    b = bytearray(b'x') * (400 << 20)\n    return x * x + 1"
THREADS = "from concurrent.futures import ThreadPoolExecutor\nimport time\ndef f(x):\n"
THREADS += (
    "    with ThreadPoolExecutor(12) as e: list(e.map(lambda n: time.sleep(0.3), range(12)))\n    return x * x + 1"
)


@pytest.mark.parametrize(
    ("small_group", "code", "said_of_it"),
    [
        (("memory", "memory.limit_in_bytes", "300000000"), BIG, "killed a process for lack of memory"),
        (("pids", "pids.max", "18"), THREADS, "refused it another process"),
    ],
    indirect=["small_group"],
    ids=["memory", "processes"],
)
def test_a_small_control_group_is_named_and_no_programs_fault(small_group: Path, code: str, said_of_it: str) -> None:
    opened("bubblewrap", workers=1).close()
    command = [sys.executable, "-c", IN_A_GROUP, str(small_group), "def f(x): return x * x + 1", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    refused, honest, pressed = done.stdout.splitlines()
    assert "the control group of this process" in refused
    assert honest.startswith("correct")
    assert pressed.startswith("verifier_error")
    assert said_of_it in pressed


@pytest.fixture(scope="module", params=ISOLATED)
def verifier(request: pytest.FixtureRequest) -> Verifier:
    opened(request.param, workers=1).close()
    return get_verifier("code", sandbox=request.param, block="whole")


@pytest.mark.parametrize("part", ["[],", "{},", '"",', '[]]}\\n{"i":0,"value":['])
def test_a_flooded_result_channel_is_only_wrong(verifier: Verifier, part: str) -> None:
    code = f"import os\ndata = b'{{\"i\":0,\"value\":[' + b'{part}' * (15_000_000 // len(b'{part}')) + b'1]}}\\n'\n"
    code += "with open(3, 'wb') as channel: channel.write(data)\nos._exit(0)"
    verdict = verifier.verify(completion=code, reference=ROW)
    assert verdict.reward == 0, verdict


def test_a_large_honest_value_is_right(verifier: Verifier) -> None:
    expected: JSON = list(range(100_000))
    row: JSON = {"entry_point": "f", "calls": [{"args": [100_000], "expected": expected}]}
    assert verifier.verify(completion="def f(n): return list(range(n))", reference=row).outcome == "correct"
    lines = "".join(f"{number}\n" for number in range(300_000))
    printed: JSON = {"cases": [{"input": "", "output": lines}]}
    honest = "print(*range(300_000), sep='\\n', end='\\n\\n\\n')"
    assert verifier.verify(completion=honest, reference=printed).outcome == "correct"


def test_control_characters_of_a_program_reach_no_reason(verifier: Verifier) -> None:
    code = "def f(x): raise ValueError('\\x1b]0;owned\\x07\\x1b[2J\\r\\u202e\\x00\\ud800 PASSED\\nall tests pass')"
    verdict = verifier.verify(completion=code, reference=ROW)
    assert verdict.outcome == "incorrect"
    assert verdict.reason.isprintable(), ascii(verdict.reason)
    assert "owned" in verdict.reason
