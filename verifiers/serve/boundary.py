"""Checks of a request before its body is read: its origin, its host, its kind and its size.

A web page of another origin is refused by each of three checks: the Host header (it differs if a foreign name leads
here by DNS rebinding), the Origin header that browsers send, and the content type, which a page may only set after a
preflight request.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from verifiers.serve.bodies import Refused

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
"""Types of ASGI."""

HEADERS = 100
"""Most headers of a request; more are answered 431."""
VALUES = 2 << 20
"""Most commas and opening brackets of a body, a bound on its JSON values; more are answered 413."""
VALUE_BYTES = 96
"""Estimated bytes of memory per JSON value."""
AWAY_SECONDS = 5.0
"""Seconds for reading and discarding the rest of a refused body."""
SMALL = 1 << 20
"""Bytes of memory up to which a request may use the last quarter of the total: large bodies cannot block small ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLimits:
    """Limits of the service."""

    body_bytes: int = 16 << 20
    """Most bytes of a request's body; more is answered 413."""
    batch_rows: int = 256
    """Most rows of a batch; more is answered 413."""
    rows_in_flight: int = 4096
    """Most rows queued or being graded; more are answered 503 with Retry-After, and the client tries again."""
    held_bytes: int = 512 << 20
    """Most bytes of memory, as estimated, of all bodies being read or graded; more is answered 503."""
    body_seconds: float = 30.0
    """Seconds within which a body must arrive; otherwise the answer is 408."""
    answer_seconds: float = 30.0
    """Seconds within which a client must continue reading; otherwise the connection is closed."""
    head_seconds: float = 10.0
    """Seconds within which the request line and headers must arrive; otherwise the connection is closed."""
    idle_seconds: int = 30
    """Seconds after which a connection without a request is closed."""
    connections: int = 1024
    """Most open connections, fewer if file descriptors are scarce; one more closes the connection idle the longest."""
    stop_seconds: int = 10
    """Seconds for finishing the rows in flight when the service is stopped."""


class Head(NamedTuple):
    """Headers that the service uses, in lower case except the authorization."""

    host: bytes
    origins: list[bytes]
    authorization: list[bytes]
    content_type: bytes
    length: bytes
    chunked: bool
    waits: bool
    """True if the client waits for "100 Continue" before it sends the body (Expect: 100-continue)."""


def read_head(scope: Scope) -> Head:
    """Read the headers of a request.

    Raises:
        Refused: 431, too many headers.
    """
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > HEADERS:
        raise Refused(431, f"a request may have at most {HEADERS} headers")
    host, content_type, length, chunked, waits = b"", b"", b"", False, False
    origins: list[bytes] = []
    authorization: list[bytes] = []
    for name, value in headers:
        if name == b"host":
            host = value.lower()
        elif name == b"origin":
            origins.append(value.lower())
        elif name == b"authorization":
            authorization.append(value)
        elif name == b"content-type":
            content_type = value.lower()
        elif name == b"content-length":
            length = value
        elif name == b"transfer-encoding":
            chunked = True
        elif name == b"expect":
            waits = True
    return Head(host, origins, authorization, content_type, length, chunked, waits)


def _name_and_port(host: bytes) -> tuple[str, str]:
    """Split a Host header into name and port, without an address's brackets and a name's final dot."""
    text = host.decode("latin-1")
    name, _, port = text.partition("]") if text.startswith("[") else text.partition(":")
    return name.removeprefix("[").removesuffix("."), port.lstrip(":")


