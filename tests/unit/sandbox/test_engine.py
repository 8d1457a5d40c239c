"""The choice of the container engine, and the messages if none answers: stand-ins for engines, on their own sockets."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.api import SandboxUnavailable
from sandbox.docker import require_engine


class Engine:
    """A server that answers every request at a socket with the same bytes; None closes the connection without an
    answer.
    """

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self.answers: dict[str, bytes | None] = {}
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                request = connection.recv(4096).decode()
                if request:
                    self.asked.append(request.split()[1])
                    answer = self.answers.get(self.asked[-1].rpartition("/")[2])
                    if answer is not None:
                        connection.sendall(answer)


def http(body: object, status: str = "200 OK") -> bytes:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close"
    return f"{head}\r\n\r\n".encode() + data


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")  # no client program is needed
    found = Engine(tmp_path / "e.sock")
    found.answers = {"version": http({"ApiVersion": "1.41"}), "info": http({"ServerVersion": "9.9"})}
    yield found
    found.close()


def context(folder: Path, name: str, host: str, *, current: bool = False) -> None:
    """Write the files that `docker context create` writes."""
    meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": False}
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    if current:
        (folder / "config.json").write_text(json.dumps({"currentContext": name}))


def test_the_engine_of_docker_host(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    assert require_engine().get("ServerVersion") == "9.9"
    assert engine.asked == ["/version", "/v1.41/info"]  # the API that it speaks itself


def test_the_context_in_use_the_one_that_is_named_and_docker_host_before_both(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context(tmp_path, "mine", engine.url, current=True)
    assert require_engine().get("ServerVersion") == "9.9"
    context(tmp_path, "other", f"unix://{tmp_path}/nothing.sock")
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    with pytest.raises(SandboxUnavailable, match=r"nothing\.sock cannot be used: there is no such socket"):
        require_engine()
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    assert require_engine().get("ServerVersion") == "9.9"


def test_a_context_that_is_not_there_or_torn_is_no_silent_default(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    with pytest.raises(SandboxUnavailable, match="the Docker context gone does not exist"):
        require_engine()
    context(tmp_path, "torn", engine.url, current=True)
    next(tmp_path.glob("contexts/meta/*/meta.json")).write_text("{")
    monkeypatch.delenv("DOCKER_CONTEXT")
    with pytest.raises(SandboxUnavailable, match="the Docker context in use cannot be read"):
        require_engine()
    assert engine.asked == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http({"ApiVersion": "1.20"}), "its API is too old: API versions below 1.24 .* Install a newer"),
        (http("<html>nginx</html>"), "but it is not a Docker engine"),
        (http({"Version": "1"}), "but it is not a Docker engine"),
        (None, r"does not answer \(it closed the connection\)"),
        (http({"message": "shutting\ndown"}, "503 Service Unavailable"), r"cannot be used: shutting down$"),
    ],
    ids=["old", "another server", "no version", "hangs up", "says why"],
)
def test_one_clear_sentence(engine: Engine, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, said: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    engine.answers["version"] = answer
    with pytest.raises(SandboxUnavailable, match=said) as caught:
        require_engine()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"DOCKER_HOST": "unix:///nowhere/docker.sock"},
            r"there is no such socket; install and start one \(apt-get install",
        ),
        ({"DOCKER_HOST": "tcp://127.0.0.1:1"}, r"does not answer \(Connection refused\)"),
        ({"DOCKER_HOST": "ssh://me@there"}, "Forward it"),
        ({"DOCKER_HOST": "bogus://x"}, "Invalid bind address protocol: bogus://x"),
        (
            {"DOCKER_HOST": "tcp://127.0.0.1:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/nowhere"},
            r"TLS is enabled, but cert\.pem",
        ),
    ],
)
def test_addresses_where_no_engine_is(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SandboxUnavailable, match=said):
        require_engine()


def test_no_right_to_use_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.url)

    def refuse(self: socket.socket, address: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(SandboxUnavailable, match="this user may not use it; join the group docker"):
        require_engine()
