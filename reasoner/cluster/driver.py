"""Starts the parts of a run, watches them, starts again what dies, and ends with the trainers.

Keeps `RUN/cluster/cluster.json` (where every part is) and one log a part beside it. Everything runs in one thread but
for the health checks, which may wait.
"""

from __future__ import annotations

import codecs
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from reasoner.cluster.parts import (
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
    now,
    read_asked,
    write_places,
)
from reasoner.storage.run_lock import LOCK_FILE, locked

LOOP_SECONDS = 0.2
LOOK_SECONDS = 5.0
"""Time between two health checks of a part, between two versions of cluster.json, and the wait for an answer."""
HUNG_SECONDS = 120.0
"""Time without an answer after which a server that was up is ended and started again (ours)."""
LONGEST_PAUSE = 30.0
"""Longest pause before a part is started again, in seconds."""
TAIL_BYTES = 1 << 16
"""Bytes from the end of metrics.jsonl that hold its last row."""
ENGINE_KEY, VERIFIER_TOKEN = "REASONER_ENGINE_KEY", "REASONER_VERIFIER_TOKEN"
RESTARTED = ("EngineError",)
"""Errors in failed.json after which a run goes on: its servers were lost, and are started again."""


class ClusterError(ReasonerError, RuntimeError):
    """A part of the run cannot be started, or dies again and again; the message says which, and where its log is."""

    exit_code = FAILED


@dataclass
class Part:
    """One part of the run and what became of it."""

    role: str
    number: int
    place: Place
    seat: AnySeat | None = None
    port: int = 0
    failures: int = 0
    """Ends since the last success."""
    not_before: float = 0.0
    """Monotonic time before which it is not started again."""
    started: float = 0.0
    answered: float = 0.0
    """Monotonic time of its last answer to a health check; 0: none since its start."""

    @property
    def name(self) -> str:
        """How it is called in messages and log files."""
        return f"{self.role}-{self.number}"


