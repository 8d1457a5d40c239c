"""The grading service under attack: every row one verdict, none wrong, memory bounded, and an end when it is told to.

The short form runs with the integration tests, the long one with the slow ones.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

pytestmark = pytest.mark.integration
UNIT = Path(__file__).parents[1] / "unit" / "verifiers"
FAULTY, SLOW = f"{UNIT / 'faulty.py'}:Faulty", f"{UNIT / 'strangers.py'}:Slow"
NAMES = ("exact", "math", "choice", "json_schema", "numeric", "weighted", FAULTY, SLOW)
MEBIBYTE = 1 << 20


class Served(NamedTuple):
    """A running service."""

    process: subprocess.Popen[str]
    port: int

    def post(self, path: str, body: object, *, seconds: float = 60.0) -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request("POST", path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def get(self, path: str, *, seconds: float = 60.0) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def open(self, sent: bytes) -> socket.socket:
        """Open a connection and send this part of a request."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        with suppress(OSError):
            connection.sendall(sent)
        return connection

    @property
    def memory(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


@contextmanager
def served(*arguments: str, descriptors: int | None = None, **environment: str) -> Iterator[Served]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = [item for name in NAMES for item in ("-v", name)]
    command = [sys.executable, "-m", "reasoner", "verifiers", "serve", "--port", str(port), *names, *arguments]

    def limit() -> None:
        if descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    process = subprocess.Popen(
        command, env=os.environ | environment, stderr=subprocess.PIPE, text=True, preexec_fn=limit
    )
    made = Served(process, port)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, process.stderr and process.stderr.read()
            with suppress(OSError):
                made.get("/health")
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield made
    finally:
        process.kill()
        process.communicate()


def rows_of(rng: random.Random) -> tuple[Mapping[str, object], list[str]]:
    """A request for a batch, and the outcomes that it must get."""
    right = [rng.random() < 0.5 for _ in range(rng.choice([1, 3, 16]))]
    kind = rng.randrange(6)
    number = rng.randrange(1000)
    asked: dict[str, object] = {"verifier": ("exact", "math", "choice", "json_schema", "weighted", FAULTY)[kind]}
    texts = [str(number if yes else number + 1) for yes in right]
    references: list[object] = [str(number)] * len(right)
    completions = [(r"\boxed{%s}" if kind == 1 else "#### %s") % text for text in texts]
    if kind == 2:
        asked["options"] = {"choices": [f"word{number}", f"text{number}"]}
        completions = [f"The answer is {'word' if yes else 'text'}{number}" for yes in right]
        references = [f"word{number}"] * len(right)
    elif kind == 3:
        asked["options"] = {"schema": {"type": "object", "required": [f"k{number}"]}}
        completions = [json.dumps({f"k{number if yes else -1}": 1}) for yes in right]
    elif kind == 4:
        asked["options"] = {"parts": ["exact", {"verifier": "numeric", "weight": 0.0}]}
    elif kind == 5:
        completions = [
            rng.choice(["good"] * 20 + ["raise"] * 4 + ["segfault", "os._exit"]) if yes else "bad" for yes in right
        ]
        references = ["good"] * len(right)
    asked["rows"] = [{"completion": c, "reference": r} for c, r in zip(completions, references, strict=True)]
    outcomes = ["correct" if yes else "incorrect" for yes in right]
    faults = ("segfault", "raise", "os._exit")
    return asked, ["verifier_error" if c in faults else o for c, o in zip(completions, outcomes, strict=True)]


class Attack:
    """An attack for some seconds: honest clients, and everything that disturbs them."""

    def __init__(self, service: Served, *, clients: int, seconds: float) -> None:
        self._service, self._until = service, time.monotonic() + seconds
        self.right, self.refused = 0, 0
        self.ungraded: Counter[str] = Counter()
        self.wrong: list[object] = []
        self.faults: list[str] = []
        self.health, self.memory = 0.0, 0
        self._threads = [threading.Thread(target=self._honest, args=(number,)) for number in range(clients)]
        disturbers = (self._loris, self._stalled, self._floods, self._kills, self._leavers, self._nonsense, self._looks)
        self._threads += [threading.Thread(target=self._guarded, args=(each,)) for each in disturbers]

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join(timeout=400)
            assert not thread.is_alive(), "a client was never answered"

    def _going(self) -> bool:
        return time.monotonic() < self._until

    def _guarded(self, disturb: Callable[[], None]) -> None:
        while self._going():
            with suppress(OSError, http.client.HTTPException):
                disturb()

    def _honest(self, number: int) -> None:
        rng = random.Random(number)
        while self._going():
            asked, wanted = rows_of(rng)
            try:
                status, answer = self._service.post("/v1/grade_batch", asked, seconds=240)
            except (OSError, http.client.HTTPException) as error:
                self.faults.append(repr(error))
                continue
            if status == 503:
                self.refused += 1
                time.sleep(0.2)
                continue
            verdicts = answer.get("verdicts")
            if status != 200 or not isinstance(verdicts, list) or len(verdicts) != len(wanted):
                self.wrong.append((status, answer))
                continue
            for verdict, outcome in zip(verdicts, wanted, strict=True):
                if verdict["outcome"] == outcome:
                    self.right += 1
                elif verdict["outcome"] == "verifier_error":  # its worker was killed
                    self.ungraded[str(verdict["detail"]["reason"])[:60]] += 1
                else:
                    self.wrong.append((asked["verifier"], verdict, outcome))

    def _loris(self) -> None:
        """Forty clients that send their headers a byte at a time."""
        connections = [self._service.open(b"POST /v1/grade HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ") for _ in range(40)]
        while self._going() and connections:
            time.sleep(0.5)
            for connection in list(connections):
                try:
                    connection.sendall(b"a")
                except OSError:
                    connection.close()
                    connections.remove(connection)
        for connection in connections:
            connection.close()

    def _stalled(self) -> None:
        """Twenty clients that send most of a large body and stop."""
        head = (
            b"POST /v1/grade HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 16000000\r\n\r\n"
        )
        connections = [self._service.open(head) for _ in range(20)]
        for connection in connections:
            connection.settimeout(2)
            with suppress(OSError):
                connection.sendall(b" " * 15_000_000)
        time.sleep(3)
        for connection in connections:
            connection.close()

    def _floods(self) -> None:
        many = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"".join(b"a%d: b\r\n" % n for n in range(40_000))
        for sent in (many + b"\r\n", b"A" * 500_000, b"GET / HTTP/1.1\r\nX: " + b"y" * 500_000):
            connection = self._service.open(sent)
            with suppress(OSError):
                connection.recv(1000)
            connection.close()
        time.sleep(0.2)

    def _kills(self) -> None:
        time.sleep(1.0)
        if workers := self._service.workers():
            with suppress(psutil.NoSuchProcess):
                random.choice(workers).kill()

    def _leavers(self) -> None:
        """Send a request for much slow work, and disconnect."""
        rows = [{"completion": str(n), "reference": "1"} for n in range(200)]
        body = json.dumps({"verifier": SLOW, "options": {"row": 0.3}, "rows": rows}).encode()
        head = b"POST /v1/grade_batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        connection = self._service.open(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(0.5)
        connection.close()

    def _nonsense(self) -> None:
        for body in (b"{", b"[" * 100_000, b'{"verifier":"exact","completion":NaN}', b"1e400", b'{"\\ud800":1}'):
            status, answer = self._service.post("/v1/grade", body)
            if status not in (422, 503) or len(json.dumps(answer)) > 600:  # 503: stalled bodies hold the room
                self.wrong.append((body[:50], status, answer))
        time.sleep(0.2)

    def _looks(self) -> None:
        started = time.monotonic()
        self._service.get("/health")
        self.health = max(self.health, time.monotonic() - started)
        self.memory = max(self.memory, self._service.memory)
        time.sleep(0.2)


def check(attack: Attack, service: Served) -> None:
    """Check the conditions that must hold after an attack."""
    assert attack.wrong == []
    assert attack.faults == []
    assert attack.right > 100
    assert attack.ungraded.total() <= 0.15 * attack.right, attack.ungraded
    assert attack.health < 10, "something stopped the event loop"
    assert attack.memory < 700 * MEBIBYTE
    assert service.process.poll() is None
    deadline = time.monotonic() + 30
    while json.loads(service.get("/health"))["waiting"]:
        assert time.monotonic() < deadline, "rows of clients that left are still there"
        time.sleep(0.2)
    assert service.post("/v1/grade", {"verifier": "exact", "completion": "#### 1", "reference": "1"})[1]["reward"] == 1


def ends_when_told(service: Served, *, seconds: float) -> None:
    """SIGTERM with rows in flight and clients that stall: the rows are answered, and it ends."""
    stalled = [
        service.open(b"POST /v1/grade HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n" + rest)
        for rest in (b"", b"Content-Length: 1000\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{")
    ]
    asked = {"verifier": SLOW, "options": {"row": 0.4}, "rows": [{"completion": "a", "reference": "a"}] * 4}
    answers: list[int] = []
    clients = [
        threading.Thread(target=lambda: answers.append(service.post("/v1/grade_batch", asked)[0])) for _ in range(3)
    ]
    for client in clients:
        client.start()
    time.sleep(0.8)
    service.process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    service.process.wait(timeout=seconds + 15)
    assert time.monotonic() - started < seconds + 6
    for client in clients:
        client.join(timeout=30)
    assert answers == [200] * 3
    for connection in stalled:
        connection.close()


def test_the_service_under_attack() -> None:
    with served("--stop-seconds", "6") as service:
        attack = Attack(service, clients=16, seconds=10)
        attack.run()
        check(attack, service)
        ends_when_told(service, seconds=6)


def test_few_descriptors_are_kept_for_the_workers() -> None:
    with served(descriptors=90) as service:
        idle = [service.open(b"GET /health HTTP/1.1\r\n") for _ in range(120)]
        row = {"verifier": "exact", "completion": "#### 1", "reference": "1"}
        for _ in range(20):
            assert service.post("/v1/grade", row)[1]["reward"] == 1
        for connection in idle:
            connection.close()


def test_headers_and_bodies_that_do_not_come_are_given_up() -> None:
    with served() as service:
        started = time.monotonic()
        with service.open(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n") as connection:
            with suppress(ConnectionResetError):
                assert connection.recv(1000) == b""
            assert 5 < time.monotonic() - started < 25
        body = b"x" * 65536
        parts = [b"%x\r\n" % len(body) + body + b"\r\n"] * 800
        head = b"POST /v1/grade HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with service.open(head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + b"0\r\n\r\n") as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
        with service.open(head + b"Content-Length: 50000000\r\nExpect: 100-continue\r\n\r\n") as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("text", ["", " \n\t", "two words", "ünïcode", "line\nbreak"])
def test_a_token_that_is_none_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(text)
    command = [sys.executable, "-m", "reasoner", "verifiers", "serve", "--host", "0.0.0.0", "--port", "1"]
    environment = {key: value for key, value in os.environ.items() if key != "REASONER_VERIFIER_TOKEN"}
    for arguments, more in (
        (["--token-file", str(tmp_path / "token")], {}),
        ([], {"REASONER_VERIFIER_TOKEN": text}),
    ):
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=60, env=environment | more
        )
        assert done.returncode == 2, done.stderr
        assert "must be printable ASCII without spaces, and not empty" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("descriptors", [None, 300])
def test_the_service_under_a_long_attack_of_200_clients(descriptors: int | None) -> None:
    with served("--stop-seconds", "10", descriptors=descriptors) as service:
        attack = Attack(service, clients=200, seconds=90)
        attack.run()
        if descriptors is not None:  # connections beyond what it can hold are closed, and their clients know
            attack.faults.clear()
        check(attack, service)
        ends_when_told(service, seconds=10)


@pytest.mark.slow
def test_a_full_disk_costs_no_verdict(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        with suppress(OSError), (tmp_path / "fills").open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        with served(TMPDIR=str(tmp_path)) as service:
            for completion in ("talk", "good", "bad", "segfault", "good"):
                asked = {"verifier": FAULTY, "completion": completion, "reference": "good"}
                status, verdict = service.post("/v1/grade", asked)
                wanted = {"good": "correct", "bad": "incorrect"}.get(completion)
                assert status == 200
                assert wanted is None or verdict["outcome"] == wanted, verdict
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
