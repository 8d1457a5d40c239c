"""Grading service: the pool over HTTP, as one ASGI application. `reasoner verifiers serve` runs it.

Needs the extra `serve` (uvicorn, prometheus-client). `verifiers.serve.client` is its client. Nothing in a request is
graded, checked or created in this process: the pool's workers do that, and can be killed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import NamedTuple

from verifiers.errors import BadOption, UnknownVerifier
from verifiers.kit.describe import describe
from verifiers.pool import GradingPool
from verifiers.registry import VerifierSource, installed
from verifiers.serve import pages
from verifiers.serve.bodies import Asked, Refused, echo, many_rows, one_row, parsed, reference_only
from verifiers.serve.boundary import (
    Bodies,
    Door,
    Head,
    Receive,
    Scope,
    Send,
    ServiceLimits,
    Share,
    busy,
    check_body_kind,
    read_head,
)
from verifiers.serve.figures import CONTENT_TYPE, Figures
from verifiers.verdict import JSON, Outcome, Verdict

WATCH_SECONDS = 0.2
"""Seconds after which a pending request is also watched for the client's disconnection."""
TOO_LATE = 408
TEXT = 2000
"""Most characters of a verifier's fault with a reference."""


class Answer(NamedTuple):
    """Response to a request."""

    body: bytes
    kind: bytes = b"application/json"
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()


Handler = Callable[[bytes, Receive], Awaitable[Answer]]


class Route(NamedTuple):
    """Method and handler of one path."""

    method: str
    handler: Handler
    guarded: bool = True
    """True if the path needs the token."""


