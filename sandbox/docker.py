"""A warm pool of hardened containers, each with the resident supervisor."""

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
# What the supervisor holds: namespaces, mounts and a loopback for each job, handing things to the job's uid, killing.
SUPERVISOR_CAPABILITIES = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL", "SYS_PTRACE", "SYS_NICE", "NET_ADMIN")
UID_MODE_CAPABILITIES = ("SETUID", "SETGID", "SETPCAP", "KILL", "DAC_OVERRIDE", "FOWNER", "SYS_PTRACE")
# of jobs: no system account's, and within the 65,536 that a rootless engine maps
FIRST_UID = 10_000
UIDS = 25_000
MODES = ("auto", "namespaces", "uid", "one-shot")
UID_MODE_RECYCLE = 200
INODES = 4096
DESCRIPTORS = 4096
NO_SUCH_CALL = (404, 405, 501)
SUPERVISOR_BYTES = 96 * MIB


class Docker(Launcher):
    """Containers with no network, a read-only root, and limits of the kernel on memory, processes and processors.

    Args:
        limits: the most that a job may ask for; the container's own limits follow from it.
        packages: importable by jobs.
        system: Debian packages whose programs jobs may run.
        image: a local image with a python3 in it, instead of the one built from this interpreter.
        runtime: of the engine's (`runsc`, `crun`), where it is not the default.
        mode: namespaces (fresh ones for each job); uid (where the engine refuses mounts: a fresh uid for each job,
            swept afterwards); one-shot (a fresh container for each job); auto for the first of these that works.
        cpus: of each container.
        tmpfs_bytes: of each of /work, /tmp and /dev/shm of a job.
        apparmor: name of the profile of the containers, where the engine's own (docker-default) refuses mounts.
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
        """Whether the engine cannot change the memory of a container that runs (older Podman)."""
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
        told = (
            list(complaints) if len(complaints) == 1 else [f"mode {mode}: {said}" for said, mode in complaints.items()]
        )
        raise SandboxUnavailable(f"no container can be started. {' '.join(told)}")

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
        """Id of a container that has still to be started.

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
                # its input is ours alone, and closed once we are gone: then the supervisor ends
                stdin_open=True,
                host_config=self._client.create_host_config(**self.held(mode)),
            )["Id"]
        except FAILURES as error:
            raise SandboxUnavailable(f"no container can be made from {self._image}: {reason(error)}") from None

    @property
    def recycle_after(self) -> int | None:
        """Where only uids keep jobs apart, containers are young; in one-shot mode, of one job."""
        return {"uid": UID_MODE_RECYCLE, "one-shot": 1}.get(self.mode)

    def prepare(self, worker: Worker, job: Job) -> None:
        """Let the container have what this job may use, beside what the supervisor and one of its folders take."""
        parts = [job] if job.helper is None else [job, job.helper]
        memory = sum(part.limits.memory_bytes for part in parts) + SUPERVISOR_BYTES + self._tmpfs_bytes
        if self._memory.get(worker, memory if self._fixed else 0) == memory:
            return
        try:
            self._client.update_container(self._containers[worker], mem_limit=memory, memswap_limit=memory)
        except FAILURES as error:
            if isinstance(error, APIError) and error.status_code in NO_SUCH_CALL:
                self._fixed = True  # the supervisor watches the job's own limit alone, within the container's
                return
            raise WorkerLost(f"{worker.name} cannot be given {memory >> 20} MiB: {reason(error)}") from None
        self._memory[worker] = memory

    def held(self, mode: str) -> dict[str, object]:
        """What holds a worker's container, as the engine's API names it."""
        memory = self.limits.memory_bytes + SUPERVISOR_BYTES
        files = max(DESCRIPTORS, self.limits.open_files)
        folders = ("/tmp", "/work", "/dev/shm") if mode == "uid" else ("/work",)
        options = f"rw,nosuid,nodev,mode=1777,size={self._tmpfs_bytes}"
        if mode == "uid":  # where jobs make no folders of their own; Podman's own knows no such option
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
        # our end first: an engine that is asked to remove a container waits for whoever still reads from it
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
    """The part of the engine's description of itself that is read here."""

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
        SandboxUnavailable: no engine, or no right to use it.
    """
    with engine(20) as client:
        try:
            return cast(EngineInfo, client.info())
        except FAILURES as error:
            raise SandboxUnavailable(f"the Docker engine cannot be used: {reason(error)}") from None


def owner() -> str:
    """This process, never to be taken for another: pid and start time, within one pid namespace of one boot."""
    return f"{os.getpid()}.{_start_time(os.getpid())}.{_here()}"


def sweep() -> int:
    """Remove containers whose owner is gone; returns how many there were.

    Owners on other machines and in other containers, that share this engine, cannot be seen from here: theirs stay.
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
    """This boot of this machine, and this pid namespace of it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot[:13]}.{os.stat('/proc/self/ns/pid').st_ino}"


def _start_time(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[19]
    except OSError:
        return ""
