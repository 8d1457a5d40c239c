"""A verifier of a grading service, under its URL: `verifier: http://127.0.0.1:8800/math` works wherever a name does."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urlsplit

from verifiers.base import GradingRow, Verifier
from verifiers.errors import BadOption, BadReference, UnknownVerifier, VerifierError
from verifiers.jsonl import is_list, is_object
from verifiers.verdict import JSON, Verdict

TOKEN_VARIABLE = "REASONER_VERIFIER_TOKEN"
BUSY = (429, 503)


class ServiceError(VerifierError):
    """A grading service did not answer as it should."""


class Remote(Verifier):
    """A verifier of a grading service (`reasoner verifiers serve`), called in batches over kept connections.

    Args:
        url: of the service, and the verifier's name as the last part of the path.
        options: of the verifier there.
        token: the service's; None: what the environment variable REASONER_VERIFIER_TOKEN holds.
        seconds: for one batch, waiting for a busy service included; then its rows are `verifier_error`.
        batch: rows of a request, as many as the service takes.
        connections: requests under way at a time.
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
            raise BadOption(  # by http.client, it would stand in the message
                f"token (or {TOKEN_VARIABLE}) must be printable ASCII; it holds something else, such as a line break."
            )
        self._seconds = seconds
        self._idle: list[http.client.HTTPConnection] = []
        """Kept connections that no thread is using."""

    def grade(self, row: GradingRow) -> Verdict:
        return self.grade_batch([row])[0]

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        given: list[JSON] = [
            {
                "completion": _sendable(row.completion),
                "reference": row.reference,
                "prompt": None if row.prompt is None else _sendable(row.prompt),
                "info": dict(row.info),
            }
            for row in rows
        ]
        answer = self._post("/v1/grade_batch", {"verifier": self._verifier, "options": self._options, "rows": given})
        listed = answer.get("verdicts")
        verdicts = [verdict for verdict in listed if is_object(verdict)] if is_list(listed) else []
        if len(verdicts) != len(rows):
            raise ServiceError(f"{self.name} answered without a verdict for each of {len(rows)} rows.")
        try:
            return [Verdict.from_json(verdict) for verdict in verdicts]
        except (ValueError, TypeError) as error:
            raise ServiceError(f"{self.name} answered what is no verdict: {error}.") from error

    def check_reference(self, reference: JSON) -> None:
        answer = self._post(
            "/v1/check_reference", {"verifier": self._verifier, "options": self._options, "reference": reference}
        )
        if answer.get("fault"):
            raise BadReference(str(answer["fault"]))

    def _signed(self, verdict: Verdict, seconds: float) -> Verdict:
        return verdict  # signed by the service, with the version that graded there

    def _post(self, path: str, body: JSON) -> dict[str, JSON]:
        deadline = time.monotonic() + self._seconds
        pause = 0.05
        while True:
            left = deadline - time.monotonic()
            status, answer = self._request(path, json.dumps(body).encode(), max(0.1, left))
            if status == 200:
                return answer
            detail = str(answer.get("detail", answer))[:500]
            if status not in BUSY or left <= pause:
                error = {404: UnknownVerifier, 422: BadOption}.get(status, ServiceError)
                raise error(f"{self.name} answered {status}: {detail}")
            time.sleep(pause)
            pause = min(2.0, pause * 2)

    def _request(self, path: str, body: bytes, seconds: float) -> tuple[int, dict[str, JSON]]:
        """One exchange; a kept connection that the service has closed meanwhile is replaced by a fresh one."""
        while True:
            kept = self._kept()
            connection = kept or self._connect(seconds)
            try:
                if connection.sock is not None:
                    connection.sock.settimeout(seconds)
                headers = {"Content-Type": "application/json"}
                if self._token:
                    headers["Authorization"] = f"Bearer {self._token}"
                connection.request("POST", self._root + path, body, headers)
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if kept is not None and isinstance(error, ConnectionError):
                    continue
                raise ServiceError(
                    f"{self.name} cannot be reached ({type(error).__name__}: {error})."
                    " Start it with `reasoner verifiers serve`."
                ) from error
            self._idle.append(connection)
            return response.status, _object(content)

    def _kept(self) -> http.client.HTTPConnection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def __del__(self) -> None:
        for connection in getattr(self, "_idle", ()):
            connection.close()

    def _connect(self, seconds: float) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=seconds)


def _sendable(text: str) -> str:
    """Without lone surrogates, which no JSON text of a request may hold."""
    return text.encode("utf-8", "replace").decode()


def _object(content: bytes) -> dict[str, JSON]:
    try:
        found = json.loads(content)
    except ValueError:
        return {"detail": content[:200].decode(errors="replace")}
    return found if is_object(found) else {"detail": str(found)[:200]}