class Service:
    """ASGI application of the grading service; see `make_app`."""

    def __init__(self, pool: GradingPool, limits: ServiceLimits, served: frozenset[str], door: Door) -> None:
        self.pool, self.limits, self.served = pool, limits, served
        self.figures = Figures(pool)
        self._door, self._bodies = door, Bodies(limits)
        self._rows = 0
        self._described: bytes | None = None
        docs, spec = pages.docs(), json.dumps(pages.openapi()).encode()
        self._routes: Mapping[str, Route] = {
            "/health": Route("GET", self._health, guarded=False),
            "/docs": Route("GET", partial(_constant, Answer(docs, b"text/html; charset=utf-8")), guarded=False),
            "/openapi.json": Route("GET", partial(_constant, Answer(spec)), guarded=False),
            "/metrics": Route("GET", self._metrics),
            "/v1/verifiers": Route("GET", self._verifiers),
            "/v1/grade": Route("POST", self._grade_one),
            "/v1/grade_batch": Route("POST", self._grade_batch),
            "/v1/check_reference": Route("POST", self._check),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the service's start and end."""
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        share = Share()
        if scope["type"] == "http":
            try:
                await self._respond(scope, receive, send, share)
            except ConnectionResetError:  # the client disconnected
                pass
            finally:
                self._bodies.release(share)
        return None

    async def _respond(self, scope: Scope, receive: Receive, send: Send, share: Share) -> None:
        started = time.perf_counter()
        path = str(scope["path"])
        route, head = self._routes.get(path), None
        try:
            head = read_head(scope)
            self._door.check_origin(head)
            answer = await self._answer(scope, head, route, receive, share)
        except Refused as refused:
            detail = json.dumps({"detail": refused.detail}).encode()
            answer = Answer(detail, status=refused.status, headers=refused.headers)
        done = share.complete or answer.status == TOO_LATE
        unread = head is not None and (head.length or head.chunked) and not (done or head.waits)
        await _send(answer, send, self._bodies.read_away(receive) if unread else None)
        self.figures.time(path if route else "unknown", answer.status, time.perf_counter() - started)

    async def _answer(self, scope: Scope, head: Head, route: Route | None, receive: Receive, share: Share) -> Answer:
        if route is None or route.guarded:
            self._door.check_token(head)
        if route is None:
            raise Refused(404, f"there is no {echo(str(scope['path']))} here; see /docs")
        if scope["method"] != route.method:
            raise Refused(405, f"this path takes only {route.method}", (b"allow", route.method.encode()))
        if route.method == "GET":
            return await route.handler(b"", receive)
        check_body_kind(head, self.limits.body_bytes)
        return await route.handler(await self._bodies.read(receive, share), receive)

    async def _live(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await asyncio.get_running_loop().run_in_executor(None, self.pool.close)
        await send({"type": "lifespan.shutdown.complete"})

    async def _health(self, _: bytes, __: Receive) -> Answer:
        """Return the status and load of the service."""
        state = self.pool.state()
        row = {"status": "ok", "waiting": state.waiting, "workers": state.workers, "grading": state.grading}
        row["capacity"] = self.pool.workers
        return Answer(json.dumps(row).encode())

    async def _metrics(self, _: bytes, __: Receive) -> Answer:
        return Answer(self.figures.text(), CONTENT_TYPE.encode())

    async def _verifiers(self, _: bytes, __: Receive) -> Answer:
        """Return the verifiers served, with their options."""
        if self._described is None:
            listed = await asyncio.get_running_loop().run_in_executor(None, _descriptions, sorted(self.served))
            self._described = json.dumps({"verifiers": listed}).encode()
        return Answer(self._described)

    async def _grade_one(self, body: bytes, receive: Receive) -> Answer:
        """Grade one completion."""
        (verdict,) = await self._grade(one_row(parsed(body)), receive)
        return Answer(rendered(verdict.to_json()))

    async def _grade_batch(self, body: bytes, receive: Receive) -> Answer:
        """Grade several completions; return verdicts in order."""
        verdicts = await self._grade(many_rows(parsed(body)), receive)
        return Answer(rendered({"verdicts": [verdict.to_json() for verdict in verdicts]}))

    async def _check(self, body: bytes, receive: Receive) -> Answer:
        """Return what is wrong with a reference; null if it is usable."""
        asked = reference_only(parsed(body))
        reference = asked.rows[0].reference
        (checked,) = await self._admitted(
            asked, receive, lambda: [self.pool.check(asked.verifier, asked.options, reference)]
        )
        fault = None if checked.outcome is Outcome.CORRECT else checked.reason[:TEXT]
        if checked.outcome is Outcome.VERIFIER_ERROR:
            fault = f"it cannot be checked: {fault}"
        return Answer(rendered({"fault": fault}))

    async def _grade(self, asked: Asked, receive: Receive) -> list[Verdict]:
        verdicts = await self._admitted(asked, receive, lambda: self.pool.submit_batch(*asked))
        self.figures.count(asked.verifier, verdicts)
        return verdicts

    async def _admitted(
        self, asked: Asked, receive: Receive, submit: Callable[[], list[Future[Verdict]]]
    ) -> list[Verdict]:
        """Grade rows in the pool; refuse them if too many are in flight, drop them if the client disconnects."""
        count = len(asked.rows)
        if asked.verifier not in self.served:
            raise Refused(404, f"no verifier {echo(asked.verifier)} here; served: {', '.join(sorted(self.served))}")
        most = min(self.limits.batch_rows, self.limits.rows_in_flight)
        if count > most:
            raise Refused(413, f"a batch may have at most {most} rows; this one has {count}")
        if self._rows + count > self.limits.rows_in_flight:
            self.figures.refused.inc(count)
            raise busy("too many rows in flight")
        self._rows += count
        self.figures.in_flight.set(self._rows)
        try:
            if self.pool.is_plain(asked.verifier):
                return await self._settled(submit(), receive)
            # importing or creating a verifier here would block every other request
            return await self._settled(await asyncio.get_running_loop().run_in_executor(None, submit), receive)
        except UnknownVerifier as error:
            raise Refused(404, str(error)) from error
        except (BadOption, ValueError) as error:
            raise Refused(422, str(error)) from error
        except (CancelledError, RuntimeError) as error:
            raise busy("the service is closing") from error
        finally:
            self._rows -= count
            self.figures.in_flight.set(self._rows)

    async def _settled(self, futures: list[Future[Verdict]], receive: Receive) -> list[Verdict]:
        done = _all_done(futures)
        try:
            await asyncio.wait([done], timeout=WATCH_SECONDS)
            if not done.done():
                gone = asyncio.ensure_future(_disconnected(receive))
                await asyncio.wait([done, gone], return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
            if not done.done():
                raise ConnectionResetError
            return [future.result() for future in futures]
        finally:
            if not done.done():
                self.pool.cancel(futures)


def _all_done(futures: Sequence[Future[Verdict]]) -> asyncio.Future[None]:
    """Return a future that is done when all of `futures` are, with a single call into the event loop."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    if not futures:
        done.set_result(None)
    left = itertools.count(len(futures) - 1, -1)

    def finish() -> None:
        if not done.done():
            done.set_result(None)

    def one_done(_: Future[Verdict]) -> None:
        if next(left) == 0 and not loop.is_closed():
            loop.call_soon_threadsafe(finish)

    for future in futures:
        future.add_done_callback(one_done)
    return done


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _constant(answer: Answer, _: bytes, __: Receive) -> Answer:
    return answer


async def _send(answer: Answer, send: Send, before_end: Coroutine[None, None, None] | None) -> None:
    headers = [
        (b"content-type", answer.kind),
        (b"content-length", str(len(answer.body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if before_end is None:
        return await send({"type": "http.response.body", "body": answer.body})
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    await before_end
    return await send({"type": "http.response.body", "body": b""})


def rendered(value: JSON) -> bytes:
    """Return JSON that any parser accepts: unpaired surrogates are replaced, non-finite numbers become strings."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:  # UnicodeEncodeError is one
        return json.dumps(_encodable(value), ensure_ascii=False, allow_nan=False).encode()


def _encodable(value: JSON) -> JSON:
    match value:
        case str():
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        case float() if value - value != 0:
            return str(value)
        case dict():
            return {str(_encodable(key)): _encodable(inner) for key, inner in value.items()}
        case list():
            return [_encodable(inner) for inner in value]
        case _:
            return value


def _descriptions(names: Sequence[str]) -> list[JSON]:
    sources = {source.name: source for source in installed()}
    found = [(name, describe(sources.get(name, VerifierSource(name, name, "named")).target)) for name in names]
    return [{"name": n, "about": d.about, "options": [*d.options], "fault": d.fault or None} for n, d in found]


SERVED = (
    "all-of choice code countdown exact format gate json_schema length logic math numeric per-row regex repetition"
    " sudoku weighted"
).split()
"""Verifiers served by default: none that calls other machines or loads code named by an option."""


def make_app(
    *,
    served: Sequence[str],
    workers: int = 2,
    limits: ServiceLimits | None = None,
    token: str | None = None,
    host: str = "127.0.0.1",
    names: Sequence[str] = (),
) -> Service:
    """Build the service as an ASGI application; its pool closes with it.

    Args:
        served: names of the verifiers that clients may use. If composed verifiers are among them, also call
            `verifiers.registry.restrict` with these names, so that their parts are limited to them as well.
        workers: number of grading processes.
        limits: limits of requests; None: the defaults.
        token: token that clients must send as `Authorization: Bearer TOKEN`; None: none.
        host: address that the service listens on.
        names: further host names that clients may use, besides `host` and those of this machine.
    """
    pool = GradingPool(workers=workers, isolated=True)
    return Service(pool, limits or ServiceLimits(), frozenset(served), Door(bound=host, names=names, token=token))
