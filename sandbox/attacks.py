"""Attack programs that try to break out of the sandbox, exhaust it or leave something behind, run on this machine.

The programs are in attacks.toml. A successful one prints BREACH. If an attack may leave something behind, a second
program looks for it in the worker's next job. After every attack an honest job has to pass.
"""

from __future__ import annotations

import platform
import re
import time
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from textwrap import indent
from typing import Any

from sandbox.api import MIB, Job, JobOutcome, Limits, Sandbox

ATTACK_LIMITS = Limits(cpu_seconds=1.0, wall_seconds=20.0, memory_bytes=256 * MIB)
SLEEPER_LIMITS = replace(ATTACK_LIMITS, wall_seconds=3.0)
HONEST_LIMITS = Limits(cpu_seconds=10.0, wall_seconds=40.0, memory_bytes=512 * MIB)
CANARY = "import os\nprint(sorted(os.listdir('.')), sorted(os.listdir('/tmp')), 6 * 7)\n"
CANARY_SAYS = b"['main.py'] [] 42\n"
OVERRUN_SECONDS = 2.0
"""Most seconds after its wall limit at which a killed attack may end, on a busy machine."""

ATTEMPT = """\
import ctypes, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def succeeds(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
try:
{body}
    print('BREACH')
except BaseException as error:
    print('held:', type(error).__name__, error)
"""
BROKEN = re.compile(
    rb"^held: (NameError|AttributeError|TypeError|ImportError|ModuleNotFoundError|SyntaxError)|^  File "
)


@dataclass(frozen=True, slots=True)
class Attack:
    """Attack program, its kind, and the outcome that it must have."""

    name: str
    kind: str
    code: str
    probe: str = ""
    """Program for the next job, which prints BREACH if the attack left something; empty: none."""
    outcome: JobOutcome | None = None
    """Required outcome; None: any, without a breach."""
    breaches_host: bool = False
    """True: harmless, and prints BREACH without a sandbox, which shows that the suite can detect a breach."""


@dataclass(frozen=True, slots=True)
class Honest:
    """Ordinary program that must run unhindered."""

    name: str
    code: str
    stdout: bytes
    package: str = ""
    """Distribution that it needs besides the standard library; empty: none."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one program."""

    name: str
    kind: str
    passed: bool
    detail: str
    seconds: float


@cache
def attacks() -> tuple[Attack, ...]:
    """Return the attacks of the manifest, in order; those that use system-call numbers only on x86_64."""
    return tuple(
        Attack(
            name=entry["name"],
            kind=entry["kind"],
            code=entry.get("code") or ATTEMPT.format(body=indent(entry["attempt"].strip(), "    ")),
            probe=entry.get("probe", ""),
            outcome=JobOutcome(entry["outcome"]) if "outcome" in entry else None,
            breaches_host=entry.get("breaches_host", False),
        )
        for entry in _manifest()["attack"]
        if platform.machine() == "x86_64" or "syscall(" not in entry.get("code", "") + entry.get("attempt", "")
    )


@cache
def honest_programs() -> tuple[Honest, ...]:
    """Return the ordinary programs of the manifest."""
    return tuple(
        Honest(
            name=entry["name"],
            code=entry["code"],
            stdout=entry["stdout"].encode() * entry.get("times", 1),
            package=entry.get("package", ""),
        )
        for entry in _manifest()["honest"]
    )


def try_attack(sandbox: Sandbox, attack: Attack) -> Finding:
    """Run one attack, its probe and an honest job; return what went wrong."""
    started = time.monotonic()
    limits = SLEEPER_LIMITS if attack.outcome is JobOutcome.WALL_TIMEOUT else ATTACK_LIMITS
    result = sandbox.run(job_of(attack.code, limits, result_channel=True))
    trouble: list[str] = []
    if b"BREACH" in result.stdout:
        trouble.append(f"it got through: {result.stdout[-200:]!r}")
    if BROKEN.search(result.stdout):
        trouble.append(f"the attack itself is broken: {result.stdout[-200:]!r}")
    if attack.outcome is not None and result.outcome is not attack.outcome:
        trouble.append(f"it ended as {result.outcome}, not {attack.outcome} ({result.detail})")
    if result.outcome is JobOutcome.INFRASTRUCTURE_FAULT:
        trouble.append(f"the sandbox broke: {result.detail}")
    overrun = result.wall_seconds - limits.wall_seconds
    if overrun > OVERRUN_SECONDS:
        trouble.append(f"it ran {overrun:.1f} s past its limit")
    if attack.probe:
        traces = sandbox.run(job_of(attack.probe, ATTACK_LIMITS))
        if b"BREACH" in traces.stdout or traces.outcome is not JobOutcome.OK:
            output = (traces.stdout + traces.stderr)[-200:]
            trouble.append(f"it left something behind: {traces.outcome} {output!r}")
    canary = sandbox.run(job_of(CANARY, HONEST_LIMITS))
    if canary.stdout != CANARY_SAYS:
        trouble.append(f"an honest job after it: {canary.outcome} {canary.stdout[-200:]!r} {canary.stderr[-200:]!r}")
    detail = "; ".join(trouble) or f"{result.outcome}"
    return Finding(attack.name, attack.kind, not trouble, detail, time.monotonic() - started)


def try_honest(sandbox: Sandbox, honest: Honest) -> Finding:
    """Run one ordinary program; it passes if it prints what is expected."""
    started = time.monotonic()
    result = sandbox.run(job_of(honest.code, HONEST_LIMITS))
    passed = result.outcome is JobOutcome.OK and result.stdout == honest.stdout
    detail = "ok" if passed else f"{result.outcome} {result.detail} {result.stdout[-100:]!r} {result.stderr[-300:]!r}"
    return Finding(honest.name, "honest", passed, detail, time.monotonic() - started)


def check(sandbox: Sandbox, *, packages: Iterable[str] = ()) -> Iterator[Finding]:
    """Run every honest program and every attack; yield one finding each.

    Args:
        sandbox: sandbox to test.
        packages: distributions it has; honest programs that need others are skipped.
    """
    have = set(packages)
    for honest in honest_programs():
        if not honest.package or honest.package in have:
            yield try_honest(sandbox, honest)
    for attack in attacks():
        yield try_attack(sandbox, attack)


def job_of(code: str, limits: Limits, *, result_channel: bool = False) -> Job:
    """Build a job of one Python program."""
    files = {"main.py": code.encode()}
    return Job(argv=("python", "main.py"), files=files, limits=limits, result_channel=result_channel)


@cache
def _manifest() -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads((resources.files("sandbox") / "attacks.toml").read_text())
