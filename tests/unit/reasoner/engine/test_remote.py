"""A server's answers over HTTP: when it counts as lost or as refusing, and which connections are used."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from reasoner.engine.base import EngineError
from reasoner.engine.remote import Clients, Lost, Refused, Server
from reasoner.engine.serve import engine_key
from reasoner.engine.server import ServerEngine
from reasoner.records import Request, SamplingParams
from verifiers.serve.addresses import free_port


class Answers(BaseHTTPRequestHandler):
    """A server that echoes each request; the path selects its other behaviour."""

    protocol_version = "HTTP/1.1"
    connections: set[tuple[str, int]]
    keys: set[str]
    together: threading.Barrier

    def do_GET(self) -> None:
        self._say(200, b"" if self.path == "/health" else json.dumps({"data": [{"id": "some-model"}]}).encode())

    def do_POST(self) -> None:
        self.keys.add(self.headers.get("Authorization", ""))
        self.connections.add(self.client_address)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/slow":
            time.sleep(1.0)
        if self.path == "/hang-up":
            self.close_connection = True
            return
        if self.path == "/together":
            self.together.wait(60)
        self._say(int(self.path[1:]) if self.path[1:].isdecimal() else 200, body)

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class Answering(ThreadingHTTPServer):
    request_queue_size = 128


@pytest.fixture
def served() -> Iterator[Server]:
    Answers.connections, Answers.keys, Answers.together = set(), set(), threading.Barrier(20)
    http = Answering(("127.0.0.1", 0), Answers)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    server = Server(f"http://127.0.0.1:{http.server_address[1]}/", seconds=0.5)
    yield server
    server.stop()
    http.shutdown()
    http.server_close()


def test_answers_come_back_and_one_connection_carries_them(served: Server) -> None:
    assert served.ready()
    assert served.model == "some-model"
    for number in range(5):
        assert served.post("/x", {"number": number}) == {"number": number}
    assert served.post("/pause?mode=keep") == {}
    assert len(Answers.connections) == 1


def test_no_request_waits_for_a_connection_that_another_thread_closed(served: Server) -> None:
    """With one httpx client for all threads dozens of these requests fail, and some wait for their whole timeout."""
    server = Server(served.url, seconds=20.0)
    rounds, interval = 40, sys.getswitchinterval()

    def ask(thread: int) -> float:
        draw, longest = random.Random(thread), 0.0
        for number in range(rounds):
            began = time.monotonic()
            assert server.post("/x", {"number": number}) == {"number": number}
            longest = max(longest, time.monotonic() - began)
            time.sleep(draw.random() * 0.01)
        return longest

    sys.setswitchinterval(1e-6)
    try:
        with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(32) as pool:
            plain = httpx.Limits
            patch.setattr(httpx, "Limits", lambda keepalive_expiry, **more: plain(keepalive_expiry=0.005, **more))
            server = Server(served.url, seconds=20.0)
            longest = max(pool.map(ask, range(32)))
    finally:
        sys.setswitchinterval(interval)
        server.stop()
    assert longest < 15.0


def test_a_client_in_use_is_closed_when_its_request_ends() -> None:
    made: list[httpx.Client] = []

    def make() -> httpx.Client:
        made.append(httpx.Client())
        return made[-1]

    clients = Clients(make)
    with clients.one() as first, clients.one() as second:
        assert first is not second
    with clients.one() as again:
        assert again is first, "the one that was given back last"
        clients.close()
        assert (first.is_closed, second.is_closed) == (False, True)
    assert first.is_closed
    assert len(made) == 2


def test_requests_run_beside_each_other(served: Server) -> None:
    served = Server(served.url, seconds=10.0)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: served.post("/together", [number]), range(20)))
    assert answers == [[number] for number in range(20)]
    served.stop()


def test_every_request_carries_the_key(served: Server) -> None:
    served.post("/x")
    given = Server(served.url, seconds=0.5, key="another")
    given.post("/x")
    assert Answers.keys == {f"Bearer {engine_key()}", "Bearer another"}
    with pytest.raises(EngineError, match=r"did not accept our key. Set the same REASONER_ENGINE_KEY"):
        given.post("/401")
    given.stop()


def test_what_cannot_answer_is_lost_and_what_will_not_has_refused(served: Server) -> None:
    with pytest.raises(Refused, match=r'^422: \["why"\]$'):
        served.post("/422", ["why"])
    with pytest.raises(Lost, match=r"http://127.0.0.1:\d+ answered 503"):
        served.post("/503", {})
    for path in ("/slow", "/hang-up"):
        with pytest.raises(Lost, match=r"http://127.0.0.1:\d+: "):
            served.post(path, {})
    nobody = Server(f"http://127.0.0.1:{free_port()}", seconds=0.5)
    with pytest.raises(Lost):
        nobody.post("/x", {})
    assert not nobody.ready()
    nobody.revive()
    assert (nobody.alive, nobody.waking) == (False, False)
    nobody.stop()
    served.revive()
    assert (served.alive, served.waking) == (False, True), "it needs the current weights first"
    served.use(served.seen()._replace(model="model"))
    assert (served.alive, served.waking) == (True, False)


def test_no_proxy_stands_between(served: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{free_port()}")
    direct = Server(served.url, seconds=0.5)
    assert direct.post("/x", [1]) == [1]
    direct.stop()


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(EngineError, match=r"must be given as http://HOST:PORT; got '127.0.0.1:8000'"):
        Server("127.0.0.1:8000", seconds=1.0)


@pytest.mark.parametrize("of_request", [True, False])
def test_more_stop_strings_than_a_server_takes_are_told_before_anything_is_sampled(of_request: bool) -> None:
    engine = object.__new__(ServerEngine)
    engine._limit = 100
    stops = ("a", "b", "c", "d", "e")
    request = Request(prompt_ids=(1,), seed=0, stop=stops if of_request else None)
    params = SamplingParams(max_tokens=4, stop=() if of_request else stops)
    with pytest.raises(EngineError, match=r"at most 4 stop strings in a request; got 5"):
        engine.generate([request], params)
