"""The grading service: the pool over HTTP. `reasoner verifiers serve` runs it; `verifiers.serve.client` speaks to it.

Needs the extra `serve` (fastapi, uvicorn, prometheus-client).
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Depends, FastAPI, Header, HTTPException, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from verifiers.base import GradingRow
from verifiers.errors import BadOption, BadReference, UnknownVerifier
from verifiers.kit.describe import describe
from verifiers.pool import GradingPool
from verifiers.registry import VerifierSource, get_verifier, installed
from verifiers.verdict import JSON, Verdict

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLimits:
    """What the service takes."""

    body_bytes: int = 16 << 20
    """Of one request; more is answered 413."""
    batch_rows: int = 256
    """Of one batch; more is answered 413."""
    rows_in_flight: int = 4096
    """Rows being graded or waiting; more are answered 503 with Retry-After, and the client tries again."""


class Row(BaseModel):
    """One completion to grade."""

    model_config = ConfigDict(extra="forbid")
    completion: str
    reference: JsonValue = None
    prompt: str | None = None
    info: dict[str, JsonValue] = Field(default_factory=dict)

    def grading_row(self) -> GradingRow:
        """As the pool takes it."""
        return GradingRow(completion=self.completion, reference=self.reference, prompt=self.prompt, info=self.info)


class Chosen(BaseModel):
    """Which verifier grades."""

    model_config = ConfigDict(extra="forbid")
    verifier: str
    options: dict[str, JsonValue] = Field(default_factory=dict)


class GradeOne(Row, Chosen):
    """One row and its verifier."""


class GradeBatch(Chosen):
    """Rows of one verifier."""

    rows: list[Row]


class CheckReference(Chosen):
    """A gold that is to be checked."""

    reference: JsonValue = None


class Figures:
    """Metrics for Prometheus."""

    def __init__(self, pool: GradingPool) -> None:
        self.registry = CollectorRegistry()
        self.verdicts = Counter(
            "reasoner_verdicts_total", "Verdicts given", ["verifier", "outcome"], registry=self.registry
        )
        self.grading = Histogram(
            "reasoner_grading_seconds", "Time of grading a row", ["verifier"], buckets=SECONDS, registry=self.registry
        )
        self.requests = Histogram(
            "reasoner_request_seconds", "Time of a request", ["path", "status"], buckets=SECONDS, registry=self.registry
        )
        self.refused = Counter("reasoner_rows_refused_total", "Rows answered 503", registry=self.registry)
        self.in_flight = Gauge("reasoner_rows_in_flight", "Rows that wait or are graded", registry=self.registry)
        workers = Gauge("reasoner_workers", "Grading processes alive", registry=self.registry)
        workers.set_function(lambda: pool.state().workers)

    def count(self, name: str, verdict: Verdict) -> None:
        """Count one verdict."""
        self.verdicts.labels(name, str(verdict.outcome)).inc()
        self.grading.labels(name).observe(verdict.seconds)


class Grader:
    """Grades rows of requests within the limits."""

    def __init__(self, pool: GradingPool, limits: ServiceLimits, served: frozenset[str]) -> None:
        self.pool, self.limits, self.served = pool, limits, served
        self.figures = Figures(pool)
        self._rows = 0

    async def grade(self, name: str, options: Mapping[str, JSON], rows: Sequence[Row]) -> list[Verdict]:
        """Verdicts in the order of the rows."""
        self.require(name)
        if len(rows) > self.limits.batch_rows:
            raise HTTPException(413, f"a batch may have {self.limits.batch_rows} rows; this one has {len(rows)}")
        if self._rows + len(rows) > self.limits.rows_in_flight:
            self.figures.refused.inc(len(rows))
            raise HTTPException(503, "busy: too many rows in flight", headers={"Retry-After": "1"})
        self._rows += len(rows)
        self.figures.in_flight.set(self._rows)
        try:
            futures = await run_in_threadpool(self._submit, name, options, rows)
            verdicts = list(await asyncio.gather(*map(asyncio.wrap_future, futures)))
        finally:
            self._rows -= len(rows)
            self.figures.in_flight.set(self._rows)
        for verdict in verdicts:
            self.figures.count(name, verdict)
        return verdicts

    def require(self, name: str) -> None:
        """Answer 404 for a verifier that is not served."""
        if name not in self.served:
            raise HTTPException(404, f"no verifier {name!r} here; served: {', '.join(sorted(self.served))}")

    def _submit(self, name: str, options: Mapping[str, JSON], rows: Sequence[Row]) -> list[Future[Verdict]]:
        try:
            return [self.pool.submit(name, options, row.grading_row()) for row in rows]
        except UnknownVerifier as error:
            raise HTTPException(404, str(error)) from error
        except (BadOption, ValueError) as error:
            raise HTTPException(422, str(error)) from error

    def check(self, name: str, options: Mapping[str, JSON], reference: JSON) -> str | None:
        """What is wrong with a gold."""
        try:
            get_verifier(name, **options).check_reference(reference)
        except BadReference as error:
            return str(error)
        except UnknownVerifier as error:
            raise HTTPException(404, str(error)) from error
        except BadOption as error:
            raise HTTPException(422, str(error)) from error
        return None


class Boundary:
    """Times every request, and answers 413 to a body that is larger than allowed without keeping it."""

    def __init__(self, app: ASGIApp, limit: int, figures: Figures) -> None:
        self._app, self._limit, self._figures = app, limit, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        reason = f"a request may have {self._limit} bytes"
        received, status = 0, 500

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise HTTPException(413, reason)
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            if not length.isdigit() or int(length) > self._limit:
                await _discard(receive, at_most=4 * self._limit)
                await JSONResponse({"detail": reason}, 413)(scope, receive, watched)
            else:
                await self._app(scope, counted, watched)
        finally:
            path = getattr(scope.get("route"), "path", "unknown")
            self._figures.requests.labels(path, str(status)).observe(time.perf_counter() - started)


async def _discard(receive: Receive, *, at_most: int) -> None:
    """Read a body away: a client that writes all of it before it listens would see a broken pipe and no answer."""
    while at_most > 0:
        message = await receive()
        at_most -= len(message.get("body", b""))
        if not message.get("more_body"):
            return


SERVED = (
    "all-of choice code countdown exact format gate json_schema length logic math numeric per-row regex repetition"
    " weighted"
).split()
"""What is served unless the user names something else: nothing that calls other machines or loads code by an option."""


def is_loopback(host: str) -> bool:
    """Whether a host can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_app(
    *,
    served: Sequence[str],
    workers: int = 2,
    limits: ServiceLimits | None = None,
    token: str | None = None,
) -> FastAPI:
    """The service as an ASGI application; its pool closes with it.

    Args:
        served: names that clients may use. Call `verifiers.registry.restrict` with them too, where composed
            verifiers are among them: it holds for their parts.
        workers: grading processes.
        limits: of requests.
        token: that clients must send as `Authorization: Bearer TOKEN`; None: none.
    """
    pool = GradingPool(workers=workers)
    bounds = limits or ServiceLimits()
    grader = Grader(pool, bounds, frozenset(served))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        pool.close()

    def allow(authorization: str = Header(default="")) -> None:
        given = authorization.removeprefix("Bearer ").encode()
        if token is not None and not hmac.compare_digest(given, token.encode()):
            raise HTTPException(401, "send the service's token: Authorization: Bearer TOKEN")

    app = FastAPI(title="reasoner grading service", version="1", lifespan=lifespan)
    app.add_middleware(Boundary, limit=bounds.body_bytes, figures=grader.figures)
    _add_routes(app, grader, allow)
    return app


