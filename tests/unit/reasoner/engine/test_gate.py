"""Authorization at vLLM's server: the trainer, by its key, and no web page."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from reasoner.engine.gate import BODILESS, KEY_VARIABLE, ROUTES, Gate
from reasoner.engine.serve import NEEDED, engine_key, server_command, server_environment

KEY = (b"authorization", b"Bearer sesame")
KIND = (b"content-type", b"application/json")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    monkeypatch.setenv(KEY_VARIABLE, "sesame")

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return Gate(app)


def status(gate: Gate, method: str, path: str, *headers: tuple[bytes, bytes]) -> int:
    said: list[dict] = []

    async def send(message) -> None:
        said.append(message)

    async def receive() -> dict:
        raise AssertionError("the body is read")

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    asyncio.run(gate(scope, receive, send))
    return said[0]["status"]


def test_the_trainer_comes_in(gate: Gate) -> None:
    for method, path in ROUTES:
        headers = [KEY] if method == "GET" or path in BODILESS else [KEY, KIND]
        assert status(gate, method, path, *headers) == 200
    assert status(gate, "POST", "/v1/completions", KEY, (b"content-type", b"Application/JSON; charset=utf-8")) == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "wanted"),
    [
        ("POST", "/pause", [], 401),
        ("POST", "/pause", [(b"content-type", b"text/plain"), (b"origin", b"http://evil.test")], 401),
        ("GET", "/health", [], 401),
        ("POST", "/pause", [(b"authorization", b"Bearer sesam")], 401),
        ("POST", "/pause", [(b"authorization", b"Basic sesame")], 401),
        ("POST", "/pause", [(b"authorization", b"Bearer \xff\xfe")], 401),
        ("POST", "/pause", [KEY, KEY], 401),
        ("POST", "/pause", [KEY, (b"origin", b"http://127.0.0.1:8000")], 403),
        ("POST", "/pause", [KEY, (b"content-type", b"text/plain")], 415),
        ("POST", "/v1/completions", [KEY], 415),
        ("POST", "/collective_rpc", [KEY, (b"content-type", b"application/jsonp")], 415),
        ("POST", "/sleep", [KEY, KIND], 404),
        ("POST", "/v1/chat/completions", [KEY, KIND], 404),
        ("GET", "/pause", [KEY], 404),
        ("OPTIONS", "/pause", [(b"origin", b"http://evil.test")], 401),
        ("GET", "/docs", [KEY], 404),
    ],
)
def test_who_is_refused(gate: Gate, method: str, path: str, headers: list[tuple[bytes, bytes]], wanted: int) -> None:
    assert status(gate, method, path, *headers) == wanted


def test_no_server_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(RuntimeError, match="must be set to the key"):
        Gate(None)  # pyright: ignore[reportArgumentType]
    command = [sys.executable, "-m", "reasoner.engine.serve", "--model", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "export REASONER_ENGINE_KEY=" in done.stderr


def test_the_key_is_in_the_environment_and_not_on_the_command_line() -> None:
    assert len(engine_key()) >= 16
    assert server_environment()[KEY_VARIABLE] == engine_key()
    command = server_command(["--model", "m"])
    assert not any(engine_key() in word for word in command)
    assert NEEDED[-2:] == ("--middleware", f"{Gate.__module__}.{Gate.__qualname__}")
