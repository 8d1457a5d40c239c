"""Interface of every sandbox backend: limits, jobs, results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import TracebackType
from typing import ClassVar, Self

MIB = 1 << 20


class SandboxError(RuntimeError):
    """The sandbox could not be created or used; this says nothing about the program."""

    exit_code: ClassVar[int] = 1
    """Exit status of a command that fails with this error."""


class SandboxUnavailable(SandboxError, OSError):
    """This machine lacks what the backend needs; the message says what, and how to get it."""


class JobTooLarge(SandboxError, ValueError):
    """The job's files and input exceed a limit; nothing was run."""


class JobOutcome(StrEnum):
    """How a job ended. Only `infrastructure_fault` is not caused by the program."""

    OK = "ok"
    NONZERO_EXIT = "nonzero_exit"
    WALL_TIMEOUT = "wall_timeout"
    CPU_LIMIT = "cpu_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    KILLED = "killed"
    INFRASTRUCTURE_FAULT = "infrastructure_fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a job, all always on. Exceeding one kills all of the job's processes."""

    cpu_seconds: float = 5.0
    """CPU seconds of the job's processes together."""
    wall_seconds: float = 20.0
    """Wall-clock seconds: a multiple of the CPU limit, so that an honest job does not fail on a busy machine."""
    memory_bytes: int = 512 * MIB
    address_bytes: int = 1024 * MIB
    """Address space of each process beyond twice `memory_bytes`: some runtimes reserve much more than they use."""
    processes: int = 64
    file_bytes: int = 16 * MIB
    """Size of the largest file that the job can write."""
    open_files: int = 256
    stack_bytes: int = 64 * MIB
    """Stack of the main thread; the program may raise it."""
    output_bytes: int = 4 * MIB
    """Most bytes of each of stdout, stderr and the result channel."""
    input_bytes: int = 16 * MIB
    """Most bytes of a job's files and stdin together."""

    def __post_init__(self) -> None:
        for field_ in fields(self):
            value = getattr(self, field_.name)
            if not value > 0:
                raise ValueError(f"{field_.name} must be above 0; got {value}. Limits cannot be switched off.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Program to run in fresh isolation.

    Example:
        >>> Job(argv=("python", "main.py"), files={"main.py": b"print(1 + 1)"}).argv[0]
        'python'
    """

    argv: Sequence[str]
    """Command. A leading "python" is the sandbox's own interpreter (isolated mode, no user site)."""
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Relative path -> content, written to the job's private working directory before it starts."""
    executable: Collection[str] = ()
    """Names of the files that may be executed."""
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    limits: Limits = field(default_factory=Limits)
    result_channel: bool = False
    """True: descriptor 3 of the job is a pipe; its bytes are returned as `JobResult.result`."""
    helper: Job | None = None
    """Second program, isolated from this one and killed when it ends. Descriptor 4 of this job is the helper's standard
    input, descriptor 5 its result channel."""
    modules: Sequence[str] = ()
    """Names of the sandbox's preloaded modules that this Python program may import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """Result of a job. Output is cut at the limit, which the outcome then reports."""

    outcome: JobOutcome
    exit_code: int | None = None
    """Exit status, or the negative signal number; None if there was no process."""
    stdout: bytes = b""
    stderr: bytes = b""
    result: bytes = b""
    """Bytes written to the result channel. The job wrote them: they are a claim, not a verdict."""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    """Seconds from the job's start in the sandbox; `queue_seconds` is the wait for a free worker before it."""
    queue_seconds: float = 0.0
    peak_memory_bytes: int = 0
    detail: str = ""
    """Sentence for people on how it ended."""
    helper: JobResult | None = None


class Sandbox(ABC):
    """Interface of a sandbox. Jobs can be run from any number of threads and event loops."""

    @abstractmethod
    def run(self, job: Job) -> JobResult:
        """Run one job to its end, after waiting for a free worker (back-pressure).

        Returns:
            The result; errors of the program are reported in it, not raised.
        Raises:
            JobTooLarge: the job exceeds a limit on its input; nothing was run.
            SandboxError: the job is invalid, or the sandbox is closed.
        """

    @abstractmethod
    async def run_async(self, job: Job) -> JobResult:
        """Run one job as `run` does, from a coroutine."""

    @abstractmethod
    def close(self) -> None:
        """Kill all workers and jobs; this also happens when the owner process ends. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
