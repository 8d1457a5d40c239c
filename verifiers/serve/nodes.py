"""Grading nodes: services on other machines (`reasoner verifiers serve`) as further workers of a pool.

A row is graded here or on a node, whichever is free first, with the same verdict: a node whose version of a verifier
differs gets none of its rows. Rows that a node loses, refuses or cannot grade are graded elsewhere.
"""

from __future__ import annotations

import http.client
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from urllib.parse import quote, urlsplit

from verifiers.errors import BadOption, UnknownVerifier, VerifierError
from verifiers.jsonl import is_object
from verifiers.pool.lane import NodeLane
from verifiers.pool.work_queue import Item, Kind
from verifiers.serve.addresses import is_address
from verifiers.serve.client import Busy, Remote, TooLarge, row_text
from verifiers.verdict import Outcome

_log = logging.getLogger(__name__)
LOOK_SECONDS = 3.0
"""Time between two looks at a node's health, and the longest wait for its answer."""
LOOKS = 3
"""Looks without an answer after which a node counts as lost, with the rows that it has."""
REST_SECONDS = 30.0
"""Longest rest of a node after a lost request."""
BUSY_SECONDS = 0.3
"""Pause after a node took no rows because it has enough."""
MOST_LANES = 256


class Node:
    """A grading service and what is known about it. Its lanes share one thread that looks at its health."""

    def __init__(
        self, url: str | Callable[[], str | None], *, lanes: int | None = None, token: str | None = None
    ) -> None:
        """Set the address, and ask for the number of workers if `lanes` does not say it.

        Args:
            url: http://HOST:PORT of the service; or a function that returns its present address, None while it is not
                up.
            lanes: chunks that it grades at the same time; None: as many as it has workers, by its own word.
            token: of the service; None: the environment variable REASONER_VERIFIER_TOKEN.
        Raises:
            BadOption: the URL is none.
        """
        self._address: Callable[[], str | None] = (lambda: url) if isinstance(url, str) else url
        self.url, self._token = _checked(self._address()), token
        self.up = False
        self._missed = LOOKS
        self._losses = 0
        """Requests lost since the last one that was answered."""
        self._rests_until = 0.0
        self._refused: set[Kind] = set()
        self._closed = threading.Event()
        self._look_now = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._remotes: list[Remote] = []
        self.lanes = [_Lane(self) for _ in range(lanes or self._workers())]

    def _workers(self) -> int:
        """Ask the node for its number of workers; 2 if it does not answer yet."""
        found = self.health()
        count = found.get("capacity") if found else None
        return max(1, min(MOST_LANES, count)) if isinstance(count, int) else 2

    def start(self) -> None:
        """Begin to look at its health."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name=f"grading-node {self.url}", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Drop all requests, and look no more."""
        self._closed.set()
        self._look_now.set()
        self._abort()

    def takes(self, kind: Kind) -> bool:
        """Return True if it can be reached and may grade rows of this kind."""
        return self.up and not kind.near and kind not in self._refused and time.monotonic() >= self._rests_until

    def refuse(self, kind: Kind, why: str) -> None:
        """Send no rows of this kind any more, and say so once."""
        with self._lock:
            known = kind.name in {one.name for one in self._refused}
            self._refused.add(kind)
        if not known:
            _log.warning("grading node %s grades no rows of %s: %s", self.url, kind.name, why)

    def remote(self, kind: Kind, url: str) -> Remote:
        """Make a client of the node, at its address of now, for one kind."""
        made = Remote(
            f"{url}/{quote(kind.name, safe='')}",
            options={name: value for name, value in kind.options.items() if name != "sandbox"},  # the node chooses
            token=self._token,
            seconds=3600,
            connections=1,
            waits=False,
        )
        with self._lock:
            self._remotes.append(made)
        return made

    def lost(self, why: str) -> None:
        """Take note that a request was lost; the node rests, twice as long each time, until one is answered."""
        with self._lock:
            if not self.up:  # another lane was first
                return
            self.up, self._missed = False, LOOKS
            self._losses += 1
            self._rests_until = time.monotonic() + min(REST_SECONDS, LOOK_SECONDS * 2 ** min(self._losses, 10) / 8)
        if self._losses == 1 and not self._closed.is_set():
            _log.warning("grading node %s is lost (%s): its rows are graded elsewhere", self.url, why)
        self._look_now.set()

    def answered(self) -> None:
        """Take note that a request was answered."""
        if self._losses:
            self._losses = 0
            _log.warning("grading node %s grades again", self.url)

    def _watch(self) -> None:
        said = False
        while not self._closed.is_set():
            self._look_now.clear()
            if not self.up:
                with suppress(BadOption):  # it is none now, and may be one at the next look
                    self.url = _checked(self._address()) or self.url
            if self.health() is not None:
                self.up, self._missed, said = True, 0, True
            else:
                self._missed += 1
                if not said:
                    said = True
                    _log.warning("grading node %s does not answer; rows are graded elsewhere until it does", self.url)
                if self._missed >= LOOKS and self.up:
                    self.lost(f"no answer for {LOOKS * LOOK_SECONDS:.0f} s")
                    self._abort()
            self._look_now.wait(LOOK_SECONDS if self.up else LOOK_SECONDS / 3)

    def _abort(self) -> None:
        with self._lock:
            remotes = list(self._remotes)
        for remote in remotes:
            remote.abort()

    def health(self) -> dict[str, object] | None:
        """Return what the node says about itself; None: nothing."""
        if not self.url:
            return None
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=LOOK_SECONDS)
        try:
            connection.request("GET", f"{parts.path}/health")
            response = connection.getresponse()
            found = json.loads(response.read(1 << 16))
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
        return dict(found) if response.status == 200 and is_object(found) else None


