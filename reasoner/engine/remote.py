"""One vLLM server over HTTP: its requests, its health, and its process if this process started it."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

import httpx

from reasoner.engine.base import EngineError
from reasoner.engine.environment import available_cpus
from reasoner.engine.fetch import Source
from reasoner.engine.gate import KEY_VARIABLE, START_HEADER
from reasoner.engine.serve import STARTER_VARIABLE, engine_key, server_environment
from verifiers.own_files import open_own
from verifiers.serve.addresses import free_port, http_address, is_address

COMPLETIONS = "/v1/completions"
ADAPTER_PREFIX = "reasoner-"
"""Beginning of the names of trainers' adapters."""
NO_ADAPTERS = "does not support LoRA yet"
"""How vLLM ends with --enable-lora if it cannot adapt a class of models (vllm/v1/worker/lora_model_runner_mixin.py)."""
CONNECT_SECONDS = 10.0
"""Seconds for a connection to be accepted; a machine that is gone accepts none."""
STALLED_SECONDS = 60.0
"""Seconds without a byte after which a server that fetches weights is left out (ours)."""


def adapter_name(run: str, version: int) -> str:
    """Return the name of an adapter: of its own for each version, because vLLM keeps prefixes by name.

    Args:
        run: beginning of the names of a run's adapters.
        version: of the weights.
    """
    return f"{run}-v{version}"


class Seen(NamedTuple):
    """A server as a process reaches it."""

    url: str
    model: str
    """Name of the model that requests ask for."""
    start: str | None
    """Mark of its start."""


class Lost(Exception):
    """The server no longer answers."""


class StartedAgain(Lost):
    """The server is another process than before, without the weights that the trainer sent."""


class Refused(Exception):
    """The server refused a request (HTTP 4xx)."""


