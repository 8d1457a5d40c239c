"""Diagnosis of what a sandbox needs on this machine, and how to get what is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox import bubblewrap, docker
from sandbox.api import MIB, JobOutcome, SandboxError
from sandbox.attacks import HONEST_LIMITS, job_of
from sandbox.image import TREE_BYTES, cache_folder
from sandbox.opening import LARGEST, open_sandbox
from sandbox.pool import PooledSandbox

OLDEST_KERNEL = [5, 14]
PROBES = 20
MODE_COSTS = {
    "namespaces": "fresh namespaces and mounts for every job",
    "uid": (
        "no mounts allowed here, so jobs are isolated by a fresh uid each and emptied folders, in containers of"
        f" {docker.UID_MODE_RECYCLE} jobs. They share one network namespace (without a network) and see each other's"
        " process names"
    ),
    "one-shot": "a fresh container for every job: the strictest, about a second each",
}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Result of one check."""

    name: str
    works: bool
    says: str
    remedy: str = ""


def examine(*, start: bool = True) -> Iterator[Diagnosis]:
    """Check everything that a sandbox needs on this machine; yield one result per check.

    Args:
        start: True: also start each backend and run jobs in it; False: only read settings.
    """
    yield _kernel()
    yield _disk()
    for backend, diagnose in (("docker", _docker), ("bubblewrap", _bubblewrap)):
        found = diagnose()
        yield found
        if found.works and start:
            yield _trial(backend)


def _kernel() -> Diagnosis:
    release = platform.release()
    if platform.system() != "Linux":
        return Diagnosis("kernel", False, f"{platform.system()} has no namespaces.", "Run on Linux, or in a Linux VM.")
    if [int(part) for part in re.findall(r"\d+", release)[:2]] < OLDEST_KERNEL:
        says = f"Linux {release} counts processes by user, not by user namespace: bubblewrap jobs share one limit"
        return Diagnosis("kernel", False, says, "Linux 5.14 or later, or the Docker backend.")
    return Diagnosis("kernel", True, f"Linux {release} on {platform.machine()}, {len(os.sched_getaffinity(0))} cores")


def _docker() -> Diagnosis:
    try:
        info = docker.require_engine()
    except SandboxError as error:
        return Diagnosis("docker", False, str(error), "As root on Debian or a derivative: tools/start-docker.sh")
    options = ", ".join(option.removeprefix("name=") for option in info.get("SecurityOptions", []))
    runtimes = ", ".join(sorted(info.get("Runtimes", {})))
    says = (
        f"engine {info.get('ServerVersion')}, cgroup v{info.get('CgroupVersion', 1)}, security: {options or 'none'},"
        f" runtimes: {runtimes}"
    )
    lacking = [name for name, key in (("memory", "MemoryLimit"), ("swap", "SwapLimit"), ("pids", "PidsLimit"))
               if not info.get(key)]  # fmt: skip
    if lacking:
        remedy = "Boot with cgroup_enable=memory swapaccount=1 (rootless: delegate the controllers to your user)."
        return Diagnosis("docker", False, f"{says}; no limit of {', '.join(lacking)}", remedy)
    return Diagnosis("docker", True, says)


def _bubblewrap() -> Diagnosis:
    try:
        found = bubblewrap.version()
        bubblewrap.require_bubblewrap(LARGEST)
        return Diagnosis("bubblewrap", True, found)
    except SandboxError as error:
        remedy = "As root on Debian or a derivative: tools/start-docker.sh"
        if "own limits" in str(error):
            remedy = "Raise them (ulimit; MemoryMax= and TasksMax= of systemd; docker run --memory), or use docker."
        return Diagnosis("bubblewrap", False, str(error), remedy)


def _disk() -> Diagnosis:
    """Check that there is space for a tree in the folder of trees."""
    folder = cache_folder()
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    says = f"{free // MIB} MiB free in {there}, for the files that jobs see"
    if free < TREE_BYTES:
        return Diagnosis("disk", False, f"{says}: a tree takes up to {TREE_BYTES // MIB}", "Free some space there.")
    return Diagnosis("disk", True, says)


def _trial(backend: str) -> Diagnosis:
    """Start a backend and run jobs in it; report how it isolates them and how fast it is."""
    name = f"{backend} trial"
    started = time.monotonic()
    try:
        with open_sandbox(backend, workers=1) as found:
            assert isinstance(found, PooledSandbox)
            ready = time.monotonic() - started
            job = job_of("print(6 * 7)", HONEST_LIMITS)
            first = time.monotonic()
            results = [found.run(job) for _ in range(PROBES)]
            each = (time.monotonic() - first) / PROBES
            wrong = [result for result in results if result.outcome is not JobOutcome.OK or result.stdout != b"42\n"]
            if wrong:
                return Diagnosis(name, False, f"a plain program ended as {wrong[0].outcome}: {wrong[0].detail}")
            says = f"ready in {ready:.1f} s, {1000 * each:.0f} ms per job; {MODE_COSTS[found.mode]}"
            remedy = _mode_remedy() if found.mode == "uid" else ""
            if backend == "bubblewrap" and not found.own_files:
                says += "; jobs of different workers can see each other's locks on the library's files"
                remedy = "A kernel that lets bubblewrap mount an overlay (5.11 or later, not in two others), or docker."
            return Diagnosis(name, True, says, remedy)
    except SandboxError as error:
        return Diagnosis(name, False, str(error))


def _mode_remedy() -> str:
    """Return a sentence on how to get the stronger mode."""
    if Path("/sys/module/apparmor/parameters/enabled").exists():
        return (
            "The engine's AppArmor profile (docker-default) refuses mounts. To get mounts: a profile that allows mount"
            " and is otherwise the same, given as open_sandbox('docker', apparmor='its-name'); or"
            " apparmor='unconfined', which leaves seccomp, capabilities and namespaces in place. Or mode='one-shot'."
        )
    return "The engine refuses new namespaces or mounts in containers (rootless, or another runtime's policy)."
