"""Pages of other origins, in a real browser: the service, the pages and vLLM's server do nothing for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reasoner.engine.gate import KEY_VARIABLE
from reasoner.label.page import Page as LabelPage
from reasoner.label.sitting import Sitting
from reasoner.observe.view.folder import Folder
from reasoner.observe.view.server import ViewServer
from tests.integration.conftest import CHROMIUM
from tests.integration.test_service import service
from verifiers.serve.addresses import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.integration
FLAGS = (
    "--host-resolver-rules=MAP evil.test 127.0.0.1",
    # a browser that does not ask before a page talks to this machine
    "--disable-features=LocalNetworkAccessChecks,PrivateNetworkAccessSendPreflights,BlockInsecurePrivateNetworkRequests",
)
SEND = """
async ([url, body]) => {
  const said = {};
  const send = async (name, options) => {
    try {
      const answer = await fetch(url, {method: "POST", ...options});
      said[name] = answer.type === "opaque" ? "opaque" : answer.status + " " + (await answer.text()).slice(0, 300);
    } catch (error) { said[name] = "failed"; }
  };
  await send("text", {body});
  await send("no-cors text", {mode: "no-cors", body});
  await send("no-cors blob", {mode: "no-cors", body: new Blob([body])});
  await send("no-cors typed blob", {mode: "no-cors", body: new Blob([body], {type: "application/json"})});
  await send("no-cors form", {mode: "no-cors", body: new URLSearchParams({[body]: ""})});
  await send("json", {headers: {"Content-Type": "application/json"}, body});
  await send("credentials", {mode: "no-cors", credentials: "include", body});
  said.beacon = String(navigator.sendBeacon(url, new Blob([body], {type: "text/plain"})));
  const frame = document.createElement("iframe");
  frame.name = "into";
  document.body.append(frame);
  const form = document.createElement("form");
  Object.assign(form, {method: "post", enctype: "text/plain", action: url, target: "into"});
  const field = document.createElement("input");
  Object.assign(field, {name: body.slice(0, -1) + ', "x": "', value: '"}'});
  form.append(field);
  document.body.append(form);
  const loaded = new Promise(done => { frame.onload = done; setTimeout(done, 3000); });
  form.submit();
  await loaded;
  return said;
}
"""
"""A page that posts a body to an address in every possible way."""


class Blank(BaseHTTPRequestHandler):
    """A page of another origin."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><body>somebody else's page</body>")

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def stranger() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Blank) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def careless() -> Iterator[Browser]:
    """A browser that lets pages talk to this machine, and resolves evil.test to it."""
    if CHROMIUM is None:
        pytest.skip("needs a chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        yield started
        started.close()


@contextmanager
def opened(browser: Browser, address: str, *, blank: bool = False) -> Iterator[Page]:
    """Open a page; `blank`: its name leads to its owner's machine first, and to this one afterwards (DNS rebinding)."""
    with closing(browser.new_page()) as page:
        if blank:
            page.route(address, lambda route: route.fulfill(body="<body></body>", content_type="text/html"))
        page.goto(address)
        yield page


def from_all_origins(browser: Browser, stranger: int, port: int, path: str, body: str) -> dict[str, dict[str, str]]:
    """Return what pages of another port, of another name, without an origin, and of a rebound name can read."""
    target = f"http://127.0.0.1:{port}{path}"
    found: dict[str, dict[str, str]] = {}
    for name in ("127.0.0.1", "localhost", "evil.test"):
        with opened(browser, f"http://{name}:{stranger}/") as page:
            found[name] = page.evaluate(SEND, [target, body])
    with opened(browser, "data:text/html,<body></body>") as page:
        found["data"] = page.evaluate(SEND, [target, body])
    with opened(browser, f"http://evil.test:{port}/page", blank=True) as page:
        found["rebound"] = page.evaluate(SEND, [path, body])
    time.sleep(0.5)  # beacons
    return found


def told(found: dict[str, dict[str, str]]) -> set[str]:
    """Return what the pages could read of the answers."""
    return {said for ways in found.values() for said in ways.values()} - {"failed", "opaque", "true", "false"}


def test_pages_of_other_origins_get_nothing_graded(careless: Browser, stranger: int) -> None:
    body = json.dumps({"verifier": "exact", "completion": "#### 1", "reference": "1"})
    with service("-v", "exact") as url:
        port = int(url.rpartition(":")[2])
        found = from_all_origins(careless, stranger, port, "/v1/grade", body)
        assert all(said.startswith("421 ") for said in told(found))
        assert told({"rebound": found["rebound"]}), "the rebound page is told that it is refused"
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            metrics = answer.read().decode()
        assert "reasoner_verdicts_total{" not in metrics
        assert 'path="/v1/grade",status="403"' in metrics
        with opened(careless, f"http://evil.test:{port}/page", blank=True) as page:
            assert page.evaluate("fetch('/metrics').then(answer => answer.status)") == 421
        # its own page may
        with opened(careless, f"{url}/docs") as page:
            own = page.evaluate(SEND, ["/v1/grade", body])
            assert own["json"].startswith("200 ")
            assert own["text"].startswith("415 ")


def test_pages_of_other_origins_label_nothing(careless: Browser, stranger: int, tmp_path: Path) -> None:
    rows = [
        {"id": str(n), "prompt": "Which?", "first": f"one {n}", "second": f"two {n}", "label": None} for n in range(3)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = LabelPage(Sitting(file))
    thread = threading.Thread(target=page.serve_forever, daemon=True)
    thread.start()
    try:
        shown = page.sitting.shown()
        assert shown is not None
        body = json.dumps({"id": shown.id, "side": "left", "seconds": 1.0})
        # whoever knows even the secret
        found = from_all_origins(careless, stranger, page.server_port, f"/{page.secret}/label", body)
        assert all(said.startswith("404 ") for said in told(found))
        assert page.sitting.labels == {}
    finally:
        page.shutdown()
        page.server_close()
        thread.join()


def test_pages_of_other_origins_read_no_runs(careless: Browser, stranger: int, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    server = ViewServer(Folder(tmp_path / "runs"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    get = "url => fetch(url).then(async answer => answer.status + ' ' + await answer.text(), () => 'failed')"
    path = f"/{server.secret}/api/runs"  # whoever knows even the secret
    try:
        for name in ("127.0.0.1", "localhost", "evil.test"):
            with opened(careless, f"http://{name}:{stranger}/") as page:
                assert page.evaluate(get, f"http://127.0.0.1:{server.server_port}{path}") == "failed"
        with opened(careless, f"http://evil.test:{server.server_port}/page", blank=True) as page:
            assert page.evaluate(get, path).startswith("404 ")
        with opened(careless, server.address) as page:
            assert page.evaluate(get, "api/runs").startswith("200 ")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.slow
def test_pages_of_other_origins_do_not_pause_the_server(careless: Browser, stranger: int, tmp_path: Path) -> None:
    from reasoner.config.sections import ModelSection, ScratchConfig
    from reasoner.engine.remote import Server
    from reasoner.engine.server import memory_options
    from reasoner.model.load import load_model

    shape = ScratchConfig(hidden_size=64, layers=2, heads=2, max_positions=160)
    model, tokenizer = load_model(ModelSection(from_scratch=shape), seed=0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    port = free_port()
    options = ["--max-model-len", "160", "--dtype", "float32", "--port", str(port), *memory_options(0.25, 0.3)]
    process = subprocess.Popen(
        [sys.executable, "-m", "reasoner.engine.serve", "--model", str(tmp_path), *options],
        env=os.environ | {KEY_VARIABLE: "sesame"},
        start_new_session=True,
    )
    server = Server(f"http://127.0.0.1:{port}", seconds=60.0, key="sesame")
    try:
        server.wait_until_ready(time.monotonic() + 300)
        for path in ("/pause?mode=keep", "/sleep", "/v1/completions", "/collective_rpc"):
            found = from_all_origins(careless, stranger, port, path, '{"prompt": "a", "max_tokens": 1}')
            assert all(said.startswith("401 ") for said in told(found))
        answer = server.post("/v1/completions", {"model": server.model, "prompt": "a", "max_tokens": 2})
        assert answer["choices"], "it was not paused"
    finally:
        server.stop()
        os.killpg(process.pid, 9)
        process.wait()
