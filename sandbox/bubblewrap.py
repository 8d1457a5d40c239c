"""Sandbox without a daemon and without root: bubblewrap around the resident supervisor."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

from sandbox.api import MIB, JobOutcome, JobResult, Limits, SandboxUnavailable
from sandbox.connection import Pipes
from sandbox.image import ensure_root
from sandbox.outer_limits import Pressure, shortages
from sandbox.pool import Launcher
from sandbox.worker import BOOTSTRAP, GuestConfig, Worker, WorkerLost

NOBODY = 65534
INSIDE_UID = 1000
OLDEST = [0, 5]
DISABLES_USERNS = [0, 8]
OWN_FILES = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
# bubblewrap's mounts belong to the user namespace around this one
libc.unshare(0x20000)  # CLONE_NEWNS
libc.mount(b"none", b"/", None, ctypes.c_ulong(16384 | 1 << 18), None)  # MS_REC | MS_PRIVATE
for name in sys.argv[2:]:
    ways = ctypes.c_ulong(1 | 2 | 4 | 1024)  # read-only, no suid, no devices, no access times
    libc.mount(b"overlay", name.encode(), b"overlay", ways, f"lowerdir={name}:/dev/shm,userxattr".encode())
os.execv("/usr/bin/python3", ["python3", "-I", "-B", "-c", sys.argv[1]])
"""
"""Code that mounts a private overlay over each folder of the tree before the supervisor starts from there. All workers
then share the files and their page cache, but no worker's locks and watches on them affect another's. If the kernel
refuses overlays (before 5.11, or too many layers), the folders stay as they are."""


class Bubblewrap(Launcher):
    """Launcher of supervisors in a user namespace, over a read-only tree of only an interpreter and its libraries.

    The kernel limits memory and processes per process; the supervisor limits them for all of a job together, because
    there is no cgroup without root or a daemon.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        packages: tuple[str, ...] = (),
        system: tuple[str, ...] = (),
        tmpfs_bytes: int = 64 * MIB,
    ) -> None:
        self.limits = limits
        self._tmpfs_bytes = tmpfs_bytes
        self._version = require_bubblewrap(limits)
        self._pressure = Pressure()
        # process limits do not apply to the real root, so root runs bubblewrap as nobody
        self._as_nobody = os.geteuid() == 0 and _has_uid(NOBODY)
        self._root = ensure_root(packages, system)

    def command(self) -> list[str]:
        """Return the command that starts one worker."""
        return [
            "bwrap",
            *("--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"),
            # older versions lack this option; there only the job's system-call filter refuses user namespaces
            *(("--disable-userns",) if self._version >= DISABLES_USERNS else ()),
            *("--as-pid-1", "--cap-add", "ALL", "--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID)),
            *("--hostname", "sandbox", "--clearenv", "--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin"),
            *("--setenv", "PYTHONHASHSEED", "0", "--setenv", "LANG", "C.UTF-8"),
            *self._binds(),
            *("--dev", "/dev", "--proc", "/proc", "--perms", "1777", "--tmpfs", "/tmp"),
            *("--perms", "0755", "--dir", "/work", "--perms", "0755", "--dir", "/dev/shm"),
            *("--remount-ro", "/dev", "--remount-ro", "/tmp", "--remount-ro", "/", "--chdir", "/"),
            *("/usr/bin/python3", "-I", "-S", "-B", "-c", OWN_FILES, BOOTSTRAP, *self._folders()),
        ]

    def start(self) -> Worker:
        config = GuestConfig(
            mode="namespaces", uid=None, tmpfs_bytes=self._tmpfs_bytes, inodes=4096, modules=self.modules
        )
        try:
            user = NOBODY if self._as_nobody else None
            worker = Worker(Pipes(self.command(), cwd="/", user=user), config, name="bubblewrap worker")
            worker.prove(self.limits)
            return worker
        except WorkerLost as error:
            raise SandboxUnavailable(f"bubblewrap cannot make its namespaces here: {error} {_advice()}") from None

    def pressed(self, result: JobResult) -> str:
        return self._pressure.told(killed=result.outcome is JobOutcome.KILLED and result.exit_code == -signal.SIGKILL)

    def _folders(self) -> list[str]:
        """Return the paths inside the sandbox of the tree's top-level folders."""
        return [
            f"/{path.name}"
            for path in sorted(self._root.iterdir())
            if path.is_dir() and not path.is_symlink() and path.name not in ("dev", "proc", "tmp", "work", "sys")
        ]

    def _binds(self) -> list[str]:
        """Return options that mount the tree's top-level folders read-only and recreate its links."""
        found: list[str] = []
        for path in sorted(self._root.iterdir()):
            if path.is_symlink():
                found += ["--symlink", os.readlink(path), f"/{path.name}"]
        for inside in self._folders():
            found += ["--ro-bind", f"{self._root}{inside}", inside]
        return found


def _has_uid(uid: int) -> bool:
    """Return True if this user namespace has the uid; if not, its root is an ordinary user of the machine."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= uid < first + count:
            return True
    return False


def _advice() -> str:
    """Return a sentence on the setting that prevents user namespaces."""
    settings = {
        "/proc/sys/user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=15000"),
        "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl kernel.unprivileged_userns_clone=1"),
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
            "1",
            "an AppArmor profile for bwrap that allows userns, or sysctl"
            " kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    }
    for name, (blocking, remedy) in settings.items():
        path = Path(name)
        if path.exists() and path.read_text().strip() == blocking:
            return f"User namespaces are off ({path.name}={blocking}); to enable them: {remedy}."
    return "In a container, user namespaces need seccomp and AppArmor settings that allow them; or use docker."


def require_bubblewrap(limits: Limits) -> list[int]:
    """Check that bubblewrap works here; return its version.

    Raises:
        SandboxUnavailable: it is missing or too old, or this process's own limits are below what jobs may use.
    """
    found = [int(part) for part in re.findall(r"\d+", version())]
    if found < OLDEST:
        raise SandboxUnavailable(f"bubblewrap 0.5 or later is needed; this is {version()}.")
    if lacking := shortages(limits):
        raise SandboxUnavailable(f"bubblewrap runs jobs within this process's own limits: {'; '.join(lacking)}.")
    return found


def version() -> str:
    """Return bwrap's name and version.

    Raises:
        SandboxUnavailable: it is not installed, or does not run.
    """
    try:
        done = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SandboxUnavailable(
            "bubblewrap is not installed: apt-get install bubblewrap (or the equivalent on your system)."
        ) from None
    if done.returncode:
        raise SandboxUnavailable(f"bwrap --version failed: {done.stderr.strip()}")
    return done.stdout.strip()
