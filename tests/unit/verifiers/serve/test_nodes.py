"""Grading nodes: every row gets the verdict that it gets here, whatever a node does."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from verifiers import GradingRow, Outcome, Verdict, get_verifier
from verifiers.answers.exact import Exact
from verifiers.errors import BadOption
from verifiers.pool import GradingPool
from verifiers.serve import nodes
from verifiers.serve.nodes import Node

Answer = tuple[int, Any]
Behaviour = Callable[[dict[str, Any]], Answer]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(nodes, "BUSY_SECONDS", 0.05)


def honest(asked: dict[str, Any]) -> Answer:
    verifier = get_verifier(asked["verifier"], **asked["options"])
    rows = [GradingRow(**row) for row in asked["rows"]]
    return 200, {"verdicts": [verdict.to_json() for verdict in verifier.verify_batch(rows)]}


class Standin:
    """A node that does as it is told; notes the rows that it was sent."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour, self.healthy, self.rows = behaviour, True, list[str]()
        standin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                while not standin.healthy:
                    time.sleep(0.05)
                self.reply(200, {"status": "ok", "capacity": 2})

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                standin.rows += [row["completion"] for row in asked["rows"]]
                self.reply(*standin.behaviour(asked))

            def reply(self, status: int, body: object) -> None:
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        """Stop listening; connections that are open stay."""
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def standin() -> Iterator[Callable[[Behaviour], Standin]]:
    made: list[Standin] = []

    def start(behaviour: Behaviour) -> Standin:
        made.append(Standin(behaviour))
        return made[-1]

    yield start
    for one in made:
        one.healthy = True
        one.close()


@contextmanager
def pool_over(*found: Node, workers: int = 0) -> Iterator[GradingPool]:
    lanes = [lane for node in found for lane in node.lanes]
    with GradingPool(workers=workers, nodes=lanes) as pool:
        yield pool


def grade(pool: GradingPool, count: int, verifier: str = "numeric", seconds: float = 30) -> list[bool]:
    """Grade rows of which every other one is right; return which verdicts are as they should be."""
    rows = [GradingRow(completion=f"\\boxed{{{n + n % 2}}}", reference=str(n)) for n in range(count)]
    futures = [pool.submit(verifier, {}, row) for row in rows]
    verdicts = [future.result(timeout=seconds) for future in futures]
    return [verdict.graded and verdict.right == (n % 2 == 0) for n, verdict in enumerate(verdicts)]


def test_a_node_grades_what_the_worker_here_is_not_needed_for(standin: Callable[[Behaviour], Standin]) -> None:
    node = standin(honest)
    with pool_over(Node(node.url)) as pool:
        assert pool.submit("numeric", {}, GradingRow(completion="\\boxed{7}", reference="7")).result().right
        assert grade(pool, 40) == [True] * 40
        verdict = pool.submit("exact", {}, GradingRow(completion="a", reference="a")).result()
    assert len(node.rows) > 30
    assert (verdict.verifier, verdict.version) == ("exact", get_verifier("exact").version)


def test_it_has_as_many_lanes_as_workers_by_its_word_and_two_if_it_does_not_answer_yet(
    standin: Callable[[Behaviour], Standin],
) -> None:
    node = standin(honest)
    assert len(Node(node.url).lanes) == 2
    assert len(Node(node.url, lanes=5).lanes) == 5
    node.close()
    assert len(Node(node.url).lanes) == 2


def older(asked: dict[str, Any]) -> Answer:
    status, body = honest(asked)
    for verdict in body["verdicts"]:
        verdict |= {"version": "0", "outcome": "correct", "reward": 1.0}
    return status, body


