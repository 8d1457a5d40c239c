"""What a sandbox takes and gives: limits, jobs, results, and the interface of every backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import TracebackType
from typing import ClassVar, Self

MIB = 1 << 20


class SandboxError(RuntimeError):
    """The sandbox itself could not be made or used; nothing is said about the program."""

    exit_code: ClassVar[int] = 1
    """Exit status of a command that ends with it."""


class SandboxUnavailable(SandboxError, OSError):
    """This machine cannot offer that backend; the message says what is missing and how to get it."""


class JobTooLarge(SandboxError, ValueError):
    """The job's files and input exceed `Limits.input_bytes`; nothing was run."""


class JobOutcome(StrEnum):
    """How a job ended. Only `infrastructure_fault` is not the program's doing."""

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
    """Always on, for every job; each kills the job's whole namespace."""

    cpu_seconds: float = 5.0
    """CPU time of the job's processes together."""
    wall_seconds: float = 20.0
    """Wall-clock time: a multiple of the CPU limit, so that a busy machine does not fail an honest job."""
    memory_bytes: int = 512 * MIB
    address_bytes: int = 1024 * MIB
    """Address space of each process, beyond twice `memory_bytes`: some runtimes reserve much that they never use."""
    processes: int = 64
    file_bytes: int = 16 * MIB
    """Largest file that the job can write."""
    open_files: int = 256
    stack_bytes: int = 64 * MIB
    """Of the main thread; the program itself may raise it."""
    output_bytes: int = 4 * MIB
    """Cap of each of stdout, stderr and the result channel."""
    input_bytes: int = 16 * MIB
    """Largest job (files and stdin together) that is accepted."""

    def __post_init__(self) -> None:
        for field_ in fields(self):
            value = getattr(self, field_.name)
            if not value > 0:
                raise ValueError(f"{field_.name} must be above 0; got {value}. There is no such thing as no limit.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One program to run in a fresh world.

    Example:
        >>> Job(argv=("python", "main.py"), files={"main.py": b"print(1 + 1)"}).argv[0]
        'python'
    """

    argv: Sequence[str]
    """Command; a leading "python" is the sandbox's own interpreter (isolated mode, no user site)."""
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Relative path to content, written to the job's private working directory before it starts."""
    executable: Collection[str] = ()
    """Of the files, those that may be run as programs."""
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    limits: Limits = field(default_factory=Limits)
    result_channel: bool = False
    """True: descriptor 3 of the job is a pipe whose bytes come back as `JobResult.result`."""
    helper: Job | None = None
    """A second program in a world of its own, killed when this one ends. Descriptor 4 of this job is its standard
    input, descriptor 5 its result channel."""
    modules: Sequence[str] = ()
    """Of the modules that the sandbox was opened with, those that this Python program may import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What happened; output is cut at the limit, never dropped silently."""

    outcome: JobOutcome
    exit_code: int | None = None
    """Exit status, or minus the signal number; None where there was no process."""
    stdout: bytes = b""
    stderr: bytes = b""
    result: bytes = b""
    """What the job wrote to the result channel. The job wrote it: it is a claim, not a verdict."""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    """From the job's start in the sandbox; waiting for a free place is `queue_seconds`."""
    queue_seconds: float = 0.0
    peak_memory_bytes: int = 0
    detail: str = ""
    """One sentence on how it ended, for a person."""
    helper: JobResult | None = None


class Sandbox(ABC):
    """Runs jobs, any number at a time, from any thread or event loop."""

    @abstractmethod
    def run(self, job: Job) -> JobResult:
        """Run one job to its end; waits for a free place (back-pressure). Never raises for the program."""

    @abstractmethod
    async def run_async(self, job: Job) -> JobResult:
        """The same from a coroutine."""

    @abstractmethod
    def close(self) -> None:
        """Kill everything that is ours. Idempotent; also done when the owner dies, however it dies."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
