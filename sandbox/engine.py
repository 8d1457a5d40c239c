"""The Docker engine, by its own Python library: finding it, what goes wrong in one sentence, images, one container.

The engine is the one that `docker` on the command line would use: DOCKER_HOST with DOCKER_TLS_VERIFY and
DOCKER_CERT_PATH, else the context that DOCKER_CONTEXT or the user's configuration names, else the local socket.
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
"""Of a part of the attached output: which stream, and how many bytes follow (Docker Engine API, "attach")."""
FAILURES = (DockerException, RequestException, OSError)
START = "install and start one (apt-get install docker.io; systemctl start docker)"
OTHERS = (
    "set DOCKER_HOST to another's socket (rootless: unix://$XDG_RUNTIME_DIR/docker.sock; Podman:"
    " unix://$XDG_RUNTIME_DIR/podman/podman.sock)"
)


def connect(seconds: float = COMMAND_SECONDS) -> APIClient:
    """A client of the engine; the caller closes it.

    Args:
        seconds: within which the engine has to answer each call.
    Raises:
        SandboxUnavailable: no engine, no right to use it, or one that this library cannot talk to.
    """
    where = _where()
    if where.startswith("ssh://"):
        raise SandboxUnavailable(
            f"the Docker engine at {where} cannot be used: a worker talks to its container over a socket. Forward it"
            " (ssh -L /tmp/docker.sock:/var/run/docker.sock HOST) and set DOCKER_HOST=unix:///tmp/docker.sock."
        )
    try:
        if where.startswith("unix://"):
            with socket.socket(socket.AF_UNIX) as there:  # the library leaves one behind that cannot connect
                there.settimeout(seconds)
                there.connect(where.removeprefix("unix://"))
        given = kwargs_from_env()
        if "base_url" not in given:
            given = {**ContextAPI.kwargs_from_context(), **given}
        return Client(timeout=seconds, **given)
    except FAILURES as error:
        raise SandboxUnavailable(f"the Docker engine at {where} cannot be used: {reason(error)}") from None


class Client(APIClient):
    """One whose certificate authority is the engine's own, whatever REQUESTS_CA_BUNDLE says of the web's."""

    def merge_environment_settings(self, *arguments: Any) -> dict[str, Any]:
        """Of a request, as `requests` merges them."""
        merged = super().merge_environment_settings(*arguments)
        if isinstance(self.verify, str):
            merged["verify"] = self.verify
        return merged


@contextlib.contextmanager
def engine(seconds: float = COMMAND_SECONDS) -> Generator[APIClient]:
    """A client for one errand."""
    client = connect(seconds)
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def named(errand: str) -> Generator[None]:
    """Have what the library raises be a SandboxError of one sentence."""
    try:
        yield
    except FAILURES as error:
        raise SandboxError(f"{errand}: {reason(error)}") from None


def _where() -> str:
    """Address of the engine, for a person.

    Raises:
        SandboxUnavailable: a context that is not there, or cannot be read.
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
            f"there is no Docker context {wanted or 'of the name that the user configuration has'} here. Set"
            " DOCKER_CONTEXT to one that is, or DOCKER_HOST to the engine's address."
        )
    return (found.Host or "").removeprefix("http+")


def reason(error: BaseException) -> str:
    """What went wrong and what to do, in one sentence."""
    for cause in _causes(error):
        if (found := _known(cause)) is not None:
            return found
    return " ".join(str(error).split())[:500]


