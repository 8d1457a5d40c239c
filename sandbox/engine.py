"""Access to the Docker engine by its Python library: connection, error messages, images, one container's streams.

The engine is the one that the `docker` command would use: DOCKER_HOST with DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, else
the context named by DOCKER_CONTEXT or the user's configuration, else the local socket.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import ssl
import struct
from collections.abc import Callable, Generator, Iterator, Sequence
from json import JSONDecodeError
from typing import Any, TypeVar

from docker.api import APIClient
from docker.context import Context, ContextAPI
from docker.errors import APIError, DockerException, ImageNotFound, InvalidVersion, NotFound, TLSParameterError
from docker.utils import kwargs_from_env
from requests.exceptions import RequestException

from sandbox.api import SandboxError, SandboxUnavailable
from sandbox.connection import STDERR_KEPT, polled
from sandbox.image import as_tar, canonical, ensure_root

Value = TypeVar("Value")
REPOSITORY = "reasoner-sandbox"
COMMAND_SECONDS = 120
BUILD_SECONDS = 1800
ENVIRONMENT = "ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8"
ATTACH = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
STDERR = 2
HEADER = struct.Struct(">BxxxL")
"""Header of a part of the attached output: stream and number of bytes (Docker Engine API, "attach")."""
FAILURES = (DockerException, RequestException, OSError)
START = "install and start one (apt-get install docker.io; systemctl start docker)"
OTHERS = (
    "set DOCKER_HOST to another's socket (rootless: unix://$XDG_RUNTIME_DIR/docker.sock; Podman:"
    " unix://$XDG_RUNTIME_DIR/podman/podman.sock)"
)


def connect(seconds: float = COMMAND_SECONDS) -> APIClient:
    """Connect to the engine; the caller closes the client.

    Args:
        seconds: time limit for the engine's answer to each call.
    Raises:
        SandboxUnavailable: there is no engine, no permission to use it, or its API is not supported.
    """
    where = _where()
    if where.startswith("ssh://"):
        raise SandboxUnavailable(
            f"the Docker engine at {where} cannot be used: a worker talks to its container over a socket. Forward it"
            " (ssh -L /tmp/docker.sock:/var/run/docker.sock HOST) and set DOCKER_HOST=unix:///tmp/docker.sock."
        )
    try:
        if where.startswith("unix://"):
            with socket.socket(
                socket.AF_UNIX
            ) as there:  # checked first: the library leaks a socket that cannot connect
                there.settimeout(seconds)
                there.connect(where.removeprefix("unix://"))
        given = kwargs_from_env()
        if "base_url" not in given:
            given = {**ContextAPI.kwargs_from_context(), **given}
        return Client(timeout=seconds, **given)
    except FAILURES as error:
        raise SandboxUnavailable(f"the Docker engine at {where} cannot be used: {reason(error)}") from None


class Client(APIClient):
    """Client that verifies with the engine's own certificate authority, whatever REQUESTS_CA_BUNDLE says."""

    def merge_environment_settings(self, *arguments: Any) -> dict[str, Any]:
        """Merge a request's settings as `requests` does, but keep the engine's certificate authority."""
        merged = super().merge_environment_settings(*arguments)
        if isinstance(self.verify, str):
            merged["verify"] = self.verify
        return merged


@contextlib.contextmanager
def engine(seconds: float = COMMAND_SECONDS) -> Generator[APIClient]:
    """Context manager with a client that is closed at the end."""
    client = connect(seconds)
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def named(errand: str) -> Generator[None]:
    """Context manager that turns the library's errors into a SandboxError: `errand`, then the reason."""
    try:
        yield
    except FAILURES as error:
        raise SandboxError(f"{errand}: {reason(error)}") from None


def _where() -> str:
    """Return the address of the engine, for messages.

    Raises:
        SandboxUnavailable: the context does not exist or cannot be read.
    """
    if host := os.environ.get("DOCKER_HOST"):
        return host
    wanted = os.environ.get("DOCKER_CONTEXT") or None
    try:
        found: Context | None = ContextAPI.get_context(wanted)
    except Exception as error:  # the library raises a plain Exception for a file that it cannot read
        raise SandboxUnavailable(f"the Docker context {wanted or 'in use'} cannot be read: {error}") from None
    if found is None:
        raise SandboxUnavailable(
            f"the Docker context {wanted or 'in the user configuration'} does not exist. Set DOCKER_CONTEXT to one that"
            " does, or DOCKER_HOST to the engine's address."
        )
    return (found.Host or "").removeprefix("http+")


def reason(error: BaseException) -> str:
    """Return a sentence on what went wrong and what to do."""
    for cause in _causes(error):
        if (found := _known(cause)) is not None:
            return found
    return " ".join(str(error).split())[:500]


