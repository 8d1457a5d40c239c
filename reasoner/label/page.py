"""The labelling page: a small server for this machine only, with a secret in its address."""

from __future__ import annotations

import threading
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from reasoner.label.labels import AlreadyLabelled
from reasoner.label.sitting import Side, Sitting, agreement_json
from reasoner.web.assemble import assembled
from reasoner.web.local_server import LocalHandler, LocalServer
from verifiers import JSON

MOST_LETTERS = 2_000
"""Length of a reason, in characters; a character may take 6 bytes of the body."""
MOST_BYTES = 6 * MOST_LETTERS + 4_000


class Page(LocalServer):
    """Server of one sitting."""

    def __init__(self, sitting: Sitting, *, port: int = 0) -> None:
        self.sitting = sitting
        self.lock = threading.Lock()
        super().__init__(Handler, port=port)


class FromTab(BaseModel):
    """Body of a POST to /undo."""

    model_config = ConfigDict(strict=True)
    tab: str = Field(default="", max_length=100)
    """Number that identifies a tab of the browser."""


class Decision(FromTab):
    """Body of a POST to /label."""

    id: str
    side: Side
    repeat: bool = False
    seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    reason: str = Field(default="", max_length=MOST_LETTERS)


class Handler(LocalHandler):
    """Handler of requests. GET: the page, and the next pair. POST: a label, or undo."""

    server: Page  # pyright: ignore[reportIncompatibleVariableOverride]  (only a Page makes one)

    def do_GET(self) -> None:
        """Send the page or the state of the sitting."""
        if self.inner_path() == "":
            page = assembled(Path(__file__).parent, "reasoner label", programs=("label",), live=True)
            return self.send_bytes(200, page.encode(), "text/html; charset=utf-8")
        if self.inner_path() == "next":
            return self.send_json(200, self._state())
        return self.send_json(404, {"error": "there is no such page"})

    def do_POST(self) -> None:
        """Record a label, or undo one, and send the new state."""
        if self.inner_path() not in ("label", "undo"):
            return self.send_json(404, {"error": "there is no such page"})
        length = self.headers.get("Content-Length") or "0"
        if not (length.isascii() and length.isdigit()):
            return self.send_json(400, {"error": "Content-Length must be a number"})
        if int(length) > MOST_BYTES:
            return self.send_json(413, {"error": "a label is small"})
        try:
            self._decide(self.rfile.read(int(length)))
        except AlreadyLabelled as error:
            return self.send_json(409, {"error": str(error)})
        except ValueError as error:  # LabelError and pydantic's are ValueErrors
            return self.send_json(400, {"error": str(error)})
        return self.send_json(200, self._state())

    def _decide(self, body: bytes) -> None:
        sitting = self.server.sitting
        if self.inner_path() == "undo":
            asked = FromTab.model_validate_json(body or b"{}")
            with self.server.lock:
                sitting.undo(tab=asked.tab)
            return
        given = Decision.model_validate_json(body)
        with self.server.lock:
            sitting.give(
                given.id,
                given.side,
                repeat=given.repeat,
                seconds=given.seconds,
                reason=given.reason,
                tab=given.tab,
            )

    def _state(self) -> dict[str, JSON]:
        with self.server.lock:
            shown, progress = self.server.sitting.shown(), self.server.sitting.progress()
        so_far: dict[str, JSON] = {
            "done": progress.done,
            "total": progress.total,
            "categories": {name: list(counts) for name, counts in progress.categories.items()},
            "agreement": agreement_json(progress.agreement),
            "finished": shown is None,
        }
        return so_far if shown is None else so_far | shown._asdict()
