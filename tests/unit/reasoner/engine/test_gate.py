"""Authorization at vLLM's server: the trainer, by its key, and no web page."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from reasoner.engine.gate import BODILESS, KEY_VARIABLE, ROUTES, START_HEADER, Gate
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
    return answer(gate, method, path, *headers)["status"]


def answer(gate: Gate, method: str, path: str, *headers: tuple[bytes, bytes]) -> dict:
    """Return the message that begins the answer."""
    said: list[dict] = []

    async def send(message) -> None:
        said.append(message)

    async def receive() -> dict:
        raise AssertionError("the body is read")

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    asyncio.run(gate(scope, receive, send))
    return said[0]


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


def test_every_answer_of_one_start_has_the_same_mark(gate: Gate) -> None:
    answers = [answer(one, "GET", path, KEY) for one in (gate, Gate(gate)) for path in ("/health", "/v1/models")]
    marks = [dict(said["headers"])[START_HEADER.encode()] for said in answers]
    assert marks[0] == marks[1] != marks[2] == marks[3]
    assert all(len(mark) == 16 for mark in marks)


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


SERVER = "import signal, subprocess, sys, time; {ignores} subprocess.Popen(['sleep', '600', {mark!r}]); time.sleep(600)"
GUARD = "import sys, reasoner.engine.serve as s; s.STOP_SECONDS = 1; s.server_command = lambda given: {command!r}; "
GUARD += "sys.exit(s.main())"
TRAINER = "import os, subprocess, sys, time; e = os.environ | dict(REASONER_STARTED_BY=str(os.getpid())); "
TRAINER += "subprocess.Popen([sys.executable, '-c', sys.argv[1]], env=e, start_new_session=True); time.sleep({seconds})"


def running(mark: str) -> list[int]:
    """Return the processes that have a word in their command line, but for this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "cmdline").read_text().split("\0") and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("seconds", [0.0, 600.0], ids=["ends before the server starts", "is killed later"])
@pytest.mark.parametrize("ignores", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN);"], ids=["", "deaf"])
def test_a_server_and_its_processes_end_with_the_trainer(seconds: float, ignores: str) -> None:
    mark = f"600.{os.getpid()}{int(seconds)}{len(ignores)}"  # of the processes of this test
    command = [sys.executable, "-c", SERVER.format(ignores=ignores, mark=mark)]
    guard = GUARD.format(command=command)
    environment = os.environ | {KEY_VARIABLE: "k" * 20}
    trainer = subprocess.Popen([sys.executable, "-c", TRAINER.format(seconds=seconds), guard], env=environment)
    try:
        if seconds:
            wait_for(lambda: running(mark))
            trainer.kill()
        trainer.wait(60)
        wait_for(lambda: not running(mark) and not running(command[-1]) and not running(guard), seconds=90)
    finally:
        trainer.kill()


def wait_for(reached: Callable[[], object], *, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_a_server_that_is_asked_to_end_says_how_it_ended() -> None:
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
    environment = os.environ | {KEY_VARIABLE: "k" * 20}
    guard = [sys.executable, "-c", GUARD.format(command=command)]
    with subprocess.Popen(guard, env=environment, stdout=subprocess.PIPE, start_new_session=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"
        server.terminate()
        assert server.wait(30) == 256 - signal.SIGTERM  # -15 of the server, as an exit status
