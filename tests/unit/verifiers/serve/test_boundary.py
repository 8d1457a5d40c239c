"""Authorization at the service, and its answers to invalid requests; nothing is read before authorization."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from verifiers import registry
from verifiers.serve.bodies import DETAIL, Refused, many_rows, one_row, parsed
from verifiers.serve.boundary import VALUES, Bodies, Door, Scope, ServiceLimits, Share, read_head
from verifiers.serve.service import Service, make_app, rendered

HOST = (b"host", b"127.0.0.1:8800")
KIND = (b"content-type", b"application/json")
TOKEN = (b"authorization", b"Bearer sesame")
ROW = {"verifier": "exact", "completion": "#### 1", "reference": "1"}


def scope(*headers: tuple[bytes, bytes], method: str = "POST", path: str = "/v1/grade") -> Scope:
    return {"type": "http", "method": method, "path": path, "headers": list(headers)}


class Exchange:
    """Send one request by ASGI; return how much was read, and the response."""

    def __init__(self, service: Service, asked: Scope, *parts: bytes, stalls: bool = False, leaves: bool = False):
        self.read, self.read_before = 0, 0
        self.status, self.headers, self.body = 0, {}, b""
        self._parts, self._stalls, self._leaves = list(parts), stalls, leaves
        self._service, self._asked = service, asked

    async def run(self) -> Exchange:
        await self._service(self._asked, self._receive, self._send)
        return self

    async def _receive(self) -> Scope:
        if not self._parts:
            if not self._leaves:
                await asyncio.sleep(1000)
            return {"type": "http.disconnect"}
        part = self._parts.pop(0)
        self.read += len(part)
        return {"type": "http.request", "body": part, "more_body": bool(self._parts) or self._stalls}

    async def _send(self, message: Scope) -> None:
        if "status" in message:
            self.status, self.read_before = message["status"], self.read
        self.headers |= dict(message.get("headers", ()))
        self.body += message.get("body", b"")

    @property
    def detail(self) -> str:
        return json.loads(self.body)["detail"]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(registry, "_allowed", frozenset({"exact", "choice", "weighted", "logic"}))
    limits = ServiceLimits(body_bytes=100_000, batch_rows=8, rows_in_flight=16, held_bytes=150_000, body_seconds=0.3)
    made = make_app(served=["exact", "choice", "weighted", "logic"], workers=1, limits=limits, token="sesame")
    yield made
    made.pool.close()


def ask(service: Service, asked: Scope, *parts: bytes, stalls: bool = False) -> Exchange:
    return asyncio.run(Exchange(service, asked, *parts, stalls=stalls).run())


def post(service: Service, body: object, path: str = "/v1/grade") -> Exchange:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(service, scope(HOST, KIND, TOKEN, path=path), content)


@pytest.mark.parametrize("bound", ["127.0.0.1", "::1", "localhost", "0.0.0.0"])
@pytest.mark.parametrize(
    ("host", "ours"),
    [
        (b"127.0.0.1:8800", True),
        (b"127.0.0.1", True),
        (b"LOCALHOST:9000", True),
        (b"localhost.", True),
        (b"[::1]:8800", True),
        (b"box.lan:8800", True),
        (b"evil.test:8800", False),
        (b"127.0.0.1.evil.test", False),
        (b"localhost.evil.test", False),
        (b"evil.test:8800@127.0.0.1", False),
        (b"127.0.0.1:8800.evil.test", False),
        (b"", False),
        (b":8800", False),
        (b"[::1", True),
        (b"\xff\xfe", False),
        (b"a" * 400, False),
    ],
)
def test_only_our_names_are_called(bound: str, host: bytes, ours: bool) -> None:
    door = Door(bound=bound, names=["box.lan"])
    head = read_head(scope((b"host", host)))
    if ours:
        return door.check_origin(head)
    with pytest.raises(Refused, match="421"):
        door.check_origin(head)


def test_addresses_of_this_machine_are_ours_where_it_listens_on_all() -> None:
    head = read_head(scope((b"host", b"192.0.2.7:8800")))
    Door(bound="0.0.0.0").check_origin(head)
    Door(bound="192.0.2.7").check_origin(head)
    with pytest.raises(Refused):
        Door(bound="127.0.0.1").check_origin(head)


@pytest.mark.parametrize(
    ("origins", "ours"),
    [
        ([], True),
        ([b"http://127.0.0.1:8800"], True),
        ([b"https://127.0.0.1:8800"], False),
        ([b"http://127.0.0.1:8801"], False),
        ([b"http://localhost:8800"], False),
        ([b"null"], False),
        ([b""], False),
        ([b"http://evil.test"], False),
        ([b"http://127.0.0.1:8800", b"http://evil.test"], False),
    ],
)
def test_pages_of_other_origins_are_refused(origins: list[bytes], ours: bool) -> None:
    head = read_head(scope(HOST, *((b"origin", origin) for origin in origins)))
    if ours:
        return Door(bound="127.0.0.1").check_origin(head)
    with pytest.raises(Refused, match="403"):
        Door(bound="127.0.0.1").check_origin(head)


def test_behind_a_proxy_that_speaks_tls_the_page_of_the_name_is_ours() -> None:
    head = read_head(scope((b"host", b"grade.example"), (b"origin", b"https://grade.example")))
    Door(bound="127.0.0.1", names=["grade.example"]).check_origin(head)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([HOST, KIND], 401),
        ([HOST, KIND, (b"authorization", b"Bearer sesam")], 401),
        ([HOST, KIND, (b"authorization", b"Basic sesame")], 401),
        ([HOST, KIND, (b"authorization", b"Bearer \xff\xfe\x00")], 401),
        ([HOST, KIND, TOKEN, TOKEN], 401),
        ([HOST, TOKEN], 415),
        ([HOST, TOKEN, (b"content-type", b"text/plain")], 415),
        ([HOST, TOKEN, (b"content-type", b"application/x-www-form-urlencoded")], 415),
        ([HOST, TOKEN, (b"content-type", b"text/plain; application/json")], 415),
        ([HOST, KIND, TOKEN, (b"content-length", b"100001")], 413),
        ([HOST, KIND, TOKEN, (b"content-length", b"9" * 5000)], 413),
        ([HOST, KIND, TOKEN, *[(b"a", b"b")] * 100], 431),
        ([(b"host", b"evil.test"), KIND, TOKEN], 421),
        ([HOST, KIND, TOKEN, (b"origin", b"null")], 403),
    ],
)
def test_nothing_is_read_of_who_may_not_come_in(
    service: Service, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    done = ask(service, scope(*headers), b"{}")
    assert (done.status, done.read_before) == (status, 0)
    assert len(done.body) < 500


def test_a_refused_body_is_read_away_after_the_answer(service: Service) -> None:
    long = (b"content-length", b"100001")
    done = ask(service, scope(HOST, KIND, TOKEN, long), b"x" * 60_000, b"x" * 40_001)
    assert (done.status, done.read, service._bodies.held) == (413, 100_001, 0)  # pyright: ignore[reportPrivateUsage]
    chunked = (b"transfer-encoding", b"chunked")
    done = ask(service, scope(HOST, KIND, chunked), *[b"x" * 50_000] * 20)
    assert (done.status, done.read) == (401, 400_000), "to a limit"
    done = ask(service, scope(HOST, KIND, TOKEN, long, (b"expect", b"100-continue")), b"x")
    assert (done.status, done.read) == (413, 0), "it waits for leave"


def test_paths_and_methods(service: Service) -> None:
    assert ask(service, scope(HOST, TOKEN, method="GET", path="/v1/grade")).status == 405
    assert ask(service, scope(HOST, TOKEN, KIND, method="POST", path="/health"), b"{}").status == 405
    assert ask(service, scope(HOST, TOKEN, method="GET", path="/none")).status == 404
    assert ask(service, scope(HOST, method="GET", path="/none")).status == 401
    assert ask(service, scope(HOST, TOKEN, method="OPTIONS")).status == 405
    for path in ("/health", "/docs", "/openapi.json"):
        assert ask(service, scope(HOST, method="GET", path=path)).status == 200
    assert ask(service, scope(HOST, method="GET", path="/metrics")).status == 401
    listed = json.loads(ask(service, scope(HOST, TOKEN, method="GET", path="/v1/verifiers")).body)["verifiers"]
    assert [row["name"] for row in listed] == ["choice", "exact", "logic", "weighted"]


def test_bodies_that_stall_or_are_too_many(service: Service) -> None:
    late = ask(service, scope(HOST, KIND, TOKEN), b"{", stalls=True)
    assert (late.status, late.headers[b"connection"]) == (408, b"close")
    assert ask(service, scope(HOST, KIND, TOKEN), b"x" * 60_000, b"x" * 60_000).status == 413
    assert ask(service, scope(HOST, KIND, TOKEN), b" " * 80_000).status == 413  # no room for it, ever

    async def together() -> list[int]:
        asked = [Exchange(service, scope(HOST, KIND, TOKEN), b"x" * 50_000, stalls=True).run() for _ in range(3)]
        return sorted([done.status for done in await asyncio.gather(*asked)])

    assert asyncio.run(together()) == [408, 503, 503]
    assert service._bodies.held == 0  # pyright: ignore[reportPrivateUsage]
    assert post(service, ROW).status == 200


def test_a_body_of_very_many_values_is_too_large() -> None:
    async def receive() -> Scope:
        return {"type": "http.request", "body": b"[" * (VALUES + 1), "more_body": False}

    with pytest.raises(Refused, match="413"):
        asyncio.run(Bodies(ServiceLimits()).read(receive, Share()))


LONG = "x" * 20_000
BROKEN: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"no JSON", "must be JSON in UTF-8"),
    "empty": (b"", "must be JSON in UTF-8"),
    "no object": (b"[1]", "must be a JSON object; got a list of 1"),
    "NaN": (b'{"verifier":"exact","completion":NaN}', "must be JSON"),
    "infinite": (b'{"verifier":"exact","completion":"","reference":[{"a":1e400}]}', "only finite numbers; got inf"),
    "infinite option": (b'{"verifier":"exact","completion":"","options":{"a":[-1e999]}}', "only finite numbers"),
    "bare infinite": (b"1e400", "must be a JSON object; got inf"),
    "half a surrogate": (b'{"verifier":"exact","completion":"\\ud800"}', "must be JSON"),
    "half a surrogate in a key": (b'{"verifier":"exact","completion":"","\\udc00":1}', "must be JSON"),
    "no UTF-8": (b'{"verifier":"exact","completion":"\xff"}', "must be JSON"),
    "deep": (b'{"reference":' + b"[" * 700, "must be JSON"),
    "huge number": (b'{"verifier":"exact","completion":"","reference":' + b"9" * 5000 + b"}", "must be JSON"),
    "text for a list": (b'{"verifier":"exact","completion":["' + LONG.encode() + b'"]}', "got a list of 1"),
    "long key": (b'{"verifier":"exact","completion":"","' + LONG.encode() + b'":1}', "must have no key 'xxx"),
    "verifier is a number": (b'{"verifier":3,"completion":""}', "verifier must be a name; got 3"),
    "options are a list": (b'{"verifier":"exact","completion":"","options":[]}', "options must be an object"),
    "info is text": (b'{"verifier":"exact","completion":"","info":"x"}', "info of the body must be an object"),
    "prompt is a number": (b'{"verifier":"exact","completion":"","prompt":1}', "prompt of the body must be text"),
    "bad option": (b'{"verifier":"exact","completion":"","options":{"' + LONG.encode() + b'":1}}', "verifier 'exact'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_the_client_did_wrong_is_a_short_422(service: Service, name: str) -> None:
    body, said = BROKEN[name]
    done = post(service, body)
    assert done.status == 422
    assert said in done.detail
    assert len(done.detail) <= DETAIL + 4


def test_near_misses_of_them_are_graded(service: Service) -> None:
    for body in (
        b'{"verifier":"exact","completion":"#### \\ud83d\\ude00","reference":"\xf0\x9f\x98\x80"}',
        b'{"verifier":"exact","completion":"#### 1","reference":"1","info":{"a":1e308,"b":[[[[]]]]},"prompt":null}',
        b'{"verifier":"exact","completion":"#### 1","reference":"1","options":{}}',
        b'{"verifier":"choice","completion":"A","reference":"yes","options":{"choices":["yes","no"]}}',
    ):
        done = post(service, body)
        assert (done.status, json.loads(done.body)["outcome"]) == (200, "correct"), done.body


def test_names_that_are_not_served(service: Service) -> None:
    for body in ({**ROW, "verifier": "os:system"}, {**ROW, "verifier": "e" * 20_000}, {**ROW, "verifier": "code"}):
        done = post(service, body)
        assert (done.status, "no verifier" in done.detail) == (404, True)
        assert len(done.detail) <= DETAIL + 4
    part = {"parts": ["os:system"]}
    done = post(service, {**ROW, "verifier": "weighted", "options": part})
    assert (done.status, "'os:system' is not served here" in done.detail) == (404, True)


def test_a_batch_that_can_never_fit_is_too_large(service: Service) -> None:
    row = {"completion": "#### 1", "reference": "1"}
    assert post(service, {"verifier": "exact", "rows": [row] * 9}, "/v1/grade_batch").status == 413
    done = post(service, {"verifier": "exact", "rows": [row] * 8}, "/v1/grade_batch")
    assert [verdict["reward"] for verdict in json.loads(done.body)["verdicts"]] == [1.0] * 8
    assert json.loads(post(service, {"verifier": "exact", "rows": []}, "/v1/grade_batch").body) == {"verdicts": []}


def test_golds_are_checked_in_a_worker(service: Service) -> None:
    def fault(**asked: object) -> str | None:
        done = post(service, asked, "/v1/check_reference")
        assert done.status == 200, done.body
        return json.loads(done.body)["fault"]

    before = service.pool.state().workers
    assert fault(verifier="exact", reference="1") is None
    assert before == 0
    assert service.pool.state().workers == 1
    assert "must" in str(fault(verifier="choice", reference=["x"]))
    assert fault(verifier="logic", reference={"kind": "entailment", "premises": ["p"], "claim": "p"}) is None
    assert post(service, {"verifier": "exact", "options": {"no": 1}}, "/v1/check_reference").status == 422


def test_rows_are_read_as_they_stand() -> None:
    asked = many_rows(parsed(b'{"verifier":"v","options":{"a":1},"rows":[{"completion":"c","prompt":"p"}]}'))
    assert (asked.verifier, asked.options, asked.rows[0].prompt, asked.rows[0].reference) == ("v", {"a": 1}, "p", None)
    with pytest.raises(Refused, match=r"rows\[1\] must be an object"):
        many_rows(parsed(b'{"verifier":"v","rows":[{"completion":"c"},3]}'))
    with pytest.raises(Refused, match=r"rows must be a list; got None"):
        many_rows(parsed(b'{"verifier":"v"}'))
    assert one_row(parsed(b'{"verifier":"v","completion":"c","info":{"k":[1.5]}}')).rows[0].info == {"k": [1.5]}


def test_any_verdict_can_be_written() -> None:
    cleaned = json.loads(rendered({"reason": "half \ud800", "\udc00": [float("nan"), "😀", 1.5, None, True]}))
    assert cleaned == {"reason": "half \ufffd", "\ufffd": ["nan", "😀", 1.5, None, True]}
