"""Owner's side of a grading worker: sends rows, measures and kills it by wall clock, CPU time and resident memory."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO

from verifiers.child_process import running
from verifiers.errors import BadOption, UnknownVerifier, VerifierError
from verifiers.pool.work_queue import CLOSED, Item, Kind
from verifiers.pool.worker_main import HEADER, MAX_FRAME, Answer, Chunk, Row, frame
from verifiers.registry import allowed, importable_target
from verifiers.verdict import Verdict

START_SECONDS = 120.0
"""Wall-clock limit for starting a worker, and for loading a verifier (imports, models)."""
TICK_SECONDS = 0.05
"""Time between two measurements of a busy worker's memory and CPU time."""
STDERR_BYTES = 1 << 20
ADDRESS_SPACE = 2 << 30
"""Address space beyond the resident limit, in bytes; the worker's own limit if it cannot be measured from outside."""


REFUSED: Mapping[str, type[VerifierError]] = {"BadOption": BadOption, "UnknownVerifier": UnknownVerifier}


class WorkerGone(Exception):
    """The worker died, was killed, or broke the protocol."""


class TooSmall(Exception):
    """The verifier needs more memory than this worker's limit; its rows need a new worker."""


class Refusal(Exception):
    """The verifier cannot be created; the cause is a BadOption or an UnknownVerifier."""


