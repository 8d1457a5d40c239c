"""A warm pool of hardened containers, each with the resident supervisor. Talks to the engine through its own client."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from sandbox.api import MIB, Limits, SandboxError, SandboxUnavailable
from sandbox.image import as_tar, canonical, ensure_root
from sandbox.pool import Launcher
from sandbox.worker import BOOTSTRAP, GuestConfig, Worker, WorkerLost

REPOSITORY = "reasoner-sandbox"
OWNER_LABEL = "reasoner.sandbox.owner"
# What the supervisor holds: namespaces and mounts for each job, handing files and processes to the job's uid, killing.
SUPERVISOR_CAPABILITIES = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL", "SYS_PTRACE", "SYS_NICE")
UID_MODE_CAPABILITIES = ("SETUID", "SETGID", "SETPCAP", "KILL", "DAC_OVERRIDE", "FOWNER", "SYS_PTRACE")
FIRST_UID = 200_000
UIDS_PER_CONTAINER = 20_000
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
        mode: namespaces (fresh ones for each job), uid (where the engine refuses mounts), or auto to try both.
        cpus: of each container.
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
    ) -> None:
        if mode not in ("auto", "namespaces", "uid"):
            raise SandboxError(f"mode must be auto, namespaces or uid; got {mode!r}.")
        self.limits = limits
        self.mode = mode
        self._runtime = runtime
        self._cpus = cpus
        self._tmpfs_bytes = tmpfs_bytes
        self._serial = itertools.count()
        self._ids: dict[Worker, str] = {}
        require_engine()
        self._image = image or ensure_image(packages)
        sweep()

    def start(self) -> Worker:
        if self.mode == "auto":
            try:
                worker = self._start("namespaces")
            except WorkerLost as first:
                try:
                    worker = self._start("uid")
                except WorkerLost:
                    raise SandboxError(f"no container can be started: {first}") from None
                self.mode = "uid"
                return worker
            self.mode = "namespaces"
            return worker
        try:
            return self._start(self.mode)
        except WorkerLost as error:
            raise SandboxError(f"no container can be started in mode {self.mode}: {error}") from None

    def _start(self, mode: str) -> Worker:
        name = f"{REPOSITORY}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        uid = FIRST_UID + UIDS_PER_CONTAINER * (int(name[-4:], 16) % 1000)
        config = GuestConfig(mode=mode, uid=uid, tmpfs_bytes=self._tmpfs_bytes, inodes=4096)
        worker = Worker(self.command(name, mode), config, name=f"container {name}")
        self._ids[worker] = name
        if mode == "namespaces":
            from sandbox.api import Job, JobOutcome  # a job of our own tells whether mounts are allowed here

            result, _ = worker.run(Job(argv=("python", "probe.py"), files={"probe.py": b""}, limits=self.limits))
            worker.jobs = 0
            if result.outcome is not JobOutcome.OK:
                self.discard(worker)
                raise WorkerLost(f"namespaces are refused: {result.detail}")
        return worker

    def command(self, name: str, mode: str) -> list[str]:
        """What is run for one worker."""
        memory = self.limits.memory_bytes + SUPERVISOR_BYTES
        capabilities = SUPERVISOR_CAPABILITIES if mode == "namespaces" else UID_MODE_CAPABILITIES
        folders = ("/tmp", "/work", "/dev/shm") if mode == "uid" else ("/work",)
        options = f"rw,nosuid,nodev,mode=1777,size={self._tmpfs_bytes},nr_inodes=4096"
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
            *(self._image, "python3", "-I", "-B", "-c", BOOTSTRAP),
        ]

    def discard(self, worker: Worker) -> None:
        # our client first: an engine that is asked to remove a container waits for whoever still reads from it
        worker.kill()
        name = self._ids.pop(worker, None)
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


def require_engine() -> dict[str, object]:
    """What the engine says of itself.

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
    """An image from a Python image of a registry, by `docker build`; returns its name for `image=`."""
    wanted = sorted(canonical(name) for name in packages)
    lines = [f"FROM {base}", *([f"RUN pip install --no-cache-dir {' '.join(wanted)}"] if wanted else [])]
    lines.append("RUN mkdir -p /work")
    name = f"{REPOSITORY}:{base.replace(':', '-').replace('/', '-')}" + "".join(f"-{part}" for part in wanted)
    docker("build", "-t", name, "-", stdin="\n".join(lines).encode(), seconds=1800)
    return name


def owner() -> str:
    """This process, so that it is never taken for a later one of the same number: pid and start time."""
    return f"{os.getpid()}-{_start_time(os.getpid())}"


def sweep() -> int:
    """Remove containers whose owner is gone; returns how many there were."""
    columns = f'{{{{.ID}}}} {{{{.Label "{OWNER_LABEL}"}}}}'
    listed = docker("ps", "-a", "--filter", f"label={OWNER_LABEL}", "--format", columns)
    removed = 0
    for line in listed.splitlines():
        identifier, _, label = line.partition(" ")
        pid, _, started = label.partition("-")
        if pid.isdigit() and _start_time(int(pid)) != started:
            with contextlib.suppress(SandboxError):
                docker("rm", "-f", identifier)
                removed += 1
    return removed


def _start_time(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[19]
    except OSError:
        return ""
