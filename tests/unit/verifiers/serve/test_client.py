"""The client of a service that hangs, drips, floods, lies or takes less at a time: a batch costs `seconds` at most."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from verifiers import BadOption, GradingRow, Outcome
from verifiers.pool import GradingPool
from verifiers.serve import client
from verifiers.serve.client import Remote, ServiceError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ROWS = [GradingRow(completion=str(n), reference="1") for n in range(16)]


@contextmanager
def speaking(answer: Callable[[socket.socket, bytes], None]) -> Iterator[tuple[str, list[bytes]]]:
    """Run a server of one function; yield the address of a verifier there and the received bodies."""
    bodies: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while request := _request(connection):
                    bodies.append(request)
                    answer(connection, request)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/exact", bodies
        listening.shutdown(socket.SHUT_RDWR)


def _request(connection: socket.socket) -> bytes:
    read = b""
    while b"\r\n\r\n" not in read:
        if not (part := connection.recv(65536)):
            return b""
        read += part
    head, _, body = read.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return body


def said(connection: socket.socket, value: object, status: bytes = b"200 OK") -> None:
    body = json.dumps(value).encode()
    connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def graded(connection: socket.socket, body: bytes) -> None:
    rows = json.loads(body)["rows"]
    verdict = {"outcome": "correct", "reward": 1.0, "detail": {"reason": "yes"}}
    said(connection, {"verdicts": [verdict] * len(rows)})


def hang(connection: socket.socket, _: bytes) -> None:
    time.sleep(30)


def drip_body(connection: socket.socket, _: bytes) -> None:
    connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
    drip(connection, b" ")


def drip_head(connection: socket.socket, _: bytes) -> None:
    connection.sendall(HEAD + b"X: ")
    drip(connection, b"a")


def drip_chunks(connection: socket.socket, _: bytes) -> None:
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    drip(connection, b"1\r\n \r\n")


def drip(connection: socket.socket, part: bytes) -> None:
    for _ in range(300):
        connection.sendall(part)
        time.sleep(0.1)


@pytest.mark.parametrize("answer", [hang, drip_body, drip_head, drip_chunks])
def test_a_batch_costs_its_seconds_and_no_more(answer: Callable[[socket.socket, bytes], None]) -> None:
    with speaking(answer) as (url, bodies), GradingPool(workers=1) as pool:
        started = time.monotonic()
        futures = pool.submit_batch(url, {"seconds": 1.0, "batch": 16}, ROWS)
        verdicts = [future.result() for future in futures]
        assert time.monotonic() - started < 5
    assert {verdict.outcome for verdict in verdicts} == {Outcome.VERIFIER_ERROR}
    assert len(bodies) <= 8, "rows are not tried one by one"


def test_a_busy_service_is_asked_again_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(connection: socket.socket, _: bytes) -> None:
        said(connection, {"detail": "busy"}, b"503 Busy")

    with speaking(busy) as (url, bodies):
        started = time.monotonic()
        with pytest.raises(ServiceError, match="answered 503: busy"):
            Remote(url, seconds=1.0).grade_batch(ROWS)
        assert time.monotonic() - started < 3
        assert len(bodies) > 2
    with speaking(lambda c, b: said(c, {}, b"503 Busy") if len(bodies) < 3 else graded(c, b)) as (url, bodies):
        assert len(Remote(url, seconds=10.0).grade_batch(ROWS)) == 16


def test_an_answer_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_BYTES", 10_000)
    with (
        speaking(lambda c, _: said(c, {"verdicts": ["x" * 20_000]})) as (url, _),
        pytest.raises(ServiceError, match="must answer with at most 10000 bytes"),
    ):
        Remote(url, seconds=5.0).grade_batch(ROWS)


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {"verdicts": []},
        {"verdicts": [{}] * 16},
        {"verdicts": [{"outcome": "wrong"}] * 16},
        {"verdicts": [{"outcome": "correct", "reward": 0.5}] * 16},
        {"verdicts": [None] * 16},
    ],
)
def test_what_is_no_verdict_is_the_services_fault(answer: object) -> None:
    with speaking(lambda c, _: said(c, answer)) as (url, bodies):
        with pytest.raises(ServiceError):
            Remote(url, seconds=5.0).grade_batch(ROWS)
        assert len(bodies) == 1


def test_a_batch_that_is_too_large_is_sent_in_halves() -> None:
    def small_ones(connection: socket.socket, body: bytes) -> None:
        if len(json.loads(body)["rows"]) > 4:
            return said(connection, {"detail": "a batch may have 4 rows"}, b"413 Too Large")
        return graded(connection, body)

    with speaking(small_ones) as (url, bodies):
        assert [verdict.reward for verdict in Remote(url).grade_batch(ROWS)] == [1.0] * 16
        assert len(bodies) == 1 + 2 + 4
    with (
        speaking(lambda c, _: said(c, {"detail": "no"}, b"413 Too Large")) as (url, _),
        pytest.raises(ServiceError, match="answered 413: no"),
    ):
        Remote(url).grade_batch(ROWS)


def test_a_row_that_cannot_be_sent_costs_itself() -> None:
    rows = [*ROWS[:2], GradingRow(completion="", reference="\ud800"), GradingRow(completion="", reference=float("nan"))]
    odd = GradingRow(completion="half \ud800", reference="\U0001f600")
    with speaking(graded) as (url, bodies):
        verdicts = Remote(url).grade_batch([*rows, odd])
        assert [verdict.outcome for verdict in verdicts] == ["correct"] * 2 + ["bad_reference"] * 2 + ["correct"]
        assert len(json.loads(bodies[0])["rows"]) == 3
        assert Remote(url).grade_batch(rows[2:])[0].outcome is Outcome.BAD_REFERENCE
        assert len(bodies) == 1


def test_connections_are_kept_and_replaced() -> None:
    connections: set[int] = set()

    def once(connection: socket.socket, body: bytes) -> None:
        connections.add(connection.fileno())
        graded(connection, body)
        if json.loads(body)["rows"][0]["completion"] == "last":
            connection.shutdown(socket.SHUT_RDWR)

    with speaking(once) as (url, bodies):
        remote = Remote(url)
        for text in ("a", "b", "last", "c"):
            assert remote.grade(GradingRow(completion=text, reference="1")).reward == 1.0
        assert len(bodies) in (4, 5)  # one more where the closed connection still took a body
        assert len(connections) <= 2


def test_a_refused_option_is_the_batchs() -> None:
    with speaking(lambda c, _: said(c, {"detail": "no such option"}, b"422 No")) as (url, bodies):
        with pytest.raises(BadOption, match="no such option"):
            Remote(url).grade_batch(ROWS)
        assert len(bodies) == 1
