"""A warm pool of hardened containers, each with the resident supervisor. Talks to the engine through its own client."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from sandbox.api import MIB, Limits, SandboxError, SandboxUnavailable
from sandbox.image import as_tar, canonical, ensure_root
from sandbox.pool import Launcher
from sandbox.worker import BOOTSTRAP, GuestConfig, Worker, WorkerLost

REPOSITORY = "reasoner-sandbox"
OWNER_LABEL = "reasoner.sandbox.owner"
# What the supervisor holds: namespaces and mounts for each job, handing files and processes to the job's uid, killing.
SUPERVISOR_CAPABILITIES = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL", "SYS_PTRACE", "SYS_NICE")
UID_MODE_CAPABILITIES = ("SETUID", "SETGID", "SETPCAP", "KILL", "DAC_OVERRIDE", "FOWNER", "SYS_PTRACE")
# of jobs: no system account's, and within the 65,536 that a rootless engine maps
FIRST_UID = 10_000
UIDS = 25_000
MODES = ("auto", "namespaces", "uid", "one-shot")
UID_MODE_RECYCLE = 200
INODES = 4096
SUPERVISOR_BYTES = 96 * MIB
COMMAND_SECONDS = 120
NOT_INSTALLED = "docker is not installed: apt-get install docker.io (or your system's like)."


class Docker(Launcher):
    """Containers with no network, a read-only root, and limits of the kernel on memory, processes and processors.

    Args:
        limits: the most that a job may ask for; the container's own limits follow from it.
        packages: importable by jobs.
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
        self._names: dict[Worker, str] = {}
        require_engine()
        self._image = image or ensure_image(packages)
        sweep()

    def start(self) -> Worker:
        with self._deciding:
            wanted = ("namespaces", "uid") if self.mode == "auto" else (self.mode,)
            if self.mode == "auto":
                worker, self.mode = self._first_that_starts(wanted)
                return worker
        return self._first_that_starts(wanted)[0]

    def _first_that_starts(self, modes: Sequence[str]) -> tuple[Worker, str]:
        complaints: list[str] = []
        for mode in modes:
            try:
                return self._start(mode), mode
            except WorkerLost as error:
                complaints.append(f"mode {mode}: {error}")
        raise SandboxUnavailable(f"no container can be started. {' '.join(complaints)}")

    def _start(self, mode: str) -> Worker:
        name = f"{REPOSITORY}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        uid = FIRST_UID + uuid.uuid4().int % UIDS
        guest_mode = "namespaces" if mode == "namespaces" else "uid"
        config = GuestConfig(
            mode=guest_mode, uid=uid, tmpfs_bytes=self._tmpfs_bytes, inodes=INODES, modules=self.modules
        )
        try:
            worker = Worker(self.command(name, guest_mode), config, name=f"container {name}")
        except WorkerLost:
            with contextlib.suppress(SandboxError):
                docker("kill", name)  # its client is dead; it may be half made
            raise
        self._names[worker] = name
        if mode == "namespaces":
            try:
                worker.prove(self.limits)
            except WorkerLost:
                self.discard(worker)
                raise
        return worker

    @property
    def recycle_after(self) -> int | None:
        """Where only uids keep jobs apart, containers are young; in one-shot mode, of one job."""
        return {"uid": UID_MODE_RECYCLE, "one-shot": 1}.get(self.mode)

    def command(self, name: str, mode: str) -> list[str]:
        """What is run for one worker."""
        memory = self.limits.memory_bytes + SUPERVISOR_BYTES
        capabilities = SUPERVISOR_CAPABILITIES if mode == "namespaces" else UID_MODE_CAPABILITIES
        folders = ("/tmp", "/work", "/dev/shm") if mode == "uid" else ("/work",)
        options = f"rw,nosuid,nodev,mode=1777,size={self._tmpfs_bytes},nr_inodes={INODES}"
        return [
            *("docker", "run", "--rm", "-i", "--name", name, "--label", f"{OWNER_LABEL}={owner()}"),
            *("--hostname", "sandbox"),
            *("--network", "none", "--read-only", "--pull", "never", "--log-driver", "none"),
            *("--memory", str(memory), "--memory-swap", str(memory), "--cpus", str(self._cpus)),
            *("--pids-limit", str(2 * self.limits.processes + 32), "--security-opt", "no-new-privileges"),
            *("--ulimit", "core=0", "--cap-drop", "ALL"),
            *itertools.chain.from_iterable(("--cap-add", capability) for capability in capabilities),
            *itertools.chain.from_iterable(("--tmpfs", f"{folder}:{options}") for folder in folders),
            *("--env", "PYTHONHASHSEED=0", "--env", "LANG=C.UTF-8"),
            *(("--runtime", self._runtime) if self._runtime else ()),
            *(("--security-opt", f"apparmor={self._apparmor}") if self._apparmor else ()),
            *(self._image, "python3", "-I", "-B", "-c", BOOTSTRAP),
        ]

    def discard(self, worker: Worker) -> None:
        # our client first: an engine that is asked to remove a container waits for whoever still reads from it
        worker.kill()
        name = self._names.pop(worker, None)
        if name is not None:
            with contextlib.suppress(SandboxError):
                docker("kill", name)