NOT_USED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Stands for the certificates of a server without TLS: to make them for each connection takes a millisecond."""


class Clients:
    """HTTP clients of one server, as many as there are requests at once; each is used by one thread at a time.

    The threads of one httpx client share its idle connections. One of them may close a connection that has expired
    while another one begins a request on it, whose file descriptor may then be another connection's: the request fails,
    or waits for its whole timeout for an answer that nobody sends (httpx 0.28, httpcore 1.0). The caller bounds the
    requests at once.
    """

    def __init__(self, make: Callable[[], httpx.Client]) -> None:
        """Make no client yet."""
        self._make, self._lock = make, threading.Lock()
        self._free: list[httpx.Client] = []
        self._closed = False

    @contextmanager
    def one(self) -> Iterator[httpx.Client]:
        """Give a client to the calling thread: the one that was used last, or a new one."""
        with self._lock:
            client = self._free.pop() if self._free else None
        client = client or self._make()
        try:
            yield client
        finally:
            with self._lock:
                if not self._closed:
                    self._free.append(client)
            if self._closed:
                client.close()

    def close(self) -> None:
        """Close the connections; those in use, when their request ends."""
        with self._lock:
            self._closed, free = True, self._free
            self._free = []
        for client in free:
            client.close()


class Server:
    """A vLLM server that is already running."""

    def __init__(self, url: str, *, seconds: float, key: str | None = None, ca_file: str | None = None) -> None:
        """Connect to nothing yet.

        Args:
            url: http://HOST:PORT or https://HOST:PORT.
            seconds: longest wait for one answer.
            key: the server's key; None: see `engine_key`.
            ca_file: certificates that sign the server's, for https; None: those of this machine.
        """
        if not is_address(url):
            raise EngineError(f"a server must be given as http://HOST:PORT; got {url!r}. Fix engine.options.urls.")
        self.url = url.rstrip("/")
        self.key = key or engine_key()
        # Idle connections end before uvicorn's timeout of 5 s, which could otherwise close one under a request.
        make = partial(
            httpx.Client,
            timeout=httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
            limits=httpx.Limits(keepalive_expiry=2.0),
            headers={"Authorization": f"Bearer {self.key}"},
            verify=_certificates(ca_file) if self.url.startswith("https") else NOT_USED,
            trust_env=False,  # ignores proxies
        )
        self._clients = Clients(make)
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock, self._hung_up = threading.Lock(), False
        self.alive = False
        """It answers and has the current weights."""
        self.waking = False
        """It answers again after it was lost, and needs the current weights before any request."""
        self.pending = 0
        """Requests sent but not answered yet."""
        self.model = ""
        """Name of the model that requests ask for: the server's own, or the newest adapter."""
        self.models: list[str] = []
        """Names of the server's model and of its adapters, when it was last seen to be ready."""
        self.start: str | None = None
        """Mark of the server's start, as it was when the server was last seen to be ready."""
        self.pulls: bool | None = None
        """True if it fetches weights, False if it reads the trainer's files; None: not decided yet."""
        self.why_lost = ""
        self.paused_seconds = 0.0
        """Seconds for which the last weight sync paused its requests."""

    def post(self, path: str, body: object | None = None) -> dict[str, Any]:
        """Return the JSON answer to a POST.

        Raises:
            Lost: no connection, no answer in time, or an answer 5xx.
            Refused: an answer 4xx.
            EngineError: the server does not accept our key.
        """
        return self._answer("POST", path, json=body)

    def _answer(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = self._send(method, path, **options)
        return answer.json() if answer.content.strip() else {}

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            with self._clients.one() as client:
                answer = client.request(method, self.url + path, extensions={"trace": self._note_socket}, **options)
        except httpx.RequestError as error:
            raise Lost(f"{self.url}: {error}") from error
        if answer.is_server_error:
            raise Lost(f"{self.url} answered {answer.status_code}: {answer.text[:300]!r}")
        if answer.status_code == 401:
            raise EngineError(
                f"{self.url} did not accept our key. Set the same {KEY_VARIABLE} there and at the trainer."
            )
        if answer.is_client_error:
            raise Refused(f"{answer.status_code}: {answer.text[:500]}")
        if self.start is not None and answer.headers.get(START_HEADER) != self.start:
            raise StartedAgain(f"{self.url} was started again, and lacks the current weights")
        return answer

    def _note_socket(self, event: str, info: dict[str, Any]) -> None:
        """Remember the socket of a new connection (httpcore's trace of a request)."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            one = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._sockets.add(one)
                if self._hung_up:
                    _break(one)

    def hang_up(self) -> None:
        """Break all connections, old and new, until `revive`: requests that wait end with `Lost`, in their threads."""
        with self._lock:
            self._hung_up = True
            for one in self._sockets:
                _break(one)

    def healthy(self, seconds: float) -> bool:
        """Return True if the server passes its health check in this time."""
        try:
            self._answer("GET", "/health", timeout=seconds)
        except (Lost, Refused, EngineError):
            return False
        return True

    def check_start(self) -> None:
        """Raise StartedAgain if the server answers, and was started again since it was last seen to be ready."""
        try:
            self._send("GET", "/health", timeout=5.0)
        except StartedAgain:
            raise
        except (Lost, Refused):
            return

    def ready(self) -> bool:
        """Return True if the server passes its health check and names its model."""
        self.start = None
        try:
            start = self._send("GET", "/health", timeout=5.0).headers.get(START_HEADER)
            self.models = [one["id"] for one in self.listed()]
        except (Lost, Refused):
            return False
        self.model, self.start = self.models[0], start
        return True

    def listed(self) -> list[dict[str, Any]]:
        """Return what the server says of its models, its own first: id, max_model_len, ..."""
        return list(self._answer("GET", "/v1/models", timeout=5.0)["data"])

    def wait_until_ready(self, deadline: float) -> None:
        """Wait until the server passes its health check.

        Raises:
            EngineError: the deadline (monotonic seconds) passed or the process ended.
        """
        while not self.ready():
            self.check_running()
            if time.monotonic() > deadline:
                raise EngineError(f"{self.url} must answer before engine.options.start_seconds. {self.failure_hint()}")
            time.sleep(0.2)
        self.alive = True

    def rpc(self, method: str, *args: object) -> list[Any]:
        """Call a method of the worker extension on every worker of the server; return their answers."""
        answer = self.post("/collective_rpc", {"method": method, "args": list(args)})
        return list(answer["results"])

    def sees(self, path: Path) -> bool:
        """Return True if all workers of the server read the same in this file as this process."""
        return set(self.rpc("reasoner_sees", str(path))) == {path.read_text()}

    def fetch(self, source: Source) -> None:
        """Let the server's workers fetch files. Sampling goes on meanwhile.

        Raises:
            Lost: the server is gone, or a fetch failed or made no progress for `STALLED_SECONDS`.
        """
        self.rpc("reasoner_fetch", asdict(source))
        received, wait, progress = -1, 0.02, time.monotonic()
        while True:
            workers = self.rpc("reasoner_fetched")
            if errors := [worker["error"] for worker in workers if worker["error"]]:
                raise Lost(f"{self.url} could not fetch the weights: {errors[0]}")
            if all(worker["done"] for worker in workers):
                return
            now = sum(worker["bytes"] for worker in workers)
            if now > received:
                received, progress = now, time.monotonic()
            elif time.monotonic() - progress > STALLED_SECONDS:
                raise Lost(f"{self.url} received nothing for {STALLED_SECONDS:.0f} s, after {now:,} bytes of weights")
            time.sleep(wait)
            wait = min(1.0, wait * 1.5)

    def load(self, folder: Path, version: int) -> list[str]:
        """Load weights from files while requests are paused; return the checksum of each worker's tensors.

        Raises:
            Lost: the server is gone, or keeps keys and values of the old weights. It stays paused, so that no request
                goes on with weights of which nobody knows the version.
        """
        paused = time.monotonic()
        self.post("/pause?mode=keep&clear_cache=true")  # unfinished requests are read again under the new weights
        digests = self.rpc("reasoner_load_weights", str(folder))
        if not self.post("/reset_prefix_cache?reset_running_requests=true").get("success"):
            raise Lost(f"{self.url} did not clear its prefix cache, and would go on with that of older weights")
        self.post("/update_weight_version", {"new_version": str(version)})
        self.post("/resume")
        self.paused_seconds = time.monotonic() - paused
        self.model = self.models[0]
        return [str(digest) for digest in digests]

    def has_base(self, run: str) -> bool:
        """Return True if the server has the base model of a run: it has adapters whose names begin with the run's."""
        return any(name.startswith(run) for name in self.models)

    def named(self, version: int | None) -> str:
        """Return the name of the adapter of a version; None: of the newest weights."""
        return self.model if version is None else adapter_name(self.model.rpartition("-v")[0], version)

    def load_adapter(self, name: str, folder: Path) -> str | None:
        """Load an adapter beside the others.

        Returns:
            Why vLLM does not apply the adapter; None if it does.
        """
        began = time.monotonic()
        try:
            # answered by a sentence, not by JSON
            self._send("POST", "/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)})
        except Refused as error:
            return str(error)
        except Lost as error:  # vLLM answers 500 to an adapter that it cannot apply
            if not self.healthy(5.0):
                raise
            return str(error)
        self.paused_seconds = time.monotonic() - began
        self.models.append(name)
        return None

    def unload_adapters(self, *, keep: Collection[str]) -> None:
        """Unload all adapters of trainers but those of these names. Requests that run with one go on with it."""
        for name in [name for name in self.models if name.startswith(ADAPTER_PREFIX) and name not in keep]:
            self._send("POST", "/v1/unload_lora_adapter", json={"lora_name": name})
            self.models.remove(name)

    def restart(self) -> None:
        """Start the server's process again if it has ended. Nothing is done for a server started elsewhere.

        Call it in the main thread: on Linux a server ends with the thread that started it.
        """

    def revive(self) -> None:
        """Mark a lost server as waking if it answers again. Call before a weight sync."""
        if not self.alive:
            self._hung_up = False
            self.waking = self.ready()

    def seen(self) -> Seen:
        """Return what another process must know to use the server as this one does."""
        return Seen(self.url, self.model, self.start)

    def use(self, seen: Seen | None) -> None:
        """Send requests to this model of the server from now on; None: send it none."""
        self.alive, self.waking = seen is not None, False
        if seen is not None:
            self.url, self.model, self.start = seen
            self._hung_up = False

    def check_running(self) -> None:
        """Raise EngineError if the server's process has ended. A server started elsewhere is not checked."""

    def failure_hint(self) -> str:
        """Return text for the error message: how to start the server, or the end of its log."""
        return f"{self.url} must run `python -m reasoner.engine.serve`, reachable from here, with our {KEY_VARIABLE}."

    def stop(self) -> None:
        """Close the connections. A server started elsewhere keeps running."""
        self._clients.close()


class PlacedServer(Server):
    """A vLLM server that is placed, started, and started again elsewhere; its address may change while it is lost."""

    def __init__(
        self, address: Callable[[], str | None], *, number: int, seconds: float, key: str, until: float
    ) -> None:
        """Wait for an address.

        Args:
            address: returns the present address; None: it is not up.
            number: tells several apart.
            seconds: longest wait for one answer.
            key: the server's key.
            until: monotonic seconds; later it is an error.
        Raises:
            EngineError: the server is not up in time.
        """
        self._address, self._number = address, number
        while (url := address()) is None:
            if time.monotonic() > until:
                raise EngineError(
                    f"sampler {number} must be up before engine.options.start_seconds. {self.failure_hint()}"
                )
            time.sleep(0.2)
        super().__init__(url, seconds=seconds, key=key)

    def revive(self) -> None:
        if not self.alive and (url := self._address()) not in (None, self.url):
            self.url, self.pulls = str(url), None
        super().revive()

    def failure_hint(self) -> str:
        return f"Its log is RUN/cluster/sampler-{self._number}.log; `reasoner cluster status RUN` shows all parts."


class OwnServer(Server):
    """A vLLM server that this process starts and stops."""

    def __init__(
        self,
        model_path: str,
        *,
        number: int,
        log: Path,
        device: str | None,
        seconds: float,
        options: Sequence[str],
        host: str = "127.0.0.1",
        key: str | None = None,
    ) -> None:
        """Start the server. `number` and `log` tell several apart; `device` is its CUDA_VISIBLE_DEVICES.

        Raises:
            EngineError: `host` is not an address of this machine.
        """
        self._command = [sys.executable, "-m", "reasoner.engine.serve", "--model", model_path, *options]
        self._number, self._log, self._device = number, log, device
        try:
            port = free_port(host)
        except OSError as error:
            raise EngineError(
                f"engine.options.host must be an address of this machine; got {host!r}: {error}. `ip address` lists"
                " them."
            ) from error
        self._command += ["--host", host, "--port", str(port)]
        super().__init__(http_address(host, port), seconds=seconds, key=key)
        self._start()

    def _start(self) -> None:
        environment = server_environment(self.key) | {
            STARTER_VARIABLE: str(os.getpid()),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(available_cpus())),
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
                start_new_session=True,  # one process group to stop; Ctrl-C in the terminal reaches only the trainer
            )

    def restart(self) -> None:
        if not self.alive and self.process.poll() is not None:
            self._kill()  # its engine is a separate process and may still be running
            self._start()

    def check_running(self) -> None:
        if self.process.poll() is not None:
            raise EngineError(
                f"vLLM server {self._number} ended with status {self.process.returncode}. {self.failure_hint()}"
            )

    def failure_hint(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        if any(NO_ADAPTERS in line for line in lines):
            return "vLLM applies no adapters to this model. Set engine.options.lora: merged."
        return f"Last lines of server {self._number}: " + " | ".join(lines[-12:])

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


def _break(one: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        one.shutdown(socket.SHUT_RDWR)


def _certificates(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise EngineError(
            f"engine.options.ca_file must be a file of PEM certificates; got {ca_file!r}: {error}. Name the certificate"
            " that signed those of the servers."
        ) from error


def score_body(token_ids: Sequence[int]) -> dict[str, object]:
    """Build the JSON body of a request to COMPLETIONS that scores a text; the name of the model is not in it."""
    return {"prompt": list(token_ids), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}


def prompt_logprobs(answer: dict[str, Any], token_ids: Sequence[int]) -> list[float]:
    """Return [T-1] log-probabilities of each token given those before it, from the answer to `score_body`.

    Raises:
        EngineError: the server returned none.
    """
    positions = answer["choices"][0]["prompt_logprobs"]
    if positions is None:
        raise EngineError("vLLM returned no prompt log-probabilities.")
    return [float(at[str(token)]["logprob"]) for token, at in zip(token_ids[1:], positions[1:], strict=True)]
