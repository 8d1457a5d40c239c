"""One vLLM server over HTTP: its requests, its health, and its process where we started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from reasoner.engine.base import EngineError
from reasoner.engine.environment import available_cpus
from reasoner.engine.gate import KEY_VARIABLE
from reasoner.engine.serve import engine_key, server_environment
from verifiers.own_files import open_own


class Lost(Exception):
    """The server does not answer any more."""


class Refused(Exception):
    """The server answered that it will not do it."""


class Server:
    """A server that runs already."""

    def __init__(self, url: str, *, seconds: float, key: str | None = None) -> None:
        """`seconds`: longest wait for one answer; `key`: the server's, None: see `engine_key`."""
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise EngineError(f"a server must be given as http://HOST:PORT; got {url!r}. Mend engine.options.urls.")
        self.url = url.rstrip("/")
        # the caller bounds the requests in flight; idle connections end before uvicorn's 5 s, which would end them
        # under a request
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2.0)
        headers = {"Authorization": f"Bearer {key or engine_key()}"}
        self._client = httpx.Client(
            timeout=seconds, limits=limits, headers=headers, trust_env=False
        )  # through no proxy
        self.alive = False
        self.pending = 0
        """Requests sent and not answered."""
        self.model = ""

    def post(self, path: str, body: object | None = None) -> dict[str, Any]:
        """The JSON answer to a POST.

        Raises:
            Lost: no connection, none in time, or an answer 5xx. Refused: an answer 4xx.
        """
        return self._answer("POST", path, json=body)

    def _answer(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            answer = self._client.request(method, self.url + path, **options)
        except httpx.RequestError as error:
            raise Lost(f"{self.url}: {error}") from error
        if answer.is_server_error:
            raise Lost(f"{self.url} answered {answer.status_code}: {answer.text[:300]!r}")
        if answer.status_code == 401:
            raise EngineError(f"{self.url} must know our key. Give it and the trainer the same {KEY_VARIABLE}.")
        if answer.is_client_error:
            raise Refused(f"{answer.status_code}: {answer.text[:500]}")
        return answer.json() if answer.content.strip() else {}

    def ready(self) -> bool:
        """Whether it answers its health check and names its model."""
        try:
            self._answer("GET", "/health", timeout=5.0)
            self.model = self._answer("GET", "/v1/models", timeout=5.0)["data"][0]["id"]
        except (Lost, Refused):
            return False
        return True

    def wait_until_ready(self, deadline: float) -> None:
        """Wait for the health check.

        Raises:
            EngineError: the deadline (monotonic seconds) passed or the process ended.
        """
        while not self.ready():
            self.check_running()
            if time.monotonic() > deadline:
                raise EngineError(f"{self.url} must answer before engine.options.start_seconds. {self.last_words()}")
            time.sleep(0.2)
        self.alive = True

    def load(self, path: Path) -> str:
        """Replace the weights by those of a file, whatever runs meanwhile; returns the checksum of what arrived."""
        self.post("/pause?mode=keep")
        try:
            answer = self.post("/collective_rpc", {"method": "reasoner_load_weights", "args": [str(path)]})
            self.post("/reset_prefix_cache")
        finally:
            self.post("/resume")
        return str(answer["results"][0])

    def revive(self) -> None:
        """Take a lost server back where it answers again; it gets the present weights before any request."""
        if not self.alive:
            self.alive = self.ready()

    def check_running(self) -> None:
        """Raise where its process is known to have ended."""

    def last_words(self) -> str:
        """What helps to tell why it does not answer."""
        return f"{self.url} must run `python -m reasoner.engine.serve`, reachable from here, with our {KEY_VARIABLE}."

    def stop(self) -> None:
        """Close the connections; a server that was given goes on."""
        self._client.close()


class OwnServer(Server):
    """A server that we started, and end."""

    def __init__(
        self,
        model_path: str,
        *,
        number: int,
        log: Path,
        device: str | None,
        seconds: float,
        options: Sequence[str],
    ) -> None:
        """`number` and `log`: to tell several apart; `device`: its CUDA_VISIBLE_DEVICES."""
        self._command = [sys.executable, "-m", "reasoner.engine.serve", "--model", model_path, *options]
        self._number, self._log, self._device = number, log, device
        port = free_port()
        self._command += ["--port", str(port)]
        super().__init__(f"http://127.0.0.1:{port}", seconds=seconds)
        self._start()

    def _start(self) -> None:
        environment = server_environment() | {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(available_cpus()))
        }
        if self._device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self._device
        with os.fdopen(open_own(self._log, "append"), "ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # one group to end, and a terminal's Ctrl-C is for the trainer
            )

    def revive(self) -> None:
        if not self.alive and self.process.poll() is not None:
            self._kill()  # what it leaves behind: its engine is a process of its own
            self._start()
        super().revive()

    def check_running(self) -> None:
        if self.process.poll() is not None:
            raise EngineError(
                f"vLLM server {self._number} ended with status {self.process.returncode}. {self.last_words()}"
            )

    def last_words(self) -> str:
        tail = self._log.read_text(errors="replace").strip().splitlines()[-12:] if self._log.exists() else []
        return f"Last lines of server {self._number}: " + " | ".join(tail)

    def stop(self) -> None:
        super().stop()
        self._kill()

    def _kill(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait()


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
