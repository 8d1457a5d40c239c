"""Default stop strings for vLLM's OpenAI server, which takes all other defaults from the model folder.

`--middleware reasoner.engine.stop_strings.StopStrings` adds the stop strings in the environment variable
REASONER_STOP_STRINGS (a JSON list) to requests that set none. No torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

VARIABLE = "REASONER_STOP_STRINGS"
PATHS = ("/v1/chat/completions", "/v1/completions")
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class StopStrings:
    """ASGI middleware. The completion includes its stop string, as in training."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app
        self._stop: list[str] = json.loads(os.environ[VARIABLE])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; add the stop strings if it asks for a completion."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in PATHS:
            return await self._app(scope, receive, send)
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":  # the client has gone
                return None
            body, more = body + message.get("body", b""), message.get("more_body", False)
        body = with_stop(body, self._stop)
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
        sent = False

        async def replay() -> dict[str, Any]:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return await self._app(scope, replay, send)


def with_stop(body: bytes, stop: list[str]) -> bytes:
    """Add default stop strings to a request body. One that sets its own, or is not a JSON object, is unchanged.

    Example:
        >>> with_stop(b'{"prompt": "a"}', ["."])
        b'{"prompt": "a", "stop": ["."], "include_stop_str_in_output": true}'
    """
    try:
        row = json.loads(body)
    except ValueError:
        return body
    if not isinstance(row, dict) or row.get("stop") is not None:
        return body
    return json.dumps({**row, "stop": stop, "include_stop_str_in_output": True}).encode()