class Door:
    """Check of a request's host, origin and token.

    Args:
        bound: the address that the service listens on.
        names: further host names that clients may use.
        token: token that clients must send; None: none.
    """

    def __init__(self, *, bound: str, names: Collection[str] = (), token: str | None = None) -> None:
        self._names = {"localhost", bound.lower(), *(name.lower().rstrip(".") for name in names)}
        self._any_address = bound in ("", "0.0.0.0", "::")
        self._token = None if token is None else token.encode()
        self._is_ours = lru_cache(maxsize=256)(self._host_is_ours)

    def check_origin(self, head: Head) -> None:
        """Raise Refused if the Host is not this service's (421) or the Origin is another page (403)."""
        if len(head.host) > 300 or not self._is_ours(head.host):
            shown = head.host[:80].decode("latin-1")
            raise Refused(
                421, f"Host must be this service's name; got {shown!r}. The operator can add it: --allow-host."
            )
        own = {b"http://" + head.host}
        if not self._is_local(head.host):  # behind a TLS proxy; on this machine https would be another server's page
            own.add(b"https://" + head.host)
        if any(origin not in own for origin in head.origins):
            raise Refused(403, "web pages of other origins may not use this service")

    def check_token(self, head: Head) -> None:
        """Raise Refused (401) if a token is required and the request does not contain it."""
        if self._token is None:
            return
        given = head.authorization[0] if len(head.authorization) == 1 else b""
        scheme, _, secret = given.partition(b" ")
        if not hmac.compare_digest(secret, self._token) or scheme.lower() != b"bearer":
            raise Refused(
                401, "send the service's token: Authorization: Bearer TOKEN", (b"www-authenticate", b"Bearer")
            )

    @staticmethod
    def _is_local(host: bytes) -> bool:
        return is_loopback(_name_and_port(host)[0])

    def _host_is_ours(self, host: bytes) -> bool:
        name, port = _name_and_port(host)
        if port and not port.isdecimal():
            return False
        if name in self._names:
            return bool(name)
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # an address cannot be rebound by DNS: only a page of this very address has it as its origin
        return self._any_address or address.is_loopback


def check_body_kind(head: Head, limit: int) -> None:
    """Check a body's content type and length by its headers.

    Raises:
        Refused: 415, it is not JSON; 413, it is longer than `limit` bytes.
    """
    if head.content_type.partition(b";")[0].strip() != b"application/json":
        raise Refused(415, "Content-Type must be application/json")
    if head.length and (not head.length.isdigit() or int(head.length[:20]) > limit):
        raise _too_large(limit)


class Bodies:
    """Reader of bodies that limits the memory used by all of them."""

    def __init__(self, limits: ServiceLimits) -> None:
        self._limits = limits
        self.held = 0

    async def read(self, receive: Receive, share: Share) -> bytes:
        """Read a whole body.

        Args:
            receive: of the request.
            share: the request's memory, which is increased.
        Raises:
            Refused: 408, it did not arrive in time; 413, it is too large; 503, too much memory is in use.
            ConnectionResetError: the client disconnected.
        """
        parts: list[bytes] = []
        size, limit = 0, self._limits.body_bytes
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionResetError
                    part: bytes = message.get("body", b"")
                    size += len(part)
                    if size > limit:
                        raise _too_large(limit)
                    parts.append(part)
                    self._hold(share, 2 * len(part))
                    if not message.get("more_body"):
                        break
        except TimeoutError as error:
            detail = f"a body must come within {self._limits.body_seconds:g} s"
            raise Refused(408, detail, (b"connection", b"close")) from error
        share.complete = True
        body = b"".join(parts)
        values = body.count(b",") + body.count(b"[") + body.count(b"{")
        if values > VALUES:
            raise Refused(413, f"a request may have at most {VALUES} JSON values")
        self._hold(share, VALUE_BYTES * values)
        return body

    async def read_away(self, receive: Receive) -> None:
        """Read and discard the rest of a body: a client that is still writing would not see the answer."""
        left = 4 * self._limits.body_bytes
        with suppress(TimeoutError):
            async with asyncio.timeout(AWAY_SECONDS):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body"):
                        return

    def _hold(self, share: Share, count: int) -> None:
        most = self._limits.held_bytes
        if share.count + count > SMALL:
            most = most * 3 // 4
        if self.held + count > most:
            if share.count + count > most:
                raise Refused(413, f"a request may take at most {most} bytes of memory")
            raise busy("too many bytes in flight")
        self.held += count
        share.count += count

    def release(self, share: Share) -> None:
        """Release the memory of a request."""
        self.held -= share.count
        share.count = 0


@dataclass(slots=True)
class Share:
    """Memory for bodies that one request uses, in bytes as estimated."""

    count: int = 0
    complete: bool = False
    """True if its body was read to the end."""


def busy(reason: str) -> Refused:
    """Return a refusal (503) after which the client should try again."""
    return Refused(503, f"busy: {reason}", (b"retry-after", b"1"))


def _too_large(limit: int) -> Refused:
    return Refused(413, f"a request may have at most {limit} bytes")


def is_loopback(host: str) -> bool:
    """Return True if a host name or address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