class WorkerProcess:
    """Child process that grades chunks of rows of one kind; replaced whenever it is lost."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._buffer = bytearray()
        self._memory_limit = 0
        self._measured_at = 0.0
        self._phase_began = 0.0
        self._cpu_before: float | None = None
        """CPU seconds used before the current phase; None: not measured yet."""
        self._loading = False
        self._stopped = False
        self.idle = True
        self.kind: Kind | None = None
        """Kind of the rows being graded."""
        self.since = 0.0
        """Time when grading them began (monotonic seconds)."""
        self._working_since = 0.0
        """The same, without the start of a worker and imports."""

    def grade(self, chunk: Sequence[Item]) -> list[Item]:
        """Grade rows of one kind in order; return the rows that still have to be graded.

        If the worker is lost, the row being graded becomes a fault; the rows of a batch are each graded again alone.
        """
        batches = batched(chunk)
        done = 0
        try:
            self._ensure_worker(chunk[0].kind)
            self._working_since = time.monotonic()
            self._send(chunk[0].kind, batches)
            for batch in batches:
                self._grade_batch(batch)
                done += 1
        except TooSmall:
            self.kill()
        except WorkerGone as gone:
            self._lost(batches, done, str(gone))
        except Exception as error:  # boundary: an error of the pool itself becomes the row's fault, never silent
            self._lost(batches, done, f"grading pool: {type(error).__name__}: {error}")
        return [item for batch in batches[done:] for item in batch if not item.future.done()]

    def row_seconds(self, rows: int) -> float:
        """Return the seconds per row of the chunk just graded, without imports and the start of a worker."""
        return (time.monotonic() - max(self.since, self._working_since)) / rows

    def _grade_batch(self, batch: list[Item]) -> None:
        try:
            verdicts = self._await_verdicts(batch)
        except Refusal as refusal:
            error = refusal.__cause__
            for item in batch:
                if item.kind.isolated and isinstance(error, VerifierError):
                    item.refuse(error)
                else:
                    item.fault(f"{type(error).__name__}: {error}")
            return
        for item, verdict in zip(batch, verdicts, strict=True):
            item.settle(verdict)

    def _lost(self, batches: list[list[Item]], done: int, cause: str) -> None:
        loading = self._loading
        self.kill()
        if done == len(batches):
            return
        batch = batches[done]
        if loading:
            batch[0].kind.lost_loading += 1
            batch[0].kind.lost_at = time.monotonic()
        if len(batch) == 1:
            batch[0].fault(cause)
        for item in batch:
            item.alone = True

    def kill(self) -> None:
        """Kill the worker and everything it started in its session. A new one can be started afterwards."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._buffer.clear()
        self._loading = False

    def stop(self) -> None:
        """Kill the worker for good, from any thread."""
        self._stopped = True
        self.kill()

    @property
    def alive(self) -> bool:
        """True if the process is running."""
        return self._process is not None and self._process.poll() is None

    def spawn(self, memory_bytes: int) -> None:
        """Start a worker without waiting for it."""
        names = allowed()
        served = None if names is None else sorted(names | {importable_target(name) for name in names})
        self._memory_limit = memory_bytes
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            running("verifiers.pool.worker_main", f"main({self._memory_limit + ADDRESS_SPACE}, {served!r})"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
            env=os.environ | {"REASONER_POOL_WORKER": "1", "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._loading = True

    def _ensure_worker(self, kind: Kind) -> None:
        fresh = self._loading  # spawned, but not used yet
        if self.alive and self._memory_limit >= kind.memory_bytes and self._fits(kind):
            pass
        else:
            self.kill()
            self.spawn(kind.memory_bytes)
            fresh = True
        if fresh:
            self._begin_phase()
            self._await("ready", time.monotonic() + START_SECONDS, kind, cpu_seconds=START_SECONDS)
            self._loading = False

    def _fits(self, kind: Kind) -> bool:
        """Return True if its memory use leaves room for this verifier; measured at most once in TICK_SECONDS."""
        if time.monotonic() - self._measured_at < TICK_SECONDS:
            return True
        self._measured_at = time.monotonic()
        self._trim_stderr()
        return self._memory_bytes() < 0.8 * kind.memory_bytes

    def _send(self, kind: Kind, batches: list[list[Item]]) -> None:
        """Write the chunk; raise WorkerGone if the worker does not read it in time."""
        assert self._process is not None
        assert self._process.stdin is not None
        descriptor = self._process.stdin.fileno()
        rows: list[list[Row]] = [
            [(item.row.completion, item.row.reference, item.row.prompt, dict(item.row.info)) for item in batch]
            for batch in batches
        ]
        chunk = Chunk(name=kind.name, verifier=kind.target, options=kind.options, check=kind.check, batches=rows)
        left = memoryview(frame(chunk))
        poller = select.poll()
        poller.register(descriptor, select.POLLOUT)
        deadline = time.monotonic() + START_SECONDS
        while left:
            try:
                left = left[os.write(descriptor, left) :]
            except BlockingIOError:
                if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise WorkerGone("the grading worker stopped reading rows; it was killed") from None
            except BrokenPipeError:  # the read that follows reports why the worker is gone
                return

    def _await_verdicts(self, batch: list[Item]) -> list[Verdict]:
        kind, rows = batch[0].kind, len(batch)
        deadline, cpu = time.monotonic() + kind.wall_seconds * rows, kind.cpu_seconds * rows
        while True:
            self._begin_phase()
            answer = self._await(None, deadline, kind, cpu_seconds=cpu, rows=rows)
            if answer["kind"] == "loading":
                self._loading = True
                deadline, cpu = time.monotonic() + START_SECONDS, kind.cpu_seconds * rows + START_SECONDS
            elif answer["kind"] == "making":
                self._working_since = time.monotonic()
                if kind.isolated and kind.options:  # options from a client get the limits of one row
                    deadline, cpu = time.monotonic() + kind.wall_seconds, kind.cpu_seconds
            elif answer["kind"] == "loaded":
                self._loading = False
                kind.lost_loading = 0
                if kind.isolated and "needs" in answer:
                    kind.learn(answer["needs"])
                if kind.memory_bytes > self._memory_limit:
                    raise TooSmall
                deadline, cpu = time.monotonic() + kind.wall_seconds * rows, kind.cpu_seconds * rows
            elif "refused" in answer:
                self._loading = False
                name, detail = answer["refused"]
                raise Refusal from REFUSED[name](detail)
            else:
                self._loading = False
                return [Verdict.from_json(verdict) for verdict in answer.get("verdicts", [])]

    def _begin_phase(self) -> None:
        self._phase_began, self._cpu_before = time.monotonic(), None

    def _await(self, wanted: str | None, deadline: float, kind: Kind, *, cpu_seconds: float, rows: int = 1) -> Answer:
        """Return the next frame, or raise WorkerGone with the cause."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poller = select.poll()
        poller.register(descriptor, select.POLLIN | select.POLLHUP)
        while True:
            if self._stopped:
                raise WorkerGone(CLOSED)
            found = self._take_frame()
            if found is not None:
                if wanted is not None and found["kind"] != wanted:
                    raise WorkerGone(f"the grading worker answered {found['kind']!r} instead of {wanted!r}")
                return found
            now = time.monotonic()
            if now >= deadline:
                what = "starting or loading the verifier" if self._loading else "grading"
                making = START_SECONDS if not (kind.isolated and kind.options) else kind.wall_seconds
                seconds = making if self._loading else kind.wall_seconds * rows
                raise WorkerGone(f"{what} took longer than {seconds:g} s of wall-clock time; the worker was killed")
            if now - self._measured_at >= TICK_SECONDS:
                self._check_usage(kind, cpu_seconds, rows)
                self._measured_at = now
            if poller.poll(min(TICK_SECONDS, deadline - now) * 1000):
                data = os.read(descriptor, 1 << 20)
                if not data:
                    raise WorkerGone(self._exit_reason())
                self._buffer += data

    def _check_usage(self, kind: Kind, cpu_seconds: float, rows: int) -> None:
        memory = self._memory_bytes()
        if memory > kind.memory_bytes:
            raise WorkerGone(
                f"grading took {memory >> 20} MiB of memory, more than {kind.memory_bytes >> 20}; the worker was killed"
            )
        used = self._cpu_seconds()
        if self._cpu_before is None:  # measured TICK_SECONDS after the phase began: most rows are done by then
            self._cpu_before = used - (time.monotonic() - self._phase_began)
        if used - self._cpu_before > cpu_seconds:
            seconds = kind.cpu_seconds * rows
            raise WorkerGone(f"grading took longer than {seconds:g} s of CPU time; the worker was killed")

    def _take_frame(self) -> Answer | None:
        if len(self._buffer) < HEADER.size:
            return None
        (length,) = HEADER.unpack_from(self._buffer)
        if length > MAX_FRAME:
            raise WorkerGone("the grading worker broke the protocol (frame too long)")
        if len(self._buffer) < HEADER.size + length:
            return None
        body = bytes(self._buffer[HEADER.size : HEADER.size + length])
        del self._buffer[: HEADER.size + length]
        try:
            answer: Answer = json.loads(body)
            known = "kind" in answer
        except (ValueError, TypeError) as error:
            raise WorkerGone("the grading worker broke the protocol (not a JSON object)") from error
        if not known:
            raise WorkerGone("the grading worker broke the protocol (no kind)")
        return answer

    def _exit_reason(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "the grading worker closed its pipe but kept running; it was killed"
        tail = self._log_tail()
        if code < 0:
            try:
                how = f"was ended by {signal.Signals(-code).name}"
            except ValueError:
                how = f"was ended by signal {-code}"
        else:
            how = f"exited with status {code}"
        when = "starting or loading the verifier" if self._loading else "grading this row"
        return f"the grading worker {how} while {when}" + (f": {tail}" if tail else "")

    def _log_tail(self) -> str:
        if self._stderr is None:
            return ""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 2000))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:500] if lines else ""

    def _trim_stderr(self) -> None:
        if self._stderr is not None and os.fstat(self._stderr.fileno()).st_size > STDERR_BYTES:
            os.ftruncate(self._stderr.fileno(), 0)

    def _memory_bytes(self) -> int:
        return _proc_memory(self._process.pid) if self._process else 0

    def _cpu_seconds(self) -> float:
        return _proc_cpu(self._process.pid) if self._process else 0.0


def batched(chunk: Sequence[Item]) -> list[list[Item]]:
    """Split a chunk of one kind into batches of the size that its verifier asks for."""
    batches: list[list[Item]] = []
    for item in chunk:
        wanted = 1 if item.alone else max(1, item.kind.batch_rows)
        if batches and len(batches[-1]) < wanted and not batches[-1][0].alone:
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches


_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def _proc_memory(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 without /proc (the worker's own limit still applies)."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _proc_cpu(pid: int) -> float:
    """Return the CPU seconds of a process; 0 without /proc (the wall-clock limit still applies)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    except (OSError, IndexError):
        return 0.0
