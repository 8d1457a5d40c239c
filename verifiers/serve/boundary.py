"""What a request must be before anything of it is read: from whom, to whom, of which kind and size.

A web page of any other origin is refused three times over: by the Host (a name that leads here by DNS rebinding is none
of ours), by the Origin that browsers send, and by the content type, which no page may set without asking first.
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
"""As ASGI has them."""

HEADERS = 100
"""Of one request; more are answered 431."""
VALUES = 2 << 20
"""Commas and opening brackets of a body, and so its JSON values at most; more are answered 413."""
VALUE_BYTES = 96
"""Of memory, for each of them."""
AWAY_SECONDS = 5.0
"""For reading away what is left of a refused body."""
SMALL = 1 << 20
"""Bytes of memory of a request for which the last quarter of all is kept: large bodies cannot hold up small ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLimits:
    """What the service takes."""

    body_bytes: int = 16 << 20
    """Of one request; more is answered 413."""
    batch_rows: int = 256
    """Of one batch; more is answered 413."""
    rows_in_flight: int = 4096
    """Rows being graded or waiting; more are answered 503 with Retry-After, and the client tries again."""
    held_bytes: int = 512 << 20
    """Memory of all bodies that are read or whose rows are graded, as estimated; more is answered 503."""
    body_seconds: float = 30.0
    """In which a body must have come; 408."""
    answer_seconds: float = 30.0
    """In which a client must read on; the connection is closed."""
    head_seconds: float = 10.0
    """In which a request's line and headers must have come; the connection is closed."""
    idle_seconds: int = 30
    """After which a connection without a request is closed."""
    connections: int = 1024
    """Open at a time, and never more than the limit of descriptors leaves; then the longest idle one gives way."""
    stop_seconds: int = 10
    """For rows in flight, once the service is told to end."""


class Head(NamedTuple):
    """The headers that matter, in lower case but for the token."""

    host: bytes
    origins: list[bytes]
    authorization: list[bytes]
    content_type: bytes
    length: bytes
    chunked: bool
    waits: bool
    """Sends its body when it is asked for it (Expect: 100-continue)."""


def read_head(scope: Scope) -> Head:
    """One pass over the headers.

    Raises:
        Refused: 431, too many.
    """
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > HEADERS:
        raise Refused(431, f"a request may have {HEADERS} headers")
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
    """The two parts of a Host, without the brackets of an address and the dot at the end of a name."""
    text = host.decode("latin-1")
    name, _, port = text.partition("]") if text.startswith("[") else text.partition(":")
    return name.removeprefix("[").removesuffix("."), port.lstrip(":")


class Door:
    """Who may come in.

    Args:
        bound: the address that the service listens on.
        names: further names by which clients call it.
        token: that clients must send; None: none.
    """

    def __init__(self, *, bound: str, names: Collection[str] = (), token: str | None = None) -> None:
        self._names = {"localhost", bound.lower(), *(name.lower().rstrip(".") for name in names)}
        self._any_address = bound in ("", "0.0.0.0", "::")
        self._token = None if token is None else token.encode()
        self._is_ours = lru_cache(maxsize=256)(self._host_is_ours)

    def check_origin(self, head: Head) -> None:
        """Refuse what was sent to a name that is not ours, or by a page that is not ours."""
        if len(head.host) > 300 or not self._is_ours(head.host):
            shown = head.host[:80].decode("latin-1")
            raise Refused(421, f"Host must be this service's name; got {shown!r}. Its owner may --allow-host it.")
        own = {b"http://" + head.host}
        if not self._is_local(head.host):  # behind a proxy that speaks TLS; here https is another server's page
            own.add(b"https://" + head.host)
        if any(origin not in own for origin in head.origins):
            raise Refused(403, "pages of other origins may not use this service")

    def check_token(self, head: Head) -> None:
        """Refuse who does not know the token."""
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
        # an address is no name: no page but one of this very address has it as its origin
        return self._any_address or address.is_loopback


def check_body_kind(head: Head, limit: int) -> None:
    """Refuse a body by what its headers say of it.

    Raises:
        Refused: 415 or 413.
    """
    if head.content_type.partition(b";")[0].strip() != b"application/json":
        raise Refused(415, "Content-Type must be application/json")
    if head.length and (not head.length.isdigit() or int(head.length[:20]) > limit):
        raise _too_large(limit)


class Bodies:
    """Reads bodies, and knows how much memory all of them hold."""

    def __init__(self, limits: ServiceLimits) -> None:
        self._limits = limits
        self.held = 0

    async def read(self, receive: Receive, share: Share) -> bytes:
        """A whole body.

        Raises:
            Refused: 408, 413 or 503. ConnectionResetError: the client is gone.
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
            raise Refused(413, f"a request may have {VALUES} JSON values")
        self._hold(share, VALUE_BYTES * values)
        return body

    async def read_away(self, receive: Receive) -> None:
        """Read what is left of a body, and keep nothing: a client that writes all of it would else see no answer."""
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
                raise Refused(413, f"a request may take {most} bytes of memory")
            raise busy("too many bytes in flight")
        self.held += count
        share.count += count

    def release(self, share: Share) -> None:
        """Give back what a request holds."""
        self.held -= share.count
        share.count = 0


@dataclass(slots=True)
class Share:
    """What one request holds of the memory for bodies."""

    count: int = 0
    complete: bool = False
    """Whether its body has been read to the end."""


def busy(reason: str) -> Refused:
    """A refusal that asks the client to try again."""
    return Refused(503, f"busy: {reason}", (b"retry-after", b"1"))


def _too_large(limit: int) -> Refused:
    return Refused(413, f"a request may have {limit} bytes")


def is_loopback(host: str) -> bool:
    """Whether a host can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