class _Lane(NodeLane):
    """One chunk at a time on a node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._remotes: dict[tuple[Kind, str], Remote] = {}
        self.idle = True
        self.kind: Kind | None = None
        self.since = 0.0

    def start(self) -> None:
        self._node.start()

    def stop(self) -> None:
        self._node.stop()

    def takes(self, kind: Kind) -> bool:
        return self._node.takes(kind)

    def row_seconds(self, rows: int) -> float | None:
        return None  # it includes the way there and the wait for a worker

    def grade(self, chunk: Sequence[Item]) -> list[Item]:
        kind = chunk[0].kind
        sent = [item for item in chunk if isinstance(row_text(item.row), str) and _plain(item.row.completion)]
        for item in chunk:
            if item not in sent:
                item.kind = near(kind)
        try:
            if sent:
                self._grade(kind, sent)
        except (UnknownVerifier, BadOption) as error:
            self._node.refuse(kind, str(error))
        except TooLarge:
            for item in sent:
                item.kind = near(kind)
        except Busy:  # with the rows of others
            time.sleep(BUSY_SECONDS)
        except VerifierError as error:
            self._node.lost(str(error))
        except Exception as error:  # boundary: the rows are graded elsewhere
            self._node.lost(f"{type(error).__name__}: {error}")
        return [item for item in chunk if not item.future.done()]

    def _grade(self, kind: Kind, sent: list[Item]) -> None:
        at = (kind, self._node.url)
        if at not in self._remotes:
            self._remotes[at] = self._node.remote(*at)
        verdicts = self._remotes[at].grade_batch([item.row for item in sent])
        self._node.answered()
        for item, verdict in zip(sent, verdicts, strict=True):
            if verdict.outcome is Outcome.VERIFIER_ERROR:
                item.kind = near(kind)
            elif verdict.version != kind.version:
                return self._node.refuse(
                    kind, f"it has version {verdict.version}, and {kind.version} is here. Install the same there."
                )
            else:
                item.settle(replace(verdict, verifier=kind.name))
        return None


def near(kind: Kind) -> Kind:
    """Return the kind of the same rows when they must be graded on this machine."""
    if kind.here is None:
        kind.here = replace(kind, near=True, active=0)
    return kind.here


def _checked(url: str | None) -> str:
    """Return the address of a node without a slash at its end; empty if there is none yet.

    Raises:
        BadOption: it is no address.
    """
    if url and not is_address(url):
        raise BadOption(f"a grading node must be http://HOST:PORT; got {url!r}.")
    return (url or "").rstrip("/")


def _plain(text: str) -> bool:
    """Return True if JSON carries the text as it is: no unpaired surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


__all__ = ["Node"]