def docker(*arguments: str, stdin: bytes | None = None, seconds: float = COMMAND_SECONDS) -> str:
    """Standard output of a docker command.

    Raises:
        SandboxError: it fails, or does not answer.
    """
    try:
        done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, timeout=seconds, check=False)
    except FileNotFoundError:
        raise SandboxUnavailable(NOT_INSTALLED) from None
    except subprocess.TimeoutExpired:
        raise SandboxError(f"docker {arguments[0]} did not answer within {seconds:g} s.") from None
    if done.returncode:
        raise SandboxError(f"docker {arguments[0]}: {done.stderr.decode('utf-8', 'replace').strip()}")
    return done.stdout.decode("utf-8", "replace")


class EngineInfo(TypedDict, total=False):
    """The part of `docker info` that is read here."""

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
        SandboxUnavailable: no client, no engine, or no right to use it.
    """
    if shutil.which("docker") is None:
        raise SandboxUnavailable(NOT_INSTALLED)
    try:
        return json.loads(docker("info", "--format", "{{json .}}", seconds=20))
    except SandboxError as error:
        raise SandboxUnavailable(
            f"the Docker engine cannot be used: {error} Start it (systemctl start docker, or dockerd), and belong to"
            " the group docker."
        ) from None


def ensure_image(packages: Sequence[str] = ()) -> str:
    """The local image with this interpreter and these packages; imported from its tree where it is not there yet."""
    root = ensure_root(packages)
    name = f"{REPOSITORY}:{root.name}"
    if docker("images", "-q", name).strip():
        return name
    environment = "ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8"
    process = subprocess.Popen(
        ["docker", "import", "--change", environment, "-", name], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin
    with contextlib.suppress(BrokenPipeError):
        for part in as_tar(root):
            process.stdin.write(part)
    _, complaint = process.communicate()
    if process.returncode:
        raise SandboxError(f"docker import: {complaint.decode('utf-8', 'replace').strip()}")
    return name


def build_image(base: str, packages: Sequence[str] = ()) -> str:
    """An image from a Python image, of a registry or local, by `docker build`; returns its name for `image=`.

    Raises:
        SandboxError: the registry cannot be reached, or a package cannot be installed.
    """
    wanted = sorted(canonical(name) for name in packages)
    lines = [f"FROM {base}", *([f"RUN pip install --no-cache-dir {' '.join(wanted)}"] if wanted else [])]
    lines.append("RUN mkdir -p /work")
    name = f"{REPOSITORY}:{base.replace(':', '-').replace('/', '-')}" + "".join(f"-{part}" for part in wanted)
    try:
        docker("build", "-t", name, "-", stdin="\n".join(lines).encode(), seconds=1800)
    except SandboxError as error:
        reason = str(error).splitlines()[-1]
        raise SandboxError(
            f"no image from {base}: {reason} Where no registry can be reached, leave the base out: the image is then"
            " made from this machine's own interpreter."
        ) from None
    return name


def owner() -> str:
    """This process, never to be taken for another: pid and start time, within one pid namespace of one boot."""
    return f"{os.getpid()}.{_start_time(os.getpid())}.{_here()}"


def sweep() -> int:
    """Remove containers whose owner is gone; returns how many there were.

    Owners on other machines and in other containers, that share this engine, cannot be seen from here: theirs stay.
    """
    columns = f'{{{{.ID}}}} {{{{.Label "{OWNER_LABEL}"}}}}'
    listed = docker("ps", "-a", "--filter", f"label={OWNER_LABEL}", "--format", columns)
    removed = 0
    for line in listed.splitlines():
        identifier, _, label = line.partition(" ")
        pid, _, rest = label.partition(".")
        started, _, place = rest.partition(".")
        if place == _here() and pid.isdigit() and _start_time(int(pid)) != started:
            with contextlib.suppress(SandboxError):
                docker("rm", "-f", identifier)
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
