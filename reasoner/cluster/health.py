"""The health check of a server: whether it answers, and with which weights."""

from __future__ import annotations

import http.client
import json
import time
import urllib.request
from contextlib import suppress
from typing import NamedTuple


class Answer(NamedTuple):
    """Outcome of a health check."""

    at: float
    """Monotonic time at which it was known."""
    up: bool
    version: str | None
    """Version of a sampler's weights, as it says itself; None: not said."""


def ask(url: str, *, key: str, seconds: float, weights: bool) -> Answer:
    """Check the health of a server.

    Args:
        url: http://HOST:PORT.
        key: which it accepts.
        seconds: longest wait for one answer.
        weights: ask for the version of its weights too, which a sampler has.
    """
    up, version = _get(f"{url}/health", key, seconds) is not None, None
    if up and weights and (said := _get(f"{url}/weight_info", key, seconds)):
        with suppress(ValueError, AttributeError):
            found = json.loads(said).get("weight_version")
            version = None if found is None else str(found)
    return Answer(time.monotonic(), up, version)


def _get(url: str, key: str, seconds: float) -> bytes | None:
    """Return the answer to a GET; None: there is none, or a refusal."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=seconds) as answer:
            return bytes(answer.read(1 << 16))
    except (OSError, http.client.HTTPException):
        return None
