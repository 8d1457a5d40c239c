"""What stands before vLLM's server: the routes that a trainer needs, for who knows the key, and for no web page.

vLLM's own key guards its OpenAI routes alone; those that pause it and give it weights take orders from anyone.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

KEY_VARIABLE = "REASONER_ENGINE_KEY"
ROUTES = frozenset(
    {
        ("GET", "/health"),
        ("GET", "/v1/models"),
        ("POST", "/v1/completions"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/reset_prefix_cache"),
        ("POST", "/collective_rpc"),
    }
)
BODILESS = frozenset({"/pause", "/resume", "/reset_prefix_cache"})
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Callable[[], Awaitable[Message]], Send], Awaitable[None]]


class Gate:
    """ASGI middleware; vLLM's option --middleware names it. The key is in the environment, never on a command line."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._key = os.environ.get(KEY_VARIABLE, "").encode()
        if not self._key:
            raise RuntimeError(f"{KEY_VARIABLE} must hold the key of this server.")

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        """Pass a request on, or refuse it before anything of its body is read."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        refusal = self.refusal(scope)
        if refusal is None:
            return await self._app(scope, receive, send)
        status, reason = refusal
        body = b'{"error": "' + reason + b'"}'
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        return await send({"type": "http.response.body", "body": body})

    def refusal(self, scope: Message) -> tuple[int, bytes] | None:
        """Status and reason; None for what may pass."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value)
        scheme, _, key = b"".join(headers.get(b"authorization", [])).partition(b" ")
        if not hmac.compare_digest(key, self._key) or scheme.lower() != b"bearer":
            return 401, b"this server takes orders from its trainer alone"
        if b"origin" in headers:
            return 403, b"web pages may not use this server"
        if (scope["method"], scope["path"]) not in ROUTES:
            return 404, b"this server has no such route"
        kind = b"".join(headers.get(b"content-type", [])).partition(b";")[0].strip().lower()
        bodiless = scope["path"] in BODILESS and not kind
        if scope["method"] == "POST" and not bodiless and kind != b"application/json":
            return 415, b"Content-Type must be application/json"
        return None
