"""Server of the live page: the page itself, JSON about stages and rollouts, and events when files grow."""

from __future__ import annotations

import json
import threading
from urllib.parse import parse_qs, urlsplit

from reasoner.observe.report.data import UNITS, glossary
from reasoner.observe.report.page import page_of
from reasoner.observe.report.texts import SearchError
from reasoner.observe.view.folder import Folder, NotThere, Stage
from reasoner.storage.files import RunError
from reasoner.web.local_server import LocalHandler, LocalServer

EVERY_SECONDS = 1.0
"""Time between two looks at the files while a page is open."""
MOST_ROWS = 500
"""Rollouts in one answer."""


class ViewServer(LocalServer):
    """Server of the runs below a folder."""

    def __init__(self, folder: Folder, *, port: int = 0) -> None:
        self.folder = folder
        self.ending = threading.Event()
        super().__init__(Handler, port=port)

    def shutdown(self) -> None:
        """End the server, and the events of open pages."""
        self.ending.set()
        super().shutdown()

    def server_close(self) -> None:
        """Close the socket, and delete what is kept of the runs."""
        super().server_close()
        self.folder.close()


class Handler(LocalHandler):
    """Handler of GET requests: the page, `api/NAME?stage=...`, and `events`."""

    server: ViewServer  # pyright: ignore[reportIncompatibleVariableOverride]  (only a ViewServer makes one)

    def do_GET(self) -> None:
        """Answer a request of the page."""
        inner = self.inner_path()
        if inner is None:
            return self.send_json(404, {"error": "there is no such page"})
        address = urlsplit(inner)
        if address.path == "":
            return self.send_bytes(200, self._page(), "text/html; charset=utf-8")
        if address.path == "events":
            return self._events()
        asked = {name: values[-1] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        try:
            return self.send_json(200, self._answer(address.path, asked))
        except NotThere as error:
            return self.send_json(404, {"error": f"not there: {error}"})
        except (SearchError, ValueError, KeyError) as error:
            return self.send_json(400, {"error": str(error)})
        except RunError as error:
            return self.send_json(409, {"error": str(error)})

    def _page(self) -> bytes:
        script = '<script type="text/plain" id="live-page"></script>'
        return page_of(f"runs in {self.server.folder.root.name}", [script], live=True).encode()

    def _answer(self, path: str, asked: dict[str, str]) -> object:
        folder = self.server.folder
        if path == "api/runs":
            about = {"live": True, "title": folder.root.name, "glossary": glossary(), "units": UNITS}
            return {**about, "stages": folder.lines()}
        stage = folder.stage(asked.get("stage", ""))
        kind = asked.get("kind", "train")
        match path:
            case "api/stage":
                return stage.summary()
            case "api/metrics":
                return stage.metrics()
            case "api/transcripts":
                return stage.transcripts()
            case "api/explain":
                return stage.explain(again=asked.get("again") == "1")
            case "api/columns":
                return stage.columns(kind, int(asked.get("from", "0")), int(asked.get("generation", "-1")))
            case "api/samples":
                return stage.samples(kind, _rows(asked))
            case "api/heads":
                return stage.heads(kind, _rows(asked))
            case "api/search":
                return self._search(stage, kind, asked)
            case _:
                raise NotThere(path)

    def _search(self, stage: Stage, kind: str, asked: dict[str, str]) -> list[int]:
        return stage.search(kind, asked.get("text", ""), regex=asked.get("regex") == "1")

    def _events(self) -> None:
        """Send an event whenever files of a stage have changed, until the page is closed: its data are their names."""
        self.begin(200, "text/event-stream")
        before = self.server.folder.fingerprint()
        try:
            while True:
                self.wfile.write(b": alive\n\n")
                if self.server.ending.wait(EVERY_SECONDS):
                    return
                now = self.server.folder.fingerprint()
                changed = [name for name in now.keys() | before.keys() if now.get(name) != before.get(name)]
                before = now
                if changed:
                    self.wfile.write(f"data: {json.dumps(sorted(changed))}\n\n".encode())
        except OSError:  # the page is closed
            return


def _rows(asked: dict[str, str]) -> list[int]:
    """Return the rows of a request, `rows=1,2,3`.

    Raises:
        ValueError: they are not numbers, or too many.
    """
    rows = [int(number) for number in asked.get("rows", "").split(",") if number]
    if len(rows) > MOST_ROWS:
        raise ValueError(f"rows must be at most {MOST_ROWS}; got {len(rows)}")
    return rows
