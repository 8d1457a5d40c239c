"""A page of this machine for its own user: a server on 127.0.0.1 with a secret in its address."""

from __future__ import annotations

import json
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from reasoner.web.assemble import LIVE_POLICY

STALLED_SECONDS = 30.0
"""Time after which a connection that sends or takes nothing is closed."""


class LocalServer(ThreadingHTTPServer):
    """Server on 127.0.0.1; requests without the secret, to another host name or from another origin get nothing."""

    daemon_threads = True

    def __init__(self, handler: type[LocalHandler], *, port: int = 0) -> None:
        """Listen on a port; 0: any free one.

        Raises:
            OSError: the port is taken.
        """
        self.secret = secrets.token_urlsafe(12)
        super().__init__(("127.0.0.1", port), handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a page that was closed before its answer was sent; show any other error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]

    @property
    def address(self) -> str:
        """Address of the page, including the secret."""
        return f"http://127.0.0.1:{self.server_port}/{self.secret}/"


class LocalHandler(BaseHTTPRequestHandler):
    """Handler of requests to a LocalServer: which of them are its own page's, and how answers are sent."""

    timeout = STALLED_SECONDS
    server: LocalServer  # pyright: ignore[reportIncompatibleVariableOverride]  (only a LocalServer makes one)

    def inner_path(self) -> str | None:
        """Return the part of the path after the secret; None if the secret is wrong.

        None also for requests to another host name (DNS rebinding) and from pages of other origins.
        """
        own = f"127.0.0.1:{self.server.server_port}"
        origins = self.headers.get_all("Origin", [])
        if self.headers.get("Host") != own or any(origin != f"http://{own}" for origin in origins):
            return None
        _, secret, *rest = [*self.path.split("/", 2), ""]
        return rest[0] if secrets.compare_digest(secret.encode(), self.server.secret.encode()) else None

    def send_json(self, status: int, row: object) -> None:
        """Send a JSON value."""
        self.send_bytes(status, json.dumps(row).encode(), "application/json")

    def send_bytes(self, status: int, body: bytes, kind: str) -> None:
        """Send a body with its content type."""
        self.begin(status, kind, length=len(body))
        self.wfile.write(body)

    def begin(self, status: int, kind: str, *, length: int | None = None) -> None:
        """Send the headers; without a length the body ends with the connection."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", LIVE_POLICY)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the terminal is the user's."""
