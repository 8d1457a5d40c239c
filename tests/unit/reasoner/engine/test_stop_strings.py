"""Default stop strings reach requests that name none."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from reasoner.engine.stop_strings import VARIABLE, StopStrings, with_stop


@pytest.mark.parametrize(
    ("body", "unchanged"),
    [
        (b'{"prompt": "a"}', False),
        (b'{"prompt": "a", "stop": null}', False),
        (b'{"prompt": "a", "stop": ["x"]}', True),
        (b'{"prompt": "a", "stop": []}', True),
        (b"not json", True),
        (b"[1]", True),
        (b"", True),
    ],
)
def test_only_a_request_that_names_none_is_changed(body: bytes, unchanged: bool) -> None:
    found = with_stop(body, ["END"])
    if unchanged:
        assert found == body
    else:
        assert json.loads(found) == {"prompt": "a", "stop": ["END"], "include_stop_str_in_output": True}


@pytest.mark.parametrize(
    ("path", "method", "changed"),
    [("/v1/completions", "POST", True), ("/v1/chat/completions", "POST", True), ("/v1/models", "GET", False),
     ("/tokenize", "POST", False)],
)  # fmt: skip
def test_a_body_in_parts_arrives_whole(path: str, method: str, changed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '["END"]')
    parts = [b'{"pro', b'mpt": ', b'"a"}']
    messages = [{"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts]
    seen: dict[str, Any] = {}

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None: ...

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        seen.update(body=body, headers=dict(scope["headers"]))

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"content-length", b"15"), (b"a", b"b")]}
    asyncio.run(StopStrings(app)(scope, receive, send))
    assert (b"END" in seen["body"]) is changed
    assert seen["headers"][b"content-length"] == str(len(seen["body"])).encode()
    assert seen["headers"][b"a"] == b"b"
