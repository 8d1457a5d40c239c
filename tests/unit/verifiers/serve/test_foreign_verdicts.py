"""Verdicts from another machine are foreign data: each is valid, or the row could not be graded."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from verifiers import BadOption, GradingRow, Outcome, get_verifier
from verifiers.pool import GradingPool, GradingRequest

RIGHT: dict[str, Any] = {"outcome": "correct", "reward": 1.0, "detail": {"reason": "yes"}, "verifier": "math"}


@contextmanager
def service(verdict: str) -> Iterator[str]:
    """Answer every batch with this verdict for each of its rows."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["rows"]
            body = ('{"verdicts": [' + ", ".join([verdict] * len(rows)) + "]}").encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/math"
        server.shutdown()
        thread.join()


def graded(verdict: str) -> list[Any]:
    with service(verdict) as url, GradingPool(workers=1) as pool:
        row = GradingRow(completion="4", reference="4")
        return list(pool.grade(GradingRequest(url, row, {"seconds": 5.0}) for _ in range(2)))


@pytest.mark.parametrize(
    "verdict",
    [
        json.dumps(RIGHT | {"reward": True}),
        json.dumps(RIGHT | {"reward": "1"}),
        json.dumps(RIGHT | {"reward": 0.5}),
        json.dumps(RIGHT | {"reward": 7.0, "decided_by": "x"}),
        json.dumps(RIGHT | {"outcome": "scored", "reward": float("nan")}),
        '{"outcome": "scored", "reward": 1e400}',
        '{"outcome": "scored", "reward": 1' + "0" * 400 + "}",
        json.dumps({"reward": 1.0}),
        json.dumps(RIGHT | {"detail": [1]}),
        json.dumps(RIGHT | {"detail": {"reason": "x" * (17 << 20)}}),
        '{"outcome": "correct", "reward": 1.0, "detail": {"deep": ' + "[" * 300 + "]" * 300 + "}}",
        json.dumps(RIGHT | {"colour": "red"}),
        '"correct"',
        "null",
    ],
    ids=lambda verdict: verdict[:60],
)
def test_a_row_whose_verdict_is_none_could_not_be_graded(verdict: str) -> None:
    for found in graded(verdict):
        assert (found.outcome, found.reward) == (Outcome.VERIFIER_ERROR, None)
        assert len(found.reason) < 600


def test_a_verdict_is_taken_and_its_text_can_be_written() -> None:
    for found in graded(json.dumps(RIGHT | {"answer": "\ud800", "reward": 1})):
        assert (found.outcome, found.reward, found.answer) == (Outcome.CORRECT, 1.0, "\ufffd")
        assert type(found.reward) is float


@pytest.mark.parametrize("token", ["s3cret-token\n", "s3cret-token\r\nX: y", "s3cret-tokén", "s3cret-token\x00"])
def test_a_token_that_no_header_carries_is_refused_without_a_word_of_it(token: str) -> None:
    with pytest.raises(BadOption, match="token") as told:
        get_verifier("http://127.0.0.1:1/math", token=token)
    assert "s3cret" not in str(told.value)
