"""Starts the parts of a run, watches them, starts again what dies, and ends with the trainers.

Keeps `RUN/cluster/cluster.json` (where every part is) and one log a part beside it. Everything runs in one thread but
for the health checks and the regular writing of cluster.json, which must not wait for a part that is slow to end.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from reasoner.cluster.health import Answer, ask
from reasoner.cluster.part import Part, say
from reasoner.cluster.parts import (
    ENGINE_KEY,
    Start,
    cluster_of,
    grader_command,
    sampler_command,
    trainer_command,
)
from reasoner.cluster.placement import AnySeat, Placement
from reasoner.cluster.seat import SeatLost
from reasoner.config.stage import RunConfig
from reasoner.errors import FAILED, INTERRUPTED, USAGE, ReasonerError
from reasoner.storage.cluster_file import (
    ASKED_FILE,
    CLUSTER_FILE,
    CLUSTER_FOLDER,
    Asked,
    Place,
    Places,
    State,
    now,
    read_asked,
    write_places,
)
from reasoner.storage.files import as_disk_error, write_atomic
from reasoner.storage.run_lock import LOCK_FILE, locked
from verifiers.one_writer import Held, WriterLock
from verifiers.serve.addresses import http_address
from verifiers.serve.client import TOKEN_VARIABLE

LOOP_SECONDS = 0.2
LOOK_SECONDS = 5.0
"""Time between two health checks of a part, between two versions of cluster.json, and the wait for an answer."""
HUNG_SECONDS = 120.0
"""Time without an answer after which a server that was up is ended and started again (ours)."""
LONGEST_PAUSE = 30.0
"""Longest pause before a part is started again, in seconds."""
TAIL_BYTES = 1 << 16
"""Bytes from the end of metrics.jsonl that hold its last row."""
RESTARTED = ("EngineError", "ProcessError")
"""Errors in failed.json after which a run goes on: its servers, or others of its trainers, were lost."""


class ClusterError(ReasonerError, RuntimeError):
    """A part of the run cannot be started, or dies again and again; the message says which, and where its log is."""

    exit_code = FAILED


@dataclass
class Driver:
    """The parts of one run."""

    config: RunConfig
    start: Start
    placement: Placement
    resume: bool

    def __post_init__(self) -> None:
        cluster = cluster_of(self.config)
        self.root = Path(self.config.output).resolve()
        self.folder = self.root / CLUSTER_FOLDER
        self.file = self.folder / CLUSTER_FILE
        counts = {"trainer": cluster.trainer_machines, "sampler": cluster.samplers, "grader": cluster.graders}
        self.parts = {
            role: [
                Part(role, number, Place(state="starting", log=f"{CLUSTER_FOLDER}/{role}-{number}.log"))
                for number in range(count)
            ]
            for role, count in counts.items()
        }
        self.key = os.environ.get(ENGINE_KEY, "").strip() or secrets.token_urlsafe(24)
        self.token = os.environ.get(TOKEN_VARIABLE, "").strip() or secrets.token_urlsafe(24)
        self._signals_received, self._ending, self._closing = 0, False, False
        self._asked: Asked | None = None
        self._answers: queue.SimpleQueue[tuple[Part, float, Answer]] = queue.SimpleQueue()
        self._writing, self._changed = threading.Lock(), True
        self._reached, self._progress_due = (0, 0), 0.0
        self._trainers_started = False
        self._earlier_failures: dict[Path, tuple[int, int]] = {}
        """Each failed.json that was there when the trainers were started: inode and time."""

    def run(self) -> int:
        """Run until the trainers have ended; return the exit status.

        Raises:
            ClusterError: a part dies again and again, or a machine does not see the run folder.
            DiskError: the disk of the run folder is full.
            RunError: another command starts parts for this run folder.
        """
        os.environ[ENGINE_KEY], os.environ[TOKEN_VARIABLE] = self.key, self.token  # for all parts, see `forwarded`
        advice = "Free disk space, then continue with --resume."
        with as_disk_error(f"data of the run {self.root}", self.root, advice), locked(self.folder), self._signals():
            (self.folder / ASKED_FILE).unlink(missing_ok=True)
            ended = threading.Event()
            writer = threading.Thread(target=self._write_regularly, args=(ended,), daemon=True)
            writer.start()
            try:
                return self._watch()
            finally:
                self._closing = True
                self._end_all()
                ended.set()
                writer.join()
                self._write()

    def _watch(self) -> int:
        while True:
            if self._signals_received and not self._ending:
                self._end_trainers()
            self._look()
            for part in self._servers():
                self._tend(part)
            code = self._tend_trainers()
            if code is not None:
                return code
            if self._changed:
                self._write()
            time.sleep(LOOP_SECONDS)

    def _end_trainers(self) -> None:
        """Let the trainers write a checkpoint and end."""
        self._ending = True
        self._tell("stopping after this step, with a checkpoint (again: at once)")
        for part in self.parts["trainer"]:
            if part.seat is not None:
                with suppress(SeatLost):
                    part.seat.interrupt()

    def _end_all(self) -> None:
        """End all parts, side by side, and give up their seats."""
        seated = [part for part in self._all() if part.seat is not None]

        def end(part: Part) -> None:
            assert part.seat is not None
            with suppress(SeatLost):
                part.seat.stop()

        with ThreadPoolExecutor(max(1, len(seated))) as pool:
            list(pool.map(end, seated))
        for part in seated:
            assert part.seat is not None
            with suppress(SeatLost, OSError):
                part.poll(self.root)
            with suppress(SeatLost):
                part.seat.close()
        for part in self._all():
            part.set("ended", part.place.why)

    # Samplers and graders

    def _tend(self, part: Part) -> None:
        """Start a server that does not run, if it may; take note of one that has ended."""
        try:
            self._note_end(part)
            if part.role == "sampler" and not self._asked_for(part):
                return
            if not part.runs and time.monotonic() >= part.not_before:
                self._start_server(part)
        except SeatLost as error:
            self._lost(part, str(error))

    def _note_end(self, part: Part) -> None:
        if not part.runs:
            return
        code = part.poll(self.root)
        if code is not None:
            self._failed(part, _ended(code))
        elif part.place.state == "starting" and part.unanswered - part.started > cluster_of(self.config).wait_seconds:
            self._failed(part, f"did not answer in {part.unanswered - part.started:.0f} s")
        elif part.place.state == "up" and part.silent and part.unanswered - part.silent > HUNG_SECONDS:
            self._failed(part, f"has not answered for {part.unanswered - part.silent:.0f} s")

    def _asked_for(self, part: Part) -> bool:
        """Return True if trainers have asked for samplers. One that serves another model is ended."""
        asked = read_asked(self.folder)
        if asked is None:
            return False
        self._asked = asked
        if part.runs and part.place.serves != asked.mark:
            part.stop(self.root)
            self._set(part, "down", "another model is asked for")
            part.failures, part.not_before = 0, 0.0
        return True

    def _start_server(self, part: Part) -> None:
        """Start a server, at the port that it had. Raise SeatLost if there is no machine."""
        seat = self._seat(part)
        part.port = part.port or seat.free_port()
        host, port = seat.host, part.port
        if part.role == "sampler":
            assert self._asked is not None
            here = self.placement.one_machine
            command = sampler_command(self.config, self._asked, host=host, port=port, key=self.key, here=here)
            part.place.serves, part.place.version = self._asked.mark, None
        else:
            command = grader_command(self.config, host=host, port=port, token=self.token)
        seat.start(command)
        part.place.url = http_address(host, port)
        part.started = time.monotonic()
        part.answered = part.silent = part.unanswered = part.asked = 0.0
        self._set(part, "starting", None)

    def _failed(self, part: Part, why: str) -> None:
        """Take note of the end of a part; it is started again after a pause that doubles.

        Raises:
            ClusterError: it has ended too often without success.
        """
        with suppress(SeatLost):
            part.stop(self.root)
        part.failures = 1 if part.answered else part.failures + 1
        if not part.answered:
            part.port = 0  # maybe another program has it
        part.answered = 0.0
        part.place.restarts += 1
        part.not_before = time.monotonic() + min(LONGEST_PAUSE, 2 ** (part.failures - 1) - 1)
        self._set(part, "down", why)
        if part.failures > cluster_of(self.config).restarts:
            raise ClusterError(self._gives_up(part, why))
        self._tell(f"{part.name} {why}; it is started again (its log: {self.root / str(part.place.log)})")

    def _lost(self, part: Part, why: str) -> None:
        """Take note that the machine of a part is gone: it needs another seat."""
        gone = "is on a machine that is gone" if part.seat is not None else "has got no machine"
        part.leave_seat()
        self._failed(part, f"{gone} ({why})")

    def _gives_up(self, part: Part, why: str) -> str:
        return (
            f"{part.name} {why}, {part.failures} times without success in between (cluster.restarts="
            f"{cluster_of(self.config).restarts}). Its log says why: {self.root / str(part.place.log)}. Continue with"
            " --resume."
        )

    # Trainers

    def _tend_trainers(self) -> int | None:
        """Start the trainers when the graders are up; return the run's exit status when they have ended."""
        trainers = self.parts["trainer"]
        if not all(part.runs and part.place.state == "up" for part in trainers):
            if self._ending:
                return INTERRUPTED
            if any(part.place.state != "up" for part in self.parts["grader"]) and not self._trainers_started:
                return None
            if time.monotonic() >= trainers[0].not_before:
                self._start_trainers()
            return None
        codes: list[int | None] = []
        for part in trainers:
            try:
                codes.append(part.poll(self.root))
            except SeatLost as error:
                part.leave_seat()
                self._stop_trainers(f"is on a machine that is gone ({error})", first=part)
                return None
        self._note_progress(at_once=any(code is not None for code in codes))
        if all(code == 0 for code in codes):
            return 0
        if self._ending:  # on another machine one may still write the checkpoint
            return None if None in codes else INTERRUPTED
        ended = [(part, code) for part, code in zip(trainers, codes, strict=True) if code]
        return self._trainers_ended(*ended[0]) if ended else None

    def _start_trainers(self) -> None:
        """Start all trainers; after the first time they go on with what the run folder holds."""
        trainers, again = self.parts["trainer"], self._trainers_started
        try:
            seats = [self._seat(part) for part in trainers]
            self._check_folder(seats)
            port = seats[0].free_port()
            if again:
                self._remove_lock()
            self._earlier_failures = self._failures()
            self._trainers_started = True
            for part, seat in zip(trainers, seats, strict=True):
                seat.start(
                    trainer_command(
                        self.config,
                        self.start,
                        machine=part.number,
                        address=seats[0].host,
                        port=port,
                        file=self.file,
                        resume=self.resume or again,
                    )
                )
                self._set(part, "up", None)
        except SeatLost as error:
            self._stop_trainers(f"has got no machine ({error})")

    def _check_folder(self, seats: list[AnySeat]) -> None:
        """Raise ClusterError if a machine does not see the run folder."""
        seen, content = self.folder / "seen", secrets.token_hex(16)
        write_atomic(seen, content.encode())
        for seat in seats:
            if not seat.sees(str(seen), content):
                raise ClusterError(
                    f"{seat.machine} must see the run folder {self.root} as this machine does; it does not. Set output"
                    " to a folder of a file system that all machines with trainers share (NFS, Lustre)."
                )
        seen.unlink()

    def _remove_lock(self) -> None:
        """Remove the lock of trainers that are dead, maybe on a machine that is gone.

        Raises:
            ClusterError: somebody else writes the run.
        """
        file = self.root / LOCK_FILE
        try:
            WriterLock.hold(file).release()
        except Held as held:
            if held.seen and held.writer is not None and held.writer.host == socket.gethostname():
                raise ClusterError(
                    f"{self.root} is being written by {held}, which took it over while its trainers were down. Stop"
                    " that, then continue with --resume."
                ) from held
            file.unlink(missing_ok=True)

    def _trainers_ended(self, part: Part, code: int) -> int | None:
        if code == INTERRUPTED:
            return INTERRUPTED
        failure = self._failure()
        if failure is not None and failure not in RESTARTED:
            return FAILED  # the trainer's own output says what to do
        if code == USAGE and cluster_of(self.config).trainers <= 1:
            return USAGE
        self._stop_trainers(_ended(code), first=part)
        return None

    def _stop_trainers(self, why: str, *, first: Part | None = None) -> None:
        """End what is left of the trainers; they are started again, all of them.

        Args:
            why: what became of `first`.
            first: the one that has ended; None: it is one without a seat.
        """
        trainers = self.parts["trainer"]
        for part in trainers:
            try:
                part.stop(self.root)
            except SeatLost:
                part.leave_seat()
        told = first or next((part for part in trainers if part.seat is None), trainers[0])
        for part in trainers:
            if part is not told:
                part.place.restarts += 1
                part.failures += 1
                self._set(part, "down", "ends with the others")
        self._failed(told, why)
        for part in trainers:
            part.not_before = told.not_before

    def _note_progress(self, *, at_once: bool) -> None:
        """Take note of a step that no trainer has reached before; now and then, or `at_once`."""
        if time.monotonic() < self._progress_due and not at_once:
            return
        self._progress_due = time.monotonic() + LOOK_SECONDS / 5
        reached = max(
            ((index, step) for index, stage in enumerate(self._stages()) if (step := last_step(stage))),
            default=(0, 0),
        )
        if reached > self._reached:
            self._reached = reached
            for part in self.parts["trainer"]:
                part.failures, part.place.version = 0, str(reached[1])

    def _stages(self) -> list[Path]:
        """Return the folders of the stages' records."""
        return [self.config.stage_folder(index).resolve() for index in range(len(self.config.stages))]

    def _failures(self) -> dict[Path, tuple[int, int]]:
        """Return inode and time of each stage's failed.json."""
        found: dict[Path, tuple[int, int]] = {}
        for stage in self._stages():
            with suppress(OSError):
                about = (stage / "failed.json").stat()
                found[stage / "failed.json"] = (about.st_ino, about.st_mtime_ns)
        return found

    def _failure(self) -> str | None:
        """Return the error that stopped the trainers, if they said so in failed.json since they were started."""
        for file, about in self._failures().items():
            if about != self._earlier_failures.get(file):
                with suppress(OSError, ValueError, KeyError, TypeError):
                    return str(json.loads(file.read_bytes())["error"])
        return None

    # All parts

    def _all(self) -> Iterator[Part]:
        return (part for parts in self.parts.values() for part in parts)

    def _servers(self) -> list[Part]:
        return [*self.parts["grader"], *self.parts["sampler"]]

    def _seat(self, part: Part) -> AnySeat:
        if part.seat is None:
            part.seat = self.placement.seat(part.role, part.number)
            part.place.machine = part.seat.machine
        return part.seat

    def _look(self) -> None:
        """Take note of the outcomes of health checks, and begin those that are due, each in a thread of its own."""
        while not self._answers.empty():
            self._heard(*self._answers.get())
        for part in self._servers():
            pause = LOOK_SECONDS if part.place.state == "up" else LOOK_SECONDS / 5
            if part.runs and part.place.url and not part.asking and time.monotonic() - part.asked >= pause:
                part.asking, part.asked = True, time.monotonic()
                threading.Thread(target=self._ask, args=(part, part.place.url, part.started), daemon=True).start()

    def _ask(self, part: Part, url: str, started: float) -> None:
        sampler = part.role == "sampler"
        answer = ask(url, key=self.key if sampler else self.token, seconds=LOOK_SECONDS, weights=sampler)
        self._answers.put((part, started, answer))

    def _heard(self, part: Part, started: float, answer: Answer) -> None:
        part.asking = False
        if part.started != started or not part.runs:
            return
        if not answer.up:
            part.silent, part.unanswered = part.silent or answer.at, answer.at
            return
        part.answered, part.silent = answer.at, 0.0
        part.place.version = answer.version or part.place.version
        if part.place.state == "starting":
            self._set(part, "up", None)

    def _set(self, part: Part, state: State, why: str | None) -> None:
        part.set(state, why)
        self._changed = True

    def _write(self) -> None:
        with self._writing:
            self._changed = False
            places = {f"{role}s": [part.place for part in parts] for role, parts in self.parts.items()}
            keeper = f"process {os.getpid()} on {socket.gethostname()}"
            write_places(self.file, Places(**places, kept_by=keeper, time=now()))

    def _write_regularly(self, ended: threading.Event) -> None:
        """Write cluster.json so often that everybody sees that this process lives."""
        while not ended.wait(LOOK_SECONDS):
            with suppress(OSError):  # the main thread says so
                self._write()

    def _tell(self, sentence: str) -> None:
        say(sys.stderr, f"cluster: {sentence}\n")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """On the first Ctrl-C or SIGTERM let the trainers write a checkpoint and end; on the second end at once."""

        def asked(number: int, _: FrameType | None) -> None:
            self._signals_received += 1  # the loop does the rest: what it is doing may not be begun a second time
            if self._signals_received > 1 and not self._closing:
                raise KeyboardInterrupt

        before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def last_step(stage: Path) -> int:
    """Return the last step in a stage's metrics; 0: none."""
    with suppress(OSError, ValueError, KeyError, IndexError), (stage / "metrics.jsonl").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        return int(json.loads(file.read().rpartition(b"\n")[0].splitlines()[-1])["step"])
    return 0


def _ended(code: int) -> str:
    """Say how a process ended."""
    if code < 0:
        with suppress(ValueError):
            return f"was killed ({signal.Signals(-code).name})"
    return f"ended with status {code}"
