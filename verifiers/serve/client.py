"""Verifier of a grading service, by its URL: `verifier: http://127.0.0.1:8800/math` works like any verifier name."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from urllib.parse import unquote, urlsplit

from verifiers.base import GradingRow, Verifier
from verifiers.errors import BadOption, BadReference, UnknownVerifier, VerifierError
from verifiers.jsonl import SURROGATE, half_surrogate, is_list, is_object
from verifiers.verdict import JSON, Outcome, Verdict, fixed

TOKEN_VARIABLE = "REASONER_VERIFIER_TOKEN"
BUSY = (429, 503)
TOO_LARGE = 413
CONNECT_SECONDS = 10.0
"""Longest wait for a connection."""
ANSWER_BYTES = 64 << 20
"""Most bytes of an answer; a longer one is an error."""


class ServiceError(VerifierError):
    """A grading service is unreachable or gave an invalid answer."""

    of_batch = True


class TooLarge(ServiceError):
    """The request is too large for the service."""


class Busy(ServiceError):
    """The service takes no more rows at present."""


ERRORS: Mapping[int, type[VerifierError]] = {
    404: UnknownVerifier,
    422: BadOption,
    TOO_LARGE: TooLarge,
    **dict.fromkeys(BUSY, Busy),
}


class Remote(Verifier):
    """Verifier of a grading service (`reasoner verifiers serve`), called in batches over persistent connections.

    Args:
        url: of the service, with the verifier's name as the last part of the path.
        options: of the verifier in the service.
        token: token of the service; None: the environment variable REASONER_VERIFIER_TOKEN.
        seconds: time limit of a batch, including waits for a busy service; after it the rows are `verifier_error`.
        batch: rows per request; a batch that is too large for the service is halved.
        connections: concurrent requests.
        waits: False: a busy service raises Busy at once.
    """

    name = "remote"
    in_process = True
    machine_options = frozenset({"token", "seconds", "batch", "connections"})
    reference_schema = {"type": ["string", "object", "array"]}

    def __init__(
        self,
        url: str,
        *,
        options: Mapping[str, JSON] | None = None,
        token: str | None = None,
        seconds: float = 120.0,
        batch: int = 64,
        connections: int = 4,
        waits: bool = True,
    ) -> None:
        parts = urlsplit(url)
        root, _, verifier = parts.path.rstrip("/").rpartition("/")
        if not parts.hostname or parts.username or parts.query or parts.fragment:
            raise BadOption(f"a service's URL must be http://HOST:PORT/VERIFIER; got {url!r}.")
        if not verifier:
            raise UnknownVerifier(f"{url!r} must end in the name of a verifier there, as in {url.rstrip('/')}/math.")
        if batch < 1 or connections < 1 or seconds <= 0:
            raise BadOption(f"batch, connections and seconds must be positive; got {batch}, {connections}, {seconds}.")
        self.name = url
        self.batch_rows, self.concurrency, self.grade_seconds = batch, connections, seconds + 5
        self._verifier, self._root = unquote(verifier), root
        self._host, self._port, self._secure = parts.hostname, parts.port, parts.scheme == "https"
        self._options = dict(options or {})
        self._token = token if token is not None else os.environ.get(TOKEN_VARIABLE, "")
        if self._token and not (self._token.isascii() and self._token.isprintable()):
            raise BadOption(  # checked here because the error of http.client would contain the token
                f"token (or {TOKEN_VARIABLE}) must be printable ASCII; it contains other characters (a line break?)."
            )
        self._seconds, self._waits = seconds, waits
        self._idle: list[http.client.HTTPConnection] = []
        """Open connections that no thread is using."""
        self._in_use: set[http.client.HTTPConnection] = set()
        self._aborts = 0

    def grade(self, row: GradingRow) -> Verdict:
        return self.grade_batch([row])[0]

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        """Return the verdicts in order. A row that JSON cannot express becomes `bad_reference` without being sent."""
        written = [row_text(row) for row in rows]
        sent = [text for text in written if isinstance(text, str)]
        graded = iter(self._graded(sent, time.monotonic() + self._seconds) if sent else [])
        return [next(graded) if isinstance(text, str) else text for text in written]

    def _graded(self, rows: Sequence[str], deadline: float) -> list[Verdict]:
        """Send rows written as JSON, and return their verdicts."""
        head = json.dumps({"verifier": self._verifier, "options": self._options})[:-1]
        body = f'{head}, "rows": [{", ".join(rows)}]}}'.encode()
        try:
            answer = self._post("/v1/grade_batch", body, deadline)
        except TooLarge:
            if len(rows) == 1:
                raise
            half = len(rows) // 2
            return self._graded(rows[:half], deadline) + self._graded(rows[half:], deadline)
        listed = answer.get("verdicts")
        verdicts = [verdict for verdict in listed if is_object(verdict)] if is_list(listed) else []
        if len(verdicts) != len(rows):
            raise ServiceError(f"{self.name} answered without a verdict for each of {len(rows)} rows.")
        try:
            return [Verdict.from_json(verdict) for verdict in verdicts]
        except (TypeError, ValueError, KeyError) as error:
            raise ServiceError(f"{self.name} answered with an invalid verdict: {str(error)[:300]}") from error

    def check_reference(self, reference: JSON) -> None:
        asked = {"verifier": self._verifier, "options": self._options, "reference": reference}
        body = json.dumps(asked).encode()
        answer = self._post("/v1/check_reference", body, time.monotonic() + self._seconds)
        if answer.get("fault"):
            raise BadReference(str(answer["fault"]))

    def _signed(self, verdict: Verdict, seconds: float) -> Verdict:
        return verdict  # the service has set its verifier and version

    def _post(self, path: str, body: bytes, deadline: float) -> dict[str, JSON]:
        pause = 0.05
        while True:
            status, answer = self._request(path, body, deadline)
            if status == 200:
                return answer
            detail = str(answer.get("detail", answer))[:500]
            if status not in BUSY or not self._waits or deadline - time.monotonic() <= pause:
                error = ERRORS.get(status, ServiceError)
                raise error(f"{self.name} answered {status}: {detail}")
            time.sleep(pause)
            pause = min(2.0, pause * 2)

    def _request(self, path: str, body: bytes, deadline: float) -> tuple[int, dict[str, JSON]]:
        """Send one request and return status and answer; a connection that the service has closed is replaced."""
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        aborts = self._aborts
        while True:
            kept = self._kept()
            connection = kept or self._connect(deadline)
            self._in_use.add(connection)
            try:
                connection.response_class = partial(_Response, deadline=deadline)  # pyright: ignore[reportAttributeAccessIssue]
                if connection.sock is not None:
                    connection.sock.settimeout(_left(deadline))
                connection.request("POST", self._root + path, body, headers)
                response = connection.getresponse()
                content = response.read(ANSWER_BYTES + 1)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if kept is not None and isinstance(error, ConnectionError) and self._aborts == aborts:
                    continue
                raise ServiceError(
                    f"{self.name} cannot be reached ({type(error).__name__}: {error})."
                    " Start it with `reasoner verifiers serve`."
                ) from error
            finally:
                self._in_use.discard(connection)
            if len(content) > ANSWER_BYTES:
                connection.close()
                raise ServiceError(f"{self.name} must answer with at most {ANSWER_BYTES} bytes; it sent more.")
            self._idle.append(connection)
            return response.status, _object(content)

    def abort(self) -> None:
        """End the requests under way, from any thread: they raise ServiceError."""
        self._aborts += 1
        for connection in list(self._in_use):
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def _kept(self) -> http.client.HTTPConnection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def __del__(self) -> None:
        for connection in getattr(self, "_idle", ()):
            connection.close()

    def _connect(self, deadline: float) -> http.client.HTTPConnection:
        seconds = min(CONNECT_SECONDS, _left(deadline))
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=seconds)


class _UntilDeadline(io.RawIOBase):
    """Reader of a socket that stops at a deadline, however slowly the bytes arrive."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = connection, deadline
        self._held = connection.makefile("rb")
        """Keeps the socket open until the answer is read."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if time.monotonic() >= self._deadline:
            raise TimeoutError("timed out")
        self._socket.settimeout(_left(self._deadline))
        return self._socket.recv_into(buffer)

    def close(self) -> None:
        self._held.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """Response whose headers and body must arrive before a deadline (monotonic seconds)."""

    def __init__(self, sock: socket.socket, *, deadline: float, method: str | None = None, **options: object) -> None:
        super().__init__(sock, method=method)
        self.fp.close()
        self.fp = io.BufferedReader(_UntilDeadline(sock, deadline))


def _left(deadline: float) -> float:
    return max(0.01, deadline - time.monotonic())


def row_text(row: GradingRow) -> str | Verdict:
    """Return a row as JSON text, or a `bad_reference` verdict if JSON cannot express it."""
    given: dict[str, JSON] = {
        "completion": _sendable(row.completion),
        "reference": row.reference,
        "prompt": None if row.prompt is None else _sendable(row.prompt),
        "info": dict(row.info),
    }
    try:
        text = json.dumps(given, allow_nan=False)
    except (ValueError, RecursionError) as error:
        return fixed(Outcome.BAD_REFERENCE, f"the row cannot be sent as JSON: {error}")
    if SURROGATE.search(text.encode()) and (half := half_surrogate(given)):
        return fixed(Outcome.BAD_REFERENCE, f"the row {half}")
    return text


def _sendable(text: str) -> str:
    """Replace unpaired surrogates, which the JSON of a request must not contain, by "?"."""
    return text.encode("utf-8", "replace").decode()


def _object(content: bytes) -> dict[str, JSON]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {"detail": content[:200].decode(errors="replace")}
    return found if is_object(found) else {"detail": str(found)[:200]}
