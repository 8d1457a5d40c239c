"""uvicorn with limits on the time, bytes and number of connections and headers."""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from verifiers.errors import BadOption
from verifiers.serve.boundary import Application, ServiceLimits

HEAD_BYTES = 32 << 10
"""Most bytes of a request line with headers; more is answered 431."""
READ_BYTES = 32 << 10
"""Bytes read from a connection at a time; other connections wait while they are parsed."""
BACKLOG = 1024
ACCEPTS = 16
"""Connections accepted in one turn of the event loop."""
RESERVED_DESCRIPTORS = 24 + ACCEPTS
WORKER_DESCRIPTORS = 6


class _Corked:
    """Transport that writes once per turn of the event loop, so that headers and body go out together."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if data and not self._parts:
            self._loop.call_soon(self._flush)
        if data:
            self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts:
            self._transport.write(b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(H11Protocol):
    """Connection with time limits for headers and reading; idle ones are closed if there are too many."""

    def __init__(self, *, most: int, head_seconds: float, answer_seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._most, self._head_seconds, self._answer_seconds = most, head_seconds, answer_seconds
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self.idle_since = time.monotonic()
        """Time of its last response or, before that, of its opening (monotonic seconds)."""

    @property
    def busy(self) -> bool:
        """True if a request is being handled."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Close a connection if there are too many: the one idle longest, or the new one if all others are busy."""
        if hasattr(transport, "max_size"):
            transport.max_size = READ_BYTES  # pyright: ignore[reportAttributeAccessIssue]
        super().connection_made(cast("asyncio.Transport", _Corked(transport, self.loop)))
        opened = [one for one in self.connections if isinstance(one, Connection) and not one.transport.is_closing()]
        if len(opened) > self._most:
            idle = [one for one in opened if not one.busy]
            min(idle, key=lambda one: one.idle_since).transport.abort()
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Pass data on, and start the timer for the next request's headers if no request is being handled."""
        if not self.busy:
            self._expect_head()
        super().data_received(data)
        if self.busy:
            self._unset_late()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers."""
        self._unset_late()
        self._unset_unread()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the timer that closes the connection if the client does not read its answer."""
        super().pause_writing()
        self._unset_unread()
        self._unread = self.loop.call_later(self._answer_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Cancel that timer: the client is reading again."""
        super().resume_writing()
        self._unset_unread()

    def on_response_complete(self) -> None:
        """Record the time from which the connection is idle."""
        self.idle_since = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer 431 if h11 reports headers that are too large, otherwise 400."""
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)
        if status != 431 or self.busy:
            return super().send_400_response(msg)
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        self.transport.close()

    def _expect_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self._head_seconds, self._give_up)

    def _unset_late(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _unset_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _give_up(self) -> None:
        self._late = None
        if not self.busy:
            self.transport.abort()


def most_connections(limits: ServiceLimits, workers: int) -> int:
    """Return the number of connections that leaves enough file descriptors for the workers."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits.connections
    return max(4, min(limits.connections, soft - RESERVED_DESCRIPTORS - WORKER_DESCRIPTORS * (workers + 1)))


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        BadOption: the address or port is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise BadOption(f"{host} port {port} must be free to listen on: {error}.") from error


class _Server(uvicorn.Server):
    """Server that accepts few connections at a time, so that a descriptor stays free, but lets many queue."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(BACKLOG)


def run(app: Application, listening: socket.socket, *, limits: ServiceLimits, workers: int) -> None:
    """Serve until SIGTERM or SIGINT; then finish requests for at most `limits.stop_seconds`."""
    protocol = partial(
        Connection,
        most=most_connections(limits, workers),
        head_seconds=limits.head_seconds,
        answer_seconds=limits.answer_seconds,
    )
    config = uvicorn.Config(
        app,
        http=protocol,  # pyright: ignore[reportArgumentType]
        loop="asyncio",  # its transports read READ_BYTES at a time
        ws="none",
        lifespan="on",
        log_level="error",  # otherwise strangers could fill the log with warnings about broken requests
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=ACCEPTS,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=limits.stop_seconds,
    )
    with suppress(KeyboardInterrupt):
        _Server(config).run(sockets=[listening])
