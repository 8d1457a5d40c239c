"""One part of a run, as the driver keeps it: its seat, its log, and what became of it."""

from __future__ import annotations

import codecs
import os
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from reasoner.cluster.placement import AnySeat
from reasoner.cluster.seat import OUTPUT_BYTES, SeatLost
from reasoner.storage.cluster_file import Place, State, now
from verifiers.own_files import open_own

AT_ONCE = 64
"""Most times `OUTPUT_BYTES` of output that are taken over at one look."""


@dataclass
class Part:
    """A trainer machine, a sampler or a grader."""

    role: str
    number: int
    place: Place
    seat: AnySeat | None = None
    port: int = 0
    """Port of a server; 0: not chosen yet."""
    failures: int = 0
    """Ends since the last success."""
    not_before: float = 0.0
    """Monotonic time before which it is not started again."""
    started: float = 0.0
    answered: float = 0.0
    """Monotonic time of its last answer to a health check; 0: none since its start."""
    silent: float = 0.0
    """Monotonic time of the first check without an answer since then; 0: it answered the last one."""
    unanswered: float = 0.0
    """Monotonic time of the last check without an answer."""
    asked: float = 0.0
    """Monotonic time at which the last check began."""
    asking: bool = False
    """A check has begun, and its outcome is not known."""
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"), repr=False
    )

    @property
    def name(self) -> str:
        """How it is called in messages and log files."""
        return f"{self.role}-{self.number}"

    @property
    def runs(self) -> bool:
        """True if its command was started and has not been seen to end."""
        return self.seat is not None and self.place.state in ("starting", "up")

    def set(self, state: State, why: str | None) -> None:
        """Take note of a new state, and of its cause if it is down."""
        self.place.state, self.place.why, self.place.since = state, why, now()
        if state in ("down", "ended"):
            self.place.pid = None

    def poll(self, root: Path) -> int | None:
        """Return the exit status of its command, None while it runs. Its output goes to its log, and to ours.

        Args:
            root: the run folder.
        Raises:
            SeatLost: its machine is gone.
        """
        assert self.seat is not None
        for _ in range(AT_ONCE):
            report = self.seat.poll()
            self.place.pid = report.pid
            if report.output:
                with os.fdopen(open_own(root / str(self.place.log), "append"), "ab") as log:
                    log.write(report.output)
                if self.role == "trainer":
                    say(sys.stdout, self._decoder.decode(report.output))
            if len(report.output) < OUTPUT_BYTES:
                return report.code
        return None

    def stop(self, root: Path) -> None:
        """End its command, if there is one, and take over the rest of its output.

        Raises:
            SeatLost: its machine is gone.
        """
        if self.seat is not None:
            self.seat.stop()
            self.poll(root)

    def leave_seat(self) -> None:
        """Give up a seat on a machine that is gone, maybe only for us: if it can be reached, its command is ended."""
        seat, self.seat, self.port = self.seat, None, 0
        self.place.machine = None
        if seat is not None:
            threading.Thread(target=_close, args=(seat,), name="reasoner-lost-seat", daemon=True).start()


def _close(seat: AnySeat) -> None:
    with suppress(SeatLost):
        seat.close()


def say(stream: TextIO, text: str) -> None:
    """Write text to standard output or error; where nobody reads it any more it is dropped, for the logs have it."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
