"""Docker backend: hardened containers, each with the resident supervisor."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, cast

from docker.errors import APIError
from docker.types import LogConfig, Ulimit

from sandbox.api import MIB, Job, Limits, SandboxError, SandboxUnavailable
from sandbox.engine import FAILURES, REPOSITORY, Attached, connect, engine, ensure_image, named, reason
from sandbox.pool import Launcher
from sandbox.worker import BOOTSTRAP, GuestConfig, Worker, WorkerLost

OWNER_LABEL = "reasoner.sandbox.owner"
# What the supervisor does: namespaces, mounts and a loopback for each job, switching to the job's uid, killing.
SUPERVISOR_CAPABILITIES = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL", "SYS_PTRACE", "SYS_NICE", "NET_ADMIN")
UID_MODE_CAPABILITIES = ("SETUID", "SETGID", "SETPCAP", "KILL", "DAC_OVERRIDE", "FOWNER", "SYS_PTRACE")
# uids of jobs: not those of system accounts, and within the 65,536 that a rootless engine maps
FIRST_UID = 10_000
UIDS = 25_000
MODES = ("auto", "namespaces", "uid", "one-shot")
UID_MODE_RECYCLE = 200
INODES = 4096
DESCRIPTORS = 4096
NO_SUCH_CALL = (404, 405, 501)
SUPERVISOR_BYTES = 96 * MIB


class Docker(Launcher):
    """Launcher of containers without network, with a read-only root and kernel limits on memory, processes and CPUs.

    Args:
        limits: the most that a job may ask for; the container's own limits follow from it.
        packages: Python packages that jobs may import.
        system: Debian packages whose commands jobs may run.
        image: local image with python3, instead of one built from this interpreter.
        runtime: runtime of the engine (`runsc`, `crun`); None: its default.
        mode: namespaces (fresh ones for each job); uid (if the engine refuses mounts: a fresh uid for each job, and
            cleaning up after it); one-shot (a fresh container for each job); auto: the first of namespaces and uid that
            works.
        cpus: processors of each container.
        tmpfs_bytes: size of each of a job's /work, /tmp and /dev/shm.
        apparmor: name of the containers' AppArmor profile, if the engine's own (docker-default) refuses mounts.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        packages: Sequence[str] = (),
        system: Sequence[str] = (),
        image: str | None = None,
        runtime: str | None = None,
        mode: str = "auto",
        cpus: float = 1.0,
        tmpfs_bytes: int = 64 * MIB,
        apparmor: str | None = None,
    ) -> None:
        if mode not in MODES:
            raise SandboxError(f"mode must be one of {', '.join(MODES)}; got {mode!r}.")
        self.limits = limits
        self.mode = mode
        self._runtime = runtime
        self._cpus = cpus
        self._tmpfs_bytes = tmpfs_bytes
        self._apparmor = apparmor
        self._deciding = threading.Lock()
        self._containers: dict[Worker, str] = {}
        self._memory: dict[Worker, int] = {}
        self._fixed = False
        """True if the engine cannot change the memory of a running container (older Podman)."""
        self._client = connect()
        self._image = image or ensure_image(packages, system)
        sweep()

    def start(self) -> Worker:
        with self._deciding:
            wanted = ("namespaces", "uid") if self.mode == "auto" else (self.mode,)
            if self.mode == "auto":
                worker, self.mode = self._first_that_starts(wanted)
                return worker
        return self._first_that_starts(wanted)[0]

    def _first_that_starts(self, modes: Sequence[str]) -> tuple[Worker, str]:
        complaints: dict[str, str] = {}
        for mode in modes:
            try:
                return self._start(mode), mode
            except (WorkerLost, SandboxUnavailable) as error:
                complaints.setdefault(str(error), mode)
        messages = (
            list(complaints)
            if len(complaints) == 1
            else [f"mode {mode}: {message}" for message, mode in complaints.items()]
        )
        raise SandboxUnavailable(f"no container can be started. {' '.join(messages)}")

    def _start(self, mode: str) -> Worker:
        uid = FIRST_UID + uuid.uuid4().int % UIDS
        guest_mode = "namespaces" if mode == "namespaces" else "uid"
        config = GuestConfig(
            mode=guest_mode, uid=uid, tmpfs_bytes=self._tmpfs_bytes, inodes=INODES, modules=self.modules
        )
        name = f"{REPOSITORY}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        container = self._made(name, guest_mode)
        try:
            attached = Attached(self._client, container)
            self._client.start(container)
            worker = Worker(attached, config, name=f"container {name}")
        except (WorkerLost, *FAILURES) as error:
            self._kill(container)
            raise WorkerLost(f"container {name}: {reason(error)}") from None
        self._containers[worker] = container
        if mode == "namespaces":
            try:
                worker.prove(self.limits)
            except WorkerLost:
                self.discard(worker)
                raise
        return worker

    def _made(self, name: str, mode: str) -> str:
        """Create a container without starting it; return its id.

        Raises:
            SandboxUnavailable: the engine refuses: no such image, no such runtime.
        """
        try:
            return self._client.create_container(
                self._image,
                ("python3", "-I", "-B", "-c", BOOTSTRAP),
                name=name,
                hostname="sandbox",
                labels={OWNER_LABEL: owner()},
                environment={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"},
                # only this process has its input open; when it ends, the input closes and the supervisor ends
                stdin_open=True,
                host_config=self._client.create_host_config(**self.held(mode)),
            )["Id"]
        except FAILURES as error:
            raise SandboxUnavailable(f"no container can be created from {self._image}: {reason(error)}") from None

    @property
    def recycle_after(self) -> int | None:
        """Jobs per container, if the mode requires it: few if only uids separate jobs, one in one-shot mode."""
        return {"uid": UID_MODE_RECYCLE, "one-shot": 1}.get(self.mode)

    def prepare(self, worker: Worker, job: Job) -> None:
        """Set the container's memory limit for this job, in addition to what the supervisor and one folder need."""
        parts = [job] if job.helper is None else [job, job.helper]
        memory = sum(part.limits.memory_bytes for part in parts) + SUPERVISOR_BYTES + self._tmpfs_bytes
        if self._memory.get(worker, memory if self._fixed else 0) == memory:
            return
        try:
            self._client.update_container(self._containers[worker], mem_limit=memory, memswap_limit=memory)
        except FAILURES as error:
            if isinstance(error, APIError) and error.status_code in NO_SUCH_CALL:
                self._fixed = True  # only the supervisor enforces the job's own limit, within the container's
                return
            raise WorkerLost(f"{worker.name} cannot be given {memory >> 20} MiB: {reason(error)}") from None
        self._memory[worker] = memory

    def held(self, mode: str) -> dict[str, object]:
        """Return the restrictions of a worker's container, in the terms of the engine's API."""
        memory = self.limits.memory_bytes + SUPERVISOR_BYTES
        files = max(DESCRIPTORS, self.limits.open_files)
        folders = ("/tmp", "/work", "/dev/shm") if mode == "uid" else ("/work",)
        options = f"rw,nosuid,nodev,mode=1777,size={self._tmpfs_bytes}"
        if mode == "uid":  # jobs have no folders of their own; Podman lacks these options
            options += f",exec,nr_inodes={INODES}"
        return {
            "auto_remove": True,
            "network_mode": "none",
            "read_only": True,
            "log_config": LogConfig(type="none"),
            "mem_limit": memory,
            "memswap_limit": memory,
            "nano_cpus": int(self._cpus * 1e9),
            "pids_limit": 2 * self.limits.processes + 32,
            "security_opt": [
                "no-new-privileges",
                *((f"apparmor={self._apparmor}",) if self._apparmor else ()),
            ],
            "ulimits": [Ulimit(name="core", soft=0, hard=0), Ulimit(name="nofile", soft=files, hard=files)],
            "cap_drop": ["ALL"],
            "cap_add": list(SUPERVISOR_CAPABILITIES if mode == "namespaces" else UID_MODE_CAPABILITIES),
            "tmpfs": dict.fromkeys(folders, options),
            "runtime": self._runtime,
        }

    def discard(self, worker: Worker) -> None:
        # our end first: the engine removes a container only after its readers have disconnected
        worker.kill()
        self._memory.pop(worker, None)
        container = self._containers.pop(worker, None)
        if container is not None:
            self._kill(container)

    def close(self) -> None:
        self._client.close()

    def _kill(self, container: str) -> None:
        """Remove a container, whatever state it is in."""
        with contextlib.suppress(*FAILURES):
            self._client.remove_container(container, force=True)


class EngineInfo(TypedDict, total=False):
    """Part of the engine's description of itself that is used here."""

    ServerVersion: str
    CgroupVersion: str
    SecurityOptions: list[str]
    Runtimes: dict[str, object]
    MemoryLimit: bool
    SwapLimit: bool
    PidsLimit: bool


def require_engine() -> EngineInfo:
    """Return the engine's description of itself.

    Raises:
        SandboxUnavailable: there is no engine, or no permission to use it.
    """
    with engine(20) as client:
        try:
            return cast(EngineInfo, client.info())
        except FAILURES as error:
            raise SandboxUnavailable(f"the Docker engine cannot be used: {reason(error)}") from None


def owner() -> str:
    """Return a unique name of this process: pid and start time, within one pid namespace of one boot."""
    return f"{os.getpid()}.{_start_time(os.getpid())}.{_here()}"


def sweep() -> int:
    """Remove containers whose owner process is gone; return their number.

    Containers of owners on other machines or in other containers, which share this engine, are kept: their owners
    cannot be checked from here.
    """
    removed = 0
    with engine() as client, named("old containers"):
        for listed in client.containers(all=True, filters={"label": OWNER_LABEL}):
            pid, _, rest = str(listed["Labels"].get(OWNER_LABEL)).partition(".")
            started, _, place = rest.partition(".")
            if place == _here() and pid.isdigit() and _start_time(int(pid)) != started:
                with contextlib.suppress(*FAILURES):
                    client.remove_container(listed["Id"], force=True)
                    removed += 1
    return removed


def _here() -> str:
    """Return a name of this boot of this machine and of this pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot[:13]}.{os.stat('/proc/self/ns/pid').st_ino}"


def _start_time(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[19]
    except OSError:
        return ""