def _add_routes(app: FastAPI, grader: Grader, allow: Callable[..., None]) -> None:
    guarded = [Depends(allow)]

    @app.get("/health")
    async def health() -> dict[str, JsonValue]:
        """Whether the service is up, and how busy it is."""
        state = grader.pool.state()
        return {"status": "ok", "waiting": state.waiting, "workers": state.workers, "grading": state.grading}

    @app.get("/metrics", dependencies=guarded)
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(generate_latest(grader.figures.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/verifiers", dependencies=guarded)
    def verifiers() -> dict[str, JsonValue]:
        """What is served, with options."""
        sources = {source.name: source for source in installed()}
        return {"verifiers": [_described(sources.get(n, VerifierSource(n, n, "named"))) for n in sorted(grader.served)]}

    @app.post("/v1/grade", dependencies=guarded)
    async def grade(asked: GradeOne) -> JSONResponse:
        """Grade one completion."""
        (verdict,) = await grader.grade(asked.verifier, asked.options, [asked])
        return JSONResponse(verdict.to_json())

    @app.post("/v1/grade_batch", dependencies=guarded)
    async def grade_batch(asked: GradeBatch) -> JSONResponse:
        """Grade completions; verdicts in order."""
        verdicts = await grader.grade(asked.verifier, asked.options, asked.rows)
        return JSONResponse({"verdicts": [verdict.to_json() for verdict in verdicts]})

    @app.post("/v1/check_reference", dependencies=guarded)
    def check_reference(asked: CheckReference) -> dict[str, JsonValue]:
        """What is wrong with a gold; null where it can be used."""
        grader.require(asked.verifier)
        return {"fault": grader.check(asked.verifier, asked.options, asked.reference)}


def _described(source: VerifierSource) -> JsonValue:
    found = describe(source.target)
    return {"name": source.name, "about": found.about, "options": [*found.options], "fault": found.fault or None}