def _known(cause: BaseException) -> str | None:
    """Return the sentence for one kind of cause; None for an unknown kind."""
    if isinstance(cause, ImageNotFound):
        return f"{cause.explanation}. Build it (reasoner sandbox build), or pass another image=."
    if isinstance(cause, APIError):
        return " ".join(str(cause.explanation or cause).split())[:500]
    if isinstance(cause, InvalidVersion):
        return f"its API is too old: {cause} Install a newer engine."
    if isinstance(cause, TLSParameterError):
        return "TLS is enabled, but cert.pem, key.pem and ca.pem are not all in DOCKER_CERT_PATH (~/.docker)."
    if isinstance(cause, ssl.SSLError):
        why = getattr(cause, "verify_message", "") or cause.reason or cause
        return f"TLS failed ({why}); see DOCKER_TLS_VERIFY and DOCKER_CERT_PATH."
    if isinstance(cause, FileNotFoundError):
        return f"there is no such socket; {START}, or {OTHERS}."
    if isinstance(cause, PermissionError):
        return "this user may not use it; join the group docker (usermod -aG docker USER, then log in again)."
    if isinstance(cause, socket.gaierror):
        return f"the host name is unknown ({cause.strerror}); see DOCKER_HOST."
    if isinstance(cause, TimeoutError) or "timed out" in str(cause):
        return "it did not answer in time; see its log, and restart it."
    if isinstance(cause, ConnectionError):
        why = os.strerror(cause.errno) if cause.errno else "it closed the connection"
        return f"it does not answer ({why}); {START}, or {OTHERS}."
    if isinstance(cause, JSONDecodeError | KeyError):
        return "a server answers there, but it is not a Docker engine; see DOCKER_HOST."
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and the errors among its arguments, the innermost first."""
    held = [argument for argument in error.args if isinstance(argument, BaseException)]
    for inner in (*held, getattr(error, "reason", None), error.__cause__ or error.__context__):
        if isinstance(inner, BaseException):
            yield from _causes(inner)
    yield error


class Attached:
    """Standard streams of one container, over the socket that the engine returned for them.

    If the container was created with `stdin_open`, its supervisor ends with this process: the engine closes the
    container's input together with the socket.

    Args:
        client: of the engine.
        container: id of a container that is created but not started, so that none of its output is missed.
    """

    def __init__(self, client: APIClient, container: str) -> None:
        stream = client.attach_socket(container, ATTACH)
        self._kept = stream  # keeps the library's response alive
        self._socket: socket.socket = getattr(stream, "_sock", stream)
        self._socket.setblocking(False)
        self._fd = self._socket.fileno()
        self._left = self._stream = 0
        self._header = bytearray()
        self._stderr = bytearray()

    def send(self, data: memoryview) -> int:
        return _at_once(self._socket.send, data)

    def receive(self, into: memoryview) -> int:
        """Read bytes of its standard output; its standard error is stored for `complaint`."""
        while True:
            if not self._left:
                self._header += (part := self._take(HEADER.size - len(self._header)))
                if not part:
                    return 0
                if len(self._header) == HEADER.size:
                    self._stream, self._left = HEADER.unpack(self._header)
                    self._header.clear()
            elif self._stream == STDERR:
                part = self._take(min(self._left, 4096))
                if not part:
                    return 0
                self._left -= len(part)
                self._stderr = (self._stderr + part)[-STDERR_KEPT:]
            else:
                got = _at_once(self._socket.recv_into, into[: self._left])
                self._left -= got
                return got

    def ready(self, event: int, seconds: float) -> bool:
        return polled(self._fd, event, seconds)

    def complaint(self) -> str:
        return bytes(self._stderr).decode("utf-8", "replace").strip()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._socket.detach())  # at once, even if the library still refers to the object

    def kill(self) -> None:
        with contextlib.suppress(OSError):  # closed already
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def wait(self) -> None:
        return

    def poll(self) -> int | None:
        """Return None while the socket is open, otherwise 0."""
        return None if self._socket.fileno() >= 0 else 0

    def _take(self, count: int) -> bytes:
        return _at_once(self._socket.recv, count)


def _at_once(call: Callable[..., Value], *arguments: object) -> Value:
    """Make a socket call; raise BlockingIOError for TLS too if it would block."""
    try:
        return call(*arguments)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        raise BlockingIOError from None


def ensure_image(packages: Sequence[str] = (), system: Sequence[str] = ()) -> str:
    """Return the name of the local image with this interpreter, these packages and these Debian packages' commands.

    If it does not exist yet, it is imported from its tree.

    Raises:
        SandboxError: the tree cannot be built, or the engine cannot import it.
    """
    root = ensure_root(packages, system)
    name = f"{REPOSITORY}:{root.name}"
    with engine() as client, named(f"the image {name} cannot be created"):
        try:
            client.inspect_image(name)
        except NotFound:
            answer = client.import_image_from_data(as_tar(root), repository=name, changes=[ENVIRONMENT])
            if '"error"' in answer:  # an error in the middle of a response with a status of success
                raise SandboxError(f"the image {name} cannot be created: {answer.strip()[-500:]}") from None
    return name


def build_image(base: str, packages: Sequence[str] = ()) -> str:
    """Build an image from a Python image of a registry or a local one; return its name for `image=`.

    Raises:
        SandboxError: the registry cannot be reached, or a package cannot be installed.
    """
    wanted = sorted(canonical(name) for name in packages)
    lines = [f"FROM {base}", *([f"RUN pip install --no-cache-dir {' '.join(wanted)}"] if wanted else [])]
    lines.append("RUN mkdir -p /work")
    name = f"{REPOSITORY}:{base.replace(':', '-').replace('/', '-')}" + "".join(f"-{part}" for part in wanted)
    try:
        with engine(BUILD_SECONDS) as client, named("docker build"):
            steps: Iterator[dict[str, Any]] = client.build(
                fileobj=io.BytesIO("\n".join(lines).encode()), tag=name, rm=True, decode=True, timeout=BUILD_SECONDS
            )
            for step in steps:
                if "error" in step:
                    raise SandboxError(str(step["error"]))
    except SandboxUnavailable:
        raise
    except SandboxError as error:
        raise SandboxError(
            f"no image from {base}: {error} If no registry can be reached, leave the base out: the image is then"
            " built from this machine's own interpreter."
        ) from None
    return name