def faulty(asked: dict[str, Any]) -> Answer:
    status, body = honest(asked)
    for verdict in body["verdicts"]:
        verdict |= {"outcome": "verifier_error", "reward": None, "reason": "no sandbox on this machine"}
    return status, body


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (older, "has version 0, and"),
        (faulty, None),
        (lambda _: (404, {"detail": "no verifier numeric here"}), "no verifier numeric here"),
        (lambda _: (422, {"detail": "unknown option"}), "unknown option"),
        (lambda _: (413, {"detail": "too large"}), None),
        (lambda _: (200, {"verdicts": []}), "without a verdict for each"),
        (lambda _: (200, {"verdicts": [{"outcome": "splendid"}] * 64}), "lost"),
        (lambda _: (500, {"detail": "oh"}), "answered 500"),
        (lambda _: (200, None), "lost"),
    ],
    ids=["older", "faulty", "404", "422", "413", "none", "garbage", "500", "null"],
)
def test_whatever_a_node_answers_the_verdicts_are_those_of_here(
    standin: Callable[[Behaviour], Standin], behaviour: Behaviour, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pool_over(Node(standin(behaviour).url)) as pool:
        assert grade(pool, 12) == [True] * 12
    assert said is None or said in caplog.text
    assert caplog.text.count("grades no rows") <= 1, "it is said once"


def test_a_busy_node_is_asked_again(standin: Callable[[Behaviour], Standin]) -> None:
    refusals = iter(range(3))
    node = standin(lambda asked: (503, {"detail": "busy"}) if next(refusals, None) is not None else honest(asked))
    with pool_over(Node(node.url, lanes=1)) as pool:
        assert grade(pool, 20) == [True] * 20
    assert len(node.rows) > 20, "the refused ones came again"


def test_a_node_that_falls_silent_loses_its_rows_and_gets_new_ones_when_it_is_back(
    standin: Callable[[Behaviour], Standin], caplog: pytest.LogCaptureFixture
) -> None:
    awake = threading.Event()

    def sleeps(asked: dict[str, Any]) -> Answer:
        awake.wait(20)
        return honest(asked)

    node = standin(sleeps)
    with caplog.at_level(logging.WARNING), pool_over(Node(node.url), workers=1) as pool:
        futures = [
            pool.submit("numeric", {}, GradingRow(completion=f"\\boxed{{{n}}}", reference=f"{n}")) for n in range(50)
        ]
        while not node.rows:
            time.sleep(0.01)
        node.healthy = False
        started = time.monotonic()
        assert all(future.result(timeout=20).right for future in futures)
        assert time.monotonic() - started < 10
        assert "is lost (no answer for" in caplog.text
        node.healthy, before = True, len(node.rows)
        awake.set()
        while len(node.rows) == before:
            assert all(grade(pool, 20))
        assert "grades again" in caplog.text


def test_rows_that_json_would_change_stay_here(standin: Callable[[Behaviour], Standin]) -> None:
    node = standin(honest)
    with pool_over(Node(node.url)) as pool:
        verdict = pool.submit("exact", {}, GradingRow(completion="a\ud800", reference="a?")).result(timeout=30)
        assert verdict.outcome is Outcome.INCORRECT
        odd = pool.submit("exact", {}, GradingRow(completion="b", reference="b", info={"x": float("nan")}))
        assert odd.result(timeout=30).right
    assert node.rows == []


class Staying(Exact):
    stays_here = True


def test_a_verifier_that_stays_here_is_asked_of_no_node(
    standin: Callable[[Behaviour], Standin], caplog: pytest.LogCaptureFixture
) -> None:
    node = standin(honest)
    with pool_over(Node(node.url)) as pool:
        assert grade(pool, 2) == [True] * 2
        rows = [GradingRow(completion=str(n), reference=str(n)) for n in range(20)]
        asked = [pool.submit(f"{__name__}:Staying", {}, row) for row in rows]
        assert all(future.result(timeout=30).right for future in asked)
    assert len(node.rows) <= 2
    assert caplog.text == ""


def test_the_sandbox_of_a_node_is_its_own(standin: Callable[[Behaviour], Standin]) -> None:
    options: list[dict[str, Any]] = []

    def notes(asked: dict[str, Any]) -> Answer:
        options.append(asked["options"])
        verdict = Verdict(outcome=Outcome.CORRECT, reward=1.0, verifier="code", version=get_verifier("code").version)
        return 200, {"verdicts": [verdict.to_json()] * len(asked["rows"])}

    node, row = standin(notes), GradingRow(completion="```python\nprint(1)\n```", reference={"stdout": "1"})
    with pool_over(Node(node.url)) as pool:
        given = {"sandbox": "unsafe-host", "cpu_seconds": 9.0}
        assert pool.submit("code", given, row).result(timeout=30).right
    assert options == [{"cpu_seconds": 9.0}]


def test_an_unreachable_node_costs_nothing_but_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pool_over(Node("http://127.0.0.1:9", lanes=2)) as pool:
        assert grade(pool, 10) == [True] * 10
    assert caplog.text.count("does not answer") == 1


def test_a_node_is_where_its_address_says_when_it_is_up_again(
    standin: Callable[[Behaviour], Standin], caplog: pytest.LogCaptureFixture
) -> None:
    places: list[str | None] = [None]
    node = Node(lambda: places[0])
    assert len(node.lanes) == 2
    with caplog.at_level(logging.WARNING), pool_over(node, workers=1) as pool:
        assert all(grade(pool, 10)), "it is nowhere: all are graded here"
        assert node.health() is None
        first = standin(honest)
        places[0] = first.url
        while not first.rows:
            assert all(grade(pool, 20))
        first.behaviour = lambda _: (500, {"detail": "it dies"})
        first.healthy = False
        second = standin(honest)
        while not second.rows:
            places[0] = second.url
            assert all(grade(pool, 20))
        assert node.url == second.url
        assert node.up
    assert "is lost" in caplog.text
    assert f"{second.url} grades again" in caplog.text


def test_while_a_node_answers_it_stays_where_it_is(standin: Callable[[Behaviour], Standin]) -> None:
    first, second = standin(honest), standin(honest)
    places = [first.url]
    node = Node(lambda: places[0])
    with pool_over(node) as pool:
        while not first.rows:
            assert all(grade(pool, 20))
        places[0] = second.url
        assert all(grade(pool, 40))
    assert node.url == first.url
    assert second.rows == []


def test_an_address_that_is_none_later_does_not_end_the_looks(standin: Callable[[Behaviour], Standin]) -> None:
    places = [None, "no address", standin(honest).url]
    node = Node(lambda: places.pop(0) if len(places) > 1 else places[0])
    with pool_over(node) as pool:
        while not node.up:
            assert all(grade(pool, 5))


@pytest.mark.parametrize("url", ["127.0.0.1:8800", "ftp://x", "http://", "http://x:1/?a=1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadOption, match="a grading node must be http://HOST:PORT"):
        Node(url)


def test_no_worker_is_possible_with_nodes_alone() -> None:
    with pytest.raises(ValueError, match="workers must be >= 1"):
        GradingPool(workers=0)
