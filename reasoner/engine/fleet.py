"""Several servers as one: which of them answer, the same call on each, and what became of those that are lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

from reasoner import processes
from reasoner.engine.base import EngineError
from reasoner.engine.remote import Lost, Refused, Server

Answer = TypeVar("Answer")
HEALTH_MISSES = 3
"""Health checks without an answer after which a server counts as lost."""


class Answered(NamedTuple, Generic[Answer]):
    """A server and its answer."""

    server: Server
    answer: Answer


class Fleet:
    """The servers of an engine."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.servers = list(servers)
        self.notes: list[str] = []
        """Sentences for the user."""
        self._closing = threading.Event()
        self._watching: threading.Thread | None = None

    def wait_until_ready(self, deadline: float) -> None:
        """Wait for all servers.

        Raises:
            EngineError: there is none, or one does not answer before the deadline (monotonic seconds).
        """
        if not self.servers:
            raise EngineError("servers must be >= 1, or urls given; got neither. Set engine.options.servers.")
        for server in self.servers:
            server.wait_until_ready(deadline)

    @property
    def alive(self) -> list[Server]:
        """Servers that answer and have the current weights."""
        return [server for server in self.servers if server.alive]

    @property
    def reachable(self) -> list[Server]:
        """Servers that answer, also those that do not have the current weights yet."""
        return [server for server in self.servers if server.alive or server.waking]

    def on_each(self, call: Callable[[Server], Answer]) -> list[Answered[Answer]]:
        """Call a function on all reachable servers in parallel and return the results. Those that fail are left out.

        Raises:
            EngineError: all servers are lost, or one refuses.
        """
        asked = self.reachable
        with ThreadPoolExecutor(max(1, len(asked))) as pool:
            futures = [(server, pool.submit(call, server)) for server in asked]
        answers: list[Answered[Answer]] = []
        for server, future in futures:
            try:
                answers.append(Answered(server, future.result()))
            except Lost as error:
                self.leave_out(server, error)
                server.hang_up()  # requests that it has begun are repeated on the others
            except Refused as error:
                raise EngineError(f"{server.url} refused: {error}") from error
        if not answers:
            raise self.all_lost()
        return answers

    def leave_out(self, server: Server, error: Lost) -> None:
        """Stop using a server until the next weight sync."""
        if server.alive or server.waking:
            server.alive = server.waking = False
            server.why_lost = str(error)
            self.notes.append(f"left out until the next weight sync: {error}")

    def all_lost(self) -> EngineError:
        """Return the error that ends a run: what became of each server."""
        said = " ".join(f"{server.why_lost} {server.failure_hint()}".strip() for server in self.servers)
        return EngineError(f"every vLLM server is lost. {said}")

    def revive(self) -> None:
        """Reach lost servers again if they answer; `agree` uses them. Call it in the main thread."""
        for server in self.servers:
            server.restart()
        with ThreadPoolExecutor(len(self.servers)) as pool:  # each that is gone costs seconds
            list(pool.map(self._revive, self.servers))

    def _revive(self, server: Server) -> None:
        if server.alive:  # it may have been started again since the last request
            try:
                server.check_start()
            except Lost as error:
                self.leave_out(server, error)
        server.revive()

    def agree(self) -> None:
        """Use the servers that the main process reaches, and their models, on every process: it sent the weights."""
        reachable = set(self.reachable)
        used = processes.gather([server.seen() if server in reachable else None for server in self.servers])[0]
        for server, seen in zip(self.servers, used, strict=True):
            server.use(seen)

    def watch(self, seconds: float) -> None:
        """Check the health of servers that have requests or may get some, in a thread, until the fleet is closed.

        Args:
            seconds: time between two checks, and for an answer.
        """
        self._watching = threading.Thread(target=self._watch, args=(seconds,), name="reasoner-health", daemon=True)
        self._watching.start()

    def _watch(self, seconds: float) -> None:
        misses = dict.fromkeys(self.servers, 0)
        with ThreadPoolExecutor(len(self.servers), thread_name_prefix="reasoner-health") as pool:
            due = time.monotonic() + seconds
            while not self._closing.wait(max(0.0, due - time.monotonic())):
                due = time.monotonic() + seconds
                # one that is left out too, while requests that it had before wait for its answers
                asked = [server for server in self.servers if server.alive or server.waking or server.pending]
                for server, healthy in zip(asked, pool.map(lambda one: one.healthy(seconds), asked), strict=True):
                    misses[server] = 0 if healthy else misses[server] + 1
                    if misses[server] == HEALTH_MISSES:
                        misses[server] = 0
                        self.leave_out(
                            server, Lost(f"{server.url} did not pass {HEALTH_MISSES} health checks in a row")
                        )
                        server.hang_up()

    def close(self) -> None:
        """Stop the servers that were started here, and close the connections to the others."""
        self._closing.set()
        for server in self.servers:
            server.hang_up()
        if self._watching is not None:
            self._watching.join()
        for server in self.servers:
            server.stop()
