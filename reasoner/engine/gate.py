"""Access control in front of vLLM's server: only the routes a trainer needs, only with the key, never from a web page.

vLLM's own key protects only its OpenAI routes; the routes that pause it and load weights accept requests from anyone.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

KEY_VARIABLE = "REASONER_ENGINE_KEY"
START_HEADER = "x-reasoner-start"
"""Header of every answer whose value is drawn when the server starts: a server that was started again lacks the weights
that it was sent before."""
ROUTES = frozenset(
    {
        ("GET", "/health"),
        ("GET", "/v1/models"),
        ("GET", "/weight_info"),
        ("POST", "/v1/completions"),
        ("POST", "/detokenize"),
        ("POST", "/inference/v1/generate"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/reset_prefix_cache"),
        ("POST", "/update_weight_version"),
        ("POST", "/collective_rpc"),
    }
)
BODILESS = frozenset({"/pause", "/resume", "/reset_prefix_cache"})
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Callable[[], Awaitable[Message]], Send], Awaitable[None]]


class Gate:
    """ASGI middleware for vLLM's option --middleware. Its key comes from the environment, never from a command line."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._key = os.environ.get(KEY_VARIABLE, "").encode()
        if not self._key:
            raise RuntimeError(f"{KEY_VARIABLE} must be set to the key of this server.")
        self._start = (START_HEADER.encode(), secrets.token_hex(8).encode())

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        """Pass a request on, or refuse it before its body is read."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), self._start]}
            await send(message)

        refusal = self.refusal(scope)
        if refusal is None:
            return await self._app(scope, receive, send_marked)
        status, reason = refusal
        body = b'{"error": "' + reason + b'"}'
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        return await send({"type": "http.response.body", "body": body})

    def refusal(self, scope: Message) -> tuple[int, bytes] | None:
        """Return HTTP status and reason of a refusal; None if the request may pass."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value)
        scheme, _, key = b"".join(headers.get(b"authorization", [])).partition(b" ")
        if not hmac.compare_digest(key, self._key) or scheme.lower() != b"bearer":
            return 401, b"this server accepts requests only from its trainer"
        if b"origin" in headers:
            return 403, b"web pages may not use this server"
        if (scope["method"], scope["path"]) not in ROUTES:
            return 404, b"this server has no such route"
        kind = b"".join(headers.get(b"content-type", [])).partition(b";")[0].strip().lower()
        bodiless = scope["path"] in BODILESS and not kind
        if scope["method"] == "POST" and not bodiless and kind != b"application/json":
            return 415, b"Content-Type must be application/json"
        return None
