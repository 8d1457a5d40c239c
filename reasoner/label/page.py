"""The labelling page: a small server for this machine only, with a secret in its address."""

from __future__ import annotations

import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field

from reasoner.label.labels import AlreadyLabelled
from reasoner.label.sitting import Side, Sitting
from verifiers import JSON

MOST_BYTES = 10_000
STALLED_SECONDS = 30.0
"""Time after which a connection that sends nothing is closed."""


class Page(ThreadingHTTPServer):
    """Server of one sitting on 127.0.0.1; requests without the secret get nothing."""

    daemon_threads = True

    def __init__(self, sitting: Sitting, *, port: int = 0) -> None:
        self.sitting = sitting
        self.secret = secrets.token_urlsafe(12)
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def address(self) -> str:
        """Address of the page, including the secret."""
        return f"http://127.0.0.1:{self.server_port}/{self.secret}/"


class FromTab(BaseModel):
    """Body of a POST to /undo."""

    model_config = ConfigDict(strict=True)
    tab: str = Field(default="", max_length=100)
    """Number that identifies a tab of the browser."""


class Decision(FromTab):
    """Body of a POST to /label."""

    id: str
    side: Side
    seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class Handler(BaseHTTPRequestHandler):
    """Handler of requests. GET: the page, and the next pair. POST: a label, or undo."""

    timeout = STALLED_SECONDS
    server: Page  # pyright: ignore[reportIncompatibleVariableOverride]  (only a Page makes one)

    def do_GET(self) -> None:
        """Send the page or the state of the sitting."""
        if self._path() == "":
            page = files("reasoner.label").joinpath("page.html").read_bytes()
            return self._send(200, page, "text/html; charset=utf-8")
        if self._path() == "next":
            return self._json(200, self._state())
        return self._json(404, {"error": "there is no such page"})

    def do_POST(self) -> None:
        """Record a label, or undo one, and send the new state."""
        if self._path() not in ("label", "undo"):
            return self._json(404, {"error": "there is no such page"})
        length = self.headers.get("Content-Length") or "0"
        if not (length.isascii() and length.isdigit()):
            return self._json(400, {"error": "Content-Length must be a number"})
        if int(length) > MOST_BYTES:
            return self._json(413, {"error": "a label is small"})
        try:
            self._decide(self.rfile.read(int(length)))
        except AlreadyLabelled as error:
            return self._json(409, {"error": str(error)})
        except ValueError as error:  # LabelError and pydantic's are ValueErrors
            return self._json(400, {"error": str(error)})
        return self._json(200, self._state())

    def _decide(self, body: bytes) -> None:
        sitting = self.server.sitting
        if self._path() == "undo":
            asked = FromTab.model_validate_json(body or b"{}")
            with self.server.lock:
                sitting.undo(tab=asked.tab)
            return
        given = Decision.model_validate_json(body)
        with self.server.lock:
            sitting.give(given.id, given.side, seconds=given.seconds, tab=given.tab)

    def _path(self) -> str | None:
        """Return the part of the path after the secret; None if the secret is wrong.

        None also for requests to another host name (DNS rebinding) and from pages of other origins.
        """
        own = f"127.0.0.1:{self.server.server_port}"
        origins = self.headers.get_all("Origin", [])
        if self.headers.get("Host") != own or any(origin != f"http://{own}" for origin in origins):
            return None
        _, secret, *rest = [*self.path.split("/", 2), ""]
        return rest[0] if secrets.compare_digest(secret.encode(), self.server.secret.encode()) else None

    def _state(self) -> dict[str, JSON]:
        with self.server.lock:
            shown, sitting = self.server.sitting.shown(), self.server.sitting
            if shown is None:
                return {"done": len(sitting.labels), "total": len(sitting.pairs), "finished": True}
            return {**shown._asdict(), "finished": False}

    def _json(self, status: int, row: dict[str, JSON]) -> None:
        self._send(status, json.dumps(row).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
        self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the terminal is the user's."""
