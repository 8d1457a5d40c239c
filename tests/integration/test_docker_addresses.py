"""The real engine, found by a context, over TCP and over TLS, without a client program."""

from __future__ import annotations

import contextlib
import hashlib
import json
import select
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from sandbox import SandboxUnavailable, open_sandbox
from sandbox.docker import require_engine
from sandbox.pool import PooledSandbox
from tests.backends import opened, python, said

pytestmark = pytest.mark.integration
SOCKET = "/var/run/docker.sock"
LONG = "print('x' * 3_000_000)"


class Forwarder:
    """A proxy that passes every connection at a local port to the engine's socket, after TLS if that is configured."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._forward, args=(client,), daemon=True))
            self._threads[-1].start()

    def _forward(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain, socket.socket(socket.AF_UNIX) as engine:
            client = self._context.wrap_socket(plain, server_side=True) if self._context else plain
            with client:
                engine.connect(SOCKET)
                while True:
                    waiting = isinstance(client, ssl.SSLSocket) and client.pending()
                    for side in [client] if waiting else select.select([client, engine], [], [])[0]:
                        data = side.recv(1 << 16)
                        if not data:
                            return
                        (engine if side is client else client).sendall(data)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user's folder of Docker settings, and no client program."""
    if not Path(SOCKET).exists():
        pytest.skip(f"no Docker engine at {SOCKET}: tools/start-docker.sh")
    opened("docker", workers=1).close()
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    return tmp_path


def works() -> None:
    with open_sandbox("docker", workers=1) as found:
        assert isinstance(found, PooledSandbox)
        assert said(found.run(python("print(6 * 7)"))) == "42\n"
        assert len(said(found.run(python(LONG, stdin=bytes(3_000_000))))) == 3_000_001
        assert found.replaced == 0


def test_the_context_in_use(elsewhere: Path) -> None:
    meta = elsewhere / "contexts" / "meta" / hashlib.sha256(b"mine").hexdigest()
    meta.mkdir(parents=True)
    endpoints = {"docker": {"Host": f"unix://{SOCKET}", "SkipTLSVerify": False}}
    (meta / "meta.json").write_text(json.dumps({"Name": "mine", "Metadata": {}, "Endpoints": endpoints}))
    (elsewhere / "config.json").write_text(json.dumps({"currentContext": "mine"}))
    works()


def test_tcp(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forwarder = Forwarder(None)
    monkeypatch.setenv("DOCKER_HOST", forwarder.url)
    works()
    forwarder.close()


@pytest.fixture
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the certificates of an authority, the server and the client, with Docker's file names."""
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    commands = ["req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca.pem -days 2 -subj /CN=ca"]
    for name, files in (("server", ("server-key.pem", "server.pem")), ("client", ("key.pem", "cert.pem"))):
        commands.append(f"req -newkey rsa:2048 -nodes -keyout {files[0]} -out {name}.csr -subj /CN={name}")
        signing = f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -out {files[1]} -days 2"
        commands.append(f"{signing} -extfile names")
    for command in commands:
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return folder


def test_tls(certificates: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificates / "server.pem", certificates / "server-key.pem")
    forwarder = Forwarder(context)
    monkeypatch.setenv("DOCKER_HOST", forwarder.url)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    works()
    (certificates / "ca.pem").write_bytes((certificates / "server.pem").read_bytes())
    with pytest.raises(SandboxUnavailable, match="TLS failed"):
        require_engine()
    forwarder.close()
