"""Programs that try to break out, wear out, or leave something behind: run them against this machine's sandbox.

A program that gets what it wants prints BREACH. Where something may have been left behind, a second program looks for
it in the next job of the same worker. After every attack an honest job has to pass.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sandbox.api import MIB, Job, JobOutcome, Limits, Sandbox

ATTACK_LIMITS = Limits(cpu_seconds=2.0, wall_seconds=6.0, memory_bytes=256 * MIB)
HONEST_LIMITS = Limits(cpu_seconds=10.0, wall_seconds=40.0, memory_bytes=512 * MIB)
CANARY = "import os\nprint(sorted(os.listdir('/work')), sorted(os.listdir('/tmp')), 6 * 7)\n"
CANARY_SAYS = b"['main.py'] [] 42\n"


@dataclass(frozen=True, slots=True)
class Attack:
    """One program, what it is after, and how it may end."""

    name: str
    kind: str
    code: str
    probe: str = ""
    """Run as the next job: prints BREACH where the attack left something."""
    outcome: JobOutcome | None = None
    """How it has to end; None where only a breach matters."""


@dataclass(frozen=True, slots=True)
class Honest:
    """An ordinary program that a sandbox must not get in the way of."""

    name: str
    code: str
    stdout: bytes | None = None
    package: str = ""
    """Importable package that it needs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one of them."""

    name: str
    kind: str
    passed: bool
    detail: str
    seconds: float


def _tried(body: str, indent: str = "    ") -> str:
    """Code that prints BREACH when all of it worked."""
    lines = "\n".join(indent + line for line in body.strip().splitlines())
    return f"import os, sys, socket, ctypes, struct\nlibc = ctypes.CDLL(None, use_errno=True)\ntry:\n{lines}\n{indent}print('BREACH')\nexcept BaseException as error:\n    print('held:', type(error).__name__, error)\n"


def _call(expression: str) -> str:
    """Code that prints BREACH when a C call does not fail."""
    return _tried(f"assert {expression} >= 0, os.strerror(ctypes.get_errno())")


ATTACKS: tuple[Attack, ...] = (
    # exhaustion
    Attack("cpu-spin", "exhaustion", "while True: pass", outcome=JobOutcome.CPU_LIMIT),
    Attack(
        "cpu-many-processes",
        "exhaustion",
        "import os\nfor _ in range(4): os.fork()\nwhile True: pass",
        outcome=JobOutcome.CPU_LIMIT,
    ),
    Attack("sleep-forever", "exhaustion", "import time\ntime.sleep(1e6)", outcome=JobOutcome.WALL_TIMEOUT),
    Attack(
        "ignore-signals",
        "exhaustion",
        "import signal, time\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
        "while True: time.sleep(1)",
        outcome=JobOutcome.WALL_TIMEOUT,
    ),
    Attack(
        "memory-balloon",
        "exhaustion",
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
        outcome=JobOutcome.MEMORY_LIMIT,
    ),
    Attack(
        "memory-many-processes",
        "exhaustion",
        "import os, time\nfor _ in range(5): os.fork()\nx = bytearray(b'x' * (32 << 20))\ntime.sleep(30)",
        outcome=JobOutcome.MEMORY_LIMIT,
    ),
    Attack(
        "shared-memory-balloon",
        "exhaustion",
        "import mmap\nkept = []\nwhile True:\n    m = mmap.mmap(-1, 16 << 20)\n    m.write(b'x' * (16 << 20))\n    kept.append(m)",
        outcome=JobOutcome.MEMORY_LIMIT,
    ),
    Attack("fork-bomb", "exhaustion", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"),
    Attack(
        "thread-bomb",
        "exhaustion",
        "import threading, time\nn = 0\ntry:\n    while True:\n        threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); n += 1\n"
        "except RuntimeError: pass\nprint('BREACH' if n > 1000 else n)\nimport os; os._exit(0)",
    ),
    Attack("stdout-flood", "exhaustion", "import os\nwhile True: os.write(1, b'x' * 65536)", outcome=JobOutcome.OUTPUT_LIMIT),
    Attack("stderr-flood", "exhaustion", "import os\nwhile True: os.write(2, b'x' * 65536)", outcome=JobOutcome.OUTPUT_LIMIT),
    Attack("result-flood", "exhaustion", "import os\nwhile True: os.write(3, b'x' * 65536)", outcome=JobOutcome.OUTPUT_LIMIT),
    Attack(
        "disk-fill",
        "exhaustion",
        "import os\ntotal = 0\nfor folder in ('/work', '/tmp', '/dev/shm'):\n    for i in range(10000):\n        try:\n"
        "            with open(f'{folder}/{i}', 'wb') as f: total += f.write(b'x' * (1 << 20))\n        except OSError: break\n"
        "print('BREACH' if total > 400 << 20 else total)",
    ),
    Attack("one-huge-file", "exhaustion", _tried("f = open('/tmp/huge', 'wb'); f.truncate(1 << 40)")),
    Attack(
        "inode-fill",
        "exhaustion",
        "n = 0\ntry:\n    for n in range(200000): open(f'/tmp/{n}', 'w').close()\nexcept OSError: pass\nprint('BREACH' if n > 100000 else n)",
    ),
    Attack("descriptor-fill", "exhaustion", _tried("kept = [os.pipe() for _ in range(5000)]")),
    Attack("memfd-hoard", "exhaustion", _tried("os.memfd_create('hoard')")),
    Attack("compile-bomb", "exhaustion", "compile('(' * 100 + '-' * 10000000 + '1', 'x', 'eval')"),
    Attack("huge-int", "exhaustion", "x = 9 ** 9 ** 9", outcome=JobOutcome.CPU_LIMIT),
    Attack("recursion", "exhaustion", "import sys\nsys.setrecursionlimit(10 ** 9)\nf = lambda: f()\nf()"),
    # escape
    Attack("mount", "escape", _call("libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)")),
    Attack("unmount-proc", "escape", _call("libc.umount2(b'/proc', 2)")),
    Attack("new-user-namespace", "escape", _call("libc.unshare(0x10000000)")),
    Attack("new-namespaces", "escape", _call("libc.unshare(0x20000000 | 0x00020000 | 0x40000000)")),
    Attack("enter-namespace-of-init", "escape", _tried("f = os.open('/proc/1/ns/mnt', os.O_RDONLY)\nassert libc.setns(f, 0) == 0")),
    Attack("chroot", "escape", _tried("os.chroot('/tmp')")),
    Attack("become-root", "escape", _tried("os.setuid(0)")),
    Attack(
        "root-through-setuid-file",
        "escape",
        _tried("import shutil\nshutil.copy(os.path.realpath(sys.executable), '/tmp/p')\nos.chown('/tmp/p', 0, 0)\nos.chmod('/tmp/p', 0o4755)"),
    ),
    Attack("ptrace-init", "escape", _call("libc.ptrace(16, 1, 0, 0)")),
    Attack("memory-of-init", "escape", _tried("open('/proc/1/mem', 'rb').read(1)")),
    Attack("environment-of-init", "escape", _tried("assert open('/proc/1/environ', 'rb').read()")),
    Attack("root-of-init", "escape", _tried("assert os.listdir('/proc/1/root')")),
    Attack("kill-everything", "escape", "import os\nos.kill(-1, 9)\nprint('alive')"),
    Attack("kill-init", "escape", "import os, time\ntry: os.kill(1, 9)\nexcept OSError: pass\ntime.sleep(0.2)\nos.kill(os.getpid(), 0)\nprint('alive')"),
    Attack("keyring", "escape", _call("libc.syscall(248, b'user', b'name', b'secret', 6, -3)")),
    Attack("bpf", "escape", _call("libc.syscall(321, 0, 0, 0)")),
    Attack("io-uring", "escape", _call("libc.syscall(425, 8, ctypes.create_string_buffer(256))")),
    Attack("userfaultfd", "escape", _call("libc.syscall(323, 0)")),
    Attack("perf-event", "escape", _call("libc.syscall(298, ctypes.create_string_buffer(128), 0, -1, -1, 0)")),
    Attack("open-by-handle", "escape", _call("libc.syscall(304, -100, ctypes.create_string_buffer(128), 0)")),
    Attack("device-node", "escape", _tried("os.mknod('/tmp/disk', 0o60666, os.makedev(8, 0))")),
    Attack("raise-own-limits", "escape", _tried("import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (100000, 100000))")),
    Attack("x32-system-call", "escape", _call("libc.syscall(0x40000000 | 165, b'none', b'/tmp', b'tmpfs', 0, 0)")),
    Attack("core-pattern", "escape", _tried("open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x')")),
    Attack("sysrq", "escape", _tried("open('/proc/sysrq-trigger', 'w').write('h')")),
    Attack("cgroup-write", "escape", _tried("open('/sys/fs/cgroup/memory/memory.limit_in_bytes', 'w').write('-1')")),
    # network
    Attack("tcp-out", "network", _tried("socket.create_connection(('1.1.1.1', 80), 2)")),
    Attack("udp-out", "network", _tried("s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.sendto(b'x', ('8.8.8.8', 53))")),
    Attack("name-lookup", "network", _tried("socket.getaddrinfo('example.com', 80)")),
    Attack("bridge-neighbour", "network", _tried("socket.create_connection(('172.17.0.1', 22), 2)")),
    Attack("vsock", "network", _tried("socket.socket(40, socket.SOCK_STREAM)")),
    Attack("netlink", "network", _tried("socket.socket(16, socket.SOCK_RAW)")),
    Attack("raw-socket", "network", _tried("socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)")),
    Attack("docker-socket", "network", _tried("s = socket.socket(socket.AF_UNIX)\ns.connect('/var/run/docker.sock')")),
    # host reads
    Attack("read-shadow", "host", _tried("assert open('/etc/shadow').read()")),
    Attack("read-home", "host", _tried("assert os.listdir('/root') or os.listdir('/home')")),
    Attack("other-processes", "host", "import os\npids = [n for n in os.listdir('/proc') if n.isdigit()]\nprint('BREACH' if len(pids) > 2 else pids)"),
    Attack(
        "inherited-descriptors",
        "host",
        "import os\nopen_fds = sorted(int(n) for n in os.listdir('/proc/self/fd'))\nprint('BREACH' if max(open_fds[:-1]) > 3 else open_fds)",
    ),
    Attack("write-interpreter", "host", _tried("open(os.__file__, 'a').write('#')")),
    Attack("write-root", "host", _tried("open('/x', 'w').write('x')")),
    # left behind for the next job
    Attack("leave-files", "persistence", "for d in ('/work', '/tmp', '/dev/shm'): open(d + '/left', 'w').write('x')",
           probe="import os\nprint('BREACH' if any(os.path.exists(d + '/left') for d in ('/work', '/tmp', '/dev/shm')) else '')"),
    Attack("leave-in-dev", "persistence", "try: open('/dev/left', 'w').write('x')\nexcept OSError: pass",
           probe="import os\nprint('BREACH' if os.path.exists('/dev/left') else '')"),
    Attack("leave-module", "persistence", "import json, re\njson.dumps = re.compile = None\nimport builtins\nbuiltins.print = lambda *a: None",
           probe="import json, re\nprint('BREACH' if json.dumps is None or re.compile is None else '')"),
    Attack("leave-sysv-memory", "persistence", "import ctypes\nctypes.CDLL(None).shmget(0x1234, 4096, 0o1666)",
           probe="import ctypes\nprint('BREACH' if ctypes.CDLL(None).shmget(0x1234, 4096, 0) >= 0 else '')"),
    Attack("leave-sysv-semaphore", "persistence", "import ctypes\nctypes.CDLL(None).semget(0x1234, 1, 0o1666)",
           probe="import ctypes\nprint('BREACH' if ctypes.CDLL(None).semget(0x1234, 1, 0) >= 0 else '')"),
    Attack("leave-message-queue", "persistence", "import os\ntry: open('/dev/mqueue/left', 'w')\nexcept OSError: pass",
           probe="import os\nprint('BREACH' if os.path.exists('/dev/mqueue/left') else '')"),
    Attack("leave-daemon", "persistence",
           "import os, time\nif not os.fork():\n    os.setsid()\n    if os.fork(): os._exit(0)\n    os.closerange(0, 10)\n    time.sleep(3600)\n",
           probe="import os\nprint('BREACH' if len([n for n in os.listdir('/proc') if n.isdigit()]) > 2 else '')"),
    Attack("leave-abstract-socket", "persistence",
           "import os, socket, time\nif not os.fork():\n    s = socket.socket(socket.AF_UNIX); s.bind('\\0left'); s.listen()\n    os.closerange(0, 3)\n    time.sleep(60)\ntime.sleep(0.2)",
           probe="import socket\ns = socket.socket(socket.AF_UNIX)\ntry:\n    s.connect('\\0left')\n    print('BREACH')\nexcept OSError: pass"),
    Attack("memory-of-earlier-job", "persistence", "x = ['ZQ7' * 40 + str(i) for i in range(1000)]\nprint(x)",
           probe="needle = bytes([90, 81, 55]) * 30\nfound = 0\nfor line in open('/proc/self/maps'):\n"
                 "    a, b = (int(x, 16) for x in line.split()[0].split('-'))\n"
                 "    if line.split()[1][0] != 'r' or '[v' in line: continue\n"
                 "    with open('/proc/self/mem', 'rb', 0) as f:\n        try:\n            f.seek(a); data = f.read(b - a)\n"
                 "        except (OSError, ValueError, OverflowError): continue\n    found += data.count(needle)\n"
                 "print('BREACH' if found > 40 else found)"),
)  # fmt: skip

HONEST: tuple[Honest, ...] = (
    Honest("a-megabyte-of-output", "import sys\nsys.stdout.write('x' * 1_000_000)", b"x" * 1_000_000),
    Honest("200-megabytes", "x = bytearray(b'x') * (200 << 20)\nprint(len(x))", b"209715200\n"),
    Honest(
        "threads",
        "import threading\nout = []\nts = [threading.Thread(target=out.append, args=(i,)) for i in range(16)]\n"
        "[t.start() for t in ts]; [t.join() for t in ts]\nprint(sum(out))",
        b"120\n",
    ),
    Honest(
        "subprocess",
        "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'print(6*7)'], capture_output=True, text=True).stdout, end='')",
        b"42\n",
    ),
    Honest(
        "multiprocessing",
        "import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n    c = m.get_context('fork')\n    q = c.SimpleQueue()\n"
        "    p = c.Process(target=lambda: q.put(f(7))); p.start(); print(q.get()); p.join()",
        b"49\n",
    ),
    Honest("files", "open('/tmp/a', 'w').write('x' * 1000)\nopen('b', 'w').write('y')\nprint(len(open('/tmp/a').read()))", b"1000\n"),
    Honest("standard-input", "import sys\nprint(len(sys.stdin.read()))", b"0\n"),
    Honest("deep-recursion", "import sys\nsys.setrecursionlimit(200000)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(100000))", b"100000\n"),
    Honest("exit-hooks", "import atexit\natexit.register(print, 'bye')\nprint('hi')", b"hi\nbye\n"),
    Honest("numpy", "import numpy\nprint(int(numpy.arange(10).sum()))", b"45\n", package="numpy"),
)


def try_attack(sandbox: Sandbox, attack: Attack) -> Finding:
    """Run one attack, the look for its traces, and an honest job."""
    started = time.monotonic()
    result = sandbox.run(_job(attack.code, ATTACK_LIMITS, result_channel=True))
    trouble: list[str] = []
    if b"BREACH" in result.stdout:
        trouble.append(f"it got through: {result.stdout[-200:]!r}")
    if attack.outcome is not None and result.outcome is not attack.outcome:
        trouble.append(f"it ended as {result.outcome}, not {attack.outcome} ({result.detail})")
    if result.outcome is JobOutcome.INFRASTRUCTURE_FAULT:
        trouble.append(f"the sandbox broke: {result.detail}")
    overrun = result.wall_seconds - ATTACK_LIMITS.wall_seconds
    if overrun > 2.0:
        trouble.append(f"it ran {overrun:.1f} s past its limit")
    if attack.probe:
        traces = sandbox.run(_job(attack.probe, ATTACK_LIMITS))
        if b"BREACH" in traces.stdout or traces.outcome is not JobOutcome.OK:
            trouble.append(f"it left something behind: {traces.outcome} {traces.stderr[-200:]!r}")
    canary = sandbox.run(_job(CANARY, HONEST_LIMITS))
    if canary.stdout != CANARY_SAYS:
        trouble.append(f"an honest job after it: {canary.outcome} {canary.stdout[-200:]!r} {canary.stderr[-200:]!r}")
    detail = "; ".join(trouble) or f"{result.outcome}"
    return Finding(attack.name, attack.kind, not trouble, detail, time.monotonic() - started)


def try_honest(sandbox: Sandbox, honest: Honest) -> Finding:
    """Run one ordinary program."""
    started = time.monotonic()
    result = sandbox.run(_job(honest.code, HONEST_LIMITS))
    passed = result.outcome is JobOutcome.OK and (honest.stdout is None or result.stdout == honest.stdout)
    detail = "ok" if passed else f"{result.outcome} {result.detail} {result.stdout[-100:]!r} {result.stderr[-300:]!r}"
    return Finding(honest.name, "honest", passed, detail, time.monotonic() - started)


def check(sandbox: Sandbox, *, packages: Iterable[str] = ()) -> Iterator[Finding]:
    """Every honest program and every attack, one finding each."""
    have = set(packages)
    for honest in HONEST:
        if not honest.package or honest.package in have:
            yield try_honest(sandbox, honest)
    for attack in ATTACKS:
        yield try_attack(sandbox, attack)


def _job(code: str, limits: Limits, *, result_channel: bool = False) -> Job:
    return Job(argv=("python", "main.py"), files={"main.py": code.encode()}, limits=limits, result_channel=result_channel)