def _known(cause: BaseException) -> str | None:
    """The sentence for one kind of cause."""
    if isinstance(cause, ImageNotFound):
        return f"{cause.explanation}. Make it (reasoner sandbox build), or give another image=."
    if isinstance(cause, APIError):
        return " ".join(str(cause.explanation or cause).split())[:500]
    if isinstance(cause, InvalidVersion):
        return f"it speaks an API that is too old: {cause} Install a newer engine."
    if isinstance(cause, TLSParameterError):
        return "TLS is asked for, and cert.pem, key.pem and ca.pem are not all in DOCKER_CERT_PATH (~/.docker)."
    if isinstance(cause, ssl.SSLError):
        said = getattr(cause, "verify_message", "") or cause.reason or cause
        return f"TLS failed ({said}); see DOCKER_TLS_VERIFY and DOCKER_CERT_PATH."
    if isinstance(cause, FileNotFoundError):
        return f"nothing is there; {START}, or {OTHERS}."
    if isinstance(cause, PermissionError):
        return "this user may not use it; join the group docker (usermod -aG docker USER, then log in again)."
    if isinstance(cause, socket.gaierror):
        return f"no machine has that name ({cause.strerror}); see DOCKER_HOST."
    if isinstance(cause, TimeoutError) or "timed out" in str(cause):
        return "it did not answer in time; see its log, and restart it."
    if isinstance(cause, ConnectionError):
        said = os.strerror(cause.errno) if cause.errno else "it hung up"
        return f"it does not answer ({said}); {START}, or {OTHERS}."
    if isinstance(cause, JSONDecodeError | KeyError):
        return "what answers there is no Docker engine; see DOCKER_HOST."
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and the errors that it holds, the innermost first."""
    held = [argument for argument in error.args if isinstance(argument, BaseException)]
    for inner in (*held, getattr(error, "reason", None), error.__cause__ or error.__context__):
        if isinstance(inner, BaseException):
            yield from _causes(inner)
    yield error


class Attached:
    """The standard streams of one container, over the socket by which the engine was asked for them.

    A container that was made with its input open once ends its supervisor when this process is gone: the engine closes
    that input with the socket.

    Args:
        client: of the engine.
        container: made, not yet started: so nothing that it says is missed.
    """

    def __init__(self, client: APIClient, container: str) -> None:
        stream = client.attach_socket(container, ATTACH)
        self._kept = stream  # the response that the library hangs on it
        self._socket: socket.socket = getattr(stream, "_sock", stream)
        self._socket.setblocking(False)
        self._fd = self._socket.fileno()
        self._left = self._stream = 0
        self._header = bytearray()
        self._stderr = bytearray()

    def send(self, data: memoryview) -> int:
        return _at_once(self._socket.send, data)

    def receive(self, into: memoryview) -> int:
        """Bytes of its standard output; what it says on standard error is put aside."""
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
            os.close(self._socket.detach())  # at once, whoever else in the library holds the object

    def kill(self) -> None:
        with contextlib.suppress(OSError):  # closed already
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def wait(self) -> None:
        return

    def poll(self) -> int | None:
        """None while the socket is open."""
        return None if self._socket.fileno() >= 0 else 0

    def _take(self, count: int) -> bytes:
        return _at_once(self._socket.recv, count)


def _at_once(call: Callable[..., Value], *arguments: object) -> Value:
    """Have TLS say in the same way as a plain socket that there is nothing, or no room, now."""
    try:
        return call(*arguments)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        raise BlockingIOError from None


def ensure_image(packages: Sequence[str] = (), system: Sequence[str] = ()) -> str:
    """The local image with this interpreter, these packages and the programs of these Debian packages.

    It is imported from its tree where it is not there yet.

    Raises:
        SandboxError: the tree cannot be made, or the engine cannot take it.
    """
    root = ensure_root(packages, system)
    name = f"{REPOSITORY}:{root.name}"
    with engine() as client, named(f"the image {name} cannot be made"):
        try:
            client.inspect_image(name)
        except NotFound:
            said = client.import_image_from_data(as_tar(root), repository=name, changes=[ENVIRONMENT])
            if '"error"' in said:  # told in the middle of an answer that began well
                raise SandboxError(f"the image {name} cannot be made: {said.strip()[-500:]}") from None
    return name


def build_image(base: str, packages: Sequence[str] = ()) -> str:
    """An image from a Python image, of a registry or local; returns its name for `image=`.

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
            f"no image from {base}: {error} Where no registry can be reached, leave the base out: the image is then"
            " made from this machine's own interpreter."
        ) from None
    return name