@dataclass
class Driver:
    """The parts of one run."""

    config: RunConfig
    start: Start
    placement: Placement
    resume: bool
    _ending: list[int] = field(default_factory=list[int])
    """Signals received."""

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
        self.token = os.environ.get(VERIFIER_TOKEN, "").strip() or secrets.token_urlsafe(24)
        self._asked: Asked | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._written, self._looked = 0.0, 0.0
        self._reached, self._progress_due = (0, 0), 0.0
        self._checking: threading.Thread | None = None
        self._trainers_started = 0.0

    def run(self) -> int:
        """Run until the trainers have ended; return the exit status.

        Raises:
            ClusterError: a part dies again and again, or a machine does not see the run folder.
        """
        os.environ[ENGINE_KEY], os.environ[VERIFIER_TOKEN] = self.key, self.token  # for all parts, see `forwarded`
        with locked(self.folder), self._signals():
            (self.folder / ASKED_FILE).unlink(missing_ok=True)
            self._write()
            try:
                return self._watch()
            finally:
                for part in self._all():
                    if part.seat is not None:
                        with suppress(SeatLost):
                            part.seat.close()
                    part.place.state = "ended"
                self._write()

    def _watch(self) -> int:
        while True:
            for part in [*self.parts["grader"], *self.parts["sampler"]]:
                self._tend(part)
            code = self._tend_trainers()
            if code is not None:
                return code
            self._look()
            if time.monotonic() - self._written > LOOK_SECONDS:
                self._write()
            time.sleep(LOOP_SECONDS)

    # Samplers and graders

    def _tend(self, part: Part) -> None:
        """Start a server that does not run, if it may; take note of one that has ended."""
        if part.seat is not None and part.place.state in ("starting", "up"):
            try:
                code = self._poll(part)
            except SeatLost as error:
                return self._lost(part, str(error))
            waited = time.monotonic() - max(part.started, part.answered)
            if code is not None:
                self._failed(part, _ended(code))
            elif part.place.state == "starting" and waited > cluster_of(self.config).wait_seconds:
                self._failed(part, f"did not answer in {waited:.0f} s")
            elif part.place.state == "up" and waited > HUNG_SECONDS:
                self._failed(part, f"has not answered for {waited:.0f} s")
        if part.role == "sampler":
            asked = read_asked(self.folder)
            if asked is None:
                return None
            self._asked = asked
            if part.place.serves != asked.mark and part.seat is not None and part.place.state != "down":
                part.seat.stop()
                self._set(part, "down", "another model is asked for")
                part.failures, part.not_before = 0, 0.0
        running = part.place.state in ("starting", "up") and part.seat is not None
        if not running and time.monotonic() >= part.not_before:
            self._start_server(part)
        return None

    def _start_server(self, part: Part) -> None:
        try:
            seat = self._seat(part)
            part.port = part.port or seat.free_port()
            host, port = seat.host, part.port
            if part.role == "sampler":
                assert self._asked is not None
                here = self.placement.one_machine
                command = sampler_command(self.config, self._asked, host=host, port=port, key=self.key, here=here)
                part.place.serves = self._asked.mark
            else:
                command = grader_command(self.config, host=host, port=port, token=self.token)
            seat.start(command)
        except SeatLost as error:
            return self._lost(part, str(error))
        part.place.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        part.started, part.answered = time.monotonic(), 0.0
        return self._set(part, "starting", None)

    def _failed(self, part: Part, why: str) -> None:
        """Take note of the end of a part; it is started again after a pause that doubles.

        Raises:
            ClusterError: it has ended too often without success.
        """
        if part.seat is not None:
            with suppress(SeatLost):
                part.seat.stop()
        part.failures = 1 if part.answered else part.failures + 1
        part.place.restarts += 1
        part.not_before = time.monotonic() + min(LONGEST_PAUSE, 2 ** (part.failures - 1) - 1)
        self._set(part, "down", why)
        if part.failures > cluster_of(self.config).restarts:
            raise ClusterError(self._gives_up(part, why))
        self._tell(f"{part.name} {why}; it is started again (its log: {self.root / str(part.place.log)})")

    def _lost(self, part: Part, why: str) -> None:
        """Take note that the machine of a part is gone: it needs another seat."""
        part.seat, part.port = None, 0
        self._failed(part, f"is on a machine that is gone ({why})")

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
        if any(part.seat is None or part.place.state in ("starting", "down") for part in trainers):
            if any(part.place.state != "up" for part in self.parts["grader"]) and not self._trainers_started:
                return None
            if self._ending:
                return INTERRUPTED
            if time.monotonic() >= trainers[0].not_before:
                self._start_trainers()
            return None
        codes: list[int | None] = []
        for part in trainers:
            try:
                codes.append(self._poll(part))
            except SeatLost as error:
                part.seat = None
                self._stop_trainers(str(error), lost=True, first=part)
                return None
        self._note_progress()
        if all(code == 0 for code in codes):
            return 0
        ended = [(part, code) for part, code in zip(trainers, codes, strict=True) if code]
        if not ended:
            return None
        return self._trainers_ended(*ended[0])

    def _start_trainers(self) -> None:
        trainers = self.parts["trainer"]
        again = bool(self._trainers_started)
        try:
            seats = [self._seat(part) for part in trainers]
            self._check_folder(seats)
            port = seats[0].free_port()
            if again:  # the processes that held it are dead, maybe on a machine that is gone
                (self.root / LOCK_FILE).unlink(missing_ok=True)
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
            self._stop_trainers(str(error), lost=True)
            return
        self._trainers_started = time.time()

    def _check_folder(self, seats: list[AnySeat]) -> None:
        """Raise ClusterError if a machine does not see the run folder."""
        seen, content = self.folder / "seen", secrets.token_hex(16)
        seen.write_text(content, encoding="utf-8")
        for seat in seats:
            if not seat.sees(str(seen), content):
                raise ClusterError(
                    f"{seat.machine} must see the run folder {self.root} as this machine does; it does not. Set output"
                    " to a folder of a file system that all machines with trainers share (NFS, Lustre)."
                )

    def _trainers_ended(self, part: Part, code: int) -> int | None:
        if self._ending or code == INTERRUPTED:
            return INTERRUPTED
        failure = self._failure()
        if failure is not None and failure["error"] not in RESTARTED:
            return FAILED  # the trainer's own output says what to do
        if code == USAGE and len(self.parts["trainer"]) == 1 and max(1, cluster_of(self.config).trainers) == 1:
            return USAGE
        self._stop_trainers(_ended(code), first=part)
        return None

    def _stop_trainers(self, why: str, *, lost: bool = False, first: Part | None = None) -> None:
        """End what is left of the trainers; they are started again, all of them."""
        trainers = self.parts["trainer"]
        for part in trainers:
            if part.seat is None:
                continue
            try:
                part.seat.stop()
                self._poll(part)
            except SeatLost:
                part.seat = None
        told = first or trainers[0]
        for part in trainers:
            if part is not told:
                part.place.restarts += 1
                part.failures += 1
                self._set(part, "down", "ends with the others")
        told.answered = 0.0
        self._failed(told, "is on a machine that is gone (" + why + ")" if lost else why)
        for part in trainers:
            part.not_before = told.not_before

    def _note_progress(self) -> None:
        """Take note of a step that no trainer has reached before."""
        if time.monotonic() < self._progress_due:
            return
        self._progress_due = time.monotonic() + LOOK_SECONDS / 5
        reached = max(
            ((index, step) for index in range(len(self.config.stages)) if (step := last_step(self._stage(index)))),
            default=(0, 0),
        )
        if reached > self._reached:
            self._reached = reached
            for part in self.parts["trainer"]:
                part.failures, part.place.version = 0, str(reached[1])

    def _stage(self, index: int) -> Path:
        return self.root / self.config.stage_folder(index).relative_to(self.config.output)

    def _failure(self) -> dict[str, object] | None:
        """Return what stopped the trainers, if they said so in failed.json since they were started."""
        for index in range(len(self.config.stages)):
            file = self._stage(index) / "failed.json"
            with suppress(OSError, ValueError):
                if file.stat().st_mtime >= self._trainers_started:
                    return dict(json.loads(file.read_bytes()))
        return None

    # All parts

    def _all(self) -> Iterator[Part]:
        return (part for parts in self.parts.values() for part in parts)

    def _seat(self, part: Part) -> AnySeat:
        if part.seat is None:
            part.seat = self.placement.seat(part.role, part.number)
            part.place.machine = part.seat.machine
        return part.seat

    def _poll(self, part: Part) -> int | None:
        """Return the exit status of a part, None while it runs; keep its output. Raise SeatLost if it is gone."""
        assert part.seat is not None
        report = part.seat.poll()
        part.place.pid = report.pid
        if report.output:
            with (self.root / str(part.place.log)).open("ab") as log:
                log.write(report.output)
            if part.role == "trainer":
                sys.stdout.write(self._decoder.decode(report.output))
                sys.stdout.flush()
        return report.code

    def _look(self) -> None:
        """Check the health of the servers, in a thread of its own, one round at a time."""
        if time.monotonic() - self._looked < LOOK_SECONDS / 5 or (self._checking and self._checking.is_alive()):
            return
        self._looked = time.monotonic()
        servers = [*self.parts["grader"], *self.parts["sampler"]]
        asked = [part for part in servers if part.place.url and part.place.state in ("starting", "up")]
        self._checking = threading.Thread(target=self._check, args=(asked,), daemon=True)
        self._checking.start()

    def _check(self, parts: list[Part]) -> None:
        for part in parts:
            began, url = part.started, part.place.url
            if part.place.state == "up" and time.monotonic() - part.answered < LOOK_SECONDS:
                continue
            version = self._asks(part, f"{url}/health") is not None
            if not version or part.started != began:
                continue
            part.answered = time.monotonic()
            if part.role == "sampler" and (info := self._asks(part, f"{url}/weight_info")):
                with suppress(ValueError, AttributeError):
                    part.place.version = str(json.loads(info).get("weight_version"))
            if part.place.state == "starting":
                self._set(part, "up", None)

    def _asks(self, part: Part, url: str) -> bytes | None:
        """Return the answer to a GET; None: there is none."""
        key = self.key if part.role == "sampler" else self.token
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=LOOK_SECONDS) as answer:
                return bytes(answer.read(1 << 16))
        except (OSError, urllib.error.URLError):
            return None

    def _set(self, part: Part, state: str, why: str | None) -> None:
        part.place.state, part.place.why, part.place.since = state, why, now()
        self._written = 0.0  # write soon

    def _write(self) -> None:
        self._written = time.monotonic()
        places = {f"{role}s": [part.place for part in parts] for role, parts in self.parts.items()}
        keeper = f"process {os.getpid()} on {socket.gethostname()}"
        write_places(self.file, Places(**places, kept_by=keeper, time=now()))

    def _tell(self, sentence: str) -> None:
        print(f"cluster: {sentence}", file=sys.stderr, flush=True)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """On the first Ctrl-C or SIGTERM let the trainers write a checkpoint and end; on the second end at once."""

        def asked(number: int, _: FrameType | None) -> None:
            if self._ending:
                raise KeyboardInterrupt
            self._ending.append(number)
            self._tell("stopping after this step, with a checkpoint (again: at once)")
            for part in self.parts["trainer"]:
                if part.seat is not None:
                    with suppress(SeatLost):
                        part.seat.interrupt()

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
